//! Runs the Python exporters as child processes: a JSON request in, JSON lines out; files are hashed again here.

mod child;
mod package;
mod python;
mod request;

use std::path::PathBuf;

pub use child::{Artifact, Child, Outcome, Progress};
pub use package::source_digest;
pub use python::Python;
pub use request::{
    Bench, Convert, Export, InputShape, PublishFile, Record, References, Request, Speak, Subject,
    TrustedModule,
};

/// How an export fails.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// No environment of the family was found.
    #[error("no Python environment of the family {family:?} was found")]
    #[diagnostic(
        code(export::no_python),
        help("make setup   (or name an interpreter with --python PATH)")
    )]
    NoPython { family: String },
    /// The interpreter that was named is not one of a virtual environment, or too old.
    #[error("{}: {why}", path.display())]
    #[diagnostic(
        code(export::bad_python),
        help("make setup   (or name an interpreter with --python PATH)")
    )]
    BadPython { path: PathBuf, why: String },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(export::io))]
    Io { path: PathBuf, source: std::io::Error },
    /// The task refused, with its own words.
    #[error("the exporter refuses ({code}): {message}")]
    #[diagnostic(code(export::refused), help("{hint}"))]
    Refused { code: String, message: String, hint: String },
    /// The child ended without a result.
    #[error("the exporter ended without a result ({status}); its last lines:\n{tail}")]
    #[diagnostic(code(export::crashed), help("the whole log: {}", log.display()))]
    Crashed { status: String, tail: String, log: PathBuf },
    /// The child said nothing for too long, and was ended.
    #[error(
        "the exporter was silent past its time limit of {seconds} s during {step:?}; its last lines:\n{tail}"
    )]
    #[diagnostic(
        code(export::time_limit),
        help("raise time_limit_seconds of the graph in the recipe; the whole log: {}", log.display())
    )]
    TimeLimit { seconds: u64, step: String, tail: String, log: PathBuf },
    /// The child wrote something that is not of the protocol.
    #[error("the exporter broke the protocol: {why}")]
    #[diagnostic(code(export::protocol), help("the whole log: {}", log.display()))]
    Protocol { why: String, log: PathBuf },
    /// A file is not what the child reported.
    #[error("the exporter reports {name:?} with {what} {claimed}, and the file has {found}")]
    #[diagnostic(
        code(export::lie),
        help("the file was changed after it was reported, or the exporter is at fault")
    )]
    Lie { name: String, what: &'static str, claimed: String, found: String },
    /// The child was ended from outside.
    #[error("interrupted")]
    #[diagnostic(code(export::interrupted))]
    Interrupted,
}

impl Error {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
