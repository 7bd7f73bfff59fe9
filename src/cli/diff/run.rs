//! `diff --run`: two runtimes or two models compared value by value.

use std::collections::BTreeMap;

use super::super::arguments::Diff;
use super::super::here::Here;
use super::super::inspect::open;
use super::super::parsers::Asked;
use super::super::terminal::{Progress, plain};
use super::super::{Answer, Failure, INTERRUPTED, Outcome, json, say};
use crate::ir::Model;
use crate::pipeline::Reporter;
use crate::runtime::{Engine, Options, Tensors};
use crate::validate::{self, Comparison, Disagreement, Limits, MadeUp, Side, Sizes};

/// What is wrong with a call of `diff --run`.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum RunError {
    #[error("one model is compared with itself in two runtimes, not {0}")]
    #[diagnostic(code(cli::diff), help("soprano-export diff MODEL --run tract,onnxruntime"))]
    OneModel(usize),
    #[error("two models are compared with each other in one runtime each, not {0}")]
    #[diagnostic(code(cli::diff), help("soprano-export diff OLD NEW --run onnxruntime"))]
    TwoModels(usize),
    #[error("--dim gives {0:?} two sizes")]
    #[diagnostic(code(cli::diff), help("leave one of them out: a name has one size in all inputs"))]
    TwoSizes(String),
}

pub(super) fn run(options: &Diff, here: &Here) -> Outcome {
    let names = match (&options.new, options.run.as_slice()) {
        (None, &[a, b]) if a != b => [a, b],
        (None, names) => return Err(Box::new(RunError::OneModel(distinct(names)))),
        (Some(_), &[both]) => [both; 2],
        (Some(_), &[a, b]) => [a, b],
        (Some(_), names) => return Err(Box::new(RunError::TwoModels(names.len()))),
    };
    let mut old = open(&options.old)?;
    let mut new = options.new.as_deref().map(open).transpose()?;
    let available = here.runtimes(&names.map(Asked::One), Options::EXACT)?.runtimes;
    let of = |engine: &'static dyn Engine| {
        available.iter().find(|runtime| runtime.engine() == engine).expect("it is required")
    };
    let runtimes = names.map(|engine| of(engine).as_ref());
    let (inputs, assumed) = inputs(options, &[&old, new.as_ref().unwrap_or(&old)])?;
    std::iter::once(&mut old).chain(&mut new).for_each(validate::name_dimensions);
    let models = [&old, new.as_ref().unwrap_or(&old)];
    let sides = [0, 1].map(|at| Side { model: models[at], runtime: runtimes[at] });
    let limits = Limits { snr_db: options.snr, max_abs_of_peak: options.max_abs_of_peak };
    let progress = Progress::new();
    let report =
        |done: usize, total: usize| progress.progress("compare values", done as u64, total as u64);
    let comparison = validate::first_disagreement(sides, &inputs, limits, &INTERRUPTED, &report);
    drop(progress);
    let comparison = comparison?;
    let answer = if comparison.agrees() { Answer::Yes } else { Answer::No };
    if options.json {
        let runtimes = runtimes.map(|runtime| runtime.name_and_version());
        let mut report = serde_json::json!({ "agree": answer == Answer::Yes, "runtimes": runtimes, "assumed": assumed });
        if let (Some(report), serde_json::Value::Object(fields)) =
            (report.as_object_mut(), serde_json::to_value(&comparison).expect("plain data"))
        {
            report.extend(fields);
        }
        say(&json(&report))?;
        return Ok(answer);
    }
    say(&plain(&describe(&comparison)))?;
    let [a, b] = runtimes.map(|runtime| runtime.name_and_version());
    let what = if models[0].path() == models[1].path() { "runtimes" } else { "models" };
    let agree =
        if comparison.only_new.is_empty() { "agree" } else { "agree in all that the first gives" };
    tellln!("{a}, {b}: the {what} {}", if answer == Answer::Yes { agree } else { "differ" });
    Ok(answer)
}

/// The inputs of both sides, and the sizes that were assumed for them.
fn inputs(options: &Diff, models: &[&Model]) -> Result<(Tensors, BTreeMap<String, usize>), Failure> {
    if let (Some(file), Some(case)) = (&options.references, &options.case) {
        return Ok((validate::recorded_case(models[1], file, case)?, BTreeMap::new()));
    }
    if let Some(file) = &options.inputs {
        return Ok((validate::given_inputs(models, file)?, BTreeMap::new()));
    }
    let mut given = BTreeMap::new();
    for (name, size) in &options.dims {
        if given.insert(name.clone(), *size).is_some_and(|before| before != *size) {
            return Err(Box::new(RunError::TwoSizes(name.clone())));
        }
    }
    let sizes = Sizes { length: options.length, given };
    let MadeUp { inputs, assumed } = validate::random_inputs(models, options.seed, &sizes)?;
    if !assumed.is_empty() {
        let list: Vec<String> = assumed.iter().map(|(name, size)| format!("{name}={size}")).collect();
        tellln!("open dimensions, as assumed: {}; --dim NAME=SIZE sets one", list.join(" "));
    }
    Ok((inputs, assumed))
}

fn distinct(names: &[&'static dyn Engine]) -> usize {
    if let [a, b] = names { if a == b { 1 } else { 2 } } else { names.len() }
}

fn describe(comparison: &Comparison) -> String {
    let decibels = |snr: Option<f64>| snr.map_or("equal".to_owned(), |snr| format!("{snr:.1} dB"));
    let mut text = format!("{} values compared\n", comparison.compared);
    if let Some((name, distance)) = &comparison.furthest {
        text += &format!(
            "furthest that agrees: {name:?}, {:.1e} of the peak, {}\n",
            distance.max_abs_of_peak,
            decibels(distance.snr_db)
        );
    }
    if !comparison.not_shown.is_empty() {
        text += &format!(
            "{} values can't be shown: {}\n",
            comparison.not_shown.len(),
            list(&comparison.not_shown)
        );
    }
    if !comparison.left_out.is_empty() {
        let (count, names) = (comparison.left_out.len(), list(&comparison.left_out));
        text += &format!("{count} quantized values are left out: {names}\n");
    }
    for (which, names) in [("first", &comparison.only_old), ("second", &comparison.only_new)] {
        if !names.is_empty() {
            let (count, names) = (names.len(), list(names));
            text += &format!("{count} outputs are in the {which} model alone: {names}\n");
        }
    }
    if let Some(Disagreement { place, snr_db, shapes, types, only_when_whole }) = &comparison.first {
        text += &format!("first that differs: {place}");
        if let Some(snr) = snr_db {
            text += &format!(" ({snr:.1} dB)");
        }
        if let Some((a, b)) = shapes {
            text += &format!("; its shape is {a:?} and {b:?}");
        }
        if let Some((a, b)) = types {
            text += &format!("; its type is {a} and {b}");
        }
        if *only_when_whole {
            text += "; every inner value agrees where it is shown: a fusion differs";
        }
        text.push('\n');
    }
    text
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ") + more
}
