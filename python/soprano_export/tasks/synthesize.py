"""Task `synthesize`: a checkpoint in upstream's format with seeded weights, for trying and testing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..protocol import Job


@dataclass(frozen=True)
class Request:
    preset: Literal["soprano-1.0", "soprano-1.1", "tiny", "tiny-1.0"]
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError("seed is not in 0..2^63")


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes artifact `checkpoint` (decoder.pth). Result: {"preset", "seed", "architecture"}."""
    from .. import synthetic

    job.progress("draw weights", 0, 1)
    architecture = synthetic.PRESETS[request.preset]
    data = synthetic.serialize(synthetic.weights(architecture, request.seed))
    job.progress("draw weights", 1, 1)
    job.write("checkpoint", "decoder.pth", data)
    return {"preset": request.preset, "seed": request.seed, "architecture": architecture.describe()}
