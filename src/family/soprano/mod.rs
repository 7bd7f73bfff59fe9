//! Soprano: a Qwen3 language model that writes hidden states, and a Vocos decoder that makes sound of them.

mod format_1;
mod repetition;
mod speaker;

use super::Family;
use crate::names::{Exporter, Role};
use crate::recipe::{GraphShape, Shape};

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

/// Soprano, versions 1.0 and 1.1.
pub const FAMILY: Family = Family {
    shape: Shape {
        family: "soprano",
        graphs: &[
            GraphShape {
                name: DECODER,
                role: Role::Signal,
                file: "soprano_decoder_fp32",
                exporters: &[Exporter::Torch],
                weights: &["decoder.pth"],
                spoken_by: Some(LM),
            },
            GraphShape {
                name: LM,
                role: Role::Causal,
                file: "soprano_backbone_kv_fp32",
                exporters: &[Exporter::Torch, Exporter::Optimum],
                weights: LANGUAGE_MODEL,
                spoken_by: None,
            },
        ],
    },
    environment: "soprano",
    companions: COMPANIONS,
    causal_weights: &[],
    voice: &[LM, DECODER],
    speaker: Some(Soprano::of),
    usual_sound: Some((2048, 32_000)),
    recipes: &[
        ("soprano-1.1", include_str!("../../../recipes/soprano-1.1.yaml")),
        ("soprano-1.0", include_str!("../../../recipes/soprano-1.0.yaml")),
        ("soprano-tiny", include_str!("../../../recipes/soprano-tiny.yaml")),
    ],
    tags: &["vocos"],
};
