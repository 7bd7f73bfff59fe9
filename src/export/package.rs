//! The Python package inside the binary: no source tree is needed, and stage keys depend on the exporters' exact text.

use std::path::{Path, PathBuf};

use super::Error;
use crate::digest::{Digest, Hasher};

/// Every module of `python/soprano_export` by its path, and its text; `build.rs` lists them.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/package.rs"));

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
