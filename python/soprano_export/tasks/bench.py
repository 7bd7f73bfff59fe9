"""Task `bench`: how long a graph's own model takes in PyTorch, at given shapes on given threads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import families
from ..protocol import Job
from ..target import Target

BUDGET = 6.0
"""Seconds after which a point has had enough rounds, once there are FEWEST."""
FEWEST = 3


@dataclass(frozen=True)
class Point:
    what: Literal["step", "prefill", "decode"]
    past: int = 0
    tokens: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        if min(self.tokens, self.batch) < 1 or self.past < 0:
            raise ValueError("tokens and batch must be 1 or more, past 0 or more")


POINTS = {"causal": ("step", "prefill"), "signal": ("decode",)}
FIRST = {"causal": Point("step"), "signal": Point("decode", tokens=8)}


@dataclass(frozen=True, kw_only=True)
class Request(Target):
    threads: int
    rounds: int
    points: list[Point]

    def __post_init__(self) -> None:
        if min(self.threads, self.rounds) < 1:
            raise ValueError("threads and rounds must be 1 or more")
        if any(point.what not in POINTS[self.role] for point in self.points):
            raise ValueError(f"points of a {self.role} graph are {' and '.join(POINTS[self.role])}")


def run(request: Request, job: Job) -> dict[str, Any]:
    """Result: {"version", "load_ms", "first_ms", "peak_bytes" or null, "ms": for each point the runs}."""
    kind = families.kind(request)

    import torch

    torch.set_num_threads(request.threads)
    load, call = kind.bench(request)
    first = call(FIRST[request.role])()
    times = []
    for done, point in enumerate(request.points):
        job.progress("time PyTorch", done, len(request.points))
        timed, runs = call(point), []
        timed()
        began = time.perf_counter()
        while len(runs) < request.rounds:
            if len(runs) >= FEWEST and time.perf_counter() - began > BUDGET:
                break
            runs.append(1e3 * timed())
        times.append(runs)
    job.progress("time PyTorch", len(request.points), len(request.points))
    return {
        "version": torch.__version__.split("+")[0],
        "load_ms": 1e3 * load,
        "first_ms": 1e3 * first,
        "peak_bytes": _peak(),
        "ms": times,
    }


def _peak() -> int | None:
    """The most memory that this process has held at once, where the system tells."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    peaks = [line.split() for line in lines if line.startswith("VmHWM:")]
    return int(peaks[0][1]) * 1024 if peaks else None
