//! A quantized model while it is written: the nodes and constants so far, and what they share.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::Options;
use super::layout::Key;
use super::weights::Weight;
use crate::ir::{Names, NodeBuilder, NodeProto, TensorProto};
use crate::recipe::Terms;

/// A weight in 8 bits, and the name of the value that it was first read by.
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) weight: Weight,
}

/// Writes the graphs of a model anew.
pub(super) struct Writer<'a> {
    pub(super) names: Names,
    pub(super) opset: i64,
    pub(super) options: &'a Options,
    pub(super) weights: Rc<HashMap<Key, Stored>>,
    /// Names of the weights' values so far.
    pub(super) values: HashMap<Key, String>,
    /// Names of their scales, by the bits of the factor in them.
    pub(super) scales: HashMap<(Key, u32), String>,
    /// The constants that each graph gains.
    pub(super) constants: Vec<Vec<TensorProto>>,
}

/// One graph in the writing.
pub(super) struct Body<'w, 'a> {
    pub(super) scope: usize,
    pub(super) nodes: Vec<NodeProto>,
    /// The quantized forms of activations so far.
    pub(super) quantized: HashMap<(String, Terms), Vec<Term>>,
    /// Activations as products take them, in f32 and not transposed; and in static form.
    pub(super) floats: HashMap<(String, &'static str), String>,
    /// Values whose readers leave a product and its scales one node.
    pub(super) fusible: HashSet<String>,
    /// Constants that several nodes share.
    pub(super) shared: HashMap<String, String>,
    pub(super) writer: &'w mut Writer<'a>,
}

impl Body<'_, '_> {
    /// A new name for a value.
    pub(super) fn value(&mut self, base: &str) -> String {
        self.writer.names.value(base)
    }

    /// Adds a node under a new name.
    pub(super) fn add(&mut self, node: NodeBuilder, name: &str) {
        let name = self.writer.names.node(name);
        self.nodes.push(node.named(name).build());
    }

    pub(super) fn constant(&mut self, tensor: TensorProto) {
        self.writer.constants[self.scope].push(tensor);
    }

    /// The name of a constant that is made once in a graph.
    pub(super) fn shared(&mut self, base: &str, make: impl FnOnce(&str) -> TensorProto) -> String {
        if let Some(name) = self.shared.get(base) {
            return name.clone();
        }
        let name = self.value(base);
        self.constant(make(&name));
        self.shared.insert(base.to_owned(), name.clone());
        name
    }
}

/// A term of an activation in 8 bits, by the names of its values: `step · scale · (bytes − zero)`.
#[derive(Clone)]
pub(super) struct Term {
    pub(super) bytes: String,
    /// One number, or one a row.
    pub(super) scale: String,
    pub(super) zero: String,
    /// What is the same for every row: it is in the weight's scales.
    pub(super) step: f32,
}
