use std::path::{Path, PathBuf};

use super::arguments::{Shared, Validate, Verify};
use super::terminal;
use super::{Answer, Failure, INTERRUPTED, Outcome, build, json, publish, say};
use crate::audio::{Encoding, Wav};
use crate::bundle::{self, Manifest};
use crate::digest::Digest;
use crate::ir::Model;
use crate::quantize::needs_onnxruntime;
use crate::runtime::{Runtime, Tract};
use crate::tensor::Tensor;
use crate::validate::{self, Artifact, Claim, Kind, Part, References, Scheme};

pub(super) fn verify(options: &Verify) -> Outcome {
    let findings = bundle::verify(&options.bundle)?;
    if options.json {
        say(&json(&findings))?;
    } else {
        let lines: String = findings.iter().map(|f| format!("{}: {}\n", f.file, f.problem)).collect();
        say(&lines)?;
    }
    let signature =
        options.key.as_deref().map(|key| publish::signature(&options.bundle, key)).transpose()?;
    let folder = options.bundle.display();
    if let Some((_, Some(problem))) = &signature {
        tellln!("{folder}: {problem}");
    }
    if findings.is_empty() {
        return Ok(match signature {
            None => {
                tellln!("{folder} is whole");
                Answer::Yes
            }
            Some((key, None)) => {
                tellln!("{folder} is whole, and signed by {}", key.id());
                Answer::Yes
            }
            Some((_, Some(_))) => Answer::No,
        });
    }
    let count = findings.len();
    tellln!("{folder} is not whole: {count} {}", if count == 1 { "file" } else { "files" });
    Ok(Answer::No)
}

pub(super) fn validate(options: &Validate, shared: &Shared) -> Outcome {
    let manifest = Manifest::read(&options.bundle)?;
    let staged = options.audio.as_deref().map(room_for_audio).transpose()?;
    let speaks = manifest.artifacts.iter().any(|entry| entry.part == Part::Decoder);
    if staged.is_some() && !speaks {
        return Err(Box::new(AudioError::NothingSpoken));
    }
    let mut verdicts = Vec::new();
    for entry in &manifest.artifacts {
        let inside = |file: &str| -> Result<std::path::PathBuf, bundle::Error> {
            let plain =
                Path::new(file).components().all(|c| matches!(c, std::path::Component::Normal(_)));
            if plain && !file.is_empty() {
                return Ok(options.bundle.join(file));
            }
            let why = format!("{file:?} leads out of the bundle");
            Err(bundle::Error::Manifest { path: options.bundle.join(bundle::MANIFEST), why })
        };
        let (path, references) = (inside(&entry.file)?, inside(&entry.references)?);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| bundle::Error::Io { path, source }
        };
        let sha256 = Digest::of_file(&path).map_err(io(&path))?;
        if sha256 != entry.sha256 {
            let (expected, found) = (entry.sha256.to_string(), sha256.to_string());
            return Err(Box::new(bundle::Error::Changed { path, expected, found }));
        }
        let recorded = Digest::of_file(&references).map_err(io(&references))?;
        if manifest.files.get(&entry.references).is_none_or(|file| file.sha256 != recorded) {
            let expected =
                manifest.files.get(&entry.references).map_or("none".into(), |f| f.sha256.to_string());
            return Err(Box::new(bundle::Error::Changed {
                path: references,
                expected,
                found: recorded.to_string(),
            }));
        }
        let inputs = validate::recorded_inputs(entry.inputs.iter().map(|port| port.name.as_str()));
        let references = References::read(&references, &inputs)?;
        let artifact = Artifact { path, sha256, bytes: entry.bytes };
        let needed = match needs_onnxruntime(&Model::open(&artifact.path)?) {
            true => Some(build::required_onnxruntime(shared)?),
            false => None,
        };
        let runtime: &dyn Runtime = needed.as_ref().map_or(&Tract, |found| found as &dyn Runtime);
        let verdict = validate::validate(
            &artifact,
            &references,
            Claim { part: entry.part, scheme: entry.scheme, tolerance: entry.tolerance.clone() },
            runtime,
            &INTERRUPTED,
            &|_, _| {},
        )?;
        if let Some(folder) = staged.as_ref().filter(|_| entry.part == Part::Decoder) {
            let rate = manifest.architecture.get("sample_rate").and_then(serde_json::Value::as_u64);
            let rate = rate.and_then(|hz| u32::try_from(hz).ok()).ok_or(AudioError::NoRate)?;
            listen(folder.path(), entry.scheme, rate, &artifact, &references)?;
        }
        tellln!("{}", entry.file);
        tell!("{}", terminal::verdict(&verdict));
        verdicts.push(verdict);
    }
    if verdicts.is_empty() {
        tellln!("FAILED: the manifest names no model, so nothing is proven");
    }
    if let (Some(staged), Some(target)) = (staged, &options.audio) {
        let made = staged.path().to_owned();
        fs_err::rename(&made, target).map_err(AudioError::Io)?;
        let _ = staged.keep();
        tellln!("audio written to {}", target.display());
    }
    let passed = !verdicts.is_empty() && verdicts.iter().all(|verdict| verdict.passed);
    if options.json {
        say(&json(&verdicts))?;
    }
    Ok(if passed { Answer::Yes } else { Answer::No })
}

/// A staging folder beside `target`, which must not be there yet.
fn room_for_audio(target: &Path) -> Result<tempfile::TempDir, Failure> {
    if target.symlink_metadata().is_ok() {
        return Err(Box::new(AudioError::Exists { path: target.to_owned() }));
    }
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs_err::create_dir_all(parent).map_err(AudioError::Io)?;
    let staged = tempfile::Builder::new().prefix(".audio-").tempdir_in(parent);
    Ok(staged.map_err(AudioError::Io)?)
}

/// Writes every spoken reference twice: PyTorch's own audio, and the model's.
fn listen(
    folder: &Path,
    scheme: Scheme,
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
                write(&format!("{scheme}.tract"), made)?;
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
