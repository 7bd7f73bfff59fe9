mod load;
pub(super) mod options;
mod output;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use options::Synth;
use output::Output;

use super::here::Here;
use super::terminal::{Progress, header, row, table};
use super::{Answer, INTERRUPTED, Outcome, json, say};
use crate::audio::Encoding;
use crate::bundle::Bundle;
use crate::files;
use crate::hardware::Machine;
use crate::pipeline::Reporter as _;
use crate::speech::text::Faults;
use crate::speech::{self, Audience, Sampling, Script, Settings, Summary};

/// The longest text that is read: a long book.
const MOST_BYTES: u64 = 64 << 20;
const DEFAULT_OUTPUT: &str = "speech.wav";
const STDOUT: &str = "-";

pub(super) fn synth(options: &Synth, here: &Here) -> Outcome {
    let bundle = Bundle::open(&options.bundle)?;
    let scripts = scripts(options)?;
    let sample_rate = bundle.manifest().sample_rate().ok_or(Error::NoRate)?;
    let to_stdout = options.output.as_deref() == Some(Path::new(STDOUT));
    if to_stdout && (options.json || options.batch.is_some()) {
        return Err(Box::new(Error::Stdout));
    }
    let settings = settings(options);
    let threads = options.threads.map_or(Machine::detect().physical_cores.max(1), usize::from);
    let encoding = if options.float { Encoding::Float32 } else { Encoding::Pcm16 };
    let target = options.output.clone().unwrap_or_else(|| DEFAULT_OUTPUT.into());
    let overwrite = options.overwrite;
    // What is in the way is known before a model is loaded.
    let output = match (to_stdout, &options.batch) {
        (true, _) => Output::stdout(sample_rate, encoding)?,
        (false, None) => Output::file(&target, overwrite, sample_rate, encoding)?,
        (false, Some(_)) => {
            let names = scripts.iter().map(|script| script.name.replace("line ", "")).collect();
            Output::folder(&target, overwrite, names, sample_rate, encoding)?
        }
    };
    let (voice, with) = load::voice(options, &bundle, threads, here)?;
    let mut listener = Listener { output, progress: Progress::new() };
    let summary = match voice.speak(&scripts, &settings, &mut listener, &INTERRUPTED) {
        Err(error) if output::is_gone(&error) => return Ok(Answer::Yes),
        other => other?,
    };
    let written = listener.output.finish()?;
    let unsaid: Vec<&str> = summary.unsaid.iter().map(|&at| scripts[at].name.as_str()).collect();
    if !unsaid.is_empty() {
        tellln!("warning: nothing to say in {}; passed over, without a file", unsaid.join(", "));
    }
    tell(&summary, &with, sample_rate, threads);
    if options.json {
        let mut figures = figures(&summary, &with, sample_rate, threads, written.as_deref());
        figures["unsaid"] = unsaid.into();
        say(&json(&figures))?;
    } else if let Some(path) = written {
        say(&format!("{}\n", path.display()))?;
    }
    Ok(Answer::Yes)
}

fn settings(options: &Synth) -> Settings {
    Settings {
        sampling: Sampling {
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
            repetition_penalty: options.repetition_penalty,
            seed: options.seed,
        },
        limit: usize::from(options.max_tokens),
        retries: usize::from(options.retries),
        batch: usize::from(options.at_once),
        stream: options.stream.then_some(usize::from(options.chunk)),
        faults: if options.keep_faults { Faults::Kept } else { Faults::Mended },
    }
}

/// What is to be said.
fn scripts(options: &Synth) -> Result<Vec<Script>, Error> {
    let whole = |text: String| vec![Script { name: "the text".to_owned(), text }];
    match (&options.text, &options.file, &options.batch) {
        (Some(text), ..) if text == STDOUT => {
            let mut bytes = Vec::new();
            let place = || PathBuf::from("stdin");
            let read = std::io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes);
            read.map_err(|source| Error::Io { path: place(), source })?;
            Ok(whole(text_of(bytes, &place())?))
        }
        (Some(text), ..) => Ok(whole(text.clone())),
        (None, Some(path), _) => Ok(whole(read(path)?)),
        (None, None, Some(path)) => {
            let text = read(path)?;
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let named = lines
                .map(|(at, line)| Script { name: format!("line {}", at + 1), text: line.to_owned() });
            let scripts: Vec<Script> = named.collect();
            if scripts.is_empty() { Err(Error::NoLine { path: path.clone() }) } else { Ok(scripts) }
        }
        (None, None, None) => unreachable!("one of them is required"),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = files::open_text(path).map_err(io)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    text_of(bytes, path)
}

fn text_of(bytes: Vec<u8>, path: &Path) -> Result<String, Error> {
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::Long { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::NotText { path: path.to_owned(), at }
    })
}

/// Takes samples, and tells a person how far it is.
struct Listener {
    output: Output,
    progress: Progress,
}

impl Audience for Listener {
    fn hear(&mut self, text: usize, samples: &[f32]) -> Result<(), speech::Error> {
        Ok(self.output.take(text, samples)?)
    }

    fn progress(&mut self, done: usize, of: usize) {
        if of > 1 {
            self.progress.progress("sentences said", done as u64, of as u64);
        }
    }
}

fn seconds(summary: &Summary, sample_rate: u32) -> f64 {
    summary.samples as f64 / f64::from(sample_rate)
}

/// Figures to stderr.
fn tell(summary: &Summary, with: &[String], sample_rate: u32, threads: usize) {
    let sentence = |at: &usize| (at + 1).to_string();
    if !summary.unterminated.is_empty() {
        let which: Vec<_> = summary.unterminated.iter().map(sentence).collect();
        tellln!("warning: sentence {} didn't stop by itself and was cut off", which.join(", "));
    }
    if !summary.hallucinated.is_empty() {
        let which: Vec<_> = summary.hallucinated.iter().map(sentence).collect();
        tellln!("warning: sentence {} still repeats one sound after the last retry", which.join(", "));
    }
    let audio = seconds(summary, sample_rate);
    let ms = |duration: std::time::Duration| format!("{:.0} ms", duration.as_secs_f64() * 1e3);
    let first = summary.first_audio.map_or("none".to_owned(), ms);
    let rows = vec![
        header("sentences, tokens, audio, reading, speaking, decoding, first audio, realtime"),
        row![
            summary.sentences,
            summary.tokens,
            format!("{audio:.2} s"),
            ms(summary.reading),
            ms(summary.speaking),
            ms(summary.decoding),
            first,
            format!("{:.1}x", audio / summary.whole.as_secs_f64().max(1e-9))
        ],
    ];
    tell!("{}", table(&rows));
    let threads = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    tellln!("({}; {threads})", with.join(", "));
}

/// The same as data.
fn figures(
    summary: &Summary,
    with: &[String],
    sample_rate: u32,
    threads: usize,
    written: Option<&Path>,
) -> serde_json::Value {
    let audio = seconds(summary, sample_rate);
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    serde_json::json!({
        "output": written,
        "sample_rate": sample_rate,
        "runtimes": with,
        "threads": threads,
        "sentences": summary.sentences,
        "tokens": summary.tokens,
        "samples": summary.samples,
        "did_not_stop": summary.unterminated,
        "humming": summary.hallucinated,
        "reading_ms": ms(summary.reading),
        "speaking_ms": ms(summary.speaking),
        "decoding_ms": ms(summary.decoding),
        "first_audio_ms": summary.first_audio.map(ms),
        "whole_ms": ms(summary.whole),
        "realtime_factor": audio / summary.whole.as_secs_f64().max(1e-9),
        "peak_memory_bytes": crate::validate::bench::peak_memory_bytes(),
    })
}

/// Why a bundle doesn't speak.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum Error {
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(synth::io), help("is the path right, and may you read it, or write there?"))]
    Io { path: PathBuf, source: std::io::Error },
    #[error("stdout takes one sound and nothing else")]
    #[diagnostic(code(synth::stdout), help("leave out --json, and give --batch a folder"))]
    Stdout,
    #[error("the manifest names no sample rate")]
    #[diagnostic(
        code(synth::rate),
        help("a bundle speaks with a decoder and a language model: soprano-export build soprano-1.1")
    )]
    NoRate,
    #[error("{} has no tokenizer.json", bundle.display())]
    #[diagnostic(
        code(synth::tokenizer),
        help("build it from a checkpoint whose tokenizer.json lies next to its weights")
    )]
    NoTokenizer { bundle: PathBuf },
    #[error("the bundle has no {graph} that {engine} would speak with")]
    #[diagnostic(
        code(synth::file),
        help("its manifest.json lists what it has; --precision and --runtime choose")
    )]
    NoFile { graph: String, engine: String },
    #[error("{}: more than 64 MB of text", path.display())]
    #[diagnostic(code(synth::long), help("say it in several runs: split -C 64M FILE"))]
    Long { path: PathBuf },
    #[error("{}: byte {at} is not UTF-8", path.display())]
    #[diagnostic(code(synth::text), help("convert it: iconv -f latin1 -t utf-8 FILE"))]
    NotText { path: PathBuf, at: usize },
    #[error("{}: every line is empty", path.display())]
    #[diagnostic(code(synth::empty), help("write a sentence on each line"))]
    NoLine { path: PathBuf },
}
