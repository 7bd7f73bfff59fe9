//! Files that are written whole or not at all: next to their place, then renamed.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How the names of files and folders begin that are not whole yet.
pub(crate) const PREFIX: &str = ".soprano-export-";

/// The folder that a file stands in.
pub fn home(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether no process has this number.
pub(crate) fn is_gone(process: i32) -> bool {
    #[allow(unsafe_code)]
    // SAFETY: signal 0 sends nothing; it only asks whether the process exists.
    let failed = unsafe { libc::kill(process, 0) } != 0;
    // Another user's process can't be signalled, and lives.
    failed && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

/// Opens a file that is there only to be locked, and waits for its lock.
#[cfg(feature = "publish")]
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    // A file system without locks is one where nobody else is expected.
    let _ = file.lock();
    Ok(file)
}

/// A file next to its place until it is whole; removed unless it is put there.
///
/// It has the rights of any new file, or those of the file that it replaces.
#[derive(Debug)]
pub struct Staged {
    file: tempfile::NamedTempFile,
    target: PathBuf,
}

impl Staged {
    /// Begins a file that is to stand at `target`.
    ///
    /// # Errors
    /// Where the folder is not there or can't be written to.
    pub fn beside(target: &Path) -> io::Result<Self> {
        Self::with(target, 0o666)
    }

    /// As [`Staged::beside`], of a file that nobody else may read.
    pub fn private(target: &Path) -> io::Result<Self> {
        Self::with(target, 0o600)
    }

    fn with(target: &Path, mode: u32) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        builder.prefix(&prefix);
        #[cfg(unix)]
        builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(mode));
        let file = builder.tempfile_in(home(target))?;
        Ok(Self { file, target: target.to_owned() })
    }

    /// The file, to write to.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// The file once more, to be written to by who must own it.
    pub fn reopen(&self) -> io::Result<File> {
        self.file.reopen()
    }

    /// Puts the file in its place, over one that stands there.
    ///
    /// # Errors
    /// Where it can't be renamed; nothing is left behind then.
    pub fn put(self) -> io::Result<()> {
        self.take_rights()?;
        self.file.persist(&self.target).map(drop).map_err(|e| e.error)
    }

    /// Takes over the rights of the file that stands there.
    fn take_rights(&self) -> io::Result<()> {
        match std::fs::metadata(&self.target) {
            Ok(older) if older.is_file() => self.file.as_file().set_permissions(older.permissions()),
            _ => Ok(()),
        }
    }

    /// Puts the file in its place, where nothing stands.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where something does; as [`Staged::put`].
    pub fn put_new(self) -> io::Result<()> {
        self.file.persist_noclobber(&self.target).map(drop).map_err(|e| e.error)
    }
}

/// A folder next to its place, with the rights of any other new folder; gone again unless it is kept.
///
/// # Errors
/// Where the folder around it is not there or can't be written to.
pub fn folder_beside(target: &Path) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    let prefix = format!("{PREFIX}{}-", std::process::id());
    builder.prefix(&prefix);
    #[cfg(unix)]
    builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777));
    builder.tempdir_in(home(target))
}

/// Puts two files that belong together in their places: both, or neither.
///
/// # Errors
/// As [`Staged::put`]; what stood in the first one's place is there again then.
pub fn put_both(first: Staged, second: Staged) -> io::Result<()> {
    let place = first.target.clone();
    let older = match std::fs::symlink_metadata(&place) {
        Ok(there) if !there.is_dir() => {
            first.take_rights()?;
            let aside = Staged::beside(&place)?;
            std::fs::rename(&place, aside.file.path())?;
            Some(aside)
        }
        _ => None,
    };
    let done = first.put().and_then(|()| second.put());
    if done.is_err() {
        match older {
            Some(aside) => drop(aside.file.persist(&place)),
            None => drop(std::fs::remove_file(&place)),
        }
    }
    done
}

/// Writes a whole file, or none, over one that stands there.
///
/// # Errors
/// As [`Staged::beside`] and [`Staged::put`].
pub fn write(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut staged = Staged::beside(target)?;
    staged.file().write_all(bytes)?;
    staged.put()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_file_has_the_rights_of_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("other"), "").unwrap();
        write(&path("new"), b"text").unwrap();
        assert_eq!(mode(&path("new")), mode(&path("other")));
        assert_eq!(std::fs::read(path("new")).unwrap(), b"text");
        Staged::private(&path("secret")).unwrap().put_new().unwrap();
        assert_eq!(mode(&path("secret")), 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        std::fs::create_dir(path("folder")).unwrap();
        assert_eq!(mode(folder_beside(&path("made")).unwrap().path()), mode(&path("folder")));
    }

    #[test]
    fn an_overwritten_file_keeps_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for rights in [0o600, 0o640, 0o755] {
            std::fs::write(&path, "old").unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(rights)).unwrap();
            write(&path, b"new").unwrap();
            assert_eq!(mode(&path), rights);
        }
    }

    #[test]
    fn two_files_are_put_or_neither() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let staged = |name: &str, text: &str| {
            let mut staged = Staged::beside(&path(name)).unwrap();
            staged.file().write_all(text.as_bytes()).unwrap();
            staged
        };
        put_both(staged("data", "1"), staged("model", "1")).unwrap();
        put_both(staged("data", "2"), staged("model", "2")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        put_both(staged("data", "3"), staged("folder", "3")).unwrap_err();
        put_both(staged("new", "3"), staged("folder", "3")).unwrap_err();
        assert_eq!(std::fs::read(path("data")).unwrap(), b"2");
        assert_eq!(std::fs::read(path("model")).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn nothing_is_left_of_a_file_that_is_not_put() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        drop(Staged::beside(&path).unwrap());
        std::fs::create_dir(&path).unwrap();
        Staged::beside(&path).unwrap().put().unwrap_err();
        let taken = Staged::beside(&path).unwrap().put_new().unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&folder.path().join("absent/file"), b"").unwrap_err();
    }
}
