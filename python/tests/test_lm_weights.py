"""Safetensors files and their index: what is missing, damaged, or said of them wrongly."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LM, export_and_record
from safetensors.torch import load_file, save_file
from soprano_export import language_model
from test_language_model import UP, WEIGHTS, equals_transformers, refusal, store

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
def test_missing_files(folder, file):
    (folder / file).unlink()
    assert refusal(folder, file).code == "checkpoint-missing"
    (folder / file).mkdir()
    assert refusal(folder, file).code in ("checkpoint-missing", "checkpoint-format")


def test_missing_tensor(folder):
    store(folder, **{UP.replace(".", "__"): None})
    error = refusal(folder, WEIGHTS)
    assert error.code == "checkpoint-shape" and f"`{UP}` is missing (1 in all)" in error.message


def test_extra_tensor(folder):
    store(folder, model__adapter__weight=torch.zeros(4, 4))
    error = refusal(folder, WEIGHTS)
    assert error.code == "checkpoint-shape" and "`model.adapter.weight` is not part" in error.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite(folder, value, dtype):
    weight = load_file(folder / WEIGHTS)[UP].to(dtype)
    weight[5, 7] = value
    store(folder, **{UP.replace(".", "__"): weight})
    error = refusal(folder, WEIGHTS)
    assert error.code == "checkpoint-nan" and f"`{UP}` has 1 of 6144 values" in error.message


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float64, torch.float8_e4m3fn])
def test_other_dtypes(folder, dtype):
    store(folder, model__norm__weight=torch.ones(64).to(dtype))
    error = refusal(folder, WEIGHTS)
    assert error.code == "checkpoint-dtype"
    assert f"`model.norm.weight` is {str(dtype).removeprefix('torch.')};" in error.message


def parts(folder: Path) -> tuple[dict[str, Any], bytes]:
    data = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def pack(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "offsets",
    [
        lambda start, end, total: [start, end + 2],
        lambda start, end, total: [start - 2, end],
        lambda start, end, total: [0, end - start],
        lambda start, end, total: [total, total + end - start],
        lambda start, end, total: [start, 10**15],
        lambda start, end, total: [end, start],
        lambda start, end, total: [-2, end],
        lambda start, end, total: [2**64, end],
    ],
    ids=["longer", "overlap", "another", "beyond", "far", "swapped", "negative", "overflow"],
)
def test_offsets_that_lie(folder, offsets):
    header, data = parts(folder)
    header[UP]["data_offsets"] = offsets(*header[UP]["data_offsets"], len(data))
    (folder / WEIGHTS).write_bytes(pack(header, data))
    assert refusal(folder, WEIGHTS).code == "checkpoint-format"


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:4],
        lambda whole: whole[:100],
        lambda whole: whole[:-2],
        lambda whole: whole + b"12",
        lambda whole: struct.pack("<Q", len(whole)) + whole[8:],
        lambda whole: struct.pack("<Q", 2**64 - 1) + whole[8:],
        lambda whole: pack(b"not JSON", whole),
        lambda whole: pack([], b""),
        lambda whole: pack({UP: {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"1234"),
        lambda whole: pack({UP: {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ],
)
def test_damaged_safetensors(folder, damage):
    path = folder / WEIGHTS
    path.write_bytes(damage(path.read_bytes()))
    error = refusal(folder, WEIGHTS)
    assert error.code == "checkpoint-format" and error.hint


@pytest.fixture
def sharded(folder: Path) -> Path:
    state = load_file(folder / WEIGHTS)
    names = sorted(state)
    table = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for shard in set(table.values()):
        save_file({name: state[name] for name in names if table[name] == shard}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    (folder / WEIGHTS).unlink()
    return folder


@pytest.mark.parametrize("exporter", ["torch", "optimum"])
def test_shards_are_exported_as_one_file_is(request, sharded, tmp_path, exporter):
    whole = request.getfixturevalue(f"lm_{exporter}")
    parts = export_and_record(tmp_path / "out", sharded, exporter=exporter, **LM)
    assert parts.artifacts == whole.artifacts


def redirect(folder: Path, tensor: str, shard: Any) -> None:
    listed = json.loads((folder / INDEX).read_text())
    listed["weight_map"][tensor] = shard
    (folder / INDEX).write_text(json.dumps(listed))


def test_shards_equal_one_file(sharded, tiny_lm):
    model, whole = equals_transformers(sharded), language_model.load(tiny_lm)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_index_with_a_missing_shard(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    error = refusal(sharded, "model-00002-of-00002.safetensors")
    assert error.code == "checkpoint-missing" and INDEX in error.hint


@pytest.mark.parametrize(
    "shard",
    ["../{}", "{root}/{}", "sub/../{}", "..", ".", "", "a\0{}", "\ud800{}", "decoder.pth", 3, None, ["{}"]],
    ids=repr,
)
def test_index_that_leaves_the_folder(sharded, tmp_path, shard):
    listed = json.loads((sharded / INDEX).read_text())["weight_map"]
    (sharded / listed[UP]).rename(tmp_path / listed[UP])
    for name, file in listed.items():
        if file == listed[UP]:
            text = isinstance(shard, str)
            redirect(sharded, name, shard.replace("{root}", str(tmp_path)).format(file) if text else shard)
    (sharded / "sub").mkdir()
    error = refusal(sharded, INDEX)
    assert error.code == "checkpoint-format"
    assert "is not the name of a safetensors file next to it" in error.message


def test_index_that_contradicts_its_shards(sharded):
    first, second = sorted(path.name for path in sharded.glob("model-*.safetensors"))
    listed = json.loads((sharded / INDEX).read_text())["weight_map"]
    redirect(sharded, "model.norm.bias", first)
    error = refusal(sharded, first)
    assert error.code == "checkpoint-shape" and "`model.norm.bias` is missing" in error.message
    (sharded / INDEX).write_text(json.dumps({"weight_map": {**listed, UP: second}}))
    assert listed[UP] == first
    error = refusal(sharded, first)
    assert error.code == "checkpoint-shape" and f"`{UP}` is there, although" in error.message
    save_file({**load_file(sharded / second), UP: torch.zeros(96, 64)}, sharded / second)
    assert refusal(sharded, first).code == "checkpoint-shape", "a tensor in two shards"


def test_index_that_forgets_a_tensor(sharded):
    listed = json.loads((sharded / INDEX).read_text())["weight_map"]
    shard = sharded / listed.pop(UP)
    state = load_file(shard)
    del state[UP]
    save_file(state, shard)
    (sharded / INDEX).write_text(json.dumps({"weight_map": listed}))
    error = refusal(sharded, INDEX)
    assert error.code == "checkpoint-shape" and f"`{UP}` is missing" in error.message


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_index_that_is_none(sharded, content):
    (sharded / INDEX).write_text(content)
    assert refusal(sharded, INDEX).code == "checkpoint-format"
