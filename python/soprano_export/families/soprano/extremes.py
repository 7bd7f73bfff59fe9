"""Extremes of Soprano's decoder: frames driven to the magnitude limit and to large phases."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch

from . import upstream

ASCENT_STEPS = 6


def clip_more(log_magnitude: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    return log_magnitude.clamp(max=math.log(upstream.MAGNITUDE_LIMIT) + 1).exp().mean()


def turn_further(log_magnitude: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    return phase.abs().amax(dim=2).mean()


def ascend(
    decoder: torch.nn.Module, start: torch.Tensor, objective: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Move `start` by normalised gradient steps through upstream's module towards a larger objective."""
    point = start.clone()
    for _ in range(ASCENT_STEPS):
        point.requires_grad_(True)
        with torch.enable_grad(), head_output(decoder) as seen:
            decoder(point)
            (gradient,) = torch.autograd.grad(objective(*upstream.head_parts(seen[0])), point)
        norm = gradient.square().mean().sqrt().clamp(min=1e-20)
        point = (point.detach() + 0.5 * gradient / norm).clamp(-20, 20)
    return point


@contextlib.contextmanager
def head_output(decoder: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    seen: list[torch.Tensor] = []
    hook = decoder.head.out.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()
