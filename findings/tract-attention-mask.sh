#!/usr/bin/env bash
# tract refuses a boolean mask of ONNX's Attention, which ONNX defines beside the float one.
#
# ONNX's Attention (opset 23) takes a mask of booleans (true: take part) or one that is added. tract loads the
# file and types it, and raises an error when it is made runnable; with the same mask as 0 and minus infinity
# in floats the result is ONNX Runtime's.
#
# Seen with tract 0.23.9, onnx 1.23.2 and onnxruntime 1.31.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet tract==0.23.9 onnx==1.23.2 onnxruntime==1.31.1
export ORT_DISABLE_TELEMETRY=1
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import tract
from onnx import TensorProto, helper, numpy_helper

print("tract", tract.version(), "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
value = helper.make_tensor_value_info
constant = lambda name, values, dtype: numpy_helper.from_array(np.array(values, dtype), name)


def model(nodes, inputs, outputs, constants=(), opset=17):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "model.onnx")


def in_onnxruntime(**inputs):
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def in_tract(*inputs, facts=()):
    loaded = tract.onnx().load("model.onnx")
    for at, fact in enumerate(facts):
        loaded.set_input_fact(at, fact)
    return loaded.into_model().into_runnable().run(list(inputs))[0].to_numpy()


random = np.random.default_rng(0)
shape = [1, 2, 5, 8]
q, k, v = (random.standard_normal(shape).astype(np.float32) for _ in range(3))
lower = np.tril(np.ones((5, 5), bool))
added = np.where(lower, 0, -np.inf).astype(np.float32)


def attention(kind):
    inputs = [value(name, TensorProto.FLOAT, shape) for name in "qkv"] + [value("mask", kind, [5, 5])]
    node = helper.make_node("Attention", ["q", "k", "v", "mask"], ["y"])
    model([node], inputs, [value("y", TensorProto.FLOAT, shape)], opset=23)


attention(TensorProto.FLOAT)
floats, got = in_onnxruntime(q=q, k=k, v=v, mask=added), in_tract(q, k, v, added)
print("mask of floats: tract is", np.abs(floats - got).max(), "from ONNX Runtime")
assert np.abs(floats - got).max() < 1e-6
attention(TensorProto.BOOL)
assert np.abs(in_onnxruntime(q=q, k=k, v=v, mask=lower) - floats).max() < 1e-6
try:
    in_tract(q, k, v, lower)
except tract.TractError as error:
    words = [line.strip() for line in str(error).splitlines() if "Mask must" in line]
    print("mask of booleans:", *words)
    assert words, error
else:
    raise SystemExit("tract takes it")
PYTHON
