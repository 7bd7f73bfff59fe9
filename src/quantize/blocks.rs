//! Weights in blocks of 8 or 4 bits, ONNX Runtime's `MatMulNBits`.

use bytes::Bytes;

use super::columns::{read, scale};
use super::layout::BLOCK;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{NodeBuilder, TensorProto, initializer_f32, initializer_raw, node};

/// Activations in 8 bits within the kernel: left unset, products run in fp32 and take ten times as long.
const ACCURACY_LEVEL: i64 = 4;
/// The operator's domain.
pub(super) const DOMAIN: &str = "com.microsoft";

/// A weight [k, n] as `MatMulNBits` takes it: n rows of k / 32 blocks, each with a scale; the zero point is
/// the middle, 128 or 8.
pub(super) struct Blocks {
    pub(super) bits: u8,
    pub(super) shape: [usize; 2],
    values: Vec<u8>,
    scales: Vec<f32>,
}

impl Blocks {
    /// `w ≈ (q − middle) · scale`, `scale = max |w| / (middle − 1)` over each block of a column; 0 where all of
    /// it is zero, for ONNX Runtime's kernel takes `q` and `middle` as two sums, which differ by what was
    /// rounded: only a scale of 0 gives exact zeros. Nothing where a value is not finite.
    pub(super) fn of(tensor: &TensorProto, bits: u8) -> Option<Self> {
        let (shape, values) = read(tensor)?;
        let [rows, columns] = shape;
        let blocks = rows.div_ceil(BLOCK);
        let middle = f32::from(1u8 << (bits - 1));
        let (mut packed, mut scales) = (Vec::new(), Vec::with_capacity(columns * blocks));
        for column in 0..columns {
            for block in 0..blocks {
                let at = |row: usize| values.get(row * columns + column).filter(|_| row < rows);
                let block: Vec<f32> = (block * BLOCK..(block + 1) * BLOCK)
                    .map(|row| at(row).copied().unwrap_or(0.0))
                    .collect();
                let largest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
                let step = scale(largest, middle - 1.0)?;
                let level = |w: &f32| {
                    ((w / step).round_ties_even() + middle).clamp(0.0, 2.0 * middle - 1.0) as u8
                };
                match bits {
                    8 => packed.extend(block.iter().map(level)),
                    _ => packed.extend(
                        block.chunks_exact(2).map(|pair| level(&pair[0]) | (level(&pair[1]) << 4)),
                    ),
                }
                scales.push(if largest == 0.0 { 0.0 } else { step });
            }
        }
        Some(Self { bits, shape, values: packed, scales })
    }

    /// The packed levels, u8 `[n, k / 32, bytes of a block]`, as an initializer of this name.
    pub(super) fn values(&self, name: &str) -> TensorProto {
        let [rows, columns] = self.shape;
        let shape = [columns, rows.div_ceil(BLOCK), BLOCK * usize::from(self.bits) / 8];
        initializer_raw(name, DataType::Uint8, &shape, Bytes::from(self.values.clone()))
    }

    /// The scales times a factor, f32 `[n · k / 32]`, as an initializer of this name.
    pub(super) fn scales(&self, name: &str, factor: f32) -> TensorProto {
        let scales: Vec<f32> = self.scales.iter().map(|scale| scale * factor).collect();
        initializer_f32(name, &[scales.len()], &scales)
    }

    /// The product.
    pub(super) fn product(
        &self,
        input: &str,
        [values, scales]: [&str; 2],
        output: &str,
    ) -> NodeBuilder {
        node("MatMulNBits", [input, values, scales], output)
            .domain(DOMAIN)
            .int("K", self.shape[0] as i64)
            .int("N", self.shape[1] as i64)
            .int("bits", i64::from(self.bits))
            .int("block_size", BLOCK as i64)
            .int("accuracy_level", ACCURACY_LEVEL)
    }
}
