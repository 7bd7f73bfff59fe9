//! Weights as the graph has them: widened, turned, and with what the layers before and after them had.

use bytes::BytesMut;
use rayon::prelude::*;

use crate::front::fold::Normed;
use crate::ir::Make;
use crate::tensor::Stored;

/// Rows that one core takes at least.
const ROWS: usize = 32;

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
    changed(weight, move |k, row| {
        row.iter_mut().zip(fold.row(k)).for_each(|(w, fold)| change(w, fold));
    })
}

/// The same, each output times its scale [out].
pub(super) fn scaled(weight: &Stored, scale: Vec<f32>) -> Make {
    changed(weight, move |_, row| {
        row.iter_mut().zip(&scale).for_each(|(w, scale)| change(w, |w| w * scale));
    })
}

/// A weight [out, in] as [in, out], each row changed, on every core.
fn changed(weight: &Stored, row: impl Fn(usize, &mut [[u8; 4]]) + Send + Sync + 'static) -> Make {
    let weight = turn(weight);
    Box::new(move || {
        let bytes = weight.to_f32_bytes()?;
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|bytes| BytesMut::from(&bytes[..]));
        let columns = weight.shape().get(1).copied().unwrap_or(1);
        let rows = bytes.as_chunks_mut().0.par_chunks_mut(columns.max(1)).with_min_len(ROWS);
        rows.enumerate().for_each(|(k, of)| row(k, of));
        Ok(bytes.freeze())
    })
}

fn change(number: &mut [u8; 4], with: impl Fn(f32) -> f32) {
    *number = with(f32::from_le_bytes(*number)).to_le_bytes();
}

/// The first two axes, the other way round.
pub(super) fn turn(weight: &Stored) -> Stored {
    let mut order: Vec<usize> = (0..weight.shape().len()).collect();
    order.swap(0, 1);
    weight.transposed(&order)
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
