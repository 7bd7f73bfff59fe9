use std::path::{Path, PathBuf};

use super::arguments::{RuntimeName, Shared, Validate};
use super::terminal::{self, row, table};
use super::{Answer, Failure, INTERRUPTED, Outcome, build, json, say};
use crate::audio::{Encoding, Wav};
use crate::bundle::{ArtifactEntry, Bundle};
use crate::files;
use crate::ir::Model;
use crate::names::{Ports, Precision, Role};
use crate::quantize::needs_onnxruntime;
use crate::runtime::{Format, Runtime, Tract};
use crate::tensor::Tensor;
use crate::validate::{self, Artifact, Claim, Kind, LONGEST_IN_8_BITS, Metric, References, Verdict};

pub(super) fn validate(options: &Validate, shared: &Shared) -> Outcome {
    let bundle = Bundle::open(&options.bundle)?;
    if options.speech {
        return super::speech::validate(options, &bundle, shared);
    }
    let manifest = bundle.manifest();
    let staged = options.audio.as_deref().map(room_for_audio).transpose()?;
    let is_signal = |entry: &ArtifactEntry| manifest.graph(entry).interface.role() == Role::Signal;
    let speaks = manifest.artifacts.iter().any(is_signal);
    if staged.is_some() && !speaks {
        return Err(Box::new(AudioError::NothingSpoken));
    }
    let runtimes = Runtimes::find(options, shared)?;
    let (mut verdicts, mut unasked) = (Vec::new(), Vec::new());
    for entry in &manifest.artifacts {
        let artifact = bundle.model(entry)?;
        let references = bundle.references(entry)?;
        let Some(verdict) =
            runtimes.judge((entry, &manifest.graph(entry).interface), &artifact, &references)?
        else {
            tellln!("{}: not validated, for no runtime that was asked takes it", entry.file);
            unasked.push(&entry.file);
            continue;
        };
        let heard = is_signal(entry) && entry.format == Format::Onnx;
        if let Some(folder) = staged.as_ref().filter(|_| heard) {
            let rate = manifest.sample_rate().ok_or(AudioError::NoRate)?;
            listen(folder.path(), entry.precision, rate, &artifact, &references)?;
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
        let made = staged.path().to_owned();
        fs_err::rename(&made, target).map_err(AudioError::Io)?;
        let _ = staged.keep();
        tellln!("audio written to {}", target.display());
    }
    let passed = !verdicts.is_empty() && verdicts.iter().all(|(_, verdict)| verdict.passed);
    if runtimes.several() {
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

/// The runtimes that a bundle is validated in.
struct Runtimes {
    /// Those that were found, tract first.
    found: Vec<Box<dyn Runtime>>,
    /// Those that were named; none named means one for each artifact.
    named: Vec<&'static str>,
    /// Whatever was found.
    all: bool,
}

impl Runtimes {
    fn find(options: &Validate, shared: &Shared) -> Result<Self, Failure> {
        let all = options.runtime.contains(&RuntimeName::All);
        let named: Vec<_> = options.runtime.iter().filter_map(|name| name.of()).collect();
        let mut found: Vec<Box<dyn Runtime>> = vec![Box::new(Tract)];
        match build::onnxruntime(shared)? {
            Some(runtime) => found.push(Box::new(runtime)),
            None if named.contains(&"onnxruntime") => {
                build::required_onnxruntime(shared)?;
            }
            None if all => tellln!("onnxruntime is not there: not asked"),
            None => {}
        }
        match build::openvino(shared)? {
            Some(runtime) => found.push(Box::new(runtime)),
            None if named.contains(&"openvino") => {
                build::required_openvino(shared)?;
            }
            None if all => tellln!("openvino is not there: not asked"),
            None => {}
        }
        Ok(Self { found, named, all })
    }

    fn several(&self) -> bool {
        self.all || self.named.len() > 1
    }

    /// Runs an artifact's references in every runtime that is asked and takes it; nothing where none does.
    fn judge(
        &self,
        (entry, ports): (&ArtifactEntry, &Ports),
        artifact: &Artifact,
        references: &References,
    ) -> Result<Option<Verdict>, Failure> {
        let blocks = entry.format == Format::Onnx && needs_onnxruntime(&Model::open(&artifact.path)?);
        let takes = |runtime: &&dyn Runtime| {
            runtime.runs(entry.format)
                && !(blocks && runtime.name() == "tract")
                // Integer products of ONNX are slower than fp32 ones there: its int8 is its own.
                && !(runtime.name() == "openvino"
                    && entry.format == Format::Onnx
                    && entry.precision != Precision::Fp32)
        };
        let asked = |runtime: &&dyn Runtime| {
            self.all || self.named.is_empty() || self.named.contains(&runtime.name())
        };
        let found = self.found.iter().map(AsRef::as_ref);
        let mut runtimes: Vec<&dyn Runtime> = found.filter(takes).filter(asked).collect();
        if self.named.is_empty() && !self.all {
            // One is enough, but for 8 bits, which tract takes minutes for.
            let slow = entry.precision == Precision::Int8 && entry.format == Format::Onnx;
            runtimes.truncate(if slow { 2 } else { 1 });
        }
        let mut beside = None;
        if entry.precision == Precision::Int8 && runtimes.len() > 1 {
            runtimes.rotate_left(1);
            beside = Some(references.clone().up_to(LONGEST_IN_8_BITS)).filter(|r| !r.cases.is_empty());
        }
        let Some((first, others)) = runtimes.split_first() else { return Ok(None) };
        let signature = entry.signature();
        let claim = Claim {
            graph: entry.graph.clone(),
            ports: ports.clone(),
            precision: entry.precision,
            tolerance: entry.tolerance.clone(),
            signature: signature.clone(),
        };
        let quiet = |_: usize, _: usize| {};
        let mut verdict =
            validate::validate(artifact, references, claim, *first, &INTERRUPTED, &quiet)?;
        for other in others {
            let references = beside.as_ref().unwrap_or(references);
            validate::validate_beside(
                &mut verdict,
                artifact,
                references,
                (ports, &signature),
                *first,
                *other,
                &INTERRUPTED,
            )?;
        }
        Ok(Some(verdict))
    }
}

/// Every artifact in every runtime at every shape: how far it is from PyTorch, and from the first runtime.
fn matrix(verdicts: &[(&ArtifactEntry, Verdict)]) -> String {
    let mut rows = vec![row![
        "artifact",
        "runtime",
        "case",
        "batch",
        "tokens",
        "error / peak",
        "SNR",
        "to the first",
        "SNR",
        ""
    ]];
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

/// A staging folder beside `target`, which must not be there yet.
fn room_for_audio(target: &Path) -> Result<tempfile::TempDir, Failure> {
    if target.symlink_metadata().is_ok() {
        return Err(Box::new(AudioError::Exists { path: target.to_owned() }));
    }
    fs_err::create_dir_all(files::home(target)).map_err(AudioError::Io)?;
    Ok(files::folder_beside(target).map_err(AudioError::Io)?)
}

/// Writes every spoken reference twice: PyTorch's own audio, and the model's.
fn listen(
    folder: &Path,
    precision: Precision,
    sample_rate: u32,
    artifact: &Artifact,
    references: &References,
) -> Result<(), Failure> {
    let spoken = references.cases.iter().filter(|case| case.kind == Kind::Spoken && case.batch == 1);
    let spoken: Vec<_> = spoken.collect();
    if spoken.is_empty() {
        return Err(Box::new(AudioError::NothingSpoken));
    }
    let session = Tract.load(&artifact.path)?;
    for case in spoken {
        let made = session.run(&references.inputs(case))?;
        for (name, reference) in references.outputs(case) {
            let write = |by: &str, tensor: &Tensor| -> Result<(), Failure> {
                let path = folder.join(format!("{}.{by}.wav", case.name));
                let samples = tensor.to_f32()?;
                Ok(Wav { sample_rate, samples }.write(&path, Encoding::Pcm16)?)
            };
            write("pytorch", &reference)?;
            if let Some(made) = made.get(&name) {
                write(&format!("{precision}.tract"), made)?;
            }
        }
    }
    Ok(())
}

/// How audio can't be written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum AudioError {
    #[error("{} is there already", path.display())]
    #[diagnostic(code(audio::exists), help("give --audio a folder that doesn't exist yet"))]
    Exists { path: PathBuf },
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
