//! Checks an artifact against outputs recorded from PyTorch, and fails closed: what isn't shown to be within tolerance
//! is rejected, and only an accepted artifact can go into a bundle.

pub mod bench;
mod calibrate;
mod causal;
mod disagreement;
mod divergence;
mod inputs;
mod metric;
mod pesq;
pub mod record;
mod references;
mod sensitivity;
pub mod speech;
mod speed;
mod verdict;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use verdict::hold;

use crate::audio;
use crate::interface::{self, Interface, Signature};
use crate::ir;
use crate::names::{Ports, Precision};
use crate::quantize;
use crate::runtime::{self, Runtime, Session, Takes, Tensors, Traits};
use crate::source::Refused;
use crate::tensor::{self, Tensor};

pub use calibrate::calibrate;
pub use disagreement::{Comparison, Disagreement, Distance, Limits, Side, first_disagreement};
pub use divergence::{Divergence, first_divergence};
pub use inputs::{MadeUp, Sizes, given_inputs, name_dimensions, random_inputs, recorded_case};
pub use metric::{Measured, Metric, Tolerance};
pub use pesq::pesq;
pub use references::{Case, Kind, References};
pub use sensitivity::{
    Choice, Damage, Milliseconds, Sensitivity, Trial, choose, measure as sensitivity,
};
pub use speed::{Speed, speed};
pub use verdict::{Accepted, Agreement, Artifact, Beside, CaseResult, Verdict, Weights};

/// What goes wrong before there is a verdict.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// The references prove nothing.
    #[error("{}: {why}", path.display())]
    #[diagnostic(
        code(validate::references),
        help("record the references again: run the build with --rebuild")
    )]
    References { path: PathBuf, why: String },
    /// What was recorded answered a case with silence.
    #[error("{}: the module that was recorded is silent on case {case:?}: {output:?} is all zeros", path.display())]
    #[diagnostic(
        code(validate::silent),
        help("check its weights: are they trained, of this module, and under the right `prefix`?")
    )]
    Silent { path: PathBuf, case: String, output: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tensor(#[from] tensor::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ir::Error),
    /// A tolerance is looser than any may be.
    #[error("the tolerance {name} = {value} is looser than the floor {floor} of its precision")]
    #[diagnostic(
        code(validate::floor),
        help("a bundle's thresholds may be stricter than the floor, never looser")
    )]
    Floor { name: &'static str, value: f64, floor: f64 },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interface(#[from] interface::Error),
    /// An input cannot be made up.
    #[error("the model's input {name:?} {why}")]
    #[diagnostic(
        code(validate::inputs),
        help(
            "--dim NAME=SIZE sets an open dimension; --inputs FILE.npz, or --references FILE --case NAME, gives all inputs"
        )
    )]
    Inputs { name: String, why: String },
    /// No input has the dimension that was set.
    #[error("no input has the open dimension {name:?}; {advice}")]
    #[diagnostic(
        code(validate::dimension),
        help(
            "soprano-export inspect MODEL shows the inputs; --dim INPUT:AXIS=SIZE sets one without a name"
        )
    )]
    Dimension { name: String, advice: String },
    /// The file of inputs does not hold them.
    #[error("{}: {why}", path.display())]
    #[diagnostic(
        code(validate::given),
        help(
            "soprano-export inspect MODEL shows the inputs; numpy.savez(\"inputs.npz\", **{{\"NAME\": array}}) writes them"
        )
    )]
    Given { path: PathBuf, why: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Quantize(#[from] quantize::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Speech(#[from] crate::speech::Error),
    /// What is asked to be recorded is not to be had of the model.
    #[error("{why}")]
    #[diagnostic(code(validate::record), help("change `references` or `speech` of the recipe"))]
    NotRecorded { why: String },
    /// The checkpoint can't be run.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] Refused),
    /// There is nothing to measure.
    #[error("{0}")]
    #[diagnostic(code(validate::nothing_to_measure))]
    NothingToMeasure(&'static str),
    /// It was stopped from outside.
    #[error("interrupted")]
    #[diagnostic(code(validate::interrupted))]
    Interrupted,
}

/// How far two runtimes may be from each other on one fp32 file, over the peak.
pub const AGREEMENT_OF_PEAK: f64 = 1e-4;

/// What two runtimes must agree to on one file.
pub const AGREEMENT_DB: f64 = 45.0;
/// How much closer two runtimes must be to each other than to PyTorch; independent errors would be 3 dB further apart.
/// In 8 bits a last bit before a rounding is a whole step after it, which each layer multiplies: a runtime whose input
/// changes by a millionth agrees with itself to 29 dB where 8 bits reach 13 (the decoder of `soprano-mini`, one term).
pub const CLOSER_DB: f64 = 3.0;
/// The most tokens, times batch, of a reference that tract runs in 8 bits where another runtime runs them all: without
/// VNNI it takes 0.3 s a token of a full-size decoder.
pub const LONGEST_IN_8_BITS: usize = 128;
/// Tokens of a case, over its batch, up to which runtimes are held against each other.
const LONGEST_COMPARED: usize = 128;

/// What an artifact claims to be, and what that demands of it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The graph's name.
    pub graph: String,
    /// The names of its inputs and outputs, and with them its role.
    pub ports: Ports,
    /// How the file holds numbers.
    pub precision: Precision,
    /// How far it may be from the references.
    pub tolerance: Tolerance,
    /// What it takes and gives.
    pub signature: Signature,
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
    claim: Claim,
    runtime: &dyn Runtime,
    interrupted: &AtomicBool,
    done: &(dyn Fn(usize, usize) + Sync),
) -> Result<Verdict, Error> {
    let Claim { graph, ports, precision, tolerance, signature } = claim;
    tolerance.check(ports.role(), precision)?;
    let session = runtime.load(&artifact.path)?;
    let judge = Judge(Interface::bind(&ports, &signature)?);
    let references = &references.clone().within(&signature);
    let total = references.cases.len();
    let finished = std::sync::atomic::AtomicUsize::new(0);
    let one = |case: &Case| {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let result = judge.case(case, references, session.as_ref(), &tolerance)?;
        done(finished.fetch_add(1, Ordering::Relaxed) + 1, total);
        Ok(result)
    };
    // The largest first, one at a time: else a core ends with it alone.
    let mut order: Vec<(usize, &Case)> = references.cases.iter().enumerate().collect();
    order.sort_by_key(|(_, case)| std::cmp::Reverse(case.batch * case.length));
    let judged = order.into_iter().par_bridge().map(|(at, case)| Ok((at, one(case)?)));
    let mut judged = judged.collect::<Result<Vec<_>, Error>>()?;
    judged.sort_by_key(|(at, _)| *at);
    let cases: Vec<CaseResult> = judged.into_iter().map(|(_, case)| case).collect();
    Ok(Verdict {
        sha256: artifact.sha256,
        weights: artifact.weights.as_ref().map(|weights| weights.sha256),
        runtime: runtime.name_and_version(),
        graph,
        role: ports.role(),
        precision,
        tolerance,
        passed: hold(&cases),
        cases,
        divergence: None,
        beside: Vec::new(),
    })
}

/// Compares an artifact with its references in the first of these runtimes, and in each other after it. One that
/// takes the file slowly comes last, and where another has them all it runs the short references alone. Nothing
/// where there is no runtime.
///
/// # Errors
/// As [`validate`].
pub fn judge(
    artifact: &Artifact,
    traits: &Traits,
    references: &References,
    claim: Claim,
    runtimes: &[&dyn Runtime],
    interrupted: &AtomicBool,
    done: &(dyn Fn(usize, usize) + Sync),
) -> Result<Option<Verdict>, Error> {
    let slow = |runtime: &&dyn Runtime| matches!(runtime.takes(traits), Takes::Slowly(_));
    let mut runtimes = runtimes.to_vec();
    runtimes.sort_by_key(slow);
    let Some((first, others)) = runtimes.split_first() else { return Ok(None) };
    let mut verdict = validate(artifact, references, claim.clone(), *first, interrupted, done)?;
    let short = references.clone().up_to(LONGEST_IN_8_BITS);
    for other in others {
        let references = if slow(other) && !short.cases.is_empty() { &short } else { references };
        validate_beside(&mut verdict, artifact, references, &claim, [*first, *other], interrupted)?;
    }
    Ok(Some(verdict))
}

/// Compares an artifact with its references in a second runtime, and the two runtimes against each other.
/// The verdict fails where either fails.
fn validate_beside(
    verdict: &mut Verdict,
    artifact: &Artifact,
    references: &References,
    claim: &Claim,
    [first, second]: [&dyn Runtime; 2],
    interrupted: &AtomicBool,
) -> Result<(), Error> {
    let other = validate(artifact, references, claim.clone(), second, interrupted, &|_, _| {})?;
    let (a, b) = (first.load(&artifact.path)?, second.load(&artifact.path)?);
    let interface = Interface::bind(&claim.ports, &claim.signature)?;
    let compared_output = interface.causal().map(|graph| graph.names().hidden.as_str());
    let (mut agreement_db, mut agreement_limit_db) = (f64::INFINITY, AGREEMENT_DB);
    let mut compared: Vec<Agreement> = Vec::new();
    // Two runtimes can't agree on what a last bit throws over.
    let judges = |case: &Case| case.last_bit.as_ref().is_none_or(|m| !m.beyond(&verdict.tolerance));
    let fits = |case: &&Case| {
        case.is_one_call() && case.batch * case.length <= LONGEST_COMPARED && judges(case)
    };
    for case in references.cases.iter().filter(fits) {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let mut inputs = references.inputs(case);
        interface.complete(&mut inputs, case.batch);
        let (Ok(from_a), Ok(from_b)) = (a.run(&inputs), b.run(&inputs)) else { continue };
        let mut measured = Measured::default();
        let mut near = true;
        let compares = |output: &str| compared_output.is_none_or(|name| name == output);
        for (output, a) in from_a.iter().filter(|(output, _)| compares(output)) {
            let a = a.to_f32()?;
            let b = match from_b.get(output).filter(|b| from_a[output].shape() == b.shape()) {
                Some(b) => b.to_f32()?,
                None => Vec::new(),
            };
            let snr = audio::snr_db(&a, &b).unwrap_or(f64::NAN);
            let error = audio::max_abs_difference(&a, &b).unwrap_or(f64::NAN) / audio::peak(&a);
            measured.add(Metric::SnrDb, snr);
            measured.add(Metric::MaxAbsOfPeak, error);
            let result = verdict.cases.iter().find(|result| result.name == case.name);
            let reached = result.and_then(|result| result.measured.get(Metric::SnrDb));
            let limit = AGREEMENT_DB.min(reached.unwrap_or(f64::INFINITY) + CLOSER_DB);
            near &= snr > limit && (verdict.precision != Precision::Fp32 || error < AGREEMENT_OF_PEAK);
            let margin = Metric::SnrDb.worse(snr - limit, agreement_db - agreement_limit_db);
            if compared.is_empty() || margin.is_nan() || margin == snr - limit {
                (agreement_db, agreement_limit_db) = (snr, limit);
            }
        }
        compared.push(Agreement { case: case.name.clone(), measured, passed: near });
    }
    let beside = Beside { verdict: other, agreement_db, agreement_limit_db, compared };
    verdict.passed &= beside.passed();
    verdict.beside.push(beside);
    Ok(())
}

/// Runs a graph's references, as its role asks.
struct Judge(Interface);

impl Judge {
    fn case(
        &self,
        case: &Case,
        references: &References,
        session: &dyn Session,
        tolerance: &Tolerance,
    ) -> Result<CaseResult, Error> {
        let mut result = CaseResult {
            name: case.name.clone(),
            kind: case.kind,
            batch: case.batch,
            length: case.length,
            peak: 0.0,
            measured: Measured::default(),
            passed: false,
            fault: None,
            ill_conditioned: case.last_bit.clone().filter(|moved| moved.beyond(tolerance)),
        };
        let outcome = match &self.0 {
            Interface::Signal(_) => decode(case, references, session, &mut result),
            Interface::Causal(graph) => causal::run(graph, case, references, session, &mut result),
        };
        match outcome {
            // An answer within the tolerance judges as closely as any, whatever its case is like.
            Ok(()) if result.measured.within(tolerance) => {
                (result.passed, result.ill_conditioned) = (true, None);
            }
            Ok(()) => {
                let wide = result.ill_conditioned.as_ref().map(|moved| tolerance.widened(moved));
                result.passed = wide.is_some_and(|wide| result.measured.within(&wide));
            }
            Err(Fault::Output(fault)) => result.fault = Some(fault),
            Err(Fault::Reference(error)) => return Err(error),
        }
        Ok(result)
    }
}

/// Why a case has no figures.
enum Fault {
    /// The model's doing: a failed case.
    Output(String),
    /// The reference's: nothing can be said about the model.
    Reference(Error),
}

impl From<runtime::Error> for Fault {
    fn from(error: runtime::Error) -> Self {
        Fault::Output(error.to_string())
    }
}

impl From<tensor::Error> for Fault {
    fn from(error: tensor::Error) -> Self {
        Fault::Reference(error.into())
    }
}

fn decode(
    case: &Case,
    references: &References,
    session: &dyn Session,
    result: &mut CaseResult,
) -> Result<(), Fault> {
    let outputs = session.run(&references.inputs(case))?;
    for (name, want) in &references.outputs(case) {
        let got = output(&outputs, name, want)?;
        let samples = want.shape().last().copied().unwrap_or(0).max(1);
        measure(&want.to_f32()?, &got.to_f32()?, samples, result)
            .map_err(|fault| Fault::Output(format!("{name}: {fault}")))?;
    }
    Ok(())
}

/// The output of a name, if it has the shape that is wanted.
fn output<'a>(outputs: &'a Tensors, name: &str, want: &Tensor) -> Result<&'a Tensor, Fault> {
    let got =
        outputs.get(name).ok_or_else(|| Fault::Output(format!("the model has no output {name:?}")))?;
    if got.shape() == want.shape() {
        return Ok(got);
    }
    Err(Fault::Output(format!("{name} has the shape {:?}, not {:?}", got.shape(), want.shape())))
}

fn measure(
    reference: &[f32],
    test: &[f32],
    samples: usize,
    result: &mut CaseResult,
) -> Result<(), audio::Error> {
    result.peak = result.peak.max(audio::peak(reference));
    let measured = &mut result.measured;
    let error = audio::max_abs_difference(reference, test)?;
    measured.add(Metric::MaxAbsOfPeak, error / audio::peak(reference));
    measured.add(Metric::SnrDb, audio::snr_db(reference, test)?);
    // Row by row: the end of one signal and the start of the next are not a spectrum.
    for (r, t) in reference.chunks(samples).zip(test.chunks(samples)) {
        measured.add(Metric::LogSpectralDistanceDb, audio::log_spectral_distance_db(r, t)?);
    }
    Ok(())
}
