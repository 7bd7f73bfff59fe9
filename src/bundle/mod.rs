//! A finished bundle: layout, manifest, report, verification, signatures, provenance, publishing.

mod files;
mod manifest;
mod open;
mod pack;
mod provenance;
#[cfg(feature = "publish")]
pub mod publish;
#[cfg(feature = "report")]
pub mod report;
pub mod sign;
mod verify;
mod voice;

use std::path::PathBuf;

pub use files::{FileEntry, hashed_copy};
pub use manifest::{
    ArtifactEntry, CheckpointEntry, FORMAT, Framing, GraphEntry, Manifest, SpeedGate, Tool,
    WeightsEntry,
};
pub use open::{Bundle, OpenError};
pub use pack::{Contents, Extra, pack, room_for};
pub use provenance::{BILL, STATEMENT, provenance};
pub use verify::{Finding, Problem, verify};
pub use voice::{Chosen, TOKENIZER};

/// The manifest's name.
pub const MANIFEST: &str = "manifest.json";
/// The list of digests that `sha256sum -c` reads.
pub const SUMS: &str = "SHA256SUMS";

/// How a bundle can't be written or read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(bundle::io), help("{}", hint(source)))]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} exists already", path.display())]
    #[diagnostic(
        code(bundle::exists),
        help("choose another folder with -o, or replace it with --overwrite")
    )]
    Exists { path: PathBuf },
    #[error("{} is not a bundle, and nothing else is ever overwritten", path.display())]
    #[diagnostic(code(bundle::foreign), help("choose another folder with -o"))]
    Foreign { path: PathBuf },
    #[error("{}: {why}", path.display())]
    #[diagnostic(
        code(bundle::manifest),
        help("is this the folder of a bundle, with its manifest.json?")
    )]
    Manifest { path: PathBuf, why: String },
    #[error("{}: format {format}; this version reads formats 1 and 2", path.display())]
    #[diagnostic(code(bundle::format), help("another version of soprano-export made it: use that one"))]
    Later { path: PathBuf, format: u32 },
    #[error("{}: its digest is {found}, and {expected} was validated", path.display())]
    #[diagnostic(
        code(bundle::changed),
        help("something changed the file meanwhile: run the build again")
    )]
    Changed { path: PathBuf, expected: String, found: String },
    #[error("{}: the artifact that {file} names did not pass its own validation", path.display())]
    #[diagnostic(code(bundle::unvalidated))]
    Unvalidated { path: PathBuf, file: String },
}

pub(crate) fn hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match error.kind() {
        StorageFull | QuotaExceeded => "make room on this disk, or choose another with -o",
        PermissionDenied | ReadOnlyFilesystem => "choose a folder that you may write to with -o",
        NotFound => "does the folder exist?",
        _ => "nothing was left half-written",
    }
}

impl Error {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
