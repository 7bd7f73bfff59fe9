#!/usr/bin/env bash
# A row of dynamically quantized INT8 depends on the rows beside it.
#
# `quantize_dynamic` writes DynamicQuantizeLinear, which takes one range over the whole activation, whatever
# its rank: a sentence in a batch, or a position in a prompt, is rounded by the largest value of any of
# its neighbours, padding included. A row run alone and the same row in a batch are different numbers, by as
# much as quantizing itself costs. MatMulNBits (blocks of 8 bits, accuracy_level 4) quantizes each row by
# itself: the same bytes.
#
# Seen with onnx 1.23.2 and onnxruntime 1.31.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.31.1 onnx_ir==1.1.0 sympy==1.14.0
export ORT_DISABLE_TELEMETRY=1
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
random = np.random.default_rng(7)
weight = random.standard_normal((256, 128)).astype(np.float32)
value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
    "g",
    [value("x", 256)],
    [value("y", 128)],
    [numpy_helper.from_array(weight, "w")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "fp32.onnx")
quantize_dynamic("fp32.onnx", "dynamic.onnx", per_channel=True, weight_type=QuantType.QInt8)
config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, bits=8, accuracy_level=4)
blocks = MatMulNBitsQuantizer(onnx.load("fp32.onnx"), algo_config=config)
blocks.process()
blocks.model.save_model_to_file("blocks.onnx")

# One row as it comes from a layer norm, and beside it one that is four times as loud.
row = random.standard_normal((1, 256)).astype(np.float32)
batch = np.concatenate([row, 4 * random.standard_normal((1, 256)).astype(np.float32)])
exact = row @ weight


def decibels(signal, other):
    error = np.sum((other - signal) ** 2, dtype=np.float64)
    return np.inf if error == 0 else 10 * np.log10(np.sum(signal**2, dtype=np.float64) / error)


seen = {}
for name in ("fp32", "dynamic", "blocks"):
    session = onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    alone, beside = (session.run(None, {"x": x})[0][:1] for x in (row, batch))
    seen[name] = (decibels(alone, beside), decibels(exact, alone), decibels(exact, beside))
    apart, one, two = seen[name]
    print(f"{name}: alone and beside another row {apart:.1f} dB apart; from fp32 {one:.1f} dB alone, {two:.1f} dB beside it")
assert seen["blocks"][0] == np.inf
assert seen["fp32"][0] > 100
assert seen["dynamic"][0] < 45, seen["dynamic"]
assert seen["dynamic"][1] > seen["dynamic"][2] + 3, seen["dynamic"]
PYTHON
