use std::io::Write;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::digest::{Digest, HashingWriter};

/// What a file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// SHA-256 of its contents.
    pub sha256: Digest,
    /// Length in bytes.
    pub bytes: u64,
}

impl From<crate::ir::Written> for FileEntry {
    fn from(written: crate::ir::Written) -> Self {
        Self { sha256: written.digest, bytes: written.bytes }
    }
}

impl FileEntry {
    /// Whether the file at a path is this one: its length first, then its digest.
    pub fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|meta| meta.len() == self.bytes)
            && Digest::of_file(path).is_ok_and(|digest| digest == self.sha256)
    }
}

/// Copies a file, hashing what is written.
///
/// # Errors
/// [`Error::Io`] names the side that failed.
pub fn hashed_copy(from: &Path, to: &Path) -> Result<FileEntry, Error> {
    let mut source = crate::files::open(from).map_err(Error::io(from))?;
    let target = std::fs::File::create(to).map_err(Error::io(to))?;
    let mut writer = HashingWriter::new(target);
    let mut block = vec![0; 1 << 20];
    loop {
        let n = std::io::Read::read(&mut source, &mut block).map_err(Error::io(from))?;
        if n == 0 {
            break;
        }
        writer.write_all(&block[..n]).map_err(Error::io(to))?;
    }
    let (_, sha256, bytes) = writer.finish().map_err(Error::io(to))?;
    Ok(FileEntry { sha256, bytes })
}
