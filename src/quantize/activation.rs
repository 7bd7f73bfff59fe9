//! Activations in 8 bits, quantized as they come, once for all the products that read them.
//!
//! In one term, `x ≈ scale · (q − zero_point)` with the range of the tensor itself. In two, what the first
//! leaves is quantized again, 126 times finer; with `s = max |x| / 63`:
//!
//! ```text
//! q1 = round(x / s),  q2 = round(126 (x / s − q1)),  both with zero point 64
//! y  = s · w_scale · (q1 · W + q2 · W / 126)
//! ```
//!
//! Each term has 7 bits, and both together 13. Processors without VNNI add pairs of products in 16 bits:
//! of 7 and 8 bits a pair is `2 · 127 · 127` at most and fits, so that a product in two terms is the same
//! number everywhere, with all 8 bits of its weights.
//!
//! Both terms stand as rows of one product where rows are few, as in a language model's step, so that the
//! weights are read once. Where they are many, as in a decoder, reading weights costs nothing beside the
//! products, and two of them are added.

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

/// Levels of a term on either side of zero.
const LEVELS_ASIDE: f32 = 63.0;
/// How much finer the second term is: its range is one level of the first.
const TIMES_FINER: f32 = 2.0 * LEVELS_ASIDE;

/// An activation in 8 bits, by the names of its values.
enum Quantized {
    /// With its own scale and zero point.
    One { bytes: String, scale: String, zero: String },
    /// Both terms, the second below the first.
    Stacked { both: String, scale: String },
    /// Both terms by themselves, each with its scale.
    Apart([(String, String); 2]),
}

/// The quantized forms of activations so far.
pub(super) struct Activations {
    made: HashMap<(String, Terms), Quantized>,
    /// Activations have many rows.
    many_rows: bool,
}

impl Activations {
    /// None so far; `many_rows` where a product's time is in its rows rather than in reading its weights.
    pub(super) fn new(many_rows: bool) -> Self {
        Self { made: HashMap::new(), many_rows }
    }

    /// The constants that every activation in two terms shares.
    pub(super) fn constants() -> Vec<TensorProto> {
        vec![
            initializer_raw(ZERO, DataType::Uint8, &[], bytes::Bytes::from_static(&[64])),
            initializer_f32(SHARES, &[2, 1, 1, 1], &[1.0, 1.0 / TIMES_FINER]),
            initializer_f32(LEVELS, &[], &[1.0 / LEVELS_ASIDE]),
            initializer_f32(WHOLE, &[], &[1.0]),
            initializer_f32(FINER, &[], &[1.0 / TIMES_FINER]),
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
        let many_rows = self.many_rows;
        let form = self.made.entry((input.to_owned(), terms)).or_insert_with(|| match terms {
            Terms::One => one(input, &mut nodes),
            Terms::Two => two(input, many_rows, &mut nodes),
        });
        // A product, its cast and one scale behind it: ONNX Runtime makes one node of these.
        let mut scaled = |bytes: &str, own_scale: &str, zero: &str, name: &str, to: &str| {
            let [sums, floats, scales] =
                ["sums", "floats", "scales"].map(|part| format!("{to}/{part}"));
            nodes.push(node("MatMulInteger", [bytes, weight, zero], &sums).named(name).build());
            let cast = node("Cast", [&sums], &floats).named(format!("{name}/float"));
            nodes.push(cast.int("to", 1).build());
            let both = node("Mul", [own_scale, scale], &scales).named(format!("{name}/scale"));
            nodes.push(both.build());
            nodes.push(node("Mul", [&floats, &scales], to).named(format!("{name}/scaled")).build());
        };
        match &*form {
            Quantized::One { bytes, scale, zero } => scaled(bytes, scale, zero, name, output),
            Quantized::Stacked { both, scale } => {
                // Scaled before the terms are added: then the scale is part of that one node.
                let [halves, shared] = ["scaled", "shares"].map(|part| format!("{output}/{part}"));
                scaled(both, scale, ZERO, name, &halves);
                let share = node("Mul", [&halves, SHARES], &shared).named(format!("{name}/shares"));
                nodes.push(share.build());
                let sum = node("ReduceSum", [&shared, FIRST], output).named(format!("{name}/both"));
                nodes.push(sum.int("keepdims", 0).build());
            }
            Quantized::Apart([(first, first_scale), (second, second_scale)]) => {
                let [coarse, fine] = ["coarse", "fine"].map(|part| format!("{output}/{part}"));
                scaled(first, first_scale, ZERO, name, &coarse);
                scaled(second, second_scale, ZERO, &format!("{name}/second"), &fine);
                let sum = node("Add", [&coarse, &fine], output).named(format!("{name}/both"));
                nodes.push(sum.build());
            }
        }
        nodes
    }
}

fn two(x: &str, apart: bool, nodes: &mut Vec<NodeProto>) -> Quantized {
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
    let mut levels = push("Div", &[x, &scale], "in_levels", None);
    if !apart {
        levels = push("Unsqueeze", &[&levels, FIRST], "rows", None);
    }
    // Constant scales: tract takes no others.
    let first = push("QuantizeLinear", &[&levels, WHOLE, ZERO], "first", None);
    let kept = push("DequantizeLinear", &[&first, WHOLE, ZERO], "kept", None);
    let rest = push("Sub", &[&levels, &kept], "rest", None);
    let second = push("QuantizeLinear", &[&rest, FINER, ZERO], "second", None);
    if apart {
        let finer = push("Mul", &[&scale, FINER], "finer", None);
        return Quantized::Apart([(first, scale), (second, finer)]);
    }
    let both = push("Concat", &[&first, &second], "both", Some(("axis", 0)));
    Quantized::Stacked { both, scale }
}

fn one(x: &str, nodes: &mut Vec<NodeProto>) -> Quantized {
    let [bytes, scale, zero] = ["bytes", "scale", "zero_point"].map(|part| format!("{x}/{part}"));
    let made = node("DynamicQuantizeLinear", [x], &bytes).named(format!("{x}/quantize"));
    nodes.push(made.output(&scale).output(&zero).build());
    Quantized::One { bytes, scale, zero }
}
