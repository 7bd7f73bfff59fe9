//! Where speech goes: a file next to its place until it is whole, a folder of them, or stdout.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Stdout};
use std::path::{Path, PathBuf};

use super::super::{Failure, is_free};
use super::Error;
use crate::audio::{Encoding, WavStream};
use crate::files::{self, Staged};
use crate::speech;

/// Takes the samples of every text.
pub(super) enum Output {
    /// WAV to stdout; whether its reader is still there.
    Stdout(WavStream<Stdout>),
    /// One file.
    File { staged: Staged, wav: Box<WavStream<BufWriter<File>>>, target: PathBuf },
    /// A file for each text.
    Folder {
        staged: tempfile::TempDir,
        /// The text whose file is open.
        open: Option<(usize, WavStream<BufWriter<File>>)>,
        /// What the files are called, without `.wav`.
        names: Vec<String>,
        target: PathBuf,
        sample_rate: u32,
        encoding: Encoding,
    },
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

impl Output {
    pub(super) fn stdout(sample_rate: u32, encoding: Encoding) -> Result<Self, Error> {
        let wav = WavStream::begin(std::io::stdout(), sample_rate, encoding);
        Ok(Self::Stdout(wav.map_err(io(Path::new("stdout")))?))
    }

    pub(super) fn file(
        target: &Path,
        overwrite: bool,
        sample_rate: u32,
        encoding: Encoding,
    ) -> Result<Self, Failure> {
        is_free(target, overwrite)?;
        let staged = Staged::beside(target).map_err(io(target))?;
        let file = staged.reopen().map_err(io(target))?;
        let wav = WavStream::begin(BufWriter::new(file), sample_rate, encoding).map_err(io(target))?;
        Ok(Self::File { staged, wav: Box::new(wav), target: target.to_owned() })
    }

    pub(super) fn folder(
        target: &Path,
        overwrite: bool,
        names: Vec<String>,
        sample_rate: u32,
        encoding: Encoding,
    ) -> Result<Self, Failure> {
        if !overwrite || !target.is_dir() {
            is_free(target, overwrite)?;
        }
        std::fs::create_dir_all(files::home(target)).map_err(io(target))?;
        let staged = files::folder_beside(target).map_err(io(target))?;
        let target = target.to_owned();
        Ok(Self::Folder { staged, open: None, names, target, sample_rate, encoding })
    }

    /// Takes samples; those of one text come together.
    pub(super) fn take(&mut self, text: usize, samples: &[f32]) -> std::io::Result<()> {
        match self {
            Self::Stdout(wav) => {
                wav.write(samples)?;
                wav.flush()
            }
            Self::File { wav, .. } => wav.write(samples),
            Self::Folder { staged, open, names, sample_rate, encoding, .. } => {
                if open.as_ref().is_none_or(|(at, _)| *at != text) {
                    if let Some((_, done)) = open.take() {
                        done.finish()?;
                    }
                    let file = File::create(staged.path().join(format!("{}.wav", names[text])))?;
                    let wav = WavStream::begin(BufWriter::new(file), *sample_rate, *encoding)?;
                    *open = Some((text, wav));
                }
                open.as_mut().map_or(Ok(()), |(_, wav)| wav.write(samples))
            }
        }
    }

    /// Puts what is whole in its place; gives the place.
    pub(super) fn finish(self) -> Result<Option<PathBuf>, Error> {
        match self {
            Self::Stdout(_) => Ok(None),
            Self::File { staged, wav, target } => {
                wav.finish().map_err(io(&target))?;
                staged.put().map_err(io(&target))?;
                Ok(Some(target))
            }
            Self::Folder { staged, open, target, .. } => {
                open.map(|(_, wav)| wav.finish()).transpose().map_err(io(&target))?;
                if target.is_dir() {
                    std::fs::remove_dir_all(&target).map_err(io(&target))?;
                } else if target.symlink_metadata().is_ok() {
                    std::fs::remove_file(&target).map_err(io(&target))?;
                }
                std::fs::rename(staged.path(), &target).map_err(io(&target))?;
                let _ = staged.keep();
                Ok(Some(target))
            }
        }
    }
}

/// Whether nobody reads any more, which is not a failure.
pub(super) fn is_gone(error: &speech::Error) -> bool {
    matches!(error, speech::Error::Output(error) if error.kind() == ErrorKind::BrokenPipe)
}
