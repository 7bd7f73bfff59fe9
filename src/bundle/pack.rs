use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Error, FileEntry, MANIFEST, Manifest, SUMS, hashed_copy};
use crate::digest::Digest;
use crate::files::{self, PREFIX};
use crate::validate::Accepted;

/// What goes into a bundle besides its models.
pub enum Extra {
    /// A file that lies elsewhere, with the digest it must have.
    Copy(PathBuf, Digest),
    /// Text made for this bundle.
    Text(String),
}

/// Everything that a bundle holds. Models can only be given as [`Accepted`].
pub struct Contents {
    /// The manifest, but for its list of files, which packing fills in.
    pub manifest: Manifest,
    /// Models by their path inside the bundle.
    pub models: BTreeMap<String, Accepted>,
    /// Other files by their path inside the bundle.
    pub extras: BTreeMap<String, Extra>,
}

/// Checks, before any work, that a bundle could be put at `target`.
///
/// # Errors
/// [`Error::Exists`], [`Error::Foreign`], or [`Error::Io`] where the folder above can't be written.
pub fn room_for(target: &Path, overwrite: bool) -> Result<(), Error> {
    match std::fs::symlink_metadata(target) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(target)(e)),
        Ok(_) if !is_bundle(target) => {
            return Err(Error::Foreign { path: target.to_owned() });
        }
        Ok(_) if !overwrite => return Err(Error::Exists { path: target.to_owned() }),
        Ok(_) => {}
    }
    let home = files::home(target);
    std::fs::create_dir_all(home).map_err(Error::io(home))?;
    staging(target).map(drop)
}

/// Whether a folder is a bundle, whole or damaged: browser extensions have a `manifest.json` too.
fn is_bundle(folder: &Path) -> bool {
    let listed = || {
        let sums = files::open(&folder.join(SUMS)).and_then(std::io::read_to_string).ok()?;
        sums.lines().any(|line| line.ends_with(&format!("  {MANIFEST}"))).then_some(())
    };
    folder.join(MANIFEST).is_file() && (Manifest::read(folder).is_ok() || listed().is_some())
}

/// A folder next to the target, gone again unless it is renamed.
fn staging(target: &Path) -> Result<tempfile::TempDir, Error> {
    let home = files::home(target);
    sweep(home);
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir_in(home)
        .map_err(Error::io(home))
}

/// Removes what killed builds left next to a target: folders named after a process that is gone.
pub(super) fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<i32>().ok());
        if owner.is_some_and(files::is_gone) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Writes a bundle next to `target` and renames it into place: there is a whole bundle, or none.
///
/// # Errors
/// As [`room_for`]; [`Error::Changed`] where a file isn't what was validated.
pub fn pack(contents: Contents, target: &Path, overwrite: bool) -> Result<Manifest, Error> {
    room_for(target, overwrite)?;
    let staging = staging(target)?;
    let root = staging.path();
    let mut manifest = contents.manifest;
    let mut files: BTreeMap<String, FileEntry> = BTreeMap::new();
    let place = |name: &str| -> Result<PathBuf, Error> {
        let path = root.join(name);
        let folder = path.parent().expect("inside the bundle");
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        Ok(path)
    };
    let copy = |name: &str, from: &Path, expected: Digest| -> Result<FileEntry, Error> {
        let entry = hashed_copy(from, &place(name)?)?;
        if entry.sha256 != expected {
            let (expected, found) = (expected.to_string(), entry.sha256.to_string());
            return Err(Error::Changed { path: from.to_owned(), expected, found });
        }
        Ok(entry)
    };
    for (name, accepted) in &contents.models {
        let artifact = accepted.artifact();
        files.insert(name.clone(), copy(name, &artifact.path, artifact.sha256)?);
        if let Some(weights) = &artifact.weights {
            let name = Path::new(name).with_extension("bin").to_string_lossy().into_owned();
            let entry = copy(&name, &weights.path, weights.sha256)?;
            files.insert(name, entry);
        }
    }
    for (name, extra) in &contents.extras {
        let entry = match extra {
            Extra::Copy(from, expected) => copy(name, from, *expected)?,
            Extra::Text(text) => {
                let path = place(name)?;
                std::fs::write(&path, text).map_err(Error::io(&path))?;
                FileEntry { sha256: Digest::of(text.as_bytes()), bytes: text.len() as u64 }
            }
        };
        files.insert(name.clone(), entry);
    }
    for artifact in &manifest.artifacts {
        if !contents.models.contains_key(&artifact.file) {
            return Err(Error::Unvalidated { path: target.to_owned(), file: artifact.file.clone() });
        }
    }

    manifest.files = files;
    let text = manifest.to_json();
    let mut sums: BTreeMap<String, Digest> =
        manifest.files.iter().map(|(name, entry)| (name.clone(), entry.sha256)).collect();
    sums.insert(MANIFEST.to_owned(), Digest::of(text.as_bytes()));
    let sums = super::verify::sums_text(&sums);
    for (name, text) in [(MANIFEST, &text), (SUMS, &sums)] {
        let path = root.join(name);
        std::fs::write(&path, text).map_err(Error::io(&path))?;
    }
    if put(root, target)? {
        let _ = staging.keep();
    }
    Ok(manifest)
}

/// Renames the finished folder into place; one that is in the way is removed once the new one is there. Returns
/// whether `staged` is gone; otherwise it holds the old bundle now.
pub(super) fn put(staged: &Path, target: &Path) -> Result<bool, Error> {
    #[cfg(unix)]
    {
        // A temporary folder is private; a bundle is as readable as any folder made here.
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(staged, open).map_err(Error::io(staged))?;
    }
    if !target.exists() {
        std::fs::rename(staged, target).map_err(Error::io(target))?;
        return Ok(true);
    }
    if exchange(staged, target) {
        return Ok(false);
    }
    let aside = staging(target)?;
    let old = aside.path().join("old");
    std::fs::rename(target, &old).map_err(Error::io(target))?;
    if let Err(e) = std::fs::rename(staged, target) {
        let _ = std::fs::rename(&old, target);
        return Err(Error::io(target)(e));
    }
    Ok(true)
}

/// Swaps two folders in one step, so that one bundle is always there; false where the file system can't.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes());
    let (Ok(a), Ok(b)) = (name(a), name(b)) else { return false };
    #[allow(unsafe_code)]
    // SAFETY: both are NUL-terminated strings that outlive the call.
    unsafe {
        libc::renameat2(libc::AT_FDCWD, a.as_ptr(), libc::AT_FDCWD, b.as_ptr(), libc::RENAME_EXCHANGE)
            == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> bool {
    false
}
