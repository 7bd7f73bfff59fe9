//! Rewrites of a graph as a whole: of what it takes and gives, or of every attention at once.

use std::collections::{BTreeMap, HashSet};

use crate::ir::{Graph, GraphProto, Model, Names, NodeProto, ValueInfoProto, rename_value};
use crate::names::Causal;

/// A rewrite of a whole graph, where a [`Pass`](super::Pass) looks at one node. The driver lets it edit a copy,
/// drops what has lost its use, [checks](Model::check) the result, and only then takes it: a surgery that refuses
/// leaves the model as it was.
///
/// Constants are initializers, and nodes that do nothing are gone, by the time it runs.
pub trait Surgery: Sync {
    /// Kebab-case; used in recipes, logs and the metadata of the nodes it makes.
    fn name(&self) -> &'static str;

    /// The rules, as formulas: what is matched and what stands there afterwards.
    fn rules(&self) -> &'static str;

    /// The earliest opset that has the operators it writes, in the forms in which it writes them.
    fn opset(&self, _given: &Given) -> i64 {
        7
    }

    /// Changes the graph and returns in how many places.
    ///
    /// # Errors
    /// [`Refused`] says what is missing, or has an unknown form.
    fn run(&self, model: &mut Model, given: &Given) -> Result<usize, Refused>;
}

/// What surgeries need to know besides the graph.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// What the inputs and outputs are called.
    pub names: Causal,
    /// Layers whose input becomes an output, `hidden_states.{i}`; 0 is the embedding.
    pub layers: Vec<u32>,
    /// Logits of the last position alone: a prompt's others are never read.
    pub last_logits: bool,
    /// Number and size of the heads of keys and values, where the graph does not say.
    pub heads: Option<[usize; 2]>,
}

/// Why a surgery leaves a graph as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Refused {
    /// The hidden states are not found in the graph.
    #[error("{0}")]
    #[diagnostic(
        code(passes::expose_hidden_states),
        help("a causal language model ends in a product with a constant matrix that gives its logits")
    )]
    HiddenStates(String),
    /// The graph has fewer layers.
    #[error("layer {layer} is not there: the graph has {layers}")]
    #[diagnostic(code(passes::layer), help("layers are counted from 0, whose input is the embedding"))]
    Layer { layer: u32, layers: usize },
    /// An attention has a form that is not known.
    #[error("{}{why}", at.as_ref().map(|at| format!("node {at:?}: ")).unwrap_or_default())]
    #[diagnostic(
        code(passes::attention),
        help(
            "softmax(Q K^T * scale + mask) V is understood, with one head or group of heads an axis; `soprano-export pass explain NAME` has a surgery's own conditions"
        )
    )]
    Attention { at: Option<String>, why: String },
    /// The graph has a cache, where one would be added.
    #[error("the graph has a cache already")]
    #[diagnostic(
        code(passes::cached),
        help(
            "it needs no other: canonical-mask and group-query-heads are for a graph exported with its cache"
        )
    )]
    Cached,
    /// The graph lacks an input or output that the surgery needs, or it is of another form.
    #[error("{why}")]
    #[diagnostic(
        code(passes::port),
        help(
            "`soprano-export inspect` lists what it has; --name {role}=NAME says what it is called there"
        )
    )]
    Port { role: &'static str, why: String },
    /// The number or size of an attention's heads is unknown.
    #[error("node {at:?}: {why}")]
    #[diagnostic(
        code(passes::heads),
        help("a config has them as num_key_value_heads and head_dim: --kv-heads N --head-size N")
    )]
    Heads { at: String, why: String },
    /// The model's operator set lacks what the surgery writes.
    #[error("it needs opset {needs}, and the model has {has}")]
    #[diagnostic(
        code(passes::opset),
        help(
            "export the model at opset {needs} or later, or convert it: onnx.version_converter.convert_version"
        )
    )]
    Opset { needs: i64, has: i64 },
    /// The model describes its training too.
    #[error("the model describes its training too, which would no longer fit the graph")]
    #[diagnostic(code(passes::training), help("export it for inference alone"))]
    Training,
}

impl Refused {
    /// The attention of this softmax is of another form.
    pub(super) fn attention(softmax: &NodeProto, why: impl Into<String>) -> Self {
        Refused::Attention { at: Some(softmax.called().to_owned()), why: why.into() }
    }
}

/// The port of a role: ids or mask i64 [batch, length], or logits [batch, length, vocabulary], as far as the graph
/// says; where it must be, with an open length.
pub(super) fn port<'g>(
    graph: &Graph<'g>,
    role: &'static str,
    name: &str,
    is_open: bool,
) -> Result<&'g ValueInfoProto, Refused> {
    let (kind, is_there, types, rank) = match role {
        "logits" => ("output", graph.is_output(name), ["f32", "f16"], 3),
        _ => ("input", graph.is_input(name), ["i64"; 2], 2),
    };
    let refuse = |why| Err(Refused::Port { role, why });
    let Some(port) = graph.noted(name).filter(|_| is_there) else {
        return refuse(format!("the graph has no {kind} {name:?}"));
    };
    let (is, axes) = (port.type_name(), port.shape().map_or(rank, |shape| shape.len()));
    let fits = is == "?" || types.contains(&is.as_str()) && axes == rank;
    match fixed(port, 1).filter(|_| is_open) {
        _ if !fits => refuse(format!(
            "the {kind} {name:?} is {is} with {axes} axes, and {role} is {} with {rank}",
            types[0]
        )),
        Some(length) => refuse(format!(
            "the {kind} {name:?} is fixed at {length} positions: export it with an open axis (dynamic_axes)"
        )),
        None => Ok(port),
    }
}

/// The number at which an axis of a port is fixed.
pub(super) fn fixed(port: &ValueInfoProto, axis: usize) -> Option<String> {
    port.dims().get(axis).filter(|dim| dim.parse::<u64>().is_ok()).cloned()
}

/// Frees a name that the interface needs: the inner value that has it gets another, which is returned.
pub(super) fn free(graph: &mut GraphProto, names: &mut Names, name: &str) -> Option<String> {
    let other = names.knows(name).then(|| names.value(name))?;
    rename_value(graph, name, &other);
    Some(other)
}

/// Puts nodes before those at the given places, and drops those that are `gone`.
pub(super) fn splice(
    graph: &mut GraphProto,
    mut nodes: BTreeMap<usize, Vec<NodeProto>>,
    gone: &HashSet<usize>,
) {
    for (at, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        graph.node.extend(nodes.remove(&at).unwrap_or_default());
        graph.node.extend((!gone.contains(&at)).then_some(node));
    }
}
