#!/usr/bin/env bash
# OpenVINO ignores an LSTM's peephole weights.
#
# ONNX's LSTM has them as its eighth input, P. OpenVINO reads and compiles the file without a word and gives
# what the LSTM without P gives. ONNX Runtime and tract take them.
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
steps, size, hidden = 4, 3, 2
x = random.standard_normal((steps, 1, size)).astype(np.float32)
weights = {
    "w": random.standard_normal((1, 4 * hidden, size)).astype(np.float32),
    "r": random.standard_normal((1, 4 * hidden, hidden)).astype(np.float32),
    "p": random.standard_normal((1, 3 * hidden)).astype(np.float32),
}


def lstm(peepholes):
    inputs = ["x", "w", "r", "", "", "", "", "p"] if peepholes else ["x", "w", "r"]
    used = {name: array for name, array in weights.items() if peepholes or name != "p"}
    node = helper.make_node("LSTM", inputs, ["y"], hidden_size=hidden)
    model([node], [value("x", x.shape)], [value("y", [steps, 1, 1, hidden])], used)
    return in_onnxruntime(x=x)[0], in_openvino(x)[0], in_tract(x)[0]


plain, *_ = lstm(False)
right, openvinos, tracts = lstm(True)
print(f"peepholes change the output by {np.abs(right - plain).max():.1e}")
print(f"OpenVINO is {np.abs(openvinos - right).max():.1e} from ONNX Runtime, "
      f"and {np.abs(openvinos - plain).max():.1e} from the LSTM without them")
assert np.abs(tracts - right).max() < 1e-6
assert np.abs(right - plain).max() > 1e-2
assert np.abs(openvinos - plain).max() < 1e-6
PYTHON
