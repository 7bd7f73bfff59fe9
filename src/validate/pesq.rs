//! PESQ (ITU-T P.862.2), by the package `pesq` of a Python environment that has it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::speech::{Assessment, Piece};
use crate::audio::resample;
use crate::export::{Child, Error, Python, Request};
use crate::tensor::{Tensor, TensorFile};

/// The rate of wideband PESQ, in Hz.
const RATE: u32 = 16_000;
/// A piece that takes longer than this is not scored.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The score of the decoder's audio of each piece against upstream's, as MOS-LQO; none where the piece is too short
/// or silent, or the rate is below 16 kHz.
///
/// # Errors
/// Of the child process, and [`Error::Io`] of the signals that are written for it.
pub fn pesq(
    python: &Python,
    cache: &Path,
    pieces: &[Piece],
    assessments: &[Assessment],
    sample_rate: u32,
    interrupted: &AtomicBool,
) -> Result<Vec<Option<f64>>, Error> {
    if sample_rate < RATE {
        return Ok(vec![None; assessments.len()]);
    }
    let io = |path: &Path, source| Error::Io { path: path.to_owned(), source };
    let scratch = tempfile::tempdir().map_err(|e| io(&std::env::temp_dir(), e))?;
    let write = |name: &str, signals: Vec<&Vec<f32>>| -> Result<PathBuf, Error> {
        let path = scratch.path().join(name);
        let mut file = TensorFile::default();
        for (at, signal) in signals.into_iter().enumerate() {
            let signal = resample(signal, sample_rate, RATE);
            file.tensors.insert(at.to_string(), Tensor::from_f32(&[signal.len()], &signal));
        }
        let bytes = file.to_bytes().map_err(|e| io(&path, std::io::Error::other(e)))?;
        std::fs::write(&path, bytes).map_err(|e| io(&path, e))?;
        Ok(path)
    };
    let pieces = &pieces[..assessments.len()];
    let reference = &write("reference", pieces.iter().map(|piece| &piece.audio).collect())?;
    let degraded = &write("degraded", assessments.iter().map(|piece| &piece.same_rows).collect())?;
    let log = &scratch.path().join("log");
    let child = Child { python, cache, log, time_limit: TIME_LIMIT, interrupted, progress: &|_| {} };
    let mut result = child.run(&Request::Pesq { reference, degraded }, scratch.path())?.result;
    let scores: Vec<Option<f64>> = serde_json::from_value(result["scores"].take()).unwrap_or_default();
    if scores.len() != assessments.len() {
        let why = format!("{} scores for {} pieces", scores.len(), assessments.len());
        return Err(Error::Protocol { why, log: log.clone() });
    }
    Ok(scores)
}
