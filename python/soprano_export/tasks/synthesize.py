"""Task `synthesize`: a checkpoint of seeded weights in a family's own layout, for trying and testing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import families
from ..protocol import Job
from ..request import refuse


@dataclass(frozen=True)
class Request:
    family: str
    preset: str
    graphs: list[str]
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError("seed is not in 0..2^63")
        if not self.graphs or len(set(self.graphs)) < len(self.graphs):
            raise ValueError("graphs must name at least one, each once")


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes the files that the graphs are read from. Result: {"preset", "seed", "architecture"}."""
    family = families.load(request.family)
    if request.preset not in family.presets:
        refuse(f"`preset` is {request.preset!r}", f"one of: {', '.join(family.presets)}")
    total = len(request.graphs)
    job.progress("draw weights", 0, total)
    architecture, files = family.synthesize(request.preset, request.seed, request.graphs)
    for name, (path, data) in files.items():
        job.write(name, path, data)
    job.progress("draw weights", total, total)
    return {"preset": request.preset, "seed": request.seed, "architecture": architecture}
