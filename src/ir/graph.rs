use std::collections::{HashMap, HashSet};

use super::proto::{GraphProto, NodeProto, TensorProto};
use super::tensors::value_of;
use crate::tensor::Tensor;

/// The place of a node in its graph's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// A read-only index over a graph: who makes a value, who uses it.
pub struct Graph<'m> {
    proto: &'m GraphProto,
    makers: HashMap<&'m str, NodeId>,
    users: HashMap<&'m str, Vec<NodeId>>,
    initializers: HashMap<&'m str, &'m TensorProto>,
    inputs: HashSet<&'m str>,
    outputs: HashSet<&'m str>,
    captured: HashSet<&'m str>,
}

impl<'m> Graph<'m> {
    /// Indexes a graph, in time proportional to its nodes.
    pub fn new(proto: &'m GraphProto) -> Self {
        let mut graph = Graph {
            proto,
            makers: HashMap::with_capacity(proto.node.len()),
            users: HashMap::with_capacity(2 * proto.node.len()),
            initializers: proto.initializer.iter().map(|t| (t.name(), t)).collect(),
            inputs: proto.input.iter().map(|v| v.name()).collect(),
            outputs: proto.output.iter().map(|v| v.name()).collect(),
            captured: HashSet::new(),
        };
        for (at, node) in proto.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                graph.makers.insert(output, NodeId(at));
            }
            for input in node.input.iter().filter(|name| !name.is_empty()) {
                let users = graph.users.entry(input).or_default();
                if users.last() != Some(&NodeId(at)) {
                    users.push(NodeId(at));
                }
            }
            capture(node, &mut graph.captured);
        }
        graph
    }

    /// The protobuf message behind the index.
    pub fn proto(&self) -> &'m GraphProto {
        self.proto
    }

    /// A node by its place.
    pub fn node(&self, id: NodeId) -> &'m NodeProto {
        &self.proto.node[id.0]
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &'m NodeProto)> + use<'m> {
        self.proto.node.iter().enumerate().map(|(at, node)| (NodeId(at), node))
    }

    /// The node that makes a value; none for graph inputs and initializers.
    pub fn maker(&self, value: &str) -> Option<NodeId> {
        self.makers.get(value).copied()
    }

    /// The node that makes a value, if it is of this operator (ONNX's own domain).
    pub fn maker_of(&self, value: &str, op: &str) -> Option<(NodeId, &'m NodeProto)> {
        let id = self.maker(value)?;
        let node = self.node(id);
        node.is(op).then_some((id, node))
    }

    /// The nodes that use a value, each once, in order.
    pub fn users(&self, value: &str) -> &[NodeId] {
        self.users.get(value).map_or(&[], Vec::as_slice)
    }

    /// The only node that uses a value; none where it has several uses, leaves the graph, or is
    /// used by a nested graph.
    pub fn sole_user(&self, value: &str) -> Option<NodeId> {
        match self.users(value) {
            [only] if !self.is_pinned(value) => Some(*only),
            _ => None,
        }
    }

    /// Whether a value must keep its name: it is a graph output, or a nested graph reads it.
    pub fn is_pinned(&self, value: &str) -> bool {
        self.outputs.contains(value) || self.captured.contains(value)
    }

    /// Whether a value is an output of the graph.
    pub fn is_output(&self, value: &str) -> bool {
        self.outputs.contains(value)
    }

    /// Whether a value is an input of the graph.
    pub fn is_input(&self, value: &str) -> bool {
        self.inputs.contains(value)
    }

    /// Whether any value of the graph has this name.
    pub fn knows(&self, value: &str) -> bool {
        self.makers.contains_key(value)
            || self.initializers.contains_key(value)
            || self.inputs.contains(value)
            || self.users.contains_key(value)
    }

    /// The initializer behind a value; none where a caller may override it (it is an input too).
    pub fn initializer(&self, value: &str) -> Option<&'m TensorProto> {
        self.initializers.get(value).copied().filter(|_| !self.inputs.contains(value))
    }

    /// The constant behind a value, from an initializer.
    pub fn constant(&self, value: &str) -> Option<Tensor> {
        self.initializer(value).and_then(|tensor| value_of(tensor).ok())
    }

    /// The constant behind a value, if it is int64.
    pub fn constant_i64(&self, value: &str) -> Option<Vec<i64>> {
        self.constant(value)?.to_i64().ok()
    }

    /// The constant behind a value, if it is float: shape and values.
    pub fn constant_f32(&self, value: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let tensor = self.constant(value)?;
        Some((tensor.shape().to_vec(), tensor.to_f32().ok()?))
    }

    /// Every value is made once and before its use, and every output is made.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let mut known: HashSet<&str> = HashSet::with_capacity(self.makers.len());
        known.extend(&self.inputs);
        known.extend(self.initializers.keys());
        known.extend(
            self.proto.sparse_initializer.iter().filter_map(|s| Some(s.values.as_ref()?.name())),
        );
        if self.initializers.len() != self.proto.initializer.len() {
            return Err(("initializers".into(), "two have the same name".into()));
        }
        if self.inputs.len() != self.proto.input.len() {
            return Err(("graph inputs".into(), "two have the same name".into()));
        }
        for (at, node) in self.proto.node.iter().enumerate() {
            let place = || format!("node {at} {:?} ({})", node.name(), node.op_type());
            for input in node.input.iter().map(String::as_str).chain(captured_by(node)) {
                if !input.is_empty() && !known.contains(input) {
                    let why = match self.makers.get(input) {
                        Some(later) => format!("uses {input:?}, which node {} makes later", later.0),
                        None => format!("uses {input:?}, which nothing makes"),
                    };
                    return Err((place(), why));
                }
            }
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                if !known.insert(output) {
                    return Err((place(), format!("makes {output:?}, which exists already")));
                }
            }
        }
        match self.proto.output.iter().find(|output| !known.contains(output.name())) {
            Some(output) => {
                Err((format!("graph output {:?}", output.name()), "nothing makes it".into()))
            }
            None => Ok(()),
        }
    }
}

/// Adds the names that graphs nested in a node take from outside.
fn capture<'m>(node: &'m NodeProto, into: &mut HashSet<&'m str>) {
    for inner in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        let mut own: HashSet<&str> = inner.input.iter().map(|v| v.name()).collect();
        own.extend(inner.initializer.iter().map(|t| t.name()));
        own.extend(inner.node.iter().flat_map(|n| n.output.iter().map(String::as_str)));
        let mut wanted: HashSet<&str> = HashSet::new();
        for node in &inner.node {
            wanted.extend(node.input.iter().map(String::as_str));
            capture(node, &mut wanted);
        }
        wanted.extend(inner.output.iter().map(|v| v.name()));
        into.extend(wanted.into_iter().filter(|name| !name.is_empty() && !own.contains(name)));
    }
}

/// The names that graphs nested in a node take from outside.
pub(super) fn captured_by(node: &NodeProto) -> HashSet<&str> {
    let mut names = HashSet::new();
    capture(node, &mut names);
    names
}
