use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::super::parsers::{engine, word};
use crate::names::Precision;
use crate::runtime::Engine;

#[derive(Args)]
#[group(skip)]
#[command(group(ArgGroup::new("said").required(true).args(["text", "file", "batch"])))]
pub(in super::super) struct Synth {
    /// A bundle's folder.
    pub bundle: PathBuf,
    /// What to say; `-` reads it from stdin.
    pub text: Option<String>,
    /// Say the text of this file.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Say every line of this file, each into a file of its own in the folder of --output.
    #[arg(long, value_name = "FILE", requires = "output")]
    pub batch: Option<PathBuf>,
    /// The WAV file, or with --batch the folder; `-` writes to stdout [default: speech.wav].
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub output: Option<PathBuf>,
    /// Write samples as 32-bit floats, instead of 16-bit integers.
    #[arg(long)]
    pub float: bool,
    /// Give sound out while a sentence is being said.
    #[arg(long, conflicts_with = "batch")]
    pub stream: bool,
    /// The most tokens (64 ms each in Soprano) of sound that --stream gives out at a time; it begins with one.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "stream",
          value_parser = clap::value_parser!(u16).range(1..=512))]
    pub chunk: u16,
    /// The runtime of every graph [default: onnxruntime where it is found, else openvino, else tract].
    #[arg(long, value_parser = engine(), value_name = "NAME")]
    pub runtime: Option<&'static dyn Engine>,
    /// The language model's runtime.
    #[arg(long, value_parser = engine(), value_name = "NAME")]
    pub lm_runtime: Option<&'static dyn Engine>,
    /// The decoder's runtime.
    #[arg(long, value_parser = engine(), value_name = "NAME")]
    pub decoder_runtime: Option<&'static dyn Engine>,
    /// Which files of the bundle [default: the smallest that the runtime is fast with].
    #[arg(long, value_parser = word::<Precision>(), value_name = "PRECISION", alias = "scheme")]
    pub precision: Option<Precision>,
    /// Threads of every runtime but tract, which has one [default: this machine's physical cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Sentences that are said at once.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "stream",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub at_once: u16,
    /// 0 takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = number::<0, 100>)]
    pub temperature: f32,
    /// Choose among the K likeliest tokens; 0 among all.
    #[arg(long, value_name = "K", default_value_t = 50)]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = number::<0, 1>)]
    pub top_p: f32,
    /// Choose among tokens that are at least this likely, as a share of the likeliest.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = number::<0, 1>)]
    pub min_p: f32,
    /// How much less likely a token is that is in the prompt or was said; 1 is none.
    #[arg(long, value_name = "X", default_value_t = 1.2, value_parser = number::<1, 100>)]
    pub repetition_penalty: f32,
    /// Two runs with one seed say the same.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The most tokens of a sentence.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub max_tokens: u16,
    /// How often a sentence is said again in which the model only repeats one sound.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "stream",
          value_parser = clap::value_parser!(u16).range(0..=100))]
    pub retries: u16,
    /// Read numbers, times and signs with the faults of the released front end, to the letter.
    #[arg(long)]
    pub keep_faults: bool,
    /// Replace a file or folder that is in the way.
    #[arg(long)]
    pub overwrite: bool,
    /// Print figures as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// A number within bounds; NaN is in none.
fn number<const FROM: u16, const TO: u16>(text: &str) -> Result<f32, String> {
    let bounds = f32::from(FROM)..=f32::from(TO);
    let value = text.parse::<f32>().ok().filter(|value| bounds.contains(value));
    value.ok_or_else(|| format!("a number from {FROM} to {TO} is needed"))
}
