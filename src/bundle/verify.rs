use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::sign::{self, SIGNATURE};
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
    /// The manifest disagrees about it with the list of digests, or with itself.
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
            Problem::Disputed => "the manifest disagrees with the digests, or with itself",
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

/// Checks every file of a bundle against its digest, in parallel; an empty list means that the bundle is whole. A
/// signature is checked as far as that is possible without a key.
///
/// # Errors
/// [`Error::Manifest`] where the folder isn't a bundle or its manifest, unchanged, can't be understood;
/// [`Error::Io`] where it can't be listed.
pub fn verify(folder: &Path) -> Result<Vec<Finding>, Error> {
    let mut present = BTreeMap::new();
    list(folder, "", &mut present)?;
    let mut findings = Vec::new();
    let mut find = |file: &str, problem| findings.push(Finding { file: file.to_owned(), problem });

    let manifest = Manifest::read(folder);
    let sums = match present.get(SUMS) {
        None => Err(Problem::Missing),
        Some(false) => Err(Problem::Special),
        Some(true) => match crate::files::read(&folder.join(SUMS)) {
            Ok(text) => read_sums(&text).ok_or(Problem::Changed),
            Err(_) => Err(Problem::Unreadable),
        },
    };
    let (expected, listed) = match (sums, &manifest) {
        (Ok(sums), Ok(manifest)) => {
            for (file, entry) in &manifest.files {
                let length = std::fs::metadata(folder.join(file)).map(|found| found.len());
                if sums.get(file) != Some(&entry.sha256) || length.is_ok_and(|n| n != entry.bytes) {
                    find(file, Problem::Disputed);
                }
            }
            disputed(manifest, &mut find);
            for file in sums.keys().filter(|f| *f != MANIFEST && !manifest.files.contains_key(*f)) {
                find(file, Problem::Disputed);
            }
            (sums, true)
        }
        // A manifest that can't be read is missing or changed; the digests below say which.
        (Ok(sums), Err(_)) => (sums, true),
        (Err(problem), Ok(manifest)) => {
            find(SUMS, problem);
            (manifest.files.iter().map(|(file, entry)| (file.clone(), entry.sha256)).collect(), false)
        }
        (Err(_), Err(_)) => return Err(manifest.expect_err("matched")),
    };
    // The manifest doesn't list itself.
    let known = |file: &str| {
        file == SUMS
            || file == SIGNATURE
            || expected.contains_key(file)
            || (!listed && file == MANIFEST)
    };
    match present.get(SIGNATURE) {
        Some(false) => find(SIGNATURE, Problem::Special),
        Some(true) if !sign::is_whole(&folder.join(SIGNATURE)) => find(SIGNATURE, Problem::Changed),
        _ => {}
    }
    for file in present.keys().filter(|file| !known(file)) {
        find(file, Problem::Added);
    }
    findings.extend(hashed(folder, &expected, &present));
    findings.sort();
    findings.dedup();
    match manifest {
        // As it was written, but by another version of this program: what is in it can't be told.
        Err(error) if findings.is_empty() => Err(error),
        _ => Ok(findings),
    }
}

/// The files of which a manifest says two things, or that its models need and it does not list.
fn disputed(manifest: &Manifest, find: &mut dyn FnMut(&str, Problem)) {
    for entry in &manifest.artifacts {
        for (file, _) in entry.files().filter(|(file, own)| manifest.files.get(*file) != Some(own)) {
            find(file, Problem::Disputed);
        }
        if !manifest.files.contains_key(&entry.references) {
            find(&entry.references, Problem::Disputed);
        }
    }
}

/// What is wrong with each file that has a digest, every one hashed.
fn hashed(
    folder: &Path,
    expected: &BTreeMap<String, Digest>,
    present: &BTreeMap<String, bool>,
) -> Vec<Finding> {
    let problem = |(file, digest): (&String, &Digest)| {
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
    };
    expected.par_iter().filter_map(problem).collect()
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

/// The list of digests; none where it isn't, byte for byte, as packing writes it.
fn read_sums(text: &[u8]) -> Option<BTreeMap<String, Digest>> {
    let text = std::str::from_utf8(text).ok()?;
    let entry = |line: &str| {
        let (digest, file) = line.split_once("  ")?;
        Some((file.to_owned(), digest.parse().ok()?))
    };
    let sums: BTreeMap<String, Digest> = text.lines().map(entry).collect::<Option<_>>()?;
    (sums_text(&sums) == text).then_some(sums)
}

/// The text of the list of digests, as `sha256sum -c` reads it.
pub(super) fn sums_text(sums: &BTreeMap<String, Digest>) -> String {
    sums.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect()
}
