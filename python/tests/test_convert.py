"""The second way to OpenVINO: modules that compute what upstream computes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DECODER, LM, run_task
from safetensors.torch import save
from soprano_export import families, language_model
from soprano_export.errors import ExportError
from soprano_export.families.base import Graph
from soprano_export.families.soprano import checkpoint
from soprano_export.istft import InverseStft
from soprano_export.target import Target
from soprano_export.tasks import convert


def graph(checkpoint: Path, fields: dict[str, Any]) -> Graph:
    target = Target(checkpoint=str(checkpoint), **fields)
    return families.kind(target).load(target)


@pytest.mark.parametrize("length", [2, 3, 5, 17])
def test_the_decoder_is_upstreams(tiny, length):
    module, _ = checkpoint.load(tiny)
    made, example, shapes = graph(tiny, DECODER).convertible()
    hidden = torch.randn(
        2, example["hidden_states"].shape[1], length, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        want, got = module(hidden), made(hidden)
    assert got.shape == want.shape
    assert (got - want).abs().max() / want.abs().max() < 1e-5
    assert shapes["hidden_states"][0] == shapes["hidden_states"][2] == -1


def test_the_inverse_stft_is_torchs():
    n_fft, hop = 32, 8
    window = torch.hann_window(n_fft)
    spectrum = torch.randn(
        2, n_fft // 2 + 1, 9, dtype=torch.complex64, generator=torch.Generator().manual_seed(2)
    )
    spectrum[:, 0] = spectrum[:, -1] = 0
    want = torch.istft(spectrum, n_fft, hop, n_fft, window, center=True)
    got = InverseStft(n_fft, hop, window, False, True)(spectrum.real, spectrum.imag)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_the_language_model_behind_a_cache_is_transformers(tiny_lm):
    model = language_model.load(tiny_lm)
    made, example, _ = graph(tiny_lm, LM).convertible()
    ids = torch.randint(0, 100, (2, 7), generator=torch.Generator().manual_seed(3))
    positions = torch.arange(7).repeat(2, 1)
    with torch.no_grad():
        want = model(input_ids=ids, position_ids=positions, output_hidden_states=True)
        cache = [v[:, :, :0] for name, v in example.items() if name.startswith("past_key_values.")]
        first = made(ids[:, :4], torch.ones(2, 4, dtype=torch.int64), positions[:, :4], *cache)
        second = made(ids[:, 4:], torch.ones(2, 7, dtype=torch.int64), positions[:, 4:], *first[1:-1])
    hidden = torch.cat((first[-1], second[-1]), 1)
    torch.testing.assert_close(hidden, want.hidden_states[-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat((first[0], second[0]), 1), want.logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "/nowhere.onnx"}, "is not a file"),
        ({"precisions": []}, "precisions"),
        ({"precisions": ["int8", "int8"]}, "precisions"),
        ({"precisions": ["int4"]}, "precisions"),
        ({"via": "torch"}, "checkpoint"),
        ({"stateful": True}, "stateful"),
        ({"role": "causal", "calibration": "/nowhere.safetensors"}, "calibration"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(tmp_path, fields, words):
    model = tmp_path / "model.onnx"
    model.write_text("")
    request = {"model": str(model), **DECODER, "precisions": ["fp32"], **fields}
    with pytest.raises(ExportError, match=words):
        run_task(tmp_path / "out", "convert", **request)


def test_a_file_that_is_no_model_is_an_error_that_names_it(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_text("not a model")
    with pytest.raises(ExportError, match=r"model\.onnx"):
        run_task(tmp_path / "out", "convert", model=str(model), precisions=["fp32"], **DECODER)
    assert not list((tmp_path / "out").iterdir())


def test_a_calibration_is_of_lifelike_inputs_and_of_a_file_of_references(tmp_path):
    path = tmp_path / "references.safetensors"
    inputs = ["hidden_states"]
    for bad in (b"", b"not a file of tensors", save({"a": torch.zeros(1)})):
        path.write_bytes(bad)
        with pytest.raises(ExportError, match="calibration"):
            convert.lifelike(path, inputs)
    tensors = {
        f"{name}/hidden_states": torch.full((1, 3, 2), at) for at, name in enumerate(("loud", "usual"))
    }
    cases = [{"name": "loud", "kind": "extreme"}, {"name": "usual", "kind": "realistic"}]
    path.write_bytes(save(tensors, {"cases": json.dumps(cases)}))
    (sample,) = convert.lifelike(path, inputs)
    assert (sample["hidden_states"] == 1).all()
    path.write_bytes(save(tensors, {"cases": json.dumps(cases[:1])}))
    with pytest.raises(ExportError, match="no lifelike input"):
        convert.lifelike(path, inputs)
