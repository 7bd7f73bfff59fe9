use super::arguments::{Means, Output, PlanBuild, WorkflowFormat};
use super::build::{Chosen, choose, request};
use super::here::Here;
use super::terminal::{row, table};
use super::{Answer, Failure, Outcome, json, say};
use crate::family;
use crate::names::Word as _;
use crate::pipeline::{self, Build, Job, Plan, State, Wishes};

/// The build that is planned.
fn planned(chosen: Chosen, options: &PlanBuild, here: &Here) -> Result<Build<'static>, Failure> {
    let PlanBuild { rebuild, no_speed_gate, json, .. } = *options;
    let output = Output { rebuild, no_speed_gate, json, ..Output::default() };
    let Means { exporter, references } = options.means;
    let wishes = Wishes {
        exporter,
        references,
        onnx_only: options.onnx_only,
        source_named: options.model.is_some(),
        formats_asked: false,
    };
    Ok(Build { trust_code: options.trust_code, ..request(chosen, &output, wishes, here)? })
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
    let build = planned(chosen, options, here)?;
    let plan = Plan::of(&build)?;
    let state = |state: &State| match state {
        State::Hit => ("hit", String::new()),
        State::Miss(why) => ("miss", why.clone()),
    };
    if options.json {
        let stages: Vec<_> = plan
            .stages
            .iter()
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
        let source = build.source.to_string();
        return say(&json(&serde_json::json!({ "source": source, "stages": stages })));
    }
    let mut rows = vec![row!["stage", "key", "cache", "why"]];
    for stage in &plan.stages {
        let (state, why) = state(&stage.state);
        rows.push(row![stage.key.stage, stage.key.digest().short(), state, why]);
    }
    say(&table(&rows))?;
    if let Err(error) = &plan.python
        && plan.stages.iter().any(|stage| stage.state != State::Hit)
    {
        tellln!("note: {error}");
    }
    Ok(Answer::Yes)
}

fn matrix(recipes: &[String]) -> Outcome {
    let found = recipes.iter().map(|name| Ok((name.clone(), family::recipes().find(name)?)));
    say(&pipeline::github_matrix(&found.collect::<Result<Vec<_>, Failure>>()?)?)
}

fn snakefile(options: &PlanBuild, here: &Here) -> Outcome {
    let jobs = options.recipes.iter().map(|named| {
        let chosen = choose(Some(named), None)?;
        // Rules without it would only fail.
        pipeline::trusted(&chosen.recipe, options.trust_code)?;
        let name = chosen.recipe.name.clone();
        let plan = Plan::of(&planned(chosen, options, here)?)?;
        // A file is named whole: the Snakefile may be run from elsewhere.
        let is_builtin = family::recipes().builtin.iter().any(|(name, _)| name == named);
        let recipe = match std::path::absolute(named) {
            Ok(path) if path.is_file() && !is_builtin => path.to_string_lossy().into_owned(),
            _ => named.clone(),
        };
        Ok(Job { recipe, name, plan })
    });
    let jobs = jobs.collect::<Result<Vec<_>, Failure>>()?;
    let words: Vec<String> =
        here.words().into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let flags = [
        ("--no-speed-gate", options.no_speed_gate),
        ("--trust-code", options.trust_code),
        ("--onnx-only", options.onnx_only),
    ];
    let flags = flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| (*flag).to_owned());
    let Means { exporter, references } = options.means;
    let chosen = exporter.map(|word| ["--exporter", word.name()]).into_iter();
    let chosen = chosen.chain(references.map(|word| ["--references", word.name()]));
    let build: Vec<String> = flags.chain(chosen.flatten().map(str::to_owned)).collect();
    say(&pipeline::snakefile(&jobs, &words, &build)?)
}
