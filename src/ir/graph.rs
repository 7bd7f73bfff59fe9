use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::OnceLock;

use super::domains::{is_own_domain, opset_of};
use super::proto::{
    FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TrainingInfoProto, ValueInfoProto,
};
use super::purity;
use super::tensors::value_of;
use crate::tensor::Tensor;

/// The place of a node in its graph's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// A read-only index over a graph: who makes a value, who uses it.
pub struct Graph<'m> {
    proto: &'m GraphProto,
    functions: &'m [FunctionProto],
    opset: i64,
    /// Operators of ONNX's own domain that the model's functions define anew.
    redefined: Vec<&'m str>,
    ids: HashMap<&'m str, usize, foldhash::fast::RandomState>,
    values: Vec<Value>,
    /// The users of all values, those of one value next to each other.
    users: Vec<NodeId>,
    alike: OnceLock<HashMap<u64, Vec<usize>>>,
    pure_functions: OnceLock<Vec<bool>>,
}

/// What is known of a name.
#[derive(Clone, Default)]
struct Value {
    maker: Option<NodeId>,
    initializer: Option<usize>,
    first_user: usize,
    user_count: usize,
    input: bool,
    output: bool,
    /// A nested graph or one of training reads it, or a quantization annotation names it.
    captured: bool,
    /// Training assigns to it: no constant.
    variable: bool,
    /// A nested graph, or one of training, has a value of this name.
    nested: bool,
    sparse: bool,
}

impl<'m> Graph<'m> {
    /// Indexes a model's main graph, in time proportional to its nodes.
    pub(super) fn new(model: &'m ModelProto) -> Self {
        let mut graph = Self::within(model, model.graph.as_ref().expect("checked when opened"));
        model.training_info.iter().for_each(|training| graph.train(training));
        graph
    }

    /// Notes what training reads of the main graph, and what it assigns to.
    fn train(&mut self, training: &'m TrainingInfoProto) {
        let mut names = Nested::default();
        for inner in training.initialization.iter().chain(&training.algorithm) {
            names.graph(inner);
            // `Gradient` differentiates by values that its attributes name.
            let gradients = inner.node.iter().filter(|node| node.op_type() == "Gradient");
            for attribute in gradients.flat_map(|node| &node.attribute) {
                let texts = attribute.s.iter().chain(&attribute.strings);
                names.captured.extend(texts.filter_map(|text| std::str::from_utf8(text).ok()));
            }
        }
        let bindings = || training.initialization_binding.iter().chain(&training.update_binding);
        names.captured.extend(bindings().flat_map(|binding| [binding.key(), binding.value()]));
        names.captured.into_iter().for_each(|name| self.value(name).captured = true);
        names.own.into_iter().for_each(|name| self.value(name).nested = true);
        bindings().for_each(|binding| self.value(binding.key()).variable = true);
    }

    /// Indexes a graph of a model, the main one or one nested in a node, likewise.
    pub(crate) fn within(model: &'m ModelProto, proto: &'m GraphProto) -> Self {
        let expected = proto.node.len() + proto.initializer.len() + proto.input.len();
        let own = model.functions.iter().filter(|f| is_own_domain(f.domain()));
        let mut graph = Graph {
            proto,
            functions: &model.functions,
            opset: opset_of(model, "").unwrap_or(1),
            redefined: own.map(|f| f.name()).collect(),
            ids: HashMap::with_capacity_and_hasher(expected, Default::default()),
            values: Vec::with_capacity(expected),
            users: Vec::new(),
            alike: OnceLock::new(),
            pure_functions: OnceLock::new(),
        };
        for (at, tensor) in proto.initializer.iter().enumerate() {
            graph.value(tensor.name()).initializer = Some(at);
        }
        for values in proto.sparse_initializer.iter().filter_map(|s| s.values.as_ref()) {
            graph.value(values.name()).sparse = true;
        }
        let constant_inputs = inputs_hold_constants(model);
        for input in &proto.input {
            let value = graph.value(input.name());
            value.input = !(constant_inputs && (value.sparse || value.initializer.is_some()));
        }
        proto.output.iter().for_each(|v| graph.value(v.name()).output = true);
        for annotation in &proto.quantization_annotation {
            for parameter in &annotation.quant_parameter_tensor_names {
                graph.value(parameter.value()).captured = true;
            }
        }
        let mut uses: Vec<(usize, NodeId)> = Vec::with_capacity(2 * proto.node.len());
        for (at, node) in proto.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                graph.value(output).maker = Some(NodeId(at));
            }
            for (place, input) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                if !node.input[..place].contains(input) {
                    let id = graph.id(input);
                    graph.values[id].user_count += 1;
                    uses.push((id, NodeId(at)));
                }
            }
            let names = Nested::of(node);
            names.captured.into_iter().for_each(|name| graph.value(name).captured = true);
            names.own.into_iter().for_each(|name| graph.value(name).nested = true);
        }
        let mut start = 0;
        for value in &mut graph.values {
            value.first_user = start;
            start += std::mem::take(&mut value.user_count);
        }
        graph.users.resize(start, NodeId(0));
        for (id, user) in uses {
            let value = &mut graph.values[id];
            graph.users[value.first_user + value.user_count] = user;
            value.user_count += 1;
        }
        graph
    }

    fn id(&mut self, name: &'m str) -> usize {
        *self.ids.entry(name).or_insert_with(|| {
            self.values.push(Value::default());
            self.values.len() - 1
        })
    }

    fn value(&mut self, name: &'m str) -> &mut Value {
        let id = self.id(name);
        &mut self.values[id]
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.ids.get(name).map(|&id| &self.values[id])
    }

    /// The protobuf message under the index.
    pub fn proto(&self) -> &'m GraphProto {
        self.proto
    }

    /// The version of ONNX's own operators that the model is written in; 1 where it names none.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Whether a node is of this operator of ONNX's own domain, and means what ONNX means by it: where a
    /// function of the model has the operator's name, `onnx.proto` leaves open which of the two a runtime
    /// takes.
    pub fn is(&self, node: &NodeProto, op: &str) -> bool {
        node.is(op) && !self.redefined.contains(&op)
    }

    /// Whether a node gives the same outputs for the same inputs at every call: an operator of ONNX's own
    /// that draws no random numbers, or a function of the model made of such operators.
    pub fn is_pure(&self, node: &NodeProto) -> bool {
        purity::is_pure(node, self.functions, || {
            self.pure_functions.get_or_init(|| purity::of_functions(self.functions))
        })
    }

    /// A node by its place.
    pub fn node(&self, id: NodeId) -> &'m NodeProto {
        &self.proto.node[id.0]
    }

    /// A node by its place, if [it is of this operator](Graph::is).
    pub fn node_of(&self, id: NodeId, op: &str) -> Option<&'m NodeProto> {
        Some(self.node(id)).filter(|node| self.is(node, op))
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &'m NodeProto)> + use<'m> {
        self.proto.node.iter().enumerate().map(|(at, node)| (NodeId(at), node))
    }

    /// The node that makes a value; none for graph inputs and initializers.
    pub fn maker(&self, value: &str) -> Option<NodeId> {
        self.get(value)?.maker
    }

    /// The node that makes a value, if [it is of this operator](Graph::is).
    pub fn maker_of(&self, value: &str, op: &str) -> Option<(NodeId, &'m NodeProto)> {
        let id = self.maker(value)?;
        Some((id, self.node_of(id, op)?))
    }

    /// The nodes that use a value, each once, in order.
    pub fn users(&self, value: &str) -> &[NodeId] {
        self.get(value).map_or(&[], |v| &self.users[v.first_user..v.first_user + v.user_count])
    }

    /// The only node that uses a value; none where it has several uses, leaves the graph, or is
    /// used by a nested graph.
    pub fn sole_user(&self, value: &str) -> Option<NodeId> {
        match self.users(value) {
            [only] if !self.is_pinned(value) => Some(*only),
            _ => None,
        }
    }

    /// Whether a value must keep its name: it is a graph output, a nested graph or one of training reads
    /// it, or a quantization annotation names it.
    pub fn is_pinned(&self, value: &str) -> bool {
        self.get(value).is_some_and(|v| v.output || v.captured)
    }

    /// Whether a graph nested in a node reads a value.
    pub(super) fn is_captured(&self, value: &str) -> bool {
        self.get(value).is_some_and(|v| v.captured)
    }

    /// Whether a value is an output of the graph.
    pub fn is_output(&self, value: &str) -> bool {
        self.get(value).is_some_and(|v| v.output)
    }

    /// Whether a value is an input of the graph: one that a caller gives, or may give.
    pub fn is_input(&self, value: &str) -> bool {
        self.get(value).is_some_and(|v| v.input)
    }

    /// Whether a value is there without a node: an input or a constant.
    pub(super) fn is_given(&self, value: &str) -> bool {
        self.get(value).is_some_and(|v| v.input || v.sparse || v.initializer.is_some())
    }

    /// Whether a nested graph has a value of its own of this name.
    pub(super) fn is_nested(&self, value: &str) -> bool {
        self.get(value).is_some_and(|v| v.nested)
    }

    /// Whether any value of the graph, or of a graph nested in it, has this name.
    pub fn knows(&self, value: &str) -> bool {
        self.ids.contains_key(value)
    }

    /// The place of a value's initializer; none where a caller may override it or training does.
    pub(super) fn initializer_at(&self, value: &str) -> Option<usize> {
        self.get(value).filter(|v| !v.input && !v.variable)?.initializer
    }

    /// The initializer of a value; none where a caller may override it (it is an input too), or training
    /// assigns to it.
    pub fn initializer(&self, value: &str) -> Option<&'m TensorProto> {
        self.initializer_at(value).map(|at| &self.proto.initializer[at])
    }

    /// The initializers that nothing in the graph refers to.
    pub fn unused_constants(&self) -> impl Iterator<Item = &'m str> {
        let names = self.proto.initializer.iter().map(|tensor| tensor.name());
        names.filter(|name| {
            self.initializer(name).is_some() && self.users(name).is_empty() && !self.is_pinned(name)
        })
    }

    /// The first initializer before this one that has the same type, shape and bits, neither of them
    /// open to callers.
    pub fn earliest_equal(&self, value: &str) -> Option<&'m str> {
        let tensors = &self.proto.initializer;
        let fixed = |at: usize| self.initializer_at(tensors[at].name()) == Some(at);
        let alike = self.alike.get_or_init(|| {
            let mut alike: HashMap<u64, Vec<usize>> = HashMap::with_capacity(tensors.len());
            for at in (0..tensors.len()).filter(|&at| fixed(at)) {
                if let Some(key) = sketch(&tensors[at]) {
                    alike.entry(key).or_default().push(at);
                }
            }
            alike
        });
        let at = self.initializer_at(value)?;
        let same = |other: &&usize| {
            let (a, b) = (&tensors[at], &tensors[**other]);
            a.data_type == b.data_type && a.dims == b.dims && a.raw_data == b.raw_data
        };
        let candidates = alike.get(&sketch(&tensors[at])?)?.iter();
        Some(tensors[*candidates.take_while(|&&other| other < at).find(same)?].name())
    }

    /// What the file notes of a value's type and shape: of an input, an output, or in between.
    pub fn noted(&self, value: &str) -> Option<&'m ValueInfoProto> {
        let GraphProto { input, output, value_info, .. } = self.proto;
        let mut infos = input.iter().chain(output).chain(value_info);
        infos.find(|info| info.name() == value)
    }

    /// The constant of a value, from an initializer.
    pub fn constant(&self, value: &str) -> Option<Tensor> {
        self.initializer(value).and_then(|tensor| value_of(tensor).ok())
    }

    /// The two inputs of a commutative node of which one is constant: `(constant, value)`.
    pub fn constant_operand(&self, id: NodeId) -> Option<(&'m str, &'m str)> {
        let node = self.node(id);
        let (a, b) = (node.input_at(0)?, node.input_at(1)?);
        match (self.initializer(a), self.initializer(b)) {
            (Some(_), None) => Some((a, b)),
            (None, Some(_)) => Some((b, a)),
            _ => None,
        }
    }

    /// The constant of a value, if it is int64.
    pub fn constant_i64(&self, value: &str) -> Option<Vec<i64>> {
        self.constant(value)?.to_i64().ok()
    }

    /// The constant of a value, if it is float: shape and values.
    pub fn constant_f32(&self, value: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let tensor = self.constant(value)?;
        Some((tensor.shape().to_vec(), tensor.to_f32().ok()?))
    }

    /// Every value is made once and before its use, and every output is made.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let mut known: HashSet<&str> = HashSet::with_capacity(self.values.len());
        for name in self.proto.constants().map(|tensor| tensor.name()) {
            if name.is_empty() {
                return Err(("initializers".into(), "one has no name".into()));
            }
            if !known.insert(name) {
                return Err((format!("initializer {name:?}"), "another has the same name".into()));
            }
        }
        let mut inputs = HashSet::with_capacity(self.proto.input.len());
        if let Some(twice) = self.proto.input.iter().find(|input| !inputs.insert(input.name())) {
            let place = format!("graph input {:?}", twice.name());
            return Err((place, "another has the same name".into()));
        }
        known.extend(inputs);
        for (at, node) in self.proto.node.iter().enumerate() {
            let place = || format!("node {at} {:?} ({})", node.name(), node.op_type());
            for input in node.input.iter().map(String::as_str).chain(captured_by(node)) {
                if !input.is_empty() && !known.contains(input) {
                    let why = match self.maker(input) {
                        Some(NodeId(later)) if later == at => format!("uses {input:?}, its own output"),
                        Some(NodeId(later)) => {
                            format!("uses {input:?}, which node {later} makes later")
                        }
                        None => format!("uses {input:?}, which nothing makes"),
                    };
                    return Err((place(), why));
                }
            }
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                if !known.insert(output) {
                    return Err((place(), format!("makes {output:?}, which exists already")));
                }
            }
        }
        let mut outputs = HashSet::with_capacity(self.proto.output.len());
        for name in self.proto.output.iter().map(|output| output.name()) {
            let why = match () {
                () if !known.contains(name) => "nothing makes it",
                () if !outputs.insert(name) => "another has the same name",
                () => continue,
            };
            return Err((format!("graph output {name:?}"), why.into()));
        }
        Ok(())
    }
}

/// Whether initializers stand among the inputs and are constants nevertheless: before IR version 4 they
/// must, and `onnx.proto` calls them "constant inputs" (ONNX Runtime folds them and lets nobody feed them).
/// From 4 on such an input is a default that a caller may override.
pub(super) fn inputs_hold_constants(model: &ModelProto) -> bool {
    model.ir_version.is_some_and(|version| version < 4)
}

/// A hash of raw data that reads no more than a page of it; none of other data.
fn sketch(tensor: &TensorProto) -> Option<u64> {
    const PART: usize = 2048;
    // Some writers leave an empty field next to typed data.
    let raw = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty())?;
    let tail = raw.len().saturating_sub(PART).max(PART.min(raw.len()));
    let whole = (tensor.data_type, &tensor.dims, raw.len(), &raw[..PART.min(raw.len())], &raw[tail..]);
    Some(foldhash::fast::FixedState::default().hash_one(whole))
}

/// The names in the graphs nested in a node: those they take from outside, and their own.
#[derive(Default)]
struct Nested<'m> {
    captured: BTreeSet<&'m str>,
    own: HashSet<&'m str>,
}

impl<'m> Nested<'m> {
    fn of(node: &'m NodeProto) -> Self {
        let mut names = Self::default();
        node.nested().for_each(|inner| names.graph(inner));
        names
    }

    fn graph(&mut self, inner: &'m GraphProto) {
        let mut own: HashSet<&str> = inner.input.iter().map(|v| v.name()).collect();
        own.extend(inner.constants().map(|tensor| tensor.name()));
        own.extend(inner.node.iter().flat_map(|n| n.output.iter().map(String::as_str)));
        let mut deeper = Nested::default();
        for node in &inner.node {
            deeper.captured.extend(node.input.iter().map(String::as_str));
            node.nested().for_each(|graph| deeper.graph(graph));
        }
        deeper.captured.extend(inner.output.iter().map(|v| v.name()));
        let outside = |name: &&str| !name.is_empty() && !own.contains(name);
        self.captured.extend(deeper.captured.into_iter().filter(outside));
        self.own.extend(own.into_iter().chain(deeper.own).filter(|name| !name.is_empty()));
    }
}

/// The names that graphs nested in a node take from outside, in alphabetical order.
pub(super) fn captured_by(node: &NodeProto) -> BTreeSet<&str> {
    Nested::of(node).captured
}
