"""Sentences to audio and audio to tokens: what there is to learn, from `espeak-ng` and k-means alone."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import resample_poly
from soprano_export.families.soprano import upstream

TOKEN = 2048
"""Samples of one audio token: upstream's 512-sample hop, upscaled four times."""
WINDOW = 4096
"""Samples around a token that its log-spectrum is taken from."""
BANDS = 64
RMS = 0.05
"""Loudness of every sentence: spectral magnitudes stay below the 100 at which upstream's head clips."""
SILENCE = 1e-3
WORDS_PER_MINUTE = 165
INSTALL = "`espeak-ng` is not installed: apt-get install espeak-ng, or your system's package of that name"


@dataclass(frozen=True)
class Utterance:
    """One training sentence: its cleaned text, audio f32 [2048 * (T - 1)] at 32 kHz, and T token classes."""

    text: str
    audio: torch.Tensor
    classes: list[int]


def say(text: str, voice: str) -> torch.Tensor:
    """`text` in an espeak-ng voice: f32 [2048 * (T - 1)] at 32 kHz, trimmed, padded with silence."""
    if not shutil.which("espeak-ng"):
        raise SystemExit(INSTALL)
    command = ["espeak-ng", "-v", voice, "-s", str(WORDS_PER_MINUTE), "--stdout", "--stdin"]
    spoken = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate = file.getframerate()
        # espeak-ng streams: its header claims more frames than follow.
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    divisor = int(np.gcd(rate, upstream.SAMPLE_RATE))
    samples = resample_poly(samples, upstream.SAMPLE_RATE // divisor, rate // divisor)
    loud = np.flatnonzero(np.abs(samples) > SILENCE * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1]
    samples *= RMS / np.sqrt(np.mean(samples**2))
    padded = np.zeros(-(-(len(samples) + TOKEN // 2) // TOKEN) * TOKEN, np.float32)
    padded[TOKEN // 4 :][: len(samples)] = samples
    return torch.from_numpy(padded)


def log_spectra(audio: torch.Tensor) -> torch.Tensor:
    """Banded log-spectra around the T token positions of `audio`: f32 [T, 64].

    Bands are evenly spaced on the mel scale 2595 log10(1 + f/700), up to 11 kHz: above it is silence.
    """
    window = torch.hann_window(WINDOW)
    power = torch.stft(audio, WINDOW, TOKEN, window=window, center=True, return_complex=True).abs() ** 2
    mel = torch.linspace(0, 2595 * np.log10(1 + 11000 / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1) * WINDOW / upstream.SAMPLE_RATE
    bins = torch.arange(power.shape[0])[None, :]
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    return torch.log(bank @ power + 1e-3).T


def cluster(frames: torch.Tensor, count: int, seed: int, rounds: int = 50) -> torch.Tensor:
    """k-means (Lloyd's rounds after k-means++ seeding): centres f32 [count, features]."""
    generator = torch.Generator().manual_seed(seed)
    centres = frames[torch.randint(len(frames), (1,), generator=generator)]
    while len(centres) < count:
        distance = torch.cdist(frames, centres).min(1).values ** 2
        centres = torch.cat((centres, frames[torch.multinomial(distance, 1, generator=generator)]))
    for _ in range(rounds):
        nearest = torch.cdist(frames, centres).argmin(1)
        for each in range(count):
            if (members := frames[nearest == each]).numel():
                centres[each] = members.mean(0)
    return centres


def build(voices: dict[str, tuple[str, ...]], tokens: int, seed: int) -> list[Utterance]:
    """Every sentence of every voice, with its frames clustered into `tokens` classes."""
    spoken = []
    for voice, sentences in voices.items():
        for sentence in sentences:
            text = upstream.clean(sentence)
            spoken.append((text, say(text, voice)))
    spectra = [log_spectra(audio) for _, audio in spoken]
    centres = cluster(torch.cat(spectra), tokens, seed)
    return [
        Utterance(text, audio, torch.cdist(frames, centres).argmin(1).tolist())
        for (text, audio), frames in zip(spoken, spectra, strict=True)
    ]
