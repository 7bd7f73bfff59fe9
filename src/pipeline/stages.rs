//! What each stage does, given the one before.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::cache::Stage;
use super::{Build, Error, Reporter, Rewrite};
use crate::export::{Child, ExportDecoder, Outcome, Progress, Python, ReferencePlan, Request};
use crate::ir::{self, Model, PLACEHOLDER_DOMAIN};
use crate::passes::{self, Driver};
use crate::runtime::Tract;
use crate::source::{COMPANIONS, DECODER, LANGUAGE_MODEL, Source};
use crate::tensor::TensorFile;
use crate::validate::{self, Artifact, References, Tolerance, Verdict};

/// Files that the export leaves.
pub(super) const MODEL: &str = "decoder.onnx";
pub(super) const REFERENCES: &str = "references.safetensors";
pub(super) const PROBES: &str = "probes.safetensors";
/// The file that the rewrite leaves.
pub(super) const REWRITTEN: &str = "rewritten.onnx";

/// Runs a Python task in a stage's folder.
fn child(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    stage: &str,
    request: &Request<'_>,
    folder: &Path,
) -> Result<Outcome, Error> {
    let family = build.recipe.family.name();
    let python = &Python::find(build.python.as_deref(), family, build.cache.root())?;
    let logs = build.cache.root().join("logs");
    std::fs::create_dir_all(&logs).map_err(Error::io(&logs))?;
    let log = logs.join(format!("{stage}-{}.log", std::process::id()));
    let outcome = Child {
        python,
        cache: build.cache.root(),
        log: &log,
        time_limit: Duration::from_secs(build.recipe.decoder.time_limit_seconds),
        interrupted: build.interrupted,
        progress: &|p: &Progress| reporter.progress(&p.step, p.done, p.total),
    }
    .run(request, folder)?;
    let _ = std::fs::remove_file(&log);
    Ok(outcome)
}

/// Synthesizes or downloads the checkpoint.
pub(super) fn checkpoint(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let request = match &build.source {
        Source::Synthetic { preset, seed } => Request::Synthesize { preset, seed: *seed },
        Source::Hub { repo, revision } => {
            let speaks = !build.recipe.decoder.references.sentences.is_empty();
            let files = if speaks { &[DECODER, LANGUAGE_MODEL][..] } else { &[DECODER] };
            Request::Download { repo, revision, files, optional: COMPANIONS }
        }
        Source::Directory(_) => unreachable!("a folder needs no making"),
    };
    let outcome = child(build, reporter, "checkpoint", &request, folder)?;
    if outcome.artifacts.values().all(|artifact| artifact.path != DECODER) {
        return Err(Error::Result { field: "checkpoint" });
    }
    Ok(outcome.result)
}

/// What later stages and the bundle need of an export.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Exported {
    pub(super) architecture: BTreeMap<String, serde_json::Value>,
    pub(super) sample_rate: u32,
    pub(super) environment: BTreeMap<String, String>,
}

/// Exports the decoder and records references.
pub(super) fn export(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    checkpoint: &Path,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let decoder = &build.recipe.decoder;
    let checkpoint = std::fs::canonicalize(checkpoint).map_err(Error::io(checkpoint))?;
    let numbers = |list: &[u32]| list.iter().map(|&n| n as usize).collect::<Vec<_>>();
    let (lengths, batches) =
        (numbers(&decoder.references.lengths), numbers(&decoder.references.batches));
    let request = Request::ExportDecoder(ExportDecoder {
        checkpoint: &checkpoint,
        opset: i64::from(decoder.opset),
        references: ReferencePlan {
            lengths: &lengths,
            batches: &batches,
            extreme: decoder.references.extreme,
            seed: decoder.references.seed,
            sentences: &decoder.references.sentences,
        },
    });
    let outcome = child(build, reporter, "export", &request, folder)?;
    for (name, file) in [("model", MODEL), ("references", REFERENCES), ("probes", PROBES)] {
        if outcome.artifacts.get(name).is_none_or(|artifact| artifact.path != file) {
            return Err(Error::Result { field: name });
        }
    }
    let field =
        |name: &'static str| outcome.result.get(name).cloned().ok_or(Error::Result { field: name });
    Ok(serde_json::json!({
        "architecture": field("architecture")?,
        "sample_rate": field("sample_rate")?,
        "environment": outcome.environment,
    }))
}

/// Rewrites the exported graph.
pub(super) fn rewrite(
    build: &Build<'_>,
    exported: &Stage,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let (path, _) = exported.file(MODEL)?;
    let mut model = Model::open(&path)?;
    let driver = match &build.recipe.decoder.passes {
        Some(names) => Driver::of(names)?,
        None => Driver::default(),
    };
    let report = driver.run(&mut model);
    if let Some(left) = model.graph_proto().node.iter().find(|node| node.domain() == PLACEHOLDER_DOMAIN)
    {
        return Err(Error::Placeholder {
            op: left.op_type().to_owned(),
            node: left.name().to_owned(),
            why: refusal(&report, left.name()),
        });
    }
    let sets = &mut model.proto_mut().opset_import;
    sets.retain(|set| set.domain() != PLACEHOLDER_DOMAIN);
    model.write(&folder.join(REWRITTEN)).map_err(|error| match error {
        // The cache's disk, with the hint that belongs to it.
        ir::Error::Io { path, source } => Error::Io { path, source },
        other => other.into(),
    })?;
    Ok(serde_json::to_value(Rewrite::from(report)).expect("plain data"))
}

fn refusal(report: &passes::Report, node: &str) -> String {
    let reasons = report.passes.iter().flat_map(|p| p.refused.iter().map(move |r| (p.pass, r)));
    let why = reasons
        .filter(|(_, (name, _))| name == node)
        .map(|(pass, (_, why))| format!("{pass}: {why}"))
        .next();
    why.unwrap_or_else(|| "no pass of this recipe replaces it".to_owned())
}

/// The rewritten file as an artifact.
pub(super) fn artifact(rewritten: &Stage) -> Result<Artifact, Error> {
    let (path, entry) = rewritten.file(REWRITTEN)?;
    Ok(Artifact { path, sha256: entry.sha256, bytes: entry.bytes })
}

/// The references of an export, for the inputs of a model.
pub(super) fn references(exported: &Stage, model: &Model) -> Result<References, Error> {
    let inputs: Vec<String> = model.graph_proto().input.iter().map(|i| i.name().to_owned()).collect();
    Ok(References::read(&exported.file(REFERENCES)?.0, &inputs)?)
}

/// The recipe's tolerance for fp32.
pub(super) fn tolerance(build: &Build<'_>) -> Tolerance {
    let fp32 = &build.recipe.decoder.tolerance.fp32;
    Tolerance {
        max_abs_of_peak: fp32.max_abs_of_peak,
        snr_db: fp32.snr_db,
        log_spectral_distance_db: fp32.log_spectral_distance_db,
    }
}

/// Runs every reference; a verdict that fails also says where.
pub(super) fn validate(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    exported: &Stage,
    rewritten: &Stage,
) -> Result<Verdict, Error> {
    let artifact = artifact(rewritten)?;
    let model = Model::open(&artifact.path)?;
    let references = references(exported, &model)?;
    let done =
        |done: usize, total: usize| reporter.progress("run references", done as u64, total as u64);
    let mut verdict =
        validate::validate(&artifact, &references, tolerance(build), &Tract, build.interrupted, &done)?;
    if !verdict.passed {
        let before = Model::open(exported.file(MODEL)?.0)?;
        let probes = TensorFile::read(&exported.file(PROBES)?.0)?;
        // The verdict stands without it: a search that fails must not hide a failure.
        verdict.divergence =
            validate::first_divergence(&model, &before, &probes, &Tract).unwrap_or(None);
    }
    Ok(verdict)
}
