"""Task `export`: a graph of a checkpoint to ONNX."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import families
from ..protocol import Job
from ..request import refuse
from ..target import Target


@dataclass(frozen=True, kw_only=True)
class Request(Target):
    exporter: str = "torch"
    opset: int = 17


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes artifact `model` (model.onnx), and `probes` (probes.safetensors) where the family records inner
    values. Result: the facts of the graph's role, "architecture" among them.
    """
    kind = families.kind(request)
    if request.exporter not in kind.exporters:
        refuse(f"`exporter` is {request.exporter!r}", f"one of: {', '.join(kind.exporters)}")

    from ..graph import check_opset

    check_opset(request.opset)
    job.progress("load checkpoint", 0, 1)
    graph = kind.load(request)
    job.progress("load checkpoint", 1, 1)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=job.output) as scratch:
        written = Path(scratch) / "model.onnx"
        job.progress("export graph", 0, 1)
        facts = graph.export(request.exporter, request.opset, written)
        job.progress("export graph", 1, 1)
        probes = graph.probes(written)
        job.adopt("model", "model.onnx", written)
    if probes is not None:
        job.write("probes", "probes.safetensors", probes)
    return facts
