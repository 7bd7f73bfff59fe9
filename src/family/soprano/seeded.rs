//! Checkpoints of seeded weights in upstream's layout, whose spectra look like speech rather than like noise.
//!
//! Presets, distributions and tokenizers are those of the Python package's `synthetic:` checkpoints.

mod tokenizer;

use std::f32::consts::PI;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::{DECODER, LM};
use crate::source::Error;
use crate::source::seeded::{Drawn, Kind, LanguageModel, deviates, preset_of, write_state_dict};

/// Seed and name give the same weights, a size at a time.
const PRESETS: &[(&str, Decoder, Speaker)] = &[
    ("soprano-1.0", Decoder::of("1.0", 512, 8, 3), Speaker::full_size(512)),
    ("soprano-1.1", Decoder::of("1.1", 768, 8, 1), Speaker::full_size(1024)),
    (
        "tiny",
        Decoder::of("custom", 32, 2, 1),
        Speaker {
            kind: Kind::Qwen3,
            hidden_size: 64,
            layers: 2,
            kv_heads: 2,
            head_dim: 16,
            intermediate_size: 96,
            vocab_size: 160,
            positions: 256,
        },
    ),
    (
        "tiny-1.0",
        Decoder::of("custom", 32, 2, 3),
        Speaker {
            kind: Kind::Llama,
            hidden_size: 48,
            layers: 3,
            kv_heads: 4,
            head_dim: 12,
            intermediate_size: 80,
            vocab_size: 150,
            positions: 256,
        },
    ),
];
/// The token that begins and ends a text.
const STOP: u32 = 3;

/// Writes the files that the graphs are read from, and says what they are of.
///
/// # Errors
/// [`Error::Preset`] for a name that is none; [`Error::Io`].
pub fn synthesize(preset: &str, seed: u64, graphs: &[String], folder: &Path) -> Result<Value, Error> {
    let &(_, decoder, speaker) = preset_of(preset, PRESETS, |(name, ..)| name)?;
    let io = |source: io::Error| Error::Io { path: folder.to_owned(), source };
    let reads = |graph: &str| graphs.iter().any(|name| name == graph);
    if reads(DECODER) {
        write_state_dict(&folder.join("decoder.pth"), seed, &decoder.tensors(seed)).map_err(io)?;
    }
    if reads(LM) {
        speaker.language_model().write(seed, folder).map_err(io)?;
        tokenizer::write(speaker.vocab_size, speaker.positions, folder).map_err(io)?;
    }
    Ok(json!({ "preset": preset, "seed": seed, "architecture": decoder.describe() }))
}

/// A language model's dimensions, as [`LanguageModel`] has them.
#[derive(Clone, Copy)]
struct Speaker {
    kind: Kind,
    hidden_size: usize,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    intermediate_size: usize,
    vocab_size: usize,
    positions: usize,
}

impl Speaker {
    const fn full_size(positions: usize) -> Self {
        Self {
            kind: Kind::Qwen3,
            hidden_size: 512,
            layers: 17,
            kv_heads: 1,
            head_dim: 128,
            intermediate_size: 2304,
            vocab_size: 8192,
            positions,
        }
    }

    fn language_model(self) -> LanguageModel {
        LanguageModel {
            kind: self.kind,
            hidden_size: self.hidden_size,
            layers: self.layers,
            heads: 4,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            intermediate_size: self.intermediate_size,
            vocab_size: self.vocab_size,
            positions: self.positions,
            tied: self.kind == Kind::Llama,
            rope_scaling: Value::Null,
            ends: [STOP, STOP],
        }
    }
}

/// The dimensions that the tensors of a decoder decide.
#[derive(Clone, Copy)]
struct Decoder {
    version: &'static str,
    dim: usize,
    layers: usize,
    input_kernel: usize,
}

impl Decoder {
    const INPUT_CHANNELS: usize = 512;
    const KERNEL: usize = 3;
    const N_FFT: usize = 2048;
    const BINS: usize = Self::N_FFT / 2 + 1;

    const fn of(version: &'static str, dim: usize, layers: usize, input_kernel: usize) -> Self {
        Self { version, dim, layers, input_kernel }
    }

    fn describe(self) -> Value {
        json!({
            "version": self.version,
            "input_channels": Self::INPUT_CHANNELS,
            "dim": self.dim,
            "intermediate_dim": 3 * self.dim,
            "layers": self.layers,
            "input_kernel": self.input_kernel,
            "dw_kernel": Self::KERNEL,
            "n_fft": Self::N_FFT,
            "hop_length": Self::N_FFT / 4,
            "upscale": 4,
            "sample_rate": 32_000,
        })
    }

    /// The state dict of upstream's `SopranoDecoder`, in its own order.
    ///
    /// No tensor is zero, one or constant: a rewrite that loses a bias, a norm or a layer scale is seen. Convolutions
    /// and linear layers keep unit variance; the head has shapes of its own.
    fn tensors(self, seed: u64) -> Vec<Drawn> {
        let Self { dim, layers, .. } = self;
        let inner = 3 * dim;
        let weight = |name: &str, shape: &[usize]| {
            let inputs: usize = shape[1..].iter().product();
            Drawn::even(format!("{name}.weight"), shape, 0.0, 1.0 / (inputs as f32).sqrt())
        };
        let bias = |name: &str, size| Drawn::even(format!("{name}.bias"), &[size], 0.0, 0.2);
        let norm =
            |name: &str| [Drawn::even(format!("{name}.weight"), &[dim], 1.0, 0.2), bias(name, dim)];
        let mut tensors = vec![
            weight("decoder.embed", &[dim, Self::INPUT_CHANNELS, self.input_kernel]),
            bias("decoder.embed", dim),
        ];
        tensors.extend(norm("decoder.norm"));
        for layer in 0..layers {
            let name = |leaf: &str| format!("decoder.convnext.{layer}.{leaf}");
            let scale = 1.0 / (layers as f32).sqrt();
            tensors.extend([
                Drawn::even(name("gamma"), &[dim], scale, 0.3 * scale),
                weight(&name("dwconv"), &[dim, 1, Self::KERNEL]),
                bias(&name("dwconv"), dim),
            ]);
            tensors.extend(norm(&name("norm")));
            tensors.extend([
                weight(&name("pwconv1"), &[inner, dim]),
                bias(&name("pwconv1"), inner),
                weight(&name("pwconv2"), &[dim, inner]),
                bias(&name("pwconv2"), dim),
            ]);
        }
        tensors.extend(norm("decoder.final_layer_norm"));
        tensors.extend(self.head(seed));
        tensors
    }

    /// The head: log-magnitudes that fall with frequency and share a loudness, then free phases; and the window, a
    /// periodic Hann window.
    ///
    /// At an input of unit variance log-magnitudes spread by about 0.8 and phases by several radians.
    fn head(self, seed: u64) -> [Drawn; 3] {
        let dim = self.dim;
        let scale = 1.0 / (dim as f32).sqrt();
        let loudness = deviates(seed, "head.out.weight: loudness", dim);
        let rows = move |at: usize| match at / dim < Self::BINS {
            true => (0.5 * scale * loudness[at % dim], 0.6 * scale),
            false => (0.0, 3.0 * scale),
        };
        let tilt = |at: usize| match at < Self::BINS {
            true => (tilt(at as f64 / (Self::BINS - 1) as f64) as f32, 0.1),
            false => (0.0, PI),
        };
        [
            Drawn::each("head.out.weight", &[2 * Self::BINS, dim], rows),
            Drawn::each("head.out.bias", &[2 * Self::BINS], tilt),
            Drawn::hann("head.istft.window", Self::N_FFT),
        ]
    }
}

/// The log-magnitude of a position between 0 and half the sampling rate: a slope with three formants.
fn tilt(position: f64) -> f64 {
    let formant = |centre: f64, width: f64, height: f64| {
        let away = (position - centre) / width;
        height * libm::exp(-away * away)
    };
    let formants = formant(0.03, 0.02, 0.8) + formant(0.1, 0.03, 0.9) + formant(0.18, 0.04, 0.7);
    2.2 - 6.0 * libm::sqrt(position) + formants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Checkpoint, Files, Selection, Weights};

    fn write(preset: &str, seed: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let graphs = [DECODER.to_owned(), LM.to_owned()];
        let told = synthesize(preset, seed, &graphs, folder.path()).unwrap();
        assert_eq!((&told["preset"], &told["seed"]), (&json!(preset), &json!(seed)));
        folder
    }

    fn digest(folder: &tempfile::TempDir) -> String {
        let weights = [&["decoder.pth"], &["model.safetensors"]].map(|names| Files::of(names));
        let selection = Selection { weights: weights.to_vec(), companions: super::super::COMPANIONS };
        let checkpoint = Checkpoint::open(folder.path(), &selection).unwrap();
        assert_eq!(checkpoint.files.len(), 7);
        checkpoint.digest().short()
    }

    #[test]
    fn bytes_are_the_same_on_every_machine() {
        // Where these change, so do checkpoints that bundles name: `seeded::DRAW` goes up.
        for (preset, known) in [("tiny", "3ed973f3ee60734c"), ("tiny-1.0", "33d9de4a6712ccd7")] {
            assert_eq!(digest(&write(preset, 0)), known, "{preset}");
        }
    }

    #[test]
    fn every_tensor_is_spread_as_it_should_be() {
        for preset in ["tiny", "tiny-1.0"] {
            let folder = write(preset, 1);
            let decoder = Weights::of_state_dict(&folder.path().join("decoder.pth")).unwrap();
            let lm = Weights::of_language_model(folder.path()).unwrap();
            for (name, stored) in decoder.iter().chain(lm.iter()) {
                let values = stored.to_f64().unwrap();
                let count = values.len() as f64;
                let mean = values.iter().sum::<f64>() / count;
                let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
                let inputs: usize = stored.shape().iter().skip(1).product();
                let (centre, spread) = match name {
                    "head.out.weight" | "head.out.bias" | "head.istft.window" => continue,
                    _ if name.ends_with("gamma") => (0.5_f64.sqrt(), 0.3 * 0.5_f64.sqrt()),
                    _ if name.starts_with("decoder.") && name.ends_with("bias") => (0.0, 0.2),
                    _ if name.starts_with("decoder.") && stored.shape().len() == 1 => (1.0, 0.2),
                    _ if name.starts_with("decoder.") => (0.0, (inputs as f64).powf(-0.5)),
                    _ if stored.shape().len() == 1 => (1.0, 0.1),
                    _ => (0.0, 1.0 / 24.0),
                };
                // Five standard errors; bf16 rounds by up to one part in 256.
                let error = 5.0 * spread / count.sqrt();
                assert!((mean - centre).abs() < error + centre / 256.0, "{name}: {mean}");
                assert!((deviation - spread).abs() < error, "{name}: {deviation}");
            }
        }
    }

    #[test]
    fn the_head_makes_spectra_like_those_of_speech() {
        let folder = write("tiny", 1);
        let decoder = Weights::of_state_dict(&folder.path().join("decoder.pth")).unwrap();
        let values = |name: &str| decoder.get(name).unwrap().to_f64().unwrap();
        let (bias, weight) = (values("head.out.bias"), values("head.out.weight"));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let square = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        // Log-magnitudes about the formants at 480, 1600 and 2880 Hz, then at 8000 and 16000 Hz.
        for (at, wanted) in [(31, 1.955), (102, 1.209), (184, 0.354), (512, -2.04), (1020, -3.78)] {
            let found = mean(&bias[at - 4..at + 5]);
            assert!((found - wanted).abs() < 0.17, "{at}: {found}");
        }
        let (loud, phases) = weight.split_at(Decoder::BINS * 32);
        // Summed over a row's inputs of unit variance: 0.6 of their own and 0.5 shared; phases by 3 radians.
        let own = square(loud) * 32.0;
        assert!((own - 0.61).abs() < 0.25, "{own}");
        assert!((square(phases) * 32.0 - 9.0).abs() < 0.5);
        let columns: Vec<f64> = (0..32)
            .map(|column| mean(&loud.iter().skip(column).step_by(32).copied().collect::<Vec<_>>()))
            .collect();
        let shared = square(&columns) * 32.0;
        assert!((shared - 0.25).abs() < 0.25 && shared > 0.05, "{shared}");
        let free = square(&bias[Decoder::BINS..]).sqrt();
        assert!((free - std::f64::consts::PI).abs() < 0.4, "{free}");
    }

    #[test]
    fn full_sizes_have_as_many_numbers_as_upstreams() {
        for (preset, decoder_numbers, lm_numbers) in
            [("soprano-1.0", 14_470_658, 79_714_048), ("soprano-1.1", 30_354_690, 79_714_048)]
        {
            let (_, decoder, speaker) = PRESETS.iter().find(|(name, ..)| *name == preset).unwrap();
            let count = |tensors: Vec<Drawn>| tensors.iter().map(Drawn::elements).sum::<usize>();
            assert_eq!(count(decoder.tensors(0)), decoder_numbers, "{preset}");
            assert_eq!(count(speaker.language_model().tensors()), lm_numbers, "{preset}");
        }
    }

    #[test]
    fn only_the_files_that_are_read_are_written() {
        let names = |graphs: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let graphs: Vec<String> = graphs.iter().map(|&name| name.to_owned()).collect();
            synthesize("tiny", 0, &graphs, folder.path()).unwrap();
            let names = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<String> =
                names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(names(&[DECODER]), "decoder.pth");
        let lm = "config.json generation_config.json model.safetensors special_tokens_map.json \
                  tokenizer.json tokenizer_config.json";
        assert_eq!(names(&[LM]), lm);
        let refused = synthesize("tiny_1.0", 0, &[], Path::new("nowhere")).unwrap_err();
        assert_eq!(refused.to_string(), "`preset` is \"tiny_1.0\"; did you mean `tiny-1.0`?");
        let nowhere = synthesize("tiny", 0, &[LM.to_owned()], Path::new("nowhere")).unwrap_err();
        assert!(matches!(nowhere, Error::Io { .. }), "{nowhere}");
    }
}
