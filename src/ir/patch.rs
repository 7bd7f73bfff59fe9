use std::collections::{BTreeSet, HashMap, HashSet};

use super::build::NodeBuilder;
use super::graph::{Graph, NodeId, captured_by, inputs_hold_constants};
use super::model::Model;
use super::proto::{NodeProto, TensorProto, ValueInfoProto};

/// A change that a pass proposes: nodes out, nodes in, constants out and in, uses moved from one value to
/// another. It says what it wants; [`Model::apply`] decides whether that is safe.
#[derive(Debug, Default)]
pub struct Patch {
    pub(super) at: usize,
    pub(super) remove: Vec<NodeId>,
    pub(super) insert: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
    pub(super) release: Vec<String>,
    pub(super) redirect: Vec<(String, String)>,
    taken: HashSet<String>,
    counts: HashMap<String, usize>,
}

/// Why a patch can't be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// A value that would be removed is used elsewhere.
    #[error("the value {0:?} that it removes is used elsewhere")]
    StillUsed(String),
    /// A value that would be renamed is known by its name elsewhere.
    #[error("the value {0:?} that it renames is a graph output or read by a nested graph")]
    Pinned(String),
    /// A new name is in use.
    #[error("the name {0:?} is taken")]
    Taken(String),
    /// The graph would not be consistent afterwards.
    #[error("it leaves the graph inconsistent: {0}")]
    Inconsistent(String),
}

impl Patch {
    /// A patch whose new nodes stand where `at` stood.
    pub fn at(at: NodeId) -> Self {
        Self { at: at.0, ..Default::default() }
    }

    /// Removes a node.
    pub fn remove(mut self, id: NodeId) -> Self {
        self.remove.push(id);
        self
    }

    /// A value name that neither the graph nor this patch has: `base`, or `base_1`, `base_2`, ….
    pub fn fresh(&mut self, graph: &Graph<'_>, base: &str) -> String {
        let n = self.counts.entry(base.to_owned()).or_default();
        loop {
            let name = if *n == 0 { base.to_owned() } else { format!("{base}_{n}") };
            *n += 1;
            if !name.is_empty() && !graph.knows(&name) && self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Adds a node after those already added. Where its name is empty or taken, it gets its first output's,
    /// or that with a number: ONNX Runtime loads no graph in which two nodes share a name.
    pub fn insert(&mut self, node: NodeBuilder) {
        self.insert.push(node.build());
    }

    /// Adds a constant.
    pub fn initializer(&mut self, tensor: TensorProto) {
        self.initializers.push(tensor);
    }

    /// Removes constants that nothing uses.
    pub fn release(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.release.extend(names);
        self
    }

    /// Makes every use of `old` a use of `new`.
    pub fn redirect(mut self, old: impl Into<String>, new: impl Into<String>) -> Self {
        self.redirect.push((old.into(), new.into()));
        self
    }
}

/// A patch found safe, as the edits it comes to.
pub(crate) struct Change {
    /// Nodes `first..` up to `end` give way to `nodes`: an old one, or the next of those inserted.
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) nodes: Vec<Option<usize>>,
    pub(super) inserted: Vec<NodeProto>,
    /// Inputs of nodes that stay: node, place, new name.
    pub(super) renames: Vec<(usize, usize, String)>,
    /// The order of all nodes afterwards, where theirs must change.
    pub(super) order: Option<Vec<usize>>,
    pub(super) initializers: Vec<TensorProto>,
    /// Initializers that lose their last use.
    pub(super) released: BTreeSet<usize>,
    /// Values that are gone, and names that stood for nothing: what is noted of them is no longer true.
    pub(super) stale: HashSet<String>,
    /// Bytes of constants that come; and of constants and nodes that go.
    pub(super) added: u64,
    pub(super) freed: u64,
}

impl Change {
    /// By how many bytes the file grows.
    pub(crate) fn growth(&self) -> u64 {
        self.added.saturating_sub(self.freed)
    }
}

/// A constant of this many bytes is worth a system call to let go of what it was made from.
const LARGE: usize = 1 << 20;

impl Model {
    /// Applies a patch of the pass `author` if it is safe; otherwise the model stays as it was.
    /// New nodes carry the author's name in their metadata; constants that lose their last use go.
    ///
    /// # Errors
    /// [`Unsafe`] says what forbids it.
    pub fn apply(&mut self, patch: Patch, author: &str) -> Result<(), Unsafe> {
        let change = self.graph().plan(patch, author)?;
        self.commit(change);
        Ok(())
    }

    /// Makes a change that was planned on this very graph.
    pub(crate) fn commit(&mut self, change: Change) {
        if !change.initializers.is_empty() || !change.released.is_empty() {
            self.free_constants_of_inputs();
        }
        let graph = self.graph_proto_mut();
        for (node, input, name) in change.renames {
            graph.node[node].input[input] = name;
        }
        let mut inserted = change.inserted.into_iter();
        let slots = change.nodes.into_iter().map(|slot| match slot {
            Some(at) => std::mem::take(&mut graph.node[at]),
            None => inserted.next().expect("one for each place left open"),
        });
        let nodes: Vec<NodeProto> = slots.collect();
        graph.node.splice(change.first..change.end, nodes);
        if let Some(order) = change.order {
            graph.node = order.into_iter().map(|at| std::mem::take(&mut graph.node[at])).collect();
        }
        for at in change.released.into_iter().rev() {
            graph.initializer.remove(at);
        }
        let large = |t: &TensorProto| t.raw_data.as_ref().is_some_and(|raw| raw.len() >= LARGE);
        let replaces_weights = change.initializers.iter().any(large);
        graph.initializer.extend(change.initializers);
        graph.value_info.retain(|v| !change.stale.contains(v.name()));
        graph.quantization_annotation.retain(|a| !change.stale.contains(a.tensor_name()));
        if replaces_weights {
            self.release_pages();
        }
    }

    /// Raises a format version below 4 to 4, in which a constant need not be an input, and takes those that are
    /// off the inputs. They stay what they were: a caller could not give them before, and can't now.
    pub(crate) fn free_constants_of_inputs(&mut self) {
        if !inputs_hold_constants(self.proto()) {
            return;
        }
        let graph = self.graph();
        let stays: Vec<bool> =
            graph.proto().input.iter().map(|input| graph.is_input(input.name())).collect();
        self.proto_mut().ir_version = Some(4);
        let mut stays = stays.into_iter();
        self.graph_proto_mut().input.retain(|_| stays.next().expect("one for each input"));
    }

    /// Drops every initializer that nothing in the graph refers to, and returns how many.
    pub fn drop_unused_constants(&mut self) -> usize {
        let unused: HashSet<String> = self.graph().unused_constants().map(str::to_owned).collect();
        if !unused.is_empty() {
            self.free_constants_of_inputs();
            self.graph_proto_mut().initializer.retain(|t| !unused.contains(t.name()));
        }
        unused.len()
    }

    /// Replaces the graph's outputs, and drops every node that none of them needs.
    pub fn keep_outputs(&mut self, outputs: impl IntoIterator<Item = ValueInfoProto>) {
        let graph = self.graph_proto_mut();
        graph.output = outputs.into_iter().collect();
        let mut needed: HashSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
        let mut nodes: Vec<NodeProto> = Vec::with_capacity(graph.node.len());
        for node in std::mem::take(&mut graph.node).into_iter().rev() {
            if node.output.iter().any(|output| needed.contains(output)) {
                needed.extend(node.input.iter().cloned());
                needed.extend(captured_by(&node).into_iter().map(str::to_owned));
                nodes.push(node);
            }
        }
        nodes.reverse();
        graph.node = nodes;
        self.drop_unused_constants();
        self.forget_gone_values();
    }

    /// Drops types, shapes and quantization parameters that are noted of values which are no longer there.
    pub(crate) fn forget_gone_values(&mut self) {
        let graph = self.graph();
        let exists = |name: &str| graph.maker(name).is_some() || graph.is_given(name);
        let gone: HashSet<String> = (graph.proto().value_info.iter().map(|v| v.name()))
            .chain(graph.proto().quantization_annotation.iter().map(|a| a.tensor_name()))
            .filter(|name| !exists(name))
            .map(str::to_owned)
            .collect();
        let graph = self.graph_proto_mut();
        graph.value_info.retain(|v| !gone.contains(v.name()));
        graph.quantization_annotation.retain(|a| !gone.contains(a.tensor_name()));
    }
}
