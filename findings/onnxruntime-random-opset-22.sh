#!/usr/bin/env bash
# ONNX Runtime has no random operators at opset 22 and above.
#
# Opset 22 only widened the types of RandomNormal, RandomUniform, their Like forms, Multinomial and Bernoulli (to
# bfloat16). ONNX Runtime runs each at opset 21; at 22 no kernel is registered, so a float32 model that noise goes
# through (dropout for sampling, a diffusion head, a stochastic vocoder) stops loading when its opset is raised, though
# ONNX's checker is content and ONNX Runtime takes opset 22 otherwise. Bernoulli has a function body, and fails with
# the name of an operator that the model doesn't contain.
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
value = lambda name, shape, dtype=TensorProto.FLOAT: helper.make_tensor_value_info(name, dtype, shape)
CASES = {
    "RandomNormal": ([], {"shape": [2, 8]}, TensorProto.FLOAT),
    "RandomUniform": ([], {"shape": [2, 8]}, TensorProto.FLOAT),
    "RandomNormalLike": (["x"], {}, TensorProto.FLOAT),
    "RandomUniformLike": (["x"], {}, TensorProto.FLOAT),
    "Multinomial": (["x"], {"sample_size": 8}, TensorProto.INT32),
    "Bernoulli": (["x"], {}, TensorProto.FLOAT),
}


def run(operator, opset):
    inputs, attributes, dtype = CASES[operator]
    nodes = [
        helper.make_node(operator, inputs, ["random"], **attributes),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    outputs = [value("random", [2, 8], dtype), value("same", [2, 8])]
    graph = helper.make_graph(nodes, "g", [value("x", [2, 8])], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.full((2, 8), 0.5, np.float32)})[0]


for operator in CASES:
    assert run(operator, 21).shape == (2, 8)
    try:
        run(operator, 22)
    except Exception as error:
        words = str(error).split(" : ", 2)[-1]
        print(f"{operator}: runs at opset 21; at 22: {words}")
        assert "Could not find an implementation" in words, words
    else:
        raise SystemExit(f"{operator} runs at opset 22")
PYTHON
