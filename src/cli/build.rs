use std::path::Path;

use super::arguments::{BuildRecipe, Decoder, Files, Lm, Means, Output};
use super::here::Here;
use super::terminal::{self, Progress, bytes, row, table};
use super::{Failure, INTERRUPTED, Outcome, json, say};
use crate::family::{self, soprano};
use crate::names::Precision;
use crate::pipeline::{self, Build, Finished, Wishes};
use crate::recipe::{Graph, Int8, Recipe, Targets, Terms};
use crate::runtime::Options;
use crate::source::Source;

/// The recipe to use where none is named.
const DEFAULT: &str = "soprano-1.1";

/// A call's recipe and source, and the bundle's name if the recipe is for that source.
pub(super) struct Chosen {
    pub recipe: Recipe,
    source: Source,
    name: Option<String>,
}

pub(super) fn choose(name: Option<&str>, model: Option<&str>) -> Result<Chosen, Failure> {
    let mut recipe = match (name, model) {
        (Some(name), _) => family::recipes().find(name)?,
        (None, Some(model)) => recipe_of(model)?,
        (None, None) => family::recipes().find(DEFAULT)?,
    };
    let source = model.unwrap_or(&recipe.source).to_owned();
    let fits = name.is_some() || source == recipe.source;
    if !fits {
        without_names(&mut recipe);
    }
    let name = fits.then(|| recipe.name.clone());
    Ok(Chosen { source: Source::parse(&source)?, recipe, name })
}

/// Converts a graph to what a call asks for, and to nothing else.
fn target(targets: &mut Targets, precisions: Option<&[Precision]>) {
    let Some(precisions) = precisions else {
        *targets = Targets::default();
        return;
    };
    let target = targets.openvino.get_or_insert_default();
    if !precisions.is_empty() {
        target.precisions = precisions.to_vec();
        target.precisions.sort();
        target.precisions.dedup();
    }
}

/// Removes node names from a recipe: they are those of its own model's graph.
fn without_names(recipe: &mut Recipe) {
    for graph in recipe.graphs.values_mut() {
        let activations = if let Graph::Causal(_) = graph { Terms::Two } else { Terms::One };
        if let Some(int8) = graph.int8_mut() {
            *int8 = Int8 { activations, ..Int8::default() };
        }
        if let Some(target) = &mut graph.targets_mut().openvino {
            target.keep_fp32.clear();
        }
    }
}

/// The built-in recipe whose own source the model is, or the default one.
fn recipe_of(model: &str) -> Result<Recipe, Failure> {
    let recipes = family::recipes();
    for (name, _) in &recipes.builtin {
        let recipe = recipes.find(name)?;
        if recipe.source == model {
            return Ok(recipe);
        }
    }
    Ok(family::recipes().find(DEFAULT)?)
}

/// The build of a call, with what its recipe leaves open settled; says how.
pub(super) fn request(
    chosen: Chosen,
    output: &Output,
    wishes: Wishes,
    here: &Here,
) -> Result<Build<'static>, Failure> {
    let mut build = unsettled(chosen, output, here)?;
    for line in pipeline::settle(&mut build, wishes)? {
        tellln!("{line}");
    }
    Ok(build)
}

fn unsettled(chosen: Chosen, output: &Output, here: &Here) -> Result<Build<'static>, Failure> {
    let mut runtimes = here.runtimes(&[], Options::EXACT)?.runtimes;
    runtimes.retain(|runtime| runtime.engine().judges_builds());
    Ok(Build {
        recipe: chosen.recipe,
        source: chosen.source,
        name: chosen.name,
        output: output.output.clone(),
        overwrite: output.overwrite,
        rebuild: output.rebuild,
        python: here.named_python().map(Path::to_owned),
        runtimes,
        speed_gate: !output.no_speed_gate,
        trust_code: false,
        cache: here.cache().clone(),
        interrupted: &INTERRUPTED,
    })
}

/// Keeps only the named graphs of a recipe, and nothing about the whole voice.
fn only(recipe: &mut Recipe, names: &[impl AsRef<str>]) -> Result<(), Failure> {
    let exported = |name: &str| recipe.graph(name).is_some();
    if let Some(missing) = names.iter().map(AsRef::as_ref).find(|name| !exported(name)) {
        let known: Vec<&str> = recipe.graphs.iter().map(|(name, _)| name).collect();
        let (name, known) = (missing.to_owned(), known.join(", "));
        return Err(Box::new(NoGraph { name, recipe: recipe.name.clone(), known }));
    }
    recipe.graphs.0.retain(|(name, _)| names.iter().any(|kept| kept.as_ref() == name));
    (recipe.speech, recipe.gate) = (None, None);
    Ok(())
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the recipe {recipe} exports no graph {name:?}; it exports: {known}")]
#[diagnostic(
    code(cli::no_graph),
    help("soprano-export recipe list shows the graphs of built-in recipes")
)]
struct NoGraph {
    name: String,
    recipe: String,
    known: String,
}

/// One graph of a recipe, with an int8 file and another format where a call asks for them.
fn graph(chosen: &mut Chosen, name: &str, files: &Files) -> Result<(), Failure> {
    only(&mut chosen.recipe, &[name])?;
    for graph in chosen.recipe.graphs.values_mut() {
        match files.int8 {
            true => drop(graph.int8_mut().get_or_insert_default()),
            false => *graph.int8_mut() = None,
        }
        target(graph.targets_mut(), files.openvino.as_deref());
    }
    Ok(())
}

pub(super) fn decoder(options: &Decoder, here: &Here) -> Outcome {
    let mut chosen = choose(options.recipe.as_deref(), options.model.as_deref())?;
    graph(&mut chosen, soprano::DECODER, &options.files)?;
    let wishes = wishes(&options.means, &options.files, options.model.as_ref());
    run(&request(chosen, &options.output, wishes, here)?, options.output.json)
}

fn wishes(means: &Means, files: &Files, model: Option<&String>) -> Wishes {
    let Means { exporter, references } = *means;
    let (source_named, formats_asked) = (model.is_some(), files.openvino.is_some());
    Wishes { exporter, references, source_named, formats_asked, onnx_only: false }
}

pub(super) fn lm(options: &Lm, here: &Here) -> Outcome {
    let mut chosen = choose(options.recipe.as_deref(), options.model.as_deref())?;
    if let Some(exporter) = options.means.exporter {
        let differs = |(_, graph): (&str, &Graph)| !graph.exporter().names_as(exporter);
        // Each exporter names nodes in its own way.
        if chosen.recipe.graphs.iter().any(differs) {
            without_names(&mut chosen.recipe);
        }
    }
    graph(&mut chosen, soprano::LM, &options.files)?;
    for graph in chosen.recipe.graphs.values_mut() {
        if let Graph::Causal(graph) = graph {
            graph.last_logits |= options.last_logits;
        }
    }
    // A bundle with other contents than the recipe's needs another name.
    chosen.name = chosen.name.map(|name| format!("{name}-{}", soprano::LM));
    let wishes = wishes(&options.means, &options.files, options.model.as_ref());
    run(&request(chosen, &options.output, wishes, here)?, options.output.json)
}

pub(super) fn recipe(options: &BuildRecipe, here: &Here) -> Outcome {
    let mut chosen = choose(Some(&options.recipe), None)?;
    if !options.only.is_empty() {
        only(&mut chosen.recipe, &options.only)?;
        chosen.name = chosen.name.map(|name| format!("{name}-{}", options.only.join("-")));
    }
    let Means { exporter, references } = options.means;
    let onnx_only = options.onnx_only;
    let wishes = Wishes { exporter, references, onnx_only, ..Wishes::default() };
    let mut build = request(chosen, &options.output, wishes, here)?;
    build.trust_code = options.trust_code;
    match &options.until {
        Some(stage) => until(&build, stage),
        None => run(&build, options.output.json),
    }
}

fn until(build: &Build<'_>, stage: &str) -> Outcome {
    let progress = Progress::new();
    let outcome = pipeline::run_until(build, stage, &progress);
    drop(progress);
    let folder = outcome.map_err(rejected)?;
    say(&format!("{}\n", folder.display()))
}

/// A failure; one whose artifact was rejected shows its table first.
fn rejected(error: pipeline::Error) -> Failure {
    if let Some(verdict) = terminal::rejected(&error) {
        tell!("\n{}", terminal::verdict(verdict));
    }
    Box::new(error)
}

fn run(build: &Build<'_>, as_json: bool) -> Outcome {
    let progress = Progress::new();
    let outcome = pipeline::run(build, &progress);
    drop(progress);
    let finished = outcome.map_err(rejected)?;
    tell!("\n{}", describe(&finished));
    if as_json {
        return say(&json(&serde_json::json!({
            "bundle": finished.folder,
            "up_to_date": finished.up_to_date,
            "summary": finished.summary,
        })));
    }
    say(&format!("{}\n", finished.folder.display()))
}

fn describe(finished: &Finished) -> String {
    let summary = &finished.summary;
    let mut rows = vec![row!["graph", "precision", "file", "size", "nodes"]];
    for (artifact, outcome) in summary.manifest.artifacts.iter().zip(&summary.outcomes) {
        let (before, after) = outcome.rewrite.nodes;
        rows.push(row![
            artifact.graph,
            artifact.precision,
            artifact.file,
            bytes(artifact.all_bytes()),
            format!("{before} -> {after}")
        ]);
    }
    let mut text = table(&rows);
    for outcome in &summary.outcomes {
        text.push('\n');
        text += &terminal::verdict(&outcome.verdict);
        if let Some(speed) = &outcome.speed {
            text += &format!(
                "{:.2} ms against {:.2} ms in fp32: {} ({}, one thread, {})\n",
                speed.int8_ms,
                speed.fp32_ms,
                match speed.ratio() {
                    ratio if ratio < 1.0 => "calls too short to tell which is faster".to_owned(),
                    ratio => format!("{ratio:.2}x faster"),
                },
                speed.what,
                speed.runtime
            );
        }
    }
    let state = if finished.up_to_date { "up to date" } else { "written" };
    let total: u64 = summary.manifest.files.values().map(|f| f.bytes).sum();
    text + &format!(
        "bundle {} {state}: {} files, {}\n",
        summary.manifest.name,
        summary.manifest.files.len() + 2,
        bytes(total)
    )
}
