//! Options of verbs that take an ONNX file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::super::parsers::engine;
use crate::names::Causal;
use crate::runtime::Engine;

/// `NAME=SIZE`, where the name may hold another sign of equality.
fn dimension(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("it is NAME=SIZE, as in n=64")?;
    match size.trim().parse() {
        Ok(size) if !name.trim().is_empty() => Ok((name.trim().to_owned(), size)),
        Ok(_) => Err("it has no name; it is NAME=SIZE, as in n=64".to_owned()),
        Err(_) => Err(format!("{size:?} is not a size; it is NAME=SIZE, as in n=64")),
    }
}

#[derive(Args)]
pub(in super::super) struct Inspect {
    /// An ONNX file.
    pub model: PathBuf,
    /// List every node too, those of nested graphs and functions with it.
    #[arg(long)]
    pub nodes: bool,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(in super::super) struct Diff {
    /// An ONNX file.
    pub old: PathBuf,
    /// Another; with two runtimes to --run, the first is compared with itself where none is given.
    #[arg(required_unless_present = "run")]
    pub new: Option<PathBuf>,
    /// Run them, and name the first node whose value differs: two models in one runtime, or one in two.
    #[arg(
        long,
        value_name = "RUNTIME[,RUNTIME]",
        value_delimiter = ',',
        value_parser = engine()
    )]
    pub run: Vec<&'static dyn Engine>,
    /// Inputs from a NumPy file rather than random ones: a .npz whose arrays are named as the inputs, or a .npy
    /// for an only input.
    #[arg(long, value_name = "FILE", requires = "run", conflicts_with = "references")]
    pub inputs: Option<PathBuf>,
    /// Inputs that were recorded of the model, rather than random ones.
    #[arg(long, value_name = "FILE", requires_all = ["run", "case"])]
    pub references: Option<PathBuf>,
    /// The recorded case.
    #[arg(long, value_name = "NAME", requires = "references")]
    pub case: Option<String>,
    /// Seed of random inputs.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "run")]
    pub seed: u64,
    /// Size of open dimensions of random inputs that --dim doesn't name; a batch is 1, a past 0.
    #[arg(long, value_name = "N", default_value_t = 7, requires = "run")]
    pub length: usize,
    /// Size of an open dimension of random inputs; INPUT:AXIS is one without a name. May be given again.
    #[arg(
        long = "dim",
        value_name = "NAME=SIZE",
        requires = "run",
        value_parser = dimension,
        conflicts_with_all = ["inputs", "references"]
    )]
    pub dims: Vec<(String, usize)>,
    /// Values differ unless their signal-to-noise ratio is above this.
    #[arg(
        long,
        value_name = "DB",
        default_value_t = 60.0,
        allow_negative_numbers = true,
        requires = "run"
    )]
    pub snr: f64,
    /// Values differ unless their largest difference is below this share of the peak.
    #[arg(long, value_name = "SHARE", default_value_t = 1e-3, requires = "run")]
    pub max_abs_of_peak: f64,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// How a changed model is written.
#[derive(Args)]
pub(in super::super) struct Written {
    /// Write weights into a file next to the output, FILE.data; without this only past 2 GiB.
    #[arg(long)]
    pub external_data: bool,
    /// Replace a file that is in the way.
    #[arg(long)]
    pub overwrite: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(in super::super) struct Quantize {
    /// An ONNX file.
    pub model: PathBuf,
    /// Where to write the result.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// How products are written.
    #[arg(long, value_enum, default_value = "dynamic")]
    pub form: QuantizedForm,
    /// Hold activations in two terms: more exact, and a product more for each.
    #[arg(long)]
    pub two_terms: bool,
    /// Hold activations of this node in two terms; `*` stands for anything. A node without a name is known
    /// by its first output.
    #[arg(long, value_name = "NODE")]
    pub two_terms_at: Vec<String>,
    /// What of an activation has a range of its own.
    #[arg(long, value_enum, default_value = "row")]
    pub granularity: Granularity,
    /// Keep this node in fp32; `*` stands for anything.
    #[arg(long, value_name = "NODE")]
    pub keep_fp32: Vec<String>,
    /// Weights in 7 bits where activations are in one term, for processors without VNNI.
    #[arg(long)]
    pub reduce_range: bool,
    #[command(flatten)]
    pub written: Written,
}

/// Forms that need no calibration.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(in super::super) enum QuantizedForm {
    /// Integer products; activations are quantized as they come.
    Dynamic,
    /// Weights in blocks of 8 bits, for ONNX Runtime alone.
    #[value(name = "blocks-8")]
    Blocks8,
    /// Weights in blocks of 4 bits.
    #[value(name = "blocks-4")]
    Blocks4,
}

/// What of an activation has a range of its own.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub(in super::super) enum Granularity {
    /// Each row: its result is the same whatever rows are beside it.
    Row,
    /// The whole tensor: fewer nodes.
    Tensor,
}

#[derive(Subcommand)]
pub(in super::super) enum PassVerb {
    /// The surgeries and passes in the order in which they run.
    List {
        /// Print names, kinds and rules as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The rules of a pass or surgery.
    Explain {
        /// Its name.
        pass: String,
    },
    /// Rewrite a model.
    Run(PassRun),
}

#[derive(Args)]
pub(in super::super) struct PassRun {
    /// An ONNX file.
    pub model: PathBuf,
    /// Where to write the result.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Run only these passes and surgeries, in the order of `pass list`, however given; before a surgery run
    /// lift-constants and identity-elimination too. Without this all passes and no surgery.
    #[arg(long = "pass", value_name = "NAME")]
    pub passes: Vec<String>,
    /// Layers whose input becomes an output (expose-hidden-states); 0 is the embedding.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    pub hidden_states: Vec<u32>,
    /// Give the logits of the last position alone (expose-hidden-states).
    #[arg(long)]
    pub last_logits: bool,
    /// Heads of keys and values (add-kv-cache), where the graph does not say.
    #[arg(long, value_name = "N", requires = "head_size")]
    pub kv_heads: Option<usize>,
    /// Their size.
    #[arg(long, value_name = "N", requires = "kv_heads")]
    pub head_size: Option<usize>,
    /// What an input or output is called where it is not as in transformers: mask=attention_mask.
    #[arg(long = "name", value_name = "ROLE=NAME", value_parser = port_name)]
    pub names: Vec<(String, String)>,
    /// Stop after this many patches, of which a surgery is one: a bad rewrite is found by bisecting the number.
    #[arg(long, value_name = "N")]
    pub fuel: Option<usize>,
    #[command(flatten)]
    pub written: Written,
}

/// A role of [`Causal`] and the name of the port that has it.
fn port_name(text: &str) -> Result<(String, String), String> {
    let (role, name) = text.split_once('=').ok_or("expected ROLE=NAME, as in mask=attention_mask")?;
    let names = serde_json::json!({ role: name });
    serde_json::from_value::<Causal>(names).map_err(|error| error.to_string())?;
    Ok((role.to_owned(), name.to_owned()))
}
