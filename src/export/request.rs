use std::path::Path;

use serde::Serialize;

use crate::digest::Digest;
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
    /// Put a bundle into a hub repository, under a tag that isn't there yet.
    Publish {
        /// `owner/name`.
        repo: &'a str,
        /// The bundle's folder.
        folder: &'a Path,
        /// Its files, and what they must be.
        files: &'a [PublishFile<'a>],
        /// The files that say which bundle it is.
        papers: &'a [&'a str],
        /// The tag.
        tag: &'a str,
    },
    /// Export the decoder and record references from the unmodified module.
    ExportDecoder(ExportDecoder<'a>),
    /// Convert an ONNX file, or the module behind it, to OpenVINO's intermediate representation.
    Convert(Convert<'a>),
    /// Export the language model and record references from the unmodified module.
    ExportLm(ExportLm<'a>),
    /// Say sentences with upstream's own code and record it.
    Speak(Speak<'a>),
    /// Time one half of a checkpoint in PyTorch.
    Bench(Bench<'a>),
    /// Score speech by PESQ, in 16 kHz; the tensors of both files are `0`, `1`, ….
    Pesq {
        /// Undistorted signals.
        reference: &'a Path,
        /// What became of them, as many and as long.
        degraded: &'a Path,
    },
}

/// What the whole voice is to say.
#[derive(Clone, Debug, Serialize)]
pub struct Speak<'a> {
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// The texts, as a user writes them.
    pub sentences: &'a [String],
    /// How much a token that was there already loses of its likelihood.
    pub repetition_penalty: f64,
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

/// A file of a bundle that is to be published.
#[derive(Clone, Debug, Serialize)]
pub struct PublishFile<'a> {
    /// Path inside the bundle.
    pub name: &'a str,
    /// SHA-256 of its contents.
    pub sha256: Digest,
    /// Length in bytes.
    pub bytes: u64,
}

/// Options of a conversion.
#[derive(Clone, Debug, Serialize)]
pub struct Convert<'a> {
    /// The fp32 ONNX file.
    pub model: &'a Path,
    /// `decoder` or `lm`.
    pub part: &'a str,
    /// `fp32`, `fp16`, `int8`.
    pub schemes: &'a [&'a str],
    /// `onnx` or `torch`.
    pub via: &'a str,
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// Nodes whose weights stay fp32.
    pub keep_fp32: &'a [String],
    /// Inputs with the dimensions that they are to have.
    pub shapes: Vec<InputShape<'a>>,
    /// Whether the cache is to be the model's own.
    pub stateful: bool,
    /// References whose ranges the int8 file's activations are held in; none for weights alone.
    pub calibration: Option<&'a Path>,
}

/// What an input's dimensions are to be.
#[derive(Clone, Debug, Serialize)]
pub struct InputShape<'a> {
    /// Its name.
    pub input: &'a str,
    /// A number, `a..b` or `?` each.
    pub dims: &'a [String],
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
