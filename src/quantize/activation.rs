//! Activations in 8 bits, quantized as they come, once for all the products that read them.
//!
//! In one term, `x ≈ scale · (q − zero_point)` with the range of the tensor itself. In two, what the first
//! leaves is quantized again, 254 times finer; with `s = max |x| / 127`:
//!
//! ```text
//! q1 = round(x / s),  q2 = round(254 (x / s − q1)),  both with zero point 128
//! y  = s · w_scale · (q1 · W + q2 · W / 254)
//! ```
//!
//! Both stand as rows of one product, so that the weights are read once.

use std::collections::HashMap;

use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{NodeProto, TensorProto, initializer_f32, initializer_i64, initializer_raw, node};
use crate::recipe::Terms;

const ZERO: &str = "quantize/zero_point";
const SHARES: &str = "quantize/shares";
const LEVELS: &str = "quantize/levels";
const WHOLE: &str = "quantize/whole";
const FINER: &str = "quantize/finer";
const TINY: &str = "quantize/tiny";
const FIRST: &str = "quantize/first_axis";

/// The quantized forms of activations so far.
#[derive(Default)]
pub(super) struct Activations {
    made: HashMap<(String, Terms), (String, String, String)>,
}

impl Activations {
    /// The constants that every activation in two terms shares.
    pub(super) fn constants() -> Vec<TensorProto> {
        vec![
            initializer_raw(ZERO, DataType::Uint8, &[], bytes::Bytes::from_static(&[128])),
            initializer_f32(SHARES, &[2, 1, 1, 1], &[1.0, 1.0 / 254.0]),
            initializer_f32(LEVELS, &[], &[1.0 / 127.0]),
            initializer_f32(WHOLE, &[], &[1.0]),
            initializer_f32(FINER, &[], &[1.0 / 254.0]),
            initializer_f32(TINY, &[], &[1e-30]),
            initializer_i64(FIRST, &[1], &[0]),
        ]
    }

    /// Nodes that give `output` = `input` (f32 [batch, rows, k]) times a weight (s8 [k, n], f32 scale [n]).
    pub(super) fn product(
        &mut self,
        terms: Terms,
        input: &str,
        weight: &str,
        scale: &str,
        output: &str,
        name: &str,
    ) -> Vec<NodeProto> {
        let mut nodes = Vec::new();
        let form = self.made.entry((input.to_owned(), terms)).or_insert_with(|| match terms {
            Terms::One => one(input, &mut nodes),
            Terms::Two => two(input, &mut nodes),
        });
        let (quantized, input_scale, zero) = &*form;
        let [sums, floats, scales] =
            ["sums", "floats", "scales"].map(|part| format!("{output}/{part}"));
        nodes.push(node("MatMulInteger", [quantized, weight, zero], &sums).named(name).build());
        nodes.push(node("Cast", [&sums], &floats).named(format!("{name}/float")).int("to", 1).build());
        nodes.push(node("Mul", [input_scale, scale], &scales).named(format!("{name}/scale")).build());
        if terms == Terms::One {
            let last = node("Mul", [&floats, &scales], output);
            nodes.push(last.named(format!("{name}/scaled")).build());
            return nodes;
        }
        // Scaled before the halves are added: ONNX Runtime makes the product, the cast and this one node.
        let [scaled, shared] = ["scaled", "shares"].map(|part| format!("{output}/{part}"));
        nodes.push(node("Mul", [&floats, &scales], &scaled).named(format!("{name}/scaled")).build());
        nodes.push(node("Mul", [&scaled, SHARES], &shared).named(format!("{name}/shares")).build());
        let sum = node("ReduceSum", [&shared, FIRST], output).named(format!("{name}/both"));
        nodes.push(sum.int("keepdims", 0).build());
        nodes
    }
}

fn two(x: &str, nodes: &mut Vec<NodeProto>) -> (String, String, String) {
    let mut push = |op: &str, inputs: &[&str], part: &str, attribute: Option<(&str, i64)>| {
        let output = format!("{x}/{part}");
        let made = node(op, inputs.iter().copied(), &output).named(&output);
        nodes.push(
            attribute.into_iter().fold(made, |made, (name, value)| made.int(name, value)).build(),
        );
        output
    };
    let size = push("Abs", &[x], "abs", None);
    let largest = push("ReduceMax", &[&size], "largest", Some(("keepdims", 0)));
    let level = push("Mul", &[&largest, LEVELS], "level", None);
    let scale = push("Max", &[&level, TINY], "scale", None);
    let levels = push("Div", &[x, &scale], "in_levels", None);
    let levels = push("Unsqueeze", &[&levels, FIRST], "rows", None);
    // Constant scales: tract takes no others.
    let first = push("QuantizeLinear", &[&levels, WHOLE, ZERO], "first", None);
    let kept = push("DequantizeLinear", &[&first, WHOLE, ZERO], "kept", None);
    let rest = push("Sub", &[&levels, &kept], "rest", None);
    let second = push("QuantizeLinear", &[&rest, FINER, ZERO], "second", None);
    let both = push("Concat", &[&first, &second], "both", Some(("axis", 0)));
    (both, scale, ZERO.to_owned())
}

fn one(x: &str, nodes: &mut Vec<NodeProto>) -> (String, String, String) {
    let [bytes, scale, zero] = ["bytes", "scale", "zero_point"].map(|part| format!("{x}/{part}"));
    let made = node("DynamicQuantizeLinear", [x], &bytes).named(format!("{x}/quantize"));
    nodes.push(made.output(&scale).output(&zero).build());
    (bytes, scale, zero)
}
