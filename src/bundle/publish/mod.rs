//! Publishing: a bundle goes out only if it verifies, comes back only if it verifies, and a version that
//! exists is never overwritten.
//!
//! A place is a [`Store`]: one file, and its line in [`STORES`]. What may be wrong with a bundle itself (files that
//! lead out of it, a later format, a wrong key) is checked here, for all of them.

mod directory;
mod error;
mod hub;
mod oci;
mod staging;

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

pub use error::Error;
use staging::Staging;

use super::manifest::is_name;
use super::sign::{PublicKey, SIGNATURE};
use super::{FileEntry, MANIFEST, Manifest, SUMS, pack, room_for, verify};
use crate::digest::Digest;
use crate::files;

/// What says which bundle it is, and of which files.
const PAPERS: [&str; 3] = [MANIFEST, SUMS, SIGNATURE];
/// Papers longer than this are none: a manifest has some 100 bytes for each file.
const LONGEST_PAPER: u64 = 16 << 20;

/// Is told how publishing or fetching goes.
pub trait Reporter: Sync {
    /// So many bytes of a file, from its start, are where they belong.
    fn moved(&self, file: &str, done: u64, total: u64);
}

/// What a place may need to know besides its address.
pub struct Context<'a> {
    /// The cache's folder.
    pub cache: &'a Path,
    /// An interpreter that was named explicitly.
    pub python: Option<&'a Path>,
    /// The version, where it was given next to the address.
    pub version: Option<&'a str>,
    /// Speak to a registry without TLS wherever it is.
    pub plain_http: bool,
    /// Who is told.
    pub reporter: &'a dyn Reporter,
}

/// One file of a bundle, the papers included.
#[derive(Clone, Debug, Serialize)]
pub struct PackageFile {
    /// Path inside the bundle.
    pub file: String,
    /// Length and digest.
    #[serde(flatten)]
    pub entry: FileEntry,
}

/// A bundle that verifies: nothing else can be published.
pub struct Package {
    folder: PathBuf,
    manifest: Manifest,
    identity: Digest,
    files: Vec<PackageFile>,
}

impl Package {
    /// Verifies a bundle; where a key is given, its signature too.
    ///
    /// # Errors
    /// [`Error::Unverified`], [`Error::Unsigned`], [`Error::Outside`], or the bundle can't be read.
    pub fn open(folder: &Path, key: Option<&PublicKey>) -> Result<Self, Error> {
        let findings = verify(folder)?;
        if !findings.is_empty() {
            return Err(Error::Unverified { path: folder.to_owned(), findings });
        }
        check_signature(folder, key)?;
        let manifest = Manifest::read(folder)?;
        check_names(&manifest)?;
        let mut files = Vec::new();
        for paper in PAPERS {
            let path = folder.join(paper);
            if paper == SIGNATURE && !path.exists() {
                continue;
            }
            let bytes = files::read(&path).map_err(Error::io(&path))?;
            let entry = FileEntry { sha256: Digest::of(&bytes), bytes: bytes.len() as u64 };
            files.push(PackageFile { file: paper.to_owned(), entry });
        }
        let rest = manifest.files.iter();
        files.extend(rest.map(|(file, &entry)| PackageFile { file: file.clone(), entry }));
        let identity = files.first().map(|paper| paper.entry.sha256).unwrap_or(manifest.key);
        Ok(Self { folder: folder.to_owned(), manifest, identity, files })
    }

    /// The bundle's name.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Every file, the papers first.
    pub fn files(&self) -> &[PackageFile] {
        &self.files
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.entry.bytes).sum()
    }

    /// The version where none is given: the first 16 digits of the manifest's digest.
    pub fn version(&self) -> String {
        self.identity.short()
    }

    fn is_signed(&self) -> bool {
        self.files.iter().any(|file| file.file == SIGNATURE)
    }
}

/// What came of publishing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The address that `fetch` takes.
    pub place: String,
    /// The version.
    pub version: String,
    /// Whether this very bundle was there already, and nothing was done.
    pub unchanged: bool,
    /// Bytes that were sent.
    pub sent: u64,
    /// Bytes that were there from an earlier attempt, or from another version.
    pub kept: u64,
}

/// What came of fetching.
#[derive(Clone, Debug, Serialize)]
pub struct Fetched {
    /// Where the bundle stands.
    pub folder: PathBuf,
    /// The exact address of what came.
    pub place: String,
    /// Its name.
    pub name: String,
    /// Bytes in all.
    pub bytes: u64,
}

/// A place for bundles.
trait Store {
    /// The address that a package would get.
    fn address(&self, package: &Package) -> Result<String, Error>;

    /// Puts a package there, unless its version exists.
    fn publish(&self, package: &Package) -> Result<Published, Error>;

    /// Writes the manifest, list of digests and signature of the bundle into a folder; returns its exact address.
    fn papers(&self, into: &Path) -> Result<String, Error>;

    /// Writes files into a folder that may hold parts of them. What comes is checked by the caller, but a
    /// store that can tell early does. Called after [`Store::papers`].
    fn files(&self, wanted: &[PackageFile], into: &Path) -> Result<(), Error>;
}

type Open = for<'a> fn(&str, &'a Context<'a>) -> Result<Box<dyn Store + 'a>, Error>;

/// Every place by the beginning of its addresses; a folder's has none.
const STORES: &[(&str, Open)] = &[("oci://", oci::open), ("hf://", hub::open), ("", directory::open)];

fn store<'a>(address: &str, context: &'a Context<'a>) -> Result<Box<dyn Store + 'a>, Error> {
    if let Some(version) = context.version
        && !is_name(version)
    {
        return Err(Error::Version { text: version.to_owned() });
    }
    let found = STORES.iter().find_map(|(scheme, open)| Some((open, address.strip_prefix(scheme)?)));
    match found {
        Some((open, rest)) if !rest.is_empty() && !rest.contains("://") => open(rest, context),
        _ => Err(Error::address(address, "is not a place for bundles")),
    }
}

/// The address that publishing would give; asks and sends nothing.
///
/// # Errors
/// [`Error::Address`], [`Error::Version`], [`Error::TwoVersions`].
pub fn address(package: &Package, place: &str, context: &Context<'_>) -> Result<String, Error> {
    store(place, context)?.address(package)
}

/// Publishes a package.
///
/// # Errors
/// [`Error::VersionExists`] where the version holds another bundle, [`Error::Case`] where a folder can't hold
/// it next to what is there; the others say what the place, or the way there, refuses.
pub fn publish(package: &Package, place: &str, context: &Context<'_>) -> Result<Published, Error> {
    store(place, context)?.publish(package)
}

/// Fetches a bundle into `output`, or into a folder of its name, and verifies it before it stands there.
///
/// # Errors
/// [`Error::Unverified`], [`Error::Unsigned`]; the others say what can't be had. Nothing half-fetched
/// stands at the output; what came before a connection was lost serves the next attempt.
pub fn fetch(
    place: &str,
    output: Option<&Path>,
    overwrite: bool,
    key: Option<&PublicKey>,
    context: &Context<'_>,
) -> Result<Fetched, Error> {
    if let Some(output) = output {
        room_for(output, overwrite)?;
    }
    let store = store(place, context)?;
    let home = output.map_or(Path::new("."), files::home);
    let task = format!("{place} {} {output:?}", context.version.unwrap_or_default());
    let staging = Staging::open(home, &format!("fetch-{}", Digest::of(task.as_bytes()).short()))?;
    match receive(&*store, &staging, output, overwrite, key) {
        Ok((fetched, moved)) => {
            if !moved {
                staging.remove();
            }
            Ok(fetched)
        }
        Err(error) => {
            match error.leaves_a_rest() {
                true => staging.leave(),
                false => staging.remove(),
            }
            Err(error)
        }
    }
}

fn receive(
    store: &dyn Store,
    staging: &Staging,
    output: Option<&Path>,
    overwrite: bool,
    key: Option<&PublicKey>,
) -> Result<(Fetched, bool), Error> {
    let root = staging.path();
    staging.keep_only(&|name| !PAPERS.contains(&name))?;
    let place = store.papers(root)?;
    let manifest = Manifest::read(root)?;
    check_names(&manifest)?;
    check_signature(root, key)?;
    let target = match output {
        Some(output) => output.to_owned(),
        None => PathBuf::from(&manifest.name),
    };
    room_for(&target, overwrite)?;
    staging.keep_only(&|name| PAPERS.contains(&name) || manifest.files.contains_key(name))?;
    let wanted: Vec<PackageFile> =
        manifest.files.iter().map(|(file, &entry)| PackageFile { file: file.clone(), entry }).collect();
    for file in &wanted {
        staging::place(root, &file.file)?;
    }
    store.files(&wanted, root)?;
    let findings = verify(root)?;
    if !findings.is_empty() {
        return Err(Error::Unverified { path: PathBuf::from(&place), findings });
    }
    check_signature(root, key)?;
    let moved = pack::put(root, &target)?;
    let bytes = wanted.iter().map(|file| file.entry.bytes).sum();
    Ok((Fetched { folder: target, place, name: manifest.name, bytes }, moved))
}

fn check_signature(folder: &Path, key: Option<&PublicKey>) -> Result<(), Error> {
    let Some(key) = key else { return Ok(()) };
    let refuse = |why| Error::Unsigned { path: folder.to_owned(), why };
    key.check(folder)?.map_err(refuse)
}

/// Refuses a manifest whose files lead out of the bundle.
fn check_names(manifest: &Manifest) -> Result<(), Error> {
    match manifest.files.keys().find(|name| !is_inside(name)) {
        Some(name) => Err(Error::Outside { name: name.clone() }),
        None => Ok(()),
    }
}

fn is_inside(name: &str) -> bool {
    let path = Path::new(name);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    !name.is_empty()
        && name.len() <= 512
        && !name.contains(['\\', ':'])
        && !name.chars().any(char::is_control)
        && !PAPERS.contains(&name)
        && path.components().all(plain)
        && path.components().collect::<PathBuf>().as_os_str() == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_told_from_those_that_do_not() {
        for name in ["README.md", "onnx/a.onnx", "a/b/c..d", "...x"] {
            assert!(is_inside(name), "{name:?}");
        }
        let out = [
            "", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "./a", "a\\b", "c:d", "a\nb", "a\0",
            MANIFEST, SUMS, SIGNATURE,
        ];
        for name in out {
            assert!(!is_inside(name), "{name:?}");
        }
    }

    #[test]
    fn versions_are_tags_and_folders_alike() {
        for text in ["1", "v1.0-rc_2", "0123456789abcdef", "_x"] {
            assert!(is_name(text), "{text:?}");
        }
        for text in ["", ".", "..", ".x", "-x", "a/b", "a b", "é", &"x".repeat(129)] {
            assert!(!is_name(text), "{text:?}");
        }
    }
}
