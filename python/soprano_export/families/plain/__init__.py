"""Plain models: language models of `transformers`, and vocoders whose module the request names.

Their graphs have any name.
"""

from __future__ import annotations

from typing import Any

from ...roles import Role
from ..base import Family, Graph


class Plain(Family):
    name = "plain"
    presets = ("llama-2l", "qwen2-2l", "qwen3-2l", "mistral-2l", "istft-head")
    modules = ("torch", "numpy", "safetensors", "onnx", "onnxruntime", "huggingface_hub", "transformers")

    def graph(self, name: str, role: Role) -> type[Graph]:
        if role == "causal":
            from ...causal import CausalGraph

            return CausalGraph
        from .vocoder import Vocoder

        return Vocoder

    def synthesize(
        self, preset: str, seed: int, graphs: list[str]
    ) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
        from . import synthetic

        architecture, files = synthetic.checkpoint(preset, seed)
        return architecture, {name: (name, data) for name, data in files.items()}


FAMILY = Plain()
