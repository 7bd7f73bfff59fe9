#!/usr/bin/env bash
# rten holds int64 in 32 bits, and clamps a constant that doesn't fit without a word.
#
# ONNX's whole numbers are int64 nearly everywhere. rten keeps them as i32; its loader brings a larger constant to the
# nearest number of 32 bits. That serves the customary "to the end" (2^63 - 1) of Slice, and changes arithmetic: an
# identifier, a hash or a count of samples in a graph becomes 2^31 - 1. A test with small numbers doesn't see it.
#
# Seen with rten 0.27.0, with onnx 1.23.2 and onnxruntime 1.31.1 beside it.
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

value = lambda name, dtype: helper.make_tensor_value_info(name, dtype, [3])
constant = numpy_helper.from_array(np.array([7, 2**31 - 1, 2**31 + 8], np.int64), "c")
nodes = [helper.make_node("Sub", ["c", "x"], ["y"])]
graph = helper.make_graph(nodes, "g", [value("x", TensorProto.INT64)], [value("y", TensorProto.INT64)], [constant])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
got = session.run(None, {"x": np.array([0, 2**31 - 1, 2**31 - 1], np.int64)})[0]
print("onnxruntime", onnxruntime.__version__, "says", got.tolist())
assert got.tolist() == [7, 0, 9]
PYTHON
mkdir -p rust/src
cat > rust/Cargo.toml <<'TOML'
[package]
name = "clamped"
version = "0.0.0"
edition = "2021"

[dependencies]
rten = "=0.27.0"
rten-tensor = "=0.27.0"
TOML
cat > rust/src/main.rs <<'RUST'
use rten::{Model, Value};
use rten_tensor::prelude::*;

fn main() {
    let model = Model::load_file("../model.onnx").unwrap();
    let x = Value::from_shape(&[3], vec![0i32, i32::MAX, i32::MAX]).unwrap();
    let outputs = model.run(vec![(model.input_ids()[0], x.into())], model.output_ids(), None).unwrap();
    let Value::Int32Tensor(y) = &outputs[0] else { panic!("another type") };
    let y: Vec<i32> = y.iter().copied().collect();
    println!("rten 0.27.0 says {y:?}");
    assert_eq!(y, [7, 0, 0], "the last constant is 2^31 + 8");
}
RUST
cd rust
cargo run --quiet --release
