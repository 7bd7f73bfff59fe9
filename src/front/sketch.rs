//! A graph that grows node by node: values are called after the nodes that give them, and equal small constants are one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;

use crate::ir::{
    Draft, GraphProto, Late, Make, ModelProto, NodeBuilder, OperatorSetIdProto, TensorProto,
    ValueInfoProto, initializer_f32, initializer_i64, node,
};

/// The name of every graph that is written.
const GRAPH: &str = "main_graph";

/// A graph under construction.
pub(super) struct Sketch {
    opset: u32,
    graph: GraphProto,
    late: Vec<Late>,
    /// Names of small constants, by what they hold.
    known: HashMap<(i32, Vec<i64>, Bytes), String>,
}

impl Sketch {
    pub(super) fn new(opset: u32) -> Self {
        let graph = GraphProto { name: Some(GRAPH.to_owned()), ..Default::default() };
        Self { opset, graph, late: Vec::new(), known: HashMap::new() }
    }

    pub(super) fn opset(&self) -> u32 {
        self.opset
    }

    pub(super) fn input(&mut self, port: ValueInfoProto) {
        self.graph.input.push(port);
    }

    pub(super) fn output(&mut self, port: ValueInfoProto) {
        self.graph.output.push(port);
    }

    /// Adds a node, and gives the name of its first output.
    pub(super) fn push(&mut self, node: NodeBuilder) -> String {
        let node = node.build();
        let output = node.output.first().cloned().unwrap_or_default();
        self.graph.node.push(node);
        output
    }

    /// Adds a node with one output of the same name.
    pub(super) fn add<S: Into<String>>(
        &mut self,
        op: &str,
        name: &str,
        inputs: impl IntoIterator<Item = S>,
    ) -> String {
        self.push(node(op, inputs, name))
    }

    /// A constant i64 [n].
    pub(super) fn numbers(&mut self, values: &[i64]) -> String {
        self.integers(&[values.len()], values)
    }

    /// A constant i64 without axes.
    pub(super) fn number(&mut self, value: i64) -> String {
        self.integers(&[], &[value])
    }

    fn integers(&mut self, shape: &[usize], values: &[i64]) -> String {
        let name = format!("constant.{}", self.known.len());
        self.constant(initializer_i64(&name, shape, values))
    }

    /// A constant f32 without axes.
    pub(super) fn scalar(&mut self, value: f32) -> String {
        let name = format!("constant.{}", self.known.len());
        self.constant(initializer_f32(&name, &[], &[value]))
    }

    /// A small constant f32 of its own name, or the one that equals it.
    pub(super) fn values(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.constant(initializer_f32(name, shape, values))
    }

    /// A small constant, or the one that equals it bit for bit: its name.
    pub(super) fn constant(&mut self, tensor: TensorProto) -> String {
        let bits = tensor.raw_data.clone().unwrap_or_default();
        let what = (tensor.data_type(), tensor.dims.clone(), bits);
        let name = match self.known.entry(what) {
            Entry::Occupied(known) => return known.get().clone(),
            Entry::Vacant(new) => new.insert(tensor.name().to_owned()).clone(),
        };
        self.graph.initializer.push(tensor);
        name
    }

    /// A constant f32 whose values are made when the file is written.
    pub(super) fn late(&mut self, name: &str, shape: &[usize], make: Make) -> String {
        self.late.push(Late { name: name.to_owned(), shape: shape.to_vec(), make });
        name.to_owned()
    }

    /// The mean of squares and the like, over the last axis, which stays.
    pub(super) fn reduce_mean(&mut self, name: &str, input: &str) -> String {
        let reduce = match self.opset >= 18 {
            true => {
                let axes = self.numbers(&[-1]);
                node("ReduceMean", [input, &axes], name)
            }
            false => node("ReduceMean", [input], name).ints("axes", [-1]),
        };
        self.push(reduce.int("keepdims", 1))
    }

    /// The parts of a value along an axis, of these sizes.
    pub(super) fn split(&mut self, name: &str, input: &str, axis: i64, sizes: &[i64]) -> Vec<String> {
        let parts: Vec<String> = (0..sizes.len()).map(|at| format!("{name}.{at}")).collect();
        let sizes = self.numbers(sizes);
        let mut split = node("Split", [input, &sizes], &parts[0]).named(name).int("axis", axis);
        for part in &parts[1..] {
            split = split.output(part);
        }
        self.push(split);
        parts
    }

    /// The finished graph.
    pub(super) fn finish(self) -> Draft {
        let version = i64::from(self.opset);
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(version) };
        let model = ModelProto {
            ir_version: Some(ir_version(self.opset)),
            producer_name: Some(env!("CARGO_PKG_NAME").to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            opset_import: vec![opset],
            graph: Some(self.graph),
            ..Default::default()
        };
        Draft { model, late: self.late }
    }
}

/// The version of the format that came with an operator set (`Versioning.md` of ONNX).
fn ir_version(opset: u32) -> i64 {
    match opset {
        ..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_constants_are_one_bit_by_bit() {
        let mut sketch = Sketch::new(17);
        let one = sketch.scalar(1.0);
        assert_eq!(sketch.scalar(1.0), one);
        assert_eq!(sketch.values("x", &[], &[1.0]), one);
        assert_eq!(sketch.values("x", &[1], &[1.0]), "x");
        assert_eq!(sketch.values("y", &[1], &[1.0]), "x");
        let zero = sketch.scalar(0.0);
        assert_ne!(sketch.scalar(-0.0), zero);
        assert_ne!(sketch.numbers(&[1]), sketch.number(1));
        let draft = sketch.finish();
        let graph = draft.model.graph.unwrap();
        let mut names: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), graph.initializer.len()), (6, 6));
    }
}
