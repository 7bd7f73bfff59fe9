use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::{Error, MANIFEST, Manifest, SUMS};
use crate::digest::Digest;

/// How a file of a bundle is not as the bundle says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// Its contents have another digest.
    Changed,
    /// It isn't there.
    Missing,
    /// The bundle doesn't know it.
    Added,
    /// It is a link or no plain file.
    Special,
    /// It can't be read.
    Unreadable,
    /// The manifest and the list of digests disagree about it.
    Disputed,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::Changed => "changed",
            Problem::Missing => "missing",
            Problem::Added => "added",
            Problem::Special => "not a plain file",
            Problem::Unreadable => "unreadable",
            Problem::Disputed => "disputed between manifest and digests",
        })
    }
}

/// One file that isn't right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Path inside the bundle.
    pub file: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Holds every file of a bundle against its digests, in parallel; an empty list means that the bundle
/// is whole.
///
/// # Errors
/// [`Error::Manifest`] where the folder isn't a bundle, [`Error::Io`] where it can't be listed.
pub fn verify(folder: &Path) -> Result<Vec<Finding>, Error> {
    let mut present = BTreeMap::new();
    list(folder, "", &mut present)?;
    let mut findings = Vec::new();
    let mut find = |file: &str, problem| findings.push(Finding { file: file.to_owned(), problem });

    let expected = match std::fs::read_to_string(folder.join(SUMS)) {
        Ok(text) => read_sums(&text).map_err(|why| Error::Manifest { path: folder.join(SUMS), why })?,
        Err(_) if !present.contains_key(MANIFEST) => {
            return Err(Error::Manifest { path: folder.join(MANIFEST), why: "there is none".into() });
        }
        Err(_) => {
            find(SUMS, Problem::Missing);
            BTreeMap::new()
        }
    };
    match Manifest::read(folder) {
        Ok(manifest) => {
            for (file, entry) in &manifest.files {
                if expected.get(file) != Some(&entry.sha256) && !expected.is_empty() {
                    find(file, Problem::Disputed);
                }
            }
            for file in expected.keys().filter(|f| *f != MANIFEST && !manifest.files.contains_key(*f)) {
                find(file, Problem::Disputed);
            }
        }
        // A manifest that can't be read is missing or changed; the digests below say which.
        Err(error) if expected.is_empty() => return Err(error),
        Err(_) => {}
    }
    for file in present.keys().filter(|file| *file != SUMS && !expected.contains_key(*file)) {
        find(file, Problem::Added);
    }
    let checked: Vec<Finding> = expected
        .par_iter()
        .filter_map(|(file, digest)| {
            let problem = match present.get(file) {
                None => Problem::Missing,
                Some(false) => Problem::Special,
                Some(true) => match Digest::of_file(&folder.join(file)) {
                    Ok(found) if found == *digest => return None,
                    Ok(_) => Problem::Changed,
                    Err(_) => Problem::Unreadable,
                },
            };
            Some(Finding { file: file.clone(), problem })
        })
        .collect();
    findings.extend(checked);
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// Every entry below a folder that isn't a folder itself, and whether it is a plain file.
fn list(folder: &Path, prefix: &str, into: &mut BTreeMap<String, bool>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().map_err(Error::io(entry.path()))?;
        if kind.is_dir() {
            list(&entry.path(), &format!("{name}/"), into)?;
        } else {
            into.insert(name, kind.is_file());
        }
    }
    Ok(())
}

fn read_sums(text: &str) -> Result<BTreeMap<String, Digest>, String> {
    let mut sums = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let entry = line.split_once("  ").and_then(|(digest, file)| Some((digest.parse().ok()?, file)));
        let (digest, file) = entry.ok_or_else(|| format!("line {} is not \"DIGEST  FILE\"", at + 1))?;
        if sums.insert(file.to_owned(), digest).is_some() {
            return Err(format!("line {} names {file:?} a second time", at + 1));
        }
    }
    Ok(sums)
}
