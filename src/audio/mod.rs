//! Signals: WAV files, short-time spectra, distances between signals, and the quality of speech.

mod distance;
mod estoi;
mod mel_cepstrum;
mod resample;
mod si_sdr;
mod spectrum;
mod stoi;
mod stream;
#[cfg(test)]
mod testing;
mod wav;

pub use distance::{LSD_FLOOR_DB, LSD_HOP, LSD_N_FFT};
pub use distance::{log_spectral_distance_db, max_abs_difference, peak, snr_db};
pub use estoi::estoi;
pub use mel_cepstrum::mel_cepstral_distortion_db;
pub use resample::resample;
pub use si_sdr::si_sdr_db;
pub use spectrum::Stft;
pub use stoi::stoi;
pub use stream::WavStream;
pub use wav::{Encoding, Unencodable, Wav};

use std::path::PathBuf;

/// Why a signal can't be read, written or compared.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[diagnostic(code(audio))]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is not a WAV file that can be read.
    #[error("{}: not a WAV file that can be read: {why}", path.display())]
    Wav { path: PathBuf, why: String },
    /// The samples have no form in the encoding that was asked for.
    #[error("{}: can't be written: {why}", path.display())]
    Encode { path: PathBuf, why: Unencodable },
    /// Two signals that are to be compared have different lengths.
    #[error("the reference has {reference} samples, and the signal compared with it has {test}")]
    Lengths { reference: usize, test: usize },
    /// The metric is not defined at this sample rate.
    #[error("{metric} takes {lowest} to {highest} samples a second, not {rate}")]
    #[diagnostic(help("resample to a rate in between; what a lower one lost doesn't come back"))]
    Rate { metric: &'static str, rate: u32, lowest: u32, highest: u32 },
    /// A sample is NaN or infinite.
    #[error("sample {index} of the {which} is {value}")]
    NotFinite { which: &'static str, index: usize, value: f32 },
    /// The signal has no speech to judge.
    #[error("the {which} is silent: {metric} has no speech to judge")]
    Silent { metric: &'static str, which: &'static str },
    /// The signal is too short for the metric.
    #[error("{metric} needs {needed:.3} s of speech, and the reference has {has:.3} s")]
    #[diagnostic(help("use a longer sentence, or join several"))]
    TooShort { metric: &'static str, needed: f64, has: f64 },
}

const REFERENCE: &str = "reference";
const TEST: &str = "signal compared with it";
/// The highest rate that a metric resamples from, in Hz.
const HIGHEST_RATE: u32 = 384_000;

fn same_length(reference: &[f32], test: &[f32]) -> Result<(), Error> {
    if reference.len() == test.len() {
        return Ok(());
    }
    Err(Error::Lengths { reference: reference.len(), test: test.len() })
}

/// Samples of two signals at the same places.
fn pairs<'a>(reference: &'a [f32], test: &'a [f32]) -> impl Iterator<Item = (f64, f64)> + 'a {
    reference.iter().zip(test).map(|(&r, &t)| (f64::from(r), f64::from(t)))
}

/// What a metric of speech needs of two signals: as many samples in each, all finite, and not all zero.
fn comparable(metric: &'static str, reference: &[f32], test: &[f32]) -> Result<(), Error> {
    same_length(reference, test)?;
    for (which, signal) in [(REFERENCE, reference), (TEST, test)] {
        if let Some((index, &value)) = signal.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            return Err(Error::NotFinite { which, index, value });
        }
        if signal.iter().all(|&x| x == 0.0) {
            return Err(Error::Silent { metric, which });
        }
    }
    Ok(())
}

/// Whether a metric that is defined at `lowest` Hz can be computed of signals at `rate`.
fn resampleable(metric: &'static str, rate: u32, lowest: u32) -> Result<(), Error> {
    if (lowest..=HIGHEST_RATE).contains(&rate) {
        return Ok(());
    }
    Err(Error::Rate { metric, rate, lowest, highest: HIGHEST_RATE })
}

/// The larger of two, and NaN where either is (`f64::max` drops it).
fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
