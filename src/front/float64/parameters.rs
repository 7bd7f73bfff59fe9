//! A model's tensors, widened to f64 as they are needed.

use std::ops::Range;

use bytes::Bytes;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::digest::Hasher;
use crate::source::{Refused, Weights};
use crate::tensor::{DType, Stored};

/// Half of the distance between two neighbours of f32 at 1: how far a rounding moves a number, as a share of it.
const LAST_BIT: f64 = 1.0 / (1_u64 << 24) as f64;

/// Which numbers a model is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// The weights as they are stored.
    Exact,
    /// Every weight w as w·(1 ± 2⁻²⁴): a last bit of an f32 more or less, as [`Signs`] of this seed have it for the
    /// tensor's name. How far an answer moves then is how far any arithmetic in float32 may move it (the conditioning
    /// of Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.6).
    Moved {
        /// Of the signs.
        seed: u64,
    },
}

/// Random factors 1 + 2⁻²⁴ and 1 − 2⁻²⁴, which depend on a name, a seed and their place alone.
pub struct Signs {
    generator: ChaCha8Rng,
    word: u32,
    left: u32,
}

impl Signs {
    /// The factors of a name from a place on.
    pub fn new(name: &str, seed: u64, from: usize) -> Self {
        let mut hasher = Hasher::default();
        hasher.field("name", name);
        let key = u64::from_str_radix(&hasher.finish().short(), 16).unwrap_or(0);
        let mut generator = ChaCha8Rng::seed_from_u64(key);
        generator.set_stream(seed);
        generator.set_word_pos((from / 32) as u128);
        let mut signs = Self { generator, word: 0, left: 0 };
        (0..from % 32).for_each(|_| {
            signs.factor();
        });
        signs
    }

    /// The next factor.
    #[inline]
    pub fn factor(&mut self) -> f64 {
        if self.left == 0 {
            (self.word, self.left) = (self.generator.next_u32(), 32);
        }
        let up = self.word & 1;
        (self.word, self.left) = (self.word >> 1, self.left - 1);
        [1.0 - LAST_BIT, 1.0 + LAST_BIT][up as usize]
    }
}

/// One tensor: its elements one after another, where they lie.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Parameter {
    /// Nothing is copied of a tensor that lies in the file as it is used.
    fn new(name: &str, stored: &Stored) -> Result<Self, crate::tensor::Error> {
        let (dtype, bytes) = match stored.bytes().filter(|_| is_float(stored.dtype())) {
            Some(bytes) => (stored.dtype(), bytes),
            None => {
                let values = stored.to_f32()?;
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (DType::F32, bytes.into())
            }
        };
        Ok(Self { name: name.to_owned(), dtype, shape: stored.shape().to_vec(), bytes })
    }

    /// Dimensions, outermost first.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements of a range, widened into `out`, which is as long.
    ///
    /// # Panics
    /// Where the range is not within the tensor: a fault of the caller, never of a file.
    pub(crate) fn widen(&self, range: Range<usize>, numbers: Numbers, out: &mut [f64]) {
        let size = self.dtype.size();
        let bytes = &self.bytes[range.start * size..range.end * size];
        match self.dtype {
            DType::BF16 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f64::from(f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16));
                }
            }
            DType::F16 => {
                let mut halves = [f16::ZERO; 256];
                let mut floats = [0.0_f32; 256];
                for (values, bytes) in out.chunks_mut(256).zip(bytes.chunks(512)) {
                    for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
                        *half = f16::from_le_bytes(*bytes);
                    }
                    halves[..values.len()].convert_to_f32_slice(&mut floats[..values.len()]);
                    values
                        .iter_mut()
                        .zip(&floats)
                        .for_each(|(value, &float)| *value = f64::from(float));
                }
            }
            _ => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f64::from(f32::from_le_bytes(*bytes));
                }
            }
        }
        if let Numbers::Moved { seed } = numbers {
            let mut signs = Signs::new(&self.name, seed, range.start);
            out.iter_mut().for_each(|value| *value *= signs.factor());
        }
    }

    /// Every element.
    pub(crate) fn values(&self, numbers: Numbers) -> Vec<f64> {
        let count = self.bytes.len() / self.dtype.size();
        let mut values = vec![0.0; count];
        self.widen(0..count, numbers, &mut values);
        values
    }
}

/// Whether elements can be widened.
fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// The tensors of a checkpoint, each of which must have the shape that is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Parameters<'a>(pub(crate) &'a Weights);

impl Parameters<'_> {
    /// A tensor by name.
    ///
    /// # Errors
    /// [`Refused`] with the code `checkpoint-shape` or `checkpoint-dtype`.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Parameter, Refused> {
        let place = self.0.place(name).display();
        let hint = "the weights and the config are of different models";
        let stored = self.0.get(name).ok_or_else(|| {
            let why = format!("{place}: tensor `{name}` is missing");
            Refused::new("checkpoint-shape", why, hint)
        })?;
        if stored.shape() != shape {
            let is = stored.shape();
            let why = format!("{place}: tensor `{name}` is {is:?}, expected {shape:?}");
            return Err(Refused::new("checkpoint-shape", why, hint));
        }
        Parameter::new(name, stored).map_err(|error| {
            let why = format!("{place}: tensor `{name}`: {error}");
            Refused::new("checkpoint-dtype", why, "weights are f32, f16 or bf16")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(dtype: DType, bytes: Vec<u8>) -> Stored {
        let count = bytes.len() / dtype.size();
        Stored::row_major(dtype, vec![count], bytes.into()).unwrap()
    }

    #[test]
    fn every_float_is_widened_exactly() {
        let values: Vec<f32> = (0..600).map(|i| (i as f32 - 300.0) / 64.0).collect();
        let bytes =
            |of: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|&v| of(v)).collect::<Vec<u8>>();
        let want: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        for (dtype, bytes) in [
            (DType::F32, bytes(&|v| v.to_le_bytes().to_vec())),
            (DType::F16, bytes(&|v| f16::from_f32(v).to_le_bytes().to_vec())),
            (
                DType::BF16,
                bytes(&|v| half::bf16::from_f32((v * 64.0).round() / 64.0).to_le_bytes().to_vec()),
            ),
        ] {
            let parameter = Parameter::new("w", &stored(dtype, bytes)).unwrap();
            let all = parameter.values(Numbers::Exact);
            match dtype {
                // Eight bits hold no more than these.
                DType::BF16 => assert_eq!(all[236..365], want[236..365]),
                _ => assert_eq!(all, want),
            }
            let mut some = vec![0.0; 301];
            parameter.widen(257..558, Numbers::Exact, &mut some);
            assert_eq!(some, all[257..558]);
        }
    }

    #[test]
    fn a_moved_weight_is_half_a_last_bit_away_whatever_range_it_is_read_in() {
        let bytes: Vec<u8> = (1..=1000).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let parameter = Parameter::new("a.weight", &stored(DType::F32, bytes.clone())).unwrap();
        let numbers = Numbers::Moved { seed: 3 };
        let all = parameter.values(numbers);
        let ups = all.iter().zip(1..).filter(|&(&moved, w)| {
            let w = f64::from(w);
            assert_eq!((moved - w).abs(), w * LAST_BIT);
            moved > w
        });
        let ups = ups.count();
        assert!((400..600).contains(&ups), "{ups} of 1000 move up");
        for range in [0..1, 1..1000, 31..33, 32..64, 517..700] {
            let mut some = vec![0.0; range.len()];
            parameter.widen(range.clone(), numbers, &mut some);
            assert_eq!(some, all[range]);
        }
        let other = Parameter::new("b.weight", &stored(DType::F32, bytes)).unwrap();
        assert_ne!(other.values(numbers), all);
        assert_ne!(parameter.values(Numbers::Moved { seed: 4 }), all);
        assert_eq!(parameter.values(numbers), all);
    }

    #[test]
    fn a_view_that_is_turned_is_copied_in_its_own_order() {
        let bytes: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let turned =
            Stored::row_major(DType::F32, vec![2, 3], bytes.into()).unwrap().transposed(&[1, 0]);
        let parameter = Parameter::new("w", &turned).unwrap();
        assert_eq!(parameter.shape(), [3, 2]);
        assert_eq!(parameter.values(Numbers::Exact), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let whole = stored(DType::I64, vec![0; 16]);
        assert!(Parameter::new("w", &whole).is_err());
    }
}
