use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::parsers::{Asked, Libraries, asked, engine, path, word};
use super::synth::options::Synth;
use crate::names::{Causal, Exporter, Precision};
use crate::runtime::Engine;

const EXIT_CODES: &str = "Exit codes:
  0    done
  1    the answer is no: validation, verification, a gate or doctor failed
  2    could not do it: usage, recipe, environment, input or output
  130  interrupted";

/// Exports PyTorch text-to-speech models to validated, CPU-ready ONNX bundles.
#[derive(Parser)]
#[command(name = "soprano-export", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub shared: Shared,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Args)]
pub(super) struct Shared {
    /// Folder of finished stages and Python environments.
    #[arg(
        long,
        global = true,
        env = "SOPRANO_EXPORT_CACHE",
        value_name = "DIR",
        hide_env_values = true,
        value_parser = path()
    )]
    pub cache_dir: Option<PathBuf>,
    /// Interpreter (or environment folder) that has the exporters' packages.
    #[arg(
        long,
        global = true,
        env = "SOPRANO_EXPORT_PYTHON",
        value_name = "PATH",
        hide_env_values = true,
        value_parser = path()
    )]
    pub python: Option<PathBuf>,
    #[command(flatten)]
    pub libraries: Libraries,
}

/// `NAME=SIZE`, where the name may hold another sign of equality.
fn dimension(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("it is NAME=SIZE, as in n=64")?;
    match size.trim().parse() {
        Ok(size) if !name.trim().is_empty() => Ok((name.trim().to_owned(), size)),
        Ok(_) => Err("it has no name; it is NAME=SIZE, as in n=64".to_owned()),
        Err(_) => Err(format!("{size:?} is not a size; it is NAME=SIZE, as in n=64")),
    }
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Export, rewrite, validate and bundle a Soprano decoder.
    Decoder(Decoder),
    /// Export, rewrite, validate and bundle a language model.
    Lm(Lm),
    /// Build everything that a recipe names.
    Build(BuildRecipe),
    /// Show a build's stages, what is cached, and why what isn't must be made; runs nothing.
    Plan(PlanBuild),
    /// Show a model's operators, inputs, outputs, functions, weights and versions.
    Inspect(Inspect),
    /// Compare two models: every field of them, or what they make of the same inputs.
    Diff(Diff),
    /// Run a bundle's models against its own references, without Python.
    Validate(Validate),
    /// Quantize the large matrix products of any ONNX file to 8 or 4 bits.
    Quantize(Quantize),
    /// Find what each node costs in 8 bits, and the cheapest form that reaches a signal-to-noise ratio.
    Sensitivity(Sensitivity),
    /// Time a bundle's models in every runtime here, and name the best variant for this machine.
    Bench(Bench),
    /// Speak a text with a bundle: to a WAV file, or to stdout while it is being said.
    Synth(Box<Synth>),
    /// Find files of a bundle that were changed, are missing, or were added.
    Verify(Verify),
    /// Sign a bundle, or make a key pair for it.
    Sign(Sign),
    /// Publish a bundle that verifies: to a folder, an OCI registry, or the Hugging Face hub.
    Publish(Publish),
    /// Fetch a published bundle, and verify it before it is put in place.
    Fetch(Fetch),
    /// Say what this machine has, what is missing, and the command that mends it.
    Doctor(Doctor),
    /// List, show and check recipes.
    #[command(subcommand)]
    Recipe(RecipeVerb),
    /// List, explain and run graph passes.
    #[command(subcommand)]
    Pass(PassVerb),
    /// Show and clear the cache of finished stages.
    #[command(subcommand)]
    Cache(CacheVerb),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Args, Default)]
pub(super) struct Output {
    /// The bundle's folder [default: its name, in the current folder].
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace a bundle that is in the way.
    #[arg(long)]
    pub overwrite: bool,
    /// Make every stage anew.
    #[arg(long)]
    pub rebuild: bool,
    /// Take an int8 file that is not faster than its fp32 one; the manifest says that it was not asked.
    #[arg(long)]
    pub no_speed_gate: bool,
    /// Print a summary as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Files beside the fp32 one.
#[derive(Args)]
pub(super) struct Files {
    /// Add an int8 file beside the fp32 one.
    #[arg(long)]
    pub int8: bool,
    /// Add OpenVINO's format [without a value: the recipe's].
    #[arg(
        long,
        value_name = "fp32,fp16,int8",
        value_parser = word::<Precision>(),
        value_delimiter = ',',
        num_args = 0..,
        require_equals = true
    )]
    pub openvino: Option<Vec<Precision>>,
}

#[derive(Args)]
pub(super) struct Decoder {
    /// A folder that holds decoder.pth, a hub id (OWNER/NAME[@REVISION]), or synthetic:PRESET[#SEED].
    #[arg(long, value_name = "DIR|HUB_ID|synthetic:PRESET")]
    pub model: Option<String>,
    /// A recipe's name or file [default: the built-in one of the model].
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub(super) struct Lm {
    /// A folder with model.safetensors, a hub id (OWNER/NAME[@REVISION]), or synthetic:PRESET[#SEED].
    #[arg(long, value_name = "DIR|HUB_ID|synthetic:PRESET")]
    pub model: Option<String>,
    /// A recipe's name or file [default: the built-in one of the model].
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    /// The exporter [default: the recipe's].
    #[arg(long, alias = "route", value_parser = word::<Exporter>())]
    pub exporter: Option<Exporter>,
    /// Logits of the last position alone.
    #[arg(long)]
    pub last_logits: bool,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub(super) struct BuildRecipe {
    /// A recipe's name or file.
    pub recipe: String,
    /// Make this stage and those that it depends on, and no bundle; `plan` lists them.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["output", "overwrite", "json"])]
    pub until: Option<String>,
    /// Export these graphs of the recipe alone.
    #[arg(long, value_name = "GRAPH")]
    pub only: Vec<String>,
    /// Run the code that the recipe names as a module: it may do whatever you may.
    #[arg(long)]
    pub trust_code: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub(super) struct PlanBuild {
    /// Recipes by name or file; more than one for a workflow [default: the built-in one of the model].
    #[arg(value_name = "RECIPE")]
    pub recipes: Vec<String>,
    /// As for `decoder`.
    #[arg(long, value_name = "DIR|HUB_ID|synthetic:PRESET", conflicts_with = "format")]
    pub model: Option<String>,
    /// Print what a workflow engine runs, for many recipes at once.
    #[arg(long, value_name = "FORMAT", requires = "recipes")]
    pub format: Option<WorkflowFormat>,
    /// Plan as if nothing were cached.
    #[arg(long, conflicts_with = "format")]
    pub rebuild: bool,
    /// Plan without the question whether an int8 file is faster than its fp32 one.
    #[arg(long)]
    pub no_speed_gate: bool,
    /// Print the plan as JSON.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// What runs many builds.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum WorkflowFormat {
    /// A job for each recipe, as one line of JSON for `fromJSON` in a GitHub workflow.
    GithubMatrix,
    /// A Snakefile with a rule for each stage.
    Snakemake,
}

#[derive(Args)]
pub(super) struct Inspect {
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
pub(super) struct Diff {
    /// An ONNX file.
    pub old: PathBuf,
    /// Another; with two runtimes to --run, the first is held against itself where none is given.
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

#[derive(Args)]
pub(super) struct Validate {
    /// A bundle's folder.
    pub bundle: PathBuf,
    /// Runtimes to run the models in [default: the first that takes each].
    #[arg(long, value_name = "NAME", value_parser = asked())]
    pub runtime: Vec<Asked>,
    /// Write what PyTorch and the model make of every spoken reference as WAV files into this new folder.
    #[arg(long, value_name = "DIR")]
    pub audio: Option<PathBuf>,
    /// Let the bundle say the recipe's sentences, in every file and runtime, beside upstream's own run.
    #[arg(long, conflicts_with = "audio")]
    pub speech: bool,
    /// Write a page that plays what was said, with spectrograms.
    #[arg(long, value_name = "FILE", requires = "speech")]
    pub html: Option<PathBuf>,
    /// Print every verdict as JSON.
    #[arg(long)]
    pub json: bool,
}

/// How a changed model is written.
#[derive(Args)]
pub(super) struct Written {
    /// Write weights into a file beside the output, FILE.data; without this only past 2 GiB.
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
pub(super) struct Quantize {
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
pub(super) enum QuantizedForm {
    /// Integer products; activations are quantized as they come.
    Dynamic,
    /// Weights in blocks of 8 bits, for ONNX Runtime alone.
    #[value(name = "blocks-8")]
    Blocks8,
    /// Weights in blocks of 4 bits.
    #[value(name = "blocks-4")]
    Blocks4,
}

#[derive(Args)]
pub(super) struct Sensitivity {
    /// A bundle's folder.
    pub bundle: PathBuf,
    /// The graph to measure [default: the first that is causal, else the bundle's only one].
    #[arg(long, value_name = "GRAPH", alias = "part")]
    pub graph: Option<String>,
    /// Choose what each node is held in so that the whole reaches this signal-to-noise ratio.
    #[arg(long, value_name = "DB")]
    pub snr: Option<f64>,
    /// Hold weights in 7 bits where activations are in one term, as for processors without VNNI.
    #[arg(long)]
    pub reduce_range: bool,
    /// Write the choice as a fragment of a recipe.
    #[arg(short, long, value_name = "FILE", requires = "snr")]
    pub output: Option<PathBuf>,
    /// Draw each node's damage as an SVG file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Replace files that are in the way.
    #[arg(long)]
    pub overwrite: bool,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct Bench {
    /// A bundle's folder.
    pub bundle: PathBuf,
    /// Threads of every runtime but tract, which has one [default: this machine's physical cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Time this runtime alone; may be given again. `all` are those that are found here, tract without its
    /// slow 8-bit products.
    #[arg(long, value_parser = asked(), value_name = "NAME", default_value = "all")]
    pub runtime: Vec<Asked>,
    /// Rounds in which all variants take turns [default: 7, with --quick 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: Option<u16>,
    /// Fewer rounds, and no batches.
    #[arg(long)]
    pub quick: bool,
    /// Time the checkpoint in this folder in PyTorch beside the bundle, on the same threads.
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub pytorch: Option<PathBuf>,
    /// Hold the bundle to the figures under `gate:` in its recipe; exit 1 where one is missed.
    #[arg(long)]
    pub gate: bool,
    /// Write a page with tables and plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Load and call this one of the bundle's files alone; how `bench` starts itself for memory and loading.
    #[arg(long, value_name = "FILE", hide = true)]
    pub alone: Option<String>,
    /// Replace a page that is in the way.
    #[arg(long, requires = "html")]
    pub overwrite: bool,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct Verify {
    /// A bundle's folder.
    pub bundle: PathBuf,
    /// A minisign public key that must have signed the bundle.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Print the findings as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[group(id = "what", required = true, multiple = true)]
pub(super) struct Sign {
    /// A bundle's folder; the signature goes beside its manifest, which holds every file's digest.
    #[arg(group = "what", requires = "key")]
    pub bundle: Option<PathBuf>,
    /// A minisign secret key.
    #[arg(long, value_name = "FILE", requires = "bundle")]
    pub key: Option<PathBuf>,
    /// Make a key pair instead: FILE, which signs, and FILE.pub, which verifies.
    #[arg(long, value_name = "FILE", group = "what", conflicts_with_all = ["bundle", "key"])]
    pub generate: Option<PathBuf>,
    /// The secret key's password is this file's first line [default: SOPRANO_EXPORT_KEY_PASSWORD].
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Don't encrypt a new secret key.
    #[arg(long, requires = "generate", conflicts_with = "password_file")]
    pub no_password: bool,
    /// Replace a signature.
    #[arg(long, requires = "bundle")]
    pub overwrite: bool,
}

#[derive(Args)]
pub(super) struct Publish {
    /// A bundle's folder.
    pub bundle: PathBuf,
    /// A folder, oci://HOST/REPOSITORY[:TAG], or hf://OWNER/NAME[@TAG].
    #[arg(value_name = "DEST")]
    pub destination: String,
    /// The version, which is never overwritten [default: the tag, or 16 digits of the manifest's digest].
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// A minisign public key that must have signed the bundle.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// List files and bytes, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Speak to the registry without TLS, as is always done on this machine.
    #[arg(long)]
    pub plain_http: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct Fetch {
    /// What `publish` printed: a folder, oci://HOST/REPOSITORY[:TAG][@DIGEST], or hf://OWNER/NAME[@TAG].
    pub source: String,
    /// The version [default: the tag; of a folder the last, of a registry the only one, of the hub the newest].
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Output directory [default: its name, in the current folder].
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace a bundle that is in the way.
    #[arg(long)]
    pub overwrite: bool,
    /// A minisign public key that must have signed the bundle.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Speak to the registry without TLS, as is always done on this machine.
    #[arg(long)]
    pub plain_http: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct Doctor {
    /// Don't start Python: look at installed files only.
    #[arg(long)]
    pub quick: bool,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(super) enum RecipeVerb {
    /// The built-in recipes.
    List,
    /// A recipe with every default written out.
    Show {
        /// A recipe's name or file.
        recipe: String,
    },
    /// The JSON schema of recipes, for editors.
    Schema,
    /// Check recipes; says where and what is wrong.
    Check {
        /// Recipes by name or file.
        #[arg(required = true)]
        recipes: Vec<String>,
    },
}

#[derive(Subcommand)]
pub(super) enum PassVerb {
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
pub(super) struct PassRun {
    /// An ONNX file.
    pub model: PathBuf,
    /// Where to write the result.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Run only these passes and surgeries, in their proper order; without this all passes and no surgery.
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

#[derive(Subcommand)]
pub(super) enum CacheVerb {
    /// The cache's folder.
    Dir,
    /// Finished stages by size.
    Size,
    /// Remove every finished stage; Python environments stay.
    Prune,
}
