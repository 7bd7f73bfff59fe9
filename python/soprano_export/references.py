"""References: what unmodified upstream answers to realistic and to extreme hidden states."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save

from . import upstream
from .errors import ExportError

EXTREME_LENGTHS = (5, 16)
ASCENT_STEPS = 6
LOUD = 100.0


@dataclass(frozen=True)
class Case:
    """One recorded run. `hidden_states` is f32 [batch, channels, length]."""

    name: str
    kind: str
    hidden_states: torch.Tensor
    last_bit: dict[str, float | str] | None = None
    """What `last_bit` found, once it was measured."""

    @property
    def described(self) -> dict[str, Any]:
        batch, _, length = self.hidden_states.shape
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


def hidden_states(batch: int, channels: int, length: int, seed: int) -> torch.Tensor:
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


def _clip_more(log_magnitude: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    return log_magnitude.clamp(max=math.log(upstream.MAGNITUDE_LIMIT) + 1).exp().mean()


def _turn_further(log_magnitude: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    return phase.abs().amax(dim=2).mean()


def _ascend(
    decoder: torch.nn.Module, start: torch.Tensor, objective: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Move `start` by normalised gradient steps through upstream's module towards a larger objective."""
    point = start.clone()
    for _ in range(ASCENT_STEPS):
        point.requires_grad_(True)
        with torch.enable_grad(), _head_output(decoder) as seen:
            decoder(point)
            (gradient,) = torch.autograd.grad(objective(*upstream.head_parts(seen[0])), point)
        norm = gradient.square().mean().sqrt().clamp(min=1e-20)
        point = (point.detach() + 0.5 * gradient / norm).clamp(-20, 20)
    return point


@contextlib.contextmanager
def _head_output(decoder: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    seen: list[torch.Tensor] = []
    hook = decoder.head.out.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()


def cases(
    decoder: torch.nn.Module, channels: int, lengths: list[int], batches: list[int], extreme: bool, seed: int
) -> list[Case]:
    """The inputs to record, shortest first within each batch size."""
    made = [
        Case(f"b{batch}_t{length}", "realistic", hidden_states(batch, channels, length, seed))
        for batch in batches
        for length in lengths
    ]
    if not extreme:
        return made
    for length in EXTREME_LENGTHS:
        start = hidden_states(1, channels, length, seed)
        made += [
            Case(f"extreme_clip_t{length}", "extreme", _ascend(decoder, start, _clip_more)),
            Case(f"extreme_phase_t{length}", "extreme", _ascend(decoder, start, _turn_further)),
            Case(f"loud_t{length}", "extreme", LOUD * start),
        ]
    return [*made, Case("zeros_t3", "extreme", torch.zeros(1, channels, 3))]


def record(decoder: torch.nn.Module, case: Case) -> tuple[torch.Tensor, dict[str, Any]]:
    """Audio f32 [batch, samples] of unmodified upstream, and what the case exercised.

    The facts: its description, the largest |sample|, the share of bins whose magnitude is clipped, and
    the largest |phase| in radians. Raises ExportError("reference-nonfinite") when a sample is not finite.
    """
    with torch.no_grad(), _head_output(decoder) as seen:
        audio = decoder(case.hidden_states)
    if not torch.isfinite(audio).all():
        raise ExportError(
            "reference-nonfinite",
            f"upstream's own decoder gives NaN or infinite audio in case {case.name}",
            "the checkpoint's weights overflow float32",
        )
    log_magnitude, phase = upstream.head_parts(seen[0])
    clipped = (log_magnitude.exp() >= upstream.MAGNITUDE_LIMIT).float().mean()
    return audio, {
        **case.described,
        "peak": float(audio.abs().max()),
        "clipped_share": float(clipped),
        "max_phase": float(phase.abs().max()),
    }


def last_bit(
    decoder: torch.nn.Module, case: Case, audio: torch.Tensor, scale: float
) -> dict[str, float | str]:
    """How far unmodified upstream's own output moves where every input value changes by a last bit.

    Each value moves up or down, as drawn, to its float32 neighbour; a zero, which has none that counts, by
    2^-24 of `scale`, the magnitude of lifelike inputs: what a rounding leaves where values of that size
    cancel. An output that this throws over says nothing about a model, for any arithmetic in float32 moves it
    so far (the conditioning of Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.6). `audio` is
    what `record` gave. Three digits each, and a word for what is infinite.
    """
    given = case.hidden_states
    up = torch.randint(0, 2, given.shape, generator=torch.Generator().manual_seed(0)).bool()
    neighbour = torch.nextafter(given, torch.where(up, math.inf, -math.inf))
    small = scale * 2.0**-24
    moved = torch.where(given == 0, torch.where(up, small, -small), neighbour)
    with torch.no_grad():
        difference = (decoder(moved) - audio).double()
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
