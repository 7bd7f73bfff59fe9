"""The exported graph, its references and its probes, on tiny checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import DECODER, SMALL, export_and_record, run_process, run_task
from safetensors import safe_open
from safetensors.numpy import load_file
from soprano_export import graph
from soprano_export.errors import ExportError
from soprano_export.families.soprano import checkpoint, probes
from soprano_export.families.soprano.decoder import ExportableDecoder

SCRATCH_PREFIX = ".partial-"


@pytest.fixture(params=["exported", "exported_1_0"])
def ran(request):
    return request.getfixturevalue(request.param)


def read(ran, name: str) -> tuple[dict[str, np.ndarray], list[dict]]:
    path = ran.output / f"{name}.safetensors"
    with safe_open(path, "np") as file:
        return load_file(path), json.loads(file.metadata()["cases"])


def test_artifacts_are_what_they_are_said_to_be(ran):
    import hashlib

    assert list(ran.artifacts) == ["model", "probes", "references"]
    for artifact in ran.artifacts.values():
        data = (ran.output / artifact["path"]).read_bytes()
        assert artifact["bytes"] == len(data)
        assert artifact["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(list(ran.output.iterdir())) == 3, "no temporary file is left"


def test_result_describes_the_decoder(exported, exported_1_0):
    assert exported.result["architecture"] == {
        "version": "custom",
        "input_channels": 512,
        "dim": 32,
        "intermediate_dim": 96,
        "layers": 2,
        "input_kernel": 1,
        "dw_kernel": 3,
        "n_fft": 2048,
        "hop_length": 512,
        "upscale": 4,
        "sample_rate": 32000,
        "parameters": 97186,
    }
    assert exported.result["sample_rate"] == 32000
    assert exported_1_0.result["architecture"]["input_kernel"] == 3


def test_progress_counts_up(exported):
    steps = [event for event in exported.events if event["event"] == "progress"]
    recorded = [(event["done"], event["total"]) for event in steps if event["step"] == "record references"]
    assert recorded == [(done, len(recorded) - 1) for done in range(len(recorded))]


def test_graph_has_the_promised_form(ran):
    model = onnx.load(ran.output / "model.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("ISTFT") == 1
    assert not {"Resize", "Loop", "If", "Shape", "Gather", "ScatterND"} & set(kinds)
    node = probes.istft_node(model)
    assert (node.domain, list(node.output)) == ("soprano_export", ["audio"])
    assert {attribute.name: attribute.i for attribute in node.attribute} == {
        "n_fft": 2048,
        "hop_length": 512,
        "win_length": 2048,
        "center": 1,
        "normalized": 0,
        "onesided": 1,
        "zero_dc_nyquist": 1,
    }
    window = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    assert (window.name, list(window.dims)) == ("head.istft.window", [2048])
    (source,), (sink,) = model.graph.input, model.graph.output

    def dims(value):
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert (source.name, dims(source)) == ("hidden_states", ["batch", 512, "sequence"])
    assert (sink.name, dims(sink)) == ("audio", ["batch", "samples"])


def test_graph_carries_no_trace_of_this_machine(ran):
    model = onnx.load(ran.output / "model.onnx")
    assert not model.graph.value_info
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    data = (ran.output / "model.onnx").read_bytes()
    for path in (Path(torch.__file__).parents[1], Path(__file__).parent, Path.cwd(), ran.output):
        assert str(path).encode() not in data
    assert SCRATCH_PREFIX.encode() not in data


def test_every_weight_of_the_checkpoint_is_in_the_graph(ran):
    model = onnx.load(ran.output / "model.onnx")
    stored = sum(np.prod(tensor.dims, dtype=int) for tensor in model.graph.initializer)
    assert stored == ran.result["architecture"]["parameters"] + 2048


def spectrum(ran, hidden_states: np.ndarray) -> list[np.ndarray]:
    model = onnx.load(ran.output / "model.onnx")
    return graph.evaluate(model, list(probes.istft_node(model).input[:2]), {"hidden_states": hidden_states})


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9, 16])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_axes_are_dynamic(exported, batch, length):
    for part in spectrum(exported, np.zeros((batch, 512, length), np.float32)):
        assert part.shape == (batch, 1025, 4 * (length - 1) + 1)


def test_graph_and_inverse_transform_give_the_references(ran):
    tensors, cases = read(ran, "references")
    for case in cases:
        real, imag = spectrum(ran, tensors[f"{case['name']}/hidden_states"])
        whole = torch.complex(torch.from_numpy(real), torch.from_numpy(imag))
        whole[:, [0, -1]] = 0
        audio = torch.istft(whole, 2048, 512, 2048, torch.hann_window(2048), center=True).numpy()
        expected = tensors[f"{case['name']}/audio"]
        assert audio.shape == expected.shape
        assert np.abs(audio - expected).max() < 2e-4 * np.abs(expected).max(), case["name"]


def test_references_cover_what_was_asked(ran):
    tensors, cases = read(ran, "references")
    names = [case["name"] for case in cases]
    assert names[:8] == [f"b{batch}_t{length}" for batch in (1, 3) for length in (2, 3, 5, 16)]
    assert names[8:] == [
        *(f"{kind}_t{length}" for length in (5, 16) for kind in ("extreme_clip", "extreme_phase", "loud")),
        "zeros_t3",
    ]
    assert set(tensors) == {f"{name}/{part}" for name in names for part in ("hidden_states", "audio")}
    for case in cases:
        audio = tensors[f"{case['name']}/audio"]
        assert audio.shape == (case["batch"], 2048 * (case["length"] - 1))
        assert audio.dtype == np.float32 and np.isfinite(audio).all()
        assert tensors[f"{case['name']}/hidden_states"].shape == (case["batch"], 512, case["length"])
    described = [{key: case[key] for key in cases[0]} for case in ran.result["cases"]]
    assert described == cases


def test_realistic_cases_are_realistic_and_extreme_ones_extreme(ran):
    facts = {case["name"]: case for case in ran.result["cases"]}
    realistic = [case for case in facts.values() if case["kind"] == "realistic"]
    assert all(0.05 < case["peak"] < 2 and case["clipped_share"] < 0.01 for case in realistic)
    for length in (5, 16):
        plain = facts["b1_t5" if length == 5 else "b1_t16"]
        assert facts[f"extreme_clip_t{length}"]["clipped_share"] > max(plain["clipped_share"], 1e-3)
        assert facts[f"extreme_phase_t{length}"]["max_phase"] > plain["max_phase"] + 3


def test_probes_carry_upstreams_values(ran, request):
    tensors, (case,) = read(ran, "probes")
    assert case == {"name": "b1_t5", "batch": 1, "length": 5, "kind": "realistic"}
    assert len(tensors) == len(probes.modules(2)) + 2 + 1
    references, _ = read(ran, "references")
    assert np.array_equal(tensors["hidden_states"], references["b1_t5/hidden_states"])
    assert tensors["/decoder/embed/Conv_output_0"].shape == (1, 32, 17)
    assert tensors["/decoder/convnext.1/Add_output_0"].shape == (1, 32, 17)
    assert tensors["/head/out/Add_output_0"].shape == (1, 17, 2050)
    model = onnx.load(ran.output / "model.onnx")
    values = {name for node in model.graph.node for name in node.output} | {"hidden_states"}
    assert set(tensors) <= values
    assert set(probes.istft_node(model).input[:2]) <= set(tensors)


def test_exporter_that_diverges_is_named(exported, tiny):
    decoder, _ = checkpoint.load(tiny)
    model = onnx.load(exported.output / "model.onnx")
    gamma = next(tensor for tensor in model.graph.initializer if tensor.name == "decoder.convnext.1.gamma")
    wrong = onnx.numpy_helper.to_array(gamma) * np.float32(1.05)
    gamma.CopyFrom(onnx.numpy_helper.from_array(wrong, gamma.name))
    with pytest.raises(ExportError) as refused:
        probes.record(decoder, 2, model, torch.randn(1, 512, 5, generator=torch.Generator().manual_seed(0)))
    assert refused.value.code == "exporter-diverged"
    assert "`decoder.convnext.1`" in refused.value.message
    assert "`/decoder/convnext.1/Add_output_0`" in refused.value.message


def test_two_exports_are_byte_identical(exported, tiny, tmp_path):
    request = tmp_path / "request.json"
    output = tmp_path / "a directory of another length"
    output.mkdir()
    again, results = {}, {}
    for task, fields in (("export", {"opset": 17}), ("record", {"references": SMALL})):
        fields = {"task": task, "output": str(output), "checkpoint": str(tiny), **DECODER, **fields}
        request.write_text(json.dumps({"protocol": 2, **fields}))
        code, events, _ = run_process(str(request), OMP_NUM_THREADS="1")
        assert code == 0
        again |= {event["name"]: event["sha256"] for event in events if event["event"] == "artifact"}
        results |= events[-1]
    assert again == {name: artifact["sha256"] for name, artifact in exported.artifacts.items()}
    assert results == exported.result


@pytest.mark.parametrize("opset", [13, 15, 20])
def test_other_opsets(tiny, tmp_path, opset):
    few = {"lengths": [2], "batches": [1], "extreme": False}
    ran = export_and_record(tmp_path / "out", tiny, few, opset=opset, **DECODER)
    model = onnx.load(ran.output / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset, "soprano_export": 1}
    assert len(read(ran, "probes")[0]) == 17 and [case["name"] for case in ran.result["cases"]] == ["b1_t2"]


@pytest.mark.parametrize(
    ("opset", "says"), [(12, "not supported"), (21, "stops at 20"), (24, "not supported")]
)
def test_refused_opsets(tiny, tmp_path, opset, says):
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "export", checkpoint=str(tiny), opset=opset, **DECODER)
    assert refused.value.code == "opset" and says in refused.value.message and refused.value.hint


def test_failed_export_leaves_nothing(tiny, tmp_path):
    state = torch.load(tiny / "decoder.pth", weights_only=True)
    state["head.out.bias"][0] = float("nan")
    torch.save(state, tmp_path / "decoder.pth")
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "export", checkpoint=str(tmp_path), **DECODER)
    assert refused.value.code == "checkpoint-nan"
    assert list((tmp_path / "out").iterdir()) == []


def test_audio_that_overflows_is_refused(tiny, tmp_path):
    state = torch.load(tiny / "decoder.pth", weights_only=True)
    state["decoder.convnext.0.gamma"] += 3e38
    torch.save(state, tmp_path / "decoder.pth")
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "export", checkpoint=str(tmp_path), **DECODER)
    assert refused.value.code == "reference-nonfinite"
    assert "`decoder." in refused.value.message
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "record", checkpoint=str(tmp_path), **DECODER)
    assert refused.value.code == "reference-nonfinite" and "case b1_t2" in refused.value.message


def test_graphs_without_the_promised_form_are_refused(exported):
    good = onnx.load(exported.output / "model.onnx")

    def refused(change) -> str:
        model = onnx.ModelProto()
        model.CopyFrom(good)
        change(model)
        with pytest.raises(ExportError) as error:
            graph.check(model, axes, 17)
        assert error.value.code == "exporter-graph"
        return error.value.message

    axes = {"hidden_states": {0: "batch", 2: "sequence"}, "audio": {0: "batch", 1: "samples"}}
    graph.check(good, axes, 17)
    assert "imports" in refused(lambda model: model.opset_import.pop())
    assert "imports" in refused(lambda model: model.graph.node.pop())
    assert "is not an initializer" in refused(
        lambda model: model.graph.node[-1].input.__setitem__(2, "hidden_states")
    )
    assert "fixed sequence" in refused(
        lambda model: model.graph.input[0].type.tensor_type.shape.dim[2].ClearField("dim_param")
    )
    assert "domains" in refused(lambda model: setattr(model.graph.node[0], "domain", "com.example"))


def test_exportable_decoder_is_what_was_exported(tiny, exported):
    decoder, _ = checkpoint.load(tiny)
    tensors, _ = read(exported, "references")
    with torch.no_grad():
        audio = ExportableDecoder(decoder)(torch.from_numpy(tensors["b3_t5/hidden_states"])).numpy()
    expected = tensors["b3_t5/audio"]
    assert np.abs(audio - expected).max() < 1e-5 * np.abs(expected).max()
