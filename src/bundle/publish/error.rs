use std::path::PathBuf;

use crate::bundle::{self, Finding, sign};
use crate::export;

/// How a bundle can't be published or fetched.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Bundle(#[from] bundle::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sign(#[from] sign::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Export(#[from] export::Error),
    /// The bundle is not whole.
    #[error("{} is not whole, and only what verifies is published or kept:\n{}", path.display(), list(findings))]
    #[diagnostic(code(publish::unverified), help("soprano-export verify BUNDLE   names every file"))]
    Unverified { path: PathBuf, findings: Vec<Finding> },
    /// The bundle has no signature by the key that was asked for.
    #[error("{}: {why}", path.display())]
    #[diagnostic(code(publish::unsigned), help("is this the right key, and the right bundle?"))]
    Unsigned { path: PathBuf, why: sign::Unsigned },
    /// The text is not an address of a store.
    #[error("{text:?} {why}")]
    #[diagnostic(
        code(publish::address),
        help("a folder, oci://HOST/REPOSITORY[:TAG], or hf://OWNER/NAME[@TAG]")
    )]
    Address { text: String, why: String },
    /// The text is not a version.
    #[error("{text:?} can't be a version")]
    #[diagnostic(
        code(publish::version),
        help(
            "1 to 128 letters, digits, '.', '_' and '-', of which the first is neither '.' nor '-': --version v1.0"
        )
    )]
    Version { text: String },
    /// The address and the option name different versions.
    #[error("{place} names {named:?}, and --version {version:?}")]
    #[diagnostic(
        code(publish::two_versions),
        help("name the version once: leave out --version, or the end of the address")
    )]
    TwoVersions { place: String, named: String, version: String },
    /// Another name is there that differs in case alone, which some file systems take for the same.
    #[error("{place} differs from {other}, which is there, by upper and lower case alone")]
    #[diagnostic(
        code(publish::case),
        help(
            "file systems of macOS and Windows take both for one folder; choose another version with \
             --version VERSION, or another name in the recipe"
        )
    )]
    Case { place: String, other: String },
    /// The version is there already, with other contents.
    #[error("{place} exists already, and holds another bundle")]
    #[diagnostic(
        code(publish::version_exists),
        help("a version is never overwritten: publish under another with --version VERSION")
    )]
    VersionExists { place: String },
    /// The store has no such bundle.
    #[error("{place}: there is no such bundle{among}")]
    #[diagnostic(code(publish::not_found), help("check the name and the version"))]
    NotFound { place: String, among: String },
    /// The store has several, and none of them was named.
    #[error("{place} holds several bundles: {all}")]
    #[diagnostic(code(publish::several), help("name one: soprano-export fetch {place}/NAME/VERSION"))]
    Several { place: String, all: String },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(publish::io), help("{}", bundle::hint(source)))]
    Io { path: PathBuf, source: std::io::Error },
    /// The bundle was changed while it was being read.
    #[error("{} was changed while it was being published", path.display())]
    #[diagnostic(code(publish::changed), help("publish again once nothing writes to the bundle"))]
    Changed { path: PathBuf },
    /// A folder's index could not be read.
    #[error("{}: {why}", path.display())]
    #[diagnostic(
        code(publish::index),
        help("the versions themselves are untouched; move the file away, and a new one is begun")
    )]
    Index { path: PathBuf, why: String },
    /// The manifest of what was fetched names a file outside of the bundle.
    #[error("the manifest names {name:?}, which leads out of the bundle or is not a plain file name")]
    #[diagnostic(
        code(publish::outside),
        help("nobody should trust this bundle; nothing of it was kept")
    )]
    Outside { name: String },
    /// The server could not be reached.
    #[error("{url}: {why}")]
    #[diagnostic(
        code(publish::network),
        help("is the registry running, and the address right? The same command goes on from here")
    )]
    Network { url: String, why: String },
    /// The server did not answer in time.
    #[error("{url}: no answer in {seconds} s")]
    #[diagnostic(
        code(publish::silent),
        help("is the registry well? The same command goes on from here")
    )]
    Silent { url: String, seconds: u64 },
    /// The server refused.
    #[error("{url}: the registry answers {status}{why}")]
    #[diagnostic(code(publish::refused), help("{hint}"))]
    Refused { url: String, status: u16, why: String, hint: &'static str },
    /// The server sent something else than it announced.
    #[error("{url}: {what} is {found}, and {expected} was expected")]
    #[diagnostic(
        code(publish::lie),
        help("the registry, or something between, is at fault; nothing of this was kept")
    )]
    Lie { url: String, what: &'static str, expected: String, found: String },
    /// The server answered with something that is not a bundle.
    #[error("{url}: {why}")]
    #[diagnostic(code(publish::foreign), help("does this address name a bundle of soprano-export?"))]
    Foreign { url: String, why: String },
}

impl Error {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }

    pub(super) fn address(text: &str, why: impl Into<String>) -> Self {
        Error::Address { text: text.to_owned(), why: why.into() }
    }

    /// Whether what has come so far is of use to the next attempt.
    pub(super) fn leaves_a_rest(&self) -> bool {
        match self {
            Error::Network { .. } | Error::Silent { .. } | Error::Refused { .. } => true,
            Error::Export(export::Error::Refused { code, .. }) => code.starts_with("hub-"),
            _ => false,
        }
    }
}

fn list(findings: &[Finding]) -> String {
    let mut lines: Vec<String> =
        findings.iter().take(8).map(|f| format!("  {}: {}", f.file, f.problem)).collect();
    if findings.len() > 8 {
        lines.push(format!("  and {} more", findings.len() - 8));
    }
    lines.join("\n")
}
