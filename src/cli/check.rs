use std::path::Path;

use super::arguments::{Validate, Verify};
use super::terminal;
use super::{Answer, INTERRUPTED, Outcome, json, say};
use crate::bundle::{self, Manifest};
use crate::digest::Digest;
use crate::runtime::Tract;
use crate::validate::{self, Artifact, References};

pub(super) fn verify(options: &Verify) -> Outcome {
    let findings = bundle::verify(&options.bundle)?;
    if options.json {
        say(&json(&findings))?;
    } else {
        let lines: String = findings.iter().map(|f| format!("{}: {}\n", f.file, f.problem)).collect();
        say(&lines)?;
    }
    if findings.is_empty() {
        tellln!("{} is whole", options.bundle.display());
        return Ok(Answer::Yes);
    }
    let count = findings.len();
    tellln!(
        "{} is not whole: {count} {}",
        options.bundle.display(),
        if count == 1 { "file" } else { "files" }
    );
    Ok(Answer::No)
}

pub(super) fn validate(options: &Validate) -> Outcome {
    let manifest = Manifest::read(&options.bundle)?;
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
        let inputs: Vec<String> = entry.inputs.iter().map(|port| port.name.clone()).collect();
        let references = References::read(&references, &inputs)?;
        let artifact = Artifact { path, sha256, bytes: entry.bytes };
        let verdict = validate::validate(
            &artifact,
            &references,
            entry.tolerance,
            &Tract,
            &INTERRUPTED,
            &|_, _| {},
        )?;
        tellln!("{}", entry.file);
        tell!("{}", terminal::verdict(&verdict));
        verdicts.push(verdict);
    }
    if verdicts.is_empty() {
        tellln!("FAILED: the manifest names no model, so nothing is proven");
    }
    let passed = !verdicts.is_empty() && verdicts.iter().all(|verdict| verdict.passed);
    if options.json {
        say(&json(&verdicts))?;
    }
    Ok(if passed { Answer::Yes } else { Answer::No })
}
