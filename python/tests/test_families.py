"""Families: what each says of its graphs, and that nobody else knows their names."""

from __future__ import annotations

import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from conftest import DECODER, LM, PYTHON, run_task
from soprano_export import families
from soprano_export.errors import ExportError
from soprano_export.families.soprano import ROLES

PACKAGE = PYTHON / "soprano_export"


def literals(path: Path) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return {token.string.strip("\"'") for token in tokens if token.type == tokenize.STRING}


def test_no_graph_is_named_outside_families():
    outside = [path for path in PACKAGE.rglob("*.py") if "families" not in path.relative_to(PACKAGE).parts]
    assert len(outside) > 15
    for path in outside:
        assert not literals(path) & {*ROLES, "codec"}, path
        assert "soprano." not in " ".join(
            line for line in path.read_text().splitlines() if "import" in line
        ), path
    inside = set().union(*(literals(path) for path in (PACKAGE / "families").rglob("*.py")))
    assert set(ROLES) <= inside, "the test sees literals"


def test_a_family_and_no_other_is_imported_when_asked_for():
    code = (
        "import sys, soprano_export.families as f; f.load('plain').graph; "
        "heavy = {'torch', 'onnx', 'transformers', 'soprano_export.families.soprano'}; "
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PYTHON).returncode == 0
    for name in families.FAMILIES:
        family = families.load(name)
        assert family.name == name and family.presets and "torch" in family.modules


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_environment_of_a_family(tmp_path, family):
    ran = run_task(tmp_path / "out", "environment", family=family)
    assert set(ran.result["modules"].values()) == {None}
    assert list(ran.result["modules"]) == list(families.load(family).modules)


@pytest.mark.parametrize(
    ("task", "fields", "says"),
    [
        ("export", {**LM, "family": "fish"}, "unknown family `fish`"),
        ("export", {**LM, "graph": "codec"}, "the family `soprano` has no graph `codec`"),
        ("export", {**LM, "role": "signal"}, "`role` is 'signal', and `lm` is a causal graph"),
        ("export", {**DECODER, "role": "causal"}, "`role` is 'causal', and `decoder` is a signal graph"),
        ("export", {**LM, "role": "encoder"}, "`role` is 'encoder'"),
        ("export", {**DECODER, "exporter": "optimum"}, "`exporter` is 'optimum'"),
        ("export", {**DECODER, "module": {"import": "a:B", "weights": "c.pth"}}, "has its own code"),
        ("export", {**DECODER, "hidden_states": [1]}, "`hidden_states` are of a causal graph's layers"),
        ("record", {**LM, "references": {"lengths": [2]}}, "unknown field `references.lengths`"),
        ("record", {**DECODER, "references": {"lengths": [1, 2]}}, "1 frames give no sample"),
        ("speak", {"family": "plain", "sentences": ["Hello."]}, "of the family `plain` does not speak"),
        ("synthesize", {"family": "plain", "preset": "tiny", "graphs": ["a"]}, "`preset` is 'tiny'"),
        ("synthesize", {"family": "soprano", "preset": "tiny", "graphs": ["codec"]}, "`graphs` has 'codec'"),
        ("environment", {"family": "fish"}, "unknown family `fish`"),
        ("environment", {}, "no field `family`"),
    ],
    ids=str,
)
def test_what_a_family_has_not_is_refused_by_name(tiny, tmp_path, task, fields, says):
    if task in ("export", "record", "speak"):
        fields = {"checkpoint": str(tiny), **fields}
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", task, **fields)
    assert refused.value.code == "request" and says in refused.value.message
    assert list((tmp_path / "out").iterdir()) == []
