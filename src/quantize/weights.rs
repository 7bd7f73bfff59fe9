//! Weights in 8 bits: symmetric, each column (of a product) or row (of a table) with its own scale.

use crate::ir::TensorProto;

/// Columns of a table that share a scale: 3 % of the table's bytes, and 2 dB at its rows.
const GROUP: usize = 32;

/// A matrix in 8 bits. `w ≈ q · scale`, with `scale = max |w| / 127` over the column or row; 1 where all of
/// it is zero.
pub(super) struct Columns {
    pub(super) shape: Vec<usize>,
    pub(super) scale_shape: Vec<usize>,
    pub(super) values: Vec<i8>,
    pub(super) scales: Vec<f32>,
}

impl Columns {
    /// [rows, columns] f32, a scale for each column; 7 bits where asked. Nothing where a value is not finite.
    pub(super) fn per_column(tensor: &TensorProto, reduce_range: bool) -> Option<Self> {
        let (shape, values) = read(tensor)?;
        let [_, columns] = shape;
        let mut largest = vec![0f32; columns];
        for row in values.chunks_exact(columns) {
            for (largest, value) in largest.iter_mut().zip(row) {
                let size = value.abs();
                // Written so that NaN is kept.
                if size > *largest || size.is_nan() {
                    *largest = size;
                }
            }
        }
        let most = if reduce_range { 63.0 } else { 127.0 };
        let scales = largest.iter().map(|&m| scale(m, most)).collect::<Option<Vec<_>>>()?;
        let inverse: Vec<f32> = scales.iter().map(|s| 1.0 / s).collect();
        let mut quantized = Vec::with_capacity(values.len());
        for row in values.chunks_exact(columns) {
            quantized.extend(row.iter().zip(&inverse).map(|(w, i)| quantize(w * i, most)));
        }
        Some(Self { shape: shape.to_vec(), scale_shape: vec![columns], values: quantized, scales })
    }

    /// A table [rows, columns] f32 as [rows, groups, columns of a group] with a scale for each group: a row
    /// is read as it is, with no sum to average its error out. One group where it can't be cut. Nothing
    /// where a value is not finite.
    pub(super) fn per_row(tensor: &TensorProto, grouped: bool) -> Option<Self> {
        let ([rows, columns], values) = read(tensor)?;
        let group = if grouped && columns % GROUP == 0 { GROUP } else { columns };
        let (mut quantized, mut scales) = (Vec::with_capacity(values.len()), Vec::new());
        for part in values.chunks_exact(group) {
            let largest = part.iter().fold(0f32, |m, v| m.max(v.abs()));
            let scale = scale(largest, 127.0)?;
            quantized.extend(part.iter().map(|w| quantize(w / scale, 127.0)));
            scales.push(scale);
        }
        let groups = columns / group;
        let (shape, scale_shape) = match grouped {
            true => (vec![rows, groups, group], vec![rows, groups, 1]),
            false => (vec![rows, columns], vec![rows, 1]),
        };
        Some(Self { shape, scale_shape, values: quantized, scales })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.values.iter().map(|v| v.to_le_bytes()[0]).collect()
    }
}

fn scale(largest: f32, most: f32) -> Option<f32> {
    match largest {
        m if !m.is_finite() => None,
        // Below this the inverse overflows; such a column is zero in 8 bits beside any other.
        m if m < 1e-30 => Some(1.0),
        m => Some(m / most),
    }
}

fn quantize(value: f32, most: f32) -> i8 {
    value.round_ties_even().clamp(-most, most) as i8
}

fn read(tensor: &TensorProto) -> Option<([usize; 2], Vec<f32>)> {
    let shape = [usize::try_from(tensor.dims[0]).ok()?, usize::try_from(tensor.dims[1]).ok()?];
    let values = match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => {
            raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        _ => tensor.float_data.clone(),
    };
    (shape[1] > 0 && values.iter().all(|v: &f32| v.is_finite())).then_some((shape, values))
}
