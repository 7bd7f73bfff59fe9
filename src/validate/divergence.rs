use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::audio;
use crate::ir::{Graph, Model, NodeProto, ValueInfoProto};
use crate::runtime::{Runtime, Tensors};
use crate::tensor::TensorFile;

/// Where an artifact first leaves what PyTorch, or the graph before its rewrite, computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The first node whose value is wrong, or that can't be excluded. A node without a name goes by its
    /// first output's.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The pass that made the node, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
    /// The value that was compared, if the node itself was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Largest difference over the peak at that value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_abs_of_peak: Option<f64>,
    /// The last node whose value still agrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_agreeing: Option<String>,
}

impl Divergence {
    /// At a node, after the last that agrees; no value is named yet.
    pub(super) fn at(graph: &Graph<'_>, at: usize, last: Option<usize>) -> Self {
        // A graph may have no nodes, and pass an input through.
        let none = NodeProto::default();
        let node = graph.proto().node.get(at).unwrap_or(&none);
        Self {
            node: node.called().to_owned(),
            op: node.qualified_op(),
            pass: node.author().map(str::to_owned),
            value: None,
            max_abs_of_peak: None,
            last_agreeing: last.map(|at| graph.proto().node[at].called().to_owned()),
        }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:?} ({})", self.node, self.op)?;
        if let Some(pass) = &self.pass {
            write!(f, ", made by {pass}")?;
        }
        if let (Some(value), Some(error)) = (&self.value, self.max_abs_of_peak) {
            write!(f, ": its value {value:?} is off by {error:.1e} of the peak")?;
        }
        if let Some(last) = &self.last_agreeing {
            write!(f, "; up to {last:?} the values agree")?;
        }
        Ok(())
    }
}

/// A larger difference than this share of the peak is a fault: rounding stays three orders of magnitude below.
const DIFFERS: f64 = 1e-3;

/// Where the fault lies: in the export, if the exported graph's own values differ from PyTorch's
/// (`probes`: values by their ONNX names, with the input they belong to); else in the rewrite, if a
/// value that `model` shares with the graph before it differs where both are given `inputs`, those of a
/// case that failed; else after the last that agrees.
///
/// # Errors
/// [`Error`] where a runtime can't run the parts.
pub fn first_divergence(
    model: &Model,
    exported: &Model,
    probes: &TensorFile,
    inputs: &Tensors,
    runtime: &dyn Runtime,
) -> Result<Option<Divergence>, Error> {
    let probed: Tensors = model
        .graph_proto()
        .input
        .iter()
        .filter_map(|input| Some((input.name().to_owned(), probes.tensors.get(input.name())?.clone())))
        .collect();
    let recorded: HashSet<String> = probes.tensors.keys().cloned().collect();
    let names = runnable_among(exported, &recorded);
    let exported_values = values(exported, &names, &probed, runtime)?;
    if let (Some(divergence), _) = compare(exported, &probes.tensors, &exported_values) {
        return Ok(Some(divergence));
    }
    let names = runnable_among(exported, &inner_values(model).collect());
    let expected = values(exported, &names, inputs, runtime)?;
    let names = runnable_among(model, &expected.keys().cloned().collect());
    let rewritten_values = values(model, &names, inputs, runtime)?;
    let (divergence, last) = compare(model, &expected, &rewritten_values);
    // Everything that can be compared agrees: the fault lies after the last of it.
    let next = last.map_or(0, |at| at + 1);
    let graph = model.graph();
    let after_last = || (next < graph.proto().node.len()).then(|| Divergence::at(&graph, next, last));
    Ok(divergence.or_else(after_last))
}

/// The first node whose value is not the expected one, and the last before it whose value is.
fn compare(model: &Model, expected: &Tensors, actual: &Tensors) -> (Option<Divergence>, Option<usize>) {
    let graph = model.graph();
    let mut last = None;
    for (id, node) in graph.nodes() {
        for name in &node.output {
            let (Some(want), Some(got)) = (expected.get(name), actual.get(name)) else { continue };
            let (Ok(want_values), Ok(got_values)) = (want.to_f32(), got.to_f32()) else { continue };
            let Ok(difference) = audio::max_abs_difference(&want_values, &got_values) else { continue };
            if want.shape() != got.shape() {
                continue;
            }
            let error = difference / audio::peak(&want_values).max(f64::MIN_POSITIVE);
            if error.is_nan() || error > DIFFERS {
                let mut divergence = Divergence::at(&graph, id.0, last);
                divergence.value = Some(name.clone());
                divergence.max_abs_of_peak = Some(error);
                return (Some(divergence), last);
            }
            last = Some(id.0);
        }
    }
    (None, last)
}

/// Every value that a node makes, in the graph's order.
pub(super) fn inner_values(model: &Model) -> impl Iterator<Item = String> {
    let nodes = model.graph_proto().node.iter();
    nodes.flat_map(|node| node.output.iter().filter(|name| !name.is_empty()).cloned())
}

/// The model with the named values as its outputs.
pub(super) fn showing(model: &Model, names: &[String]) -> Model {
    let mut part = model.clone();
    let value = |name: &String| ValueInfoProto { name: Some(name.clone()), ..Default::default() };
    part.keep_outputs(names.iter().map(value));
    part
}

/// Those of the named values that the model makes before any operator of a foreign domain.
fn runnable_among(model: &Model, names: &HashSet<String>) -> Vec<String> {
    let runnable = runnable(model);
    let mut among: Vec<String> = inner_values(model)
        .filter(|name| names.contains(name) && runnable.contains(name.as_str()))
        .collect();
    among.sort();
    among
}

/// Values that depend on ONNX's own operators alone.
fn runnable(model: &Model) -> HashSet<&str> {
    let graph = model.graph_proto();
    let mut known: HashSet<&str> = graph.input.iter().map(|v| v.name()).collect();
    known.extend(graph.initializer.iter().map(|t| t.name()));
    for node in &graph.node {
        let fed = node.input.iter().all(|input| input.is_empty() || known.contains(input.as_str()));
        if fed && node.is(node.op_type()) {
            known.extend(node.output.iter().map(String::as_str));
        }
    }
    known
}

/// Runs a model with the named values as its outputs.
fn values(
    model: &Model,
    names: &[String],
    inputs: &Tensors,
    runtime: &dyn Runtime,
) -> Result<Tensors, Error> {
    if names.is_empty() {
        return Ok(Tensors::new());
    }
    Ok(runtime.load_bytes(&showing(model, names).to_bytes())?.run(inputs)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{TestGraph, initializer_f32, node};
    use crate::runtime::Tract;
    use crate::tensor::Tensor;

    /// y = w + f(w·x), f by a node of its own.
    fn chain(f: &str) -> Model {
        TestGraph::new()
            .input("x", &["n", "2"])
            .initializer(initializer_f32("w", &[2], &[2.0, 3.0]))
            .node(node("Mul", ["x", "w"], "a").named("scale"))
            .node(node(f, ["a"], "b").named("rectify"))
            .node(node("Add", ["b", "w"], "y").named("shift"))
            .output("y", &["n", "2"])
            .model()
    }

    fn given(values: [f32; 2]) -> Tensors {
        [("x".to_owned(), Tensor::from_f32(&[1, 2], &values))].into()
    }

    #[test]
    fn a_graph_without_nodes_has_a_place_too() {
        let model = TestGraph::new().input("x", &["n"]).output("x", &["n"]).model();
        let place = Divergence::at(&model.graph(), 0, None);
        assert_eq!((place.node.as_str(), place.op.as_str()), ("", ""));
    }

    #[test]
    fn a_fault_is_looked_for_on_the_inputs_that_show_it() {
        let exported = chain("Relu");
        let model = chain("Identity");
        let mut probes = TensorFile::default();
        probes.tensors.extend(given([1.0, 2.0]));
        let a = Tensor::from_f32(&[1, 2], &[2.0, 6.0]);
        probes.tensors.insert("a".to_owned(), a);
        let find = |inputs: [f32; 2]| {
            let found = first_divergence(&model, &exported, &probes, &given(inputs), &Tract);
            found.unwrap().map(|divergence| (divergence.node, divergence.value))
        };
        assert_eq!(find([1.0, -2.0]), Some(("rectify".to_owned(), Some("b".to_owned()))));
        // Where all agree, nothing before the last of it is blamed.
        assert_eq!(find([1.0, 2.0]), None);
        // An export that is wrong comes first, on PyTorch's own inputs.
        let wrong = Tensor::from_f32(&[1, 2], &[2.0, 6.1]);
        probes.tensors.insert("a".to_owned(), wrong);
        let found = first_divergence(&model, &exported, &probes, &given([1.0, -2.0]), &Tract).unwrap();
        assert_eq!(found.unwrap().node, "scale");
    }
}
