use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::arguments::{Diff, Inspect, Shared};
use super::terminal::{bytes, row, table};
use super::{Answer, Failure, Outcome, json, say};
use crate::ir::{Model, TensorProto, ValueInfoProto, dtype_name};

#[derive(Serialize)]
struct Port {
    name: String,
    dtype: String,
    shape: Vec<String>,
}

impl Port {
    fn list(values: &[ValueInfoProto]) -> Vec<Self> {
        let port = |v: &ValueInfoProto| Port {
            name: v.name().to_owned(),
            dtype: v.dtype_name(),
            shape: v.dims(),
        };
        values.iter().map(port).collect()
    }
}

#[derive(Serialize)]
struct Weight {
    name: String,
    dtype: String,
    shape: Vec<i64>,
    bytes: u64,
}

#[derive(Serialize)]
struct Summary {
    ir_version: i64,
    producer: String,
    opsets: BTreeMap<String, i64>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    nodes: usize,
    operators: BTreeMap<String, usize>,
    weights: usize,
    weight_bytes: u64,
    largest: Vec<Weight>,
}

fn summary(model: &Model) -> Summary {
    let (proto, graph) = (model.proto(), model.graph_proto());
    let mut operators = BTreeMap::new();
    for node in &graph.node {
        *operators.entry(node.qualified_op()).or_default() += 1;
    }
    let mut largest: Vec<Weight> = graph.initializer.iter().map(weight).collect();
    largest.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.name.cmp(&b.name)));
    largest.truncate(8);
    let domain = |name: &str| if name.is_empty() { "ai.onnx".to_owned() } else { name.to_owned() };
    Summary {
        ir_version: proto.ir_version(),
        producer: format!("{} {}", proto.producer_name(), proto.producer_version()).trim().to_owned(),
        opsets: proto.opset_import.iter().map(|set| (domain(set.domain()), set.version())).collect(),
        inputs: Port::list(&graph.input),
        outputs: Port::list(&graph.output),
        nodes: graph.node.len(),
        operators,
        weights: graph.initializer.len(),
        weight_bytes: model.weight_bytes(),
        largest,
    }
}

fn weight(tensor: &TensorProto) -> Weight {
    Weight {
        name: tensor.name().to_owned(),
        dtype: dtype_name(tensor.data_type()),
        shape: tensor.dims.clone(),
        bytes: tensor.raw_data.as_ref().map_or(0, |raw| raw.len() as u64),
    }
}

/// Opens a model to be looked at, and says what of it can't be seen.
fn open(path: &Path) -> Result<Model, Failure> {
    let model = Model::open(path)?;
    if let Some(fields) = model.unknown_fields() {
        tellln!("warning: {}: {fields}: not shown", path.display());
    }
    Ok(model)
}

pub(super) fn inspect(options: &Inspect) -> Outcome {
    let model = open(&options.model)?;
    let summary = summary(&model);
    if options.json {
        return say(&json(&summary));
    }
    let opsets: Vec<String> =
        summary.opsets.iter().map(|(domain, v)| format!("{domain} {v}")).collect();
    let mut text = format!(
        "ir version {}, opset {}, producer {}\n{} nodes, {} weights of {}\n\n",
        summary.ir_version,
        opsets.join(", "),
        summary.producer,
        summary.nodes,
        summary.weights,
        bytes(summary.weight_bytes)
    );
    let mut ports = vec![row!["", "name", "type", "shape"]];
    for (kind, list) in [("input", &summary.inputs), ("output", &summary.outputs)] {
        ports.extend(
            list.iter().map(|p| row![kind, p.name, p.dtype, format!("[{}]", p.shape.join(", "))]),
        );
    }
    text += &table(&ports);
    let mut counted: Vec<(&String, &usize)> = summary.operators.iter().collect();
    counted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut rows = vec![row!["operator", "nodes"]];
    rows.extend(counted.into_iter().map(|(op, count)| row![op, count]));
    text += &format!("\n{}\n", table(&rows));
    let mut rows = vec![row!["largest weights", "type", "shape", "size"]];
    rows.extend(
        summary.largest.iter().map(|w| row![w.name, w.dtype, format!("{:?}", w.shape), bytes(w.bytes)]),
    );
    say(&(text + &table(&rows)))
}

/// How two models differ.
#[derive(Default, Serialize)]
struct Differences {
    versions: Vec<String>,
    ports: Vec<String>,
    operators: BTreeMap<String, (usize, usize)>,
    nodes_removed: Vec<String>,
    nodes_added: Vec<String>,
    nodes_changed: Vec<String>,
    weights_removed: Vec<String>,
    weights_added: Vec<String>,
    weights_changed: Vec<String>,
}

impl Differences {
    fn between(old: &Model, new: &Model) -> Self {
        let (before, after) = (summary(old), summary(new));
        let mut found = Self::default();
        if before.ir_version != after.ir_version {
            found.versions.push(format!("ir version {} -> {}", before.ir_version, after.ir_version));
        }
        let domains: BTreeSet<&String> = before.opsets.keys().chain(after.opsets.keys()).collect();
        let version = |v: Option<&i64>| v.map_or("none".to_owned(), i64::to_string);
        for domain in domains {
            let (a, b) = (before.opsets.get(domain), after.opsets.get(domain));
            if a != b {
                found.versions.push(format!("opset {domain} {} -> {}", version(a), version(b)));
            }
        }
        let lists =
            [("input", &before.inputs, &after.inputs), ("output", &before.outputs, &after.outputs)];
        for (kind, a, b) in lists {
            let text = |list: &[Port]| {
                let port = |p: &Port| format!("{} {} [{}]", p.name, p.dtype, p.shape.join(", "));
                list.iter().map(port).collect::<Vec<_>>()
            };
            let (a, b) = (text(a), text(b));
            if a != b {
                found.ports.push(format!("{kind}s ({}) -> ({})", a.join("; "), b.join("; ")));
            }
        }
        let operators: BTreeSet<&String> =
            before.operators.keys().chain(after.operators.keys()).collect();
        for op in operators {
            let count = |of: &Summary| of.operators.get(op).copied().unwrap_or(0);
            if count(&before) != count(&after) {
                found.operators.insert(op.clone(), (count(&before), count(&after)));
            }
        }
        found.nodes(old, new);
        found.weights(old, new);
        found
    }

    /// Nodes are told apart by their first output, which is unique.
    fn nodes(&mut self, old: &Model, new: &Model) {
        let index = |model: &Model| {
            let nodes = model.graph_proto().node.iter();
            nodes
                .filter_map(|n| Some((n.output.first()?.clone(), n.clone())))
                .collect::<BTreeMap<_, _>>()
        };
        let (a, b) = (index(old), index(new));
        let shown = |n: &crate::ir::NodeProto| format!("{} ({})", n.name(), n.qualified_op());
        self.nodes_removed =
            a.iter().filter(|(k, _)| !b.contains_key(*k)).map(|(_, n)| shown(n)).collect();
        self.nodes_added =
            b.iter().filter(|(k, _)| !a.contains_key(*k)).map(|(_, n)| shown(n)).collect();
        let changed = a.iter().filter_map(|(k, n)| {
            let other = b.get(k)?;
            let same =
                n.op_type == other.op_type && n.input == other.input && n.attribute == other.attribute;
            (!same).then(|| shown(other))
        });
        self.nodes_changed = changed.collect();
    }

    fn weights(&mut self, old: &Model, new: &Model) {
        let index = |model: &Model| {
            let weights = model.graph_proto().initializer.iter();
            weights.map(|t| (t.name().to_owned(), t.clone())).collect::<BTreeMap<_, _>>()
        };
        let (a, b) = (index(old), index(new));
        let shown =
            |t: &TensorProto| format!("{} {} {:?}", t.name(), dtype_name(t.data_type()), t.dims);
        self.weights_removed =
            a.iter().filter(|(k, _)| !b.contains_key(*k)).map(|(_, t)| shown(t)).collect();
        self.weights_added =
            b.iter().filter(|(k, _)| !a.contains_key(*k)).map(|(_, t)| shown(t)).collect();
        let changed =
            a.iter().filter_map(|(k, t)| Some((t, b.get(k)?))).filter(|(t, other)| t != other);
        self.weights_changed =
            changed.map(|(t, other)| format!("{} -> {}", shown(t), shown(other))).collect();
    }

    fn is_empty(&self) -> bool {
        self.operators.is_empty() && self.lists().iter().all(|(_, list)| list.is_empty())
    }

    fn lists(&self) -> [(&'static str, &Vec<String>); 8] {
        [
            ("version", &self.versions),
            ("ports", &self.ports),
            ("node -", &self.nodes_removed),
            ("node +", &self.nodes_added),
            ("node ~", &self.nodes_changed),
            ("weight -", &self.weights_removed),
            ("weight +", &self.weights_added),
            ("weight ~", &self.weights_changed),
        ]
    }
}

pub(super) fn diff(options: &Diff, shared: &Shared) -> Outcome {
    let new = match &options.new {
        Some(new) if options.run.is_empty() => new,
        _ => return super::disagreement::run(options, shared),
    };
    let (old, new) = (open(&options.old)?, open(new)?);
    let found = Differences::between(&old, &new);
    let answer = if found.is_empty() { Answer::Yes } else { Answer::No };
    if options.json {
        say(&json(&found))?;
        return Ok(answer);
    }
    let mut text = String::new();
    for (op, (a, b)) in &found.operators {
        text += &format!("operator {op} {a} -> {b}\n");
    }
    for (what, list) in found.lists() {
        text.extend(list.iter().map(|item| format!("{what} {item}\n")));
    }
    say(&text)?;
    tellln!("{}", if found.is_empty() { "the models are equal" } else { "the models differ" });
    Ok(answer)
}
