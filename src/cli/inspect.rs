//! `inspect`: what is in a model, and where.

mod summary;

use std::path::Path;

use super::arguments::Inspect;
use super::terminal::{bytes, plain, row, table};
use super::{Failure, Outcome, json, say};
use crate::ir::Model;
use summary::{Nodes, Port, Summary};

/// Opens a model to be looked at, and says what of it can't be seen.
pub(super) fn open(path: &Path) -> Result<Model, Failure> {
    let model = Model::open(path)?;
    if let Some(fields) = model.unknown_fields() {
        tellln!("warning: {}: {fields}: not shown", path.display());
    }
    Ok(model)
}

pub(super) fn inspect(options: &Inspect) -> Outcome {
    let model = open(&options.model)?;
    let summary = Summary::of(&model, options.nodes);
    say(&if options.json { json(&summary) } else { plain(&text(&summary)).into_owned() })
}

fn text(summary: &Summary) -> String {
    let opsets: Vec<String> =
        summary.opsets.iter().map(|(domain, v)| format!("{domain} {v}")).collect();
    let mut text = format!(
        "ir version {}, opset {}{}\n{} nodes, {} weights of {}\n\n",
        summary.ir_version,
        opsets.join(", "),
        if summary.producer.is_empty() {
            String::new()
        } else {
            format!(", producer {}", summary.producer)
        },
        summary.nodes,
        summary.weights,
        bytes(summary.weight_bytes)
    );
    let mut rows = vec![row!["", "name", "type", "shape"]];
    for (kind, list) in [("input", &summary.inputs), ("output", &summary.outputs)] {
        rows.extend(list.iter().map(|p| row![kind, p.name, p.dtype, shape(p)]));
    }
    text += &table(&rows);
    let mut counted: Vec<(&String, &usize)> = summary.operators.iter().collect();
    counted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut rows = vec![row!["operator", "nodes"]];
    rows.extend(counted.into_iter().map(|(op, count)| row![op, count]));
    text += &format!("\n{}", table(&rows));
    if !summary.functions.is_empty() {
        let mut rows = vec![row!["function", "inputs", "outputs", "nodes", "weights", "size"]];
        rows.extend(summary.functions.iter().map(|f| {
            let (inputs, outputs) = (f.inputs.join(", "), f.outputs.join(", "));
            row![f.name, inputs, outputs, f.nodes, f.weights, bytes(f.weight_bytes)]
        }));
        text += &format!("\n{}", table(&rows));
    }
    // Where they all are initializers of the main graph, the first lines have said it.
    if summary.places.iter().any(|place| place.home != "graph" || place.kind != "initializer") {
        let mut rows = vec![row!["weights in", "held as", "count", "size"]];
        rows.extend(summary.places.iter().map(|h| row![h.home, h.kind, h.weights, bytes(h.bytes)]));
        text += &format!("\n{}", table(&rows));
    }
    if !summary.largest.is_empty() {
        let mut rows = vec![row!["largest weights", "type", "shape", "size", "in"]];
        rows.extend(summary.largest.iter().map(|w| {
            let home = if w.path.is_empty() { String::new() } else { w.path.join(" > ") };
            row![w.name, w.dtype, format!("{:?}", w.shape), bytes(w.bytes), home]
        }));
        // No column without an entry.
        if rows[1..].iter().all(|row| row[4].is_empty()) {
            rows.iter_mut().for_each(|row| row.truncate(4));
        }
        text += &format!("\n{}", table(&rows));
    }
    if let Some(scopes) = &summary.node_list {
        text += &format!("\n{}", nodes(scopes));
    }
    text
}

/// `[n, 2]`, or `?` where it is not known; a value that is not a tensor has none.
fn shape(port: &Port) -> String {
    match &port.shape {
        Some(shape) => format!("[{}]", shape.join(", ")),
        None if port.tensor => "?".to_owned(),
        None => String::new(),
    }
}

fn nodes(scopes: &[Nodes]) -> String {
    let mut rows = vec![row!["node", "operator", "inputs", "outputs", "attributes"]];
    for scope in scopes {
        let indent = "  ".repeat(scope.depth);
        if !scope.path.is_empty() {
            rows.push(row![format!("{indent}{}:", scope.path.join(" > "))]);
        }
        for node in &scope.nodes {
            let names = |list: &[String]| {
                let shown = list.iter().map(|name| if name.is_empty() { "\"\"" } else { name });
                shown.collect::<Vec<_>>().join(", ")
            };
            let attributes: Vec<String> =
                node.attributes.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            let inner = if scope.path.is_empty() { "" } else { "  " };
            rows.push(row![
                format!("{indent}{inner}{}", node.name),
                node.operator,
                names(&node.inputs),
                names(&node.outputs),
                shortened(&attributes.join("; "))
            ]);
        }
    }
    table(&rows)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
