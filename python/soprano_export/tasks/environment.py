"""Task `environment`: whether everything that a family's tasks import can really be imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import families
from ..protocol import Job


@dataclass(frozen=True)
class Request:
    family: str


def run(request: Request, job: Job) -> dict[str, Any]:
    """Result: {"modules": {name: null, or the error that importing it raised}}."""
    family = families.load(request.family)
    modules: dict[str, str | None] = {}
    for done, name in enumerate(family.modules):
        job.progress("import", done, len(family.modules))
        try:
            family.check_import(name)
            modules[name] = None
        except Exception as error:
            modules[name] = f"{type(error).__name__}: {error}"
    job.progress("import", len(family.modules), len(family.modules))
    return {"modules": modules}
