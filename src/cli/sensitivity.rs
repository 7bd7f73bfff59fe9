use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::arguments::Sensitivity as Options;
use super::here::Here;
use super::terminal::{Progress, bytes, plain, row, table};
use super::{Answer, Failure, INTERRUPTED, Outcome, is_free, json, say, write_page};
use crate::bundle::Bundle;
use crate::family;
use crate::ir::Model;
use crate::names::{Ports, Precision, Role};
use crate::pipeline::Reporter as _;
use crate::runtime::{self, Takes, Traits};
use crate::validate::{self, Choice, References, Sensitivity};

/// The least signal-to-noise ratio of an int8 file that a recipe takes.
const LEAST_SNR_DB: f64 = 12.0;

/// Rows of an activation when a product is timed: a decode step, or 100 frames.
fn rows(role: Role) -> usize {
    match role {
        Role::Causal => 1,
        Role::Signal => 400,
    }
}

pub(super) fn sensitivity(options: &Options, here: &Here) -> Outcome {
    for file in options.output.iter().chain(&options.plot) {
        is_free(file, options.overwrite)?;
    }
    if let Some(snr) = options.snr.filter(|snr| !(LEAST_SNR_DB..=100.0).contains(snr)) {
        return Err(Box::new(Error::Snr { snr }));
    }
    let Fp32 { graph, ports, path, references } = fp32(options)?;
    let (graph, ports) = (&graph, &ports);
    let model = Model::open(&path)?;
    let available = here.runtimes(&[], runtime::Options::EXACT)?;
    let runtime = available.fastest(|runtime| runtime.takes(&Traits::INT8) == Takes::Well);
    let runtime = runtime.ok_or(runtime::Error::NoneBuiltIn)?;
    let progress = Progress::new();
    let done = |done, total| progress.progress("nodes", done as u64, total as u64);
    let reduce_range = options.reduce_range;
    let trial = validate::Trial { rows: rows(ports.role()), reduce_range };
    let nodes = validate::sensitivity(&model, ports, &references, runtime, trial, &INTERRUPTED, &done);
    let nodes = nodes?;
    if nodes.is_empty() {
        let why = format!("no product of {graph} can be quantized");
        return Err(Box::new(Error::NoGraph { bundle: options.bundle.clone(), why }));
    }
    let done = |done, total| progress.progress("models", done as u64, total as u64);
    let choose = |snr| {
        let target = (snr, reduce_range);
        validate::choose(&model, ports, &references, runtime, &nodes, target, &INTERRUPTED, &done)
    };
    let goal = options.snr.map(|snr| Ok::<_, Failure>((snr, choose(snr)?))).transpose();
    drop(progress);
    let goal = goal?;
    // A choice that no recipe can hold is none.
    let misfit = goal.as_ref().and_then(|(snr, choice)| misfit(graph, choice, *snr, reduce_range));
    let choice = goal.as_ref().map(|(_, choice)| choice).filter(|_| misfit.is_none());

    if let Some(plot) = &options.plot {
        write_page(plot, &drawn(&nodes))?;
    }
    if let (Some(output), Some(choice)) = (&options.output, choice) {
        write_page(output, &fragment(graph, choice, reduce_range))?;
    }
    if options.json {
        say(&json(&serde_json::json!({
            "graph": graph,
            "runtime": runtime.name_and_version(),
            "nodes": nodes,
            "choice": choice,
        })))?;
    } else {
        say(&plain(&listed(ports.role(), &nodes)))?;
        if let Some(choice) = choice {
            say(&format!("\n{}", fragment(graph, choice, reduce_range)))?;
        }
    }
    tellln!("{} nodes of the {graph}, in {}", nodes.len(), runtime.name_and_version());
    if let Some(why) = misfit {
        tellln!("{why}; no fragment is written");
        return Ok(Answer::No);
    }
    let Some(choice) = choice else { return Ok(Answer::Yes) };
    tellln!(
        "{:.1} dB with {} nodes in two terms and {} in fp32; they add {:.2} ms and {}",
        choice.snr_db,
        choice.two_terms.len(),
        choice.keep_fp32.len(),
        choice.milliseconds,
        bytes(choice.bytes)
    );
    Ok(Answer::Yes)
}

/// Why a choice is not a recipe that can be built.
fn misfit(graph: &str, choice: &Choice, target: f64, reduce_range: bool) -> Option<String> {
    let reached = choice.snr_db;
    if reached.is_nan() || reached < target {
        return Some(format!("{target} dB can't be reached: all in fp32 it is {reached:.1} dB"));
    }
    if choice.products == 0 {
        return Some(format!("{target} dB leaves no product to hold in 8 bits: any one is below it"));
    }
    let recipe =
        format!("name: fragment\nsource: synthetic:tiny\n{}", fragment(graph, choice, reduce_range));
    let parsed = family::recipes().parse(&recipe, "the fragment");
    parsed.err().map(|error| format!("the choice is not a recipe: {error}"))
}

/// An fp32 file to measure.
struct Fp32 {
    graph: String,
    ports: Ports,
    path: PathBuf,
    references: References,
}

/// The fp32 file of the graph that was named, or of the first causal one.
fn fp32(options: &Options) -> Result<Fp32, Failure> {
    let bundle = Bundle::open(&options.bundle)?;
    let manifest = bundle.manifest();
    let no_graph = |why| Error::NoGraph { bundle: options.bundle.clone(), why };
    let wanted = |graph: &str| options.graph.as_deref().is_none_or(|name| name == graph);
    let entries = manifest.artifacts.iter();
    let entry = entries
        .filter(|entry| entry.precision == Precision::Fp32 && wanted(&entry.graph))
        .min_by_key(|entry| manifest.graph(entry).interface.role())
        .ok_or_else(|| no_graph("no fp32 file of that graph".to_owned()))?;
    let names: BTreeSet<&str> = manifest.artifacts.iter().map(|entry| entry.graph.as_str()).collect();
    let role = manifest.graph(entry).interface.role();
    if let (None, Role::Signal, 2..) = (&options.graph, role, names.len()) {
        let names = Vec::from_iter(names).join(", ");
        return Err(Box::new(no_graph(format!(
            "it has several graphs, and --graph says which: {names}"
        ))));
    }
    Ok(Fp32 {
        graph: entry.graph.clone(),
        ports: manifest.graph(entry).interface.clone(),
        path: bundle.model(entry)?.path,
        references: bundle.references(entry)?,
    })
}

fn listed(role: Role, nodes: &[Sensitivity]) -> String {
    let mut rows = vec![row!["node", "weight", "saves", "one term", "two terms", "fp32", "one", "two"]];
    if role == Role::Signal {
        rows[0].insert(5, "log-spectral".to_owned());
    }
    let mut sorted: Vec<&Sensitivity> = nodes.iter().collect();
    sorted.sort_by(|a, b| a.one.snr_db.total_cmp(&b.one.snr_db));
    for node in sorted {
        let ms = |ms: f64| if ms > 0.0 { format!("{ms:.3} ms") } else { "-".to_owned() };
        let [height, width] = node.shape;
        let mut cells = row![
            node.node,
            format!("{height}x{width}"),
            bytes(node.bytes_saved),
            format!("{:.1} dB", node.one.snr_db),
            format!("{:.1} dB", node.two.snr_db),
            ms(node.milliseconds.fp32),
            ms(node.milliseconds.one),
            ms(node.milliseconds.two)
        ];
        if role == Role::Signal {
            let distance = node.one.log_spectral_distance_db;
            cells.insert(5, distance.map_or("-".to_owned(), |d| format!("{d:.3} dB")));
        }
        rows.push(cells);
    }
    table(&rows)
}

/// What goes into a recipe.
fn fragment(graph: &str, choice: &Choice, reduce_range: bool) -> String {
    let mut text = format!("graphs:\n  {graph}:\n    int8:\n      activations: one\n");
    let _ = writeln!(text, "      reduce_range: {reduce_range}");
    for (key, nodes) in [("two_terms", &choice.two_terms), ("keep_fp32", &choice.keep_fp32)] {
        if nodes.is_empty() {
            continue;
        }
        let _ = writeln!(text, "      {key}:");
        for node in nodes {
            let _ = writeln!(text, "        - {}", serde_json::Value::from(node.as_str()));
        }
    }
    // Below what was measured here by as much as other inputs may differ.
    let _ = writeln!(text, "      snr_db: {:.1}", (choice.snr_db - 2.0).max(LEAST_SNR_DB));
    text
}

/// A bar for each node: its share of the noise with activations in one term, and in two.
fn drawn(nodes: &[Sensitivity]) -> String {
    const ROW: usize = 16;
    const LABEL: usize = 320;
    const WIDTH: usize = 900;
    let power = |snr_db: f64| 10f64.powf(-snr_db / 10.0);
    let total: f64 = nodes.iter().map(|node| power(node.one.snr_db)).sum();
    let largest = nodes.iter().map(|node| power(node.one.snr_db)).fold(0.0, f64::max);
    let height = ROW * (nodes.len() + 2);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<text x=\"4\" y=\"12\">share of the noise at the output, activations in one term \
         (light) and in two (dark)</text>\n"
    );
    for (at, node) in nodes.iter().enumerate() {
        let y = ROW * (at + 1);
        let wide = |snr_db: f64| power(snr_db) / largest * (WIDTH - LABEL - 60) as f64;
        let name = node.node.replace('&', "&amp;").replace('<', "&lt;");
        let (one, two) = (wide(node.one.snr_db), wide(node.two.snr_db));
        let share = 100.0 * power(node.one.snr_db) / total;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LABEL}\" y=\"{}\" width=\"{one:.1}\" height=\"11\" fill=\"#b8cce4\"/>\
             <rect x=\"{LABEL}\" y=\"{}\" width=\"{two:.1}\" height=\"11\" fill=\"#2f5d8c\"/>\
             <text x=\"{:.1}\" y=\"{}\">{share:.1} %</text>",
            LABEL - 6,
            y + 11,
            y + 2,
            y + 2,
            LABEL as f64 + one + 4.0,
            y + 11
        );
    }
    svg + "</svg>\n"
}

/// Why a sensitivity can't be measured or written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum Error {
    #[error("{}: {why}", bundle.display())]
    #[diagnostic(code(sensitivity::no_graph), help("manifest.json lists the bundle's models"))]
    NoGraph { bundle: PathBuf, why: String },
    #[error("{snr} is not a signal-to-noise ratio")]
    #[diagnostic(
        code(sensitivity::snr),
        help("write decibels from 12, the least that a recipe takes, to 100")
    )]
    Snr { snr: f64 },
}
