"""One tiny checkpoint and one export of it, shared by every test that only reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from soprano_export.__main__ import perform

PYTHON = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ran:
    """What one task left behind."""

    output: Path
    events: list[dict[str, Any]]

    @property
    def result(self) -> dict[str, Any]:
        assert self.events[-1]["event"] == "result"
        return self.events[-1]

    @property
    def artifacts(self) -> dict[str, dict[str, Any]]:
        return {event["name"]: event for event in self.events if event["event"] == "artifact"}


def keep_refused(folder: Path, graph: str, code: str) -> None:
    """Copy a checkpoint that was refused, and its code, below REFUSED_CHECKPOINTS, where that is set.

    The native road must refuse it by the same code.
    """
    if home := os.environ.get("REFUSED_CHECKPOINTS"):
        test = re.sub(r"[^\w.-]+", "-", os.environ["PYTEST_CURRENT_TEST"].split("::")[-1])[:100]
        place = Path(home) / f"{len(list(Path(home).iterdir())):03} {test}"
        shutil.copytree(folder, place / "checkpoint", symlinks=True)
        (place / "refused.json").write_text(json.dumps({"graph": graph, "code": code}))


def run_task(output: Path, task: str, **fields: Any) -> Ran:
    """Run a task in this process; its ExportError, if any, is raised."""
    output.mkdir(parents=True, exist_ok=True)
    request = output.parent / f"{output.name}.json"
    request.write_text(json.dumps({"protocol": 2, "task": task, "output": str(output), **fields}))
    events: list[dict[str, Any]] = []
    perform(str(request), lambda event, **rest: events.append({"event": event, **rest}))
    return Ran(output, events)


DECODER = {"family": "soprano", "graph": "decoder", "role": "signal"}
LM = {"family": "soprano", "graph": "lm", "role": "causal"}


def export_and_record(
    output: Path, checkpoint: Path, references: dict[str, Any] | None = None, **fields: Any
) -> Ran:
    """Run `export`, then `record`: the events of both, with one result."""
    only = {name: fields.pop(name) for name in ("exporter", "opset") if name in fields}
    exported = run_task(output, "export", checkpoint=str(checkpoint), **only, **fields)
    recorded = run_task(output, "record", checkpoint=str(checkpoint), references=references or {}, **fields)
    return Ran(output, [*exported.events[:-1], *recorded.events[:-1], exported.result | recorded.result])


def run_process(*arguments: str, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run the package as its parent does: (exit code, events, stderr). Every stdout line must be JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "soprano_export", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=PYTHON,
        env={**os.environ, **environment},
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def only(*graphs: str) -> dict[str, Any]:
    return {"family": "soprano", "graphs": list(graphs)}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny release-1.1-like checkpoint."""
    return run_task(
        tmp_path_factory.mktemp("tiny") / "out", "synthesize", preset="tiny", **only("decoder")
    ).output


@pytest.fixture(scope="session")
def tiny_1_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny checkpoint with release 1.0's input kernel of 3."""
    output = tmp_path_factory.mktemp("tiny10") / "out"
    return run_task(output, "synthesize", preset="tiny-1.0", **only("decoder")).output


SMALL = {"lengths": [2, 3, 5, 16], "batches": [1, 3], "extreme": True, "seed": 0}


@pytest.fixture(scope="session")
def exported(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    output = tmp_path_factory.mktemp("exported") / "out"
    return export_and_record(output, tiny, SMALL, opset=17, **DECODER)


@pytest.fixture(scope="session")
def exported_1_0(tiny_1_0: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    output = tmp_path_factory.mktemp("exported10") / "out"
    return export_and_record(output, tiny_1_0, SMALL, opset=18, **DECODER)


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny Qwen3 language model with two key-value heads."""
    output = tmp_path_factory.mktemp("tiny_lm") / "out"
    return run_task(output, "synthesize", preset="tiny", **only("lm")).output


@pytest.fixture(scope="session")
def tiny_lm_1_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny Llama language model with tied embeddings."""
    output = tmp_path_factory.mktemp("tiny_lm10") / "out"
    return run_task(output, "synthesize", preset="tiny-1.0", **only("lm")).output


@pytest.fixture
def folder(tiny_lm: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_lm` to be spoilt."""
    return Path(shutil.copytree(tiny_lm, tmp_path / "checkpoint"))


def export_lm(output: Path, checkpoint: Path, exporter: str) -> Ran:
    """Export in its own process, as its parent does, and record."""
    output.mkdir(parents=True)
    request = output.parent / "request.json"
    fields = {"task": "export", "checkpoint": str(checkpoint), "exporter": exporter, **LM}
    request.write_text(json.dumps({"protocol": 2, "output": str(output), **fields}))
    code, events, log = run_process(str(request))
    assert code == 0, log
    recorded = run_task(output, "record", checkpoint=str(checkpoint), **LM)
    return Ran(output, [*events[:-1], *recorded.events[:-1], events[-1] | recorded.result])


@pytest.fixture(scope="session")
def lm_torch(tiny_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return export_lm(tmp_path_factory.mktemp("lm_torch") / "out", tiny_lm, "torch")


@pytest.fixture(scope="session")
def lm_optimum(tiny_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return export_lm(tmp_path_factory.mktemp("lm_optimum") / "out", tiny_lm, "optimum")
