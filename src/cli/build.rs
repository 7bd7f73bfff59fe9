use std::path::Path;

use super::arguments::{BuildRecipe, Decoder, ExportRoute, Lm, Output, PlanBuild, WorkflowFormat};
use super::here::Here;
use super::terminal::{self, Progress, bytes, row, table};
use super::{Answer, Failure, INTERRUPTED, Outcome, json, say};
use crate::names::Precision;
use crate::pipeline::{self, Build, Finished, Job, Plan, State};
use crate::recipe::{self, Int8, Recipe, Route, Targets, Terms};
use crate::runtime::Options;
use crate::source::Source;

/// The recipe that serves where nothing else is said.
const DEFAULT: &str = "soprano-1.1";

/// The recipe of a call, its source, and the bundle's name where the recipe was meant for it.
struct Chosen {
    recipe: Recipe,
    source: Source,
    name: Option<String>,
}

fn choose(named: Option<&str>, model: Option<&str>) -> Result<Chosen, Failure> {
    let mut recipe = match (named, model) {
        (Some(name), _) => Recipe::find(name)?,
        (None, Some(model)) => made_for(model)?,
        (None, None) => Recipe::find(DEFAULT)?,
    };
    let wanted = model.unwrap_or(&recipe.source).to_owned();
    let meant = named.is_some() || wanted == recipe.source;
    if !meant {
        without_names(&mut recipe);
    }
    let name = meant.then(|| recipe.name.clone());
    Ok(Chosen { source: Source::parse(&wanted)?, recipe, name })
}

/// What a recipe converts a half to, where a call asks for it: nothing else than it asks for.
fn target(targets: &mut Targets, asked: Option<&[Precision]>) {
    let Some(schemes) = asked else {
        *targets = Targets::default();
        return;
    };
    let target = targets.openvino.get_or_insert_default();
    if !schemes.is_empty() {
        let mut wanted = schemes.to_vec();
        wanted.sort();
        wanted.dedup();
        target.schemes = wanted;
    }
}

/// Takes out of a recipe the nodes that it names: those of its own model's graph.
fn without_names(recipe: &mut Recipe) {
    let int8 = recipe.decoder.as_mut().and_then(|decoder| decoder.int8.as_mut());
    int8.into_iter().for_each(|int8| *int8 = Int8::default());
    let int8 = recipe.lm.as_mut().and_then(|lm| lm.int8.as_mut());
    int8.into_iter().for_each(|int8| *int8 = Int8 { activations: Terms::Two, ..Int8::default() });
    let decoder = recipe.decoder.as_mut().map(|decoder| &mut decoder.targets);
    let lm = recipe.lm.as_mut().map(|lm| &mut lm.targets);
    for target in decoder.into_iter().chain(lm).filter_map(|targets| targets.openvino.as_mut()) {
        target.keep_fp32.clear();
    }
}

/// The built-in recipe whose own source the model is, or the default one.
fn made_for(model: &str) -> Result<Recipe, Failure> {
    for (name, _) in recipe::builtin() {
        let recipe = Recipe::find(name)?;
        if recipe.source == model {
            return Ok(recipe);
        }
    }
    Ok(Recipe::find(DEFAULT)?)
}

fn request(chosen: Chosen, output: &Output, here: &Here) -> Result<Build<'static>, Failure> {
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
        cache: here.cache().clone(),
        interrupted: &INTERRUPTED,
    })
}

pub(super) fn decoder(options: &Decoder, here: &Here) -> Outcome {
    let mut chosen = choose(options.recipe.as_deref(), options.model.as_deref())?;
    chosen.recipe.lm = None;
    chosen.recipe.speech = None;
    chosen.recipe.gate = chosen.recipe.gate.and_then(|gate| gate.of_halves(false, true));
    let decoder = chosen.recipe.decoder.get_or_insert_default();
    match options.int8 {
        true => drop(decoder.int8.get_or_insert_default()),
        false => decoder.int8 = None,
    }
    target(&mut decoder.targets, options.openvino.as_deref());
    run(&request(chosen, &options.output, here)?, options.output.json)
}

pub(super) fn lm(options: &Lm, here: &Here) -> Outcome {
    let mut chosen = choose(options.recipe.as_deref(), options.model.as_deref())?;
    chosen.recipe.decoder = None;
    chosen.recipe.speech = None;
    chosen.recipe.gate = chosen.recipe.gate.and_then(|gate| gate.of_halves(true, false));
    let route = options.route.map(|route| match route {
        ExportRoute::Torch => Route::Torch,
        ExportRoute::Optimum => Route::Optimum,
    });
    // Each exporter gives nodes names of its own.
    if route.is_some_and(|route| chosen.recipe.lm.as_ref().is_some_and(|lm| lm.route != route)) {
        without_names(&mut chosen.recipe);
    }
    let lm = chosen.recipe.lm.get_or_insert_default();
    match options.int8 {
        true => drop(lm.int8.get_or_insert_default()),
        false => lm.int8 = None,
    }
    target(&mut lm.targets, options.openvino.as_deref());
    lm.last_logits |= options.last_logits;
    lm.route = route.unwrap_or(lm.route);
    // A bundle of another content than the recipe's needs another name.
    chosen.name = chosen.name.map(|name| format!("{name}-lm"));
    run(&request(chosen, &options.output, here)?, options.output.json)
}

pub(super) fn recipe(options: &BuildRecipe, here: &Here) -> Outcome {
    let build = request(choose(Some(&options.recipe), None)?, &options.output, here)?;
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
    let mut rows = vec![row!["part", "scheme", "file", "size", "nodes"]];
    for (artifact, outcome) in summary.manifest.artifacts.iter().zip(&summary.outcomes) {
        let (before, after) = outcome.rewrite.nodes;
        rows.push(row![
            artifact.part,
            artifact.scheme,
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
                "{:.2} ms beside {:.2} ms in fp32: {:.2}x faster ({}, one thread, {})\n",
                speed.int8_ms,
                speed.fp32_ms,
                speed.ratio(),
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

/// The options of a plan, as those of the build that it plans.
fn planned(options: &PlanBuild) -> Output {
    Output {
        output: None,
        overwrite: false,
        rebuild: options.rebuild,
        no_speed_gate: options.no_speed_gate,
        json: options.json,
    }
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("one recipe is planned at a time, not {0}")]
#[diagnostic(code(cli::plan), help("--format github-matrix and --format snakemake take many"))]
struct ManyRecipes(usize);

pub(super) fn plan(options: &PlanBuild, here: &Here) -> Outcome {
    match options.format {
        Some(WorkflowFormat::GithubMatrix) => return matrix(&options.recipes),
        Some(WorkflowFormat::Snakemake) => return snakefile(options, here),
        None if options.recipes.len() > 1 => return Err(Box::new(ManyRecipes(options.recipes.len()))),
        None => {}
    }
    let chosen = choose(options.recipes.first().map(String::as_str), options.model.as_deref())?;
    let output = planned(options);
    let build = request(chosen, &output, here)?;
    let plan = Plan::of(&build)?;
    let state = |state: &State| match state {
        State::Hit => ("hit", String::new()),
        State::Miss(why) => ("miss", why.clone()),
    };
    if options.json {
        let stages: Vec<_> = plan
            .stages()
            .map(|stage| {
                let (state, why) = state(&stage.state);
                serde_json::json!({
                    "stage": stage.key.stage,
                    "key": stage.key.digest(),
                    "state": state,
                    "why": why,
                    "folder": build.cache.folder(&stage.key),
                })
            })
            .collect();
        return say(&json(
            &serde_json::json!({ "source": build.source.to_string(), "stages": stages }),
        ));
    }
    let mut rows = vec![row!["stage", "key", "cache", "why"]];
    for stage in plan.stages() {
        let (state, why) = state(&stage.state);
        rows.push(row![stage.key.stage, stage.key.digest().short(), state, why]);
    }
    say(&table(&rows))?;
    if let Err(error) = &plan.python
        && plan.stages().any(|stage| stage.state != State::Hit)
    {
        tellln!("note: {error}");
    }
    Ok(Answer::Yes)
}

fn matrix(recipes: &[String]) -> Outcome {
    let found = recipes.iter().map(|name| Ok((name.clone(), Recipe::find(name)?)));
    say(&pipeline::github_matrix(&found.collect::<Result<Vec<_>, Failure>>()?)?)
}

fn snakefile(options: &PlanBuild, here: &Here) -> Outcome {
    let jobs = options.recipes.iter().map(|named| {
        let chosen = choose(Some(named), None)?;
        let name = chosen.recipe.name.clone();
        let plan = Plan::of(&request(chosen, &planned(options), here)?)?;
        // A file is named whole: the Snakefile may be run from elsewhere.
        let recipe = match std::path::absolute(named) {
            Ok(path) if path.is_file() && recipe::builtin().iter().all(|(known, _)| known != named) => {
                path.to_string_lossy().into_owned()
            }
            _ => named.clone(),
        };
        Ok(Job { recipe, name, plan })
    });
    let jobs = jobs.collect::<Result<Vec<_>, Failure>>()?;
    let words: Vec<String> =
        here.words().into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let build: Vec<String> =
        options.no_speed_gate.then(|| "--no-speed-gate".to_owned()).into_iter().collect();
    say(&pipeline::snakefile(&jobs, &words, &build)?)
}
