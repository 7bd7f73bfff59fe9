mod bundles;
mod models;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::parsers::{EVERY_VERBS, Libraries, path, word};
use super::synth::options::Synth;
use crate::names::{Exporter, Oracle, Precision};

pub(super) use bundles::{Bench, Fetch, Publish, Sensitivity, Sign, Validate, Verify};
pub(super) use models::{
    Diff, Granularity, Inspect, PassRun, PassVerb, Quantize, QuantizedForm, Written,
};

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
        help_heading = EVERY_VERBS,
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
        help_heading = EVERY_VERBS,
        env = "SOPRANO_EXPORT_PYTHON",
        value_name = "PATH",
        hide_env_values = true,
        value_parser = path()
    )]
    pub python: Option<PathBuf>,
    #[command(flatten)]
    pub libraries: Libraries,
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

/// Who exports, and who answers for the original model.
#[derive(Args, Clone, Copy, Default)]
pub(super) struct Means {
    /// The exporter [default: the recipe's, or torch where its Python environment is, native elsewhere].
    #[arg(long, alias = "route", value_parser = word::<Exporter>())]
    pub exporter: Option<Exporter>,
    /// What answers the calls that files are held against [default: the recipe's, or pytorch where it or its recorded
    /// answers are, float64 elsewhere].
    #[arg(long, value_parser = word::<Oracle>())]
    pub references: Option<Oracle>,
}

/// Files next to the fp32 one.
#[derive(Args)]
pub(super) struct Files {
    /// Add an int8 file next to the fp32 one.
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
    /// A folder that holds decoder.pth, a hub id (OWNER/NAME[@REVISION]), or seeded:PRESET[#SEED].
    #[arg(long, value_name = "DIR|HUB_ID|seeded:PRESET")]
    pub model: Option<String>,
    /// A recipe's name or file [default: the built-in one of the model].
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub means: Means,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub(super) struct Lm {
    /// A folder with model.safetensors, a hub id (OWNER/NAME[@REVISION]), or seeded:PRESET[#SEED].
    #[arg(long, value_name = "DIR|HUB_ID|seeded:PRESET")]
    pub model: Option<String>,
    /// A recipe's name or file [default: the built-in one of the model].
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub means: Means,
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
    pub means: Means,
    /// Leave out formats other than ONNX.
    #[arg(long)]
    pub onnx_only: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub(super) struct PlanBuild {
    /// Recipes by name or file; more than one for a workflow [default: the built-in one of the model].
    #[arg(value_name = "RECIPE")]
    pub recipes: Vec<String>,
    /// As for `decoder`.
    #[arg(long, value_name = "DIR|HUB_ID|seeded:PRESET", conflicts_with = "format")]
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
    #[command(flatten)]
    pub means: Means,
    /// Plan without formats other than ONNX.
    #[arg(long)]
    pub onnx_only: bool,
    /// Plan with the code that the recipe names as a module, as `build --trust-code` runs it.
    #[arg(long)]
    pub trust_code: bool,
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
pub(super) enum CacheVerb {
    /// The cache's folder.
    Dir,
    /// Finished stages by size.
    Size,
    /// Remove every finished stage; Python environments stay.
    Prune,
}
