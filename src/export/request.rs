use std::path::Path;

use serde::Serialize;

use crate::recipe::LmReferences;

/// What a child is asked to do. The Python package documents each task.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Request<'a> {
    /// Really import every package and say what failed.
    Environment {},
    /// Write a checkpoint of upstream's own class with seeded weights.
    Synthesize {
        /// Which size.
        preset: &'a str,
        /// Seed of the weights.
        seed: u64,
        /// Which halves to write: `decoder`, `lm`.
        parts: &'a [&'a str],
    },
    /// Fetch files of a hub repository.
    Download {
        /// `owner/name`.
        repo: &'a str,
        /// Branch, tag or commit.
        revision: &'a str,
        /// Files that must be there.
        files: &'a [&'a str],
        /// Files that are taken where they exist.
        optional: &'a [&'a str],
    },
    /// Export the decoder and record references from the unmodified module.
    ExportDecoder(ExportDecoder<'a>),
    /// Export the language model and record references from the unmodified module.
    ExportLm(ExportLm<'a>),
    /// Time one half of a checkpoint in PyTorch.
    Bench(Bench<'a>),
}

/// What to time in PyTorch.
#[derive(Clone, Debug, Serialize)]
pub struct Bench<'a> {
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// `lm` or `decoder`.
    pub part: &'a str,
    /// Threads of every operator.
    pub threads: usize,
    /// Calls of each point.
    pub rounds: usize,
    /// What to time, as `validate::bench` writes it.
    pub points: serde_json::Value,
}

/// Options of a language model's export.
#[derive(Clone, Debug, Serialize)]
pub struct ExportLm<'a> {
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// ONNX operator set.
    pub opset: i64,
    /// `torch` or `optimum`.
    pub route: &'a str,
    /// Layers whose input the references record.
    pub hidden_states: &'a [u32],
    /// Which references to record.
    pub references: &'a LmReferences,
}

/// Options of a decoder's export.
#[derive(Clone, Debug, Serialize)]
pub struct ExportDecoder<'a> {
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// ONNX operator set.
    pub opset: i64,
    /// Which references to record.
    pub references: ReferencePlan<'a>,
}

/// Which inputs PyTorch's own outputs are recorded for.
#[derive(Clone, Debug, Serialize)]
pub struct ReferencePlan<'a> {
    /// Sequence lengths, each at least 2.
    pub lengths: &'a [usize],
    /// Batch sizes.
    pub batches: &'a [usize],
    /// Whether to add inputs driven to the magnitude clip, to large phases and to loudness.
    pub extreme: bool,
    /// Seed of the inputs.
    pub seed: u64,
    /// Sentences for the checkpoint's own language model to say.
    pub sentences: &'a [String],
}
