//! What `config.json` says of a language model.

/// Every dimension of a language model, and what its layers have.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The class in `transformers`: `Qwen3ForCausalLM`.
    pub architecture: String,
    /// Channels of a hidden state.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, each shared by as many queries.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Channels between the two products of an MLP.
    pub intermediate_size: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Positions that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// The base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// How the frequencies are scaled.
    pub rotation: Rotation,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has one.
    pub out_bias: bool,
    /// Whether the MLP's products have them.
    pub mlp_bias: bool,
    /// Whether queries and keys are normed, head by head.
    pub qk_norm: bool,
}

/// How a rotary embedding's frequencies are scaled, as `rope_scaling` has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Rotation {
    /// Not at all.
    Default,
    /// All by a factor.
    Linear {
        /// By which they are divided.
        factor: f64,
    },
    /// Low frequencies by a factor, high ones not at all.
    Llama3 {
        /// By which low ones are divided.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings` over this are low.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings` over this are high.
        high_freq_factor: f64,
        /// Positions before the scaling.
        original_max_position_embeddings: f64,
    },
    /// Low frequencies by a factor, high ones not at all, and all rotations by an amplitude.
    Yarn {
        /// By which low ones are divided.
        factor: f64,
        /// The amplitude; by the factor where none is given.
        attention_factor: Option<f64>,
        /// `mscale` and `mscale_all_dim`, which give the amplitude where both are there.
        mscale: Option<(f64, f64)>,
        /// Rotations over the original length above which a frequency is high.
        beta_fast: f64,
        /// Rotations below which it is low.
        beta_slow: f64,
        /// Positions before the scaling.
        original_max_position_embeddings: f64,
        /// Whether the bounds between low and high are rounded to whole dimensions.
        truncate: bool,
    },
}
