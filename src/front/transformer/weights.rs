//! Weights as the graph has them: parts of the checkpoint's below or next to each other, widened.

use bytes::Bytes;

use crate::ir::Make;
use crate::tensor::{Error, Stored};

/// Rows and columns that are turned at a time: both sides stay in the cache.
const BLOCK: usize = 32;

/// The parts one after another, as they lie.
pub(super) fn rows(parts: &[Stored]) -> Make {
    let parts = parts.to_vec();
    Box::new(move || match parts.as_slice() {
        [one] => one.to_f32_bytes(),
        parts => {
            let mut bytes = Vec::new();
            for part in parts {
                bytes.extend_from_slice(&part.to_f32_bytes()?);
            }
            Ok(bytes.into())
        }
    })
}

/// The parts [out, in] below each other, turned: [in, all out].
pub(super) fn columns(parts: &[Stored]) -> Make {
    let parts = parts.to_vec();
    Box::new(move || turned(&parts))
}

fn turned(parts: &[Stored]) -> Result<Bytes, Error> {
    let inputs = parts[0].shape()[1];
    let outputs: usize = parts.iter().map(|part| part.shape()[0]).sum();
    let mut bytes = vec![0; 4 * inputs * outputs];
    let (to, _) = bytes.as_chunks_mut::<4>();
    let mut first = 0;
    for part in parts {
        let values = part.to_f32()?;
        let count = part.shape()[0];
        for top in (0..count).step_by(BLOCK) {
            for left in (0..inputs).step_by(BLOCK) {
                for input in left..inputs.min(left + BLOCK) {
                    let row = &mut to[input * outputs + first..][..count];
                    for output in top..count.min(top + BLOCK) {
                        row[output] = values[output * inputs + input].to_le_bytes();
                    }
                }
            }
        }
        first += count;
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn counted(out: usize, input: usize, from: usize) -> Stored {
        let values = (from..from + out * input).flat_map(|n| (n as f32).to_le_bytes());
        Stored::row_major(DType::F32, vec![out, input], values.collect::<Vec<u8>>().into()).unwrap()
    }

    fn values(make: &Make) -> Vec<f32> {
        let bytes = make().unwrap();
        bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
    }

    #[test]
    fn columns_are_turned_next_to_each_other() {
        let parts = [counted(2, 3, 0), counted(1, 3, 10)];
        assert_eq!(values(&columns(&parts)), [0., 3., 10., 1., 4., 11., 2., 5., 12.]);
        assert_eq!(values(&rows(&parts)), [0., 1., 2., 3., 4., 5., 10., 11., 12.]);
    }

    #[test]
    fn every_size_is_turned_whole() {
        for (out, input) in [(1, 1), (31, 33), (32, 32), (65, 40)] {
            let turned = values(&columns(&[counted(out, input, 0)]));
            let wanted = (0..input).flat_map(|i| (0..out).map(move |o| (o * input + i) as f32));
            assert_eq!(turned, wanted.collect::<Vec<_>>(), "{out} {input}");
        }
    }
}
