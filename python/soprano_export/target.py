"""What a request says about its graph: the fields that every task on one graph shares."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import roles
from .hub import check_names
from .request import parse
from .roles import Role

WORD = r"[^\W\d]\w*"
CLASS = re.compile(rf"{WORD}(\.{WORD})*:{WORD}")


@dataclass(frozen=True)
class Module:
    """A PyTorch module that no family knows: its class, what builds it, and its weights."""

    path: str = field(metadata={"name": "import"})
    weights: str
    arguments: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    trust_code: bool = False

    def __post_init__(self) -> None:
        if not CLASS.fullmatch(self.path):
            raise ValueError(f"import is not of the form `package.module:Class`: {self.path!r}")
        check_names([self.weights], "weights")
        if not self.weights.endswith((".pth", ".pt", ".bin", ".safetensors")):
            raise ValueError(f"weights is neither a PyTorch nor a safetensors file: {self.weights!r}")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A graph of a checkpoint, by family and name."""

    checkpoint: str
    family: str
    graph: str
    role: Role
    names: dict[str, Any] = field(default_factory=dict)
    hidden_states: list[int] = field(default_factory=list)
    module: Module | None = None

    def tensors(self) -> Any:
        """The names of its tensors: `roles.CausalNames` or `roles.SignalNames`."""
        return parse(roles.NAMES[self.role], self.names, "names")

    @property
    def directory(self) -> Path:
        return Path(self.checkpoint)
