//! Options of verbs that take a bundle.

use std::path::PathBuf;

use clap::Args;

use super::super::parsers::{Asked, asked, path};

#[derive(Args)]
pub(in super::super) struct Validate {
    /// A bundle's folder.
    pub bundle: PathBuf,
    /// Runtimes to run the models in [default: the first that takes each].
    #[arg(long, value_name = "NAME", value_parser = asked())]
    pub runtime: Vec<Asked>,
    /// Run the models against what PyTorch makes of the checkpoint in this folder, the one that the bundle was built
    /// from, in place of the references that the bundle carries.
    #[arg(long, value_name = "DIR", value_parser = path(), conflicts_with_all = ["speech", "audio"])]
    pub against: Option<PathBuf>,
    /// Write what PyTorch and the model make of every spoken reference as WAV files into this new folder.
    #[arg(long, value_name = "DIR")]
    pub audio: Option<PathBuf>,
    /// Let the bundle say the recipe's sentences, in every file and runtime, and compare it with upstream's own run.
    #[arg(long, conflicts_with = "audio")]
    pub speech: bool,
    /// Write a page that plays what was said, with spectrograms.
    #[arg(long, value_name = "FILE", requires = "speech")]
    pub html: Option<PathBuf>,
    /// Print every verdict as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(in super::super) struct Sensitivity {
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
pub(in super::super) struct Bench {
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
    /// Time the checkpoint in this folder in PyTorch too, on the same threads.
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
pub(in super::super) struct Verify {
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
pub(in super::super) struct Sign {
    /// A bundle's folder; the signature goes next to its manifest, which holds every file's digest.
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
pub(in super::super) struct Publish {
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
pub(in super::super) struct Fetch {
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
