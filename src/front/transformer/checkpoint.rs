//! A language model's checkpoint, its parts held against each other: config, weights, tokenizer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::{CONFIG, shown};
use super::files::{json, object};
use super::{Config, Transformer};
use crate::source::{Refused, Weights};

const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const MISMATCH: &str = "the weights and config.json are of different models";
const OTHER_TOKENIZER: &str = "the tokenizer is another model's";
const EMBEDDING: &str = "model.embed_tokens.weight";
const FREQUENCIES: &str = ".rotary_emb.inv_freq";
const HEAD: &str = "lm_head.weight";

/// A checkpoint that is whole.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its dimensions.
    pub config: Config,
    /// Every tensor that these need, and no other.
    pub weights: Weights,
}

impl Transformer {
    /// Opens a checkpoint's folder, and holds its parts against each other.
    ///
    /// # Errors
    /// [`Refused`] with the codes of the Python exporters.
    pub fn open(&self, folder: &Path) -> Result<Checkpoint, Refused> {
        let config = Config::read(folder)?;
        let weights = Weights::of_language_model(folder)?;
        check_weights(&config, &weights)?;
        self.check_tokenizer(folder, &config)?;
        Ok(Checkpoint { config, weights })
    }

    /// A tokenizer that is there must fit the model: its ids inside the vocabulary, its stop the model's.
    fn check_tokenizer(&self, folder: &Path, config: &Config) -> Result<(), Refused> {
        let vocabulary = config.vocab_size;
        let ends_of = |file: &str| {
            let path = folder.join(file);
            ends(&object(&path)?, &path, vocabulary)
        };
        let mut named = vec![(CONFIG, ends_of(CONFIG)?)];
        if folder.join(GENERATION).exists() {
            named.push((GENERATION, ends_of(GENERATION)?));
        }
        let path = folder.join(TOKENIZER);
        if !path.exists() {
            return Ok(());
        }
        let ids = ids(&json(&path)?).ok_or_else(|| {
            let message = format!("{} is not a tokenizer", path.display());
            Refused::new("checkpoint-format", message, "fetch it again")
        })?;
        let refuse = |message| Err(Refused::new("checkpoint-tokenizer", message, OTHER_TOKENIZER));
        let largest = ids.values().copied().max().unwrap_or(0);
        let place = path.display();
        if largest >= vocabulary as u64 {
            return refuse(format!(
                "{place} has the id {largest}, and {CONFIG} a vocabulary of {vocabulary}"
            ));
        }
        if let Some((stop, id)) = self.stop.and_then(|stop| Some((stop, *ids.get(stop)?))) {
            for (file, listed) in &named {
                if !listed.contains(&id) && (!listed.is_empty() || *file == CONFIG) {
                    let listed = one(listed);
                    return refuse(format!(
                        "{place} has {stop} as {id}, and {file} has eos_token_id {listed}"
                    ));
                }
            }
        }
        let described = folder.join(TOKENIZER_CONFIG);
        if !described.exists() {
            return Ok(());
        }
        let fields = object(&described)?;
        let token = fields.get("eos_token");
        let token =
            token.and_then(|token| token.get("content")).or(token).filter(|token| !token.is_null());
        let Some(token) = token else { return Ok(()) };
        let found = token.as_str().and_then(|token| ids.get(token)).copied();
        let all: Vec<u64> = named.iter().flat_map(|(_, listed)| listed).copied().collect();
        if !all.is_empty() && found.is_none_or(|id| !all.contains(&id)) {
            let id = found.map_or("none".to_owned(), |id| id.to_string());
            return refuse(format!(
                "{}: eos_token {} has the id {id}, and {CONFIG} has eos_token_id {}",
                described.display(),
                shown(token),
                one(&named[0].1)
            ));
        }
        Ok(())
    }
}

/// The shape of every tensor that a config asks for.
fn expected(config: &Config) -> BTreeMap<String, Vec<usize>> {
    let Config { hidden_size: width, intermediate_size: inner, head_dim: size, .. } = *config;
    let (queries, keys) = (config.heads * size, config.kv_heads * size);
    let mut shapes = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| drop(shapes.insert(name, shape.to_vec()));
    add(EMBEDDING.to_owned(), &[config.vocab_size, width]);
    add("model.norm.weight".to_owned(), &[width]);
    if !config.tied {
        add(HEAD.to_owned(), &[config.vocab_size, width]);
    }
    for layer in 0..config.layers {
        let of = format!("model.layers.{layer}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            add(format!("{of}.{norm}.weight"), &[width]);
        }
        if config.qk_norm {
            for norm in ["q_norm", "k_norm"] {
                add(format!("{of}.self_attn.{norm}.weight"), &[size]);
            }
        }
        for (product, out, input, biased) in [
            ("self_attn.q_proj", queries, width, config.qkv_bias),
            ("self_attn.k_proj", keys, width, config.qkv_bias),
            ("self_attn.v_proj", keys, width, config.qkv_bias),
            ("self_attn.o_proj", width, queries, config.out_bias),
            ("mlp.gate_proj", inner, width, config.mlp_bias),
            ("mlp.up_proj", inner, width, config.mlp_bias),
            ("mlp.down_proj", width, inner, config.mlp_bias),
        ] {
            add(format!("{of}.{product}.weight"), &[out, input]);
            if biased {
                add(format!("{of}.{product}.bias"), &[out]);
            }
        }
    }
    shapes
}

/// Holds names, shapes and values against what the config asks for.
fn check_weights(config: &Config, weights: &Weights) -> Result<(), Refused> {
    let refuse = |message| Err(Refused::new("checkpoint-shape", message, MISMATCH));
    let listing = weights.listing.display();
    if config.layers > weights.len() {
        return refuse(format!(
            "{listing}: {} tensors, and {CONFIG} asks for num_hidden_layers = {}",
            weights.len(),
            config.layers
        ));
    }
    let expected = expected(config);
    let missing: Vec<&String> = expected.keys().filter(|name| weights.get(name).is_none()).collect();
    if let Some(first) = missing.first() {
        return refuse(format!(
            "{listing}: tensor `{first}` is missing ({} in all), although {CONFIG} asks for it",
            missing.len()
        ));
    }
    for (name, stored) in weights.iter() {
        let place = weights.place(name).display();
        let shape = match expected.get(name) {
            Some(shape) => shape,
            None if config.tied && name == HEAD => &expected[EMBEDDING],
            // A buffer of older conversions, which follows from the config: `transformers` makes it anew too.
            None if name.ends_with(FREQUENCIES) => continue,
            None => {
                return refuse(format!(
                    "{place}: tensor `{name}` is not part of the model that {CONFIG} describes"
                ));
            }
        };
        if stored.shape() != shape {
            let is = stored.shape();
            return refuse(format!(
                "{place}: tensor `{name}` is {is:?}, and {CONFIG} asks for {shape:?}"
            ));
        }
    }
    weights.check_finite()?;
    let same = |head| {
        let values = |name| weights.get(name).and_then(|stored| stored.to_f32().ok());
        values(head) == values(EMBEDDING)
    };
    if config.tied && weights.get(HEAD).is_some() && !same(HEAD) {
        let place = weights.place(HEAD).display();
        return refuse(format!(
            "{place}: tensor `{HEAD}` is not `{EMBEDDING}`, although {CONFIG} ties them"
        ));
    }
    Ok(())
}

/// The ids that end a text, as a file names them.
fn ends(fields: &Map<String, Value>, path: &Path, vocabulary: usize) -> Result<Vec<u64>, Refused> {
    let listed = match fields.get("eos_token_id") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(listed)) => listed,
        Some(one) => std::slice::from_ref(one),
    };
    let id = |value: &Value| {
        value.as_u64().filter(|&id| id < vocabulary as u64).ok_or_else(|| {
            let message = format!(
                "{}: eos_token_id {} is not a token of a vocabulary of {vocabulary}",
                path.display(),
                shown(value)
            );
            Refused::new("checkpoint-config", message, "fetch it again")
        })
    };
    listed.iter().map(id).collect()
}

/// The ids of a tokenizer's tokens.
fn ids(tokenizer: &Value) -> Option<BTreeMap<String, u64>> {
    let mut ids = BTreeMap::new();
    for (token, id) in tokenizer.get("model")?.get("vocab")?.as_object()? {
        ids.insert(token.clone(), id.as_u64()?);
    }
    for token in tokenizer.get("added_tokens")?.as_array()? {
        ids.insert(token.get("content")?.as_str()?.to_owned(), token.get("id")?.as_u64()?);
    }
    (!ids.is_empty()).then_some(ids)
}

/// One id alone, or all of them.
fn one(listed: &[u64]) -> String {
    match listed {
        [] => "none".to_owned(),
        [one] => one.to_string(),
        many => format!("{many:?}"),
    }
}
