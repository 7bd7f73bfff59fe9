"""Task `synthesize`: a checkpoint in upstream's format with seeded weights, for trying and testing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..protocol import Job


@dataclass(frozen=True)
class Request:
    preset: Literal["soprano-1.0", "soprano-1.1", "tiny", "tiny-1.0"]
    seed: int = 0
    parts: list[Literal["decoder", "lm"]] = field(default_factory=lambda: ["decoder"])

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError("seed is not in 0..2^63")
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError("parts must name `decoder`, `lm`, or both, each once")


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes artifact `checkpoint` (decoder.pth), and with part `lm` the language model's files, each an
    artifact of its own name. Result: {"preset", "seed", "architecture" of the decoder}.
    """
    from .. import synthetic

    total = len(request.parts)
    job.progress("draw weights", 0, total)
    architecture = synthetic.PRESETS[request.preset]
    if "decoder" in request.parts:
        data = synthetic.serialize(synthetic.weights(architecture, request.seed))
        job.write("checkpoint", "decoder.pth", data)
    if "lm" in request.parts:
        for name, data in synthetic.language_model(request.preset, request.seed).items():
            job.write(name, name, data)
    job.progress("draw weights", total, total)
    return {"preset": request.preset, "seed": request.seed, "architecture": architecture.describe()}
