"""Upstream's decoder in a form that the TorchScript exporter can write: real numbers and static ops."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ... import istft
from . import upstream


class _MergeLastTwo(torch.autograd.Function):
    """[B, C, T, U] to [B, C, T*U]; exported as a Reshape to the constant [0, 0, -1]: no length is baked."""

    @staticmethod
    def forward(ctx: Any, frames: torch.Tensor) -> torch.Tensor:
        return frames.flatten(2)

    @staticmethod
    def symbolic(g: Any, frames: Any) -> Any:
        return g.op("Reshape", frames, g.op("Constant", value_t=torch.tensor([0, 0, -1])))


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
        return istft.Placeholder.apply(real, imag, window, n_fft, hop_length, False, True)


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


class ConvertibleDecoder(nn.Module):
    """The same for OpenVINO's PyTorch front end, without a restated interpolation."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder, self.upscale, self.out = decoder.decoder, decoder.upscale, decoder.head.out
        transform = decoder.head.istft
        self.bins = transform.n_fft // 2 + 1
        self.inverse = istft.InverseStft(
            transform.n_fft, transform.hop_length, transform.window, normalized=False, zero_edges=True
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        frames = self.upscale * (hidden_states.shape[2] - 1) + 1
        x = nn.functional.interpolate(hidden_states, size=frames, mode="linear", align_corners=True)
        coefficients = self.out(self.decoder(x).transpose(1, 2)).transpose(1, 2)
        log_magnitude, phase = coefficients.split([self.bins, self.bins], dim=1)
        magnitude = torch.clip(torch.exp(log_magnitude), max=upstream.MAGNITUDE_LIMIT)
        return self.inverse(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
