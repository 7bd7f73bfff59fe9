"""Exported language models: the promised form, and what ONNX Runtime makes of them beside `transformers`."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import LM, PYTHON, export_and_record, run_task
from safetensors.torch import load_file, save_file
from soprano_export.errors import ExportError
from soprano_export.roles import CausalNames
from test_export import read
from test_language_model import edit
from test_lm import STEPS, TOLERANCE, answers, batch

MINI = PYTHON.parent / "fixtures" / "soprano-mini"
PREFILLS = [1, 2, 7, 32]


@pytest.fixture(params=["lm_torch", "lm_optimum"])
def ran(request):
    return request.getfixturevalue(request.param)


def test_artifacts_are_what_they_are_said_to_be(ran):
    assert {name: artifact["path"] for name, artifact in ran.artifacts.items()} == {
        "model": "model.onnx",
        "references": "references.safetensors",
    }
    for artifact in ran.artifacts.values():
        data = (ran.output / artifact["path"]).read_bytes()
        assert artifact["bytes"] == len(data)
        assert artifact["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(list(ran.output.iterdir())) == 2, "no temporary file is left"


def test_result_describes_the_language_model(ran, lm_torch, lm_optimum):
    assert ran.result["architecture"] == {
        "architecture": "Qwen3ForCausalLM",
        "hidden_size": 64,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "vocab_size": 160,
        "max_position_embeddings": 256,
        "tied": False,
        "parameters": 82304,
    }
    assert lm_torch.result == lm_optimum.result
    assert lm_torch.artifacts["references"] == lm_optimum.artifacts["references"]


def test_references_have_the_documented_form(lm_torch):
    tensors, cases = read(lm_torch, "references")
    assert cases == lm_torch.result["cases"]
    lengths = {f"prefill_{length}": (1, length) for length in PREFILLS}
    shapes = {**lengths, "padded_b3_16": (3, 16), "steps": (1, 71), "steps_at_once": (1, 71)}
    expected = {}
    for name, shape in shapes.items():
        for each in ("input_ids", "attention_mask", "position_ids"):
            expected[f"{name}/{each}"] = (np.int64, shape)
        expected[f"{name}/logits"] = (np.float32, (*shape, 160))
        expected[f"{name}/last_hidden_state"] = (np.float32, (*shape, 64))
    for each in ("input_ids", "attention_mask", "position_ids"):
        expected[f"greedy/{each}"] = (np.int64, (1, 5))
    expected["greedy/tokens"] = (np.int64, (1, 32))
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == expected
    kinds = {case["name"]: (case["kind"], case["batch"], case["length"]) for case in cases}
    assert kinds == {
        **{name: ("prefill", *shape) for name, shape in shapes.items()},
        "steps": ("steps", 1, 71),
        "greedy": ("greedy", 1, 37),
    }
    assert [case.get("prefill") for case in cases if case["name"] == "steps"] == [7]


def form(values) -> dict[str, tuple[int, list[int | str]]]:
    kinds = {value.name: value.type.tensor_type for value in values}
    return {
        name: (kind.elem_type, [dim.dim_param or dim.dim_value for dim in kind.shape.dim])
        for name, kind in kinds.items()
    }


I64, F32 = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT


def test_graph_of_the_torch_exporter(lm_torch):
    model = onnx.load(lm_torch.output / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17}
    names = ("input_ids", "attention_mask", "position_ids")
    assert form(model.graph.input) == dict.fromkeys(names, (I64, ["batch", "sequence_length"]))
    assert form(model.graph.output) == {"logits": (F32, ["batch", "sequence_length", 160])}
    stored = sum(np.prod(tensor.dims, dtype=int) for tensor in model.graph.initializer if tensor.dims)
    assert stored >= lm_torch.result["architecture"]["parameters"]


def test_graph_of_the_optimum_exporter(lm_optimum):
    model = onnx.load(lm_optimum.output / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17}
    whole = "past_sequence_length + sequence_length"
    past = ["batch_size", 2, "past_sequence_length", 16]
    present = ["batch_size", 2, whole, 16]
    parts = [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert form(model.graph.input) == {
        "input_ids": (I64, ["batch_size", "sequence_length"]),
        "attention_mask": (I64, ["batch_size", whole]),
        "position_ids": (I64, ["batch_size", "sequence_length"]),
        **{f"past_key_values.{part}": (F32, past) for part in parts},
    }
    assert form(model.graph.output) == {
        "logits": (F32, ["batch_size", "sequence_length", 160]),
        **{f"present.{part}": (F32, present) for part in parts},
    }


def test_graph_carries_no_trace_of_this_machine(ran, tiny_lm):
    model = onnx.load(ran.output / "model.onnx")
    assert not model.graph.value_info
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    data = (ran.output / "model.onnx").read_bytes()
    for path in (Path(torch.__file__).parents[1], Path(__file__).parent, Path.cwd(), ran.output, tiny_lm):
        assert str(path).encode() not in data
    assert b".partial-" not in data


class Session:
    """An exported graph in ONNX Runtime; the cache, where it has one, is kept between runs."""

    def __init__(self, model: Path | bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        source = model if isinstance(model, bytes) else str(model)
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.past = {value.name: value.shape for value in self.session.get_inputs()[3:]}
        self.cache: dict[str, np.ndarray] = {}

    def run(self, ids, mask, positions) -> np.ndarray:
        if not self.cache:
            self.cache = {
                name: np.zeros((len(ids), shape[1], 0, shape[3]), np.float32)
                for name, shape in self.past.items()
            }
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **self.cache}
        logits, *present = self.session.run(None, {name: np.asarray(each) for name, each in given.items()})
        self.cache = dict(zip(self.past, present, strict=True))
        return logits


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 9), (2, 3), (3, 16), (5, 40)])
def test_onnx_runtime_equals_transformers(ran, tiny_lm, rows, length):
    given = batch(160, rows, length)
    _, logits = answers(tiny_lm, *given)
    found = Session(ran.output / "model.onnx").run(*given)
    assert found.shape == (rows, length, 160) and np.isfinite(found).all()
    found = found[given[1].numpy() == 1]
    assert np.abs(found - logits.numpy()).max() < TOLERANCE
    assert np.array_equal(found.argmax(1), logits.numpy().argmax(1))


def test_onnx_runtime_equals_the_references(ran):
    tensors, cases = read(ran, "references")
    for case in cases:
        if case["kind"] == "prefill":
            names = ("input_ids", "attention_mask", "position_ids", "logits")
            *given, logits = (tensors[f"{case['name']}/{name}"] for name in names)
            found = Session(ran.output / "model.onnx").run(*given)
            assert np.abs(found - logits)[given[1] == 1].max() < TOLERANCE, case["name"]


def test_onnx_runtime_steps_through_its_cache(lm_optimum):
    tensors, _ = read(lm_optimum, "references")
    ids, logits = tensors["steps/input_ids"], tensors["steps/logits"]
    session, at, found = Session(lm_optimum.output / "model.onnx"), 0, []
    for to in range(7, 7 + STEPS + 1):
        mask, positions = np.ones((1, to), np.int64), np.arange(at, to)[None]
        found.append(session.run(ids[:, at:to], mask, positions))
        at = to
    assert session.cache["past_key_values.1.value"].shape == (1, 2, 7 + STEPS, 16)
    assert np.abs(np.concatenate(found, 1) - logits).max() < TOLERANCE
    session.cache["past_key_values.0.key"] += np.float32(0.05)
    spoilt = session.run(ids[:, -1:], np.ones((1, 8 + STEPS), np.int64), np.array([[6 + STEPS]]))
    assert np.abs(spoilt - logits[:, -1:]).max() > 2 * TOLERANCE


def test_graph_with_a_wrong_weight_is_seen(ran, tiny_lm):
    given = batch(160, 3, 16)
    _, logits = answers(tiny_lm, *given)
    model = onnx.load(ran.output / "model.onnx")
    weights = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [96, 64]]
    values = onnx.numpy_helper.to_array(weights[0]).copy()
    values[3] *= 1.5
    weights[0].CopyFrom(onnx.numpy_helper.from_array(values, weights[0].name))
    found = Session(model.SerializeToString()).run(*given)[given[1].numpy() == 1]
    assert np.abs(found - logits.numpy()).max() > 2 * TOLERANCE


@pytest.mark.parametrize("exporter", ["torch", "optimum"])
def test_two_exports_are_byte_identical(request, tiny_lm, tmp_path, exporter):
    first = request.getfixturevalue(f"lm_{exporter}")
    again = export_and_record(tmp_path / "of another length", tiny_lm, exporter=exporter, **LM)
    assert again.artifacts == first.artifacts and again.result == first.result


FEW = {"prefills": [3], "steps": 8}


@pytest.mark.parametrize("opset", [13, 18, 20])
def test_other_opsets(tiny_lm_1_0, tmp_path, opset):
    ran = export_and_record(tmp_path / "out", tiny_lm_1_0, FEW, opset=opset, **LM)
    model = onnx.load(ran.output / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset}
    assert ran.result["architecture"]["tied"] and ran.result["architecture"]["kv_heads"] == 4
    tensors, _ = read(ran, "references")
    given = (tensors[f"padded_b3_4/{name}"] for name in CausalNames().inputs)
    found = Session(ran.output / "model.onnx").run(*given)
    seen = tensors["padded_b3_4/attention_mask"] == 1
    assert np.abs(found - tensors["padded_b3_4/logits"])[seen].max() < TOLERANCE


def test_optimum_takes_what_the_module_lacks(tiny_lm, tmp_path):
    other = Path(shutil.copytree(tiny_lm, tmp_path / "checkpoint"))
    edit(other, hidden_act="gelu")
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "export", checkpoint=str(other), **LM)
    assert refused.value.code == "lm-unsupported" and "exporter: optimum" in refused.value.hint
    assert list((tmp_path / "out").iterdir()) == []
    ran = run_task(tmp_path / "out", "export", checkpoint=str(other), exporter="optimum", **LM)
    given = batch(160, 3, 16)
    _, logits = answers(other, *given)
    found = Session(ran.output / "model.onnx").run(*given)[given[1].numpy() == 1]
    assert np.abs(found - logits.numpy()).max() < TOLERANCE
    _, plain = answers(tiny_lm, *given)
    assert float((plain - logits).abs().max()) > 2 * TOLERANCE


def test_sentences_are_spoken_until_the_stop(tmp_path):
    record = json.loads((MINI / "recorded" / "records.json").read_text())[0]
    wanted = {**FEW, "sentences": [record["text"]]}
    ran = run_task(tmp_path / "out", "record", checkpoint=str(MINI), references=wanted, **LM)
    tensors, cases = read(ran, "references")
    assert tensors["spoken_0/tokens"].tolist() == [[*record["tokens"], 3]]
    prompt = tensors["spoken_0/input_ids"]
    assert prompt[0, [0, 1, -1]].tolist() == [3, 1, 2]
    length = prompt.shape[1] + len(record["tokens"]) + 1
    assert cases[-1] == {"name": "spoken_0", "kind": "greedy", "batch": 1, "length": length}


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"opset": 12}, "opset", "opset 12"),
        ({"opset": 21}, "opset", "stops at 20"),
        ({"exporter": "dynamo"}, "request", "`exporter` is 'dynamo'"),
        ({"hidden_states": [2]}, "request", "`hidden_states`: [2] of 2 layers"),
        ({"names": {"ids": ""}}, "request", "names must be different ones"),
        ({"names": {"ids": "logits"}}, "request", "names must be different ones"),
        ({"names": {"tokens": "ids"}}, "request", "unknown field `names.tokens`"),
        ({"checkpoint": "nowhere"}, "request", "`checkpoint` is not a directory: 'nowhere'"),
        ({"references": {"prefills": []}}, "request", "prefills"),
        ({"references": {"prefills": [0]}}, "request", "prefills"),
        ({"references": {"prefills": [2, 2]}}, "request", "prefills"),
        ({"references": {"prefills": [257]}}, "request", "257 positions, and the model has 256"),
        ({"references": {"steps": 249}}, "request", "257 positions, and the model has 256"),
        ({"references": {"steps": 7}}, "request", "steps"),
        ({"references": {"batch": 1}}, "request", "batch"),
        ({"references": {"seed": -1}}, "request", "seed"),
    ],
    ids=str,
)
def test_refused_requests_leave_nothing(tiny_lm, tmp_path, fields, code, says):
    with pytest.raises(ExportError) as refused:
        task = "record" if "references" in fields else "export"
        run_task(tmp_path / "out", task, **{"checkpoint": str(tiny_lm), **LM, **fields})
    assert refused.value.code == code and says in refused.value.message
    assert list((tmp_path / "out").iterdir()) == []


def test_sentences_need_a_tokenizer(tiny_lm, tmp_path):
    bare = Path(shutil.copytree(tiny_lm, tmp_path / "bare", ignore=shutil.ignore_patterns("*token*")))
    with pytest.raises(ExportError, match="cannot be loaded") as refused:
        run_task(tmp_path / "out", "record", checkpoint=str(bare), references={"sentences": ["Hello."]}, **LM)
    assert refused.value.code == "checkpoint-tokenizer"
    assert list((tmp_path / "out").iterdir()) == []


def test_logits_that_overflow_are_refused(tiny_lm, tmp_path):
    wild = Path(shutil.copytree(tiny_lm, tmp_path / "wild"))
    state = load_file(wild / "model.safetensors")
    state["model.norm.weight"] *= 1e38
    state["lm_head.weight"] *= 30
    save_file(state, wild / "model.safetensors")
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "record", checkpoint=str(wild), **LM)
    assert refused.value.code == "reference-nonfinite" and "1 tokens" in refused.value.message
