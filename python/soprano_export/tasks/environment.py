"""Task `environment`: whether everything that an export imports can really be imported."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ..protocol import Job

MODULES = ("torch", "numpy", "safetensors", "onnx", "onnxruntime", "huggingface_hub", "soprano.vocos.decoder")


@dataclass(frozen=True)
class Request:
    pass


def run(request: Request, job: Job) -> dict[str, Any]:
    """Result: {"modules": {name: null, or the error that importing it raised}}."""
    modules: dict[str, str | None] = {}
    for done, name in enumerate(MODULES):
        job.progress("import", done, len(MODULES))
        try:
            if name.startswith("soprano."):
                from .. import upstream

                upstream.decoder_class()
            else:
                importlib.import_module(name)
            modules[name] = None
        except Exception as error:
            modules[name] = f"{type(error).__name__}: {error}"
    job.progress("import", len(MODULES), len(MODULES))
    return {"modules": modules}
