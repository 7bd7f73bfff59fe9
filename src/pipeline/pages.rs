//! What a build found out, as the pages of its bundle.

use super::walk::Walk;
use super::{Error, Outcome, Summary, judge};
use crate::bundle::report::{ArtifactSection, Card, CardSignal, CaseRow, Listening, Page};
use crate::bundle::{self, FileEntry, Manifest};
use crate::family;
use crate::interface::Interface;
use crate::ir::Model;
use crate::names::{Oracle, Precision, Role};
use crate::recipe::Recipe;
use crate::runtime::{Format, built_in};
use crate::source;
use crate::validate::{self, Kind, Metric};

/// At most this many frames are drawn and embedded as audio: four seconds of Soprano.
const LISTENING_FRAMES: usize = 64;

/// A reference next to the fp32 file's output of the graph that makes sound: the longest spoken sentence, or else the
/// longest realistic case of one sequence.
pub(super) fn listening(walk: &Walk<'_>, manifest: &Manifest) -> Result<Option<Listening>, Error> {
    let signal = walk.build.recipe.graphs.iter().find(|(_, graph)| graph.role() == Role::Signal);
    let Some((name, graph)) = signal else { return Ok(None) };
    let Some(sample_rate) = manifest.sample_rate() else { return Ok(None) };
    let candidate = judge::candidate(walk, (name, graph), (Precision::Fp32, Format::Onnx))?;
    let model = Model::open(&candidate.artifact.path)?;
    let references = judge::references(walk, name, graph, &model)?;
    let fits = references.cases.iter().filter(|case| {
        case.kind != Kind::Extreme && case.batch == 1 && case.length <= LISTENING_FRAMES
    });
    let Some(case) = fits.max_by_key(|case| (case.kind == Kind::Spoken, case.length)) else {
        return Ok(None);
    };
    let Some((output, reference)) = references.outputs(case).pop_first() else { return Ok(None) };
    let run = || built_in()?.load(&candidate.artifact.path)?.run(&references.inputs(case));
    let mut outputs = run().map_err(crate::validate::Error::from)?;
    let Some(samples) = outputs.remove(&output) else { return Ok(None) };
    Ok(Some(Listening {
        title: format!("{} ({} tokens)", case.name, case.length),
        sample_rate,
        reference: reference.to_f32()?,
        artifact: samples.to_f32()?,
    }))
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
        ill_conditioned: case
            .ill_conditioned
            .as_ref()
            .map(|moved| format!("{} of the peak", moved.summary())),
    });
    let limits = verdict.tolerance.limits();
    ArtifactSection {
        file: artifact.file.clone(),
        bytes: artifact.all_bytes(),
        sha256: artifact.sha256,
        weights: artifact.weights.clone(),
        precision: artifact.precision.to_string(),
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

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A dimension, or those inside it, `lm.head_dim`, each in a line of its own.
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
        checkpoint_digest: source::digest(&manifest.checkpoint.files),
        architecture: architecture(manifest),
        environment: manifest.environment.clone().into_iter().collect(),
        artifacts: sections(summary),
        listening,
        float64: manifest.references == Some(Oracle::Float64),
    })
}

/// The dimensions of each graph, by the graph's name where there are several.
fn architecture(manifest: &Manifest) -> Vec<(String, String)> {
    let graphs = manifest.graphs.iter();
    let named = graphs.flat_map(|(name, graph)| graph.architecture.iter().map(move |d| (name, d)));
    named.flat_map(|(name, (key, value))| dimensions(&format!("{name}.{key}"), value)).collect()
}

/// `README.md`, the model card.
pub(super) fn card(summary: &Summary, recipe: &Recipe) -> String {
    let manifest = &summary.manifest;
    let files = manifest.artifacts.iter().flat_map(|artifact| {
        let file = |file: &str, sha256, bytes| (file.to_owned(), FileEntry { sha256, bytes });
        let weights = artifact.weights.as_ref().map(|w| file(&w.file, w.sha256, w.bytes));
        std::iter::once(file(&artifact.file, artifact.sha256, artifact.bytes)).chain(weights)
    });
    let synthetic = source::is_random(&manifest.checkpoint.source);
    let last = if synthetic { "random-weights" } else { "text-to-speech" };
    let tags = ["onnx"].iter().chain(family::of(recipe).tags).chain([&last]);
    bundle::report::model_card(&Card {
        name: manifest.name.clone(),
        // Seeded weights are nobody's model: the card must not say they are.
        base_model: recipe.base_model.clone().filter(|_| !synthetic),
        license: recipe.license.clone(),
        tags: tags.map(|tag| (*tag).to_owned()).collect(),
        checkpoint: manifest.checkpoint.source.clone(),
        checkpoint_digest: source::digest(&manifest.checkpoint.files),
        files: files.collect(),
        signal: signal(manifest),
        artifacts: sections(summary),
        float64: manifest.references == Some(Oracle::Float64),
    })
}

/// The interface of the first file that makes sound.
fn signal(manifest: &Manifest) -> Option<CardSignal> {
    manifest.artifacts.iter().find_map(|artifact| {
        let graph = manifest.graph(artifact);
        let Ok(Interface::Signal(bound)) = Interface::bind(&graph.interface, &artifact.signature())
        else {
            return None;
        };
        let framing = graph.framing?;
        Some(CardSignal {
            file: artifact.file.clone(),
            input: bound.names().frames.clone(),
            channels: bound.channels(),
            channels_last: bound.has_channels_last(),
            output: bound.names().samples.clone(),
            per_frame: framing.per_frame,
            lead: framing.lead,
            sample_rate: graph.sample_rate?,
        })
    })
}
