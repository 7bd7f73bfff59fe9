use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::audio;
use crate::ir::{Graph, Model, ValueInfoProto};
use crate::runtime::{Runtime, Tensors};
use crate::tensor::TensorFile;

/// Where an artifact first leaves what PyTorch, or the graph before its rewrite, computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The first node whose value is wrong, or that can't be excluded.
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

/// An inner value that differs by more than this share of its peak is where the fault lies: rounding
/// stays three orders of magnitude below.
const DIFFERS: f64 = 1e-3;

/// The first node of `model` whose value differs from PyTorch's (`probes`: values by their ONNX names,
/// with the input they belong to), made finer by the values that `exported`, the graph before its
/// rewrite, shares with it. If all of these agree, it is the first node after the last of them.
///
/// # Errors
/// [`Error`] where a runtime can't run the parts.
pub fn first_divergence(
    model: &Model,
    exported: &Model,
    probes: &TensorFile,
    runtime: &dyn Runtime,
) -> Result<Option<Divergence>, Error> {
    let inputs: Tensors = model
        .graph_proto()
        .input
        .iter()
        .filter_map(|input| Some((input.name().to_owned(), probes.tensors.get(input.name())?.clone())))
        .collect();
    let known: Vec<&str> = probes.tensors.keys().map(String::as_str).collect();
    let mut expected = values(exported, &shared(exported, exported, None), &inputs, runtime)?;
    // PyTorch's own word goes before that of the exported graph.
    for name in known {
        if let Some(tensor) = probes.tensors.get(name).filter(|_| !inputs.contains_key(name)) {
            expected.insert(name.to_owned(), tensor.clone());
        }
    }
    let names = shared(model, exported, Some(&expected));
    let found = values(model, &names, &inputs, runtime)?;
    let graph = model.graph();
    let mut last = None;
    for (id, node) in graph.nodes() {
        let Some(name) = node.output.iter().find(|output| names.contains(output)) else { continue };
        let (Some(want), Some(got)) = (expected.get(name), found.get(name)) else { continue };
        let (Ok(want_values), Ok(got_values)) = (want.to_f32(), got.to_f32()) else { continue };
        if want.shape() != got.shape() {
            continue;
        }
        let peak = audio::peak(&want_values).max(f64::MIN_POSITIVE);
        let Ok(difference) = audio::max_abs_difference(&want_values, &got_values) else { continue };
        let error = difference / peak;
        if error.is_nan() || error > DIFFERS {
            let mut divergence = describe(&graph, id.0, last);
            divergence.value = Some(name.clone());
            divergence.max_abs_of_peak = Some(error);
            return Ok(Some(divergence));
        }
        last = Some(id.0);
    }
    // Everything that can be compared agrees: the fault lies behind the last of it.
    let next = last.map_or(0, |at| at + 1);
    Ok((next < graph.proto().node.len()).then(|| describe(&graph, next, last)))
}

fn describe(graph: &Graph<'_>, at: usize, last: Option<usize>) -> Divergence {
    let node = &graph.proto().node[at];
    let pass = node.metadata_props.iter().find(|p| p.key() == "soprano_export.pass");
    Divergence {
        node: node.name().to_owned(),
        op: node.qualified_op(),
        pass: pass.map(|p| p.value().to_owned()),
        value: None,
        max_abs_of_peak: None,
        last_agreeing: last.map(|at| graph.proto().node[at].name().to_owned()),
    }
}

/// Names of values that both graphs make, before any operator of a foreign domain.
fn shared(model: &Model, other: &Model, among: Option<&Tensors>) -> Vec<String> {
    let made = |model: &Model| -> HashSet<String> {
        let nodes = model.graph_proto().node.iter();
        nodes.flat_map(|node| node.output.iter().filter(|o| !o.is_empty()).cloned()).collect()
    };
    let others = made(other);
    let runnable = runnable(model);
    model
        .graph_proto()
        .node
        .iter()
        .flat_map(|node| node.output.iter())
        .filter(|name| !name.is_empty() && runnable.contains(name.as_str()))
        .filter(|name| match among {
            Some(values) => values.contains_key(*name),
            None => others.contains(*name),
        })
        .cloned()
        .collect()
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
    let mut part = model.clone();
    part.keep_outputs(
        names.iter().map(|name| ValueInfoProto { name: Some(name.clone()), ..Default::default() }),
    );
    let session = runtime.load_bytes(&part.to_bytes())?;
    Ok(session.run(inputs)?)
}
