//! The Python package, carried inside the binary: an installed tool needs no source tree, and its
//! stage keys know the exporters' exact text.

use std::path::{Path, PathBuf};

use super::Error;
use crate::digest::{Digest, Hasher};

macro_rules! package {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../../python/soprano_export/", $file)))),*]
    };
}

/// Every module of `python/soprano_export`; a test holds the list to the folder.
const FILES: &[(&str, &str)] = package![
    "__init__.py",
    "__main__.py",
    "checkpoint.py",
    "convertible.py",
    "decoder.py",
    "errors.py",
    "graph.py",
    "hub.py",
    "language_model.py",
    "lm.py",
    "lm_references.py",
    "probes.py",
    "protocol.py",
    "references.py",
    "request.py",
    "synthetic.py",
    "tasks/__init__.py",
    "tasks/bench.py",
    "tasks/convert.py",
    "tasks/download.py",
    "tasks/environment.py",
    "tasks/export_decoder.py",
    "tasks/export_lm.py",
    "tasks/pesq.py",
    "tasks/publish.py",
    "tasks/speak.py",
    "tasks/synthesize.py",
    "tokenizer.py",
    "upstream.py",
    "voice.py",
];

/// The digest of the exporters' source.
pub fn source_digest() -> Digest {
    let mut hasher = Hasher::default();
    for (name, text) in FILES {
        hasher.field(name, text);
    }
    hasher.finish()
}

/// Writes the package below `cache` once, and returns the folder for `PYTHONPATH`.
pub(super) fn unpack(cache: &Path) -> Result<PathBuf, Error> {
    let home = cache.join("exporters");
    let place = home.join(source_digest().short());
    if place.is_dir() {
        return Ok(place);
    }
    std::fs::create_dir_all(&home).map_err(Error::io(&home))?;
    let staging =
        tempfile::Builder::new().prefix(".unpack-").tempdir_in(&home).map_err(Error::io(&home))?;
    for (name, text) in FILES {
        let path = staging.path().join("soprano_export").join(name);
        std::fs::create_dir_all(path.parent().expect("inside the package"))
            .map_err(Error::io(&path))?;
        std::fs::write(&path, text).map_err(Error::io(&path))?;
    }
    match std::fs::rename(staging.path(), &place) {
        // Another process was first: the same files by the same name.
        Err(_) if place.is_dir() => {}
        outcome => outcome.map_err(Error::io(&place))?,
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_is_carried() {
        fn walk(folder: &Path, prefix: &str, into: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                match entry.path() {
                    path if path.is_dir() && name != "__pycache__" => {
                        walk(&path, &format!("{name}/"), into)
                    }
                    path if path.extension().is_some_and(|e| e == "py") => into.push(name),
                    _ => {}
                }
            }
        }
        let mut found = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("python/soprano_export"), "", &mut found);
        found.retain(|name| !name.contains("__pycache__"));
        found.sort();
        assert_eq!(found, FILES.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    }
}
