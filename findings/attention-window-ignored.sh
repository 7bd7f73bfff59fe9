#!/usr/bin/env bash
# Two engines take Attention's window of opset 25 and attend to everything.
#
# Opset 25 gives ONNX's Attention `left_window_size` and `right_window_size` (sliding windows, as Mistral's).
# OpenVINO and tract import the operator set, pass over attributes that they don't know, and give full attention:
# the right shape, no word. ONNX Runtime refuses the attribute by name. So that a file loads says nothing of its
# windows; a test with sequences no longer than the window doesn't see it.
#
# Seen with openvino 2026.4.1, tract 0.23.9, onnx 1.23.2 and onnxruntime 1.31.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet tract==0.23.9 openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.31.1
export ORT_DISABLE_TELEMETRY=1
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnx.reference
import onnxruntime
import openvino
import tract
from onnx import TensorProto, helper, numpy_helper

print("tract", tract.version(), "openvino", openvino.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(nodes, inputs, outputs, constants=(), opset=22, ir_version=10):
    constants = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "model.onnx")


def in_onnxruntime(**inputs):
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def in_tract(*inputs):
    runnable = tract.onnx().load("model.onnx").into_model().into_runnable()
    return [tensor.to_numpy() for tensor in runnable.run(list(inputs))]


def in_openvino(*inputs):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model("model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(list(inputs))
    return [found[output] for output in compiled.outputs]


random = np.random.default_rng(1)
length, size = 6, 8
arrays = {name: random.standard_normal((1, 2, length, size)).astype(np.float32) for name in "qkv"}
node = helper.make_node("Attention", ["q", "k", "v"], ["y"], is_causal=1, left_window_size=2)
inputs = [value(name, array.shape) for name, array in arrays.items()]
model([node], inputs, [value("y", [1, 2, length, size])], opset=25, ir_version=13)


def attention(window):
    scores = arrays["q"] @ arrays["k"].transpose(0, 1, 3, 2) / np.sqrt(size)
    back = np.arange(length)[:, None] - np.arange(length)[None]
    weights = np.exp(np.where((back < 0) | (back > window), -np.inf, scores))
    return weights / weights.sum(-1, keepdims=True) @ arrays["v"]


reference = onnx.reference.ReferenceEvaluator("model.onnx").run(None, arrays)[0]
assert np.abs(reference - attention(2)).max() < 1e-5
for engine, got in (("openvino", in_openvino(*arrays.values())[0]), ("tract", in_tract(*arrays.values())[0])):
    windowed, whole = (np.abs(got - attention(window)).max() for window in (2, length))
    print(f"{engine}: {windowed:.1e} from attention in the window, {whole:.1e} from attention without one")
    assert windowed > 1e-2 and whole < 1e-5
try:
    in_onnxruntime(**arrays)
except Exception as error:
    print("onnxruntime:", str(error).split(" : ", 2)[-1][-90:])
    assert "left_window_size" in str(error)
else:
    raise SystemExit("ONNX Runtime takes it")
PYTHON
