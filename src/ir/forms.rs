//! Operators whose form depends on the opset, read and written in one place.
//!
//! The opsets are those of ONNX's operator changelog (`docs/Changelog.md`, onnx 1.23).

use super::build::{Attr, NodeBuilder, node};
use super::graph::Graph;
use super::patch::Patch;
use super::proto::NodeProto;
use super::tensors::initializer_i64;

/// Lists of numbers that are an attribute at first and the second input from an opset on: operator,
/// attribute, that opset.
const MOVED: &[(&str, &str, i64)] = &[
    ("Reshape", "shape", 5),
    ("Pad", "pads", 11),
    ("ReduceSum", "axes", 13),
    ("Split", "split", 13),
    ("Squeeze", "axes", 13),
    ("Unsqueeze", "axes", 13),
    ("ReduceL1", "axes", 18),
    ("ReduceL2", "axes", 18),
    ("ReduceLogSum", "axes", 18),
    ("ReduceLogSumExp", "axes", 18),
    ("ReduceMax", "axes", 18),
    ("ReduceMean", "axes", 18),
    ("ReduceMin", "axes", 18),
    ("ReduceProd", "axes", 18),
    ("ReduceSumSquare", "axes", 18),
];

/// Where the list of numbers of an operator stands at an opset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In the attribute of this name.
    Attribute(&'static str),
    /// In the second input.
    Input,
}

impl Form {
    /// The form of an operator's list: `axes` of `Squeeze`, `Unsqueeze` and the reductions, `split` of `Split`,
    /// `pads` of `Pad`, `shape` of `Reshape`. None for other operators.
    pub fn of(op: &str, opset: i64) -> Option<Self> {
        let (_, attribute, from) = MOVED.iter().find(|(moved, ..)| *moved == op)?;
        Some(if opset < *from { Form::Attribute(attribute) } else { Form::Input })
    }
}

/// What a node says of its list of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    /// Nothing: it is left out.
    Absent,
    /// These numbers.
    Given(Vec<i64>),
    /// Numbers that are computed, or a form that the opset doesn't have.
    Unknown,
}

impl Graph<'_> {
    /// The list of numbers of a node, in the [form](Form::of) of the model's opset.
    pub fn list(&self, node: &NodeProto) -> List {
        let moved = MOVED.iter().find(|(moved, ..)| *moved == node.op_type());
        let Some((_, attribute, from)) = moved else { return List::Unknown };
        let is_input = self.opset() >= *from;
        match (node.attr_ints(attribute), node.input_at(1)) {
            (None, None) => List::Absent,
            (Some(values), None) if !is_input => List::Given(values.to_vec()),
            (None, Some(name)) if is_input => {
                self.constant_i64(name).map_or(List::Unknown, List::Given)
            }
            _ => List::Unknown,
        }
    }

    /// Whether a `Softmax` normalizes along the last of so many axes alone. Before opset 13 it takes its axis
    /// and all after it together, and the axis that is not given is 1, not the last.
    pub fn is_along_last_axis(&self, softmax: &NodeProto, rank: usize) -> bool {
        let last = rank as i64 - 1;
        let default = if self.opset() < 13 { 1 } else { -1 };
        matches!(softmax.attr_i("axis", default), axis if axis == -1 || axis == last)
    }
}

/// A list of numbers, written for one operator at one opset.
#[derive(Clone, Debug)]
pub struct Operand(Result<String, (&'static str, Vec<i64>)>);

impl Operand {
    /// A node of an operator that takes the list where the one does for which it was written.
    pub fn of(&self, op: &str, x: &str, output: &str) -> NodeBuilder {
        match &self.0 {
            Ok(name) => node(op, [x, name], output),
            Err((attribute, values)) => {
                node(op, [x], output).attr(attribute, Attr::Ints(values.clone()))
            }
        }
    }
}

impl Patch {
    /// Writes a list of numbers for an operator in the [form](Form::of) of the graph's opset: as an attribute,
    /// or as a new constant named after `base`.
    ///
    /// # Panics
    /// Where the operator has no such list: a fault of the pass.
    pub fn list(&mut self, graph: &Graph<'_>, op: &str, base: &str, values: &[i64]) -> Operand {
        match Form::of(op, graph.opset()).expect("an operator with a list of numbers") {
            Form::Attribute(name) => Operand(Err((name, values.to_vec()))),
            Form::Input => {
                let name = self.fresh(graph, base);
                self.initializer(initializer_i64(&name, &[values.len()], values));
                Operand(Ok(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Model, NodeId, TestGraph};
    use super::*;

    #[test]
    fn forms_change_at_their_opset() {
        for (op, attribute, from) in
            [("Unsqueeze", "axes", 13), ("Pad", "pads", 11), ("ReduceMax", "axes", 18)]
        {
            assert_eq!(Form::of(op, from - 1), Some(Form::Attribute(attribute)));
            assert_eq!(Form::of(op, from), Some(Form::Input));
        }
        assert_eq!(Form::of("Neg", 13), None);
    }

    fn squeeze(opset: i64, with: impl FnOnce(NodeBuilder) -> NodeBuilder, inputs: &[&str]) -> Model {
        TestGraph::new()
            .versions(8, opset)
            .input("x", &["1", "n"])
            .input_i64("open", &["1"])
            .initializer(initializer_i64("axes", &[1], &[0]))
            .node(with(node("Squeeze", inputs.to_vec(), "y")))
            .output("y", &["n"])
            .model()
    }

    #[test]
    fn a_list_is_read_in_the_form_of_the_opset_alone() {
        let read = |model: Model| {
            let graph = model.graph();
            graph.list(graph.node(NodeId(0)))
        };
        let attribute = |n: NodeBuilder| n.ints("axes", [0]);
        let plain = |n: NodeBuilder| n;
        assert_eq!(read(squeeze(11, attribute, &["x"])), List::Given(vec![0]));
        assert_eq!(read(squeeze(13, plain, &["x", "axes"])), List::Given(vec![0]));
        assert_eq!(read(squeeze(13, plain, &["x", "open"])), List::Unknown);
        assert_eq!(read(squeeze(11, plain, &["x", "axes"])), List::Unknown);
        assert_eq!(read(squeeze(13, attribute, &["x"])), List::Unknown);
        assert_eq!(read(squeeze(11, plain, &["x"])), List::Absent);
        assert_eq!(read(squeeze(13, plain, &["x", ""])), List::Absent);
    }

    #[test]
    fn a_softmax_is_read_by_the_opset() {
        let along_last = |opset: i64, axis: Option<i64>| {
            let softmax = node("Softmax", ["x"], "y");
            let softmax = axis.into_iter().fold(softmax, |n, axis| n.int("axis", axis));
            let graph =
                TestGraph::new().versions(8, opset).input("x", &["b", "h", "s", "t"]).node(softmax);
            let model = graph.output("y", &["b", "h", "s", "t"]).model();
            let graph = model.graph();
            graph.is_along_last_axis(graph.node(NodeId(0)), 4)
        };
        assert!(along_last(11, Some(-1)) && along_last(11, Some(3)) && !along_last(11, None));
        assert!(along_last(13, Some(-1)) && along_last(13, None) && !along_last(13, Some(1)));
    }
}
