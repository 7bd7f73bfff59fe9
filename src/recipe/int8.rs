//! How a graph is quantized.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{LEAST_INT8_SNR_DB, SNR_DB};

/// How a graph is quantized to 8 bits, and what that file must reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Int8 {
    /// How products are written.
    pub form: Form,
    /// How activations are held.
    pub activations: Terms,
    /// What of an activation has a range of its own.
    pub granularity: Granularity,
    /// Weights in 7 bits where activations are in one term: processors without VNNI add pairs of products in
    /// 16 bits, which overflow otherwise, and the file is other numbers there. `false` gives such weights
    /// 8 bits, for processors that have it. In two terms weights keep their 8 bits, and nothing overflows.
    pub reduce_range: bool,
    /// Moves outliers from activations into weights first, by this share (0.5 halves them), as the
    /// references show them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub smoothing: Option<f64>,
    /// Nodes whose activations are held in two terms where the others' are in one, by name; `*` stands for
    /// anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub two_terms: Vec<String>,
    /// Nodes that stay fp32, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub keep_fp32: Vec<String>,
    /// The least signal-to-noise ratio of its outputs against PyTorch's.
    #[schemars(range(min = LEAST_INT8_SNR_DB, max = *SNR_DB.end()))]
    pub snr_db: f64,
}

impl Default for Int8 {
    fn default() -> Self {
        Int8 {
            form: Form::Dynamic,
            smoothing: None,
            activations: Terms::One,
            granularity: Granularity::Row,
            reduce_range: true,
            two_terms: Vec::new(),
            keep_fp32: Vec::new(),
            snr_db: 18.0,
        }
    }
}

/// How products are written in 8 bits or fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Integer products; activations are quantized as they come.
    #[default]
    Dynamic,
    /// Quantize, dequantize, product; activations have the range that the references show.
    Static,
    /// Weights in blocks of 8 bits, for ONNX Runtime alone.
    #[serde(rename = "blocks-8")]
    Blocks8,
    /// Weights in blocks of 4 bits.
    #[serde(rename = "blocks-4")]
    Blocks4,
}

impl Form {
    /// Whether weights are in blocks.
    pub fn is_blocks(self) -> bool {
        matches!(self, Form::Blocks8 | Form::Blocks4)
    }
}

/// How an activation is held in 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Terms {
    /// One byte a value.
    #[default]
    One,
    /// Two bytes a value, two products for each: more exact. A language model's step, which is bound by memory,
    /// is little slower for it; where an activation has many rows, as in a decoder, products take twice as long.
    Two,
}

/// What of an activation has a range of its own, where it is quantized as it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// Each row: a position of a language model, a frame of a decoder. What comes out of a row is the same
    /// whatever else is in the batch, in the padding, or in the chunk.
    #[default]
    Row,
    /// The whole tensor: fewer nodes, and a row's result depends on its neighbours.
    Tensor,
}
