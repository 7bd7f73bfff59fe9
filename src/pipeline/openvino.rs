//! The stages that make and judge OpenVINO IR.

use std::path::Path;

use super::cache::Stage;
use super::stages;
use super::{Build, Error, Reporter, Rewrite};
use crate::convert;
use crate::ir::Model;
use crate::names::Precision;
use crate::recipe::{OpenVinoTarget, Recipe};
use crate::runtime::Format;
use crate::validate::{self, Artifact, Claim, Metric, Part, Signature, Tolerance, Verdict, Weights};

/// The names of a part's conversion, and of the validation of each of its files.
pub(super) fn names(part: Part, scheme: Precision) -> [&'static str; 2] {
    match (part, scheme) {
        (Part::Decoder, Precision::Fp32) => ["convert", "validate-ir-fp32"],
        (Part::Decoder, Precision::Fp16) => ["convert", "validate-ir-fp16"],
        (Part::Decoder, Precision::Int8) => ["convert", "validate-ir-int8"],
        (Part::Lm, Precision::Fp32) => ["convert-lm", "validate-lm-ir-fp32"],
        (Part::Lm, Precision::Fp16) => ["convert-lm", "validate-lm-ir-fp16"],
        (Part::Lm, Precision::Int8) => ["convert-lm", "validate-lm-ir-int8"],
    }
}

/// What a recipe says of a part in OpenVINO's format.
pub(super) fn target(recipe: &Recipe, part: Part) -> Option<&OpenVinoTarget> {
    match part {
        Part::Decoder => recipe.decoder.as_ref()?.targets.openvino.as_ref(),
        Part::Lm => recipe.lm.as_ref()?.targets.openvino.as_ref(),
    }
}

/// Converts the rewritten graph.
pub(super) fn convert(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    part: Part,
    [exported, rewritten]: [&Stage; 2],
    checkpoint: &Path,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let target = target(&build.recipe, part).expect("a planned conversion is in the recipe");
    let path = rewritten.file(stages::REWRITTEN)?.0;
    let model = Model::open(&path)?;
    let sources = convert::Sources {
        model: &path,
        checkpoint: &std::fs::canonicalize(checkpoint).map_err(Error::io(checkpoint))?,
        references: &stages::references_entry(part, exported)?.0,
    };
    let said = stages::with_child(build, reporter, names(part, Precision::Fp32)[0], |child| {
        convert::openvino(child, part.name(), target, sources, &model, folder)
    })?;
    let rewrite: Rewrite = rewritten.result()?;
    Ok(serde_json::json!({ "rewrite": rewrite, "converter": said }))
}

/// The rewrite behind a converted file.
pub(super) fn rewrite(converted: &Stage) -> Result<Rewrite, Error> {
    #[derive(serde::Deserialize)]
    struct Result {
        rewrite: Rewrite,
    }
    Ok(converted.result::<Result>()?.rewrite)
}

/// One of a conversion's files as an artifact.
pub(super) fn artifact(converted: &Stage, precision: Precision) -> Result<Artifact, Error> {
    let [graph, weights] = convert::files(precision);
    let (path, entry) = converted.file(&graph)?;
    let (weights, beside) = converted.file(&weights)?;
    let weights = Weights { path: weights, sha256: beside.sha256, bytes: beside.bytes };
    Ok(Artifact { path, sha256: entry.sha256, bytes: entry.bytes, weights: Some(weights) })
}

/// The interface of a part's IR: that of its ONNX file.
pub(super) fn signature(build: &Build<'_>, part: Part, rewritten: &Stage) -> Result<Signature, Error> {
    let mut signature = Signature::from(&Model::open(rewritten.file(stages::REWRITTEN)?.0)?);
    let Some(target) = target(&build.recipe, part) else { return Ok(signature) };
    for port in &mut signature.inputs {
        let Some(wanted) = target.shapes.get(&port.name) else { continue };
        for (dim, wanted) in port.dims.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted != "?") {
            dim.clone_from(wanted);
        }
    }
    Ok(if target.stateful { signature.with_state() } else { signature })
}

/// Runs every reference that the file's dimensions admit in the first runtime that reads the format.
pub(super) fn validate(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    part: Part,
    precision: Precision,
    [exported, rewritten, converted]: [&Stage; 3],
) -> Result<Verdict, Error> {
    let runtime = build.runtimes.iter().find(|runtime| runtime.runs(Format::OpenVino));
    let runtime = runtime.ok_or(Error::NoOpenVino)?.as_ref();
    let artifact = artifact(converted, precision)?;
    let model = Model::open(rewritten.file(stages::REWRITTEN)?.0)?;
    let target = target(&build.recipe, part).expect("a planned conversion is in the recipe");
    let references = stages::references(part, exported, &model)?;
    let snr = |limit: f64| {
        let greedy = (part == Part::Lm).then_some((Metric::GreedyAgreement, 0.0));
        Tolerance::new([(Metric::SnrDb, limit)].into_iter().chain(greedy))
    };
    let tolerance = match precision {
        Precision::Fp32 => stages::tolerance(&build.recipe, part, Precision::Fp32),
        Precision::Fp16 => snr(target.fp16_snr_db),
        Precision::Int8 => snr(target.int8_snr_db),
    };
    let claim =
        Claim { part, scheme: precision, tolerance, signature: signature(build, part, rewritten)? };
    let done =
        |done: usize, total: usize| reporter.progress("run references", done as u64, total as u64);
    Ok(validate::validate(&artifact, &references, claim, runtime, build.interrupted, &done)?)
}
