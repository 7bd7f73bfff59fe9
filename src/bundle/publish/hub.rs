//! The Hugging Face hub, through its own Python client: a bundle is a commit of a model repository, its version a tag.
//! A repository that doesn't exist is created, as a private one.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Context, Error, Package, PackageFile, Published, Store};
use crate::bundle::sign::SIGNATURE;
use crate::bundle::{FileEntry, MANIFEST, SUMS};
use crate::export::{Child, Outcome, Progress, PublishFile, Python, Request};

/// The client says nothing while it sends one file, however long that takes; it has time limits of its own.
const TIME_LIMIT: Duration = Duration::from_secs(6 * 3600);

struct Hub<'a> {
    repository: String,
    revision: Option<String>,
    context: &'a Context<'a>,
    /// The commit of the papers, so that all files are of one.
    commit: OnceCell<String>,
}

pub(super) fn open<'a>(address: &str, context: &'a Context<'a>) -> Result<Box<dyn Store + 'a>, Error> {
    let refuse = |why: &str| Error::address(&format!("hf://{address}"), why);
    let (repository, revision) = match address.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision.to_owned())),
        None => (address, None),
    };
    let part = |part: &str| {
        let sign = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(sign)
    };
    match repository.split_once('/') {
        Some((owner, name)) if part(owner) && part(name) => {}
        _ => return Err(refuse("is not of the form hf://OWNER/NAME[@TAG]")),
    }
    let sign = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if revision.as_deref().is_some_and(|text| text.is_empty() || !text.chars().all(sign)) {
        return Err(refuse("has no revision that can be one"));
    }
    let revision = match (revision, context.version) {
        (Some(revision), Some(version)) if revision != version => {
            let (place, version) = (format!("hf://{repository}"), version.to_owned());
            return Err(Error::TwoVersions { place, named: revision, version });
        }
        (revision, version) => revision.or(version.map(str::to_owned)),
    };
    let commit = OnceCell::new();
    Ok(Box::new(Hub { repository: repository.to_owned(), revision, context, commit }))
}

impl Hub<'_> {
    fn tag(&self, package: &Package) -> String {
        self.revision.clone().unwrap_or_else(|| package.version())
    }

    fn run(&self, request: &Request<'_>, output: &Path) -> Result<Outcome, Error> {
        let cache = self.context.cache;
        let python = Python::find(self.context.python, "soprano", cache)?;
        let logs = cache.join("logs");
        std::fs::create_dir_all(&logs).map_err(Error::io(&logs))?;
        let log = logs.join(format!("hub-{}.log", std::process::id()));
        let child = Child {
            python: &python,
            cache,
            log: &log,
            time_limit: TIME_LIMIT,
            // An interruption ends this process, and the child with it.
            interrupted: &AtomicBool::new(false),
            progress: &|p: &Progress| self.context.reporter.moved(&p.step, p.done, p.total),
        };
        let outcome = child.run(request, output)?;
        let _ = std::fs::remove_file(&log);
        Ok(outcome)
    }

    fn download(&self, files: &[&str], optional: &[&str], into: &Path) -> Result<Outcome, Error> {
        let version = self.commit.get().or(self.revision.as_ref());
        let revision = version.map_or("main", String::as_str);
        let request = Request::Download { repo: &self.repository, revision, files, optional };
        self.run(&request, into)
    }

    /// A text that a task's result must have.
    fn field(&self, outcome: &Outcome, name: &str) -> Result<String, Error> {
        let value = outcome.result.get(name).and_then(|value| value.as_str());
        value.map(str::to_owned).ok_or_else(|| Error::Foreign {
            url: format!("hf://{}", self.repository),
            why: format!("the client's result has no {name:?}"),
        })
    }
}

impl Store for Hub<'_> {
    fn address(&self, package: &Package) -> Result<String, Error> {
        Ok(format!("hf://{}@{}", self.repository, self.tag(package)))
    }

    fn publish(&self, package: &Package) -> Result<Published, Error> {
        let folder = std::fs::canonicalize(&package.folder).map_err(Error::io(&package.folder))?;
        let files: Vec<PublishFile<'_>> = package
            .files()
            .iter()
            .map(|PackageFile { file, entry: FileEntry { sha256, bytes } }| PublishFile {
                name: file,
                sha256: *sha256,
                bytes: *bytes,
            })
            .collect();
        let tag = self.tag(package);
        let scratch = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
        let request = Request::Publish {
            repo: &self.repository,
            folder: &folder,
            files: &files,
            papers: &[MANIFEST, SIGNATURE],
            tag: &tag,
        };
        let outcome = self.run(&request, scratch.path())?;
        self.field(&outcome, "commit")?;
        let unchanged = outcome.result.get("unchanged") == Some(&true.into());
        let (sent, kept) = if unchanged { (0, package.bytes()) } else { (package.bytes(), 0) };
        let place = format!("hf://{}@{tag}", self.repository);
        Ok(Published { place, version: tag, unchanged, sent, kept })
    }

    fn papers(&self, into: &Path) -> Result<String, Error> {
        let outcome = self.download(&[MANIFEST, SUMS], &[SIGNATURE], into)?;
        let commit = self.field(&outcome, "commit")?;
        let place = format!("hf://{}@{commit}", self.repository);
        let _ = self.commit.set(commit);
        Ok(place)
    }

    fn files(&self, wanted: &[PackageFile], into: &Path) -> Result<(), Error> {
        let missing = |file: &&PackageFile| !file.entry.is_at(&into.join(&file.file));
        // One by one what is large, so that what has come stays; the rest at once.
        let (large, small): (Vec<&PackageFile>, Vec<&PackageFile>) =
            wanted.iter().filter(missing).partition(|file| file.entry.bytes > 64 << 20);
        let batches = std::iter::once(small).chain(large.into_iter().map(|file| vec![file]));
        for batch in batches.filter(|batch| !batch.is_empty()) {
            let names: Vec<&str> = batch.iter().map(|file| file.file.as_str()).collect();
            self.download(&names, &[], into)?;
        }
        Ok(())
    }
}
