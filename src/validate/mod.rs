//! Holds an artifact against outputs recorded from PyTorch, and fails closed: what isn't shown to be
//! within its tolerance is rejected, and only an accepted artifact can go into a bundle.

mod divergence;
mod references;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::audio;
use crate::digest::Digest;
use crate::ir;
use crate::runtime::{self, Runtime, Session, Tensors};
use crate::tensor::{self, Tensor};

pub use divergence::{Divergence, first_divergence};
pub use references::{Case, Kind, References};

/// What goes wrong before there is a verdict.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{}: {why}", path.display())]
    #[diagnostic(
        code(validate::references),
        help("record the references again: run the build with --rebuild")
    )]
    References { path: PathBuf, why: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tensor(#[from] tensor::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ir::Error),
    #[error("the tolerance {name} = {value} is looser than the floor {floor} of its scheme")]
    #[diagnostic(
        code(validate::floor),
        help("a bundle's thresholds may be stricter than the floor, never looser")
    )]
    Floor { name: &'static str, value: f64, floor: f64 },
    #[error("interrupted")]
    #[diagnostic(code(validate::interrupted))]
    Interrupted,
}

/// What a float32 artifact must reach, in every case.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Largest absolute difference, as a share of the reference's peak: below this.
    pub max_abs_of_peak: f64,
    /// Signal-to-noise ratio in decibels: above this.
    pub snr_db: f64,
    /// Log-spectral distance in decibels: below this.
    pub log_spectral_distance_db: f64,
}

impl Tolerance {
    /// No fp32 artifact is accepted below this, whatever a recipe or a manifest says.
    pub const FP32_FLOOR: Tolerance =
        Tolerance { max_abs_of_peak: 1e-4, snr_db: 40.0, log_spectral_distance_db: 1.0 };

    /// Checks that no threshold is looser than the floor; NaN is looser than anything.
    ///
    /// # Errors
    /// [`Error::Floor`] names the threshold.
    pub fn check(&self) -> Result<(), Error> {
        let floor = Self::FP32_FLOOR;
        let upper = |name, value: f64, floor: f64| {
            if value <= floor { Ok(()) } else { Err(Error::Floor { name, value, floor }) }
        };
        upper("max_abs_of_peak", self.max_abs_of_peak, floor.max_abs_of_peak)?;
        upper(
            "log_spectral_distance_db",
            self.log_spectral_distance_db,
            floor.log_spectral_distance_db,
        )?;
        if self.snr_db >= floor.snr_db {
            return Ok(());
        }
        Err(Error::Floor { name: "snr_db", value: self.snr_db, floor: floor.snr_db })
    }
}

/// How one reference came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// The case's name, `b3_t16`.
    pub name: String,
    /// Realistic or extreme input.
    pub kind: Kind,
    /// Batch size.
    pub batch: usize,
    /// Sequence length in tokens.
    pub length: usize,
    /// Largest absolute value of the reference.
    pub peak: f64,
    /// Largest absolute difference over the peak; not finite where the output isn't.
    #[serde(with = "non_finite")]
    pub max_abs_of_peak: f64,
    /// Signal-to-noise ratio in decibels; infinite where every sample is equal.
    #[serde(with = "non_finite")]
    pub snr_db: f64,
    /// Log-spectral distance in decibels.
    #[serde(with = "non_finite")]
    pub log_spectral_distance_db: f64,
    /// Whether all three are within the tolerance.
    pub passed: bool,
    /// What forbids a comparison, where something does: a wrong shape, a missing output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// JSON has no infinities: they travel as words.
mod non_finite {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { to.serialize_f64(*value) } else { to.serialize_str(&value.to_string()) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Word(String),
        }
        match Either::deserialize(from)? {
            Either::Number(number) => Ok(number),
            Either::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// An ONNX file on its way into a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Where it lies.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
}

/// How an artifact came out against all references, in one runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The file that was run.
    pub sha256: Digest,
    /// The runtime, with its version.
    pub runtime: String,
    /// What was demanded.
    pub tolerance: Tolerance,
    /// Every case.
    pub cases: Vec<CaseResult>,
    /// Whether every case passed, and there was one.
    pub passed: bool,
    /// Where a failing artifact first leaves the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
}

/// An artifact that its verdict accepts: nothing else makes one.
#[derive(Clone, Debug)]
pub struct Accepted {
    artifact: Artifact,
    verdict: Verdict,
}

impl Accepted {
    /// The file.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// What accepted it.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

impl Verdict {
    /// Accepts the artifact that this verdict is about, if it passed.
    ///
    /// # Errors
    /// The verdict itself, where it didn't, or where it is about another file.
    pub fn accept(self, artifact: Artifact) -> Result<Accepted, Box<Verdict>> {
        let holds = self.passed
            && !self.cases.is_empty()
            && self.cases.iter().all(|case| case.passed)
            && self.tolerance.check().is_ok()
            && self.sha256 == artifact.sha256;
        if holds { Ok(Accepted { artifact, verdict: self }) } else { Err(Box::new(self)) }
    }

    /// The case that is worst: one that failed if any did, then by signal-to-noise ratio.
    pub fn worst(&self) -> Option<&CaseResult> {
        self.cases.iter().min_by(|a, b| {
            let rank = |c: &CaseResult| if c.snr_db.is_nan() { f64::NEG_INFINITY } else { c.snr_db };
            a.passed.cmp(&b.passed).then(rank(a).total_cmp(&rank(b)))
        })
    }
}

/// Runs every reference through a runtime, in parallel, with one loaded model whose open dimensions
/// stay open: a length that was baked in by tracing shows.
///
/// # Errors
/// [`Error`] where the model can't be loaded or a threshold is below the floor. A model that fails
/// while running is a failed case, not an error.
pub fn validate(
    artifact: &Artifact,
    references: &References,
    tolerance: Tolerance,
    runtime: &dyn Runtime,
    interrupted: &AtomicBool,
    done: &(dyn Fn(usize, usize) + Sync),
) -> Result<Verdict, Error> {
    tolerance.check()?;
    let session = runtime.load(&artifact.path)?;
    let total = references.cases.len();
    let finished = std::sync::atomic::AtomicUsize::new(0);
    let cases = references
        .cases
        .par_iter()
        .map(|case| {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let result = judge(case, references, session.as_ref(), tolerance)?;
            done(finished.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(result)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(Verdict {
        sha256: artifact.sha256,
        runtime: runtime.name_and_version(),
        tolerance,
        passed: !cases.is_empty() && cases.iter().all(|case| case.passed),
        cases,
        divergence: None,
    })
}

fn judge(
    case: &Case,
    references: &References,
    session: &dyn Session,
    tolerance: Tolerance,
) -> Result<CaseResult, Error> {
    let inputs: Tensors = references.inputs(case);
    let mut result = CaseResult {
        name: case.name.clone(),
        kind: case.kind,
        batch: case.batch,
        length: case.length,
        peak: 0.0,
        max_abs_of_peak: f64::NAN,
        snr_db: f64::NAN,
        log_spectral_distance_db: f64::NAN,
        passed: false,
        fault: None,
    };
    let outputs = match session.run(&inputs) {
        Ok(outputs) => outputs,
        Err(error) => {
            result.fault = Some(error.to_string());
            return Ok(result);
        }
    };
    let expected = references.outputs(case);
    result.passed = !expected.is_empty();
    for (name, want) in &expected {
        let Some(got) = outputs.get(name) else {
            result.fault = Some(format!("the model has no output {name:?}"));
            result.passed = false;
            return Ok(result);
        };
        if got.shape() != want.shape() {
            result.fault =
                Some(format!("{name} has the shape {:?}, not {:?}", got.shape(), want.shape()));
            result.passed = false;
            return Ok(result);
        }
        if let Err(fault) = compare(want, got, &mut result)? {
            result.fault = Some(format!("{name}: {fault}"));
            result.passed = false;
            return Ok(result);
        }
    }
    result.passed &= result.max_abs_of_peak < tolerance.max_abs_of_peak
        && result.snr_db > tolerance.snr_db
        && result.log_spectral_distance_db < tolerance.log_spectral_distance_db;
    Ok(result)
}

fn compare(
    want: &Tensor,
    got: &Tensor,
    result: &mut CaseResult,
) -> Result<Result<(), audio::Error>, Error> {
    let (reference, test) = (want.to_f32()?, got.to_f32()?);
    Ok(measure(&reference, &test, want.shape().last().copied().unwrap_or(0).max(1), result))
}

fn measure(
    reference: &[f32],
    test: &[f32],
    samples: usize,
    result: &mut CaseResult,
) -> Result<(), audio::Error> {
    result.peak = audio::peak(reference);
    result.max_abs_of_peak = audio::max_abs_difference(reference, test)? / result.peak;
    result.snr_db = audio::snr_db(reference, test)?;
    // Row by row: the end of one signal and the start of the next are no spectrum.
    let mut worst = 0.0f64;
    for (r, t) in reference.chunks(samples).zip(test.chunks(samples)) {
        let distance = audio::log_spectral_distance_db(r, t)?;
        worst = if distance.is_nan() || worst.is_nan() { f64::NAN } else { worst.max(distance) };
    }
    result.log_spectral_distance_db = worst;
    Ok(())
}
