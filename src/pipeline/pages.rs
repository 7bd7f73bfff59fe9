//! What a build found out, as the pages of its bundle.

use super::stages::Exported;
use super::{Error, Outcome, Summary};
use crate::bundle::report::{ArtifactSection, Card, CardDecoder, CardFile, CaseRow, Listening, Page};
use crate::bundle::{self};
use crate::digest::{Digest, Hasher};
use crate::recipe::Recipe;
use crate::runtime::built_in;
use crate::validate::{self, Artifact, Kind, Metric, Part, References};

/// At most this many tokens are drawn and embedded as audio: four seconds of Soprano.
const LISTENING_TOKENS: usize = 64;

/// One reference beside what the artifact makes of it: the longest spoken sentence, or the longest
/// realistic one of a single voice.
pub(super) fn listening(
    exported: &Exported,
    artifact: &Artifact,
    references: &References,
) -> Result<Option<Listening>, Error> {
    let fits = references.cases.iter().filter(|case| {
        case.kind != Kind::Extreme && case.batch == 1 && case.length <= LISTENING_TOKENS
    });
    let Some(case) = fits.max_by_key(|case| (case.kind == Kind::Spoken, case.length)) else {
        return Ok(None);
    };
    let Some((output, reference)) = references.outputs(case).pop_first() else { return Ok(None) };
    let run = || built_in()?.load(&artifact.path)?.run(&references.inputs(case));
    let mut outputs = run().map_err(crate::validate::Error::from)?;
    let Some(made) = outputs.remove(&output) else { return Ok(None) };
    let Some(sample_rate) = exported.sample_rate else { return Ok(None) };
    Ok(Some(Listening {
        title: format!("{} ({} tokens)", case.name, case.length),
        sample_rate,
        reference: reference.to_f32()?,
        artifact: made.to_f32()?,
    }))
}

/// One digest over the checkpoint's files.
fn checkpoint_digest(summary: &Summary) -> Digest {
    let mut hasher = Hasher::default();
    for file in &summary.manifest.checkpoint.files {
        hasher.field(&file.name, file.sha256.to_string());
    }
    hasher.finish()
}

fn sections(summary: &Summary) -> Vec<ArtifactSection> {
    let pairs = summary.manifest.artifacts.iter().zip(&summary.outcomes);
    pairs.map(|(artifact, outcome)| section(artifact, outcome)).collect()
}

fn section(artifact: &bundle::ArtifactEntry, outcome: &Outcome) -> ArtifactSection {
    let Outcome { rewrite, verdict, .. } = outcome;
    // A greedy run that passed has no signal to show a ratio of: report.json has its agreement.
    let shown = |case: &&validate::CaseResult| {
        !(case.passed && case.kind == Kind::Greedy && case.measured.get(Metric::SnrDb).is_none())
    };
    let rows = verdict.cases.iter().filter(shown).map(|case| CaseRow {
        name: case.name.clone(),
        kind: case.kind.name().to_owned(),
        batch: case.batch,
        length: case.length,
        peak: case.peak,
        max_abs_of_peak: case.measured.get(Metric::MaxAbsOfPeak).unwrap_or(f64::NAN),
        snr_db: case.measured.get(Metric::SnrDb).unwrap_or(f64::NAN),
        log_spectral_distance_db: case.measured.get(Metric::LogSpectralDistanceDb),
        passed: case.passed,
        ill_conditioned: case.ill_conditioned.as_ref().map(|moved| {
            let figure = |metric: Metric| Some(metric.show(moved.get(metric)?));
            let figures = [Metric::MaxAbsOfPeak, Metric::SnrDb].into_iter().filter_map(figure);
            format!("{} of the peak", figures.collect::<Vec<_>>().join(", "))
        }),
    });
    let limits = verdict.tolerance.limits();
    ArtifactSection {
        file: artifact.file.clone(),
        bytes: artifact.all_bytes(),
        sha256: artifact.sha256,
        weights: artifact.weights.as_ref().map(weights),
        scheme: artifact.scheme.to_string(),
        runtime: verdict.runtime.clone(),
        nodes: rewrite.nodes,
        weight_bytes: rewrite.weight_bytes,
        passes: rewrite.passes.clone(),
        thresholds: limits
            .map(|(metric, limit)| (metric.name().to_owned(), metric.show_limit(limit)))
            .collect(),
        cases: rows.collect(),
        passed: verdict.passed,
    }
}

fn weights(weights: &bundle::WeightsEntry) -> CardFile {
    CardFile { path: weights.file.clone(), bytes: weights.bytes, sha256: weights.sha256 }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A dimension, or those of a half, `lm.head_dim`, each in a line of its own.
fn dimensions(name: &str, value: &serde_json::Value) -> Vec<(String, String)> {
    match value.as_object() {
        Some(of) => of.iter().flat_map(|(key, v)| dimensions(&format!("{name}.{key}"), v)).collect(),
        None => vec![(name.to_owned(), text(value))],
    }
}

/// `report.json`: rewrite and verdict, without anything that another run would time or name anew.
pub(super) fn json(summary: &Summary) -> String {
    let value = serde_json::json!({
        "name": summary.manifest.name,
        "artifacts": summary.manifest.artifacts,
        "outcomes": summary.outcomes,
    });
    serde_json::to_string_pretty(&value).expect("plain data") + "\n"
}

/// `report.html`.
pub(super) fn html(summary: &Summary, listening: Option<Listening>) -> String {
    let manifest = &summary.manifest;
    bundle::report::html(&Page {
        name: manifest.name.clone(),
        checkpoint: manifest.checkpoint.source.clone(),
        checkpoint_digest: checkpoint_digest(summary),
        architecture: manifest.architecture.iter().flat_map(|(k, v)| dimensions(k, v)).collect(),
        environment: manifest.environment.clone().into_iter().collect(),
        artifacts: sections(summary),
        listening,
    })
}

/// `README.md`, the model card.
pub(super) fn card(summary: &Summary, recipe: &Recipe, sample_rate: Option<u32>) -> String {
    let manifest = &summary.manifest;
    let number =
        |name: &str| manifest.architecture.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let files = manifest.artifacts.iter().flat_map(|artifact| {
        let model =
            CardFile { path: artifact.file.clone(), bytes: artifact.bytes, sha256: artifact.sha256 };
        std::iter::once(model).chain(artifact.weights.as_ref().map(weights))
    });
    let port = |ports: &[bundle::Port]| ports.first().map(|p| p.name.clone()).unwrap_or_default();
    let synthetic = manifest.checkpoint.source.starts_with("synthetic:");
    let tags = ["onnx", "vocos", if synthetic { "random-weights" } else { "text-to-speech" }];
    let decoder = manifest.artifacts.iter().find(|artifact| artifact.part == Part::Decoder);
    bundle::report::model_card(&Card {
        name: manifest.name.clone(),
        // Seeded weights are nobody's model: the card must not say they are.
        base_model: recipe.base_model.clone().filter(|_| !synthetic),
        license: recipe.license.clone(),
        tags: tags.map(str::to_owned).to_vec(),
        checkpoint: manifest.checkpoint.source.clone(),
        checkpoint_digest: checkpoint_digest(summary),
        files: files.collect(),
        decoder: decoder.map(|artifact| CardDecoder {
            file: artifact.file.clone(),
            input: port(&artifact.inputs),
            input_channels: number("input_channels") as usize,
            output: port(&artifact.outputs),
            samples_per_token: (number("hop_length") * number("upscale")) as usize,
            sample_rate: sample_rate.unwrap_or(0),
        }),
        artifacts: sections(summary),
    })
}
