use std::path::Path;

use serde::Serialize;

use crate::digest::Digest;
use crate::names::{Ports, Precision, Role};
use crate::recipe::{CausalReferences, Module, SignalReferences};

/// What a child is asked to do. The Python package documents each task.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Request<'a> {
    /// Really import every package and say what failed.
    Environment {
        /// The family whose packages are meant.
        family: &'a str,
    },
    /// Write a checkpoint of upstream's own class with seeded weights.
    Synthesize {
        /// The family.
        family: &'a str,
        /// Which size.
        preset: &'a str,
        /// Seed of the weights.
        seed: u64,
        /// The graphs whose weights to write.
        graphs: &'a [String],
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
    /// Turn a checkpoint into a graph.
    Export(Export<'a>),
    /// Record what the unmodified module answers.
    Record(Record<'a>),
    /// Convert an ONNX file, or the module that it was exported from, to OpenVINO's intermediate representation.
    Convert(Convert<'a>),
    /// Say sentences with upstream's own code and record it.
    Speak(Speak<'a>),
    /// Time a graph of a checkpoint in PyTorch.
    Bench(Bench<'a>),
    /// Score speech by PESQ, in 16 kHz; the tensors of both files are `0`, `1`, ….
    Pesq {
        /// Undistorted signals.
        reference: &'a Path,
        /// What became of them, as many and as long.
        degraded: &'a Path,
    },
}

/// Which graph of which model a task is about.
#[derive(Clone, Debug, Serialize)]
pub struct Subject<'a> {
    /// The model's family.
    pub family: &'a str,
    /// The graph's name.
    pub graph: &'a str,
    /// Its role.
    pub role: Role,
    /// The names of its inputs and outputs.
    #[serde(serialize_with = "without_role")]
    pub names: &'a Ports,
    /// Its module, where the recipe names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<TrustedModule<'a>>,
}

/// The names alone: the role has a field of its own.
fn without_role<S: serde::Serializer>(names: &&Ports, to: S) -> Result<S::Ok, S::Error> {
    match names {
        Ports::Causal(names) => names.serialize(to),
        Ports::Signal(names) => names.serialize(to),
    }
}

/// A module whose code the person who asks trusts.
#[derive(Clone, Debug, Serialize)]
pub struct TrustedModule<'a> {
    /// What the recipe says of it.
    #[serde(flatten)]
    pub module: &'a Module,
    /// Whether its code may be run.
    pub trust_code: bool,
}

/// What the whole voice is to say.
#[derive(Clone, Debug, Serialize)]
pub struct Speak<'a> {
    /// The model's family.
    pub family: &'a str,
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
    /// Which graph.
    #[serde(flatten)]
    pub subject: Subject<'a>,
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
    /// Which graph.
    #[serde(flatten)]
    pub subject: Subject<'a>,
    /// Those that are wanted.
    pub precisions: &'a [Precision],
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

/// Options of an export.
#[derive(Clone, Debug, Serialize)]
pub struct Export<'a> {
    /// Which graph.
    #[serde(flatten)]
    pub subject: Subject<'a>,
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// ONNX operator set.
    pub opset: u32,
    /// What writes the graph: `torch`, `optimum`.
    pub exporter: &'a str,
}

/// Options of a recording.
#[derive(Clone, Debug, Serialize)]
pub struct Record<'a> {
    /// Which graph.
    #[serde(flatten)]
    pub subject: Subject<'a>,
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// Which calls to record.
    pub references: References<'a>,
    /// Layers of a causal graph whose input is recorded too.
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    pub hidden_states: &'a [u32],
}

/// Which calls are recorded, by the graph's role.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum References<'a> {
    /// Of a causal graph.
    Causal(&'a CausalReferences),
    /// Of a signal graph.
    Signal(&'a SignalReferences),
}
