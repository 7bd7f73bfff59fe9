//! The map of a model's file.

use bytes::Bytes;

/// The map of a model's own file, as a whole: only [`Model::open`] makes one.
#[derive(Clone, Debug)]
pub(super) struct Mapped(pub(super) Bytes);

impl Mapped {
    /// Gives the pages that were read back to the system, which reads them again if they are needed:
    /// a rewrite that replaces every weight would otherwise hold each of them twice.
    pub(super) fn release(&self) {
        #[cfg(target_os = "linux")]
        #[allow(unsafe_code)]
        // SAFETY: the range is one read-only map of a file, whole, alive through the handle, and never
        // written; dropped pages hold the file's own bytes when they are next read.
        unsafe {
            libc::madvise(self.0.as_ptr().cast_mut().cast(), self.0.len(), libc::MADV_DONTNEED);
        }
    }
}
