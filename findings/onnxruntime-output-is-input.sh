#!/usr/bin/env bash
# An output that is an input has the input's memory in ONNX Runtime; one behind Identity has its own.
#
# A graph may list an input among its outputs, as cache and mask surgeries leave it. With values that stay in ONNX
# Runtime (OrtValue, bindings, the C API) that output is the caller's input buffer: whoever writes the next input into
# it changes the last output, and whoever frees the input first reads freed memory. An Identity between them is a copy,
# at every level of optimization. Arrays of session.run() are copies either way, so a test in NumPy sees nothing.
#
# Seen with onnxruntime 1.31.1 and onnx 1.23.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.31.1
export ORT_DISABLE_TELEMETRY=1
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3])
nodes = [helper.make_node("Identity", ["x"], ["copy"]), helper.make_node("Neg", ["x"], ["y"])]
graph = helper.make_graph(nodes, "g", [value("x")], [value("x"), value("copy"), value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
for level in (0, 1, 99):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    first, second = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    given = onnxruntime.OrtValue.ortvalue_from_numpy(first)
    through, copy, _ = session.run_with_ort_values(None, {"x": given})
    shared = [output.data_ptr() == given.data_ptr() for output in (through, copy)]
    given.update_inplace(second)
    print(f"optimization {level}: the output is the input's memory: {shared[0]}, behind Identity: {shared[1]};",
          f"after the next input is written they read {through.numpy()[0, 0]:.0f} and {copy.numpy()[0, 0]:.0f}")
    assert shared == [True, False]
    assert through.numpy()[0, 0] == 1 and copy.numpy()[0, 0] == 0
    array = np.zeros((2, 3), np.float32)
    assert not np.shares_memory(session.run(None, {"x": array})[0], array)
PYTHON
