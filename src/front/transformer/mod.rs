//! Qwen3, Qwen2, Llama and Mistral: causal language models with grouped queries and rotary embedding.

mod config;

pub use config::{Config, Rotation};

use super::{Asked, Drafted, Front};
use crate::source::Refused;

/// A causal language model in `transformers`' layout.
#[derive(Clone, Copy, Debug)]
pub struct Transformer {
    /// The token that ends a text, where the family fixes it.
    pub stop: Option<&'static str>,
}

impl Front for Transformer {
    fn draft(&self, _asked: &Asked<'_>) -> Result<Drafted, Refused> {
        Err(Refused::new("lm-unsupported", "not yet", ""))
    }
}
