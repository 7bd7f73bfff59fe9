//! What `inspect` tells of a model, as data.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ir::{
    AttributeProto, Home, Model, Scope, SparseTensorProto, TensorProto, ValueInfoProto, dtype_name,
    stored_bytes,
};

/// How many of the largest weights are listed.
const LARGEST: usize = 8;

#[derive(Serialize)]
pub(super) struct Summary {
    pub ir_version: i64,
    pub producer: String,
    pub opsets: BTreeMap<String, i64>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Nodes of the main graph, of nested graphs and of functions.
    pub nodes: usize,
    pub operators: BTreeMap<String, usize>,
    pub functions: Vec<Function>,
    pub weights: usize,
    pub weight_bytes: u64,
    /// The weights by where they lie and how they are held.
    #[serde(rename = "weights_in")]
    pub places: Vec<Weights>,
    pub largest: Vec<Weight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_list: Option<Vec<Nodes>>,
}

#[derive(Serialize)]
pub(super) struct Port {
    pub name: String,
    pub dtype: String,
    /// None where it is not known, and of what is not a tensor.
    pub shape: Option<Vec<String>>,
    #[serde(skip)]
    pub tensor: bool,
}

#[derive(Serialize)]
pub(super) struct Function {
    pub name: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// With those of graphs nested in it.
    pub nodes: usize,
    pub weights: usize,
    pub weight_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct Weights {
    #[serde(rename = "in")]
    pub home: &'static str,
    #[serde(rename = "as")]
    pub kind: &'static str,
    pub weights: usize,
    pub bytes: u64,
}

#[derive(Clone, Serialize)]
pub(super) struct Weight {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<i64>,
    pub bytes: u64,
    /// The nested graph or function that it lies in.
    #[serde(rename = "in", skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    #[serde(skip)]
    home: Home,
    #[serde(rename = "as")]
    kind: &'static str,
}

/// The nodes of one graph or function.
#[derive(Serialize)]
pub(super) struct Nodes {
    /// Nothing for the main graph.
    pub path: Vec<String>,
    #[serde(skip)]
    pub depth: usize,
    pub nodes: Vec<Node>,
}

#[derive(Serialize)]
pub(super) struct Node {
    pub name: String,
    pub operator: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Summary {
    pub fn of(model: &Model, nodes: bool) -> Self {
        let (proto, graph) = (model.proto(), model.graph_proto());
        let scopes = proto.scopes();
        let mut operators = BTreeMap::new();
        for node in scopes.iter().flat_map(|scope| scope.nodes) {
            *operators.entry(node.qualified_op()).or_default() += 1;
        }
        let weights: Vec<Vec<Weight>> = scopes.iter().map(weights_of).collect();
        let mut places: BTreeMap<(Home, &str), (usize, u64)> = BTreeMap::new();
        for weight in weights.iter().flatten() {
            let (count, bytes) = places.entry((weight.home, weight.kind)).or_default();
            (*count, *bytes) = (*count + 1, *bytes + weight.bytes);
        }
        let places: Vec<Weights> = places
            .into_iter()
            .map(|((home, kind), (weights, bytes))| Weights { home: place(home), kind, weights, bytes })
            .collect();
        let functions = proto.functions.iter().map(|function| {
            let name = function.qualified_name();
            let head = format!("function {name}");
            let within = || scopes.iter().zip(&weights).filter(|(s, _)| s.path.first() == Some(&head));
            Function {
                name,
                inputs: function.input.clone(),
                outputs: function.output.clone(),
                nodes: within().map(|(scope, _)| scope.nodes.len()).sum(),
                weights: within().map(|(_, weights)| weights.len()).sum(),
                weight_bytes: within().flat_map(|(_, weights)| weights).map(|w| w.bytes).sum(),
            }
        });
        let functions = functions.collect();
        let mut largest: Vec<Weight> = weights.into_iter().flatten().collect();
        largest.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        largest.truncate(LARGEST);
        let domain = |name: &str| if name.is_empty() { "ai.onnx".to_owned() } else { name.to_owned() };
        let ports = |values: &[ValueInfoProto]| values.iter().map(Port::of).collect();
        Summary {
            ir_version: proto.ir_version(),
            producer: format!("{} {}", proto.producer_name(), proto.producer_version())
                .trim()
                .to_owned(),
            opsets: proto
                .opset_import
                .iter()
                .map(|set| (domain(set.domain()), set.version()))
                .collect(),
            inputs: ports(&graph.input),
            outputs: ports(&graph.output),
            nodes: scopes.iter().map(|scope| scope.nodes.len()).sum(),
            operators,
            functions,
            weights: places.iter().map(|place| place.weights).sum(),
            weight_bytes: places.iter().map(|place| place.bytes).sum(),
            places,
            largest,
            node_list: nodes.then(|| scopes.iter().map(Nodes::of).collect()),
        }
    }
}

impl Port {
    fn of(value: &ValueInfoProto) -> Self {
        Port {
            name: value.name().to_owned(),
            dtype: value.type_name(),
            shape: value.shape(),
            tensor: value.is_tensor(),
        }
    }
}

impl Nodes {
    fn of(scope: &Scope<'_>) -> Self {
        let node = |(at, node): (usize, &crate::ir::NodeProto)| Node {
            name: node.title(at),
            operator: node.qualified_op(),
            inputs: node.input.clone(),
            outputs: node.output.clone(),
            attributes: node.attribute.iter().map(|a| (a.name().to_owned(), a.text())).collect(),
        };
        let nodes = scope.nodes.iter().enumerate().map(node).collect();
        // A function stands next to the main graph; each graph inside a node one further in.
        Nodes { path: scope.path.clone(), depth: scope.path.len() / 2, nodes }
    }
}

fn place(home: Home) -> &'static str {
    match home {
        Home::Graph => "graph",
        Home::Nested => "nested graphs",
        Home::Function => "functions",
        Home::Training => "training",
    }
}

/// Every tensor of a graph or function, without those of graphs nested in it.
fn weights_of(scope: &Scope<'_>) -> Vec<Weight> {
    let mut weights = Vec::new();
    let mut add = |name: &str, kind: &'static str, (dtype, shape, bytes): Stored| {
        let sparse = if kind.starts_with("sparse") { "sparse " } else { "" };
        let dtype = format!("{sparse}{}", dtype_name(dtype));
        let (name, path) = (name.to_owned(), scope.path.clone());
        weights.push(Weight { name, dtype, shape, bytes, path, home: scope.home, kind });
    };
    for tensor in scope.initializers {
        add(tensor.name(), "initializer", dense(tensor));
    }
    for tensor in scope.sparse {
        let name = tensor.values.as_ref().map_or("", |values| values.name());
        add(name, "sparse initializer", sparse(tensor));
    }
    let attributes = scope.nodes.iter().enumerate().flat_map(|(at, node)| {
        node.attribute.iter().map(move |a| (node.title(at), a, node.is("Constant")))
    });
    let defaults = scope.defaults.iter().map(|a| (a.name().to_owned(), a, false));
    for (name, attribute, constant) in attributes.chain(defaults) {
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            add(&name, "constant", dense(tensor));
        }
        for tensor in attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors) {
            add(&name, "sparse constant", sparse(tensor));
        }
        if let Some(stored) = listed(attribute).filter(|_| constant) {
            add(&name, "constant", stored);
        }
    }
    weights
}

/// ONNX element type, shape, bytes.
type Stored = (i32, Vec<i64>, u64);

/// The tensor that a `Constant` makes of a number, a text or a list.
fn listed(attribute: &AttributeProto) -> Option<Stored> {
    let text = |texts: &[bytes::Bytes]| texts.iter().map(|text| text.len() as u64).sum();
    let list = |n: usize| vec![n as i64];
    let AttributeProto { floats, ints, strings, s, .. } = attribute;
    Some(match attribute.name() {
        "value_float" => (1, vec![], 4),
        "value_floats" => (1, list(floats.len()), 4 * floats.len() as u64),
        "value_int" => (7, vec![], 8),
        "value_ints" => (7, list(ints.len()), 8 * ints.len() as u64),
        "value_string" => (8, vec![], text(s.as_slice())),
        "value_strings" => (8, list(strings.len()), text(strings)),
        _ => return None,
    })
}

fn dense(tensor: &TensorProto) -> Stored {
    (tensor.data_type(), tensor.dims.clone(), stored_bytes(tensor))
}

/// Values and where they go.
fn sparse(tensor: &SparseTensorProto) -> Stored {
    let dtype = tensor.values.as_ref().map_or(0, |values| values.data_type());
    let parts = tensor.values.iter().chain(&tensor.indices);
    (dtype, tensor.dims.clone(), parts.map(stored_bytes).sum())
}
