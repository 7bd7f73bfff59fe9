//! Activations in 8 bits by a range that was seen once: quantize, dequantize, product.

use bytes::Bytes;

use super::body::Body;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{initializer_f32, initializer_raw, node};

/// `DequantizeLinear(QuantizeLinear(input))` with a constant scale, of the range of `x` in the calibration;
/// returns the value. `input` is `x`, perhaps of another type or transposed.
pub(super) fn activation(body: &mut Body<'_, '_>, x: &str, input: &str) -> String {
    let key = (input.to_owned(), "static");
    if let Some(floats) = body.floats.get(&key) {
        return floats.clone();
    }
    let (scale, zero) = body.writer.options.seen.get(x).cloned().unwrap_or_default().levels();
    let [scale_name, zero_name, bytes, floats] =
        ["static_scale", "static_zero_point", "static_bytes", "static_floats"]
            .map(|part| body.value(&format!("{input}/{part}")));
    for (op, from, to) in [("QuantizeLinear", input, &bytes), ("DequantizeLinear", &bytes, &floats)] {
        body.add(node(op, [from, &scale_name, &zero_name], to), to);
    }
    body.constant(initializer_f32(&scale_name, &[], &[scale]));
    body.constant(initializer_raw(&zero_name, DataType::Uint8, &[], Bytes::from(vec![zero])));
    body.floats.insert(key, floats.clone());
    floats
}

/// `MatMul(x, DequantizeLinear(W))`, a scale for each column of a weight of so many axes.
pub(super) fn product(
    body: &mut Body<'_, '_>,
    x: &str,
    [values, scales]: [&str; 2],
    rank: usize,
    output: &str,
    name: &str,
) {
    let weight = body.value(&format!("{output}/weight"));
    let floats = node("DequantizeLinear", [values, scales], &weight).int("axis", rank as i64 - 1);
    body.add(floats, &format!("{name}/weight"));
    body.nodes.push(node("MatMul", [x, &weight], output).named(name).build());
}
