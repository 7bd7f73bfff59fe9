//! Checkpoints of seeded weights, drawn without PyTorch: the same bytes on every machine.
//!
//! Their source is `seeded:PRESET[#SEED]`. `synthetic:PRESET[#SEED]` has the same layouts, shapes and distributions with
//! other numbers: those of PyTorch's generator.

mod language_model;
mod normal;
mod safetensors;
mod state_dict;

use std::f64::consts::PI;

use half::bf16;
use rayon::prelude::*;

use super::Error;
use crate::recipe::closest;
use crate::tensor::DType;
use normal::Deviates;

pub use language_model::{Kind, LanguageModel, write_json};
pub use safetensors::write as write_safetensors;
pub use state_dict::write as write_state_dict;

/// Goes up whenever a preset's bytes become others: stages that were made of the older ones are then made anew.
pub const DRAW: u32 = 1;

/// Numbers that are drawn and encoded at once: a multiple of two, for deviates come in pairs.
const BLOCK: usize = 1 << 12;

/// A tensor of normal deviates, each scaled and moved.
pub struct Drawn {
    /// Its name in the checkpoint; its numbers depend on nothing but this, the seed and the spread.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// What becomes of the deviates.
    pub spread: Spread,
}

/// Mean and deviation of a tensor's elements.
pub enum Spread {
    /// The same for all.
    Even {
        /// Mean.
        centre: f32,
        /// Standard deviation.
        deviation: f32,
    },
    /// Mean and standard deviation by an element's place in row-major order.
    Each(Box<dyn Fn(usize) -> (f32, f32) + Sync>),
}

impl Drawn {
    /// A tensor whose elements have one mean and one standard deviation.
    pub fn even(name: impl Into<String>, shape: &[usize], centre: f32, deviation: f32) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), spread: Spread::Even { centre, deviation } }
    }

    /// A tensor whose elements have means and standard deviations of their own, by their places in row-major order.
    pub fn each(
        name: impl Into<String>,
        shape: &[usize],
        spread: impl Fn(usize) -> (f32, f32) + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), spread: Spread::Each(Box::new(spread)) }
    }

    /// A periodic Hann window, `(1 - cos(2 pi n / size)) / 2`: nothing of it is drawn.
    pub fn hann(name: impl Into<String>, size: usize) -> Self {
        let turn = move |at: usize| 2.0 * PI * at as f64 / size as f64;
        Self::each(name, &[size], move |at| ((0.5 - 0.5 * libm::cos(turn(at))) as f32, 0.0))
    }

    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Draws it into `bytes`, little-endian and row-major, over what was there. bf16 is rounded to the nearest, ties to
    /// even.
    ///
    /// # Panics
    /// Where `dtype` is neither f32 nor bf16: a fault of the caller.
    fn draw(&self, seed: u64, dtype: DType, bytes: &mut Vec<u8>) {
        bytes.resize(self.elements() * dtype.size(), 0);
        match dtype {
            DType::F32 => self.encode(seed, bytes, f32::to_le_bytes),
            DType::BF16 => self.encode(seed, bytes, |value| bf16::from_f32(value).to_le_bytes()),
            other => unreachable!("no checkpoint is drawn in {}", other.name()),
        }
    }

    fn encode<const N: usize>(
        &self,
        seed: u64,
        bytes: &mut [u8],
        encode: impl Fn(f32) -> [u8; N] + Sync,
    ) {
        let deviates = Deviates::of(seed, &self.name);
        bytes.par_chunks_mut(BLOCK * N).enumerate().for_each(|(block, bytes)| {
            let first = block * BLOCK;
            let mut numbers = [0.0; BLOCK];
            let numbers = &mut numbers[..bytes.len() / N];
            deviates.fill(first as u64 / 2, numbers);
            match &self.spread {
                Spread::Even { centre, deviation } => {
                    numbers.iter_mut().for_each(|number| *number = centre + deviation * *number);
                }
                Spread::Each(spread) => {
                    for (at, number) in numbers.iter_mut().enumerate() {
                        let (centre, deviation) = spread(first + at);
                        *number = centre + deviation * *number;
                    }
                }
            }
            let places = bytes.as_chunks_mut::<N>().0;
            numbers.iter().zip(places).for_each(|(&number, place)| *place = encode(number));
        });
    }
}

/// The preset of a name among a family's.
///
/// # Errors
/// [`Error::Preset`] where there is none.
pub fn preset_of<'a, T>(
    wanted: &str,
    presets: &'a [T],
    name: impl Fn(&T) -> &'static str,
) -> Result<&'a T, Error> {
    presets.iter().find(|preset| name(preset) == wanted).ok_or_else(|| Error::Preset {
        preset: wanted.to_owned(),
        guess: closest(wanted, presets.iter().map(&name)),
        known: format!("one of: {}", presets.iter().map(&name).collect::<Vec<_>>().join(", ")),
    })
}

/// Deviates of a name, for what several elements of a tensor share.
pub fn deviates(seed: u64, name: &str, count: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    Deviates::of(seed, name).fill(0, &mut numbers);
    numbers
}
