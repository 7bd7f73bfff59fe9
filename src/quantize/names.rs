use std::collections::HashSet;

use super::scopes::inner;
use crate::ir::{GraphProto, ModelProto};

/// Every name that a model has, of graphs inside others and of functions too: ONNX wants names of values
/// unique in all graphs that see them, and ONNX Runtime names of nodes.
pub(super) struct Names {
    values: HashSet<String>,
    nodes: HashSet<String>,
}

impl Names {
    pub(super) fn of(model: &ModelProto) -> Self {
        let mut names = Self { values: HashSet::new(), nodes: HashSet::new() };
        model.graph.iter().for_each(|graph| names.graph(graph));
        for function in &model.functions {
            names.values.extend(function.input.iter().chain(&function.output).cloned());
            function.node.iter().for_each(|node| names.node_of(node));
        }
        names
    }

    fn graph(&mut self, graph: &GraphProto) {
        let ports = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        self.values.extend(ports.map(|value| value.name().to_owned()));
        self.values.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
        let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        self.values.extend(sparse.map(|tensor| tensor.name().to_owned()));
        graph.node.iter().for_each(|node| self.node_of(node));
    }

    fn node_of(&mut self, node: &crate::ir::NodeProto) {
        self.nodes.insert(node.name().to_owned());
        self.values.extend(node.input.iter().chain(&node.output).cloned());
        inner(node).for_each(|graph| self.graph(graph));
    }

    /// A name that no value has: `base`, or `base_1`, `base_2`, ….
    pub(super) fn value(&mut self, base: &str) -> String {
        fresh(&mut self.values, base)
    }

    /// A name that no node has, likewise.
    pub(super) fn node(&mut self, base: &str) -> String {
        fresh(&mut self.nodes, base)
    }
}

fn fresh(taken: &mut HashSet<String>, base: &str) -> String {
    let mut name = base.to_owned();
    let mut count = 0;
    while name.is_empty() || !taken.insert(name.clone()) {
        count += 1;
        name = format!("{base}_{count}");
    }
    name
}
