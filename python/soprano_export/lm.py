"""Qwen3, Qwen2, Llama and Mistral language models as the exporter can write them: one graph, without a cache.

It restates the arithmetic of `transformers`, whose own forward pass the TorchScript exporter cannot trace,
on the very tensors of its checkpoint; a test holds the two equal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import graph
from .errors import ExportError
from .language_model import CONFIG
from .roles import CausalNames

MASKED = -1e9
"""Added to the score of a position that may not be seen: finite, so that a row of padding stays a number."""
TRACED = (2, 5)
MODELS = ("qwen3", "qwen2", "llama", "mistral")
ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embedding whose frequencies are the same at every length."""


@dataclass(frozen=True)
class Architecture:
    """Every dimension of a language model, as its config names them."""

    architecture: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    tied: bool

    @classmethod
    def of(cls, config: Any) -> Architecture:
        """Read a `transformers` config that `language_model.load` accepted."""
        heads = config.num_attention_heads
        return cls(
            architecture=config.architectures[0],
            hidden_size=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate_size=config.intermediate_size,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            tied=bool(config.tie_word_embeddings),
        )

    def describe(self) -> dict[str, Any]:
        return asdict(self)


def check_attention(config: Any) -> None:
    """Raise ExportError("lm-unsupported") for a layer that does not attend to every position before it.

    No route writes one: a traced mask gives way to a causal one. A window of `max_position_embeddings` or
    more hides nothing; a shorter one is refused even where it is longer than every reference, which then
    could not show what is missing. A config without `layer_types` has its window in every layer.
    """
    window = getattr(config, "sliding_window", None)
    whole = "full_attention" if window is None else "sliding_attention"
    kinds = getattr(config, "layer_types", None) or [whole] * config.num_hidden_layers
    for kind in sorted(set(kinds) - {"full_attention", "sliding_attention"}):
        raise ExportError(
            "lm-unsupported",
            f"{CONFIG}: `layer_types` has {kind!r}, and every layer must attend to all positions before",
            "no exporter takes it",
        )
    positions, windowed = config.max_position_embeddings, kinds.count("sliding_attention")
    if windowed and (window is None or window < positions):
        raise ExportError(
            "lm-unsupported",
            f"{CONFIG}: a sliding window is not supported: {windowed} of {len(kinds)} layers attend to the "
            f"last {window} positions alone (`sliding_window`), and the model has {positions}",
            "no exporter takes it; set `max_position_embeddings` to `sliding_window`, and it is exported "
            "for that many positions",
        )


def check(config: Any) -> None:
    """Raise ExportError("lm-unsupported") for what the module lacks."""
    check_attention(config)
    scaling = getattr(config, "rope_scaling", None) or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    lacks = {
        f"model_type {config.model_type!r}": config.model_type not in MODELS,
        "a partial rotary embedding": getattr(config, "partial_rotary_factor", 1.0) != 1.0,
        f"hidden_act {getattr(config, 'hidden_act', None)!r}": getattr(config, "hidden_act", None) != "silu",
    }
    for what, lacking in lacks.items():
        if lacking:
            raise ExportError(
                "lm-unsupported",
                f"{CONFIG}: a {config.model_type} model with {what} is not supported",
                "use `exporter: optimum` for it",
            )
    if kind not in ROTATIONS:
        raise ExportError(
            "lm-unsupported",
            f"{CONFIG}: rope_scaling of the kind {kind!r} is not supported: its frequencies change with the "
            "length of a run, and a cache keeps keys that were rotated before",
            f"supported are {', '.join(ROTATIONS)}",
        )


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis (Zhang and Sennrich 2019, eq. 4)."""
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight


class Attention(nn.Module):
    """Grouped-query attention: the queries of a group stand below each other over one key-value head.

    x f32 [B, S, C], cos and sin f32 [B, S, 1, D/2], mask f32 [B, 1, G*S, T] to f32 [B, S, C]. Grouping the
    queries gives the same products as repeating keys and values, without copying them. After `past`, keys
    and values f32 [B, H, P, D], it sees those too; `present` are all of them, [B, H, P + S, D].
    """

    def __init__(self, layer: nn.Module, architecture: Architecture, epsilon: float):
        super().__init__()
        a = architecture
        self.heads, self.kv_heads, self.head_dim = a.heads, a.kv_heads, a.head_dim
        self.epsilon = epsilon
        parts = (layer.q_proj, layer.k_proj, layer.v_proj)
        self.qkv = nn.Parameter(torch.cat([part.weight for part in parts]).T.contiguous())
        biased = layer.q_proj.bias is not None
        self.bias = nn.Parameter(torch.cat([part.bias for part in parts])) if biased else None
        self.out = nn.Parameter(layer.o_proj.weight.T.contiguous())
        self.out_bias = layer.o_proj.bias
        self.norm = None
        if hasattr(layer, "q_norm"):
            rows = [layer.q_norm.weight] * a.heads + [layer.k_norm.weight] * a.kv_heads
            self.norm = nn.Parameter(torch.stack(rows))

    def forward(self, x, cos, sin, mask, batch, past=None):
        heads, kv_heads, size = self.heads, self.kv_heads, self.head_dim
        qkv = x @ self.qkv
        if self.bias is not None:
            qkv = qkv + self.bias
        qkv = qkv.reshape(batch, -1, heads + 2 * kv_heads, size)
        qk, v = qkv.split([heads + kv_heads, kv_heads], dim=2)
        if self.norm is not None:
            qk = rms_norm(qk, self.norm, self.epsilon)
        left, right = qk.split([size // 2, size // 2], dim=3)
        qk = torch.cat((left * cos - right * sin, right * cos + left * sin), dim=3)
        q, k = qk.split([heads, kv_heads], dim=2)
        q = q.transpose(1, 2).reshape(batch, kv_heads, -1, size)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        if past is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(past, (k, v), strict=True))
        self.present = (k, v)
        scores = (q @ k.transpose(2, 3)) * size**-0.5 + mask
        seen = torch.softmax(scores, dim=-1) @ v
        seen = seen.reshape(batch, heads, -1, size).transpose(1, 2).reshape(batch, -1, heads * size)
        y = seen @ self.out
        return y if self.out_bias is None else y + self.out_bias


class Mlp(nn.Module):
    """(silu(x G) * (x U)) D, gate and up as one product. x f32 [B, S, C] to f32 [B, S, C]."""

    def __init__(self, layer: nn.Module, architecture: Architecture):
        super().__init__()
        self.size = architecture.intermediate_size
        parts = (layer.gate_proj, layer.up_proj)
        self.gate_up = nn.Parameter(torch.cat([part.weight for part in parts]).T.contiguous())
        biased = layer.down_proj.bias is not None
        self.bias = nn.Parameter(torch.cat([part.bias for part in parts])) if biased else None
        self.down = nn.Parameter(layer.down_proj.weight.T.contiguous())
        self.down_bias = layer.down_proj.bias

    def forward(self, x):
        gate_up = x @ self.gate_up
        if self.bias is not None:
            gate_up = gate_up + self.bias
        gate, up = gate_up.split([self.size, self.size], dim=2)
        y = (gate * torch.sigmoid(gate) * up) @ self.down
        return y if self.down_bias is None else y + self.down_bias


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). x f32 [B, S, C] to f32 [B, S, C]."""

    def __init__(self, layer: nn.Module, architecture: Architecture, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.before = nn.Parameter(layer.input_layernorm.weight)
        self.attention = Attention(layer.self_attn, architecture, epsilon)
        self.between = nn.Parameter(layer.post_attention_layernorm.weight)
        self.mlp = Mlp(layer.mlp, architecture)

    def forward(self, x, cos, sin, mask, batch, past=None):
        x = x + self.attention(rms_norm(x, self.before, self.epsilon), cos, sin, mask, batch, past)
        return x + self.mlp(rms_norm(x, self.between, self.epsilon))


class ExportableLm(nn.Module):
    """input_ids, attention_mask i64 [B, S], position_ids i64 [B, S] to logits f32 [B, S, vocabulary].

    The mask's length may exceed that of the ids: query s then stands at place T - S + s, as it does after a
    cache. Raises ExportError("lm-unsupported") as `check` does.
    """

    def __init__(self, model: nn.Module, architecture: Architecture):
        super().__init__()
        config, a = model.config, architecture
        check(config)
        epsilon = self.epsilon = config.rms_norm_eps
        self.group = a.heads // a.kv_heads
        self.embedding = model.model.embed_tokens.weight
        self.norm = model.model.norm.weight
        self.head = nn.Parameter(model.lm_head.weight.T.contiguous())
        rotation = model.model.rotary_emb
        self.register_buffer("frequencies", rotation.inv_freq.clone())
        self.amplitude = float(rotation.attention_scaling)
        layers = model.model.layers
        self.layers = nn.ModuleList(Block(layer, a, epsilon) for layer in layers)
        self.eval().requires_grad_(False)

    def mask(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """f32 [B, 1, G*S, T]: 0 where a query may look, MASKED elsewhere."""
        length, total = ids.shape[1], attention_mask.shape[1]
        keys = torch.arange(total)
        queries = torch.arange(length).unsqueeze(1) + (total - length)
        seen = (keys <= queries).float() * attention_mask.float().unsqueeze(1)
        return torch.cat([((1 - seen) * MASKED).unsqueeze(1)] * self.group, dim=2)

    def hidden(self, input_ids, attention_mask, position_ids, past=None):
        """Hidden states f32 [B, S, C] after the final norm, given `past`: (keys, values) of each layer."""
        batch = input_ids.shape[0]
        mask = self.mask(input_ids, attention_mask)
        angles = position_ids.float().unsqueeze(2).unsqueeze(3) * self.frequencies
        cos, sin = torch.cos(angles), torch.sin(angles)
        if self.amplitude != 1:
            cos, sin = cos * self.amplitude, sin * self.amplitude
        x = torch.nn.functional.embedding(input_ids, self.embedding)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, batch, past and past[index])
        return rms_norm(x, self.norm, self.epsilon)

    def forward(self, input_ids, attention_mask, position_ids):
        return self.hidden(input_ids, attention_mask, position_ids) @ self.head


class CachedLm(nn.Module):
    """The same with its cache as inputs and outputs, in the bundle's order.

    input_ids i64 [B, S], attention_mask i64 [B, P + S], position_ids i64 [B, S], then each layer's keys and
    values f32 [B, H, P, D] to logits, each layer's keys and values [B, H, P + S, D], and the hidden states.
    """

    def __init__(self, lm: ExportableLm):
        super().__init__()
        self.lm = lm

    def forward(self, input_ids, attention_mask, position_ids, *cache):
        past = list(zip(cache[::2], cache[1::2], strict=True))
        hidden = self.lm.hidden(input_ids, attention_mask, position_ids, past)
        present = [value for layer in self.lm.layers for value in layer.attention.present]
        return (hidden @ self.lm.head, *present, hidden)


def export(module: ExportableLm, names: CausalNames, opset: int, path: Path) -> None:
    """Write the graph: inputs ids, mask and positions i64 [batch, sequence_length], output logits f32 [batch,
    sequence_length, vocabulary], under their `names`.

    Raises ExportError("exporter-graph") when the graph is not valid, ("opset") for another operator set.
    """
    inputs = dict.fromkeys(names.inputs, torch.ones(TRACED, dtype=torch.int64))
    axes = {name: {0: "batch", 1: "sequence_length"} for name in (*names.inputs, names.logits)}
    graph.write(module, inputs, [names.logits], axes, opset, path)
