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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Weights;

    fn tensors() -> Vec<Drawn> {
        // More than a pickle's short places reach, with shapes of every rank, one longer than a block.
        let many = (0..60).map(|at| Drawn::even(format!("many.{at}.weight"), &[at + 1], 1.0, 0.1));
        let fixed = |at: usize| (at as f32, 0.0);
        let others = [
            Drawn::even("a.weight", &[3, BLOCK, 2], -2.0, 0.5),
            Drawn::each("b.fixed", &[257, 70], fixed),
            Drawn::hann("c.window", 8),
        ];
        many.chain(others).collect()
    }

    fn write(seed: u64) -> (tempfile::TempDir, [Vec<u8>; 2], [Weights; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let [pth, safe] = ["decoder.pth", "model.safetensors"].map(|name| folder.path().join(name));
        write_state_dict(&pth, seed, &tensors()).unwrap();
        write_safetensors(&safe, DType::BF16, seed, tensors()).unwrap();
        let weights =
            [Weights::of_state_dict(&pth).unwrap(), Weights::of_language_model(folder.path()).unwrap()];
        let bytes = [&pth, &safe].map(|path| std::fs::read(path).unwrap());
        (folder, bytes, weights)
    }

    #[test]
    fn both_files_hold_the_same_tensors() {
        let (_folder, _, [state, language_model]) = write(3);
        assert_eq!((state.len(), language_model.len()), (63, 63));
        for drawn in tensors() {
            let [wide, narrow] = [&state, &language_model].map(|w| w.get(&drawn.name).unwrap());
            assert_eq!((wide.dtype(), narrow.dtype()), (DType::F32, DType::BF16));
            assert_eq!(wide.shape(), drawn.shape, "{}", drawn.name);
            assert_eq!(narrow.shape(), drawn.shape, "{}", drawn.name);
            let wide = wide.to_f32().unwrap();
            let rounded: Vec<f32> = wide.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
            assert_eq!(narrow.to_f32().unwrap(), rounded, "{}", drawn.name);
            match drawn.name.as_str() {
                "b.fixed" => assert!(wide.iter().enumerate().all(|(at, &v)| v == at as f32)),
                "c.window" => {
                    let half = std::f32::consts::FRAC_1_SQRT_2 / 2.0;
                    let hann = [0.0, 0.5 - half, 0.5, 0.5 + half, 1.0, 0.5 + half, 0.5, 0.5 - half];
                    let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-7;
                    assert!(wide.iter().zip(&hann).all(near), "{wide:?}");
                }
                "a.weight" => {
                    let mean = wide.iter().sum::<f32>() / wide.len() as f32;
                    let square = wide.iter().map(|v| (v - mean).powi(2)).sum::<f32>();
                    let deviation = (square / wide.len() as f32).sqrt();
                    assert!((mean + 2.0).abs() < 0.016 && (deviation - 0.5).abs() < 0.012);
                }
                _ => assert!(wide.iter().all(|v| (v - 1.0).abs() < 0.7)),
            }
        }
    }

    #[test]
    fn bytes_depend_on_the_seed_alone() {
        let (_folder, bytes, weights) = write(3);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| write(3).1) == bytes, "{threads}");
        }
        let (_folder, others, other_weights) = write(4);
        assert!(others[0] != bytes[0] && others[1] != bytes[1]);
        for (name, stored) in weights[0].iter().filter(|(name, _)| name.ends_with("weight")) {
            let other = other_weights[0].get(name).unwrap();
            assert!(stored.to_f32().unwrap() != other.to_f32().unwrap(), "{name}");
        }
    }

    #[test]
    fn records_of_a_state_dict_are_aligned_and_know_no_machine() {
        let (folder, ..) = write(0);
        let file = std::fs::File::open(folder.path().join("decoder.pth")).unwrap();
        let mut archive = zip::ZipArchive::new(file).unwrap();
        let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
        assert_eq!(names[..3], ["archive/data.pkl", "archive/byteorder", "archive/data/0"]);
        assert_eq!(names[names.len() - 2..], ["archive/data/62", "archive/version"]);
        for at in 0..archive.len() {
            let record = archive.by_index(at).unwrap();
            assert_eq!(record.data_start().unwrap() % u64::from(state_dict::ALIGNMENT), 0, "{at}");
            assert_eq!(record.compression(), zip::CompressionMethod::Stored);
            assert_eq!(record.last_modified(), Some(zip::DateTime::DEFAULT));
            assert_eq!(record.unix_mode(), Some(0o100_644));
        }
    }

    #[test]
    fn a_preset_that_is_none_is_refused_with_a_guess() {
        let presets = ["tiny", "soprano-1.1"];
        let of = |name: &str| preset_of(name, &presets, |&name| name).copied();
        assert_eq!(of("tiny").unwrap(), "tiny");
        let (guessed, unknown) = (of("tinny").unwrap_err(), of("huge").unwrap_err());
        assert_eq!(guessed.to_string(), "`preset` is \"tinny\"; did you mean `tiny`?");
        assert_eq!(unknown.to_string(), "`preset` is \"huge\"");
        let hint = miette::Diagnostic::help(&unknown).unwrap().to_string();
        assert_eq!(hint, "one of: tiny, soprano-1.1");
    }
}
