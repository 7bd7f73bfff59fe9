//! Names that a graph doesn't have yet.

use std::collections::HashSet;

use super::proto::GraphProto;

/// Hands out names that nothing in a graph, or in a graph nested in it, has.
#[derive(Clone, Debug, Default)]
pub struct Names {
    values: HashSet<String>,
    nodes: HashSet<String>,
}

impl Names {
    /// All names of a graph: of values, shapes that are noted of values, and nodes.
    pub fn of(graph: &GraphProto) -> Self {
        let mut names = Self::default();
        names.add(graph);
        names
    }

    fn add(&mut self, graph: &GraphProto) {
        let infos = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        self.values.extend(infos.map(|info| info.name().to_owned()));
        self.values.extend(graph.constants().map(|tensor| tensor.name().to_owned()));
        for node in &graph.node {
            self.nodes.insert(node.name().to_owned());
            self.values.extend(node.input.iter().chain(&node.output).cloned());
            node.nested().for_each(|inner| self.add(inner));
        }
    }

    /// A name for a value: `base`, or `base_1`, `base_2`, …; no second call gives it again.
    pub fn value(&mut self, base: &str) -> String {
        let name = unused(base, |name| self.values.contains(name));
        self.values.insert(name.clone());
        name
    }

    /// Whether a value has this name.
    pub fn knows(&self, value: &str) -> bool {
        self.values.contains(value)
    }

    /// A name for a node, as [`Names::value`].
    pub fn node(&mut self, base: &str) -> String {
        let name = unused(base, |name| self.nodes.contains(name));
        self.nodes.insert(name.clone());
        name
    }
}

/// Gives a value of a graph another name wherever it is made, read, or noted: in graphs nested in it too.
/// Inputs and outputs of the graph keep their names.
pub(crate) fn rename_value(graph: &mut GraphProto, old: &str, new: &str) {
    let swap = |name: &mut String| {
        if name == old {
            new.clone_into(name);
        }
    };
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).for_each(swap);
        for inner in node.nested_mut() {
            let inputs = inner.input.iter().map(|v| v.name());
            let mut own = inputs.chain(inner.initializer.iter().map(|t| t.name()));
            if own.all(|name| name != old) {
                rename_value(inner, old, new);
                inner.output.iter_mut().filter_map(|v| v.name.as_mut()).for_each(swap);
            }
        }
    }
    graph.initializer.iter_mut().filter_map(|t| t.name.as_mut()).for_each(swap);
    let sparse = graph.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut());
    sparse.filter_map(|t| t.name.as_mut()).for_each(swap);
    graph.value_info.iter_mut().filter_map(|v| v.name.as_mut()).for_each(swap);
    for annotation in &mut graph.quantization_annotation {
        annotation.tensor_name.iter_mut().for_each(swap);
        let parameters = annotation.quant_parameter_tensor_names.iter_mut();
        parameters.filter_map(|entry| entry.value.as_mut()).for_each(swap);
    }
}

/// `base` where it is neither empty nor taken, else the first of `base_1`, `base_2`, … that is free.
pub(super) fn unused(base: &str, taken: impl Fn(&str) -> bool) -> String {
    if !base.is_empty() && !taken(base) {
        return base.to_owned();
    }
    let numbered = (1..).map(|n| format!("{base}_{n}"));
    numbered.into_iter().find(|name| !taken(name)).expect("numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::super::{TestGraph, node, value_f32};
    use super::*;
    use crate::ir::{AttributeProto, Model};

    fn nested() -> Model {
        let inner = GraphProto {
            node: vec![node("Neg", ["x"], "inside").named("inner").build()],
            output: vec![value_f32("inside", &["n"])],
            ..Default::default()
        };
        let branch = AttributeProto { g: Some(inner), ..Default::default() };
        TestGraph::new()
            .input("x", &["n"])
            .node(node("If", ["x"], "y").attribute(branch).named("outer"))
            .output("y", &["n"])
            .model()
    }

    #[test]
    fn no_name_is_given_twice_or_taken_from_a_nested_graph() {
        let model = nested();
        let mut names = Names::of(model.graph_proto());
        assert_eq!(names.value("z"), "z");
        assert_eq!(names.value("z"), "z_1");
        assert_eq!(names.value("inside"), "inside_1");
        assert_eq!(names.value(""), "_1");
        assert_eq!(names.node("inner"), "inner_1");
        assert_eq!(names.node("outer"), "outer_1");
        assert_eq!(names.node("x"), "x");
    }
}
