//! Activations in 8 bits, quantized as they come, once for all the products that read them.
//!
//! A row `x`, a position of a language model or a frame of a decoder, has a range of its own, so that what becomes of
//! it doesn't depend on the rows beside it. In one term, with `s = max |x|`:
//!
//! ```text
//! q = round(127 x / s), zero point 128
//! y = s / 127 · w_scale · q · W
//! ```
//!
//! In two terms, what the first leaves is quantized again, 126 times finer:
//!
//! ```text
//! q1 = round(63 x / s),  q2 = round(63 · 126 (x / s − q1 / 63)),  both with zero point 64
//! y  = s / 63 · w_scale · q1 · W  +  s / (63 · 126) · w_scale · q2 · W
//! ```
//!
//! Each of two terms has 7 bits, and both together 13. Processors without VNNI add pairs of products in 16 bits:
//! of 7 and 8 bits a pair is `2 · 127 · 127` at most and fits, so that a product in two terms is the same
//! number everywhere, with all 8 bits of its weights.
//!
//! Each term has a product of its own, of the activation's own shape whatever its rank, and the two are
//! added. Numbers that are the same for every row are in the weight's scales.
//!
//! Where the scales of rows and columns are multiplied first, ONNX Runtime makes one node of the product and both
//! (`MatMulIntegerToFloat`). With a vector added right behind, that node has a bias too, and **scales the bias with
//! the rows** (1.31.1): there the product is scaled twice, by its columns and by its rows, and fused with nothing.
//!
//! With one range for the whole tensor ([`Granularity::Tensor`]) `s` is its largest, and one term is
//! `DynamicQuantizeLinear`'s, `x ≈ scale · (q − zero_point)` between its least and its largest.

use super::body::{Body, Term};
use super::layout::Key;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{initializer_f32, initializer_i64, initializer_raw, node};
use crate::recipe::{Granularity, Terms};

/// Levels of one term on either side of zero.
const LEVELS_ASIDE: f32 = 127.0;
/// Levels of each of two terms.
const LEVELS_ASIDE_OF_TWO: f32 = 63.0;
/// How much finer the second term is: its range is one level of the first.
const TIMES_FINER: f32 = 2.0 * LEVELS_ASIDE_OF_TWO;
/// The least scale: a row of zeros has some.
const LEAST_SCALE: f32 = 1e-30;

impl Body<'_, '_> {
    /// Nodes that give `output` = `input` (f32 `[..., k]`, of so many axes) times a weight (s8 `[k, n]`, f32 scale `[n]`)
    /// and a factor.
    pub(super) fn dynamic(
        &mut self,
        terms: Terms,
        (input, rank): (&str, Option<usize>),
        weight: (&Key, f32),
        output: &str,
        (name, is_fused): (&str, bool),
    ) {
        let key = (input.to_owned(), terms);
        let quantized = match (self.quantized.get(&key), terms) {
            (Some(quantized), _) => quantized.clone(),
            (None, Terms::One) => vec![self.one(input, rank)],
            (None, Terms::Two) => self.two(input, rank).to_vec(),
        };
        self.quantized.insert(key, quantized.clone());
        match quantized.as_slice() {
            [coarse, fine] => {
                let halves = ["coarse", "fine"].map(|part| self.value(&format!("{output}/{part}")));
                self.scaled(coarse, weight, &halves[0], (name, true));
                let second = self.writer.names.node(&format!("{name}/second"));
                self.scaled(fine, weight, &halves[1], (&second, true));
                self.add(node("Add", halves, output), &format!("{name}/both"));
            }
            terms => terms.iter().for_each(|term| self.scaled(term, weight, output, (name, is_fused))),
        }
    }

    /// A product, its cast, and its scales behind it: as one factor, or one after the other.
    fn scaled(
        &mut self,
        term: &Term,
        (key, factor): (&Key, f32),
        output: &str,
        (name, is_fused): (&str, bool),
    ) {
        let (weight, scale) = self.weight(key, factor * term.step);
        let [sums, floats, scales] =
            ["sums", "floats", "scales"].map(|part| self.value(&format!("{output}/{part}")));
        let product = node("MatMulInteger", [&term.bytes, &weight, &term.zero], &sums);
        self.nodes.push(product.named(name).build());
        let cast = node("Cast", [&sums], &floats).int("to", i64::from(DataType::Float as i32));
        self.add(cast, &format!("{name}/float"));
        let [first, last] = if is_fused {
            [[&term.scale, &scale], [&floats, &scales]]
        } else {
            [[&floats, &scale], [&scales, &term.scale]]
        };
        self.add(node("Mul", first, &scales), &format!("{name}/scale"));
        self.add(node("Mul", last, output), &format!("{name}/scaled"));
    }

    fn one(&mut self, x: &str, rank: Option<usize>) -> Term {
        if self.writer.options.granularity == Granularity::Tensor {
            let [bytes, scale, zero] =
                ["bytes", "scale", "zero_point"].map(|part| self.value(&format!("{x}/{part}")));
            let quantize = node("DynamicQuantizeLinear", [x], &bytes).output(&scale).output(&zero);
            self.add(quantize, &format!("{x}/quantize"));
            return Term { bytes, scale, zero, step: 1.0 };
        }
        let (unit, scale) = self.unit(x, rank);
        let (step, zero) = (1.0 / LEVELS_ASIDE, 128);
        let bytes = self.bytes(&unit, step, zero, &format!("{x}/bytes"));
        Term { bytes, scale, zero: self.zero(zero), step }
    }

    fn two(&mut self, x: &str, rank: Option<usize>) -> [Term; 2] {
        let (unit, scale) = self.unit(x, rank);
        let (step, zero) = (1.0 / LEVELS_ASIDE_OF_TWO, 64);
        let first = self.bytes(&unit, step, zero, &format!("{x}/first"));
        let (level, middle) = (self.number(step), self.zero(zero));
        let coarse = self.step("DequantizeLinear", [&first, &level, &middle], x, "kept");
        let rest = self.step("Sub", [&unit, &coarse], x, "rest");
        let finer = step / TIMES_FINER;
        let second = self.bytes(&rest, finer, zero, &format!("{x}/second"));
        [(first, step), (second, finer)].map(|(bytes, step)| Term {
            bytes,
            scale: scale.clone(),
            zero: middle.clone(),
            step,
        })
    }

    /// A value divided by the largest magnitude of its row, or of all of it: from -1 to 1; and that magnitude.
    fn unit(&mut self, x: &str, rank: Option<usize>) -> (String, String) {
        let size = self.step("Abs", [x], x, "abs");
        let largest = match self.writer.options.granularity {
            Granularity::Tensor => {
                let largest = self.value(&format!("{x}/largest"));
                self.add(node("ReduceMax", [&size], &largest).int("keepdims", 0), &largest);
                largest
            }
            Granularity::Row => self.largest_of_rows(&size, x, rank),
        };
        let least = self.number(LEAST_SCALE);
        let scale = self.step("Max", [&largest, &least], x, "scale");
        (self.step("Div", [x, &scale], x, "unit"), scale)
    }

    /// The largest of each row, `[..., 1]`. Of no rows at all ONNX Runtime (1.31.1) gives `[..., k]` over the axis -1: where
    /// the last axis has no other number, the first of them is taken.
    fn largest_of_rows(&mut self, size: &str, x: &str, rank: Option<usize>) -> String {
        let axis = rank.map_or(-1, |rank| rank as i64 - 1);
        let largest = self.value(&format!("{x}/largest"));
        // From opset 18 on axes are an input.
        let reduce = if self.writer.opset >= 18 {
            let axis = self.integer(axis);
            node("ReduceMax", [size, &axis], &largest)
        } else {
            node("ReduceMax", [size], &largest).ints("axes", [axis])
        };
        self.add(reduce, &largest);
        if rank.is_some() {
            return largest;
        }
        let [from, to, last] = [0, 1, -1].map(|number| self.integer(number));
        self.step("Slice", [&largest, &from, &to, &last], x, "largest_alone")
    }

    /// A value in bytes, by a constant scale: tract takes no others.
    fn bytes(&mut self, x: &str, step: f32, zero: u8, output: &str) -> String {
        let (step, zero) = (self.number(step), self.zero(zero));
        let output = self.value(output);
        self.add(node("QuantizeLinear", [x, &step, &zero], &output), &output);
        output
    }

    fn step<const N: usize>(&mut self, op: &str, inputs: [&str; N], x: &str, part: &str) -> String {
        let output = self.value(&format!("{x}/{part}"));
        self.add(node(op, inputs, &output), &output);
        output
    }

    fn number(&mut self, value: f32) -> String {
        self.shared(&format!("quantize/{value:e}"), |name| initializer_f32(name, &[], &[value]))
    }

    fn integer(&mut self, value: i64) -> String {
        self.shared(&format!("quantize/[{value}]"), |name| initializer_i64(name, &[1], &[value]))
    }

    fn zero(&mut self, zero: u8) -> String {
        self.shared(&format!("quantize/zero_point_{zero}"), |name| {
            initializer_raw(name, DataType::Uint8, &[], bytes::Bytes::copy_from_slice(&[zero]))
        })
    }
}
