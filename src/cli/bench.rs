mod probe;
mod pytorch;
mod show;
mod variants;

use std::path::PathBuf;

use super::arguments::Bench as Options;
use super::here::Here;
use super::terminal::{Progress, plain};
use super::{Answer, Failure, INTERRUPTED, Outcome, is_free, json, say, write_page};
use crate::bundle::{self, Bundle};
use crate::family;
use crate::hardware::Machine;
use crate::names::{Ports, Role, Word as _};
use crate::pipeline::Reporter as _;
use crate::recipe::Recipe;
use crate::runtime;
use crate::validate::bench::{
    self, Fresh, Rendition, Report, Row, SpeakingRate, Subject, TEXTS, USUAL_TEXT,
};

use variants::Variant;

const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
/// Processes that load each variant anew.
const PROCESSES: usize = 3;
/// The recipe inside a bundle.
const RECIPE: &str = "recipe.lock.yaml";

pub(super) fn bench(options: &Options, here: &Here) -> Outcome {
    if let Some(file) = &options.alone {
        return probe::alone(options, file, here);
    }
    if let Some(html) = &options.html {
        is_free(html, options.overwrite)?;
    }
    let bundle = Bundle::open(&options.bundle)?;
    let recipe = match bundle.lists(RECIPE) {
        true => Some(family::recipes().read(&bundle.file(RECIPE)?)?),
        false if options.gate => {
            return Err(Box::new(Error::NoRecipe { bundle: options.bundle.clone() }));
        }
        false => None,
    };
    let demands = recipe.as_ref().filter(|recipe| options.gate && bench::demands(recipe));
    if options.gate && demands.is_none() {
        return Err(Box::new(Error::NoGate { bundle: options.bundle.clone() }));
    }
    let machine = Machine::detect();
    let threads = options.threads.map_or(machine.physical_cores.max(1), usize::from);
    let rounds = options.rounds.map(usize::from);
    let rounds = rounds.unwrap_or(if options.quick { QUICK_ROUNDS } else { ROUNDS });
    let plan = Rounds { threads, rounds, quick: options.quick };

    let runtimes = here.runtimes(&options.runtime, runtime::Options::fast(threads))?;
    let (variants, mut left_out) = variants::of(&bundle, &runtimes)?;
    left_out.splice(0..0, runtimes.missing.iter().map(|error| format!("{error}; it is left out")));
    left_out.iter().for_each(|why| tellln!("{why}"));
    if variants.is_empty() {
        return Err(Box::new(Error::Nothing { bundle: options.bundle.clone() }));
    }

    let mut rows = Vec::new();
    for role in Role::ALL {
        if variants.iter().all(|variant| variant.interface.role() != *role) {
            tellln!("the bundle has no {role} graph: whole speech can't be estimated");
        }
    }
    for graph in graphs(&variants) {
        let all: Vec<&Variant<'_>> = variants.iter().filter(|v| v.entry.graph == graph).collect();
        let first = pytorch::run(options, here, (&bundle, graph), plan)?;
        rows.extend(measure_graph(&all, options, here, plan, &mut left_out)?);
        let second = pytorch::run(options, here, (&bundle, graph), plan)?;
        rows.extend(first.zip(second).map(|(first, second)| pytorch::better(first, second)));
    }
    if rows.iter().all(|row| row.file.is_none()) {
        return Err(Box::new(Error::Nothing { bundle: options.bundle.clone() }));
    }

    let rendition = rendition(&bundle, recipe.as_ref())?;
    let whole = bench::whole(&rows, &rendition, &TEXTS);
    let best = bench::best(&whole, &rows, USUAL_TEXT);
    let best_whole = best.map(|at| &whole[at]);
    let gate =
        demands.map(|recipe| bench::gate(recipe, &rows, &rendition, best_whole)).unwrap_or_default();
    let name = bundle.manifest().name.clone();
    let report =
        Report { name, machine, threads, rounds, rendition, rows, whole, best, left_out, gate };

    if let Some(html) = &options.html {
        write_page(html, &bundle::report::bench_html(&report))?;
    }
    match options.json {
        true => say(&json(&report))?,
        false => say(&plain(&show::tables(&report)))?,
    };
    for demand in &report.gate {
        tellln!("{}", show::demand(demand));
    }
    Ok(if report.gate.iter().all(|demand| demand.met) { Answer::Yes } else { Answer::No })
}

/// The graphs of these files, causal ones first, in the order of their calls.
fn graphs<'a>(variants: &'a [Variant<'_>]) -> Vec<&'a str> {
    let mut graphs: Vec<(Role, &str)> = Vec::new();
    for variant in variants {
        let graph = (variant.interface.role(), variant.entry.graph.as_str());
        if !graphs.contains(&graph) {
            graphs.push(graph);
        }
    }
    graphs.sort_by_key(|(role, _)| *role);
    graphs.into_iter().map(|(_, graph)| graph).collect()
}

/// How many threads and rounds a measurement takes.
#[derive(Clone, Copy)]
struct Rounds {
    threads: usize,
    rounds: usize,
    quick: bool,
}

/// Measures each variant of a graph, in processes of its own and then in turns. One that fails is left out.
fn measure_graph(
    variants: &[&Variant<'_>],
    options: &Options,
    here: &Here,
    plan: Rounds,
    left_out: &mut Vec<String>,
) -> Result<Vec<Row>, Failure> {
    let progress = Progress::new();
    let processes = if plan.quick { 1 } else { PROCESSES };
    let mut fresh = vec![Vec::new(); variants.len()];
    let mut failed = vec![None; variants.len()];
    let all = (processes * variants.len()) as u64;
    for turn in 0..processes {
        for (at, variant) in variants.iter().enumerate() {
            if failed[at].is_some() {
                continue;
            }
            progress.progress("load", (turn * variants.len() + at) as u64, all);
            match probe::start(variant, options, here, plan.threads)? {
                Ok(figures) => fresh[at].push(figures),
                Err(why) => failed[at] = Some(why),
            }
        }
    }
    let mut able = Vec::new();
    for ((variant, fresh), failed) in variants.iter().zip(&fresh).zip(failed) {
        match (Fresh::of(fresh), failed) {
            (Some(fresh), None) => able.push((variant, fresh)),
            (_, failed) => {
                let why = failed.unwrap_or_default();
                let why = format!(
                    "{} is not measured in {}: {why}",
                    variant.entry.file,
                    variant.runtime.name()
                );
                tellln!("{why}");
                left_out.push(why);
            }
        }
    }
    let subjects: Vec<Subject<'_>> = able
        .iter()
        .map(|(variant, _)| Subject {
            path: variant.path.clone(),
            interface: &variant.interface,
            runtime: variant.runtime,
        })
        .collect();
    let Some(first) = variants.first() else { return Ok(Vec::new()) };
    let (graph, role) = (first.entry.graph.as_str(), first.interface.role());
    let done = |done, total| progress.progress(graph, done as u64, total as u64);
    let points = bench::calls(role, plan.quick);
    let figures = bench::measure(&subjects, &points, plan.rounds, &INTERRUPTED, &done);
    drop(progress);
    let row = |((variant, fresh), figures): ((&&Variant<'_>, Fresh), Vec<_>)| Row {
        graph: graph.to_owned(),
        role,
        precision: variant.entry.precision,
        file: Some(variant.entry.file.clone()),
        bytes: Some(variant.entry.all_bytes()),
        runtime: variant.runtime.name_and_version(),
        fresh,
        figures,
    };
    Ok(able.into_iter().zip(figures?).map(row).collect())
}

/// How this bundle's tokens become sound, and how many of them a text takes.
fn rendition(bundle: &Bundle, recipe: Option<&Recipe>) -> Result<Rendition, Failure> {
    let manifest = bundle.manifest();
    let signal = manifest.signal();
    let sound = signal.and_then(|graph| graph.framing.map(|f| f.per_frame).zip(graph.sample_rate));
    let sound = sound.map(|(per_frame, rate)| (per_frame, rate as usize));
    // A causal graph alone doesn't say.
    let usual = || family::named(&manifest.family).and_then(|family| family.usual_sound);
    let (samples_per_token, sample_rate) = sound.or_else(usual).unwrap_or_default();
    let mut rates = [None, None];
    for (name, graph) in recipe.iter().flat_map(|recipe| recipe.graphs.iter()) {
        let entry = manifest.artifacts.iter().find(|entry| entry.graph == name);
        let (Some(entry), sentences @ [_, ..]) = (entry, graph.sentences()) else { continue };
        let references = bundle.references(entry)?;
        match graph.ports() {
            // Its references hold the prompts too.
            Ports::Causal(names) => {
                rates[0] = SpeakingRate::of_causal(&names.ids, sentences, &references);
            }
            Ports::Signal(_) => rates[1] = SpeakingRate::of_signal(sentences, &references),
        }
    }
    let rate = rates.into_iter().flatten().next().unwrap_or_else(SpeakingRate::of_soprano_mini);
    Ok(Rendition { samples_per_token, sample_rate, rate })
}

/// Why a bundle can't be timed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum Error {
    #[error("{}: nothing in it can be timed here", bundle.display())]
    #[diagnostic(
        code(bench::nothing),
        help(
            "manifest.json lists the bundle's models; --runtime all takes every runtime that is found"
        )
    )]
    Nothing { bundle: PathBuf },
    #[error("{}: its recipe asks for nothing", bundle.display())]
    #[diagnostic(
        code(bench::no_gate),
        help(
            "add `gate: {{faster_than_fp32: 1.5}}` to a graph of the recipe and build again, or leave --gate out"
        )
    )]
    NoGate { bundle: PathBuf },
    #[error("{}: the bundle has no {RECIPE}", bundle.display())]
    #[diagnostic(code(bench::no_recipe), help("build the bundle again, or leave --gate out"))]
    NoRecipe { bundle: PathBuf },
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(bench::io))]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: its model can't be timed in a process of its own: {source}", path.display())]
    #[diagnostic(code(bench::probe))]
    Probe { path: PathBuf, source: std::io::Error },
    #[error("the bundle has no model {file:?}")]
    #[diagnostic(code(bench::no_model), help("manifest.json lists the bundle's models"))]
    NoModel { file: String },
    #[error("PyTorch gave no figures: {why}")]
    #[diagnostic(code(bench::pytorch), help("make setup installs it"))]
    PyTorch { why: String },
    #[error("interrupted")]
    #[diagnostic(code(bench::interrupted))]
    Interrupted,
}
