#!/usr/bin/env bash
# A float division of dimensions is an integer division in tract, where the dimension is open.
#
# `Shape -> Cast(to float) -> Div`, as exporters write the step of a linear interpolation, (T - 1) / (4 T - 4).
# tract keeps a dimension that it doesn't know as a symbolic integer through the Cast, and divides symbols as
# integers: 1/4 becomes 0. No error; the output has the right shape. With the dimension made concrete the same
# file gives the right numbers, so a test with fixed shapes doesn't see it.
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


model(
    [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Sub", ["shape", "one"], ["above"]),
        helper.make_node("Mul", ["above", "four"], ["below"]),
        helper.make_node("Cast", ["above"], ["above_float"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["below"], ["below_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["above_float", "below_float"], ["step"]),
        helper.make_node("Mul", ["step", "x"], ["y"]),
    ],
    [value("x", TensorProto.FLOAT, ["T"])],
    [value("y", TensorProto.FLOAT, ["T"])],
    [constant("one", [1], np.int64), constant("four", [4], np.int64)],
)
x = np.arange(5, dtype=np.float32)
right, opened, fixed = in_onnxruntime(x=x), in_tract(x), in_tract(x, facts=["5,f32"])
print("ONNX Runtime:            ", right)
print("tract, T open:           ", opened)
print("tract, T made concrete:  ", fixed)
assert np.array_equal(right, [0, 0.25, 0.5, 0.75, 1])
assert np.array_equal(fixed, right)
assert np.array_equal(opened, np.zeros(5)), opened
PYTHON
