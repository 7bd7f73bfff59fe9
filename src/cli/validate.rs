use std::path::Path;

use super::against::PyTorch;
use super::arguments::Validate;
use super::here::{Found, Here};
use super::parsers::Asked;
use super::terminal::{self, header, row, table};
use super::{Answer, Failure, INTERRUPTED, Outcome, is_free, json, say};
use crate::audio::{Encoding, Wav};
use crate::bundle::{ArtifactEntry, Bundle};
use crate::files;
use crate::names::{Ports, Precision, Role};
use crate::runtime::{Format, Options, Runtime, Takes, Traits};
use crate::tensor::Tensor;
use crate::validate::{self, Artifact, Case, Claim, Kind, Metric, References, Verdict};

pub(super) fn validate(options: &Validate, here: &Here) -> Outcome {
    let bundle = Bundle::open(&options.bundle)?;
    if options.speech {
        return super::validate_speech::validate(options, &bundle, here);
    }
    let manifest = bundle.manifest();
    let staged = options.audio.as_deref().map(room_for_audio).transpose()?;
    let is_signal = |entry: &ArtifactEntry| manifest.graph(entry).interface.role() == Role::Signal;
    let speaks = manifest.artifacts.iter().any(is_signal);
    if staged.is_some() && !speaks {
        return Err(Box::new(AudioError::NothingSpoken));
    }
    let found = here.runtimes(&options.runtime, Options::EXACT)?;
    if options.runtime.contains(&Asked::All) {
        found.missing.iter().for_each(|error| tellln!("{error}: not asked"));
    }
    let against = options.against.as_deref();
    let asked = against.map(|checkpoint| PyTorch::of(checkpoint, &bundle, here)).transpose()?;
    let (mut verdicts, mut unasked) = (Vec::new(), Vec::new());
    for entry in &manifest.artifacts {
        let artifact = bundle.model(entry)?;
        let references = match &asked {
            Some(asked) => bundle.references_in(entry, asked.answers(&entry.graph)?)?,
            None => bundle.references(entry)?,
        };
        let (ports, traits) = (&manifest.graph(entry).interface, entry.traits(&artifact)?);
        let runtimes = judges(options, &found, &traits);
        let Some(verdict) = judge((entry, ports), &artifact, &traits, &references, &runtimes)? else {
            tellln!("{}: not validated, for no runtime that was asked takes it", entry.file);
            unasked.push(&entry.file);
            continue;
        };
        let is_audible = is_signal(entry) && entry.format == Format::Onnx;
        if let (Some(folder), true, Some(&first)) = (&staged, is_audible, runtimes.first()) {
            let rate = manifest.sample_rate().ok_or(AudioError::NoRate)?;
            listen(folder.path(), (entry.precision, first), rate, &artifact, &references)?;
        }
        tellln!("{}", entry.file);
        tell!("{}", terminal::verdict(&verdict));
        verdicts.push((entry, verdict));
    }
    if verdicts.is_empty() {
        let why = if unasked.is_empty() { "the manifest names no model" } else { "nothing was run" };
        tellln!("FAILED: {why}, so nothing is proven");
    }
    if let (Some(staged), Some(target)) = (staged, &options.audio) {
        fs_err::rename(staged.path(), target).map_err(AudioError::Io)?;
        let _ = staged.keep();
        tellln!("audio written to {}", target.display());
    }
    let passed = !verdicts.is_empty() && verdicts.iter().all(|(_, verdict)| verdict.passed);
    if options.runtime.len() > 1 || options.runtime.contains(&Asked::All) {
        tell!("\n{}", matrix(&verdicts));
        if let Some((entry, _)) = verdicts.iter().find(|(_, v)| v.beside.iter().any(|b| !b.passed())) {
            let model = options.bundle.join(&entry.file);
            tellln!("hint: soprano-export diff {} --run names the first node", model.display());
        }
    }
    if options.json {
        let verdicts: Vec<&Verdict> = verdicts.iter().map(|(_, verdict)| verdict).collect();
        say(&json(&verdicts))?;
    }
    Ok(if passed { Answer::Yes } else { Answer::No })
}

/// The runtimes that are asked and take a file, in their order.
fn judges<'f>(options: &Validate, found: &'f Found, traits: &Traits) -> Vec<&'f dyn Runtime> {
    let takes = |runtime: &&dyn Runtime| !matches!(runtime.takes(traits), Takes::Not(_));
    let runtimes = found.runtimes.iter().map(AsRef::as_ref).filter(takes);
    let mut runtimes: Vec<&dyn Runtime> = runtimes.collect();
    if options.runtime.is_empty() {
        // One is enough, but where it is slow.
        let slow = runtimes.first().is_some_and(|r| matches!(r.takes(traits), Takes::Slowly(_)));
        runtimes.truncate(if slow { 2 } else { 1 });
    }
    runtimes
}

/// Runs an artifact's references in each of the runtimes; nothing where there is none.
fn judge(
    (entry, ports): (&ArtifactEntry, &Ports),
    artifact: &Artifact,
    traits: &Traits,
    references: &References,
    runtimes: &[&dyn Runtime],
) -> Result<Option<Verdict>, Failure> {
    let claim = Claim {
        graph: entry.graph.clone(),
        ports: ports.clone(),
        precision: entry.precision,
        tolerance: entry.tolerance.clone(),
        signature: entry.signature(),
    };
    let quiet = |_: usize, _: usize| {};
    Ok(validate::judge(artifact, traits, references, claim, runtimes, &INTERRUPTED, &quiet)?)
}

/// Every artifact in every runtime at every shape: how far it is from PyTorch, and from the first runtime.
fn matrix(verdicts: &[(&ArtifactEntry, Verdict)]) -> String {
    let mut rows =
        vec![header("artifact, runtime, case, batch, tokens, error / peak, SNR, to the first, SNR, ")];
    for (entry, verdict) in verdicts {
        let first = std::iter::once((verdict, None));
        let beside = verdict.beside.iter().map(|beside| (&beside.verdict, Some(beside)));
        for (verdict, beside) in first.chain(beside) {
            for case in &verdict.cases {
                let show = |metric: Metric, value: Option<f64>| {
                    value.map_or_else(|| "-".to_owned(), |value| metric.show(value))
                };
                let agreement =
                    beside.and_then(|b| b.compared.iter().find(|found| found.case == case.name));
                let between = |metric| show(metric, agreement.and_then(|a| a.measured.get(metric)));
                let good = case.passed && agreement.is_none_or(|agreement| agreement.passed);
                rows.push(row![
                    entry.file,
                    verdict.runtime,
                    case.name,
                    case.batch,
                    case.length,
                    show(Metric::MaxAbsOfPeak, case.measured.get(Metric::MaxAbsOfPeak)),
                    show(Metric::SnrDb, case.measured.get(Metric::SnrDb)),
                    between(Metric::MaxAbsOfPeak),
                    between(Metric::SnrDb),
                    match good {
                        true if case.ill_conditioned.is_some() => "ill-conditioned",
                        true => "passed",
                        false => "FAILED",
                    }
                ]);
            }
        }
    }
    table(&rows)
}

/// A staging folder next to `target`, which must not be there yet.
fn room_for_audio(target: &Path) -> Result<tempfile::TempDir, Failure> {
    is_free(target, false)?;
    fs_err::create_dir_all(files::home(target)).map_err(AudioError::Io)?;
    Ok(files::folder_beside(target).map_err(AudioError::Io)?)
}

/// Writes every spoken reference twice: PyTorch's own audio, and the model's in a runtime.
fn listen(
    folder: &Path,
    (precision, runtime): (Precision, &dyn Runtime),
    sample_rate: u32,
    artifact: &Artifact,
    references: &References,
) -> Result<(), Failure> {
    let is_sentence = |case: &&Case| case.kind == Kind::Spoken && case.batch == 1;
    let sentences: Vec<&Case> = references.cases.iter().filter(is_sentence).collect();
    if sentences.is_empty() {
        return Err(Box::new(AudioError::NothingSpoken));
    }
    let session = runtime.load(&artifact.path)?;
    for case in sentences {
        let outputs = session.run(&references.inputs(case))?;
        for (name, reference) in references.outputs(case) {
            let write = |by: &str, tensor: &Tensor| -> Result<(), Failure> {
                let path = folder.join(format!("{}.{by}.wav", case.name));
                let samples = tensor.to_f32()?;
                Ok(Wav { sample_rate, samples }.write(&path, Encoding::Pcm16)?)
            };
            write("pytorch", &reference)?;
            if let Some(output) = outputs.get(&name) {
                write(&format!("{precision}.{}", runtime.name()), output)?;
            }
        }
    }
    Ok(())
}

/// How audio can't be written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum AudioError {
    #[error("no reference of this bundle is speech")]
    #[diagnostic(
        code(audio::nothing_spoken),
        help(
            "name `sentences` under decoder.references in the recipe, for a checkpoint with a language model"
        )
    )]
    NothingSpoken,
    #[error("the manifest names no sample rate")]
    #[diagnostic(code(audio::rate), help("build the bundle again"))]
    NoRate,
    #[error("{0}")]
    #[diagnostic(code(audio::io))]
    Io(std::io::Error),
}
