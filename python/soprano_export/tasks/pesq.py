"""Task `pesq`: the perceptual quality of signals, where the user has installed the package `pesq`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from ..errors import ExportError
from ..protocol import Job
from ..request import refuse

RATE = 16_000


@dataclass(frozen=True)
class Request:
    reference: str
    degraded: str


def run(request: Request, job: Job) -> dict[str, Any]:
    """Result: {"scores": for the pairs of tensors 0, 1, … a MOS-LQO or null}, wideband at 16 kHz."""
    import numpy as np

    try:
        import pesq
    except ImportError as error:
        raise ExportError(
            "environment", f"the package pesq cannot be imported: {error}", "pip install pesq"
        ) from error
    references, degraded = _signals(request.reference), _signals(request.degraded)
    if [len(signal) for signal in references] != [len(signal) for signal in degraded]:
        refuse("`reference` and `degraded` are not as many signals of the same lengths")
    scores = []
    for done, (reference, other) in enumerate(zip(references, degraded, strict=True)):
        job.progress("measure PESQ", done, len(references))
        score = None
        if np.any(reference) and np.any(other):
            # Too short, nothing that it takes for speech, or all but silent: of a NaN of its own the package
            # raises ValueError.
            with contextlib.suppress(pesq.PesqError, ValueError):
                score = float(pesq.pesq(RATE, reference, other, "wb"))
        scores.append(score)
    job.progress("measure PESQ", len(references), len(references))
    return {"scores": scores}


def _signals(path: str) -> list[Any]:
    """The tensors `0`, `1`, … of a safetensors file, each f32 [samples]."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        signals = [tensors[str(index)] for index in range(len(tensors))]
    except (OSError, SafetensorError) as error:
        refuse(f"{path}: not a safetensors file: {error}")
    except KeyError as error:
        refuse(f"{path}: it has no tensor {error}")
    if any(signal.dtype != np.float32 or signal.ndim != 1 for signal in signals):
        refuse(f"{path}: its tensors are not all f32 of rank 1")
    if not all(np.isfinite(signal).all() for signal in signals):
        refuse(f"{path}: a sample is not finite")
    return signals
