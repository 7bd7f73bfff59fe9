"""Task `bench`: how long one half of a checkpoint takes in PyTorch, at given shapes on given threads.

The language model is `transformers`' own, with the attention that it chooses; the decoder is upstream's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..protocol import Job
from ..request import refuse

BUDGET = 6.0
"""Seconds behind which a point has had enough rounds, once there are FEWEST."""
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


@dataclass(frozen=True)
class Request:
    checkpoint: str
    part: Literal["lm", "decoder"]
    threads: int
    rounds: int
    points: list[Point]

    def __post_init__(self) -> None:
        if min(self.threads, self.rounds) < 1:
            raise ValueError("threads and rounds must be 1 or more")
        if any((point.what == "decode") != (self.part == "decoder") for point in self.points):
            raise ValueError("points are of the other part")


def run(request: Request, job: Job) -> dict[str, Any]:
    """Result: {"version", "load_ms", "first_ms", "peak_bytes" or null, "ms": for each point the runs}."""
    directory = Path(request.checkpoint)
    if not directory.is_dir():
        refuse(f"`checkpoint` is not a directory: {request.checkpoint!r}")

    import torch

    torch.set_num_threads(request.threads)
    load, call = _language_model(directory) if request.part == "lm" else _decoder(directory)
    first = call(Point("step") if request.part == "lm" else Point("decode", tokens=8))()
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


def _language_model(directory: Path) -> tuple[float, Callable[[Point], Callable[[], float]]]:
    """Seconds to load, without importing; and for a point what runs it once and gives the seconds, in which
    filling the cache isn't counted."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    from ..errors import ExportError

    began = time.perf_counter()
    try:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    except Exception as error:
        why = str(error).split("\n", 1)[0][:300]
        raise ExportError(
            "checkpoint-language-model",
            f"{directory}: its language model cannot be loaded: {why}",
            "give a folder with config.json and model.safetensors",
        ) from error
    model.eval().requires_grad_(False)
    load, config = time.perf_counter() - began, model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def of(point: Point) -> Callable[[], float]:
        length = 1 if point.what == "step" else point.tokens
        ids = torch.ones(point.batch, length, dtype=torch.int64)
        mask = torch.ones(point.batch, point.past + length, dtype=torch.int64)
        filling = torch.randn(point.batch, config.num_key_value_heads, point.past, size)

        def timed() -> float:
            cache = DynamicCache()
            for layer in range(config.num_hidden_layers if point.past else 0):
                cache.update(filling, filling, layer)
            began = time.perf_counter()
            with torch.inference_mode():
                model(ids, attention_mask=mask, past_key_values=cache, use_cache=True)
            return time.perf_counter() - began

        return timed

    return load, of


def _decoder(directory: Path) -> tuple[float, Callable[[Point], Callable[[], float]]]:
    """Likewise of upstream's decoder."""
    import torch

    from .. import checkpoint, upstream

    upstream.decoder_class()
    began = time.perf_counter()
    decoder, architecture = checkpoint.load(directory)
    decoder.eval()
    load = time.perf_counter() - began

    def of(point: Point) -> Callable[[], float]:
        states = torch.randn(point.batch, architecture.input_channels, point.tokens)

        def timed() -> float:
            began = time.perf_counter()
            with torch.inference_mode():
                decoder(states)
            return time.perf_counter() - began

        return timed

    return load, of


def _peak() -> int | None:
    """The most memory that this process has held at once, where the system tells."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("VmHWM:")]
    return int(found[0][1]) * 1024 if found else None
