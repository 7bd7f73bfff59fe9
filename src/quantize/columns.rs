//! Weights in 8 bits: symmetric, each column (of a product) or row (of a table) with its own scale.

use bytes::Bytes;

use super::layout::GROUP;
use crate::ir::{TensorProto, plain_bytes};

/// A matrix in 8 bits. `w ≈ q · scale`, with `scale = max |w| / 127` over the column or row; 1 where all of
/// it is zero.
pub(super) struct Columns {
    pub(super) shape: Vec<usize>,
    pub(super) scale_shape: Vec<usize>,
    /// Bytes of i8.
    pub(super) values: Vec<u8>,
    pub(super) scales: Vec<f32>,
}

impl Columns {
    /// [..., rows, columns] f32, axes before these 1, a scale for each column; 7 bits where asked. Nothing
    /// where a value is not finite.
    pub(super) fn per_column(tensor: &TensorProto, reduce_range: bool) -> Option<Self> {
        let ([_, columns], bytes) = raw(tensor)?;
        let raw = bytes.as_chunks::<4>().0;
        let mut largest = vec![0u32; columns];
        for row in raw.chunks_exact(columns) {
            for (largest, value) in largest.iter_mut().zip(row) {
                *largest = (*largest).max(magnitude(value));
            }
        }
        let most = if reduce_range { 63.0 } else { 127.0 };
        let scales =
            largest.iter().map(|&m| scale(f32::from_bits(m), most)).collect::<Option<Vec<_>>>()?;
        let inverse: Vec<f32> = scales.iter().map(|s| 1.0 / s).collect();
        let mut quantized = Vec::with_capacity(raw.len());
        for row in raw.chunks_exact(columns) {
            let levels = row.iter().zip(&inverse);
            quantized.extend(levels.map(|(w, i)| nearest(f32::from_le_bytes(*w) * i)));
        }
        let shape = tensor.dims.iter().filter_map(|&dim| usize::try_from(dim).ok()).collect();
        Some(Self { shape, scale_shape: vec![columns], values: quantized, scales })
    }

    /// A table [rows, columns] f32 as [rows, groups, columns of a group] with a scale for each group: a row
    /// is read as it is, with no sum to average its error out. One group where it can't be cut. Nothing
    /// where a value is not finite.
    pub(super) fn per_row(tensor: &TensorProto, grouped: bool) -> Option<Self> {
        let ([rows, columns], bytes) = raw(tensor)?;
        let raw = bytes.as_chunks::<4>().0;
        let group = if grouped && columns % GROUP == 0 { GROUP } else { columns };
        let (mut quantized, mut scales) = (Vec::with_capacity(raw.len()), Vec::new());
        for part in raw.chunks_exact(group) {
            let largest = part.iter().map(magnitude).fold(0, u32::max);
            let step = scale(f32::from_bits(largest), 127.0)?;
            let inverse = 1.0 / step;
            quantized.extend(part.iter().map(|w| nearest(f32::from_le_bytes(*w) * inverse)));
            scales.push(step);
        }
        let groups = columns / group;
        let (shape, scale_shape) = match grouped {
            true => (vec![rows, groups, group], vec![rows, groups, 1]),
            false => (vec![rows, columns], vec![rows, 1]),
        };
        Some(Self { shape, scale_shape, values: quantized, scales })
    }
}

/// The bits of a value without its sign: in the order of magnitudes, infinity and NaN above all others.
fn magnitude(value: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*value) & 0x7fff_ffff
}

/// The step between levels, of which `most` is the last, of values of which this is the largest magnitude; 1
/// where all are zero. At least the smallest normal number, the inverse of which is finite. Nothing where the
/// largest is not finite.
pub(super) fn scale(largest: f32, most: f32) -> Option<f32> {
    match largest {
        m if !m.is_finite() => None,
        0.0 => Some(1.0),
        m => Some((m / most).max(f32::MIN_POSITIVE)),
    }
}

/// The nearest integer, the even one of two, of a value up to 2^22, as the byte of an i8. Added to 1.5 · 2^23
/// a float has room for whole numbers alone, and its lowest byte is theirs in two's complement: unlike
/// `round_ties_even`, every processor does that for many values at once.
fn nearest(value: f32) -> u8 {
    ((value + 12_582_912.0).to_bits() & 0xff) as u8
}

/// Shape and values of a matrix, perhaps after axes of 1; nothing where it is not a matrix, or has no columns.
fn raw(tensor: &TensorProto) -> Option<([usize; 2], Bytes)> {
    let [.., rows, columns] = tensor.dims[..] else { return None };
    let shape = [usize::try_from(rows).ok()?, usize::try_from(columns).ok()?];
    Some((shape, plain_bytes(tensor)?)).filter(|([_, columns], _)| *columns > 0)
}

/// Shape and values of a matrix; nothing where a value is not finite.
pub(super) fn read(tensor: &TensorProto) -> Option<([usize; 2], Vec<f32>)> {
    let (shape, bytes) = raw(tensor)?;
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    values.iter().all(|v| v.is_finite()).then_some((shape, values))
}
