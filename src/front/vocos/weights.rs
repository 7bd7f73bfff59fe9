//! Weights as the graph has them: widened, turned, and with what the layers before and after them had.

use bytes::Bytes;

use crate::front::fold::Normed;
use crate::ir::Make;
use crate::tensor::Stored;

/// A weight as it lies in the checkpoint.
pub(super) fn stored(weight: &Stored) -> Make {
    let weight = weight.clone();
    Box::new(move || weight.to_f32_bytes())
}

/// A weight [out, in], or [out, in, 1], as [in, out].
pub(super) fn turned(weight: &Stored) -> Make {
    stored(&turn(weight))
}

/// The same, with what a layer normalization before it had.
pub(super) fn normed(weight: &Stored, fold: Normed) -> Make {
    let weight = turn(weight);
    Box::new(move || Ok(bytes(weight.len(), fold.values(&weight.to_f32()?))))
}

/// The same, each output times its scale [out].
pub(super) fn scaled(weight: &Stored, scale: Vec<f32>) -> Make {
    let weight = turn(weight);
    Box::new(move || {
        let values = weight.to_f32()?;
        let rows = values.chunks_exact(scale.len().max(1));
        Ok(bytes(values.len(), rows.flat_map(|row| row.iter().zip(&scale).map(|(w, g)| w * g))))
    })
}

/// The first two axes, the other way round.
pub(super) fn turn(weight: &Stored) -> Stored {
    let mut order: Vec<usize> = (0..weight.shape().len()).collect();
    order.swap(0, 1);
    weight.transposed(&order)
}

/// So many values, little-endian.
fn bytes(count: usize, values: impl Iterator<Item = f32>) -> Bytes {
    let mut bytes = vec![0; 4 * count];
    for (to, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *to = value.to_le_bytes();
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn values(make: Make) -> Vec<f32> {
        make().unwrap().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
    }

    #[test]
    fn rows_become_columns_and_take_their_scale() {
        let data: Vec<u8> = (0..6).flat_map(|n| (n as f32).to_le_bytes()).collect();
        let weight = Stored::row_major(DType::F32, vec![2, 3], data.into()).unwrap();
        assert_eq!(values(stored(&weight)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(values(turned(&weight)), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(values(scaled(&weight, vec![1.0, -2.0])), [0.0, -6.0, 1.0, -8.0, 2.0, -10.0]);
    }
}
