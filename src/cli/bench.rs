mod probe;
mod pytorch;
mod show;
mod variants;

use std::path::PathBuf;

use super::arguments::Bench as Options;
use super::here::Here;
use super::terminal::Progress;
use super::{Answer, Failure, INTERRUPTED, Outcome, json, say, write_page};
use crate::bundle::{self, Bundle};
use crate::hardware::Machine;
use crate::pipeline::Reporter as _;
use crate::recipe::Recipe;
use crate::runtime;
use crate::validate::Part;
use crate::validate::bench::{
    self, Fresh, Point, Rendition, Report, Row, SpeakingRate, Subject, TEXTS, USUAL_TEXT,
};

use variants::Variant;

const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
/// Processes that load each variant anew.
const PROCESSES: usize = 3;
/// The recipe inside a bundle.
const RECIPE: &str = "recipe.lock.yaml";

pub(super) fn bench(options: &Options, here: &Here) -> Outcome {
    if let Some(file) = &options.alone {
        return probe::alone(options, file, here);
    }
    if let Some(html) = &options.html
        && !options.overwrite
        && html.symlink_metadata().is_ok()
    {
        return Err(Box::new(Error::Exists { path: html.clone() }));
    }
    let bundle = Bundle::open(&options.bundle)?;
    let recipe = match bundle.lists(RECIPE) {
        true => Some(Recipe::read(&bundle.file(RECIPE)?)?),
        false if options.gate => {
            return Err(Box::new(Error::NoRecipe { bundle: options.bundle.clone() }));
        }
        false => None,
    };
    let gate = recipe.as_ref().filter(|_| options.gate).and_then(|recipe| recipe.gate.clone());
    if options.gate && gate.is_none() {
        return Err(Box::new(Error::NoGate { bundle: options.bundle.clone() }));
    }
    let machine = Machine::detect();
    let threads = options.threads.map_or(machine.physical_cores.max(1), usize::from);
    let rounds = options.rounds.map(usize::from);
    let rounds = rounds.unwrap_or(if options.quick { QUICK_ROUNDS } else { ROUNDS });
    let plan = Rounds { threads, rounds, quick: options.quick };

    let found = here.runtimes(&options.runtime, runtime::Options::fast(threads))?;
    let (variants, mut left_out) = variants::of(&bundle, &found)?;
    left_out.splice(0..0, found.missing.iter().map(|error| format!("{error}; it is left out")));
    left_out.iter().for_each(|why| tellln!("{why}"));
    if variants.is_empty() {
        return Err(Box::new(Error::Nothing { bundle: options.bundle.clone() }));
    }

    let mut rows = Vec::new();
    for part in [Part::Lm, Part::Decoder] {
        let all: Vec<&Variant<'_>> = variants.iter().filter(|v| v.entry.part == part).collect();
        if all.is_empty() {
            tellln!("the bundle has no {part}: whole speech can't be estimated");
            continue;
        }
        let before = pytorch::run(options, here, part, plan)?;
        rows.extend(measured(&all, part, options, here, plan, &mut left_out)?);
        let after = pytorch::run(options, here, part, plan)?;
        rows.extend(before.zip(after).map(|(before, after)| pytorch::better(before, after)));
    }
    if rows.iter().all(|row| row.file.is_none()) {
        return Err(Box::new(Error::Nothing { bundle: options.bundle.clone() }));
    }

    let rendition = rendition(&bundle, recipe.as_ref())?;
    let whole = bench::whole(&rows, &rendition, &TEXTS);
    let best = bench::best(&whole, &rows, USUAL_TEXT);
    let best_whole = best.map(|at| &whole[at]);
    let gate = gate.map(|gate| bench::held(&gate, &rows, &rendition, best_whole)).unwrap_or_default();
    let name = bundle.manifest().name.clone();
    let report =
        Report { name, machine, threads, rounds, rendition, rows, whole, best, left_out, gate };

    if let Some(html) = &options.html {
        write_page(html, &bundle::report::bench_html(&report))?;
    }
    match options.json {
        true => say(&json(&report))?,
        false => say(&show::tables(&report))?,
    };
    for held in &report.gate {
        tellln!("{}", show::demand(held));
    }
    Ok(if report.gate.iter().all(|held| held.held) { Answer::Yes } else { Answer::No })
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Rounds {
    threads: usize,
    rounds: usize,
    quick: bool,
}

/// Every variant of a half: first each in processes of its own, then all in turn. One that a runtime can't
/// load or run is left out, with a sentence.
fn measured(
    variants: &[&Variant<'_>],
    part: Part,
    options: &Options,
    here: &Here,
    plan: Rounds,
    left_out: &mut Vec<String>,
) -> Result<Vec<Row>, Failure> {
    let progress = Progress::new();
    let processes = if plan.quick { 1 } else { PROCESSES };
    let mut fresh = vec![Vec::new(); variants.len()];
    let mut failed = vec![None; variants.len()];
    let all = (processes * variants.len()) as u64;
    for turn in 0..processes {
        for (at, variant) in variants.iter().enumerate() {
            if failed[at].is_some() {
                continue;
            }
            progress.progress("load", (turn * variants.len() + at) as u64, all);
            match probe::start(variant, options, here, plan.threads)? {
                Ok(found) => fresh[at].push(found),
                Err(why) => failed[at] = Some(why),
            }
        }
    }
    let mut able = Vec::new();
    for ((variant, fresh), failed) in variants.iter().zip(&fresh).zip(failed) {
        match (Fresh::of(fresh), failed) {
            (Some(fresh), None) => able.push((variant, fresh)),
            (_, failed) => {
                let why = failed.unwrap_or_default();
                let why = format!(
                    "{} is not measured in {}: {why}",
                    variant.entry.file,
                    variant.runtime.name()
                );
                tellln!("{why}");
                left_out.push(why);
            }
        }
    }
    let subjects: Vec<Subject<'_>> = able
        .iter()
        .map(|(variant, _)| Subject {
            path: variant.path.clone(),
            feed: &variant.feed,
            runtime: variant.runtime,
        })
        .collect();
    let done = |done, total| progress.progress(part.name(), done as u64, total as u64);
    let points = Point::of(part, plan.quick);
    let figures = bench::measure(&subjects, &points, plan.rounds, &INTERRUPTED, &done);
    drop(progress);
    let row = |((variant, fresh), figures): ((&&Variant<'_>, Fresh), Vec<_>)| Row {
        part,
        scheme: variant.entry.scheme,
        file: Some(variant.entry.file.clone()),
        bytes: Some(variant.entry.all_bytes()),
        runtime: variant.runtime.name_and_version(),
        fresh,
        figures,
    };
    Ok(able.into_iter().zip(figures?).map(row).collect())
}

/// How this bundle's tokens become sound, and how many of them a text takes.
fn rendition(bundle: &Bundle, recipe: Option<&Recipe>) -> Result<Rendition, Failure> {
    let manifest = bundle.manifest();
    let number = |name: &str| {
        let value = manifest.architecture.get(name).and_then(serde_json::Value::as_u64)?;
        usize::try_from(value).ok().filter(|&value| value > 0)
    };
    // A language model alone doesn't say: every Soprano makes 2048 samples of a token, at 32 kHz.
    let samples_per_token =
        number("hop_length").zip(number("upscale")).map_or(2048, |(hop, upscale)| hop * upscale);
    let sample_rate = number("sample_rate").unwrap_or(32_000);
    let mut rate = None;
    for part in [Part::Lm, Part::Decoder] {
        let entry = manifest.artifacts.iter().find(|entry| entry.part == part);
        let sentences = recipe.and_then(|recipe| match part {
            Part::Lm => recipe.lm.as_ref().map(|lm| &lm.references.sentences),
            Part::Decoder => recipe.decoder.as_ref().map(|decoder| &decoder.references.sentences),
        });
        let (Some(entry), Some(sentences)) = (entry, sentences.filter(|all| !all.is_empty())) else {
            continue;
        };
        let references = bundle.references(entry)?;
        let found = match part {
            Part::Lm => SpeakingRate::of_lm(sentences, &references),
            Part::Decoder => SpeakingRate::of_decoder(sentences, &references),
        };
        if rate.is_none() {
            rate = found;
        }
    }
    let rate = rate.unwrap_or_else(SpeakingRate::of_soprano_mini);
    Ok(Rendition { samples_per_token, sample_rate, rate })
}

/// Why a bundle can't be timed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum Error {
    #[error("{} is there already", path.display())]
    #[diagnostic(code(bench::exists), help("--overwrite replaces it"))]
    Exists { path: PathBuf },
    #[error("{}: nothing in it can be timed here", bundle.display())]
    #[diagnostic(
        code(bench::nothing),
        help(
            "manifest.json lists the bundle's models; --runtime all takes every runtime that is found"
        )
    )]
    Nothing { bundle: PathBuf },
    #[error("{}: its recipe asks for nothing", bundle.display())]
    #[diagnostic(
        code(bench::no_gate),
        help(
            "add `gate: {{lm: {{faster_than_fp32: 1.5}}}}` to the recipe and build again, or leave --gate out"
        )
    )]
    NoGate { bundle: PathBuf },
    #[error("{}: the bundle has no {RECIPE}", bundle.display())]
    #[diagnostic(code(bench::no_recipe), help("build the bundle again, or leave --gate out"))]
    NoRecipe { bundle: PathBuf },
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(bench::io))]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: its model can't be timed in a process of its own: {source}", path.display())]
    #[diagnostic(code(bench::probe))]
    Probe { path: PathBuf, source: std::io::Error },
    #[error("the bundle has no model {file:?}")]
    #[diagnostic(code(bench::no_model), help("manifest.json lists the bundle's models"))]
    NoModel { file: String },
    #[error("PyTorch gave no figures: {why}")]
    #[diagnostic(code(bench::pytorch), help("make setup installs it"))]
    PyTorch { why: String },
    #[error("interrupted")]
    #[diagnostic(code(bench::interrupted))]
    Interrupted,
}
