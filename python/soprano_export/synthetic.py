"""Seeded decoder weights whose spectra look like speech rather than like freshly initialised noise."""

from __future__ import annotations

import io
import math
from collections import OrderedDict

import torch

from . import upstream
from .upstream import Architecture

PRESETS = {
    "soprano-1.0": Architecture(512, 512, 1536, 8, 3, 3, 2048),
    "soprano-1.1": Architecture(512, 768, 2304, 8, 1, 3, 2048),
    "tiny": Architecture(512, 32, 96, 2, 1, 3, 2048),
    "tiny-1.0": Architecture(512, 32, 96, 2, 3, 3, 2048),
}


def weights(architecture: Architecture, seed: int) -> OrderedDict[str, torch.Tensor]:
    """State dict (f32) of an upstream decoder, in upstream's own order.

    No tensor is zero, one or constant: a rewrite that loses a bias, a norm or a layer scale is seen.
    Convolutions and linear layers keep unit variance; the head is shaped by `_head`.
    """
    generator = torch.Generator().manual_seed(seed)
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, blank in upstream.build(architecture).state_dict().items():
        shape, leaf = blank.shape, name.rsplit(".", 1)[-1]
        if leaf == "window":
            state[name] = torch.hann_window(architecture.n_fft)
            continue
        noise = torch.randn(shape, generator=generator)
        if name.startswith("head.out."):
            state[name] = _head(noise, leaf, architecture, generator)
        elif leaf == "gamma":
            state[name] = (1 + 0.3 * noise) / math.sqrt(architecture.layers)
        elif leaf == "bias":
            state[name] = 0.2 * noise
        elif len(shape) == 1:
            state[name] = 1 + 0.2 * noise
        else:
            state[name] = noise / math.sqrt(math.prod(shape[1:]))
    return state


def _head(
    noise: torch.Tensor, leaf: str, architecture: Architecture, generator: torch.Generator
) -> torch.Tensor:
    """Rows of `head.out`: log-magnitudes that fall with frequency and share a loudness, then free phases.

    At a unit-variance input log-magnitudes spread by about 0.8 and phases by several radians.
    """
    bins = architecture.n_fft // 2 + 1
    position = torch.linspace(0, 1, bins)
    if leaf == "bias":
        formants = sum(
            height * torch.exp(-(((position - centre) / width) ** 2))
            for centre, width, height in ((0.03, 0.02, 0.8), (0.1, 0.03, 0.9), (0.18, 0.04, 0.7))
        )
        tilt = 2.2 - 6.0 * position.sqrt() + formants
        return torch.cat((tilt + 0.1 * noise[:bins], math.pi * noise[bins:]))
    loudness = torch.randn(architecture.dim, generator=generator)
    rows = noise / math.sqrt(architecture.dim)
    shared = loudness / math.sqrt(architecture.dim)
    return torch.cat((0.6 * rows[:bins] + 0.5 * shared, 3.0 * rows[bins:]))


def serialize(state: OrderedDict[str, torch.Tensor]) -> bytes:
    """`torch.save` to memory: a name taken from a file would end up inside the archive."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
