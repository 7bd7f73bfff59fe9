"""The checkpoints of tests/hostile/checkpoints: each has the code that the Rust reader refuses it with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from soprano_export import language_model, weights
from soprano_export.errors import ExportError

FOLDER = Path(__file__).parents[2] / "tests" / "hostile" / "checkpoints"
CODES = json.loads((FOLDER / "codes.json").read_text())
MOST_AXES = 64
"""More of them PyTorch loads, and then can't compute with."""


def load(path: Path) -> None:
    if path.suffix == ".pth":
        state = weights.pickled(path, "a checkpoint's folder holds it")
        places = dict.fromkeys(state, path)
    else:
        state, places, _ = language_model._weights(path)
    for name, tensor in state.items():
        weights.check_dtype(name, tensor, places[name])
        if tensor.ndim <= MOST_AXES:
            weights.check_finite(name, tensor, places[name])


@pytest.mark.parametrize("name", CODES)
def test_each_has_its_code(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = CODES[name]
    expected = case.get("python", case["code"])
    if expected is None:
        load(FOLDER / name)
    else:
        with pytest.raises(ExportError) as refused:
            load(FOLDER / name)
        assert refused.value.code == expected
        assert str(FOLDER / name) in refused.value.message
    assert not list(tmp_path.iterdir()), "nothing ran"


def test_the_files_are_those_that_make_writes(tmp_path):
    subprocess.run([sys.executable, "-W", "ignore", FOLDER / "make.py", tmp_path], check=True)
    parts = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(FOLDER)
        for path in FOLDER.rglob("*")
        if path.is_file()
        and path.suffix != ".py"
        and path.name != ".gitattributes"
        and "__pycache__" not in path.parts
    }
    assert kept == parts
    for part in sorted(parts):
        assert (FOLDER / part).read_bytes() == (tmp_path / part).read_bytes(), part


def test_both_readers_differ_where_it_is_said(tmp_path):
    """Few cases have two codes, and each is one that the other reader refuses or that PyTorch can't read."""
    differing = {name: case for name, case in CODES.items() if "python" in case}
    assert all(case["python"] != case["code"] for case in differing.values())
    assert len(differing) < len(CODES) / 6
