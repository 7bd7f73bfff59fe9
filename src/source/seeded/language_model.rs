//! A language model's files in `transformers`' layout.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::{Drawn, write_safetensors};
use crate::files;
use crate::source::WEIGHTS;
use crate::tensor::DType;

/// The deviation of drawn matrices.
const MATRIX: f32 = 1.0 / 24.0;
/// The deviation of drawn norms, around 1, and of biases, around 0.
const VECTOR: f32 = 0.1;

/// An architecture of `transformers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Queries and keys are normed, head by head.
    Qwen3,
    /// Queries, keys and values have biases.
    Qwen2,
    /// Neither.
    Llama,
    /// As Llama, without a window.
    Mistral,
}

impl Kind {
    /// The name before `Config` and `ForCausalLM`.
    fn name(self) -> &'static str {
        match self {
            Kind::Qwen3 => "Qwen3",
            Kind::Qwen2 => "Qwen2",
            Kind::Llama => "Llama",
            Kind::Mistral => "Mistral",
        }
    }
}

/// Everything that decides a language model's tensors and their use.
#[derive(Clone, Debug, PartialEq)]
pub struct LanguageModel {
    /// Architecture.
    pub kind: Kind,
    /// Channels of a hidden state.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Channels between the two products of an MLP.
    pub intermediate_size: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Positions.
    pub positions: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// `rope_scaling`, null where there is none.
    pub rope_scaling: Value,
    /// The tokens that begin and end a text.
    pub ends: [u32; 2],
}

impl LanguageModel {
    /// Writes `config.json`, `generation_config.json` and `model.safetensors` (bf16). Matrices deviate by 1/24, norms
    /// are spread around 1 and biases around 0: no tensor is zero, one or constant.
    ///
    /// # Errors
    /// Where a file can't be written.
    pub fn write(&self, seed: u64, folder: &Path) -> io::Result<()> {
        write_json(&folder.join("config.json"), &self.config())?;
        let [bos, eos] = self.ends;
        let generation =
            json!({ "bos_token_id": bos, "eos_token_id": eos, "_from_model_config": true });
        write_json(&folder.join("generation_config.json"), &generation)?;
        write_safetensors(&folder.join(WEIGHTS), DType::BF16, seed, self.tensors())
    }

    /// Its class in `transformers`.
    pub fn class(&self) -> String {
        format!("{}ForCausalLM", self.kind.name())
    }

    /// The dimensions by the names that `config.json` has for them.
    pub fn counts(&self) -> [(&'static str, usize); 8] {
        [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.positions),
        ]
    }

    /// `config.json`: the keys that `save_pretrained` writes for this architecture, but for the version of `transformers`,
    /// which had no part in it.
    fn config(&self) -> Value {
        let [bos, eos] = self.ends;
        let fields = json!({
            "architectures": [self.class()],
            "attention_dropout": 0.0,
            "bos_token_id": bos,
            "dtype": "bfloat16",
            "eos_token_id": eos,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "model_type": self.kind.name().to_lowercase(),
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied,
            "use_cache": true,
        });
        let rope_scaling = json!({ "rope_scaling": self.rope_scaling });
        let bias = json!({ "attention_bias": false });
        let windows = json!({
            "layer_types": vec!["full_attention"; self.layers],
            "max_window_layers": 28,
            "sliding_window": null,
            "use_sliding_window": false,
        });
        let own = match self.kind {
            Kind::Qwen3 => vec![rope_scaling, bias, windows],
            Kind::Qwen2 => vec![rope_scaling, windows],
            Kind::Llama => vec![rope_scaling, bias, json!({ "mlp_bias": false, "pretraining_tp": 1 })],
            Kind::Mistral => vec![json!({ "sliding_window": null })],
        };
        let counts = self.counts().map(|(name, count)| (name.to_owned(), json!(count)));
        let own = own.into_iter().chain([fields]).filter_map(|fields| match fields {
            Value::Object(fields) => Some(fields),
            _ => None,
        });
        // In the order of names, as `transformers` writes them.
        json!(own.flatten().chain(counts).collect::<BTreeMap<_, _>>())
    }

    /// Its tensors under the names that `transformers` gives them.
    pub fn tensors(&self) -> Vec<Drawn> {
        let (hidden, size) = (self.hidden_size, self.head_dim);
        let (queries, keys) = (self.heads * size, self.kv_heads * size);
        let matrix = |name: &str, shape: [usize; 2]| Drawn::even(name, &shape, 0.0, MATRIX);
        let norm = |name: &str, size| Drawn::even(name, &[size], 1.0, VECTOR);
        let mut tensors = vec![
            matrix("model.embed_tokens.weight", [self.vocab_size, hidden]),
            norm("model.norm.weight", hidden),
        ];
        if !self.tied {
            tensors.push(matrix("lm_head.weight", [self.vocab_size, hidden]));
        }
        for layer in (0..self.layers).map(|layer| format!("model.layers.{layer}")) {
            for (name, shape) in [
                ("self_attn.q_proj", [queries, hidden]),
                ("self_attn.k_proj", [keys, hidden]),
                ("self_attn.v_proj", [keys, hidden]),
                ("self_attn.o_proj", [hidden, queries]),
                ("mlp.gate_proj", [self.intermediate_size, hidden]),
                ("mlp.up_proj", [self.intermediate_size, hidden]),
                ("mlp.down_proj", [hidden, self.intermediate_size]),
            ] {
                tensors.push(matrix(&format!("{layer}.{name}.weight"), shape));
            }
            for name in ["input_layernorm", "post_attention_layernorm"] {
                tensors.push(norm(&format!("{layer}.{name}.weight"), hidden));
            }
            if self.kind == Kind::Qwen3 {
                for name in ["q_norm", "k_norm"] {
                    tensors.push(norm(&format!("{layer}.self_attn.{name}.weight"), size));
                }
            }
            if self.kind == Kind::Qwen2 {
                for (name, size) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
                    let name = format!("{layer}.self_attn.{name}.bias");
                    tensors.push(Drawn::even(name, &[size], 0.0, VECTOR));
                }
            }
        }
        tensors
    }
}

/// JSON as Python's `json.dumps(…, indent=2)` lays it out, and a line's end.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    files::write(path, &text)
}
