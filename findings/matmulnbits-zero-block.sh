#!/usr/bin/env bash
# A block of zeros in MatMulNBits is not zero, unless its scale is.
#
# With symmetric blocks every weight of zero is stored as the middle (128 of 8 bits), and (128 - 128) times any
# scale is 0, so a quantizer may write any scale for a block without a value, 1 for instance. With
# accuracy_level 4 ONNX Runtime's kernel corrects the sums of products for the middle in floats, and what is left
# of that is multiplied by the scale: columns that are exactly zero come out as noise, against which pruned or
# padded weights of a usual size may be small. A scale of 0 gives exact zeros.
#
# Seen with onnx 1.23.2 and onnxruntime 1.31.1 on x86-64.
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
rows, columns, block = 1024, 64, 32
x = np.random.default_rng(1).standard_normal((3, rows)).astype(np.float32) + 3
value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])


def largest(scale, level):
    attributes = {"K": rows, "N": columns, "bits": 8, "block_size": block, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)
    middle = np.full((columns, rows // block, block), 128, np.uint8)
    scales = np.full(columns * rows // block, scale, np.float32)
    constants = [numpy_helper.from_array(middle, "w"), numpy_helper.from_array(scales, "s")]
    graph = helper.make_graph([node], "g", [value("x", rows)], [value("y", columns)], constants)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(np.abs(session.run(None, {"x": x})[0]).max())


seen = {(scale, level): largest(scale, level) for scale in (1.0, 0.0) for level in (4, 1)}
for (scale, level), most in seen.items():
    print(f"all weights zero, scale {scale}, accuracy_level {level}: largest output {most}")
assert seen[1.0, 4] > 1e-3
assert seen[0.0, 4] == seen[0.0, 1] == 0
PYTHON
