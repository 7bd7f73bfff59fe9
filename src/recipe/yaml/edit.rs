//! Changes of a tree before it is read; what is written in stands at the place of the mapping around it.

use super::{Id, Key, Kind, Node};

/// The keys of a mapping and their values, in the text's order.
#[derive(Debug, Default)]
pub(in crate::recipe) struct Entries(pub(super) Vec<(Key, Node)>);

impl Node {
    /// The value as text.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a mapping.
    pub fn entries_mut(&mut self) -> Option<&mut Entries> {
        match &mut self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value as a mapping; nothing becomes an empty one.
    pub fn entries_or_empty(&mut self) -> Option<&mut Entries> {
        if matches!(self.kind, Kind::Null) {
            self.kind = Kind::Map(Entries::default());
        }
        self.entries_mut()
    }
}

impl Entries {
    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known.text == key)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.position(key).map(|at| &self.0[at].1)
    }

    /// The value of a key, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.position(key).map(|at| &mut self.0[at].1)
    }

    /// Each key with its place and its value.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, Id, &mut Node)> {
        self.0.iter_mut().map(|(key, node)| (key.text.as_str(), key.id, node))
    }

    /// Takes a key out.
    pub fn take(&mut self, key: &str) -> Option<Node> {
        self.position(key).map(|at| self.0.remove(at).1)
    }

    /// Puts a value in, at its own place.
    pub fn insert(&mut self, key: &str, node: Node) {
        self.0.push((Key { id: node.id, text: key.to_owned() }, node));
    }

    /// Writes a text where the key is not there.
    pub fn set_default(&mut self, key: &str, id: Id, text: &str) {
        if self.get(key).is_none() {
            self.insert(key, Node { id, kind: Kind::Text(text.to_owned()) });
        }
    }

    /// Gives a key another name, unless that is there too.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let (Some(at), None) = (self.position(from), self.position(to)) {
            to.clone_into(&mut self.0[at].0.text);
        }
    }

    /// Moves a key of this mapping into one inside it, which is made where it is missing.
    pub fn move_into(&mut self, inner: &str, key: &str) {
        if self
            .get_mut(inner)
            .is_some_and(|inner| inner.entries_or_empty().is_none_or(|e| e.get(key).is_some()))
        {
            return;
        }
        let Some(at) = self.position(key) else { return };
        let entry = self.0.remove(at);
        if self.get(inner).is_none() {
            self.insert(inner, Node { id: entry.0.id, kind: Kind::Null });
        }
        let inner = self.get_mut(inner).and_then(Node::entries_or_empty);
        inner.expect("a mapping, as was just seen").0.push(entry);
    }

    /// Moves a key before the others.
    pub fn move_to_front(&mut self, key: &str) {
        if let Some(at) = self.position(key) {
            self.0[..=at].rotate_right(1);
        }
    }

    /// Orders the keys; equal ones stay as they stand.
    pub fn sort_by_key<K: Ord>(&mut self, order: impl Fn(&str) -> K) {
        self.0.sort_by_key(|(key, _)| order(&key.text));
    }
}
