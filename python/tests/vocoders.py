"""Vocoders that no family knows, sound and unsound, for `module` to name."""

from __future__ import annotations

import torch
from torch import nn

DIM, N_FFT, HOP = 12, 32, 8


class Head(nn.Module):
    """[B, DIM, T] to [B, HOP * (T - 1)]: magnitudes and phases, and `torch.istft` with `options`."""

    def __init__(self, spectrum: str = "sum", n_fft: int = N_FFT, win_length: int = N_FFT, **options):
        super().__init__()
        self.out = nn.Linear(DIM, n_fft + 2)
        self.register_buffer("window", torch.hann_window(win_length))
        self.n_fft, self.spectrum, self.options = n_fft, spectrum, {"win_length": win_length, **options}

    def forward(self, x):
        size, angle = self.out(x.transpose(1, 2)).transpose(1, 2).chunk(2, dim=1)
        spectrum = SPECTRA[self.spectrum](torch.exp(size), angle)
        return torch.istft(spectrum, self.n_fft, HOP, window=self.window, **self.options)


def _zeroed(*bins: int):
    def spectrum(size, angle):
        spectrum = size * (torch.cos(angle) + 1j * torch.sin(angle))
        for each in bins:
            spectrum[:, each] = 0
        return spectrum

    return spectrum


def _aliased(size, angle):
    spectrum = torch.polar(size, angle)
    spectrum[:, :, :][:, 0] = 0
    return spectrum


def _assigned(size, angle):
    spectrum = torch.polar(size, angle)
    spectrum[:, :, 0] = 0
    return spectrum


SPECTRA = {
    "sum": _zeroed(),
    "edges": _zeroed(0, -1),
    "first": _zeroed(0),
    "last": _zeroed(N_FFT // 2),
    "complex": lambda size, angle: torch.complex(size * angle.cos(), size * angle.sin()),
    "polar": torch.polar,
    "exp": lambda size, angle: size * torch.exp(1j * angle),
    "exp of both": lambda size, angle: torch.exp(torch.complex(size.log(), angle)),
    "view": lambda size, angle: torch.view_as_complex(
        torch.stack((size * angle.cos(), size * angle.sin()), -1)
    ),
    "conj": lambda size, angle: (size * torch.exp(-1j * angle)).conj(),
    "product": lambda size, angle: torch.polar(size, angle / 2) * torch.polar(angle.cos(), angle / 2),
    "sums": lambda size, angle: (1 + 1j) - (-torch.polar(size, angle) + (0.5 - 1j)) / 2,
    "transposed": lambda size, angle: torch.polar(size.transpose(1, 2), angle.transpose(1, 2)).transpose(
        1, 2
    ),
    "magnitude": lambda size, angle: torch.polar(torch.polar(size, angle).abs(), angle),
    "real": lambda size, angle: torch.complex(torch.polar(size, angle).real, torch.polar(size, angle).imag),
    "power": lambda size, angle: torch.polar(size, angle) ** 2,
    "slice": lambda size, angle: torch.polar(size, angle)[:, :, 1:],
    "aliased": _aliased,
    "assigned": _assigned,
    "rfft": lambda size, angle: torch.fft.rfft(torch.cat((size, angle[:, 2:]), 1), dim=1),
    "sqrt": lambda size, angle: torch.sqrt(torch.polar(size, angle)),
    "inverse": lambda size, angle: 1 / torch.polar(size, angle),
    "irfft": lambda size, angle: torch.polar(torch.fft.irfft(torch.polar(size, angle), dim=1)[:, :17], angle),
    "plain": lambda size, angle: size,
}


class Upsampler(nn.Module):
    """[B, DIM, T] to [B, 4 T], without a Fourier transform."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose1d(DIM, 1, 4, 4)

    def forward(self, x):
        return torch.tanh(self.up(x)[:, 0])


class Grouped(nn.Module):
    """[B, DIM, T] to [B, 2 T]; no tensor has DIM as a dimension."""

    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.Conv1d(DIM, 2, 3, padding=1, groups=2), nn.Conv1d(2, 2, 1)

    def forward(self, x):
        return self.out(torch.relu(self.mix(x))).transpose(1, 2).flatten(1)


class ChannelsLast(nn.Module):
    """[B, T, DIM] to [B, 3 (T - lead)]."""

    def __init__(self, lead: int = 2):
        super().__init__()
        self.out, self.lead = nn.Linear(DIM, 3), lead

    def forward(self, x):
        return self.out(x[:, self.lead :]).flatten(1)


class Unsound(Upsampler):
    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return UNSOUND[self.how](super().forward(x))


UNSOUND = {
    "rank": lambda audio: audio[:, None],
    "pair": lambda audio: (audio, audio),
    "half": lambda audio: audio.half(),
    "batch": lambda audio: audio[:1],
    "irregular": lambda audio: audio[:, : audio.shape[1] // 7],
    "longer": lambda audio: torch.cat((audio, audio[:, :8]), 1),
    "baked": lambda audio: audio * torch.ones(int(audio.shape[1])).cumsum(0),
    "branch": lambda audio: audio if audio.shape[1] == 4 * 7 else -audio,
    "single": lambda audio: audio.reshape(1, -1) if len(audio) == 1 else audio.reshape(1),
    "long": lambda audio: audio if audio.shape[1] > 8 else audio.reshape(1),
    "nan": lambda audio: audio / 0,
}


class Anything(nn.Module):
    """Takes any number of channels, on either axis."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(5, 6))

    def forward(self, x):
        return x.flatten(1)


class Fussy(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        raise OSError(f"no file of {size} weights")


def function(x):
    return x
