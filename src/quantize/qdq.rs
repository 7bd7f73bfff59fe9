//! Activations in 8 bits by a range that was seen once: quantize, dequantize, product.

use bytes::Bytes;

use super::calibration::Observed;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{NodeProto, TensorProto, initializer_f32, initializer_raw, node};

/// `DequantizeLinear(QuantizeLinear(x))` with a constant scale; gives nodes, constants and the value.
pub(super) fn activation(x: &str, seen: &Observed) -> (Vec<NodeProto>, Vec<TensorProto>, String) {
    let (scale, zero) = seen.levels();
    let [scale_name, zero_name, bytes, floats] =
        ["static_scale", "static_zero_point", "static_bytes", "static_floats"]
            .map(|p| format!("{x}/{p}"));
    let ends = [&scale_name, &zero_name];
    let made =
        |op: &str, from: &str, to: &str| node(op, [from, ends[0], ends[1]], to).named(to).build();
    let nodes = vec![made("QuantizeLinear", x, &bytes), made("DequantizeLinear", &bytes, &floats)];
    let constants = vec![
        initializer_f32(&scale_name, &[], &[scale]),
        initializer_raw(&zero_name, DataType::Uint8, &[], Bytes::from(vec![zero])),
    ];
    (nodes, constants, floats)
}

/// `MatMul(x, DequantizeLinear(W))`, a scale for each column.
pub(super) fn product(x: &str, names: &(String, String), output: &str, name: &str) -> Vec<NodeProto> {
    let weight = format!("{output}/weight");
    let held = node("DequantizeLinear", [&names.0, &names.1], &weight);
    vec![
        held.named(format!("{name}/weight")).int("axis", 1).build(),
        node("MatMul", [x, &weight], output).named(name).build(),
    ]
}
