"""What a request says about its graph: the fields that every task on one graph shares."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import families, roles
from .errors import ExportError
from .families.base import Graph
from .hub import check_names
from .request import parse, refuse
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

    def kind(self) -> type[Graph]:
        """The class of the graph. Raises ExportError("request") where its family has none of that name."""
        kind = families.load(self.family).graph(self.graph, self.role)
        if self.module is not None and not kind.takes_module:
            refuse(f"`module`: the family {self.family!r} has its own code for `{self.graph}`")
        if self.module is not None and not self.module.trust_code:
            raise ExportError(
                "code-not-trusted",
                f"{self.module.path} is code that this program does not know; none of it was run",
                "read it, then say `trust_code: true` beside `import`",
            )
        if self.hidden_states and self.role != "causal":
            refuse("`hidden_states` are of a causal graph's layers")
        self.tensors()
        if not self.directory.is_dir():
            refuse(f"`checkpoint` is not a directory: {self.checkpoint!r}")
        return kind

    def tensors(self) -> Any:
        """The names of its tensors: `roles.CausalNames` or `roles.SignalNames`."""
        return parse(roles.NAMES[self.role], self.names, "names")

    @property
    def directory(self) -> Path:
        return Path(self.checkpoint)
