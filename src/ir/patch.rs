use std::collections::{BTreeSet, HashMap, HashSet};

use super::build::NodeBuilder;
use super::graph::{Graph, NodeId};
use super::model::Model;
use super::proto::{NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};

/// A change that a pass proposes: nodes out, nodes in, new constants, uses moved from one value to
/// another. It says what it wants; [`Model::apply`] decides whether that is safe.
#[derive(Debug, Default)]
pub struct Patch {
    at: usize,
    remove: Vec<NodeId>,
    insert: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    redirect: Vec<(String, String)>,
    taken: HashSet<String>,
}

/// Why a patch can't be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Unsafe {
    #[error("the value {0:?} that it removes is used elsewhere")]
    StillUsed(String),
    #[error("the value {0:?} that it renames is a graph output or read by a nested graph")]
    Pinned(String),
    #[error("the name {0:?} is taken")]
    Taken(String),
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
        let mut name = base.to_owned();
        let mut n = 0;
        while graph.knows(&name) || self.taken.contains(&name) {
            n += 1;
            name = format!("{base}_{n}");
        }
        self.taken.insert(name.clone());
        name
    }

    /// Adds a node after those already added.
    pub fn insert(&mut self, node: NodeBuilder) {
        self.insert.push(node.build());
    }

    /// Adds a constant.
    pub fn initializer(&mut self, tensor: TensorProto) {
        self.initializers.push(tensor);
    }

    /// Makes every use of `old` a use of `new`.
    pub fn redirect(mut self, old: impl Into<String>, new: impl Into<String>) -> Self {
        self.redirect.push((old.into(), new.into()));
        self
    }

    /// Bytes of the constants that the patch adds.
    pub fn added_bytes(&self) -> u64 {
        self.initializers.iter().map(|t| t.raw_data.as_ref().map_or(0, |raw| raw.len() as u64)).sum()
    }
}

impl Model {
    /// Applies a patch of the pass `author` if it is safe; otherwise the model stays as it was.
    /// New nodes carry the author's name in their metadata; constants that lose their last use go.
    ///
    /// # Errors
    /// [`Unsafe`] says what forbids it.
    pub fn apply(&mut self, patch: Patch, author: &str) -> Result<(), Unsafe> {
        let removed: HashSet<usize> = patch.remove.iter().map(|id| id.0).collect();
        let redirect: HashMap<&str, &str> =
            patch.redirect.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
        {
            let graph = self.graph();
            let made: HashSet<&str> = patch
                .insert
                .iter()
                .flat_map(|n| n.output.iter().map(String::as_str))
                .chain(patch.initializers.iter().map(|t| t.name()))
                .collect();
            for &id in &patch.remove {
                for output in graph.node(id).output.iter().filter(|o| !o.is_empty()) {
                    let outlives = !made.contains(output.as_str());
                    if outlives && graph.is_pinned(output) {
                        return Err(Unsafe::Pinned(output.clone()));
                    }
                    let used = graph.users(output).iter().any(|user| !removed.contains(&user.0));
                    if outlives && used && !redirect.contains_key(output.as_str()) {
                        return Err(Unsafe::StillUsed(output.clone()));
                    }
                }
            }
            if let Some(old) = redirect.keys().find(|old| graph.is_pinned(old)) {
                return Err(Unsafe::Pinned((*old).to_owned()));
            }
            let taken = |name: &str| match graph.maker(name) {
                Some(maker) => !removed.contains(&maker.0),
                None => graph.is_input(name) || graph.initializer(name).is_some(),
            };
            if let Some(name) = made.iter().find(|name| taken(name)) {
                return Err(Unsafe::Taken((*name).to_owned()));
            }
        }
        let before = self.graph_proto().clone();
        let graph = self.graph_proto_mut();
        let mut released: Vec<String> = Vec::new();
        let mut nodes = Vec::with_capacity(graph.node.len() + patch.insert.len());
        let mut inserted: Vec<NodeProto> = patch.insert;
        for node in &mut inserted {
            node.metadata_props.push(StringStringEntryProto {
                key: Some("soprano_export.pass".to_owned()),
                value: Some(author.to_owned()),
            });
        }
        for (at, node) in graph.node.drain(..).enumerate() {
            if at == patch.at {
                nodes.append(&mut inserted);
            }
            if removed.contains(&at) {
                released.extend(node.input);
            } else {
                nodes.push(node);
            }
        }
        nodes.append(&mut inserted);
        for input in nodes.iter_mut().flat_map(|node| node.input.iter_mut()) {
            if let Some(new) = redirect.get(input.as_str()) {
                released.push(std::mem::replace(input, (*new).to_owned()));
            }
        }
        graph.node = in_order(nodes);
        graph.initializer.extend(patch.initializers);
        let stale: HashSet<&str> = redirect.keys().copied().collect();
        graph.value_info.retain(|v| !stale.contains(v.name()));
        self.release(&released);
        self.graph()
            .check()
            .map_err(|(place, why)| Unsafe::Inconsistent(format!("{place}: {why}")))
            .inspect_err(|_| {
                *self.graph_proto_mut() = before;
            })
    }

    /// Drops those of the named initializers that nothing uses any more.
    fn release(&mut self, names: &[String]) {
        let graph = self.graph();
        let unused: HashSet<String> = names
            .iter()
            .filter(|name| graph.initializer(name).is_some())
            .filter(|name| graph.users(name).is_empty() && !graph.is_pinned(name))
            .cloned()
            .collect();
        if !unused.is_empty() {
            self.graph_proto_mut().initializer.retain(|t| !unused.contains(t.name()));
        }
    }

    /// Drops every initializer and `value_info` entry that nothing in the graph refers to, and
    /// returns how many.
    pub fn drop_unused_constants(&mut self) -> usize {
        let names: Vec<String> =
            self.graph_proto().initializer.iter().map(|t| t.name().to_owned()).collect();
        let before = names.len();
        self.release(&names);
        before - self.graph_proto().initializer.len()
    }

    /// Replaces the graph's outputs, and drops every node that none of them needs.
    pub fn keep_outputs(&mut self, outputs: impl IntoIterator<Item = ValueInfoProto>) {
        let graph = self.graph_proto_mut();
        graph.output = outputs.into_iter().collect();
        let mut wanted: HashSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
        let mut kept: Vec<NodeProto> = Vec::with_capacity(graph.node.len());
        for node in std::mem::take(&mut graph.node).into_iter().rev() {
            if node.output.iter().any(|output| wanted.contains(output)) {
                wanted.extend(node.input.iter().cloned());
                wanted.extend(super::graph::captured_by(&node).into_iter().map(str::to_owned));
                kept.push(node);
            }
        }
        kept.reverse();
        graph.node = kept;
        graph.value_info.clear();
        self.drop_unused_constants();
    }

    /// Removes what a rewrite makes stale: inferred shapes of inner values, and doc strings.
    pub fn strip_annotations(&mut self) {
        let graph = self.graph_proto_mut();
        graph.value_info.clear();
        for node in &mut graph.node {
            node.doc_string = None;
        }
    }
}

/// The nodes in an order in which every value is made before its use, as close to the given one as
/// that allows. A cycle keeps its order, for the check to name.
fn in_order(mut nodes: Vec<NodeProto>) -> Vec<NodeProto> {
    let makers: HashMap<String, usize> = nodes
        .iter()
        .enumerate()
        .flat_map(|(at, node)| node.output.iter().map(move |output| (output.clone(), at)))
        .collect();
    let needs = |node: &NodeProto| -> Vec<usize> {
        let nested = super::graph::captured_by(node);
        let inputs = node.input.iter().map(String::as_str).chain(nested);
        inputs.filter(|name| !name.is_empty()).filter_map(|name| makers.get(name).copied()).collect()
    };
    let wants: Vec<Vec<usize>> = nodes.iter().map(needs).collect();
    if wants.iter().enumerate().all(|(at, wants)| wants.iter().all(|&w| w < at)) {
        return nodes;
    }
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut waiting: Vec<usize> = wants.iter().map(Vec::len).collect();
    for (at, wants) in wants.iter().enumerate() {
        wants.iter().for_each(|&w| users[w].push(at));
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|&at| waiting[at] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for &user in &users[at] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.insert(user);
            }
        }
    }
    if order.len() < nodes.len() {
        return nodes;
    }
    order.into_iter().map(|at| std::mem::take(&mut nodes[at])).collect()
}
