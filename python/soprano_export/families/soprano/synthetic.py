"""Seeded decoder weights whose spectra look like speech rather than like freshly initialised noise."""

from __future__ import annotations

import io
import math
from collections import OrderedDict

import torch

from ... import language_model
from . import tokenizer, upstream
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


LANGUAGE_MODELS = {
    "soprano-1.0": ("qwen3", (512, 17, 4, 1, 128, 2304, 8192, 512, False)),
    "soprano-1.1": ("qwen3", (512, 17, 4, 1, 128, 2304, 8192, 1024, False)),
    "tiny": ("qwen3", (64, 2, 4, 2, 16, 96, 160, 256, False)),
    "tiny-1.0": ("llama", (48, 3, 4, 4, 12, 80, 150, 256, True)),
}
"""Hidden size, layers, heads, key-value heads, head size, MLP size, vocabulary, positions, tied."""
STOP = 3
AUDIO_TOKENS, MERGES = 8000, 135
"""Upstream's, of its vocabulary of 8192; a smaller one has a third of what is left for merges."""
TEXT = (
    "The narrator of a long story should never hurry, for those who listen want to hear every word that was "
    "written there. When the morning comes, a small wind moves over the water, and the boats that were lying "
    "still begin to turn their heads towards the shore. Somewhere behind the houses another bell answers, "
    "and then the whole street is suddenly full of people with something to sell: bread, honey, apples, "
    "leather, paper, ink. What are you looking for, they ask, and would you rather have it now or later? "
    "Nothing is certain here except that the price changes while you are thinking about it. An old teacher "
    "stands at the corner and reads aloud from a thick book, one sentence after the other, because reading "
    "in silence seems to him a strange and lonely habit. Children gather around him, laughing at first, and "
    "after some time they forget the market, the noise, and even their own hunger. Could anything be better "
    "than this, a voice that carries across the square and makes the distant mountains come closer? Perhaps "
    "not, but the afternoon will bring rain again, and everyone must find shelter before the thunder starts."
)
"""What the merges of synthetic tokenizers are learned from."""


def speaker(preset: str, seed: int) -> dict[str, bytes]:
    """Files of a language model of upstream's layout: config.json, generation_config.json,
    model.safetensors (bf16), and its tokenizer's three.

    The tokenizer fills the vocabulary and depends on nothing else.
    """
    from transformers import LlamaConfig, Qwen3Config

    family, dimensions = LANGUAGE_MODELS[preset]
    hidden, layers, heads, kv_heads, size, mlp, vocabulary, positions, tied = dimensions
    config = {"qwen3": Qwen3Config, "llama": LlamaConfig}[family](
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=size,
        intermediate_size=mlp,
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        bos_token_id=STOP,
        eos_token_id=STOP,
        pad_token_id=None,
        dtype="bfloat16",
    )
    return {**language_model.draw(config, seed), **tokenizer_files(vocabulary, positions)}


def tokenizer_files(vocabulary: int, positions: int) -> dict[str, bytes]:
    """Files of a tokenizer of upstream's layout with that many tokens."""
    free = vocabulary - len(tokenizer.CONTROL) - len(tokenizer.CHARACTERS)
    merges = min(MERGES, free // 3)
    made = tokenizer.build([TEXT.lower()], min(AUDIO_TOKENS, free - merges), merges, positions)
    return tokenizer.files(made)
