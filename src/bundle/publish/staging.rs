use std::fs::File;
use std::path::{Path, PathBuf};

use super::Error;
use crate::bundle::files::hashed_copy;
use crate::bundle::{FileEntry, pack};
use crate::files::PREFIX;

/// A hidden folder next to where a bundle will be. Its name is fixed, so that the next run uses what a killed one
/// left; one process at a time holds it.
pub(super) struct Staging {
    path: PathBuf,
    _lock: File,
}

impl Staging {
    /// The folder of a task in `parent`; waits while another process has it.
    pub fn open(parent: &Path, task: &str) -> Result<Self, Error> {
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        pack::sweep(parent);
        let path = parent.join(format!("{}{task}", PREFIX));
        loop {
            match std::fs::create_dir(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(&path)(e));
                }
                _ => {}
            }
            let handle = match File::open(&path) {
                Ok(handle) => handle,
                // Another process has just put it into its place.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io(&path)(e)),
            };
            // A file system without locks is one where nobody else is expected.
            let _ = handle.lock();
            if same(&handle, &path) {
                return Ok(Self { path, _lock: handle });
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder with all that is in it.
    pub fn remove(self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }

    /// Leaves what has come of the files for the next attempt; without any, the folder goes.
    pub fn leave(self) {
        let _ = self.keep_only(&|name| !super::PAPERS.contains(&name));
        let _ = std::fs::remove_dir(&self.path);
    }

    /// Removes whatever isn't one of these files.
    pub fn keep_only(&self, wanted: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        fn walk(folder: &Path, prefix: &str, wanted: &dyn Fn(&str) -> bool) -> std::io::Result<()> {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    walk(&entry.path(), &format!("{name}/"), wanted)?;
                    // It goes where it is empty, and stays where it isn't.
                    let _ = std::fs::remove_dir(entry.path());
                } else if !entry.file_type()?.is_file() || !wanted(&name) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        }
        walk(&self.path, "", wanted).map_err(Error::io(&self.path))
    }
}

#[cfg(unix)]
fn same(handle: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let (here, there) = (handle.metadata().map(id), std::fs::metadata(path).map(id));
    matches!((here, there), (Ok(here), Ok(there)) if here == there)
}

/// A file's place below a folder, with the folders above it made.
pub(super) fn place(root: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = root.join(name);
    let folder = path.parent().unwrap_or(root);
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    Ok(path)
}

/// Copies a file unless it is there already, whole; returns whether it was.
pub(super) fn copy(from: &Path, root: &Path, name: &str, entry: FileEntry) -> Result<bool, Error> {
    let to = place(root, name)?;
    let is_there = entry.is_at(&to);
    if !is_there && hashed_copy(from, &to)? != entry {
        return Err(Error::Changed { path: from.to_owned() });
    }
    Ok(is_there)
}
