#!/usr/bin/env bash
# tract's causal Attention forgets that a past moves the diagonal.
#
# ONNX's Attention (opset 23, 24) with `is_causal` and a past: query i sees the whole past and the new keys up
# to i. ONNX Runtime and OpenVINO do so. tract masks as if there were no past, so query i sees the first
# i + 1 keys of all: the oldest ones. No error, the right shapes, and a first call with an empty past is right:
# only later steps of a cached language model are wrong.
#
# Seen with tract 0.23.9, openvino 2026.4.1, onnx 1.23.2 and onnxruntime 1.31.1.
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
heads, new, past, size = 2, 3, 4, 8
shapes = {"q": new, "k": new, "v": new, "past_k": past, "past_v": past}
arrays = {n: random.standard_normal((1, heads, count, size)).astype(np.float32) for n, count in shapes.items()}
node = helper.make_node("Attention", ["q", "k", "v", "", "past_k", "past_v"], ["y", "all_k", "all_v"], is_causal=1)
whole = [1, heads, past + new, size]
outputs = [value("y", [1, heads, new, size]), value("all_k", whole), value("all_v", whole)]
model([node], [value(n, a.shape) for n, a in arrays.items()], outputs, opset=23)


def attention(offset):
    keys, values = (np.concatenate([arrays[f"past_{n}"], arrays[n]], 2) for n in "kv")
    scores = arrays["q"] @ keys.transpose(0, 1, 3, 2) / np.sqrt(size)
    hidden = np.arange(past + new)[None] > np.arange(new)[:, None] + offset
    weights = np.exp(np.where(hidden, -np.inf, scores))
    return weights / weights.sum(-1, keepdims=True) @ values


forms = {"with the past": attention(past), "as without a past": attention(0)}
seen = {}
for engine, got in (
    ("onnxruntime", in_onnxruntime(**arrays)),
    ("openvino", in_openvino(*arrays.values())),
    ("tract", in_tract(*arrays.values())),
):
    seen[engine] = [form for form, right in forms.items() if np.abs(right - got[0]).max() < 1e-5]
    print(f"{engine}: causal {seen[engine]}")
assert seen["onnxruntime"] == seen["openvino"] == ["with the past"]
assert seen["tract"] == ["as without a past"]
PYTHON
