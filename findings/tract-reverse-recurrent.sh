#!/usr/bin/env bash
# tract runs an LSTM, GRU or RNN of direction "reverse" forwards.
#
# No error: the output has the right shape and is, bit for bit, what direction "forward" gives. "bidirectional"
# is right, so a model of speech whose recurrent layers are exported as pairs of a forward and a reversed
# one is wrong where one that is exported as bidirectional is right.
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


random = np.random.default_rng(1)
steps, size, hidden = 4, 3, 2
x = random.standard_normal((steps, 1, size)).astype(np.float32)
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    both = {
        "w": random.standard_normal((2, gates * hidden, size)).astype(np.float32),
        "r": random.standard_normal((2, gates * hidden, hidden)).astype(np.float32),
    }
    found = {}
    for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        node = helper.make_node(op, ["x", "w", "r"], ["y"], hidden_size=hidden, direction=direction)
        weights = {name: array[:count] for name, array in both.items()}
        model([node], [value("x", x.shape)], [value("y", [steps, count, 1, hidden])], weights)
        right, got = in_onnxruntime(x=x)[0], in_tract(x)[0]
        found[direction] = got
        print(f"{op} {direction}: tract is {np.abs(right - got).max():.1e} from ONNX Runtime")
        assert (np.abs(right - got).max() < 1e-6) == (direction != "reverse")
    assert np.array_equal(found["reverse"], found["forward"])
PYTHON
