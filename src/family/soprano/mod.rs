//! Soprano: a Qwen3 language model that writes hidden states, and a Vocos decoder that makes sound of them.

mod format_1;
mod repetition;
mod seeded;
mod speaker;
#[cfg(test)]
mod tests;

use super::{BuiltIn, Family, Text};
use crate::front::transformer::Transformer;
use crate::front::vocos::{Dimensions, Vocos};
use crate::names::{Exporter, Role};
use crate::recipe::{GraphShape, Shape};
use crate::speech::text::{self, Faults};

pub use format_1::upgrade;
pub use speaker::Soprano;

/// Hidden states to audio.
pub const DECODER: &str = "decoder";
/// Tokens to hidden states.
pub const LM: &str = "lm";

/// The weights of a language model in `transformers`' layout: whole, or in shards.
pub(super) const LANGUAGE_MODEL: &[&str] =
    &["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"];

/// Files that tell how a language model and its tokenizer are to be used.
pub(super) const COMPANIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// The small trained voice, where builds are.
const BUILT_IN: &[BuiltIn] =
    if cfg!(feature = "report") { &[BuiltIn { name: "soprano-mini", files: mini }] } else { &[] };

/// The files of the small trained voice.
macro_rules! mini {
    ($($name:literal,)*) => {
        &[$(($name, include_bytes!(concat!("../../../fixtures/soprano-mini/", $name)))),*]
    };
}

fn mini() -> &'static [(&'static str, &'static [u8])] {
    static FILES: &[(&str, &[u8])] = mini![
        "config.json",
        "decoder.pth",
        "generation_config.json",
        "model.safetensors",
        "references.json",
        "references-decoder.safetensors",
        "references-lm.safetensors",
        "references-speak.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    FILES
}

/// What no tensor of the decoder says.
const VOCOS: Vocos = Vocos {
    file: "decoder.pth",
    upscale: 4,
    hops: 4,
    magnitude_limit: 100.0,
    sample_rate: 32_000,
    version,
};

fn whole(sentence: &str) -> String {
    text::prompt(&text::normalize(sentence.trim(), Faults::Kept))
}

fn pieces(written: &str) -> Vec<String> {
    let sentences = text::sentences(&text::normalize(written.trim(), Faults::Kept), Faults::Kept);
    let spoken = sentences.iter().filter(|sentence| sentence.contains(char::is_alphanumeric));
    spoken.map(|sentence| text::prompt(sentence)).collect()
}

/// The release that a decoder's dimensions belong to.
fn version(of: &Dimensions) -> &'static str {
    let rest = (of.input_channels, of.intermediate_dim, of.layers, of.dw_kernel, of.n_fft);
    match (of.dim, of.input_kernel) {
        _ if rest != (512, 3 * of.dim, 8, 3, 2048) => "custom",
        (512, 3) => "1.0",
        (768, 1) => "1.1",
        _ => "custom",
    }
}

/// Soprano, versions 1.0 and 1.1.
pub const FAMILY: Family = Family {
    shape: Shape {
        family: "soprano",
        graphs: &[
            GraphShape {
                name: DECODER,
                role: Role::Signal,
                file: "soprano_decoder_fp32",
                exporters: &[Exporter::Torch, Exporter::Native],
                weights: &["decoder.pth"],
                spoken_by: Some(LM),
            },
            GraphShape {
                name: LM,
                role: Role::Causal,
                file: "soprano_backbone_kv_fp32",
                exporters: &[Exporter::Torch, Exporter::Optimum, Exporter::Native],
                weights: LANGUAGE_MODEL,
                spoken_by: None,
            },
        ],
    },
    environment: "soprano",
    companions: COMPANIONS,
    causal_weights: &[],
    voice: &[LM, DECODER],
    fronts: &[(DECODER, &VOCOS), (LM, &Transformer { stop: Some("[STOP]") })],
    causal_front: None,
    text: Some(Text { whole, pieces }),
    speaker: Some(Soprano::of),
    usual_sound: Some((2048, 32_000)),
    built_in: BUILT_IN,
    synthesize: Some(seeded::synthesize),
    recipes: &[
        ("soprano-1.1", include_str!("../../../recipes/soprano-1.1.yaml")),
        ("soprano-1.0", include_str!("../../../recipes/soprano-1.0.yaml")),
        ("soprano-mini", include_str!("../../../recipes/soprano-mini.yaml")),
        ("soprano-tiny", include_str!("../../../recipes/soprano-tiny.yaml")),
    ],
    tags: &["vocos"],
};
