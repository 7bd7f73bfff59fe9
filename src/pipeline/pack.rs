//! What a build packs: a manifest of everything that was accepted, and the pages about it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::judge::{self, Candidate};
use super::plan::Plan;
use super::reject::reject;
use super::stage::{Exported, REFERENCES, SPEECH, Work};
use super::walk::Walk;
use super::{Error, Finished, Outcome, Summary, carried, pages};
use crate::bundle::{
    self, ArtifactEntry, CheckpointEntry, Contents, Extra, FORMAT, GraphEntry, Manifest, SpeedGate,
    Tool, WeightsEntry,
};
use crate::export::source_digest;
use crate::family;
use crate::names::Precision;
use crate::recipe::Recipe;
use crate::runtime::Format;
use crate::source::Checkpoint;
use crate::validate::{Accepted, Speed, Verdict};

/// What an export found out.
fn exported(walk: &Walk<'_>, graph: &str) -> Result<Exported, Error> {
    walk.stage(&Work::Export(graph.to_owned()))?.result()
}

/// The bundle's name: the recipe's where it was chosen for this checkpoint, else its version's.
fn name(walk: &Walk<'_>) -> Result<String, Error> {
    let build = walk.build;
    if let Some(name) = &build.name {
        return Ok(name.clone());
    }
    let (graph, _) = build.recipe.graphs.iter().next().expect("a checked recipe names a graph");
    let exported = exported(walk, graph)?;
    let version = exported.architecture.get("version").and_then(|version| version.as_str());
    Ok(format!("{}-{}", build.recipe.family, version.unwrap_or(graph)))
}

/// The bundle's folder.
pub(super) fn output(walk: &Walk<'_>) -> Result<PathBuf, Error> {
    match &walk.build.output {
        Some(output) => Ok(output.clone()),
        None => Ok(PathBuf::from(name(walk)?)),
    }
}

/// What each validation of a plan was about: graph, precision and format, in the manifest's order.
fn validations(plan: &Plan) -> impl Iterator<Item = (&Work, &str, Precision, Format)> {
    plan.stages.iter().filter_map(|stage| match &stage.work {
        work @ Work::Validate(graph, precision, format) => {
            Some((work, graph.as_str(), *precision, *format))
        }
        _ => None,
    })
}

/// What the time of an int8 file was, where that was asked.
fn speed(walk: &Walk<'_>, graph: &str, file: (Precision, Format)) -> Result<Option<Speed>, Error> {
    let work = Work::Time(graph.to_owned());
    let timed = file == (Precision::Int8, Format::Onnx) && walk.plan.place(&work).is_some();
    timed.then(|| walk.stage(&work)?.result()).transpose()
}

/// What the stages of each artifact found out.
pub(super) fn outcomes(walk: &Walk<'_>) -> Result<Vec<Outcome>, Error> {
    let outcome = |(work, name, precision, format): (&Work, &str, Precision, Format)| {
        let graph = walk.build.recipe.graph(name).expect("a planned graph is in the recipe");
        let Candidate { rewrite, .. } = judge::candidate(walk, (name, graph), (precision, format))?;
        let verdict: Verdict = walk.stage(work)?.result()?;
        Ok(Outcome { rewrite, verdict, speed: speed(walk, name, (precision, format))? })
    };
    validations(walk.plan).map(outcome).collect()
}

/// Packs what was accepted.
pub(super) fn pack(walk: &Walk<'_>) -> Result<Finished, Error> {
    let Walk { build, plan, .. } = walk;
    let recipe = &build.recipe;
    let mut contents = Packing { walk, models: BTreeMap::new(), entries: Vec::new() };
    let mut outcomes = Vec::new();
    for (work, name, precision, format) in validations(plan) {
        let speed = speed(walk, name, (precision, format))?;
        let verdict: Verdict = walk.stage(work)?.result()?;
        let rewrite = contents.add(name, (precision, format), verdict.clone(), speed.as_ref())?;
        outcomes.push(Outcome { rewrite, verdict, speed });
    }
    let Packing { models, entries, .. } = contents;
    let checkpoint = match &plan.local {
        Some(local) => local.clone(),
        None => Checkpoint::open(&walk.checkpoint()?, &family::of(recipe).selection(recipe))?,
    };
    let mut environment = BTreeMap::new();
    let mut graphs = BTreeMap::new();
    let mut extras = BTreeMap::new();
    for (name, graph) in recipe.graphs.iter() {
        let exported = exported(walk, name)?;
        environment.extend(exported.environment);
        if let Some(carried) = carried::of(build, &Work::Record(name.to_owned())) {
            environment.extend(carried.environment().clone());
        }
        let entry = GraphEntry {
            interface: graph.ports(),
            architecture: exported.architecture,
            sample_rate: exported.sample_rate.or(graph.module().and_then(|(_, rate)| rate)),
            framing: exported.framing,
        };
        graphs.insert(name.to_owned(), entry);
        let (path, entry) = walk.stage(&Work::Record(name.to_owned()))?.file(REFERENCES)?;
        extras.insert(references(name), Extra::Copy(path, entry.sha256));
    }
    if recipe.speech.is_some() {
        let (path, entry) = walk.stage(&Work::Speak)?.file(SPEECH)?;
        extras.insert(format!("reference/{SPEECH}"), Extra::Copy(path, entry.sha256));
    }
    let manifest = Manifest {
        format: FORMAT,
        name: name(walk)?,
        key: plan.bundle,
        tool: Tool {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        checkpoint: CheckpointEntry {
            source: build.source.to_string(),
            files: checkpoint.files.clone(),
        },
        family: recipe.family.clone(),
        trusted_code: trusted_code(recipe),
        graphs,
        references: recipe.references,
        environment,
        artifacts: entries,
        files: BTreeMap::new(),
    };
    let companions = family::of(recipe).companions;
    for companion in checkpoint.files.iter().filter(|f| companions.contains(&f.name.as_str())) {
        let path = checkpoint.folder.join(&companion.name);
        extras.insert(companion.name.clone(), Extra::Copy(path, companion.sha256));
    }
    let listening = pages::listening(walk, &manifest)?;
    let summary = Summary { manifest: manifest.clone(), outcomes };
    extras.insert("recipe.lock.yaml".to_owned(), Extra::Text(recipe.to_yaml()));
    extras.insert("report.json".to_owned(), Extra::Text(pages::json(&summary)));
    extras.insert("report.html".to_owned(), Extra::Text(pages::html(&summary, listening)));
    extras.insert("README.md".to_owned(), Extra::Text(pages::card(&summary, recipe)));
    let time = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    extras.extend(bundle::provenance(&manifest, &extras, source_digest(), time));
    let folder = output(walk)?;
    let manifest = bundle::pack(Contents { manifest, models, extras }, &folder, build.overwrite)?;
    Ok(Finished { folder, summary: Summary { manifest, ..summary }, up_to_date: false })
}

/// The place of a graph's references in a bundle.
fn references(graph: &str) -> String {
    format!("reference/{graph}.safetensors")
}

/// Code that the recipe names, and that was run.
fn trusted_code(recipe: &Recipe) -> Vec<String> {
    recipe.graphs.iter().filter_map(|(_, graph)| Some(graph.module()?.0.import.clone())).collect()
}

/// Accepted files on their way into a bundle.
struct Packing<'a> {
    walk: &'a Walk<'a>,
    models: BTreeMap<String, Accepted>,
    entries: Vec<ArtifactEntry>,
}

impl Packing<'_> {
    /// Takes a file in that its verdict accepts, and gives what was done to it.
    fn add(
        &mut self,
        name: &str,
        (precision, format): (Precision, Format),
        verdict: Verdict,
        speed: Option<&Speed>,
    ) -> Result<super::Rewrite, Error> {
        let build = self.walk.build;
        let recipe = &build.recipe;
        let graph = recipe.graph(name).expect("a planned graph is in the recipe");
        let Candidate { artifact, signature, rewrite } =
            judge::candidate(self.walk, (name, graph), (precision, format))?;
        let accepted =
            verdict.accept(artifact.clone()).map_err(|verdict| reject(build, *verdict, &artifact))?;
        let stem = graph.file_of(precision);
        let (file, weights) = match format {
            Format::Onnx => (format!("{format}/{stem}.onnx"), None),
            Format::OpenVino => (format!("{format}/{stem}.xml"), Some(format!("{format}/{stem}.bin"))),
        };
        let weights = artifact.weights.as_ref().zip(weights);
        let is_timed = precision == Precision::Int8 && format == Format::Onnx;
        self.entries.push(ArtifactEntry {
            file: file.clone(),
            graph: name.to_owned(),
            precision,
            format,
            sha256: artifact.sha256,
            bytes: artifact.bytes,
            weights: weights.map(|(w, file)| WeightsEntry { file, sha256: w.sha256, bytes: w.bytes }),
            stateful: signature.stateful,
            inputs: signature.inputs,
            outputs: signature.outputs,
            references: references(name),
            tolerance: accepted.verdict().tolerance.clone(),
            speed_gate: is_timed.then_some(match speed {
                Some(speed) if speed.ratio() >= 1.0 => SpeedGate::Passed,
                _ => SpeedGate::Skipped,
            }),
        });
        self.models.insert(file, accepted);
        Ok(rewrite)
    }
}
