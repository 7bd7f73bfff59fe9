//! Signals: WAV, short-time spectra, and how far two signals are apart.

mod distance;
mod spectrum;
mod wav;

pub use distance::{LSD_FLOOR_DB, LSD_HOP, LSD_N_FFT};
pub use distance::{log_spectral_distance_db, max_abs_difference, peak, snr_db};
pub use spectrum::Stft;
pub use wav::{Encoding, Unencodable, Wav};

use std::path::PathBuf;

/// Why a signal can't be read, written or compared.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[diagnostic(code(audio))]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{}: not a WAV file that can be read: {why}", path.display())]
    Wav { path: PathBuf, why: String },
    #[error("{}: can't be written: {why}", path.display())]
    Encode { path: PathBuf, why: Unencodable },
    #[error("the reference has {reference} samples and the signal held against it {test}")]
    Lengths { reference: usize, test: usize },
}

/// The larger of two, and NaN where either is (`f64::max` drops it).
fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
