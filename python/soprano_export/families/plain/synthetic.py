"""Small checkpoints of seeded weights: language models of `transformers`, and an inverse-STFT head."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from safetensors.torch import save

from ... import language_model

STOP = 2
DIMENSIONS = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 160,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": STOP,
    "dtype": "bfloat16",
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LANGUAGE_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-2l": ("LlamaConfig", {"tie_word_embeddings": True, "rope_scaling": LLAMA3}),
    "qwen2-2l": ("Qwen2Config", {}),
    "qwen3-2l": ("Qwen3Config", {}),
    "mistral-2l": ("MistralConfig", {"sliding_window": None}),
}
HEAD = {
    "import": "soprano.vocos.heads:ISTFTHead",
    "arguments": {"dim": 48, "n_fft": 512, "hop_length": 160},
    "weights": "head.safetensors",
}
"""What a recipe says of preset `istft-head`, less `trust_code`."""


def checkpoint(preset: str, seed: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A description of the architecture, and the files by name."""
    if preset not in LANGUAGE_MODELS:
        return HEAD, {HEAD["weights"]: head(seed)}
    import transformers

    kind, fields = LANGUAGE_MODELS[preset]
    config = getattr(transformers, kind)(**{**DIMENSIONS, **fields})
    files = language_model.draw(config, seed)
    return {
        "architecture": config.architectures[0],
        **{name: DIMENSIONS[name] for name in language_model.COUNTS},
    }, files


def head(seed: int) -> bytes:
    """Weights of the head: magnitudes that fall with frequency, phases of several radians."""
    package, name = HEAD["import"].split(":")
    model = getattr(importlib.import_module(package), name)(**HEAD["arguments"])
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    rows, dim = state["out.weight"].shape
    spread = torch.cat((torch.full((rows // 2,), 0.6), torch.full((rows // 2,), 3.0)))
    tilt = torch.cat((1 - 4 * torch.linspace(0, 1, rows // 2).sqrt(), torch.zeros(rows // 2)))
    state["out.weight"] = torch.randn(rows, dim, generator=generator) * spread[:, None] / math.sqrt(dim)
    state["out.bias"] = tilt + 0.1 * torch.randn(rows, generator=generator)
    return save(state)
