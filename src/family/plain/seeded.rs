//! Small checkpoints of seeded weights: language models, and an inverse-STFT head.

use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::source::Error;
use crate::source::seeded::{Drawn, Kind, LanguageModel, preset_of, write_safetensors};
use crate::tensor::DType;

const PRESETS: &[(&str, Option<Kind>)] = &[
    ("llama-2l", Some(Kind::Llama)),
    ("qwen2-2l", Some(Kind::Qwen2)),
    ("qwen3-2l", Some(Kind::Qwen3)),
    ("mistral-2l", Some(Kind::Mistral)),
    ("istft-head", None),
];

/// Writes a preset's files, whatever its graphs are called, and says what they are of.
///
/// # Errors
/// [`Error::Preset`] for a name that is none; [`Error::Io`].
pub fn synthesize(preset: &str, seed: u64, _: &[String], folder: &Path) -> Result<Value, Error> {
    let &(_, kind) = preset_of(preset, PRESETS, |(name, _)| name)?;
    let io = |source: io::Error| Error::Io { path: folder.to_owned(), source };
    let architecture = match kind.map(language_model) {
        Some(model) => {
            model.write(seed, folder).map_err(io)?;
            let counts = model.counts().map(|(name, count)| (name, json!(count)));
            let class = ("architecture", json!(model.class()));
            json!([class].into_iter().chain(counts).collect::<std::collections::BTreeMap<_, _>>())
        }
        None => {
            let path = folder.join("head.safetensors");
            write_safetensors(&path, DType::F32, seed, head()).map_err(io)?;
            json!({ "dim": DIM, "n_fft": N_FFT })
        }
    };
    Ok(json!({ "preset": preset, "seed": seed, "architecture": architecture }))
}

fn language_model(kind: Kind) -> LanguageModel {
    let llama3 = json!({
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 64,
        "rope_type": "llama3",
    });
    LanguageModel {
        kind,
        hidden_size: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        intermediate_size: 96,
        vocab_size: 160,
        positions: 256,
        tied: kind == Kind::Llama,
        rope_scaling: if kind == Kind::Llama { llama3 } else { Value::Null },
        ends: [1, 2],
    }
}

const DIM: usize = 48;
const N_FFT: usize = 512;

/// The head of `soprano.vocos.heads`: magnitudes that fall with frequency, phases of several radians.
fn head() -> Vec<Drawn> {
    const BINS: usize = N_FFT / 2 + 1;
    let scale = 1.0 / (DIM as f32).sqrt();
    let weight = move |at: usize| (0.0, if at / DIM < BINS { 0.6 * scale } else { 3.0 * scale });
    let bias = |at: usize| match at < BINS {
        true => (1.0 - 4.0 * (at as f32 / (BINS - 1) as f32).sqrt(), 0.1),
        false => (0.0, 0.1),
    };
    vec![
        Drawn::each("out.weight", &[2 * BINS, DIM], weight),
        Drawn::each("out.bias", &[2 * BINS], bias),
        Drawn::hann("istft.window", N_FFT),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Weights;

    #[test]
    fn architectures_differ_in_what_they_are_for() {
        for (preset, class, tensors, own) in [
            ("llama-2l", "LlamaForCausalLM", 20, "model.norm.weight"),
            ("mistral-2l", "MistralForCausalLM", 21, "lm_head.weight"),
            ("qwen2-2l", "Qwen2ForCausalLM", 27, "model.layers.1.self_attn.k_proj.bias"),
            ("qwen3-2l", "Qwen3ForCausalLM", 25, "model.layers.1.self_attn.k_norm.weight"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let told = synthesize(preset, 0, &[], folder.path()).unwrap();
            assert_eq!(told["architecture"]["architecture"], class);
            assert_eq!(told["architecture"]["vocab_size"], 160);
            let weights = Weights::of_language_model(folder.path()).unwrap();
            assert_eq!(weights.len(), tensors, "{preset}");
            assert!(weights.get(own).is_some(), "{preset}");
            for (name, stored) in weights.iter() {
                let values = stored.to_f32().unwrap();
                assert!(values.iter().all(|v| v.is_finite()), "{name}");
                assert!(values.iter().any(|v| *v != values[0]), "{name} is constant");
            }
            let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
            assert_eq!(config.contains("llama3"), preset == "llama-2l");
        }
        let refused = synthesize("llama", 0, &[], Path::new("nowhere")).unwrap_err();
        assert!(refused.to_string().starts_with("`preset` is \"llama\""), "{refused}");
    }

    #[test]
    fn the_head_has_its_window() {
        let folder = tempfile::tempdir().unwrap();
        synthesize("istft-head", 0, &[], folder.path()).unwrap();
        let path = folder.path().join("head.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let weights = Weights::from_safetensors_bytes(bytes.into(), &path).unwrap();
        let shape = |name: &str| weights.get(name).unwrap().shape().to_vec();
        assert_eq!((shape("out.weight"), shape("out.bias")), (vec![514, 48], vec![514]));
        assert_eq!(weights.get("istft.window").unwrap().to_f32().unwrap()[256], 1.0);
    }
}
