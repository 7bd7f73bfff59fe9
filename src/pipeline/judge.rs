//! The stages that judge: references through every file, in every runtime that takes it, and its time.

use super::cache::Stage;
use super::reject::reject;
use super::stage::{MODEL, PROBES, REFERENCES, REWRITTEN, Work};
use super::walk::Walk;
use super::{Build, Error, Rewrite};
use crate::convert;
use crate::interface::Signature;
use crate::ir::Model;
use crate::names::{Precision, Role};
use crate::recipe::{Graph, OpenVinoTarget};
use crate::runtime::{Format, Runtime, Takes, Traits};
use crate::tensor::TensorFile;
use crate::validate::{self, Artifact, Claim, Metric, References, Tolerance, Verdict, Weights};

/// A file to be judged.
pub(super) struct Candidate {
    /// The file.
    pub(super) artifact: Artifact,
    /// What it takes and gives.
    pub(super) signature: Signature,
    /// What was done to the exported graph.
    pub(super) rewrite: Rewrite,
}

/// The file of a graph in a precision and a format, from the stage that leaves it.
pub(super) fn candidate(
    walk: &Walk<'_>,
    (name, graph): (&str, &Graph),
    (precision, format): (Precision, Format),
) -> Result<Candidate, Error> {
    let stage = walk.stage(&Work::file_of(name, precision, format))?;
    let onnx = |stage: &Stage| {
        let (path, entry) = stage.file(REWRITTEN)?;
        Ok::<_, Error>(Artifact { path, sha256: entry.sha256, bytes: entry.bytes, weights: None })
    };
    let Some(target) = graph.targets().openvino.as_ref().filter(|_| format == Format::OpenVino) else {
        let artifact = onnx(stage)?;
        let signature = Signature::from(&Model::open(&artifact.path)?);
        return Ok(Candidate { artifact, signature, rewrite: stage.result()? });
    };
    let [file, weights] = convert::files(precision);
    let (path, entry) = stage.file(&file)?;
    let (weights, beside) = stage.file(&weights)?;
    let weights = Some(Weights { path: weights, sha256: beside.sha256, bytes: beside.bytes });
    let rewritten = walk.stage(&Work::file_of(name, Precision::Fp32, Format::Onnx))?;
    let signature = converted_signature(target, graph, &Model::open(onnx(rewritten)?.path)?);
    let artifact = Artifact { path, sha256: entry.sha256, bytes: entry.bytes, weights };
    Ok(Candidate { artifact, signature, rewrite: rewritten.result()? })
}

/// What a converted file takes and gives: what its ONNX file does, within the target's shapes.
fn converted_signature(target: &OpenVinoTarget, graph: &Graph, model: &Model) -> Signature {
    let mut signature = Signature::from(model);
    for port in &mut signature.inputs {
        let Some(wanted) = target.shapes.get(&port.name) else { continue };
        for (dim, wanted) in port.dims.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted != "?") {
            dim.clone_from(wanted);
        }
    }
    if target.stateful { signature.with_state(&graph.ports()) } else { signature }
}

/// The references of a graph, for the inputs of a model.
pub(super) fn references(
    walk: &Walk<'_>,
    name: &str,
    graph: &Graph,
    model: &Model,
) -> Result<References, Error> {
    let path = walk.stage(&Work::Record(name.to_owned()))?.file(REFERENCES)?.0;
    let inputs = Signature::from(model).recorded_inputs(&graph.ports());
    Ok(References::read(&path, &inputs)?)
}

/// What the recipe demands of a graph's file.
fn tolerance(graph: &Graph, precision: Precision, format: Format) -> Tolerance {
    let least = |snr_db: f64| {
        let greedy = (graph.role() == Role::Causal).then_some((Metric::GreedyAgreement, 0.0));
        Tolerance::new([(Metric::SnrDb, snr_db)].into_iter().chain(greedy))
    };
    let target = graph.targets().openvino.as_ref().filter(|_| format == Format::OpenVino);
    match (precision, target, graph) {
        (Precision::Fp16, Some(target), _) => least(target.fp16_snr_db),
        (Precision::Int8, Some(target), _) => least(target.int8_snr_db),
        (Precision::Fp16 | Precision::Int8, None, _) => {
            least(graph.int8().map_or(f64::NAN, |int8| int8.snr_db))
        }
        (Precision::Fp32, _, Graph::Signal(graph)) => {
            let fp32 = &graph.tolerance.fp32;
            Tolerance::new([
                (Metric::MaxAbsOfPeak, fp32.max_abs_of_peak),
                (Metric::SnrDb, fp32.snr_db),
                (Metric::LogSpectralDistanceDb, fp32.log_spectral_distance_db),
            ])
        }
        (Precision::Fp32, _, Graph::Causal(graph)) => {
            let fp32 = &graph.tolerance.fp32;
            Tolerance::new([
                (Metric::MaxAbs, fp32.max_abs),
                (Metric::SnrDb, fp32.snr_db),
                (Metric::Top1Agreement, fp32.top_1_agreement),
                (Metric::GreedyAgreement, fp32.top_1_agreement),
                (Metric::ErrorGrowth, fp32.error_growth),
            ])
        }
    }
}

/// Runs every reference through a file; what is out of tolerance is rejected.
pub(super) fn validate(
    walk: &Walk<'_>,
    (name, graph): (&str, &Graph),
    (precision, format): (Precision, Format),
) -> Result<serde_json::Value, Error> {
    let Walk { build, reporter, .. } = walk;
    let Candidate { artifact, signature, .. } = candidate(walk, (name, graph), (precision, format))?;
    // A converted file has the interface, and the references, of the one that it was made from.
    let onnx = if format == Format::Onnx { precision } else { Precision::Fp32 };
    let rewritten = walk.stage(&Work::file_of(name, onnx, Format::Onnx))?;
    let model = Model::open(rewritten.file(REWRITTEN)?.0)?;
    let references = references(walk, name, graph, &model)?;
    let done =
        |done: usize, total: usize| reporter.progress("run references", done as u64, total as u64);
    let claim = Claim {
        graph: name.to_owned(),
        ports: graph.ports(),
        precision,
        tolerance: tolerance(graph, precision, format),
        signature: signature.clone(),
    };
    let traits = Traits::of(&artifact.path, format, precision)?;
    let takes = |runtime: &&dyn Runtime| {
        runtime.runs(format) && !matches!(runtime.takes(&traits), Takes::Not(_))
    };
    let runtimes: Vec<&dyn Runtime> = build.runtimes.iter().map(AsRef::as_ref).filter(takes).collect();
    let stop = build.interrupted;
    let outcome = validate::judge(&artifact, &traits, &references, claim, &runtimes, stop, &done)?;
    let mut verdict = outcome.ok_or(match format {
        Format::OpenVino => Error::NoOpenVino,
        Format::Onnx => Error::NoOnnxRuntime,
    })?;
    if precision == Precision::Fp32 && format == Format::Onnx {
        let exported = walk.stage(&Work::Export(name.to_owned()))?;
        look_for_divergence(build, &mut verdict, &model, exported, &references)?;
    }
    if !verdict.passed {
        return Err(reject(build, verdict, &artifact));
    }
    Ok(serde_json::to_value(verdict).expect("plain data"))
}

/// Where the export left inner values of the original module, the first one that a failing file misses.
fn look_for_divergence(
    build: &Build<'_>,
    verdict: &mut Verdict,
    model: &Model,
    exported: &Stage,
    references: &References,
) -> Result<(), Error> {
    let Ok((probes, _)) = exported.file(PROBES) else { return Ok(()) };
    let Some((runtime, failed)) = verdict.failure() else { return Ok(()) };
    let case = references.cases.iter().find(|case| case.name == failed.name);
    let runtime = build.runtimes.iter().find(|known| known.name_and_version() == runtime);
    if let (Some(case), Some(runtime)) = (case, runtime) {
        let before = Model::open(exported.file(MODEL)?.0)?;
        let (probes, inputs) = (TensorFile::read(&probes)?, references.inputs(case));
        // The verdict stands without it: a search that fails must not hide a failure.
        verdict.divergence =
            validate::first_divergence(model, &before, &probes, &inputs, runtime.as_ref())
                .unwrap_or(None);
    }
    Ok(())
}

/// Times an int8 file against its fp32 one; one that is slower, by calls long enough to tell, is an error.
pub(super) fn time(walk: &Walk<'_>, name: &str, graph: &Graph) -> Result<serde_json::Value, Error> {
    let fast = |runtime: &&dyn Runtime| runtime.takes(&Traits::INT8) == Takes::Well;
    let runtime = walk.build.runtimes.iter().map(AsRef::as_ref).find(fast).ok_or(Error::NoClock)?;
    let file =
        |precision| Ok::<_, Error>(candidate(walk, (name, graph), (precision, Format::Onnx))?.artifact);
    let [fp32, int8] = [file(Precision::Fp32)?, file(Precision::Int8)?];
    let references = references(walk, name, graph, &Model::open(&fp32.path)?)?;
    let speed = validate::speed(&graph.ports(), [&fp32, &int8], &references, runtime)?;
    if speed.is_slower() {
        return Err(Error::Slow { graph: name.to_owned(), speed: Box::new(speed) });
    }
    Ok(serde_json::to_value(speed).expect("plain data"))
}
