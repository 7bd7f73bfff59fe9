"""Graphs that no family knows: vocoders that a request names, and what of them cannot be exported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import vocoders
from conftest import Ran, export_and_record, run_task
from safetensors.torch import load_file, save_file
from soprano_export import families, graph, istft
from soprano_export.errors import ExportError
from soprano_export.families.plain import synthetic
from soprano_export.pairs import RealPairs
from soprano_export.request import parse
from soprano_export.target import Target
from test_export import read

HEAD = {"family": "plain", "graph": "head", "role": "signal"}
FEW = {"lengths": [3, 9], "batches": [1, 2]}


def module(kind: str = "Head", **arguments: Any) -> dict[str, Any]:
    named = {"import": f"vocoders:{kind}", "arguments": arguments, "weights": "vocoder.safetensors"}
    return {**named, "trust_code": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint to be written by `written`."""
    (tmp_path / "checkpoint").mkdir()
    return tmp_path / "checkpoint"


def written(folder: Path, kind: str = "Head", **arguments: Any) -> dict[str, Any]:
    """What a request says of a vocoder whose seeded weights are written into `folder`."""
    torch.manual_seed(0)
    model = getattr(vocoders, kind)(**arguments)
    save_file(model.state_dict(), folder / "vocoder.safetensors")
    return {**HEAD, "checkpoint": str(folder), "module": module(kind, **arguments)}


def refused(output: Path, task: str, fields: dict[str, Any]) -> ExportError:
    with pytest.raises(ExportError) as error:
        run_task(output, task, **fields)
    assert list(output.iterdir()) == []
    return error.value


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """The preset's checkpoint and an export of it."""
    home = tmp_path_factory.mktemp("head")
    checkpoint = run_task(home / "in", "synthesize", family="plain", preset="istft-head", graphs=["head"])
    named = {**checkpoint.result["architecture"], "trust_code": True}
    return checkpoint.output, export_and_record(home / "out", checkpoint.output, FEW, module=named, **HEAD)


def test_upstreams_head_is_exported_as_it_computes(head):
    _, ran = head
    assert ran.result["architecture"] == {
        "module": "soprano.vocos.heads:ISTFTHead",
        "arguments": {"dim": 48, "n_fft": 512, "hop_length": 160},
        "channels": 48,
        "parameters": 48 * 514 + 514,
    }
    facts = {name: ran.result[name] for name in ("sample_rate", "channels", "per_frame", "lead")}
    assert facts == {"sample_rate": None, "channels": 48, "per_frame": 160, "lead": 1}
    model = onnx.load(ran.output / "model.onnx")
    (node,) = istft.placeholders(model)
    words = {attribute.name: attribute.i for attribute in node.attribute}
    assert words == {
        "n_fft": 512,
        "hop_length": 160,
        "win_length": 512,
        "center": 1,
        "normalized": 0,
        "onesided": 1,
        "zero_dc_nyquist": 1,
    }
    tensors, cases = read(ran, "references")
    names = [case["name"] for case in cases]
    assert names == ["b1_t3", "b1_t9", "b2_t3", "b2_t9", "loud_t5", "loud_t16", "zeros_t3"]
    for name in names:
        frames, audio = tensors[f"{name}/hidden_states"], tensors[f"{name}/audio"]
        assert audio.shape == (len(frames), 160 * (frames.shape[2] - 1)) and np.isfinite(audio).all()
        spectrum = graph.evaluate(model, list(node.input[:2]), {"hidden_states": frames})
        found = istft.Placeholder.apply(
            *map(torch.from_numpy, spectrum), torch.hann_window(512), 512, 160, False, True
        )
        assert np.abs(found.numpy() - audio).max() < 1e-5 * max(np.abs(audio).max(), 1e-9), name
    assert 0.01 < np.abs(tensors["b2_t9/audio"]).max() < 10
    assert all("peak" in case and "last_bit" in case for case in ran.result["cases"])


def test_presets_depend_on_the_seed_alone(head, tmp_path):
    data = (head[0] / "head.safetensors").read_bytes()
    fields = {"task": "synthesize", "family": "plain", "preset": "istft-head", "graphs": ["any"]}
    assert (run_task(tmp_path / "again", **fields).output / "head.safetensors").read_bytes() == data
    other = run_task(tmp_path / "other", seed=1, **fields).output / "head.safetensors"
    assert other.read_bytes() != data
    assert all(float(tensor.std()) > 0 for tensor in load_file(other).values())
    assert synthetic.HEAD.keys() == {"import", "arguments", "weights"}


@pytest.mark.parametrize("options", [{}, {"normalized": True}], ids=str)
@pytest.mark.parametrize(
    "spectrum",
    [
        "sum", "edges", "first", "last", "complex", "polar", "exp", "exp of both", "view", "conj", "product",
        "sums", "transposed", "magnitude", "real", "slice",
    ],
)  # fmt: skip
def test_complex_arithmetic_becomes_real(spectrum, options):
    torch.manual_seed(0)
    model = vocoders.Head(spectrum, **options)
    x = torch.randn(2, vocoders.DIM, 9)
    words = []

    def inverse(real, imag, window, *rest):
        words.append(rest)
        module = istft.InverseStft(rest[0], rest[1], window, *rest[2:])
        placeholder = istft.Placeholder.apply(real, imag, window, *rest)
        torch.testing.assert_close(module(real, imag), placeholder, atol=1e-5, rtol=0)
        return placeholder

    with torch.no_grad():
        expected = model(x)
        with RealPairs(inverse):
            found = model(x)
    torch.testing.assert_close(found, expected, atol=1e-6 * float(expected.abs().max()), rtol=0)
    assert words == [(32, 8, bool(options), spectrum == "edges")]


def test_a_window_shorter_than_a_frame():
    model, x = vocoders.Head(win_length=20), torch.randn(1, vocoders.DIM, 7)

    def inverse(real, imag, window, n_fft, hop, normalized, zero_edges):
        return istft.InverseStft(n_fft, hop, window, normalized, zero_edges)(real, imag)

    with torch.no_grad():
        expected = model(x)
        with RealPairs(inverse):
            torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"spectrum": "irfft"}, "`fft_irfft` of complex numbers"),
        ({"spectrum": "rfft"}, "`fft_rfft`, whose result is complex"),
        ({"spectrum": "sqrt"}, "`sqrt` of complex numbers"),
        ({"spectrum": "inverse"}, "a division by complex numbers"),
        ({"spectrum": "assigned"}, "an assignment to"),
        ({"spectrum": "power"}, "a power of complex numbers"),
    ],
    ids=str,
)
def test_complex_arithmetic_without_a_real_form_is_refused_by_name(folder, tmp_path, arguments, says):
    error = refused(tmp_path / "out", "export", written(folder, **arguments))
    assert error.code == "module-unsupported" and says in error.message and "supported are" in error.hint


def test_the_defaults_of_the_inverse_transform_are_torchs():
    spectrum, window, words = torch.randn(1, 17, 5, dtype=torch.complex64), torch.ones(32), []

    def inverse(*given):
        words.append(given[3:])
        return istft.Placeholder.apply(*given)

    with RealPairs(inverse):
        found = torch.istft(torch.complex(spectrum.real, spectrum.imag), 32, window=window)
    assert words == [(32, 8, False, False)]
    torch.testing.assert_close(found, torch.istft(spectrum, 32, window=window))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"center": False}, "center=False"),
        ({"onesided": False}, "onesided=False"),
        ({"length": 50}, "length"),
        ({"return_complex": True}, "return_complex=True"),
        ({"window": None}, "without a window"),
        ({"window": torch.ones(16)}, "with n_fft = 32 of 17 bins, its window of 16"),
        ({"n_fft": 33}, "with an odd n_fft"),
        ({"n_fft": 64}, "with n_fft = 64 of 17 bins"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_inverse_transforms_that_the_placeholder_cannot_say(options, says):
    given = {"n_fft": 32, "hop_length": 8, "window": torch.ones(32), **options}
    parts = torch.ones(1, 17, 5), torch.ones(1, 17, 5)
    with pytest.raises(ExportError) as error, RealPairs(istft.Placeholder.apply):
        torch.istft(torch.complex(*parts), **given)
    assert error.value.code == "module-unsupported" and says in error.value.message and error.value.hint
    with pytest.raises(ExportError, match="something else"), RealPairs(istft.Placeholder.apply):
        torch.istft(torch.complex(parts[0][0], parts[1][0]), 32, 8, window=torch.ones(32))


@pytest.mark.parametrize("names", [{}, {"frames": "mel", "samples": "wave"}], ids=str)
@pytest.mark.parametrize(
    ("kind", "rate", "shape"),
    [
        ("Head", (8, 1), ["batch", 12, "sequence"]),
        ("Upsampler", (4, 0), ["batch", 12, "sequence"]),
        ("ChannelsLast", (3, 2), ["batch", "sequence", 12]),
        ("Grouped", (2, 0), ["batch", 12, "sequence"]),
    ],
)
def test_vocoders_of_any_form(folder, tmp_path, kind, rate, shape, names):
    fields = written(folder, kind)
    fields.pop("checkpoint")
    ran = export_and_record(tmp_path / "out", folder, FEW, names=names, **fields)
    assert (ran.result["per_frame"], ran.result["lead"]) == rate and ran.result["channels"] == 12
    assert list(ran.artifacts) == ["model", "references"]
    model = onnx.load(ran.output / "model.onnx")
    frames, samples = names.get("frames", "hidden_states"), names.get("samples", "audio")
    dims = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert (model.graph.input[0].name, dims) == (frames, shape)
    assert model.graph.output[0].name == samples
    tensors, cases = read(ran, "references")
    assert {name.split("/")[1] for name in tensors} == {frames, samples}
    for case in cases:
        audio = tensors[f"{case['name']}/{samples}"]
        assert audio.shape == (case["batch"], rate[0] * (case["length"] - rate[1]))
        if kind != "Head":
            (found,) = graph.evaluate(model, [samples], {frames: tensors[f"{case['name']}/{frames}"]})
            assert np.abs(found - audio).max() <= 1e-5 * np.abs(audio).max()
    again = export_and_record(tmp_path / "again", folder, FEW, names=names, **fields)
    assert again.artifacts == ran.artifacts


@pytest.mark.parametrize("kind", ["Head", "Upsampler", "ChannelsLast"])
def test_the_module_for_openvino_computes_the_same(folder, kind):
    fields = written(folder, kind)
    target = parse(Target, fields)
    loaded = families.kind(target).load(target)
    module, example, shapes = loaded.convertible()
    (frames,) = example.values()
    assert list(example) == list(shapes) == ["hidden_states"]
    with torch.no_grad():
        expected, traced = loaded.model(frames), torch.jit.trace(module, (frames,))
        torch.testing.assert_close(traced(frames), expected, atol=1e-6, rtol=0)
        longer = torch.randn([19 if size == -1 else size for size in shapes["hidden_states"]])
        torch.testing.assert_close(traced(longer), loaded.model(longer), atol=1e-6, rtol=0)


def test_weights_may_be_pickled_and_under_a_prefix(folder, tmp_path):
    fields = written(folder)
    whole = run_task(tmp_path / "whole", "export", **fields)
    state = load_file(folder / "vocoder.safetensors")
    others = {"discriminator.weight": torch.full((2,), float("nan")), "step": torch.zeros(1)}
    torch.save({f"vocoder.{name}": tensor for name, tensor in state.items()} | others, folder / "both.pth")
    fields["module"] |= {"weights": "both.pth", "prefix": "vocoder."}
    assert run_task(tmp_path / "part", "export", **fields).artifacts == whole.artifacts
    fields["module"] |= {"prefix": ""}
    error = refused(tmp_path / "none", "export", fields)
    assert error.code == "checkpoint-nan" and "`discriminator.weight`" in error.message


def test_code_that_is_not_trusted_is_not_run(folder, tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    (tmp_path / "hostile_vocoder.py").write_text(f"import os; os.mkdir({str(mark)!r})\nclass Voice: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    named = {"import": "hostile_vocoder:Voice", "weights": "vocoder.safetensors"}
    fields = {**HEAD, "checkpoint": str(folder)}
    for trust in ({}, {"trust_code": False}):
        for task, more in (
            ("export", {}),
            ("record", {}),
            ("bench", {"threads": 1, "rounds": 1, "points": []}),
        ):
            error = refused(tmp_path / "out", task, {**fields, **more, "module": {**named, **trust}})
            assert error.code == "code-not-trusted" and "hostile_vocoder:Voice" in error.message
            assert "--trust-code" in error.hint
    assert not mark.exists() and "hostile_vocoder" not in sys.modules
    error = refused(tmp_path / "out", "export", {**fields, "module": {**named, "trust_code": True}})
    assert error.code == "module-import" and "not a class of torch.nn.Module" in error.message
    assert mark.exists(), "trusted code runs"


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"import": "vocoders"}, "request", "module.import is not of the form"),
        ({"import": "vocoders:Head.forward"}, "request", "module.import is not of the form"),
        ({"import": "../vocoders:Head"}, "request", "module.import is not of the form"),
        ({"import": "/etc/passwd:Head"}, "request", "module.import is not of the form"),
        ({"import": ".vocoders:Head"}, "request", "module.import is not of the form"),
        ({"import": "vocoders:Head()"}, "request", "module.import is not of the form"),
        ({"import": "os;sys:Head"}, "request", "module.import is not of the form"),
        ({"import": ":Head"}, "request", "module.import is not of the form"),
        ({"import": 3}, "request", "`module.import` is not of type str"),
        ({"path": "vocoders:Head"}, "request", "unknown field `module.path`"),
        ({"arguments": []}, "request", "`module.arguments` is not an object"),
        ({"trust_code": "yes"}, "request", "`module.trust_code` is not of type bool"),
        (
            {"weights": "../vocoder.safetensors"},
            "request",
            "weights has a name that is not a plain relative path",
        ),
        (
            {"weights": "/vocoder.safetensors"},
            "request",
            "weights has a name that is not a plain relative path",
        ),
        ({"weights": "vocoder.py"}, "request", "module.weights is neither"),
        ({"import": "no_such_package:Head"}, "module-import", "cannot be imported: No module named"),
        (
            {"import": "vocoders:Tail"},
            "module-import",
            "cannot be imported: module 'vocoders' has no attribute",
        ),
        ({"import": "vocoders:function"}, "module-import", "is not a class of torch.nn.Module"),
        ({"import": "vocoders:DIM"}, "module-import", "is not a class of torch.nn.Module"),
        ({"import": "pathlib:Path"}, "module-import", "is not a class of torch.nn.Module"),
        ({"arguments": {"colour": 3, "n_fft": "x"}}, "module-import", "cannot be built of"),
        ({"import": "vocoders:Fussy", "arguments": {"size": 3}}, "module-import", "no file of 3 weights"),
        ({"weights": "other.safetensors"}, "checkpoint-missing", "other.safetensors cannot be read"),
        ({"weights": "other.pth"}, "checkpoint-missing", "other.pth does not exist"),
        ({"arguments": {"n_fft": 64}}, "checkpoint-shape", "size mismatch for out.weight"),
        ({"import": "vocoders:Upsampler"}, "checkpoint-shape", "Missing key(s)"),
        ({"prefix": "vocoder."}, "checkpoint-shape", "Missing key(s)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_modules_that_cannot_be_built(folder, tmp_path, changed, code, says):
    fields = written(folder)
    fields["module"] |= changed
    if "path" in changed:
        del fields["module"]["import"]
    error = refused(tmp_path / "out", "export", fields)
    assert error.code == code and says in error.message and len(error.message) < 900


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (float("nan"), "checkpoint-nan"),
        (float("inf"), "checkpoint-nan"),
        (torch.int8, "checkpoint-dtype"),
        (torch.float64, "checkpoint-dtype"),
    ],
    ids=str,
)
@pytest.mark.parametrize("file", ["vocoder.safetensors", "vocoder.pth"])
def test_weights_that_are_none(folder, tmp_path, value, code, file):
    fields = written(folder)
    state = load_file(folder / "vocoder.safetensors")
    if isinstance(value, float):
        state["out.weight"][3, 5] = value
    else:
        state["out.weight"] = state["out.weight"].to(value)
    (torch.save if file.endswith(".pth") else save_file)(state, folder / file)
    fields["module"] |= {"weights": file}
    error = refused(tmp_path / "out", "export", fields)
    assert error.code == code and f"{folder / file}: tensor `out.weight`" in error.message


@pytest.mark.parametrize(
    ("kind", "arguments", "code", "says"),
    [
        (
            "Unsound",
            {"how": "rank"},
            "module-unsupported",
            "gives [2, 1, 148] to a batch of 2, not [2, samples]",
        ),
        ("Unsound", {"how": "pair"}, "module-unsupported", "gives tuple to a batch of 2"),
        ("Unsound", {"how": "half"}, "module-unsupported", "gives torch.float16, not torch.float32"),
        ("Unsound", {"how": "batch"}, "module-unsupported", "gives [1, 148] to a batch of 2"),
        (
            "Unsound",
            {"how": "single"},
            "module-unsupported",
            "cannot run a batch of 2: shape '[1]' is invalid",
        ),
        ("Unsound", {"how": "irregular"}, "module-unsupported", "not a fixed number to each frame"),
        ("Unsound", {"how": "longer"}, "module-unsupported", "156 samples to 37 frames"),
        ("Unsound", {"how": "baked"}, "exporter-diverged", "cannot run it at other lengths"),
        ("Unsound", {"how": "branch"}, "exporter-diverged", "its value `audio`, [3, 44], differs by 2.0e+00"),
        ("Head", {"spectrum": "aliased"}, "exporter-diverged", "its audio in real numbers"),
        ("Anything", {}, "module-unsupported", "runs in either order of channels and frames"),
        (
            "Head",
            {"spectrum": "plain"},
            "module-unsupported",
            "in neither order of channels and frames",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_modules_that_are_no_vocoders(folder, tmp_path, kind, arguments, code, says):
    error = refused(tmp_path / "out", "export", written(folder, kind, **arguments))
    assert error.code == code and says in error.message and error.hint


def test_a_length_that_the_module_cannot_run(folder, tmp_path):
    error = refused(tmp_path / "out", "record", written(folder, "Unsound", how="long"))
    assert error.code == "module-unsupported" and "cannot run a case of the references" in error.message


def test_more_frames_that_give_no_sample_than_any_example_has(folder, tmp_path):
    fields = written(folder, "ChannelsLast", lead=20)
    fields.pop("checkpoint")
    wanted = {"lengths": [21, 30], "batches": [2]}
    ran = export_and_record(tmp_path / "out", folder, wanted, **fields)
    assert (ran.result["per_frame"], ran.result["lead"]) == (3, 20)
    names = [case["name"] for case in ran.result["cases"]]
    assert names == ["b2_t21", "b2_t30", "loud_t24", "loud_t35", "zeros_t22"]
    target = parse(Target, {**fields, "checkpoint": str(folder)})
    module, example, _ = families.kind(target).load(target).convertible()
    assert module(*example.values()).shape == (2, 12)


def test_audio_that_is_not_finite(folder, tmp_path):
    error = refused(tmp_path / "out", "export", written(folder, "Unsound", how="nan"))
    assert error.code == "reference-nonfinite" and "to ordinary frames" in error.message
    error = refused(tmp_path / "out", "record", written(folder, "Unsound", how="nan"))
    assert error.code == "reference-nonfinite" and "case b1_t2" in error.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"references": {"lengths": [1, 3]}}, "`references.lengths`: 1 frames give no sample"),
        ({"references": {"sentences": ["Hello."]}}, "`references.sentences`"),
        ({"references": {"steps": 9}}, "unknown field `references.steps`"),
        ({"names": {"frames": "audio"}}, "names must be different ones"),
        ({"names": {"ids": "x"}}, "unknown field `names.ids`"),
        ({"hidden_states": [0]}, "`hidden_states` are of a causal graph's layers"),
        ({"module": None}, "no field `module`"),
        ({"family": "soprano", "graph": "decoder"}, "has its own code for `decoder`"),
        ({"role": "causal"}, "has its own code for `head`"),
    ],
    ids=str,
)
def test_requests_that_a_vocoder_cannot_meet(folder, tmp_path, fields, says):
    error = refused(tmp_path / "out", "record", {**written(folder), **fields})
    assert error.code == "request" and says in error.message


def test_a_vocoder_is_timed(folder, tmp_path):
    points = [{"what": "decode", "tokens": 5}, {"what": "decode", "tokens": 7, "batch": 2}]
    ran = run_task(tmp_path / "out", "bench", threads=1, rounds=3, points=points, **written(folder))
    assert [len(runs) for runs in ran.result["ms"]] == [3, 3] and ran.result["load_ms"] > 0
    points = [{"what": "step"}]
    with pytest.raises(ExportError, match="points of a signal graph are decode"):
        run_task(tmp_path / "no", "bench", threads=1, rounds=3, points=points, **written(folder))
