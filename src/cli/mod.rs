//! The surface for a person at a terminal: verbs, printing, progress, exit codes.

/// `eprint!` of what is shown as [`terminal::plain`] has it.
macro_rules! tell {
    ($($part:tt)*) => { $crate::cli::terminal::tell(&format!($($part)*)) };
}

/// `eprintln!` likewise.
macro_rules! tellln {
    ($($part:tt)*) => { tell!("{}\n", format_args!($($part)*)) };
}

mod against;
mod arguments;
mod bench;
mod build;
mod cache;
mod diff;
mod doctor;
mod here;
mod inspect;
mod parsers;
mod pass;
mod plan;
mod publish;
mod quantize;
mod recipe;
mod sensitivity;
mod synth;
mod terminal;
mod validate;
mod validate_speech;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};
use miette::Diagnostic;

use arguments::{Arguments, Verb, Written};
use here::Here;

use crate::files;
use crate::ir::{Model, Saved, Weights};

/// Set by ctrl-c and by a request to terminate.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the answer to what was asked is yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

/// What ends a verb without an answer.
type Failure = Box<dyn Diagnostic + Send + Sync>;
type Outcome = Result<Answer, Failure>;

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    // ONNX Runtime reports its use over the network unless it is told not to before it is loaded.
    #[allow(unsafe_code)]
    // SAFETY: no other thread has been started yet.
    unsafe {
        std::env::set_var("ORT_DISABLE_TELEMETRY", "1");
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // Verbs that run for long look at the flag and clean up. Any other ends at once, as on a second request.
    let cleans_up = matches!(
        arguments.verb,
        Verb::Decoder(_)
            | Verb::Lm(_)
            | Verb::Build(_)
            | Verb::Validate(_)
            | Verb::Bench(_)
            | Verb::Synth(_)
            | Verb::Diff(_)
            | Verb::Sensitivity(_)
            | Verb::Doctor(_)
            | Verb::Pass(_)
    );
    let handler = move || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) || !cleans_up {
            std::process::exit(130);
        }
    };
    // A write past the limit of file sizes is an error like a full disk, not a death.
    #[allow(unsafe_code)]
    // SAFETY: no handler is installed, the signal is ignored; nothing else depends on it.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    if ctrlc::set_handler(handler).is_err() {
        tellln!("warning: ctrl-c can't be caught here");
    }
    match dispatch(arguments) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(failure) => ExitCode::from(terminal::fail(failure.as_ref())),
    }
}

fn dispatch(arguments: Arguments) -> Outcome {
    let here = Here::new(arguments.shared);
    match arguments.verb {
        Verb::Decoder(options) => build::decoder(&options, &here),
        Verb::Lm(options) => build::lm(&options, &here),
        Verb::Build(options) => build::recipe(&options, &here),
        Verb::Plan(options) => plan::plan(&options, &here),
        Verb::Inspect(options) => inspect::inspect(&options),
        Verb::Diff(options) => diff::diff(&options, &here),
        Verb::Validate(options) => validate::validate(&options, &here),
        Verb::Quantize(options) => quantize::quantize(&options),
        Verb::Sensitivity(options) => sensitivity::sensitivity(&options, &here),
        Verb::Bench(options) => bench::bench(&options, &here),
        Verb::Synth(options) => synth::synth(&options, &here),
        Verb::Verify(options) => verify::verify(&options),
        Verb::Sign(options) => publish::sign(&options),
        Verb::Publish(options) => publish::publish(&options, &here),
        Verb::Fetch(options) => publish::fetch(&options, &here),
        Verb::Doctor(options) => doctor::doctor(&options, &here),
        Verb::Recipe(verb) => recipe::recipe(&verb),
        Verb::Pass(verb) => pass::pass(&verb),
        Verb::Cache(verb) => cache::cache(&verb, &here),
        Verb::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "soprano-export", &mut script);
            say(&String::from_utf8_lossy(&script))
        }
    }
}

/// Writes data to stdout, or [`terminal::plain`] text; a reader that has gone is not a failure.
fn say(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Box::new(Stdout(e))),
        _ => Ok(Answer::Yes),
    }
}

#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("stdout: {0}")]
#[diagnostic(code(cli::stdout))]
struct Stdout(std::io::Error);

/// Refuses, before any work, a file that is in the way.
fn is_free(path: &Path, overwrite: bool) -> Result<(), Failure> {
    let free = match path.symlink_metadata() {
        Ok(_) if !overwrite => Err(std::io::Error::other("it is there already")),
        _ => files::plain(path),
    };
    Ok(free.map_err(|source| Page { path: path.to_owned(), source })?)
}

/// Writes a file of text, whole or not at all, over one that is there.
fn write_page(path: &Path, text: &str) -> Result<(), Failure> {
    let fault = |source| Page { path: path.to_owned(), source };
    files::write(path, text.as_bytes()).map_err(fault)?;
    tellln!("{} written", path.display());
    Ok(())
}

#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{}: {source}", path.display())]
#[diagnostic(
    code(cli::page),
    help("name another place; --overwrite, where there is one, replaces a file")
)]
struct Page {
    path: PathBuf,
    source: std::io::Error,
}

/// Saves a model, and says where its weights are next to it though nobody asked for that.
fn save(model: &Model, path: &Path, options: &Written) -> Result<Saved, Failure> {
    let weights = if options.external_data { Weights::Beside } else { Weights::Inside };
    let saved = model.save(path, options.overwrite, weights)?;
    if let Some((data, written)) = &saved.data {
        let why = if options.external_data { "" } else { ": one file ends at 2 GiB" };
        tellln!("weights in {}, {}{why}", data.display(), terminal::bytes(written.bytes));
    }
    if let Some(left) = &saved.left {
        tellln!(
            "{} is left: it held the weights of the model that was replaced, and nothing here uses it",
            left.display()
        );
    }
    Ok(saved)
}

/// Says how large a model was, and is now that it is saved.
fn tell_sizes(nodes: (usize, usize), weights: (u64, u64), saved: &Saved) {
    let [before, after] = [weights.0, weights.1].map(terminal::bytes);
    let digest = saved.model.digest;
    tellln!("nodes {} -> {}, weights {before} -> {after}, sha256 {digest}", nodes.0, nodes.1);
}

/// Pretty JSON with a newline at its end.
fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain data");
    text.push('\n');
    text
}
