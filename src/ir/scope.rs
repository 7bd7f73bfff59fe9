//! The graphs of a model: the main one, those nested in nodes, functions, and those of training.

use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
    ValueInfoProto,
};

/// Whose a list of nodes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// The main graph's.
    Graph,
    /// A graph's that is nested in a node of the main graph.
    Nested,
    /// A function's, or a graph's nested in it.
    Function,
    /// A graph's that trains the model.
    Training,
}

/// A list of nodes with a namespace of its own: a graph or a function.
pub struct Scope<'m> {
    /// Whose it is.
    pub home: Home,
    /// Where it is: nothing for the main graph, `loop (Loop) > body`, `function custom.Gelu`.
    pub path: Vec<String>,
    /// Inputs by name.
    pub inputs: Vec<&'m str>,
    /// Outputs by name.
    pub outputs: Vec<&'m str>,
    /// Nodes in order.
    pub nodes: &'m [NodeProto],
    /// Dense initializers; a function has none.
    pub initializers: &'m [TensorProto],
    /// Sparse initializers.
    pub sparse: &'m [SparseTensorProto],
    /// Defaults of a function's attributes.
    pub defaults: &'m [AttributeProto],
}

impl ModelProto {
    /// Every graph and function: the main graph first, each graph before those nested in it, in the order of
    /// their nodes.
    pub fn scopes(&self) -> Vec<Scope<'_>> {
        let mut scopes = Vec::new();
        if let Some(graph) = &self.graph {
            add_graph(&mut scopes, Home::Graph, Vec::new(), graph);
        }
        for function in &self.functions {
            let path = vec![format!("function {}", function.qualified_name())];
            scopes.push(Scope {
                home: Home::Function,
                path: path.clone(),
                inputs: function.input.iter().map(String::as_str).collect(),
                outputs: function.output.iter().map(String::as_str).collect(),
                nodes: &function.node,
                initializers: &[],
                sparse: &[],
                defaults: &function.attribute_proto,
            });
            for default in &function.attribute_proto {
                let path = [path.as_slice(), &[format!("attribute {}", default.name())]].concat();
                add_attribute(&mut scopes, Home::Function, path, default);
            }
            add_nested(&mut scopes, Home::Function, &path, &function.node);
        }
        for (at, training) in self.training_info.iter().enumerate() {
            let graphs =
                [("initialization", &training.initialization), ("algorithm", &training.algorithm)];
            for (name, graph) in graphs {
                if let Some(graph) = graph {
                    add_graph(
                        &mut scopes,
                        Home::Training,
                        vec![format!("training {at} {name}")],
                        graph,
                    );
                }
            }
        }
        scopes
    }
}

fn add_graph<'m>(scopes: &mut Vec<Scope<'m>>, home: Home, path: Vec<String>, graph: &'m GraphProto) {
    let names = |values: &'m [ValueInfoProto]| values.iter().map(|v| v.name()).collect();
    scopes.push(Scope {
        home,
        path: path.clone(),
        inputs: names(&graph.input),
        outputs: names(&graph.output),
        nodes: &graph.node,
        initializers: &graph.initializer,
        sparse: &graph.sparse_initializer,
        defaults: &[],
    });
    let inner = if home == Home::Graph { Home::Nested } else { home };
    add_nested(scopes, inner, &path, &graph.node);
}

fn add_nested<'m>(scopes: &mut Vec<Scope<'m>>, home: Home, path: &[String], nodes: &'m [NodeProto]) {
    for (at, node) in nodes.iter().enumerate() {
        for attribute in node.attribute.iter().filter(|a| a.nested().next().is_some()) {
            let path = [path, &[node.label(at), attribute.name().to_owned()]].concat();
            add_attribute(scopes, home, path, attribute);
        }
    }
}

fn add_attribute<'m>(
    scopes: &mut Vec<Scope<'m>>,
    home: Home,
    path: Vec<String>,
    attribute: &'m AttributeProto,
) {
    if let Some(graph) = &attribute.g {
        add_graph(scopes, home, path.clone(), graph);
    }
    for (at, graph) in attribute.graphs.iter().enumerate() {
        let mut path = path.clone();
        path.last_mut().expect("an attribute's name").push_str(&format!("[{at}]"));
        add_graph(scopes, home, path, graph);
    }
}

impl NodeProto {
    /// The node's name, or that of its first output, or its place among its graph's nodes: `#3`.
    pub fn title(&self, at: usize) -> String {
        match self.called() {
            "" => format!("#{at}"),
            name => name.to_owned(),
        }
    }

    /// Title and operator: `conv1 (Conv)`.
    pub fn label(&self, at: usize) -> String {
        format!("{} ({})", self.title(at), self.qualified_op())
    }
}

impl FunctionProto {
    /// Domain, name and overload, as a call names them: `custom.Gelu`, `custom.Gelu:fp16`.
    pub fn qualified_name(&self) -> String {
        let domain = if self.domain().is_empty() { "" } else { "." };
        let overload = if self.overload().is_empty() { "" } else { ":" };
        format!("{}{domain}{}{overload}{}", self.domain(), self.name(), self.overload())
    }
}
