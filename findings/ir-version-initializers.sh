#!/usr/bin/env bash
# Raising IR version 3 to 4 makes weights into inputs.
#
# Below IR version 4 every initializer must be listed among the graph's inputs; from 4 on one that is listed
# is a default that a caller may replace. ONNX Runtime follows: in a file of version 3 such a weight is a
# constant, isn't an input of the session and is folded; in the same file with the version raised, and
# nothing else, it may be fed, and what depends on it alone is computed at each run. So a converter that raises
# the version has to take the initializers off the inputs as well.
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
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
weight = numpy_helper.from_array(np.array([2, 3], np.float32), "w")
graph = helper.make_graph(
    [helper.make_node("Neg", ["w"], ["n"]), helper.make_node("Add", ["x", "n"], ["y"])],
    "g",
    [value("x"), value("w")],
    [value("y")],
    [weight],
)
seen = {}
for version in (3, 4):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=version)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = f"{version}.onnx"
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": np.array([10, 10], np.float32), "w": np.array([5, 5], np.float32)}
    try:
        answer = session.run(None, feed)[0].tolist()
    except Exception as error:
        answer = str(error).split(" : ")[-1]
    overridable = [initializer.name for initializer in session.get_overridable_initializers()]
    nodes = [node.op_type for node in onnx.load(f"{version}.onnx").graph.node]
    seen[version] = (overridable, nodes, answer)
    print(f"IR version {version}: overridable {overridable}, nodes {nodes}, fed another weight: {answer}")
assert seen[3][:2] == ([], ["Add"]) and "Invalid input name" in seen[3][2]
assert seen[4] == (["w"], ["Neg", "Add"], [5.0, 5.0])
PYTHON
