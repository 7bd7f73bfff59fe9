"""The two halves as modules that OpenVINO's PyTorch front end takes: a second way to its IR, beside ONNX.

Nothing of the graph rewriting is in it: the inverse STFT is a plain inverse DFT and an overlap-add by
`fold`, and the cache is written in PyTorch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import checkpoint, language_model, lm, upstream
from .decoder import ExportableDecoder


class InverseStft(nn.Module):
    """`torch.istft` with a centred window over real and imaginary parts, its DC and Nyquist bins zero.

    real, imag f32 [B, n_fft/2 + 1, N] to f32 [B, hop_length * (N - 1)].
    """

    def __init__(self, n_fft: int, hop_length: int, window: torch.Tensor):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        bins = n_fft // 2 + 1
        angles = torch.outer(torch.arange(bins), torch.arange(n_fft)).remainder(n_fft) * (2 * math.pi / n_fft)
        # Each bin stands for its conjugate too.
        weights = torch.full((bins, 1), 2.0 / n_fft, dtype=torch.float64)
        weights[0] = weights[-1] = 0
        basis = weights * window.double()
        self.register_buffer("cosines", (torch.cos(angles.double()) * basis).float())
        self.register_buffer("sines", (-torch.sin(angles.double()) * basis).float())
        self.register_buffer("power", (window.float() ** 2)[None, :, None])

    def _overlap_add(self, frames: torch.Tensor, length: int) -> torch.Tensor:
        size = (1, length)
        added = nn.functional.fold(frames, size, (1, self.n_fft), stride=(1, self.hop_length))
        return added[:, 0, 0, self.n_fft // 2 : length - self.n_fft // 2]

    def forward(self, real: torch.Tensor, imag: torch.Tensor) -> torch.Tensor:
        frames = real.transpose(1, 2) @ self.cosines + imag.transpose(1, 2) @ self.sines
        count = frames.shape[1]
        length = (count - 1) * self.hop_length + self.n_fft
        envelope = self._overlap_add(self.power.expand(1, self.n_fft, count), length)
        return self._overlap_add(frames.transpose(1, 2), length) / envelope


class ConvertibleDecoder(nn.Module):
    """hidden_states f32 [B, C, T] to audio f32 [B, hop_length * upscale * (T - 1)], for T >= 2."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        exportable = ExportableDecoder(decoder)
        self.decoder, self.upscale = exportable.decoder, exportable.upscale
        self.out, istft = exportable.head.out, exportable.head.istft
        self.bins = istft.n_fft // 2 + 1
        self.inverse = InverseStft(istft.n_fft, istft.hop_length, istft.window)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        frames = self.upscale * (hidden_states.shape[2] - 1) + 1
        x = nn.functional.interpolate(hidden_states, size=frames, mode="linear", align_corners=True)
        coefficients = self.out(self.decoder(x).transpose(1, 2)).transpose(1, 2)
        log_magnitude, phase = coefficients.split([self.bins, self.bins], dim=1)
        magnitude = torch.clip(torch.exp(log_magnitude), max=upstream.MAGNITUDE_LIMIT)
        return self.inverse(magnitude * torch.cos(phase), magnitude * torch.sin(phase))


def decoder(directory: Path) -> tuple[nn.Module, dict[str, torch.Tensor], dict[str, list[int]]]:
    """The module of a checkpoint's decoder, an example of its input, and the shape of it, -1 for open."""
    module, architecture = checkpoint.load(directory)
    channels = architecture.input_channels
    example = {"hidden_states": torch.randn(2, channels, 5)}
    return ConvertibleDecoder(module).eval(), example, {"hidden_states": [-1, channels, -1]}


def language(directory: Path) -> tuple[nn.Module, dict[str, torch.Tensor], dict[str, list[int]]]:
    """The same of its language model, with a cache."""
    model = language_model.load(directory)
    architecture = lm.Architecture.of(model.config)
    past, length = 3, 5
    shape = [-1, architecture.kv_heads, -1, architecture.head_dim]
    example: dict[str, Any] = {
        "input_ids": torch.ones(2, length, dtype=torch.int64),
        "attention_mask": torch.ones(2, past + length, dtype=torch.int64),
        "position_ids": torch.arange(past, past + length).repeat(2, 1),
    }
    shapes = {name: [-1, -1] for name in example}
    for layer in range(architecture.layers):
        for part in ("key", "value"):
            name = f"past_key_values.{layer}.{part}"
            example[name] = torch.randn(2, architecture.kv_heads, past, architecture.head_dim)
            shapes[name] = shape
    return lm.CachedLm(lm.ExportableLm(model, architecture)).eval(), example, shapes


MODULES = {"decoder": decoder, "lm": language}
