use std::collections::{BTreeSet, HashMap, HashSet};

use super::build::{NodeBuilder, sign};
use super::graph::{Graph, NodeId, captured_by, inputs_hold_constants};
use super::model::Model;
use super::names::unused;
use super::proto::{NodeProto, TensorProto, ValueInfoProto};
use super::tensors::{bytes_of, check_data};

/// A change that a pass proposes: nodes out, nodes in, constants out and in, uses moved from one value to
/// another. It says what it wants; [`Model::apply`] decides whether that is safe.
#[derive(Debug, Default)]
pub struct Patch {
    at: usize,
    remove: Vec<NodeId>,
    insert: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    release: Vec<String>,
    redirect: Vec<(String, String)>,
    taken: HashSet<String>,
    counts: HashMap<String, usize>,
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
    first: usize,
    end: usize,
    nodes: Vec<Option<usize>>,
    inserted: Vec<NodeProto>,
    /// Inputs of nodes that stay: node, place, new name.
    renames: Vec<(usize, usize, String)>,
    /// The order of all nodes afterwards, where theirs must change.
    order: Option<Vec<usize>>,
    initializers: Vec<TensorProto>,
    /// Initializers that lose their last use.
    released: BTreeSet<usize>,
    /// Values that are gone, and names that stood for nothing: what is noted of them is no longer true.
    stale: HashSet<String>,
    /// Bytes of constants that come and go.
    added: u64,
    freed: u64,
}

impl Change {
    /// By how many bytes the constants grow.
    pub(crate) fn growth(&self) -> u64 {
        self.added.saturating_sub(self.freed)
    }
}

impl Graph<'_> {
    /// Decides whether a patch of the pass `author` is safe, touching nothing.
    pub(crate) fn plan(&self, patch: Patch, author: &str) -> Result<Change, Unsafe> {
        let count = self.proto().node.len();
        let removed: BTreeSet<usize> = patch.remove.iter().map(|id| id.0).collect();
        if let Some(at) = removed.last().filter(|&&at| at >= count) {
            return Err(Unsafe::Inconsistent(format!("it removes node {at} of {count}")));
        }
        let redirect: HashMap<&str, &str> =
            patch.redirect.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
        if redirect.iter().any(|(old, new)| old.is_empty() || new.is_empty()) {
            return Err(Unsafe::Inconsistent("it renames a value without a name".to_owned()));
        }
        let at = patch.at.min(count);
        let mut inserted = patch.insert;
        for node in &mut inserted {
            for input in &mut node.input {
                if let Some(new) = redirect.get(input.as_str()) {
                    *input = (*new).to_owned();
                }
            }
            sign(node, author);
        }

        let plan =
            Plan { graph: self, at, removed: &removed, made: made(&inserted, &patch.initializers)? };
        plan.check_names(&redirect)?;
        plan.check_uses(&inserted)?;
        for tensor in
            inserted.iter().flat_map(|n| &n.attribute).flat_map(|a| a.t.iter().chain(&a.tensors))
        {
            check_data(tensor).map_err(Unsafe::Inconsistent)?;
        }
        for tensor in &patch.initializers {
            check_data(tensor).map_err(|why| {
                Unsafe::Inconsistent(format!("initializer {:?}: {why}", tensor.name()))
            })?;
        }
        let renames = plan.renames(&redirect)?;
        let order = if plan.keeps_order(&inserted, &renames) {
            None
        } else {
            Some(plan.order(&inserted, &redirect)?)
        };
        let mut released = plan.released(&inserted, &redirect, &renames);
        for name in &patch.release {
            released.insert(plan.unused_constant(name, &inserted, &renames)?);
        }
        let stale = plan.stale(&redirect);
        let gone = removed.iter().flat_map(|&at| &self.node(NodeId(at)).attribute);
        let freed = released.iter().map(|&at| &self.proto().initializer[at]);
        let freed = freed.chain(gone.flat_map(|a| a.t.iter().chain(&a.tensors))).map(bytes_of).sum();
        let added = patch.initializers.iter().map(bytes_of).sum();
        self.name_nodes(&mut inserted, &removed);

        let first = removed.first().map_or(at, |&first| first.min(at));
        let end = removed.last().map_or(at, |&last| (last + 1).max(at));
        let kept = |range: std::ops::Range<usize>| {
            range.filter(|at| !removed.contains(at)).map(Some).collect::<Vec<_>>()
        };
        let mut nodes = kept(first..at);
        nodes.extend(inserted.iter().map(|_| None));
        nodes.extend(kept(at..end));
        Ok(Change {
            first,
            end,
            nodes,
            inserted,
            renames,
            order,
            initializers: patch.initializers,
            released,
            stale,
            added,
            freed,
        })
    }

    /// Gives every new node a name of its own.
    fn name_nodes(&self, inserted: &mut [NodeProto], removed: &BTreeSet<usize>) {
        if inserted.is_empty() {
            return;
        }
        let kept = self.nodes().filter(|(id, _)| !removed.contains(&id.0));
        let mut taken: HashSet<String> = kept.map(|(_, node)| node.name().to_owned()).collect();
        for node in inserted {
            let own = Some(node.name()).filter(|name| !name.is_empty() && !taken.contains(*name));
            let output = node.output.iter().find(|output| !output.is_empty());
            let base = own.or(output.map(String::as_str)).unwrap_or(node.op_type());
            let name = unused(base, |name| taken.contains(name));
            taken.insert(name.clone());
            node.name = Some(name);
        }
    }
}

/// Where each new value comes from: an inserted node, or a constant.
fn made<'p>(
    inserted: &'p [NodeProto],
    initializers: &'p [TensorProto],
) -> Result<HashMap<&'p str, Option<usize>>, Unsafe> {
    let outputs = inserted.iter().enumerate().flat_map(|(k, node)| {
        node.output.iter().filter(|name| !name.is_empty()).map(move |name| (name.as_str(), Some(k)))
    });
    let mut made = HashMap::new();
    for (name, maker) in outputs.chain(initializers.iter().map(|t| (t.name(), None))) {
        if name.is_empty() || made.insert(name, maker).is_some() {
            return Err(Unsafe::Taken(name.to_owned()));
        }
    }
    Ok(made)
}

/// Order of nodes before and after: old nodes by their place, inserted ones before the node at `at`.
type Position = (usize, usize);

fn old(at: usize) -> Position {
    (at, usize::MAX)
}

struct Plan<'a, 'm> {
    graph: &'a Graph<'m>,
    at: usize,
    removed: &'a BTreeSet<usize>,
    made: HashMap<&'a str, Option<usize>>,
}

impl Plan<'_, '_> {
    fn kept_maker(&self, name: &str) -> Option<usize> {
        self.graph.maker(name).map(|id| id.0).filter(|at| !self.removed.contains(at))
    }

    fn exists(&self, name: &str) -> bool {
        self.made.contains_key(name) || self.graph.is_given(name) || self.kept_maker(name).is_some()
    }

    /// When a value is there: at once, or after a node.
    fn position(&self, name: &str) -> Option<Position> {
        match self.made.get(name) {
            Some(maker) => maker.map(|k| (self.at, k)),
            None => self.kept_maker(name).map(old),
        }
    }

    fn kept_users(&self, name: &str) -> impl Iterator<Item = usize> {
        self.graph.users(name).iter().map(|id| id.0).filter(|at| !self.removed.contains(at))
    }

    fn check_names(&self, redirect: &HashMap<&str, &str>) -> Result<(), Unsafe> {
        for &at in self.removed {
            let outputs = self.graph.node(NodeId(at)).output.iter();
            for output in outputs.filter(|o| !o.is_empty() && !self.made.contains_key(o.as_str())) {
                if self.graph.is_pinned(output) {
                    return Err(Unsafe::Pinned(output.clone()));
                }
                if !redirect.contains_key(output.as_str()) && self.kept_users(output).next().is_some() {
                    return Err(Unsafe::StillUsed(output.clone()));
                }
            }
        }
        if let Some(old) = redirect.keys().filter(|old| self.graph.is_pinned(old)).min() {
            return Err(Unsafe::Pinned((*old).to_owned()));
        }
        let taken = |name: &&&str| {
            self.graph.is_given(name)
                || self.kept_maker(name).is_some()
                || self.graph.is_nested(name) && self.graph.maker(name).is_none()
        };
        match self.made.keys().filter(taken).min() {
            Some(name) => Err(Unsafe::Taken((*name).to_owned())),
            None => Ok(()),
        }
    }

    fn check_uses(&self, inserted: &[NodeProto]) -> Result<(), Unsafe> {
        for node in inserted {
            let mut names = node
                .input
                .iter()
                .map(String::as_str)
                .chain(captured_by(node))
                .filter(|n| !n.is_empty());
            if let Some(name) = names.find(|name| !self.exists(name)) {
                return Err(Unsafe::Inconsistent(format!(
                    "node {:?} ({}): uses {name:?}, which nothing makes",
                    node.name(),
                    node.op_type()
                )));
            }
        }
        Ok(())
    }

    fn renames(&self, redirect: &HashMap<&str, &str>) -> Result<Vec<(usize, usize, String)>, Unsafe> {
        let mut renames = Vec::new();
        for (&old, &new) in redirect {
            for user in self.kept_users(old) {
                if !self.exists(new) {
                    return Err(Unsafe::Inconsistent(format!(
                        "{:?} becomes {new:?}, which nothing makes",
                        old
                    )));
                }
                let inputs = self.graph.node(NodeId(user)).input.iter().enumerate();
                renames.extend(
                    inputs.filter(|(_, name)| *name == old).map(|(k, _)| (user, k, new.to_owned())),
                );
            }
        }
        Ok(renames)
    }

    /// Whether every value is still made before its use.
    fn keeps_order(&self, inserted: &[NodeProto], renames: &[(usize, usize, String)]) -> bool {
        let before = |name: &str, user: Position| self.position(name).is_none_or(|at| at < user);
        renames.iter().all(|(user, _, new)| before(new, old(*user)))
            && inserted.iter().enumerate().all(|(k, node)| {
                let place = (self.at, k);
                node.input.iter().map(String::as_str).chain(captured_by(node)).all(|i| before(i, place))
                    && node.output.iter().all(|output| {
                        !self.graph.is_captured(output)
                            && self.kept_users(output).all(|user| place < old(user))
                    })
            })
    }

    /// The nodes in an order in which every value is made before its use, as close to the one that
    /// the patch gives as that allows.
    fn order(
        &self,
        inserted: &[NodeProto],
        redirect: &HashMap<&str, &str>,
    ) -> Result<Vec<usize>, Unsafe> {
        let count = self.graph.proto().node.len();
        let kept =
            |range: std::ops::Range<usize>| range.filter(|at| !self.removed.contains(at)).map(old);
        let places: Vec<Position> = kept(0..self.at)
            .chain((0..inserted.len()).map(|k| (self.at, k)))
            .chain(kept(self.at..count))
            .collect();
        let slots: HashMap<Position, usize> = places.iter().copied().zip(0..).collect();
        let wants: Vec<BTreeSet<usize>> = places
            .iter()
            .map(|&(at, k)| {
                let node = inserted.get(k).unwrap_or_else(|| self.graph.node(NodeId(at)));
                let inputs = node.input.iter().map(String::as_str);
                let inputs = inputs.map(|name| match k {
                    usize::MAX => redirect.get(name).copied().unwrap_or(name),
                    _ => name,
                });
                let names = inputs.chain(captured_by(node)).filter(|name| !name.is_empty());
                names.filter_map(|name| slots.get(&self.position(name)?).copied()).collect()
            })
            .collect();
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); places.len()];
        let mut waiting: Vec<usize> = wants.iter().map(BTreeSet::len).collect();
        for (slot, wants) in wants.iter().enumerate() {
            wants.iter().for_each(|&w| users[w].push(slot));
        }
        let mut ready: BTreeSet<usize> = (0..places.len()).filter(|&at| waiting[at] == 0).collect();
        let mut order = Vec::with_capacity(places.len());
        while let Some(at) = ready.pop_first() {
            order.push(at);
            for &user in &users[at] {
                waiting[user] -= 1;
                if waiting[user] == 0 {
                    ready.insert(user);
                }
            }
        }
        if order.len() < places.len() {
            return Err(Unsafe::Inconsistent("a value would depend on itself".to_owned()));
        }
        Ok(order)
    }

    /// The place of an initializer that nothing uses.
    fn unused_constant(
        &self,
        name: &str,
        inserted: &[NodeProto],
        renames: &[(usize, usize, String)],
    ) -> Result<usize, Unsafe> {
        let at = self.graph.initializer_at(name);
        let at = at.ok_or_else(|| Unsafe::Inconsistent(format!("{name:?} is no constant")))?;
        let used = self.graph.is_pinned(name)
            || self.kept_users(name).next().is_some()
            || renames.iter().any(|(_, _, new)| new == name)
            || inserted.iter().any(|node| {
                node.input.iter().any(|input| input == name) || captured_by(node).contains(name)
            });
        if used { Err(Unsafe::StillUsed(name.to_owned())) } else { Ok(at) }
    }

    /// Values that are gone, and new ones whose names nothing had.
    fn stale(&self, redirect: &HashMap<&str, &str>) -> HashSet<String> {
        let removed = self.removed.iter().flat_map(|&at| &self.graph.node(NodeId(at)).output);
        let gone = removed.map(String::as_str).filter(|name| !self.made.contains_key(name));
        let new = self.made.keys().copied().filter(|name| self.graph.maker(name).is_none());
        gone.chain(new).chain(redirect.keys().copied()).map(str::to_owned).collect()
    }

    /// The initializers that lose their last use.
    fn released(
        &self,
        inserted: &[NodeProto],
        redirect: &HashMap<&str, &str>,
        renames: &[(usize, usize, String)],
    ) -> BTreeSet<usize> {
        let inputs = self.removed.iter().flat_map(|&at| &self.graph.node(NodeId(at)).input);
        let candidates = inputs.map(String::as_str).chain(redirect.keys().copied());
        let used = |name: &str| {
            self.graph.is_pinned(name)
                || !redirect.contains_key(name) && self.kept_users(name).next().is_some()
                || renames.iter().any(|(_, _, new)| new == name)
                || inserted.iter().any(|node| {
                    node.input.iter().any(|input| input == name) || captured_by(node).contains(name)
                })
        };
        candidates
            .filter_map(|name| Some((name, self.graph.initializer_at(name)?)))
            .filter(|(name, _)| !used(name))
            .map(|(_, at)| at)
            .collect()
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
        let kept: Vec<bool> =
            graph.proto().input.iter().map(|input| graph.is_input(input.name())).collect();
        self.proto_mut().ir_version = Some(4);
        let mut kept = kept.into_iter();
        self.graph_proto_mut().input.retain(|_| kept.next().expect("one for each input"));
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
            self.free_constants_of_inputs();
            self.graph_proto_mut().initializer.retain(|t| !unused.contains(t.name()));
        }
    }

    /// Drops every initializer that nothing in the graph refers to, and returns how many.
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
