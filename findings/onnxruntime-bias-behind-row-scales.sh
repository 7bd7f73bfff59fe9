#!/usr/bin/env bash
# ONNX Runtime scales a bias with the rows of the product that it is added to.
#
# An integer product whose activation has a scale for each row, [rows, 1], and whose weight has one for each column,
# [n], is `MatMulInteger, Cast, Mul` with the product of both scales. From the extended optimizations on ONNX Runtime
# makes one node of them (MatMulIntegerToFloat), and that node is right. With an Add of a vector right behind, it takes the
# bias in as well, adds it after the columns' scales and before the rows': y = row * (column * sums + bias). Nothing is
# said. With one scale for the whole activation the same graph is right, so the form that most quantizers write hides it.
# Scaled in two steps, first by the columns, then by the rows, the graph is not fused, and right.
#
# Seen with onnxruntime 1.31.1, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy
cd "$folder"
ORT_DISABLE_TELEMETRY=1 env/bin/python - <<'PYTHON'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, checker, helper, numpy_helper

ort.set_default_logger_severity(3)
K, N, ROWS = 32, 16, 3
random = np.random.default_rng(0)
weight = random.integers(-60, 61, (K, N)).astype(np.int8)
columns = random.uniform(0.01, 0.02, N).astype(np.float32)
bias = random.normal(size=N).astype(np.float32)
rows = np.array([[0.01], [1.0], [50.0]], np.float32)
levels = random.integers(1, 256, (ROWS, K)).astype(np.uint8)


def session(steps, scales, optimized):
    nodes = [
        helper.make_node("MatMulInteger", ["levels", "weight", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        *(helper.make_node("Mul", inputs, [output]) for inputs, output in steps),
        helper.make_node("Add", ["scaled", "bias"], ["y"]),
    ]
    constants = {"weight": weight, "columns": columns, "bias": bias, "zero": np.uint8(128)}
    graph = helper.make_graph(
        nodes,
        "product",
        [
            helper.make_tensor_value_info("levels", TensorProto.UINT8, ["rows", K]),
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, scales),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", N])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options)


together = [(["rows", "columns"], "scales"), (["floats", "scales"], "scaled")]
in_turn = [(["floats", "columns"], "half"), (["half", "rows"], "scaled")]
sums = (levels.astype(np.int64) - 128) @ weight


def off(steps, scale, shape, optimized):
    exact = scale * columns * sums + bias
    return np.abs(session(steps, shape, optimized).run(None, {"levels": levels, "rows": scale})[0] - exact).max()


whole = np.array(1.5, np.float32)
found = {
    "rows and columns as one factor, not optimized": off(together, rows, ["rows", 1], False),
    "rows and columns as one factor": off(together, rows, ["rows", 1], True),
    "columns, then rows": off(in_turn, rows, ["rows", 1], True),
    "one scale for all rows": off(together, whole, [], True),
}
print("onnxruntime", ort.__version__)
for name, far in found.items():
    print(f"{name:46} furthest from the formula: {far:.3g}")
scaled_bias = np.abs(rows * (columns * sums + bias) - (rows * columns * sums + bias)).max()
print(f"{'a bias scaled with the rows would be':46} {'':25} {scaled_bias:.3g}")
names = list(found)
assert all(found[name] < 0.01 for name in names if name != names[1])
assert abs(found[names[1]] - scaled_bias) < 0.01 * scaled_bias
PYTHON
