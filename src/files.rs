//! Files that are written whole or not at all: next to their place, then renamed.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// How the names of files and folders begin that are not whole yet.
pub(crate) const PREFIX: &str = ".soprano-export-";

/// The folder that a file stands in.
pub fn home(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Refuses what is there and is not a plain file: a pipe would be waited for, a device may have no end, and neither is
/// to be replaced. A link is what it leads to.
pub(crate) fn plain(path: &Path) -> io::Result<()> {
    let why = match std::fs::metadata(path) {
        Ok(there) if there.is_dir() => "a folder, not a plain file",
        Ok(there) if !there.is_file() => "not a plain file",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Opens a plain file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    plain(path).and_then(|()| File::open(path))
}

/// The bytes of a plain file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    plain(path).and_then(|()| std::fs::read(path))
}

/// As [`read`], of a file that holds text about others, such as a list, a config or a vocabulary.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    const MOST: u64 = 256 << 20;
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    if length > MOST {
        let why = format!("{length} bytes, and at most {} MiB are read", MOST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Maps a plain file into memory, read-only.
#[allow(unsafe_code)]
pub(crate) fn map(path: &Path) -> io::Result<Bytes> {
    let file = open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the file is only read. Another process that cuts it short meanwhile ends this one with
    // SIGBUS, as with any mapped file; artifacts are therefore renamed into place, never cut.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

/// Opens text that is read once: a plain file, or what this process was given open, as a shell's `<(…)` names it.
#[cfg(feature = "cli")]
pub(crate) fn open_text(path: &Path) -> io::Result<File> {
    let homes = ["/dev/fd", "/proc/self/fd"].map(Path::new);
    let given =
        path == Path::new("/dev/stdin") || path.parent().is_some_and(|home| homes.contains(&home));
    if given { File::open(path) } else { open(path) }
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
    plain(path)?;
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
    /// Where the folder is not there or can't be written to, or what is not a plain file stands there.
    pub fn beside(target: &Path) -> io::Result<Self> {
        Self::with(target, 0o666)
    }

    /// As [`Staged::beside`], of a file that nobody else may read.
    pub fn private(target: &Path) -> io::Result<Self> {
        Self::with(target, 0o600)
    }

    fn with(target: &Path, mode: u32) -> io::Result<Self> {
        plain(target)?;
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
        plain(&self.target)?;
        let older = std::fs::metadata(&self.target);
        older.map_or(Ok(()), |older| self.file.as_file().set_permissions(older.permissions()))
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
        Ok(_) => {
            first.take_rights()?;
            let aside = Staged::beside(&place)?;
            std::fs::rename(&place, aside.file.path())?;
            Some(aside)
        }
        Err(_) => None,
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
        for first in ["data", "new"] {
            let (first, second) = (staged(first, "3"), staged("folder", "3"));
            std::fs::create_dir(path("folder")).unwrap();
            put_both(first, second).unwrap_err();
            std::fs::remove_dir(path("folder")).unwrap();
        }
        assert_eq!(std::fs::read(path("data")).unwrap(), b"2");
        assert_eq!(std::fs::read(path("model")).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    fn pipe(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn only_plain_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        pipe(&path("pipe"));
        for (link, to) in [("to-file", "file"), ("to-pipe", "pipe")] {
            std::os::unix::fs::symlink(to, path(link)).unwrap();
        }
        for name in ["file", "to-file"] {
            assert_eq!(read(&path(name)).unwrap(), b"text");
            open_text(&path(name)).unwrap();
        }
        for (place, why) in [
            (path("pipe"), "not a plain file"),
            (path("to-pipe"), "not a plain file"),
            ("/dev/null".into(), "not a plain file"),
            (folder.path().to_owned(), "a folder, not a plain file"),
        ] {
            assert_eq!(read(&place).unwrap_err().to_string(), why, "{place:?}");
            assert_eq!(open_text(&place).unwrap_err().to_string(), why, "{place:?}");
        }
        assert_eq!(read(&path("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
        // Under a name of this process's own, whatever it is.
        let file = open(&path("file")).unwrap();
        let given = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        open_text(Path::new(&given)).unwrap();
    }

    #[test]
    fn only_plain_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        pipe(&path("pipe"));
        std::fs::write(path("file"), "old").unwrap();
        for (link, to) in [("to-pipe", "pipe"), ("to-file", "file"), ("to-nothing", "nothing")] {
            std::os::unix::fs::symlink(to, path(link)).unwrap();
        }
        for name in ["pipe", "to-pipe"] {
            let error = write(&path(name), b"new").unwrap_err();
            assert_eq!(error.to_string(), "not a plain file");
            assert!(!path(name).metadata().unwrap().is_file());
        }
        // Nor one that comes to stand there meanwhile.
        let staged = Staged::beside(&path("later")).unwrap();
        pipe(&path("later"));
        staged.put().unwrap_err();
        assert!(!path("later").metadata().unwrap().is_file());
        for name in ["to-file", "to-nothing", "file"] {
            write(&path(name), b"new").unwrap();
            assert_eq!(std::fs::read(path(name)).unwrap(), b"new");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 6);
    }

    #[test]
    fn nothing_is_left_of_a_file_that_is_not_put() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        drop(Staged::beside(&path).unwrap());
        let [one, other] = [(), ()].map(|()| Staged::beside(&path).unwrap());
        std::fs::create_dir(&path).unwrap();
        Staged::beside(&path).unwrap_err();
        one.put().unwrap_err();
        let taken = other.put_new().unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&folder.path().join("absent/file"), b"").unwrap_err();
    }
}
