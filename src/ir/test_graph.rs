//! Small models made in code.

use std::collections::BTreeSet;

use super::build::{NodeBuilder, value_f32, value_i64};
use super::domains::is_own_domain;
use super::model::Model;
use super::proto::{FunctionProto, GraphProto, ModelProto, OperatorSetIdProto, TensorProto};

/// A small model made in code, for tests and benchmarks. Dimensions are written as text: a number,
/// or a name for one that stays open.
#[derive(Clone, Default)]
pub struct TestGraph {
    graph: GraphProto,
    functions: Vec<FunctionProto>,
    versions: Option<(i64, i64)>,
}

impl TestGraph {
    /// An empty graph.
    pub fn new() -> Self {
        let graph = GraphProto { name: Some("test".into()), ..Default::default() };
        Self { graph, ..Default::default() }
    }

    /// Chooses the format's version and the opset.
    pub fn versions(mut self, ir_version: i64, opset: i64) -> Self {
        self.versions = Some((ir_version, opset));
        self
    }

    /// Adds a function that nodes of its domain may call.
    pub fn function(mut self, function: FunctionProto) -> Self {
        self.functions.push(function);
        self
    }

    /// Adds a float input.
    pub fn input(mut self, name: &str, dims: &[&str]) -> Self {
        self.graph.input.push(value_f32(name, dims));
        self
    }

    /// Adds an int64 input.
    pub fn input_i64(mut self, name: &str, dims: &[&str]) -> Self {
        self.graph.input.push(value_i64(name, dims));
        self
    }

    /// Adds a float output.
    pub fn output(mut self, name: &str, dims: &[&str]) -> Self {
        self.graph.output.push(value_f32(name, dims));
        self
    }

    /// Adds an initializer.
    pub fn initializer(mut self, tensor: TensorProto) -> Self {
        self.graph.initializer.push(tensor);
        self
    }

    /// Adds a node.
    pub fn node(mut self, node: NodeBuilder) -> Self {
        self.graph.node.push(node.build());
        self
    }

    /// The model, at opset 17 unless [another was chosen](TestGraph::versions), with the placeholders' domain
    /// and those of its nodes and functions imported in version 1; a function that imports none imports the
    /// same.
    ///
    /// # Panics
    /// Where the graph isn't consistent: a fault of the test.
    pub fn model(self) -> Model {
        let opset = |domain: &str, version| OperatorSetIdProto {
            domain: Some(domain.to_owned()),
            version: Some(version),
        };
        let (ir_version, own) = self.versions.unwrap_or((8, 17));
        let called = self.graph.node.iter().map(|node| node.domain());
        let defined = self.functions.iter().map(|function| function.domain());
        let all = called.chain(defined).chain([super::PLACEHOLDER_DOMAIN]);
        let foreign: BTreeSet<&str> = all.filter(|domain| !is_own_domain(domain)).collect();
        let mut opset_import = vec![opset("", own)];
        opset_import.extend(foreign.into_iter().map(|domain| opset(domain, 1)));
        let mut functions = self.functions;
        for function in functions.iter_mut().filter(|function| function.opset_import.is_empty()) {
            function.opset_import.clone_from(&opset_import);
        }
        let proto = ModelProto {
            ir_version: Some(ir_version),
            opset_import,
            graph: Some(self.graph),
            functions,
            ..Default::default()
        };
        Model::from_proto(proto, "test.onnx").expect("a consistent test graph")
    }
}
