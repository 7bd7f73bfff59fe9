//! Whether a patch is safe, and the edits it comes to.

use std::collections::{BTreeSet, HashMap, HashSet};

use prost::Message;

use super::build::sign;
use super::graph::{Graph, NodeId, captured_by};
use super::names::unused;
use super::patch::{Change, Patch, Unsafe};
use super::proto::{AttributeProto, NodeProto, TensorProto};
use super::tensors::{check_data, stored_bytes};

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

        let plan = Plan {
            graph: self,
            at,
            removed: &removed,
            sources: sources(&inserted, &patch.initializers)?,
        };
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
        let released = plan.released(&patch.release, &inserted, &redirect, &renames)?;
        let stale = plan.stale(&redirect);
        let gone = removed.iter().flat_map(|&at| &self.node(NodeId(at)).attribute);
        let freed: u64 = released.iter().map(|&at| stored_bytes(&self.proto().initializer[at])).sum();
        // Nodes count where more of them go than come: a constant in place of a node has its room.
        let size = |node: &NodeProto| node.encoded_len() as u64;
        let went: u64 = removed.iter().map(|&at| size(self.node(NodeId(at)))).sum();
        let came = inserted.iter().map(size).sum();
        let freed = freed + gone.map(constants_in).sum::<u64>().max(went.saturating_sub(came));
        let added = patch.initializers.iter().map(stored_bytes).sum();
        self.name_nodes(&mut inserted, &removed);

        let first = removed.first().map_or(at, |&first| first.min(at));
        let end = removed.last().map_or(at, |&last| (last + 1).max(at));
        let rest = |range: std::ops::Range<usize>| {
            range.filter(|at| !removed.contains(at)).map(Some).collect::<Vec<_>>()
        };
        let mut nodes = rest(first..at);
        nodes.extend(inserted.iter().map(|_| None));
        nodes.extend(rest(at..end));
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
        let others = self.nodes().filter(|(id, _)| !removed.contains(&id.0));
        let others: HashSet<&str> = others.map(|(_, node)| node.name()).collect();
        let mut new: HashSet<String> = HashSet::with_capacity(inserted.len());
        for node in inserted {
            let taken = |name: &str| others.contains(name) || new.contains(name);
            let own = Some(node.name()).filter(|name| !name.is_empty() && !taken(name));
            let output = node.output.iter().find(|output| !output.is_empty());
            let base = own.or(output.map(String::as_str)).unwrap_or(node.op_type());
            let name = unused(base, taken);
            new.insert(name.clone());
            node.name = Some(name);
        }
    }
}

/// Bytes of the constants in an attribute.
fn constants_in(attribute: &AttributeProto) -> u64 {
    let tensors: u64 = attribute.t.iter().chain(&attribute.tensors).map(stored_bytes).sum();
    tensors + 4 * attribute.floats.len() as u64 + 8 * attribute.ints.len() as u64
}

/// Where each new value comes from: an inserted node, or a constant.
fn sources<'p>(
    inserted: &'p [NodeProto],
    initializers: &'p [TensorProto],
) -> Result<HashMap<&'p str, Option<usize>>, Unsafe> {
    let outputs = inserted.iter().enumerate().flat_map(|(k, node)| {
        node.output.iter().filter(|name| !name.is_empty()).map(move |name| (name.as_str(), Some(k)))
    });
    let mut sources = HashMap::new();
    for (name, maker) in outputs.chain(initializers.iter().map(|t| (t.name(), None))) {
        if name.is_empty() || sources.insert(name, maker).is_some() {
            return Err(Unsafe::Taken(name.to_owned()));
        }
    }
    Ok(sources)
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
    sources: HashMap<&'a str, Option<usize>>,
}

impl Plan<'_, '_> {
    fn kept_maker(&self, name: &str) -> Option<usize> {
        self.graph.maker(name).map(|id| id.0).filter(|at| !self.removed.contains(at))
    }

    fn exists(&self, name: &str) -> bool {
        self.sources.contains_key(name) || self.graph.is_given(name) || self.kept_maker(name).is_some()
    }

    /// When a value is there: at once, or after a node.
    fn position(&self, name: &str) -> Option<Position> {
        match self.sources.get(name) {
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
            for output in outputs.filter(|o| !o.is_empty() && !self.sources.contains_key(o.as_str())) {
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
        match self.sources.keys().filter(taken).min() {
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
        let rest =
            |range: std::ops::Range<usize>| range.filter(|at| !self.removed.contains(at)).map(old);
        let places: Vec<Position> = rest(0..self.at)
            .chain((0..inserted.len()).map(|k| (self.at, k)))
            .chain(rest(self.at..count))
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

    /// Values that are gone, and new ones whose names nothing had.
    fn stale(&self, redirect: &HashMap<&str, &str>) -> HashSet<String> {
        let removed = self.removed.iter().flat_map(|&at| &self.graph.node(NodeId(at)).output);
        let gone = removed.map(String::as_str).filter(|name| !self.sources.contains_key(name));
        let new = self.sources.keys().copied().filter(|name| self.graph.maker(name).is_none());
        gone.chain(new).chain(redirect.keys().copied()).map(str::to_owned).collect()
    }

    /// The initializers that lose their last use, and those that the patch releases.
    fn released(
        &self,
        release: &[String],
        inserted: &[NodeProto],
        redirect: &HashMap<&str, &str>,
        renames: &[(usize, usize, String)],
    ) -> Result<BTreeSet<usize>, Unsafe> {
        let used = |name: &str| {
            self.graph.is_pinned(name)
                || !redirect.contains_key(name) && self.kept_users(name).next().is_some()
                || renames.iter().any(|(_, _, new)| new == name)
                || inserted.iter().any(|node| {
                    node.input.iter().any(|input| input == name) || captured_by(node).contains(name)
                })
        };
        let inputs = self.removed.iter().flat_map(|&at| &self.graph.node(NodeId(at)).input);
        let candidates = inputs.map(String::as_str).chain(redirect.keys().copied());
        let mut released: BTreeSet<usize> = candidates
            .filter_map(|name| Some((name, self.graph.initializer_at(name)?)))
            .filter(|(name, _)| !used(name))
            .map(|(_, at)| at)
            .collect();
        for name in release {
            match self.graph.initializer_at(name) {
                None => return Err(Unsafe::Inconsistent(format!("{name:?} is not a constant"))),
                Some(_) if used(name) => return Err(Unsafe::StillUsed(name.clone())),
                Some(at) => released.insert(at),
            };
        }
        Ok(released)
    }
}
