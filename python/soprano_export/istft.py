"""The inverse short-time Fourier transform, which ONNX lacks: a placeholder node in an exported graph, and a
module of plain products and sums."""

from __future__ import annotations

import math
from typing import Any

import onnx
import torch
from torch import nn

DOMAIN = "soprano_export"
"""Operator domain of the placeholder node."""
DOMAIN_VERSION = 1


class Placeholder(torch.autograd.Function):
    """`torch.istft` of real and imaginary parts, windows centred and n_fft even; exported as one node.

    real, imag f32 [B, n_fft/2 + 1, N] to f32 [B, hop_length * (N - 1)]. Where `zero_edges`, the first and the
    last bin are taken as zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        real: torch.Tensor,
        imag: torch.Tensor,
        window: torch.Tensor,
        n_fft: int,
        hop_length: int,
        normalized: bool,
        zero_edges: bool,
    ) -> torch.Tensor:
        spectrum = torch.complex(real, imag)
        if zero_edges:
            spectrum[:, 0] = 0
            spectrum[:, -1] = 0
        return torch.istft(spectrum, n_fft, hop_length, window.numel(), window, True, normalized)

    @staticmethod
    def symbolic(
        g: Any,
        real: Any,
        imag: Any,
        window: Any,
        n_fft: int,
        hop_length: int,
        normalized: bool,
        zero_edges: bool,
    ) -> Any:
        return g.op(
            f"{DOMAIN}::ISTFT",
            real,
            imag,
            window,
            n_fft_i=n_fft,
            hop_length_i=hop_length,
            win_length_i=window.type().sizes()[0],
            center_i=1,
            normalized_i=int(normalized),
            onesided_i=1,
            zero_dc_nyquist_i=int(zero_edges),
        ).setType(real.type().with_sizes([None, None]))


def placeholders(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The placeholder nodes of a graph, in its order."""
    return [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, "ISTFT")]


class InverseStft(nn.Module):
    """The same in products and `fold`, which OpenVINO's PyTorch front end takes.

    real, imag f32 [B, n_fft/2 + 1, N] to f32 [B, hop_length * (N - 1)].
    """

    def __init__(self, n_fft: int, hop_length: int, window: torch.Tensor, normalized: bool, zero_edges: bool):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        bins = n_fft // 2 + 1
        left = (n_fft - window.numel()) // 2
        window = nn.functional.pad(window.double(), (left, n_fft - window.numel() - left))
        angles = torch.outer(torch.arange(bins), torch.arange(n_fft)).remainder(n_fft) * (2 * math.pi / n_fft)
        # Each bin stands for its conjugate too, but the first and the last, which have none.
        scale = 1 / (math.sqrt(n_fft) if normalized else n_fft)
        weights = torch.full((bins, 1), 2.0 * scale, dtype=torch.float64)
        weights[0] = weights[-1] = 0.0 if zero_edges else scale
        basis = weights * window
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
