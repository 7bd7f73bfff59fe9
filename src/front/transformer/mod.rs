//! Qwen3, Qwen2, Llama and Mistral: causal language models with grouped queries and rotary embedding.

mod checkpoint;
mod config;
mod files;
mod float64;
mod graph;
mod rotary;
#[cfg(test)]
mod tests;
mod weights;

use std::path::Path;

use serde_json::{Map, Value, json};

pub use checkpoint::Checkpoint;
pub use config::{Config, Rotation};
pub use float64::InDouble;

use super::{Asked, Drafted, Front};
use crate::names::Ports;
use crate::source::Refused;

/// A causal language model in `transformers`' layout.
#[derive(Clone, Copy, Debug)]
pub struct Transformer {
    /// The token that ends a text, where the family fixes it.
    pub stop: Option<&'static str>,
}

impl Front for Transformer {
    fn draft(&self, asked: &Asked<'_>) -> Result<Drafted, Refused> {
        let Checkpoint { config, weights } = self.open(asked.checkpoint)?;
        let Ports::Causal(names) = asked.ports else {
            return Err(Refused::new("lm-unsupported", "a language model is a causal graph", ""));
        };
        if let Some(layer) = asked.hidden_states.iter().find(|layer| **layer as usize >= config.layers)
        {
            let layers = config.layers;
            let message = format!("`hidden_states` has layer {layer}, and the model has {layers}");
            return Err(Refused::new("request", message, "layers are counted from 0"));
        }
        let parameters: usize = weights.iter().map(|(_, stored)| stored.len()).sum();
        let mut architecture = describe(&config);
        architecture.insert("parameters".to_owned(), json!(parameters));
        let draft = graph::draft(&config, &weights, names, asked);
        Ok(Drafted { draft, architecture, sound: None })
    }

    fn in_double(&self, checkpoint: &Path) -> Result<super::InDouble, Refused> {
        let Checkpoint { config, weights } = self.open(checkpoint)?;
        Ok(super::InDouble::Causal(Box::new(InDouble::new(&config, &weights)?)))
    }
}

/// The dimensions as manifests have them.
fn describe(config: &Config) -> Map<String, Value> {
    let fields = json!({
        "architecture": config.architecture,
        "hidden_size": config.hidden_size,
        "layers": config.layers,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "tied": config.tied,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => unreachable!("it was written as an object"),
    }
}
