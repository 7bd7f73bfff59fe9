"""Every way in which a checkpoint can lie, and the few in which it may differ."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import keep_refused, only, run_task
from soprano_export.errors import ExportError
from soprano_export.families.soprano import checkpoint, synthetic
from soprano_export.families.soprano.upstream import Architecture


@pytest.fixture
def state(tiny: Path) -> dict[str, torch.Tensor]:
    return torch.load(tiny / "decoder.pth", weights_only=True)


def load(directory: Path, content) -> tuple[torch.nn.Module, Architecture]:
    if isinstance(content, bytes):
        (directory / "decoder.pth").write_bytes(content)
    else:
        torch.save(content, directory / "decoder.pth")
    return checkpoint.load(directory)


def refusal(directory: Path, content) -> ExportError:
    with pytest.raises(ExportError) as refused:
        load(directory, content)
    assert str(directory / "decoder.pth") in refused.value.message
    keep_refused(directory, "decoder", refused.value.code)
    return refused.value


def test_dimensions_are_read_off_the_shapes(tiny, tiny_1_0):
    module, architecture = checkpoint.load(tiny)
    assert architecture == synthetic.PRESETS["tiny"]
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert checkpoint.load(tiny_1_0)[1].input_kernel == 3


@pytest.mark.parametrize(
    ("preset", "version"),
    [("soprano-1.0", "1.0"), ("soprano-1.1", "1.1"), ("tiny", "custom"), ("tiny-1.0", "custom")],
)
def test_versions_are_named(preset, version):
    assert synthetic.PRESETS[preset].version == version


def test_wrapped_state_dict(tmp_path, state):
    module, _ = load(tmp_path, {"state_dict": state, "epoch": 3})
    assert torch.equal(module.head.out.weight, state["head.out.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast(tmp_path, state, dtype):
    module, _ = load(tmp_path, {name: tensor.to(dtype) for name, tensor in state.items()})
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}


class Hostile:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_pickle_that_runs_code_is_refused_and_runs_none(tmp_path, form):
    mark, content = tmp_path / "ran", io.BytesIO()
    hostile = {"decoder.embed.weight": Hostile(mark)}
    if form == "pickle":
        pickle.dump(hostile, content, protocol=2)
    else:
        torch.save(hostile, content, _use_new_zipfile_serialization=form == "zip")
    error = refusal(tmp_path, content.getvalue())
    assert error.code == "checkpoint-unsafe"
    assert "it asks to run posix.mkdir," in error.message
    assert not mark.exists()


def test_whole_module_in_place_of_its_state_dict(tmp_path):
    error = refusal(tmp_path, torch.nn.Linear(2, 2))
    assert error.code == "checkpoint-unsafe"
    assert "torch.nn.modules.linear.Linear" in error.message and "state_dict()" in error.hint


def test_missing_file(tmp_path):
    with pytest.raises(ExportError) as refused:
        checkpoint.load(tmp_path)
    assert refused.value.code == "checkpoint-missing"


def test_directory_in_place_of_the_file(tmp_path):
    (tmp_path / "decoder.pth").mkdir()
    with pytest.raises(ExportError) as refused:
        checkpoint.load(tmp_path)
    assert refused.value.code == "checkpoint-missing"


def test_damaged_files(tmp_path, tiny):
    whole = (tiny / "decoder.pth").read_bytes()
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("readme.txt", "not a model")
    damaged = [
        b"",
        b"plain text",
        whole[: len(whole) // 2],
        whole[:100],
        foreign.getvalue(),
        b"\x80\x02}q\x00",
    ]
    for content in damaged:
        error = refusal(tmp_path, content)
        assert error.code == "checkpoint-format"
        assert "weights_only" not in error.message and len(error.message) < 500


def test_lfs_pointer_is_recognised(tmp_path):
    error = refusal(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert error.code == "checkpoint-format" and "git lfs pull" in error.hint


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {"a": 1}, {1: torch.zeros(2)}])
def test_not_a_state_dict(tmp_path, content):
    assert refusal(tmp_path, content).code == "checkpoint-format"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite(tmp_path, state, value):
    state["decoder.convnext.1.gamma"][3] = value
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-nan"
    assert "`decoder.convnext.1.gamma` has 1 of 32" in error.message


def test_missing_tensor(tmp_path, state):
    del state["decoder.convnext.1.pwconv2.bias"]
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-shape"
    assert "decoder.convnext.1.pwconv2.bias is missing, expected [32]" in error.message


@pytest.mark.parametrize("name", ["head.istft.window", "decoder.embed.weight", "head.out.weight"])
def test_missing_tensor_that_decides_a_dimension(tmp_path, state, name):
    del state[name]
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-shape" and f"{name} is missing" in error.message


def test_extra_tensor(tmp_path, state):
    state["decoder.adapter.weight"] = torch.zeros(4, 4)
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-shape"
    assert "decoder.adapter.weight [4, 4] is not expected" in error.message


def test_missing_layer(tmp_path, state):
    renamed = {name.replace("convnext.1.", "convnext.3."): tensor for name, tensor in state.items()}
    error = refusal(tmp_path, renamed)
    assert error.code == "checkpoint-shape" and "decoder.convnext.1 is missing" in error.message


def test_mis_shaped_tensor(tmp_path, state):
    state["decoder.convnext.1.pwconv1.weight"] = torch.zeros(96, 31)
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-shape"
    assert "decoder.convnext.1.pwconv1.weight is [96, 31], expected [96, 32]" in error.message


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("decoder.embed.weight", (32, 512, 2), "even kernel (2)"),
        ("decoder.convnext.0.dwconv.weight", (32, 1, 4), "even kernel (4)"),
        ("decoder.embed.weight", (32, 512), "expected 3 dimensions"),
        ("decoder.embed.weight", (32, 512, 0), "expected 3 dimensions, none of them 0"),
        ("head.out.weight", (2049, 32), "n_fft = 2047"),
        ("head.out.weight", (2, 32), "n_fft = 0"),
        ("head.istft.window", (1024,), "head.istft.window is [1024], expected [2048]"),
    ],
)
def test_shapes_that_upstream_cannot_run(tmp_path, state, name, shape, says):
    state[name] = torch.zeros(shape)
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-shape" and says in error.message


def test_long_lists_are_cut(tmp_path, state):
    for index in range(20):
        state[f"other.{index}"] = torch.zeros(1)
    assert "and 15 more" in refusal(tmp_path, state).message


def test_tensor_larger_than_its_storage(tmp_path, state):
    state["decoder.norm.weight"] = torch.ones(1).expand(32)
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-shape" and "over 4 bytes" in error.message


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float64])
def test_other_dtypes(tmp_path, state, dtype):
    state["decoder.norm.weight"] = torch.ones(32, dtype=dtype)
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-dtype" and str(dtype).removeprefix("torch.") in error.message


def test_sparse_tensor(tmp_path, state):
    state["head.out.weight"] = state["head.out.weight"].to_sparse()
    assert refusal(tmp_path, state).code == "checkpoint-dtype"


def test_another_architecture(tmp_path):
    state = {f"model.layers.{index}.mlp.weight": torch.zeros(2, 2) for index in range(9)}
    error = refusal(tmp_path, state)
    assert error.code == "checkpoint-architecture"
    assert "model.layers.0.mlp.weight" in error.message and "and 4 more" in error.message


def test_window_without_inverse(tmp_path, state):
    state["head.istft.window"] = torch.zeros(2048)
    assert refusal(tmp_path, state).code == "checkpoint-window"


def test_synthetic_weights_depend_on_the_seed_alone(tiny, tmp_path):
    again = (
        run_task(tmp_path / "again", "synthesize", preset="tiny", **only("decoder")).output / "decoder.pth"
    )
    other = (
        run_task(tmp_path / "other", "synthesize", preset="tiny", seed=1, **only("decoder")).output
        / "decoder.pth"
    )
    assert again.read_bytes() == (tiny / "decoder.pth").read_bytes() != other.read_bytes()


def test_synthetic_weights_have_no_tensor_that_could_be_dropped_unseen(state):
    for name, tensor in state.items():
        assert float(tensor.std()) > 0.01, name
        assert name.endswith("window") or float((tensor - 1).abs().mean()) > 0.01, name
