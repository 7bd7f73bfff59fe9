"""Model families: one line each, imported only when asked for.

A family is a module with a constant `FAMILY` of a class derived from `base.Family`, whose slow imports are
inside its methods: a refused request is refused at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import ExportError
from ..request import refuse
from .base import Family, Graph

if TYPE_CHECKING:
    from ..target import Target

FAMILIES = {
    "soprano": "soprano_export.families.soprano",
    "plain": "soprano_export.families.plain",
}


def load(name: str) -> Family:
    """The family of a name. Raises ExportError("request") for one that is not there."""
    if name not in FAMILIES:
        refuse(f"unknown family `{name}`", f"one of: {', '.join(FAMILIES)}")
    return importlib.import_module(FAMILIES[name]).FAMILY


def kind(target: Target) -> type[Graph]:
    """The class of the graph. Raises ExportError("request") where its family has none of that name."""
    kind = load(target.family).graph(target.graph, target.role)
    if target.module is not None and not kind.takes_module:
        refuse(f"`module`: the family {target.family!r} has its own code for `{target.graph}`")
    if target.module is not None and not target.module.trust_code:
        raise ExportError(
            "code-not-trusted",
            f"{target.module.path} is code that this program does not know; none of it was run",
            "read it, then build with --trust-code",
        )
    if target.hidden_states and target.role != "causal":
        refuse("`hidden_states` are of a causal graph's layers")
    target.tensors()
    if not target.directory.is_dir():
        refuse(f"`checkpoint` is not a directory: {target.checkpoint!r}")
    return kind
