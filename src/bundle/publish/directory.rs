//! A folder of bundles: `DEST/NAME/VERSION/…`, and `DEST/index.json`, which lists them in order of arrival. A version
//! is copied next to its place and renamed into it, under a lock that all publishers take.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::staging::{Staging, copy};
use super::{Context, Error, LONGEST_PAPER, PAPERS, Package, PackageFile, Published, Store, is_name};
use crate::bundle::sign::SIGNATURE;
use crate::bundle::{MANIFEST, SUMS, pack, verify};
use crate::digest::Digest;
use crate::files;

const INDEX: &str = "index.json";
const LOCK: &str = ".lock";

/// What `index.json` says.
#[derive(Serialize, Deserialize)]
struct Index {
    format: u32,
    versions: Vec<Entry>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    name: String,
    version: String,
    /// Digest of the manifest.
    manifest: Digest,
    files: usize,
    bytes: u64,
    signed: bool,
}

struct Folder<'a> {
    root: PathBuf,
    context: &'a Context<'a>,
}

pub(super) fn open<'a>(address: &str, context: &'a Context<'a>) -> Result<Box<dyn Store + 'a>, Error> {
    Ok(Box::new(Folder { root: PathBuf::from(address), context }))
}

impl Folder<'_> {
    fn version(&self, package: &Package) -> String {
        self.context.version.map_or_else(|| package.version(), str::to_owned)
    }

    fn place(&self, package: &Package) -> PathBuf {
        self.root.join(package.name()).join(self.version(package))
    }

    fn read_index(&self) -> Result<Index, Error> {
        let path = self.root.join(INDEX);
        let refuse = |why: String| Error::Index { path: path.clone(), why };
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Index { format: 1, versions: Vec::new() });
            }
            Ok(meta) if !meta.is_file() || meta.len() > LONGEST_PAPER => {
                return Err(refuse("not an index of bundles".to_owned()));
            }
            _ => {}
        }
        let text = files::read(&path).map_err(|e| refuse(e.to_string()))?;
        let index: Index = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
        match index.format {
            1 => Ok(index),
            other => Err(refuse(format!("format {other}; this version reads format 1"))),
        }
    }

    /// Adds a version to the index, unless it is there: a killed publisher may have placed the folder alone.
    fn list(&self, package: &Package) -> Result<(), Error> {
        let mut index = self.read_index()?;
        let entry = Entry {
            name: package.name().to_owned(),
            version: self.version(package),
            manifest: package.identity,
            files: package.files().len(),
            bytes: package.bytes(),
            signed: package.is_signed(),
        };
        if index.versions.contains(&entry) {
            return Ok(());
        }
        index.versions.retain(|old| (&old.name, &old.version) != (&entry.name, &entry.version));
        index.versions.push(entry);
        let text = serde_json::to_string_pretty(&index).expect("plain data") + "\n";
        let path = self.root.join(INDEX);
        files::write(&path, text.as_bytes()).map_err(Error::io(&path))
    }

    /// Refuses a name or version that differs by case alone from one that is there: some file systems can't hold both.
    fn is_distinct(&self, package: &Package) -> Result<(), Error> {
        let (name, version) = (package.name(), self.version(package));
        let refuse = |other: &Path| Error::Case {
            place: self.place(package).display().to_string(),
            other: other.display().to_string(),
        };
        if name.eq_ignore_ascii_case(INDEX) {
            return Err(refuse(&self.root.join(INDEX)));
        }
        for (folder, name) in [(self.root.clone(), name), (self.root.join(name), version.as_str())] {
            // What can't be listed holds nothing yet, or is refused where it is written.
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let present = entry.file_name();
                if present.eq_ignore_ascii_case(name) && present != name {
                    return Err(refuse(&folder.join(present)));
                }
            }
        }
        Ok(())
    }

    /// What stands at a version's place: nothing, or this very bundle; else an error.
    fn standing(&self, package: &Package) -> Result<bool, Error> {
        self.is_distinct(package)?;
        let place = self.place(package);
        if std::fs::symlink_metadata(&place).is_err() {
            return Ok(false);
        }
        for paper in [MANIFEST, SIGNATURE] {
            let ours = package.files().iter().find(|file| file.file == paper);
            let theirs = Digest::of_file(&place.join(paper)).ok();
            if ours.map(|file| file.entry.sha256) != theirs {
                return Err(Error::VersionExists { place: place.display().to_string() });
            }
        }
        match verify(&place)? {
            findings if findings.is_empty() => Ok(true),
            findings => Err(Error::Unverified { path: place, findings }),
        }
    }

    /// The folder of the bundle that is asked for.
    fn requested(&self) -> Result<PathBuf, Error> {
        if self.root.join(MANIFEST).exists() {
            return Ok(self.root.clone());
        }
        let place = self.root.display().to_string();
        if !self.root.join(INDEX).exists() {
            return Err(Error::NotFound { place, among: String::new() });
        }
        let index = self.read_index()?;
        let fits = |entry: &&Entry| self.context.version.is_none_or(|v| v == entry.version);
        let mut fitting: Vec<&Entry> = index.versions.iter().filter(fits).collect();
        let first = fitting.first().map(|entry| entry.name.clone());
        let several = fitting.iter().any(|entry| Some(&entry.name) != first.as_ref());
        if !several
            && let Some(last) = fitting.pop()
            && is_name(&last.name)
            && is_name(&last.version)
        {
            return Ok(self.root.join(&last.name).join(&last.version));
        }
        let all = index.versions.iter().map(|e| format!("{place}/{}/{}", e.name, e.version));
        let all = all.collect::<Vec<_>>().join(", ");
        if several {
            return Err(Error::Several { place, all });
        }
        Err(Error::NotFound { place, among: format!("; it holds: {all}") })
    }
}

impl Store for Folder<'_> {
    fn address(&self, package: &Package) -> Result<String, Error> {
        Ok(self.place(package).display().to_string())
    }

    fn publish(&self, package: &Package) -> Result<Published, Error> {
        let place = self.place(package);
        let mut published = Published {
            place: place.display().to_string(),
            version: self.version(package),
            unchanged: true,
            sent: 0,
            kept: package.bytes(),
        };
        if is_bundle(&self.root) || is_below(&self.root, &package.folder) {
            let why = "is, or lies in, a bundle; bundles are published to a folder of bundles";
            return Err(Error::address(&self.root.display().to_string(), why));
        }
        std::fs::create_dir_all(&self.root).map_err(Error::io(&self.root))?;
        self.read_index()?;
        let task = format!("{} {}", place.display(), package.identity);
        let task = format!("publish-{}", Digest::of(task.as_bytes()).short());
        let staging = Staging::open(&self.root, &task)?;
        let outcome = self.put(package, &staging, &place, &mut published);
        if outcome.is_err() || published.unchanged {
            staging.remove();
        }
        outcome.map(|()| published)
    }

    fn papers(&self, into: &Path) -> Result<String, Error> {
        let folder = self.requested()?;
        for paper in PAPERS {
            let (from, to) = (folder.join(paper), into.join(paper));
            match std::fs::metadata(&from) {
                Ok(meta) if meta.is_file() && meta.len() <= LONGEST_PAPER => {
                    std::fs::copy(&from, &to).map_err(Error::io(&to))?;
                }
                Ok(_) => {
                    let why = "no such paper of a bundle".to_owned();
                    return Err(Error::Foreign { url: from.display().to_string(), why });
                }
                Err(_) => {}
            }
        }
        Ok(folder.display().to_string())
    }

    fn files(&self, wanted: &[PackageFile], into: &Path) -> Result<(), Error> {
        let folder = self.requested()?;
        for PackageFile { file, entry } in wanted {
            // A pipe would be waited for; whatever is missing or different, the end will tell.
            let path = folder.join(file);
            if !std::fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == entry.bytes) {
                continue;
            }
            match copy(&path, into, file, *entry) {
                Ok(_) | Err(Error::Changed { .. }) => {}
                Err(error) => return Err(error),
            }
            self.context.reporter.moved(file, entry.bytes, entry.bytes);
        }
        Ok(())
    }
}

/// Whether a folder that may not exist yet lies in another.
fn is_below(folder: &Path, other: &Path) -> bool {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let real = folder.ancestors().find_map(|above| std::fs::canonicalize(above).ok());
    match (real, std::fs::canonicalize(other)) {
        (Some(real), Ok(other)) => real.starts_with(other),
        _ => false,
    }
}

fn is_bundle(folder: &Path) -> bool {
    folder.join(MANIFEST).exists() && folder.join(SUMS).exists()
}

impl Folder<'_> {
    fn put(
        &self,
        package: &Package,
        staging: &Staging,
        place: &Path,
        published: &mut Published,
    ) -> Result<(), Error> {
        if !self.standing(package)? {
            staging.keep_only(&|name| package.files().iter().any(|file| file.file == name))?;
            let (mut sent, mut kept) = (0, 0);
            for PackageFile { file, entry } in package.files() {
                match copy(&package.folder.join(file), staging.path(), file, *entry)? {
                    true => kept += entry.bytes,
                    false => sent += entry.bytes,
                }
                self.context.reporter.moved(file, entry.bytes, entry.bytes);
            }
            let _lock = self.lock()?;
            // Another publisher may have been here meanwhile.
            if !self.standing(package)? {
                let above = files::home(place);
                std::fs::create_dir_all(above).map_err(Error::io(above))?;
                pack::put(staging.path(), place)?;
                (published.sent, published.kept, published.unchanged) = (sent, kept, false);
            }
            return self.list(package);
        }
        let _lock = self.lock()?;
        self.list(package)
    }

    fn lock(&self) -> Result<File, Error> {
        let path = self.root.join(LOCK);
        files::lock(&path).map_err(Error::io(path))
    }
}
