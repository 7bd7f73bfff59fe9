//! `validate --speech`: every variant of a bundle, in every runtime, says the sentences that upstream said.

use std::path::PathBuf;

use super::arguments::Validate;
use super::here::{Found, Here};
use super::terminal::{Progress, header, row, table};
use super::{Answer, Failure, INTERRUPTED, Outcome, is_free, json, say, write_page};
use crate::bundle::report::{SpeechPage, Variant, speech_html};
use crate::bundle::{Bundle, Chosen, TOKENIZER};
use crate::export::{self, Python};
use crate::family;
use crate::names::{Precision, Word as _};
use crate::pipeline::Reporter as _;
use crate::recipe;
use crate::runtime::{Format, Options, Runtime};
use crate::validate::pesq;
use crate::validate::speech::{Assessment, Demand, Recorded, assess};

const RECIPE: &str = "recipe.lock.yaml";
const RECORDED: &str = "reference/speech.safetensors";

pub(super) fn validate(options: &Validate, bundle: &Bundle, here: &Here) -> Outcome {
    let manifest = bundle.manifest();
    let missing = || Error::NothingRecorded { bundle: bundle.folder().to_owned() };
    if [RECIPE, RECORDED, TOKENIZER].iter().any(|file| !bundle.lists(file)) {
        return Err(Box::new(missing()));
    }
    options.html.as_deref().map_or(Ok(()), |path| is_free(path, false))?;
    let recorded = Recorded::read(&bundle.file(RECORDED)?)?;
    let recipe = family::recipes().read(&bundle.file(RECIPE)?)?;
    let demands = recipe.speech.ok_or_else(missing)?;
    let sample_rate = manifest.sample_rate().ok_or_else(missing)?;
    let mut python = python_with_pesq(here)?;
    let progress = Progress::new();
    let mut variants = Vec::new();
    let found = here.runtimes(&options.runtime, Options::EXACT)?;
    found.missing.iter().for_each(|error| tellln!("{error}: not asked"));
    for runtime in &found.runtimes {
        for files in whole(bundle, &found, runtime.as_ref())? {
            let voice = bundle.voice(&files)?;
            let first = files[0].entry;
            let (precision, ir) = (first.precision, first.format == Format::OpenVino);
            let format = if ir { " (IR)" } else { "" };
            let name = format!("{precision}{format} in {}", runtime.name_and_version());
            let step = format!("{name}: pieces spoken");
            let report = |done: usize, of: usize| progress.progress(&step, done as u64, of as u64);
            let demand = demand(precision, &demands);
            let mut assessments = assess(&voice, &recorded, demand, &INTERRUPTED, &report)?;
            if let Ok(interpreter) = &python {
                let (root, pieces) = (here.cache().root(), &recorded.pieces);
                match pesq(interpreter, root, pieces, &assessments, sample_rate, &INTERRUPTED) {
                    Ok(scores) => {
                        assessments.iter_mut().zip(scores).for_each(|(a, s)| a.score(s, demand))
                    }
                    Err(export::Error::Interrupted) => return Err(export::Error::Interrupted.into()),
                    Err(error) => python = Err(first_line(&error)),
                }
            }
            variants.push(Variant { name, assessments });
        }
    }
    drop(progress);
    tell!("{}", table(&rows(&variants)));
    let pesq_missing = python.as_ref().err().map(String::as_str);
    if let Some(why) = pesq_missing {
        let least = demands.int8.pesq;
        let demand = least.map(|least| format!("; `speech.int8.pesq` (>= {least}) is not held"));
        tellln!("PESQ is not measured: {why}{}", demand.unwrap_or_default());
    }
    for (variant, one) in variants.iter().flat_map(|v| v.assessments.iter().map(move |one| (v, one))) {
        one.faults.iter().for_each(|fault| tellln!("{}: {}: {fault}", variant.name, one.prompt));
    }
    if let Some(path) = &options.html {
        let (pieces, name, variants) = (&recorded.pieces, &manifest.name, &variants);
        let page = SpeechPage { name, sample_rate, pieces, variants, pesq_missing };
        write_page(path, &speech_html(&page))?;
    }
    if options.json {
        let json_of = |variant: &Variant| {
            let (name, pieces) = (&variant.name, &variant.assessments);
            serde_json::json!({ "variant": name, "pieces": pieces, "pesq_missing": pesq_missing })
        };
        say(&json(&variants.iter().map(json_of).collect::<Vec<_>>()))?;
    }
    if variants.is_empty() {
        tellln!("FAILED: no runtime that was asked takes every graph, so nothing is proven");
        return Ok(Answer::No);
    }
    let passed = variants.iter().flat_map(|v| &v.assessments).all(|one| one.faults.is_empty());
    tellln!("{}", if passed { "PASSED" } else { "FAILED" });
    Ok(if passed { Answer::Yes } else { Answer::No })
}

fn demand(precision: Precision, demands: &recipe::Speech) -> Demand {
    match precision {
        Precision::Fp32 => Demand::Same { snr_db: demands.fp32.snr_db },
        _ => {
            let recipe::Int8Speech { stoi, mel_cepstral_distortion_db, pesq } = demands.int8;
            Demand::Good { stoi, mel_cepstral_distortion_db, pesq }
        }
    }
}

/// The Python environment that has the package `pesq`, or why PESQ can't be measured.
fn python_with_pesq(here: &Here) -> Result<Result<Python, String>, Failure> {
    match here.python() {
        Ok(python) if python.packages().iter().any(|package| package.starts_with("pesq-")) => {
            Ok(Ok(python))
        }
        Ok(_) => Ok(Err("the Python environment has no package `pesq`".to_owned())),
        Err(export::Error::NoPython { .. }) => Ok(Err("no Python environment".to_owned())),
        Err(error) => Err(error.into()),
    }
}

fn first_line(error: &export::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Every graph of the voice, in each precision and format that a runtime takes.
fn whole<'a>(
    bundle: &'a Bundle,
    found: &Found,
    runtime: &'a dyn Runtime,
) -> Result<Vec<Vec<Chosen<'a>>>, Failure> {
    let manifest = bundle.manifest();
    let voice = family::named(&manifest.family).map_or(&[][..], |family| family.voice);
    let mut whole = Vec::new();
    for &format in Format::ALL.iter().filter(|format| runtime.runs(**format)) {
        for &precision in Precision::ALL {
            let of = |graph: &&str| manifest.artifact(graph, precision, format);
            let Some(entries) = voice.iter().map(of).collect::<Option<Vec<_>>>() else { continue };
            let mut files = Vec::new();
            for entry in entries {
                let artifact = bundle.model(entry)?;
                let traits = entry.traits(&artifact)?;
                if found.declines(runtime, &traits).is_none() {
                    files.push(Chosen { entry, artifact, runtime });
                }
            }
            whole.extend((!voice.is_empty() && files.len() == voice.len()).then_some(files));
        }
    }
    Ok(whole)
}

/// A line for each variant: the worst of its pieces.
fn rows(variants: &[Variant]) -> Vec<Vec<String>> {
    let mut rows = vec![header(
        "variant, passed, same tokens, stop alike, drift, SNR own run, SNR, SI-SDR, LSD, MCD, STOI, ESTOI, PESQ",
    )];
    for Variant { name, assessments } in variants {
        let count = |holds: &dyn Fn(&Assessment) -> bool| {
            format!("{} of {}", assessments.iter().filter(|h| holds(h)).count(), assessments.len())
        };
        let least = |of: &dyn Fn(&Assessment) -> Option<f64>| {
            assessments.iter().filter_map(of).reduce(f64::min)
        };
        let show = |value: Option<f64>, digits: usize| {
            value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let most = |of: &dyn Fn(&Assessment) -> Option<f64>| {
            assessments.iter().filter_map(of).reduce(f64::max)
        };
        let drift = assessments.iter().map(|h| h.drift).max_by_key(|drift| drift.abs()).unwrap_or(0);
        rows.push(row![
            name,
            count(&|h| h.faults.is_empty()),
            count(&|h| h.agreeing == h.tokens && h.drift == 0),
            count(&|h| h.stops),
            drift,
            show(least(&|h| h.own_snr_db), 1),
            show(least(&|h| Some(h.snr_db)), 1),
            show(least(&|h| h.si_sdr_db), 1),
            show(most(&|h| Some(h.log_spectral_distance_db)), 3),
            show(most(&|h| h.mel_cepstral_distortion_db), 3),
            show(least(&|h| h.stoi), 4),
            show(least(&|h| h.estoi), 4),
            show(least(&|h| h.pesq), 3)
        ]);
    }
    rows
}

/// Why nothing was assessed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum Error {
    #[error("{}: no speech of upstream's is recorded to compare with", bundle.display())]
    #[diagnostic(
        code(speech::nothing_recorded),
        help(
            "name `sentences` under `speech` in the recipe, for a checkpoint with every graph and a tokenizer"
        )
    )]
    NothingRecorded { bundle: PathBuf },
}
