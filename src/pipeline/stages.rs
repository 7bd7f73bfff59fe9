//! What each stage does, given the one before.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::cache::Stage;
use super::{Build, Error, Reporter, Rewrite};
use crate::export::{
    Child, ExportDecoder, ExportLm, Outcome, Progress, Python, ReferencePlan, Request, Speak,
};
use crate::ir::{self, Model};
use crate::names::Precision;
use crate::passes::{self, Given, Step};
use crate::quantize;
use crate::recipe::{Form, Int8, Recipe, Route};
use crate::runtime::{Runtime, Tract};
use crate::source::{COMPANIONS, DECODER, LANGUAGE_MODEL, Source};
use crate::tensor::TensorFile;
use crate::validate::{self, Artifact, Claim, Metric, Part, References, Signature, Tolerance, Verdict};

/// The model that the export of a part leaves.
pub(super) fn model_file(part: Part) -> &'static str {
    match part {
        Part::Decoder => "decoder.onnx",
        Part::Lm => "lm.onnx",
    }
}

/// The references that the export of a part leaves.
fn references_file(part: Part) -> &'static str {
    match part {
        Part::Decoder => "references.safetensors",
        Part::Lm => "lm_references.safetensors",
    }
}

/// Inner values of PyTorch's decoder.
const PROBES: &str = "probes.safetensors";
/// The file that the rewrite leaves.
pub(super) const REWRITTEN: &str = "rewritten.onnx";

/// The stage in which upstream's PyTorch speaks.
pub(super) const SPEAK: &str = "speak";
/// The file that it leaves.
pub(super) const SPEECH: &str = "speech.safetensors";

/// The names of a part's stages behind its export.
pub(super) fn names(part: Part) -> [&'static str; 5] {
    match part {
        Part::Decoder => ["rewrite", "validate", "quantize", "validate-int8", "speed"],
        Part::Lm => ["rewrite-lm", "validate-lm", "quantize-lm", "validate-lm-int8", "speed-lm"],
    }
}

/// The runtimes that every artifact is held against, tract first.
pub(super) fn runtimes<'a>(build: &'a Build<'_>) -> impl Iterator<Item = &'a dyn Runtime> {
    let onnxruntime = build.onnxruntime.as_ref().map(|runtime| runtime as &dyn Runtime);
    let openvino = build.openvino.as_ref().map(|runtime| runtime as &dyn Runtime);
    std::iter::once(&Tract as &dyn Runtime).chain(onnxruntime).chain(openvino)
}

/// Times an int8 artifact beside its fp32 one; one that is slower is an error.
pub(super) fn speed(
    build: &Build<'_>,
    part: Part,
    [fp32, int8]: [&Stage; 2],
    exported: &Stage,
) -> Result<serde_json::Value, Error> {
    let runtime = build.onnxruntime.as_ref().ok_or(Error::NoClock)?;
    let artifacts = [artifact(fp32)?, artifact(int8)?];
    let references = references(part, exported, &Model::open(&artifacts[0].path)?)?;
    let speed = validate::speed(part, artifacts.each_ref(), &references, runtime)?;
    if speed.ratio() < 1.0 {
        return Err(Error::Slow { part, speed: Box::new(speed) });
    }
    Ok(serde_json::to_value(speed).expect("plain data"))
}

/// The halves that a synthetic checkpoint must have.
pub(super) fn halves(recipe: &Recipe) -> Vec<&'static str> {
    let halves = [("decoder", recipe.decoder.is_some()), ("lm", recipe.reads_language_model())];
    halves.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect()
}

/// The files that a hub repository must have.
pub(super) fn hub_files(recipe: &Recipe) -> Vec<&'static str> {
    let files = [(DECODER, recipe.decoder.is_some()), (LANGUAGE_MODEL, recipe.reads_language_model())];
    files.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect()
}

/// The name of a part's file, without `.onnx`: the recipe's for fp32, and beside it the same in int8.
pub(super) fn file_name(recipe: &Recipe, part: Part, scheme: Precision) -> String {
    let fp32 = match part {
        Part::Decoder => recipe.decoder.as_ref().map_or("decoder", |decoder| &decoder.file),
        Part::Lm => recipe.lm.as_ref().map_or("lm", |lm| &lm.file),
    };
    match scheme {
        Precision::Fp32 => fp32.to_owned(),
        other => format!("{}_{other}", fp32.strip_suffix("_fp32").unwrap_or(fp32)),
    }
}

/// What the recipe says of a part in int8.
fn int8(recipe: &Recipe, part: Part) -> Option<&Int8> {
    match part {
        Part::Decoder => recipe.decoder.as_ref()?.int8.as_ref(),
        Part::Lm => recipe.lm.as_ref()?.int8.as_ref(),
    }
}

/// Quantizes the rewritten graph.
pub(super) fn quantize(
    build: &Build<'_>,
    part: Part,
    exported: &Stage,
    rewritten: &Stage,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let int8 = int8(&build.recipe, part).cloned().unwrap_or_default();
    let mut options = quantize::Options::from(&int8);
    let mut model = Model::open_checked(rewritten.file(REWRITTEN)?.0)?;
    if let Some(strength) = int8.smoothing {
        let references = references(part, exported, &model)?;
        let seen = validate::calibrate(&model, part, &references, &Tract)?;
        quantize::smooth(&mut model, &seen, strength);
    }
    if int8.form == Form::Static {
        let references = references(part, exported, &model)?;
        options.seen = validate::calibrate(&model, part, &references, &Tract)?;
    }
    let report = quantize::quantize(&mut model, &options)?;
    write(&model, folder)?;
    let rewrite: Rewrite = rewritten.result()?;
    let passes = [("quantize".to_owned(), report.products.len() + report.tables.len())];
    let rewrite = Rewrite {
        passes: rewrite.passes.into_iter().chain(passes).collect(),
        nodes: (rewrite.nodes.0, report.nodes.1),
        weight_bytes: (rewrite.weight_bytes.0, report.weight_bytes.1),
    };
    Ok(serde_json::to_value(rewrite).expect("plain data"))
}

fn write(model: &Model, folder: &Path) -> Result<(), Error> {
    let written = model.write(&folder.join(REWRITTEN));
    written.map(drop).map_err(|error| match error {
        // The cache's disk, with the hint that belongs to it.
        ir::Error::Io { path, source } => Error::Io { path, source },
        other => other.into(),
    })
}

/// The longest that the recipe lets an exporter be silent.
fn time_limit(recipe: &Recipe) -> Duration {
    let decoder = recipe.decoder.as_ref().map(|decoder| decoder.time_limit_seconds);
    let lm = recipe.lm.as_ref().map(|lm| lm.time_limit_seconds);
    Duration::from_secs(decoder.max(lm).unwrap_or(0))
}

/// Runs a Python task in a stage's folder.
fn child(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    stage: &str,
    request: &Request<'_>,
    folder: &Path,
) -> Result<Outcome, Error> {
    with_child(build, reporter, stage, |child| child.run(request, folder))
}

/// Runs work with a child process to do it; its log stays where it fails.
pub(super) fn with_child<T, E>(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    stage: &str,
    work: impl FnOnce(&Child<'_>) -> Result<T, E>,
) -> Result<T, Error>
where
    Error: From<E>,
{
    let family = build.recipe.family.name();
    let python = &Python::find(build.python.as_deref(), family, build.cache.root())?;
    let logs = build.cache.root().join("logs");
    std::fs::create_dir_all(&logs).map_err(Error::io(&logs))?;
    let log = logs.join(format!("{stage}-{}.log", std::process::id()));
    let child = Child {
        python,
        cache: build.cache.root(),
        log: &log,
        time_limit: time_limit(&build.recipe),
        interrupted: build.interrupted,
        progress: &|p: &Progress| reporter.progress(&p.step, p.done, p.total),
    };
    let outcome = work(&child)?;
    let _ = std::fs::remove_file(&log);
    Ok(outcome)
}

/// Synthesizes or downloads the checkpoint.
pub(super) fn checkpoint(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let (files, parts) = (hub_files(&build.recipe), halves(&build.recipe));
    let request = match &build.source {
        Source::Synthetic { preset, seed } => {
            Request::Synthesize { preset, seed: *seed, parts: &parts }
        }
        Source::Hub { repo, revision } => {
            Request::Download { repo, revision, files: &files, optional: COMPANIONS }
        }
        Source::Directory(_) => unreachable!("a folder needs no making"),
    };
    let outcome = child(build, reporter, "checkpoint", &request, folder)?;
    if files.iter().any(|file| outcome.artifacts.values().all(|artifact| artifact.path != *file)) {
        return Err(Error::Result { field: "checkpoint" });
    }
    Ok(outcome.result)
}

/// What later stages and the bundle need of an export.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Exported {
    pub(super) architecture: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub(super) sample_rate: Option<u32>,
    pub(super) environment: BTreeMap<String, String>,
}

/// Exports a part and records references.
pub(super) fn export(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    part: Part,
    checkpoint: &Path,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let checkpoint = &std::fs::canonicalize(checkpoint).map_err(Error::io(checkpoint))?;
    let outcome = match part {
        Part::Decoder => export_decoder(build, reporter, checkpoint, folder),
        Part::Lm => {
            let lm = build.recipe.lm.as_ref().expect("a planned part is in the recipe");
            let request = Request::ExportLm(ExportLm {
                checkpoint,
                opset: i64::from(lm.opset),
                route: lm.route.name(),
                hidden_states: &lm.hidden_states,
                references: &lm.references,
            });
            child(build, reporter, "export-lm", &request, folder)
        }
    }?;
    let mut files = vec![("model", model_file(part)), ("references", references_file(part))];
    files.extend((part == Part::Decoder).then_some(("probes", PROBES)));
    for (name, file) in files {
        if outcome.artifacts.get(name).is_none_or(|artifact| artifact.path != file) {
            return Err(Error::Result { field: name });
        }
    }
    let field =
        |name: &'static str| outcome.result.get(name).cloned().ok_or(Error::Result { field: name });
    let sample_rate = match part {
        Part::Decoder => field("sample_rate")?,
        Part::Lm => serde_json::Value::Null,
    };
    Ok(serde_json::json!({
        "architecture": field("architecture")?,
        "sample_rate": sample_rate,
        "environment": outcome.environment,
    }))
}

fn export_decoder(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    checkpoint: &Path,
    folder: &Path,
) -> Result<Outcome, Error> {
    let decoder = build.recipe.decoder.as_ref().expect("a planned part is in the recipe");
    let numbers = |list: &[u32]| list.iter().map(|&n| n as usize).collect::<Vec<_>>();
    let (lengths, batches) =
        (numbers(&decoder.references.lengths), numbers(&decoder.references.batches));
    let request = Request::ExportDecoder(ExportDecoder {
        checkpoint,
        opset: i64::from(decoder.opset),
        references: ReferencePlan {
            lengths: &lengths,
            batches: &batches,
            extreme: decoder.references.extreme,
            seed: decoder.references.seed,
            sentences: &decoder.references.sentences,
        },
    });
    child(build, reporter, "export", &request, folder)
}

/// Has upstream's own code say the recipe's sentences.
pub(super) fn speak(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    checkpoint: &Path,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let checkpoint = &std::fs::canonicalize(checkpoint).map_err(Error::io(checkpoint))?;
    let speech = build.recipe.speech.as_ref().expect("a planned stage is in the recipe");
    let request = Request::Speak(Speak {
        checkpoint,
        sentences: &speech.sentences,
        repetition_penalty: speech.repetition_penalty,
    });
    let outcome = child(build, reporter, SPEAK, &request, folder)?;
    if outcome.artifacts.get("speech").is_none_or(|artifact| artifact.path != SPEECH) {
        return Err(Error::Result { field: "speech" });
    }
    Ok(outcome.result)
}

/// Rewrites the exported graph.
pub(super) fn rewrite(
    build: &Build<'_>,
    part: Part,
    exported: &Stage,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let (path, _) = exported.file(model_file(part))?;
    let mut model = Model::open_checked(&path)?;
    let (steps, names) = steps(&build.recipe, part);
    let given = given(&build.recipe, part, &exported.result()?);
    let rewrite = Rewrite::from(passes::rewrite(&mut model, steps, names, given)?);
    write(&model, folder)?;
    Ok(serde_json::to_value(rewrite).expect("plain data"))
}

/// How a part's graph is rewritten, and what the recipe names instead.
pub(super) fn steps(recipe: &Recipe, part: Part) -> (&'static [Step], Option<&[String]>) {
    match (part, recipe.lm.as_ref().map(|lm| lm.route)) {
        (Part::Decoder, _) => {
            (passes::SIGNAL, recipe.decoder.as_ref().and_then(|decoder| decoder.passes.as_deref()))
        }
        (Part::Lm, Some(Route::Optimum)) => (passes::CAUSAL_CACHED, None),
        (Part::Lm, _) => (passes::CAUSAL, None),
    }
}

/// What recipe and exporter say of a part's graph.
fn given(recipe: &Recipe, part: Part, exported: &Exported) -> Given {
    let Some(lm) = recipe.lm.as_ref().filter(|_| part == Part::Lm) else { return Given::default() };
    let number = |name: &str| Some(exported.architecture.get(name)?.as_u64()? as usize);
    Given {
        layers: lm.hidden_states.clone(),
        last_logits: lm.last_logits,
        heads: number("kv_heads").zip(number("head_dim")).map(<[usize; 2]>::from),
        ..Default::default()
    }
}

/// The rewritten file as an artifact.
pub(super) fn artifact(rewritten: &Stage) -> Result<Artifact, Error> {
    let (path, entry) = rewritten.file(REWRITTEN)?;
    Ok(Artifact { path, sha256: entry.sha256, bytes: entry.bytes, weights: None })
}

/// The references of a part's export, for the inputs of a model.
pub(super) fn references(part: Part, exported: &Stage, model: &Model) -> Result<References, Error> {
    let inputs = model.graph_proto().input.iter().map(|input| input.name());
    let path = exported.file(references_file(part))?.0;
    Ok(References::read(&path, &validate::recorded_inputs(inputs))?)
}

/// The file of a part's references, with its digest.
pub(super) fn references_entry(
    part: Part,
    exported: &Stage,
) -> Result<(std::path::PathBuf, crate::bundle::FileEntry), Error> {
    exported.file(references_file(part))
}

/// What the recipe demands of a part's ONNX file in a scheme.
pub(super) fn tolerance(recipe: &Recipe, part: Part, scheme: Precision) -> Tolerance {
    let tolerance = match part {
        _ if scheme == Precision::Int8 => int8(recipe, part).map(|int8| {
            let greedy = (part == Part::Lm).then_some((Metric::GreedyAgreement, 0.0));
            Tolerance::new([(Metric::SnrDb, int8.snr_db)].into_iter().chain(greedy))
        }),
        Part::Decoder => recipe.decoder.as_ref().map(|decoder| {
            let fp32 = &decoder.tolerance.fp32;
            Tolerance::new([
                (Metric::MaxAbsOfPeak, fp32.max_abs_of_peak),
                (Metric::SnrDb, fp32.snr_db),
                (Metric::LogSpectralDistanceDb, fp32.log_spectral_distance_db),
            ])
        }),
        Part::Lm => recipe.lm.as_ref().map(|lm| {
            let fp32 = &lm.tolerance.fp32;
            Tolerance::new([
                (Metric::MaxAbs, fp32.max_abs),
                (Metric::SnrDb, fp32.snr_db),
                (Metric::Top1Agreement, fp32.top_1_agreement),
                (Metric::GreedyAgreement, fp32.top_1_agreement),
                (Metric::ErrorGrowth, fp32.error_growth),
            ])
        }),
    };
    tolerance.unwrap_or_default()
}

/// Runs every reference; a verdict that fails also says where.
pub(super) fn validate(
    build: &Build<'_>,
    reporter: &dyn Reporter,
    part: Part,
    scheme: Precision,
    exported: &Stage,
    rewritten: &Stage,
) -> Result<Verdict, Error> {
    let artifact = artifact(rewritten)?;
    let model = Model::open(&artifact.path)?;
    let references = references(part, exported, &model)?;
    let done =
        |done: usize, total: usize| reporter.progress("run references", done as u64, total as u64);
    let signature = Signature::from(&model);
    let tolerance = tolerance(&build.recipe, part, scheme);
    let claim = Claim { part, scheme, tolerance, signature: signature.clone() };
    // OpenVINO computes integer products of ONNX slower than fp32 ones: its int8 is its own.
    let takes = |runtime: &&dyn Runtime| scheme == Precision::Fp32 || runtime.name() != "openvino";
    let mut runtimes: Vec<&dyn Runtime> = runtimes(build).filter(takes).collect();
    let mut beside = None;
    if quantize::needs_onnxruntime(&model) {
        runtimes.remove(0);
    } else if scheme == Precision::Int8 && runtimes.len() > 1 {
        // tract's integer products take minutes for a long reference: another runtime has them all, and
        // tract is held beside it on the others.
        runtimes.rotate_left(1);
        beside =
            Some(references.clone().up_to(validate::LONGEST_IN_8_BITS)).filter(|r| !r.cases.is_empty());
    }
    let (first, others) = runtimes.split_first().ok_or(Error::NoOnnxRuntime)?;
    let mut verdict =
        validate::validate(&artifact, &references, claim, *first, build.interrupted, &done)?;
    for runtime in others {
        validate::validate_beside(
            &mut verdict,
            &artifact,
            beside.as_ref().unwrap_or(&references),
            &signature,
            *first,
            *runtime,
            build.interrupted,
        )?;
    }
    let searched =
        (part == Part::Decoder && scheme == Precision::Fp32).then(|| verdict.failure()).flatten();
    if let Some((runtime, failed)) = searched
        && let Some(case) = references.cases.iter().find(|case| case.name == failed.name)
        && let Some(runtime) = runtimes.iter().find(|found| found.name_and_version() == runtime)
    {
        let before = Model::open(exported.file(model_file(part))?.0)?;
        let probes = TensorFile::read(&exported.file(PROBES)?.0)?;
        let inputs = references.inputs(case);
        // The verdict stands without it: a search that fails must not hide a failure.
        verdict.divergence =
            validate::first_divergence(&model, &before, &probes, &inputs, *runtime).unwrap_or(None);
    }
    Ok(verdict)
}
