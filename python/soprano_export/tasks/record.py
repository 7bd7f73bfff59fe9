"""Task `record`: what the unmodified model of a graph answers, as references."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import families, roles
from ..protocol import Job
from ..request import parse
from ..target import Target


@dataclass(frozen=True, kw_only=True)
class Request(Target):
    references: dict[str, Any] = field(default_factory=dict)


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes artifact `references` (references.safetensors). Result: {"cases"}."""
    wanted = parse(roles.REFERENCES[request.role], request.references, "references")
    kind = families.kind(request)
    job.progress("load checkpoint", 0, 1)
    graph = kind.load(request)
    job.progress("load checkpoint", 1, 1)
    data, cases = graph.record(wanted, job)
    job.write("references", "references.safetensors", data)
    return {"cases": cases}
