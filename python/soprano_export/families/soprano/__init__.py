"""Soprano: a Qwen3 language model whose hidden states a Vocos decoder turns into audio."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ...protocol import Job
from ...request import refuse
from ...roles import Role
from ..base import Family, Graph

ROLES: dict[str, Role] = {"decoder": "signal", "lm": "causal"}


class Soprano(Family):
    name = "soprano"
    presets = ("soprano-1.0", "soprano-1.1", "tiny", "tiny-1.0")
    modules = (
        "torch",
        "numpy",
        "safetensors",
        "onnx",
        "onnxruntime",
        "huggingface_hub",
        "soprano.vocos.decoder",
    )

    def graph(self, name: str, role: Role) -> type[Graph]:
        if name not in ROLES:
            refuse(f"the family `{self.name}` has no graph `{name}`", f"one of: {', '.join(ROLES)}")
        if role != ROLES[name]:
            refuse(f"`role` is {role!r}, and `{name}` is a {ROLES[name]} graph")

        from . import graphs

        return graphs.GRAPHS[name]

    def synthesize(
        self, preset: str, seed: int, graphs: list[str]
    ) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
        """Artifact `checkpoint` is decoder.pth; the language model's files are under their own names."""
        for name in graphs:
            if name not in ROLES:
                refuse(f"`graphs` has {name!r}", f"of: {', '.join(ROLES)}")

        from . import synthetic

        architecture, files = synthetic.PRESETS[preset], {}
        if "decoder" in graphs:
            data = synthetic.serialize(synthetic.weights(architecture, seed))
            files["checkpoint"] = ("decoder.pth", data)
        if "lm" in graphs:
            files |= {name: (name, data) for name, data in synthetic.speaker(preset, seed).items()}
        return architecture.describe(), files

    def speak(self, directory: Path, sentences: list[str], repetition_penalty: float, job: Job) -> Any:
        from .speech import speak

        return speak(directory, sentences, repetition_penalty, job)

    def check_import(self, module: str) -> None:
        if module.startswith("soprano."):
            from . import upstream

            upstream.decoder_class()
        else:
            importlib.import_module(module)


FAMILY = Soprano()
