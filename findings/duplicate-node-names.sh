#!/usr/bin/env bash
# Two nodes of one name: onnx.checker takes the file, ONNX Runtime refuses it.
#
# ONNX says that a node's name is optional, and its checker never compares names, so a tool that derives
# names ("X/split" of an unnamed X gives "/split", twice) passes every check of the `onnx` package. ONNX
# Runtime refuses the file when it is loaded. Unnamed nodes are no duplicates: any number of them loads.
# In two different graphs, of which one is nested in the other, one name is allowed.
#
# Seen with onnx 1.23.2 and onnxruntime 1.31.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.31.1
export ORT_DISABLE_TELEMETRY=1
"$folder/env/bin/python" - <<'PYTHON'
import onnx
import onnxruntime
from onnx import TensorProto, helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def model(first, second, nested=None):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
    nodes = [helper.make_node("Neg", ["x"], ["a"], name=first), helper.make_node("Abs", ["a"], ["b"], name=second)]
    last = helper.make_node("Identity", ["b"], ["y"])
    if nested is not None:
        branch = lambda op: helper.make_graph([helper.make_node(op, ["b"], ["z"], name=nested)], op, [], [value("z")])
        yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        nodes.append(helper.make_node("Constant", [], ["c"], value=yes))
        last = helper.make_node("If", ["c"], ["y"], then_branch=branch("Exp"), else_branch=branch("Log"))
    graph = helper.make_graph([*nodes, last], "g", [value("x")], [value("y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def loads(proto):
    onnx.checker.check_model(proto, full_check=True)
    try:
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return True
    except Exception as error:
        print("  ", str(error).splitlines()[0])
        return False


seen = {
    "two nodes without a name": loads(model("", "")),
    "two nodes of two names": loads(model("n", "m")),
    "two nodes of one name": loads(model("n", "n")),
    "one name in both branches of an If and outside": loads(model("n", "m", nested="n")),
}
for what, taken in seen.items():
    print(f"{what}: the checker takes it, ONNX Runtime {'loads' if taken else 'refuses'} it")
assert list(seen.values()) == [True, True, False, True], seen
PYTHON
