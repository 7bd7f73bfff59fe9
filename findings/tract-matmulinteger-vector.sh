#!/usr/bin/env bash
# MatMulInteger of a vector has rank 2 in tract.
#
# ONNX defines MatMulInteger by numpy.matmul: [8] times [8, 4] is [4]. tract gives [1, 4], with the right
# numbers; its MatMul of floats gives [4]. So a fp32 model of vectors changes its output's shape when it is
# quantized, in tract alone. From rank 2 on the two agree.
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


random = np.random.default_rng(3)
weight = random.integers(-127, 128, (8, 4)).astype(np.int8)
shapes = {}
for shape in ([8], [3, 8], [2, 3, 8]):
    a = random.integers(0, 256, shape).astype(np.uint8)
    model(
        [helper.make_node("MatMulInteger", ["a", "w", "zero"], ["y"])],
        [value("a", TensorProto.UINT8, shape)],
        [value("y", TensorProto.INT32, [*shape[:-1], 4])],
        [constant("w", weight, np.int8), constant("zero", 128, np.uint8)],
    )
    right, got = in_onnxruntime(a=a), in_tract(a)
    assert np.array_equal(right.ravel(), got.ravel())
    model(
        [helper.make_node("MatMul", ["a", "w"], ["y"])],
        [value("a", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, [*shape[:-1], 4])],
        [constant("w", weight, np.float32)],
    )
    shapes[len(shape)] = (right.shape, got.shape, in_tract(a.astype(np.float32)).shape)
    print(f"{shape}: ONNX Runtime {right.shape}, tract {got.shape}, tract in floats {shapes[len(shape)][2]}")
assert shapes[1] == ((4,), (1, 4), (4,)), shapes
assert all(len(set(shapes[rank])) == 1 for rank in (2, 3)), shapes
PYTHON
