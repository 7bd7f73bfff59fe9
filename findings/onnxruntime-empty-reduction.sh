#!/usr/bin/env bash
# ONNX Runtime leaves an axis as it is when it reduces a tensor of no elements over axis -1.
#
# With keepdims a reduced axis has length 1, whatever its number: [1, 0, 64] over axis 2 is [1, 0, 1]. ONNX
# Runtime says so for the axis 2, and gives [1, 0, 64] for the axis -1, which is the same one. With any
# elements both are right. A cache of length 0, as a language model begins with, is such a tensor: a norm over
# the last axis, written as exporters write it, changes shape there.
#
# Seen with onnx 1.23.2 and onnxruntime 1.31.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.31.1
export ORT_DISABLE_TELEMETRY=1
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnx.reference
import onnxruntime
from onnx import TensorProto, helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def shapes(op, axis, length):
    node = helper.make_node(op, ["x"], ["y"], axes=[axis], keepdims=1)
    graph = helper.make_graph([node], "g", [value("x", [1, "past", 64])], [value("y", [1, "past", 1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    feed = {"x": np.zeros([1, length, 64], np.float32)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    reference = onnx.reference.ReferenceEvaluator(model).run(None, feed)[0]
    return session.run(None, feed)[0].shape, reference.shape


for op in ("ReduceMean", "ReduceL2"):
    for length in (3, 0):
        for axis in (2, -1):
            seen, right = shapes(op, axis, length)
            print(f"{op} of [1, {length}, 64] over axis {axis}: {list(seen)}, by ONNX {list(right)}")
            assert right == (1, length, 1)
            assert seen == ((1, 0, 64) if (length, axis) == (0, -1) else right), seen
PYTHON
