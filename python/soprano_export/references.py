"""References of a signal graph: what the unmodified model answers to lifelike and to extreme frames."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save

from .errors import ExportError

EXTREME_LENGTHS = (5, 16)
LOUD = 100.0

Model = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One recorded run: `frames` f32 [batch, channels, length], or [batch, length, channels] where `axis`,
    that of the length, is 1."""

    name: str
    kind: str
    frames: torch.Tensor
    axis: int = 2
    last_bit: dict[str, float | str] | None = None
    """What `last_bit` found, once it was measured."""

    @property
    def described(self) -> dict[str, Any]:
        batch, length = self.frames.shape[0], self.frames.shape[self.axis]
        fact = {"name": self.name, "batch": batch, "length": length, "kind": self.kind}
        return fact if self.last_bit is None else {**fact, "last_bit": self.last_bit}


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """One thread and deterministic kernels, so that two runs agree to the last bit."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)


def lifelike(batch: int, channels: int, length: int, seed: int) -> torch.Tensor:
    """f32 [batch, channels, length], shaped like the rows a language model leaves after its final norm.

    Each row has unit root-mean-square before a per-channel scale (fixed by the seed alone), and
    neighbouring rows are correlated.
    """
    scale = torch.exp(0.4 * torch.randn(channels, 1, generator=torch.Generator().manual_seed(seed)))
    generator = torch.Generator().manual_seed((seed * 1000003 + batch * 10007 + length) % 2**63)
    steps = torch.randn(batch, channels, length + 2, generator=generator)
    smooth = 0.25 * steps[:, :, :-2] + 0.5 * steps[:, :, 1:-1] + 0.25 * steps[:, :, 2:]
    rows = smooth + 0.5 * torch.randn(batch, channels, length, generator=generator)
    return scale * rows / rows.square().mean(dim=1, keepdim=True).sqrt()


def record(model: Model, case: Case) -> tuple[torch.Tensor, dict[str, Any]]:
    """Audio f32 [batch, samples] of the unmodified model; the case's description and the largest |sample|.

    Raises ExportError("reference-nonfinite") when a sample is not finite.
    """
    with torch.no_grad():
        audio = model(case.frames)
    if not torch.isfinite(audio).all():
        raise ExportError(
            "reference-nonfinite",
            f"the model itself gives NaN or infinite audio in case {case.name}",
            "the checkpoint's weights overflow float32",
        )
    return audio, {**case.described, "peak": float(audio.abs().max())}


def last_bit(model: Model, case: Case, audio: torch.Tensor, scale: float) -> dict[str, float | str]:
    """How far the unmodified model's own output moves where every input value changes by a last bit.

    Each value moves up or down, as drawn, to its float32 neighbour; a zero, which has none that counts, by
    2^-24 of `scale`, the magnitude of lifelike inputs: what a rounding leaves where values of that size
    cancel. An output that this throws over says nothing about a model, for any arithmetic in float32 moves it
    so far (the conditioning of Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.6). `audio` is
    what `record` gave. Three digits each, and a word for what is infinite.
    """
    given = case.frames
    up = torch.randint(0, 2, given.shape, generator=torch.Generator().manual_seed(0)).bool()
    neighbour = torch.nextafter(given, torch.where(up, math.inf, -math.inf))
    small = scale * 2.0**-24
    moved = torch.where(given == 0, torch.where(up, small, -small), neighbour)
    with torch.no_grad():
        difference = (model(moved) - audio).double()
    if not torch.isfinite(difference).all():
        return {"max_abs_of_peak": "inf", "snr_db": "-inf"}
    signal, noise = float(audio.double().square().sum()), float(difference.square().sum())
    if signal == 0 or noise == 0:
        return {"max_abs_of_peak": 0.0 if noise == 0 else "inf", "snr_db": "inf" if noise == 0 else "-inf"}
    of_peak = float(difference.abs().max()) / float(audio.abs().max())
    return {
        "max_abs_of_peak": float(f"{of_peak:.3g}"),
        "snr_db": float(f"{10 * math.log10(signal / noise):.3g}"),
    }


def serialize(tensors: dict[str, torch.Tensor], recorded: list[Case]) -> bytes:
    """Safetensors bytes. One metadata key only: more would be written in an order that changes."""
    metadata = {"cases": json.dumps([case.described for case in recorded])}
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata)
