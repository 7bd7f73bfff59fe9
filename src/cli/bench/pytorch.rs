//! The same calls in PyTorch, in a process of its own before the others and one after them.

use std::time::Duration;

use serde::Deserialize;

use super::super::arguments::Bench as Options;
use super::super::here::Here;
use super::super::{Failure, INTERRUPTED};
use super::{Error, Rounds};
use crate::bundle::Bundle;
use crate::export::{self, Child, Request, Subject};
use crate::names::Precision;
use crate::validate::bench::{Figure, Fresh, Row, Spread, calls};

/// A point that takes longer than this says nothing of use.
const TIME_LIMIT: Duration = Duration::from_secs(1800);

#[derive(Deserialize)]
struct Answer {
    version: String,
    load_ms: f64,
    first_ms: f64,
    peak_bytes: Option<u64>,
    ms: Vec<Vec<f64>>,
}

/// Times a graph of the checkpoint, where one was given.
pub(super) fn run(
    options: &Options,
    here: &Here,
    (bundle, graph): (&Bundle, &str),
    plan: Rounds,
) -> Result<Option<Row>, Failure> {
    let Some(checkpoint) = &options.pytorch else { return Ok(None) };
    let fault = |source| Error::Io { path: checkpoint.clone(), source };
    let checkpoint = &std::fs::canonicalize(checkpoint).map_err(fault)?;
    let cache = here.cache();
    let manifest = bundle.manifest();
    let python = here.python()?;
    let work = tempfile::tempdir().map_err(fault)?;
    let output = work.path().join("output");
    std::fs::create_dir(&output).map_err(fault)?;
    let names = &manifest.graphs[graph].interface;
    let role = names.role();
    let points = calls(role, plan.quick);
    let log = work.path().join("log");
    let child = Child {
        python: &python,
        cache: cache.root(),
        log: &log,
        time_limit: TIME_LIMIT,
        interrupted: &INTERRUPTED,
        progress: &|_| {},
    };
    let request = Request::Bench(export::Bench {
        checkpoint,
        subject: Subject { family: &manifest.family, graph, role, names, module: None },
        threads: plan.threads,
        rounds: plan.rounds,
        points: serde_json::to_value(&points).expect("plain data"),
    });
    let outcome = child.run(&request, &output)?;
    let refuse = |why: String| Error::PyTorch { why };
    let answer: Answer = serde_json::from_value(outcome.result).map_err(|e| refuse(e.to_string()))?;
    let figures = points.iter().zip(&answer.ms);
    let figures: Vec<Figure> =
        figures.filter_map(|(&point, ms)| Some(Figure { point, ms: Spread::of(ms)? })).collect();
    if figures.len() != points.len() {
        return Err(Box::new(refuse(format!("{} of {} points", figures.len(), points.len()))));
    }
    Ok(Some(Row {
        graph: graph.to_owned(),
        role,
        precision: Precision::Fp32,
        file: None,
        bytes: None,
        runtime: format!("pytorch {}", answer.version),
        fresh: Fresh {
            load_ms: Spread::once(answer.load_ms),
            first_ms: Spread::once(answer.first_ms),
            peak_bytes: answer.peak_bytes,
        },
        figures,
    }))
}

/// The faster of two runs at each point: PyTorch can't take turns, and gets the benefit of the doubt.
pub(super) fn better(before: Row, after: Row) -> Row {
    let faster = |(a, b): (Figure, Figure)| if a.ms.median <= b.ms.median { a } else { b };
    let figures = before.figures.into_iter().zip(after.figures).map(faster).collect();
    let fresh = Fresh::of(&[before.fresh, after.fresh]).unwrap_or(after.fresh);
    Row { fresh, figures, ..after }
}
