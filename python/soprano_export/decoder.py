"""Upstream's decoder in a form that the TorchScript exporter can write: real numbers and static ops."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import upstream

DOMAIN = "soprano_export"
"""Operator domain of the placeholder node that stands for the inverse STFT."""
DOMAIN_VERSION = 1


class _MergeLastTwo(torch.autograd.Function):
    """[B, C, T, U] to [B, C, T*U]; exported as a Reshape to the constant [0, 0, -1]: no length is baked."""

    @staticmethod
    def forward(ctx: Any, frames: torch.Tensor) -> torch.Tensor:
        return frames.flatten(2)

    @staticmethod
    def symbolic(g: Any, frames: Any) -> Any:
        return g.op("Reshape", frames, g.op("Constant", value_t=torch.tensor([0, 0, -1])))


class _Istft(torch.autograd.Function):
    """Upstream's `ISTFT` module over real and imaginary parts; exported as one placeholder node."""

    @staticmethod
    def forward(
        ctx: Any, real: torch.Tensor, imag: torch.Tensor, window: torch.Tensor, n_fft: int, hop_length: int
    ) -> torch.Tensor:
        spectrum = torch.complex(real, imag)
        spectrum[:, 0] = 0
        spectrum[:, -1] = 0
        return torch.istft(spectrum, n_fft, hop_length, window.numel(), window, center=True)

    @staticmethod
    def symbolic(g: Any, real: Any, imag: Any, window: Any, n_fft: int, hop_length: int) -> Any:
        return g.op(
            f"{DOMAIN}::ISTFT",
            real,
            imag,
            window,
            n_fft_i=n_fft,
            hop_length_i=hop_length,
            win_length_i=window.type().sizes()[0],
            center_i=1,
            normalized_i=0,
            onesided_i=1,
            zero_dc_nyquist_i=1,
        ).setType(real.type().with_sizes([None, None]))


def interpolate(x: torch.Tensor, upscale: int) -> torch.Tensor:
    """Linear interpolation of [B, C, T] to [B, C, upscale*(T-1)+1] with aligned corners, for T >= 1.

    Equal to `F.interpolate(..., mode="linear", align_corners=True)` up to rounding: the source position of
    frame i is exactly i / upscale.
    """
    left = x[:, :, :-1]
    slope = x[:, :, 1:] - left
    between = [left] + [left + slope * (step / upscale) for step in range(1, upscale)]
    return torch.cat((_MergeLastTwo.apply(torch.stack(between, dim=3)), x[:, :, -1:]), dim=2)


class RealHead(nn.Module):
    """Upstream's head without complex numbers: its own projection and window, and one inverse STFT.

    features f32 [B, D, N] to audio f32 [B, hop_length * (N-1)].
    """

    def __init__(self, head: nn.Module):
        super().__init__()
        self.out = head.out
        self.istft = head.istft

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        n_fft, hop_length, window = self.istft.n_fft, self.istft.hop_length, self.istft.window
        bins = n_fft // 2 + 1
        coefficients = self.out(features.transpose(1, 2)).transpose(1, 2)
        log_magnitude, phase = coefficients.split([bins, bins], dim=1)
        magnitude = torch.clip(torch.exp(log_magnitude), max=upstream.MAGNITUDE_LIMIT)
        real, imag = magnitude * torch.cos(phase), magnitude * torch.sin(phase)
        return _Istft.apply(real, imag, window, n_fft, hop_length)


class ExportableDecoder(nn.Module):
    """Upstream's own modules under their own names; only resampling and complex arithmetic are restated.

    hidden_states f32 [B, C, T] to audio f32 [B, hop_length * upscale * (T-1)], for T >= 2.
    """

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder = decoder.decoder
        self.head = RealHead(decoder.head)
        self.upscale = decoder.upscale

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(interpolate(hidden_states, self.upscale)))
