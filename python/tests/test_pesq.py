"""Task `pesq`, with a stand-in for the package that the user installs, and what it cannot score."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Ran, run_task
from safetensors.numpy import save_file
from soprano_export.errors import ExportError

SOUND = np.linspace(-1, 1, 16_000, dtype=np.float32)


class PesqError(RuntimeError):
    pass


def score(rate: int, reference: np.ndarray, degraded: np.ndarray, mode: str) -> np.float64:
    assert (rate, mode) == (16_000, "wb")
    if len(reference) < 4000:
        raise PesqError("too short")
    if np.abs(degraded).max() < 1e-20:
        raise ValueError("cannot convert float NaN to integer")
    return np.float64(4.5 - np.abs(reference - degraded).max())


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", SimpleNamespace(pesq=score, PesqError=PesqError))


def ask(folder: Path, reference: list[np.ndarray], degraded: list[np.ndarray]) -> Ran:
    for name, signals in ("reference", reference), ("degraded", degraded):
        save_file({str(at): signal for at, signal in enumerate(signals)}, folder / name)
    paths = {name: str(folder / name) for name in ("reference", "degraded")}
    return run_task(folder / "out", "pesq", **paths)


def test_what_cannot_be_scored_is_null_in_its_place(package, tmp_path):
    reference = [SOUND, SOUND, SOUND[:100], SOUND, 0 * SOUND, SOUND]
    degraded = [SOUND, SOUND * 0.5, SOUND[:100], 0 * SOUND, SOUND, SOUND * np.float32(1e-30)]
    assert ask(tmp_path, reference, degraded).result["scores"] == [4.5, 4.0, None, None, None, None]


def test_many_signals_keep_their_order(package, tmp_path):
    degraded = [SOUND * np.float32(1 - at / 16) for at in range(12)]
    scores = ask(tmp_path, [SOUND] * 12, degraded).result["scores"]
    assert scores == [4.5 - at / 16 for at in range(12)]


@pytest.mark.parametrize(
    ("reference", "degraded", "message"),
    [
        ([SOUND], [SOUND, SOUND], "not as many signals"),
        ([SOUND], [SOUND[1:]], "not as many signals"),
        ([SOUND.astype(float)], [SOUND], "not all f32 of rank 1"),
        ([SOUND.reshape(2, -1)], [SOUND], "not all f32 of rank 1"),
        ([SOUND], [np.append(SOUND[1:], np.float32("nan"))], "a sample is not finite"),
    ],
)
def test_signals_that_do_not_fit_are_refused(package, tmp_path, reference, degraded, message):
    with pytest.raises(ExportError, match=message) as refused:
        ask(tmp_path, reference, degraded)
    assert refused.value.code == "request"


def test_files_that_are_not_signals_are_refused(package, tmp_path):
    (tmp_path / "text").write_text("no tensors")
    save_file({"sound": SOUND}, tmp_path / "named")
    for name, message in ("text", "not a safetensors file"), ("named", "no tensor '0'"), ("none", "none: "):
        path = str(tmp_path / name)
        with pytest.raises(ExportError, match=message):
            run_task(tmp_path / "out", "pesq", reference=path, degraded=path)


def test_without_the_package_the_answer_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(ExportError, match="cannot be imported") as refused:
        ask(tmp_path, [SOUND], [SOUND])
    assert (refused.value.code, refused.value.hint) == ("environment", "pip install pesq")
