//! What each stage does, given the one before.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::cache::Stage;
use super::{Build, Error, Reporter, Rewrite};
use crate::export::{
    Child, ExportDecoder, ExportLm, Outcome, Progress, Python, ReferencePlan, Request, Speak,
};
use crate::ir::{self, Model, PLACEHOLDER_DOMAIN};
use crate::names::Precision;
use crate::passes::language_model::{self, Expose};
use crate::passes::{self, Driver};
use crate::quantize;
use crate::recipe::{Form, Int8, Recipe, Route};
use crate::runtime::{Format, Runtime, Takes, Traits, built_in};
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

/// Times an int8 artifact beside its fp32 one; one that is slower is an error.
pub(super) fn speed(
    build: &Build<'_>,
    part: Part,
    [fp32, int8]: [&Stage; 2],
    exported: &Stage,
) -> Result<serde_json::Value, Error> {
    let fast = |runtime: &&Box<dyn Runtime>| runtime.takes(&Traits::INT8) == Takes::Well;
    let runtime = build.runtimes.iter().find(fast).ok_or(Error::NoClock)?.as_ref();
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
        let seen = validate::calibrate(&model, part, &references, built_in()?.as_ref())?;
        quantize::smooth(&mut model, &seen, strength);
    }
    if int8.form == Form::Static {
        let references = references(part, exported, &model)?;
        options.seen = validate::calibrate(&model, part, &references, built_in()?.as_ref())?;
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
    let rewrite = match part {
        Part::Decoder => rewrite_decoder(build, &mut model)?,
        Part::Lm => rewrite_lm(build, &mut model, &exported.result()?)?,
    };
    write(&model, folder)?;
    Ok(serde_json::to_value(rewrite).expect("plain data"))
}

fn rewrite_decoder(build: &Build<'_>, model: &mut Model) -> Result<Rewrite, Error> {
    let driver = match build.recipe.decoder.as_ref().and_then(|decoder| decoder.passes.as_ref()) {
        Some(names) => Driver::of(names)?,
        None => Driver::default(),
    };
    let report = driver.run(model);
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
    Ok(report.into())
}

/// Constants first, for the interface is found by them; the interface next, while attention still has the
/// form in which it was exported; then everything else.
fn rewrite_lm(build: &Build<'_>, model: &mut Model, exported: &Exported) -> Result<Rewrite, Error> {
    let lm = build.recipe.lm.as_ref().expect("a planned part is in the recipe");
    let before: Rewrite = Driver::of(&["lift-constants", "identity-elimination"])?.run(model).into();
    let expose = Expose { layers: &lm.hidden_states, last_logits: lm.last_logits };
    language_model::expose_hidden_states(model, expose)?;
    let mut passes = vec![("expose-hidden-states".to_owned(), 1 + lm.hidden_states.len())];
    match lm.route {
        Route::Torch => {
            let number = |name: &'static str| {
                let value = exported.architecture.get(name).and_then(serde_json::Value::as_u64);
                value.map(|n| n as usize).ok_or(Error::Result { field: name })
            };
            let (heads, size) = (number("kv_heads")?, number("head_dim")?);
            passes.push(("add-kv-cache".to_owned(), language_model::add_kv_cache(model, heads, size)?));
        }
        Route::Optimum => {
            passes.push(("canonical-mask".to_owned(), language_model::canonical_mask(model)?));
            passes.push(("group-query-heads".to_owned(), language_model::group_query_heads(model)?));
            // Whole masks and repetitions lose their use at once.
            let outputs = model.graph_proto().output.clone();
            model.keep_outputs(outputs);
        }
    }
    model.check_rewritten()?;
    let after: Rewrite = Driver::default().run(model).into();
    for (pass, applied) in before.passes.into_iter().chain(after.passes) {
        match passes.iter_mut().find(|(name, _)| *name == pass) {
            Some((_, count)) => *count += applied,
            None => passes.push((pass, applied)),
        }
    }
    Ok(Rewrite {
        passes,
        nodes: (before.nodes.0, after.nodes.1),
        weight_bytes: (before.weight_bytes.0, after.weight_bytes.1),
    })
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
    let claim = Claim { part, scheme, tolerance, signature };
    let traits = Traits::of(&artifact.path, Format::Onnx, scheme)?;
    let takes = |runtime: &&dyn Runtime| !matches!(runtime.takes(&traits), Takes::Not(_));
    let runtimes: Vec<&dyn Runtime> = build.runtimes.iter().map(AsRef::as_ref).filter(takes).collect();
    let stop = build.interrupted;
    let judged = validate::judge(&artifact, &traits, &references, claim, &runtimes, stop, &done)?;
    let mut verdict = judged.ok_or(Error::NoOnnxRuntime)?;
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
