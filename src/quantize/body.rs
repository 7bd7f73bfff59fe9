//! A quantized model while it is written: the nodes and constants so far, and what they share.

use std::collections::HashMap;

use super::calibration::Calibration;
use super::layout::Key;
use super::weights::Weight;
use crate::ir::{Names, NodeBuilder, NodeProto, TensorProto};
use crate::recipe::{Form, Terms};

/// A weight in 8 bits, and the name of the value that it was first read by.
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) weight: Weight,
}

/// Writes the graphs of a model anew.
pub(super) struct Writer<'a> {
    pub(super) names: Names,
    pub(super) form: Form,
    pub(super) calibration: &'a Calibration,
    pub(super) weights: HashMap<Key, Stored>,
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
    pub(super) quantized: HashMap<(String, Terms), Quantized>,
    /// Activations as products take them, in f32 and not transposed; and in static form.
    pub(super) floats: HashMap<(String, &'static str), String>,
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

/// An activation in 8 bits, by the names of its values: each term with its scale and zero point.
#[derive(Clone)]
pub(super) struct Quantized(pub(super) Vec<[String; 3]>);
