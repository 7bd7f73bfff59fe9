//! The graphs of a model, one inside another, and the constants that their values come from.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use crate::ir::proto::TrainingInfoProto;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{
    Graph, GraphProto, ModelProto, NodeId, NodeProto, TensorProto, ValueInfoProto, constant_of,
    dtype_of, initializer_f32, plain_bytes, shape_of, stored_bytes, value_of,
};
use crate::tensor::DType;

/// Nodes between a constant and what reads it, at most.
const LONGEST: usize = 32;

/// The names that a description of training may mean values of the main graph by: its bindings', and
/// whatever its graphs read.
fn trained(training: &TrainingInfoProto) -> Vec<&str> {
    fn read<'t>(graph: &'t GraphProto, names: &mut Vec<&'t str>) {
        names.extend(graph.output.iter().map(|output| output.name()));
        for node in &graph.node {
            names.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
            node.nested().for_each(|graph| read(graph, names));
        }
    }
    let bindings = training.initialization_binding.iter().chain(&training.update_binding);
    let mut names: Vec<&str> = bindings.flat_map(|pair| [pair.key(), pair.value()]).collect();
    let graphs = training.initialization.iter().chain(&training.algorithm);
    graphs.for_each(|graph| read(graph, &mut names));
    names
}

/// A value: the graph that it is a value of, and its name.
pub(super) type Value<'m> = (usize, &'m str);

/// Who reads a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// An input of a node: its graph, the node, the place.
    Node(usize, NodeId, usize),
    /// The graph's caller.
    Output,
    /// What a file says of its training.
    Training,
}

struct Scope<'m> {
    graph: Graph<'m>,
    /// The graph around it.
    parent: Option<usize>,
    /// Initializers that a caller may replace, for they are inputs too.
    open: HashSet<&'m str>,
}

/// All graphs of a model: the main one first, each before those inside its nodes.
pub(super) struct Scopes<'m> {
    all: Vec<Scope<'m>>,
    readers: HashMap<Value<'m>, Vec<Reader>>,
}

impl<'m> Scopes<'m> {
    pub(super) fn new(model: &'m ModelProto) -> Self {
        let mut scopes = Self { all: Vec::new(), readers: HashMap::new() };
        model.graph.iter().for_each(|main| scopes.add(model, main, None));
        for at in 0..scopes.all.len() {
            let graph = scopes.all[at].graph.proto();
            for (id, node) in scopes.all[at].graph.nodes() {
                for (place, input) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty())
                {
                    scopes.read(at, input, Reader::Node(at, id, place));
                }
            }
            for output in &graph.output {
                scopes.read(at, output.name(), Reader::Output);
            }
        }
        for training in model.training_info.iter().filter(|_| model.graph.is_some()) {
            trained(training).into_iter().for_each(|name| scopes.read(0, name, Reader::Training));
        }
        scopes
    }

    fn add(&mut self, model: &'m ModelProto, proto: &'m GraphProto, parent: Option<usize>) {
        let graph = Graph::within(model, proto);
        let all = proto.initializer.iter().map(|tensor| tensor.name());
        let open = all.filter(|name| graph.is_input(name)).collect();
        self.all.push(Scope { graph, parent, open });
        let at = self.all.len() - 1;
        for graph in proto.node.iter().flat_map(NodeProto::nested) {
            self.add(model, graph, Some(at));
        }
    }

    fn read(&mut self, scope: usize, name: &'m str, reader: Reader) {
        if let Some(at) = self.home(scope, name) {
            self.readers.entry((at, name)).or_default().push(reader);
        }
    }

    /// The graphs, by their places.
    pub(super) fn graphs(&self) -> impl Iterator<Item = (usize, &Graph<'m>)> {
        self.all.iter().map(|scope| &scope.graph).enumerate()
    }

    /// Whether a node is of this operator of ONNX's own.
    pub(super) fn is(&self, scope: usize, node: &NodeProto, op: &str) -> bool {
        self.all[scope].graph.is(node, op)
    }

    pub(super) fn node(&self, scope: usize, id: NodeId) -> &'m NodeProto {
        self.all[scope].graph.node(id)
    }

    /// Every node, with its graph.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (usize, NodeId, &'m NodeProto)> {
        self.graphs().flat_map(|(at, graph)| graph.nodes().map(move |(id, node)| (at, id, node)))
    }

    /// The graph that a name means a value of, seen from one.
    pub(super) fn home(&self, mut scope: usize, name: &str) -> Option<usize> {
        loop {
            let graph = &self.all[scope].graph;
            if graph.maker(name).is_some() || graph.is_input(name) || graph.initializer(name).is_some()
            {
                return Some(scope);
            }
            scope = self.all[scope].parent?;
        }
    }

    pub(super) fn readers(&self, value: Value<'m>) -> &[Reader] {
        self.readers.get(&value).map_or(&[], Vec::as_slice)
    }

    /// Whether a value is an initializer that a caller may replace.
    pub(super) fn is_open(&self, scope: usize, name: &str) -> bool {
        self.home(scope, name).is_some_and(|at| self.all[at].open.contains(name))
    }

    /// The rank of a value, where the graph declares it or the nodes before it show it.
    pub(super) fn rank(&self, scope: usize, name: &'m str) -> Option<usize> {
        self.rank_within(scope, name, &mut { LONGEST })
    }

    fn rank_within(&self, scope: usize, name: &'m str, left: &mut usize) -> Option<usize> {
        *left = left.checked_sub(1)?;
        let at = self.home(scope, name)?;
        let graph = &self.all[at].graph;
        let proto = graph.proto();
        let declared = proto.input.iter().chain(&proto.value_info).chain(&proto.output);
        let mut declared = declared.filter(|value| value.name() == name);
        let rank = |value: &ValueInfoProto| Some(value.tensor_type()?.shape.as_ref()?.dim.len());
        if let Some(rank) = declared.find_map(rank) {
            return Some(rank);
        }
        if let Some(constant) = self.constant(at, name) {
            return Some(constant.dims.len());
        }
        let node = graph.node(graph.maker(name)?);
        if !graph.is(node, node.op_type()) || node.output_at(0) != Some(name) {
            return None;
        }
        let mut of = |place: usize| self.rank_within(at, node.input_at(place)?, left);
        match node.op_type() {
            "Abs" | "Cast" | "Clip" | "Elu" | "Erf" | "Exp" | "Gelu" | "HardSwish" | "Identity"
            | "LayerNormalization" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "RMSNormalization"
            | "Relu" | "Sigmoid" | "Softmax" | "Softplus" | "Sqrt" | "Tanh" | "Transpose" => of(0),
            "Add" | "Div" | "Mul" | "Pow" | "Sub" => Some(of(0)?.max(of(1)?)),
            "Gemm" | "Flatten" => Some(2),
            "MatMul" => match (of(0)?, of(1)?) {
                (1, other) | (other, 1) => other.checked_sub(1),
                (a, b) => Some(a.max(b)),
            },
            "Reshape" => self.constant(at, node.input_at(1)?)?.dims.first().copied(),
            _ => None,
        }
    }

    /// The constant of a value: an initializer that no caller may replace, or a `Constant`; as it is, or after
    /// `Identity`, `Transpose`, `Reshape` and a `Cast` that loses nothing.
    pub(super) fn constant(&self, scope: usize, name: &'m str) -> Option<Constant<'m>> {
        self.behind(scope, name, LONGEST)
    }

    fn behind(&self, scope: usize, name: &'m str, left: usize) -> Option<Constant<'m>> {
        let left = left.checked_sub(1)?;
        let at = self.home(scope, name)?;
        let graph = &self.all[at].graph;
        if let Some(tensor) = graph.initializer(name) {
            return Constant::of(Cow::Borrowed(tensor), (at, name));
        }
        let id = graph.maker(name)?;
        let node = graph.node(id);
        if !graph.is(node, node.op_type()) || node.output_at(0) != Some(name) {
            return None;
        }
        if node.op_type() == "Constant" {
            let mut constant = Constant::of(constant_of(node)?, (at, name))?;
            constant.links.push((at, id));
            return Some(constant);
        }
        if !is_link(node) {
            return None;
        }
        let mut constant = self.behind(at, node.input_at(0)?, left)?;
        let rank = constant.dims.len();
        match node.op_type() {
            "Transpose" => {
                let default: Vec<i64> = (0..rank as i64).rev().collect();
                let order = node.attr_ints("perm").unwrap_or(&default);
                let order: Vec<usize> = order.iter().filter_map(|&n| usize::try_from(n).ok()).collect();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if !sorted.into_iter().eq(0..rank) {
                    return None;
                }
                constant.turn(order);
            }
            "Reshape" => {
                let shape = self.behind(at, node.input_at(1)?, left)?.integers()?;
                constant.reshape(&shape, node.attr_i("allowzero", 0) == 0)?;
            }
            "Cast" => {
                constant.cast(DataType::try_from(i32::try_from(node.attr_i("to", 0)).ok()?).ok()?)?
            }
            _ => {}
        }
        constant.links.push((at, id));
        Some(constant)
    }
}

/// Whether a node only shows a constant in another way.
pub(super) fn is_link(node: &NodeProto) -> bool {
    ["Identity", "Transpose", "Reshape", "Cast"].iter().any(|op| node.is(op))
}

/// A constant as a value shows it.
#[derive(Clone)]
pub(super) struct Constant<'m> {
    tensor: Cow<'m, TensorProto>,
    /// The value that holds the data.
    pub(super) root: Value<'m>,
    steps: Vec<Step>,
    /// The nodes between, from the data on.
    pub(super) links: Vec<(usize, NodeId)>,
    /// Its shape.
    pub(super) dims: Vec<usize>,
    /// Its element type.
    pub(super) dtype: DataType,
}

/// What is done to the data of a constant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Step {
    Turn(Vec<usize>),
    Reshape(Vec<usize>),
    Negate,
}

impl<'m> Constant<'m> {
    fn of(tensor: Cow<'m, TensorProto>, root: Value<'m>) -> Option<Self> {
        let dims = shape_of(&tensor).ok()?;
        let dtype = DataType::try_from(tensor.data_type()).ok()?;
        Some(Self { tensor, root, steps: Vec::new(), links: Vec::new(), dims, dtype })
    }

    /// Elements.
    pub(super) fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes of an element, of the types that are held in 8 bits.
    pub(super) fn element(&self) -> Option<usize> {
        match self.dtype {
            DataType::Float => Some(4),
            DataType::Float16 | DataType::Bfloat16 => Some(2),
            DataType::Double => Some(8),
            _ => None,
        }
    }

    /// Axes in another order.
    pub(super) fn turn(&mut self, order: Vec<usize>) {
        self.dims = order.iter().map(|&axis| self.dims[axis]).collect();
        self.steps.push(Step::Turn(order));
    }

    /// Every value with the other sign.
    pub(super) fn negate(&mut self) {
        self.steps.push(Step::Negate);
    }

    /// What is done to the data, in as few steps as it takes: constants of one root with the same steps are
    /// the same numbers.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut shapes = vec![shape_of(&self.tensor).unwrap_or_default()];
        for step in &self.steps {
            let step = match (step, steps.last()) {
                (Step::Turn(order), Some(Step::Turn(before))) => {
                    Step::Turn(order.iter().map(|&axis| before[axis]).collect())
                }
                _ => step.clone(),
            };
            if matches!(
                (&step, steps.last()),
                (Step::Turn(_), Some(Step::Turn(_))) | (Step::Reshape(_), Some(Step::Reshape(_)))
            ) {
                steps.pop();
                shapes.pop();
            }
            let shape = shapes.last().cloned().unwrap_or_default();
            let then = match &step {
                Step::Turn(order) if order.iter().copied().eq(0..order.len()) => continue,
                Step::Reshape(then) if *then == shape => continue,
                Step::Turn(order) => order.iter().map(|&axis| shape[axis]).collect(),
                Step::Reshape(then) => then.clone(),
                Step::Negate => shape,
            };
            steps.push(step);
            shapes.push(then);
        }
        steps
    }

    /// Bytes of the data as the file holds it.
    pub(super) fn stored(&self) -> usize {
        usize::try_from(stored_bytes(&self.tensor)).unwrap_or(usize::MAX)
    }

    fn reshape(&mut self, shape: &[i64], zero_copies: bool) -> Option<()> {
        let count = self.count();
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, &dim) in shape.iter().enumerate() {
            dims.push(match dim {
                -1 => 1,
                0 if zero_copies => *self.dims.get(axis)?,
                dim => usize::try_from(dim).ok()?,
            });
        }
        let fixed = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))?;
        if let Some(open) = shape.iter().position(|&dim| dim == -1) {
            dims[open] = count.checked_div(fixed)?;
        }
        if dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))? != count {
            return None;
        }
        self.dims.clone_from(&dims);
        self.steps.push(Step::Reshape(dims));
        Some(())
    }

    /// A type that holds every value of the present one.
    fn cast(&mut self, to: DataType) -> Option<()> {
        use DataType::{Bfloat16, Double, Float, Float16};
        let exact = matches!((self.dtype, to), (Float16 | Bfloat16, Float | Double) | (Float, Double));
        if to != self.dtype && !exact {
            return None;
        }
        self.dtype = to;
        Some(())
    }

    fn integers(&self) -> Option<Vec<i64>> {
        value_of(&self.tensor).ok()?.to_i64().ok().filter(|_| self.steps.is_empty())
    }

    /// The values in f32: the tensor itself where it has them so.
    pub(super) fn floats(&self) -> Option<Cow<'m, TensorProto>> {
        if self.steps.is_empty() && self.tensor.data_type() == DataType::Float as i32 {
            return Some(self.tensor.clone());
        }
        let dims = shape_of(&self.tensor).ok()?;
        let mut values = ArrayD::from_shape_vec(IxDyn(&dims), read(&self.tensor)?).ok()?;
        for step in &self.steps {
            values = match step {
                Step::Turn(order) => {
                    values.permuted_axes(IxDyn(order)).as_standard_layout().into_owned()
                }
                Step::Reshape(dims) => values.into_shape_with_order(IxDyn(dims)).ok()?,
                Step::Negate => -values,
            };
        }
        let (values, _) = values.into_raw_vec_and_offset();
        Some(Cow::Owned(initializer_f32("", &self.dims, &values)))
    }

    /// Whether values times a factor are too small to have scales: not all zero, and all below 1e-30. Their
    /// scales, two orders smaller, are multiplied with those of activations, and that must not vanish.
    pub(super) fn is_tiny(&self, factor: f32) -> bool {
        fn tiny(values: impl Iterator<Item = f64> + Clone, factor: f32) -> bool {
            let mut sizes = values.map(|value| (value * f64::from(factor)).abs());
            // The first value ends it as a rule.
            sizes.clone().all(|size| size < 1e-30) && sizes.any(|size| size > 0.0)
        }
        let bytes = plain_bytes(&self.tensor).unwrap_or_default();
        match dtype_of(self.tensor.data_type()) {
            Some(DType::F32) => {
                let values = bytes.as_chunks::<4>().0.iter();
                tiny(values.map(|bytes| f32::from_le_bytes(*bytes).into()), factor)
            }
            Some(DType::F64) => {
                tiny(bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)), factor)
            }
            _ => {
                let values = read(&self.tensor).unwrap_or_default();
                tiny(values.iter().map(|&value| value.into()), factor)
            }
        }
    }

    /// Whether every value is a number.
    pub(super) fn is_finite(&self) -> bool {
        read(&self.tensor).is_some_and(|values| values.iter().all(|value| value.is_finite()))
    }
}

/// The values of a tensor of floats of any width.
fn read(tensor: &TensorProto) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
    }
    let bytes = plain_bytes(tensor)?;
    Some(match dtype_of(tensor.data_type())? {
        DType::F32 => each(&bytes, f32::from_le_bytes),
        DType::F64 => each(&bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        DType::F16 => each(&bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
        DType::BF16 => each(&bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        _ => return None,
    })
}
