"""Model families: one line each, imported only when asked for.

A family is a module with a constant `FAMILY` of a class derived from `base.Family`, whose slow imports are
inside its methods: a refused request is refused at once.
"""

import importlib

from ..request import refuse
from .base import Family

FAMILIES = {
    "soprano": "soprano_export.families.soprano",
    "plain": "soprano_export.families.plain",
}


def load(name: str) -> Family:
    """The family of a name. Raises ExportError("request") for one that is not there."""
    if name not in FAMILIES:
        refuse(f"unknown family `{name}`", f"one of: {', '.join(FAMILIES)}")
    return importlib.import_module(FAMILIES[name]).FAMILY
