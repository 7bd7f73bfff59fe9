//! Activations in 8 bits, quantized as they come, once for all the products that read them.
//!
//! In one term, `x ≈ scale · (q − zero_point)` with the range of the tensor itself. In two, what the first
//! leaves is quantized again, 126 times finer; with `s = max |x| / 63`:
//!
//! ```text
//! q1 = round(x / s),  q2 = round(126 (x / s − q1)),  both with zero point 64
//! y  = s · w_scale · q1 · W  +  s / 126 · w_scale · q2 · W
//! ```
//!
//! Each term has 7 bits, and both together 13. Processors without VNNI add pairs of products in 16 bits:
//! of 7 and 8 bits a pair is `2 · 127 · 127` at most and fits, so that a product in two terms is the same
//! number everywhere, with all 8 bits of its weights.
//!
//! Each term has a product of its own, of the activation's own shape whatever its rank, and the two are
//! added: ONNX Runtime fuses each with its scale, and even a step of one row is no slower than with both
//! terms as rows of one product.

use super::body::{Body, Quantized};
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{initializer_f32, initializer_raw, node};
use crate::recipe::Terms;

/// Levels of a term on either side of zero.
const LEVELS_ASIDE: f32 = 63.0;
/// How much finer the second term is: its range is one level of the first.
const TIMES_FINER: f32 = 2.0 * LEVELS_ASIDE;

impl Body<'_, '_> {
    /// Nodes that give `output` = `input` (f32 `[..., k]`) times a weight (s8 `[k, n]`, f32 scale `[n]`).
    pub(super) fn dynamic(
        &mut self,
        terms: Terms,
        input: &str,
        [weight, scale]: [&str; 2],
        output: &str,
        name: &str,
    ) {
        let key = (input.to_owned(), terms);
        let quantized = match (self.quantized.get(&key), terms) {
            (Some(quantized), _) => quantized.clone(),
            (None, Terms::One) => self.one(input),
            (None, Terms::Two) => self.two(input),
        };
        self.quantized.insert(key, quantized.clone());
        match quantized.0.as_slice() {
            [coarse, fine] => {
                let halves = ["coarse", "fine"].map(|part| self.value(&format!("{output}/{part}")));
                self.scaled(coarse, [weight, scale], &halves[0], name);
                let second = self.writer.names.node(&format!("{name}/second"));
                self.scaled(fine, [weight, scale], &halves[1], &second);
                self.add(node("Add", halves, output), &format!("{name}/both"));
            }
            terms => terms.iter().for_each(|term| self.scaled(term, [weight, scale], output, name)),
        }
    }

    /// A product, its cast and one scale after it: ONNX Runtime makes one node of these.
    fn scaled(
        &mut self,
        [bytes, own_scale, zero]: &[String; 3],
        [weight, scale]: [&str; 2],
        output: &str,
        name: &str,
    ) {
        let [sums, floats, scales] =
            ["sums", "floats", "scales"].map(|part| self.value(&format!("{output}/{part}")));
        let product = node("MatMulInteger", [bytes.as_str(), weight, zero], &sums);
        self.nodes.push(product.named(name).build());
        let cast = node("Cast", [&sums], &floats).int("to", i64::from(DataType::Float as i32));
        self.add(cast, &format!("{name}/float"));
        self.add(node("Mul", [own_scale, scale], &scales), &format!("{name}/scale"));
        self.add(node("Mul", [&floats, &scales], output), &format!("{name}/scaled"));
    }

    fn two(&mut self, x: &str) -> Quantized {
        let mut constant =
            |name: &str, value: f32| self.shared(name, |name| initializer_f32(name, &[], &[value]));
        let levels = constant("quantize/levels", 1.0 / LEVELS_ASIDE);
        let whole = constant("quantize/whole", 1.0);
        let finer = constant("quantize/finer", 1.0 / TIMES_FINER);
        let tiny = constant("quantize/tiny", 1e-30);
        let zero = self.shared("quantize/zero_point", |name| {
            initializer_raw(name, DataType::Uint8, &[], bytes::Bytes::from_static(&[64]))
        });
        let mut push = |op: &str, inputs: &[&str], part: &str| {
            let output = self.value(&format!("{x}/{part}"));
            let step = node(op, inputs.iter().copied(), &output);
            self.add(if op == "ReduceMax" { step.int("keepdims", 0) } else { step }, &output);
            output
        };
        let size = push("Abs", &[x], "abs");
        let largest = push("ReduceMax", &[&size], "largest");
        let level = push("Mul", &[&largest, &levels], "level");
        let scale = push("Max", &[&level, &tiny], "scale");
        let in_levels = push("Div", &[x, &scale], "in_levels");
        // Constant scales: tract takes no others.
        let first = push("QuantizeLinear", &[&in_levels, &whole, &zero], "first");
        let coarse = push("DequantizeLinear", &[&first, &whole, &zero], "kept");
        let rest = push("Sub", &[&in_levels, &coarse], "rest");
        let second = push("QuantizeLinear", &[&rest, &finer, &zero], "second");
        let finer_scale = push("Mul", &[&scale, &finer], "finer");
        Quantized(vec![[first, scale, zero.clone()], [second, finer_scale, zero]])
    }

    fn one(&mut self, x: &str) -> Quantized {
        let term = ["bytes", "scale", "zero_point"].map(|part| self.value(&format!("{x}/{part}")));
        let [bytes, scale, zero] = &term;
        let quantize = node("DynamicQuantizeLinear", [x], bytes).output(scale).output(zero);
        self.add(quantize, &format!("{x}/quantize"));
        Quantized(vec![term])
    }
}
