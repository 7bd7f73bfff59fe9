//! Nodes and small graphs, made in code.

use super::domains::is_own_domain;
use super::proto::{
    AttributeProto, GraphProto, NodeProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

/// The key of the metadata in which a node names the pass that made it.
const AUTHOR: &str = "soprano_export.pass";

/// Writes the name of the pass that made a node into its metadata.
pub(super) fn sign(node: &mut NodeProto, author: &str) {
    node.metadata_props
        .push(StringStringEntryProto { key: Some(AUTHOR.to_owned()), value: Some(author.to_owned()) });
}

impl NodeProto {
    /// Whether the node is of this operator of ONNX's own domain.
    pub fn is(&self, op: &str) -> bool {
        is_own_domain(self.domain()) && self.op_type() == op
    }

    /// The node's name, or that of its first output where it has none; empty where that has none either.
    pub fn called(&self) -> &str {
        let outputs = self.output.iter().map(String::as_str);
        let mut names = std::iter::once(self.name()).chain(outputs);
        names.find(|name| !name.is_empty()).unwrap_or_default()
    }

    /// The operator with its domain, as people write it: `Conv`, `com.microsoft.Gelu`.
    pub fn qualified_op(&self) -> String {
        match self.domain() {
            domain if is_own_domain(domain) => self.op_type().to_owned(),
            domain => format!("{domain}.{}", self.op_type()),
        }
    }

    /// An attribute by name.
    pub fn attr(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|a| a.name() == name)
    }

    /// An integer attribute, or `default` where it is absent.
    pub fn attr_i(&self, name: &str, default: i64) -> i64 {
        self.attr(name).map_or(default, |a| a.i())
    }

    /// A float attribute, or `default` where it is absent.
    pub fn attr_f(&self, name: &str, default: f32) -> f32 {
        self.attr(name).map_or(default, |a| a.f())
    }

    /// A list of integers.
    pub fn attr_ints(&self, name: &str) -> Option<&[i64]> {
        self.attr(name).map(|a| a.ints.as_slice())
    }

    /// An input by place; none where it is left out.
    pub fn input_at(&self, at: usize) -> Option<&str> {
        self.input.get(at).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The pass that made the node, as its metadata says.
    pub fn author(&self) -> Option<&str> {
        self.metadata_props.iter().find(|entry| entry.key() == AUTHOR).map(|entry| entry.value())
    }

    /// An output by place; none where it is left out.
    pub fn output_at(&self, at: usize) -> Option<&str> {
        self.output.get(at).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The graphs nested in the node, in the order of its attributes.
    pub(crate) fn nested(&self) -> impl Iterator<Item = &GraphProto> {
        self.attribute.iter().flat_map(AttributeProto::nested)
    }

    pub(crate) fn nested_mut(&mut self) -> impl Iterator<Item = &mut GraphProto> {
        self.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
    }
}

impl AttributeProto {
    /// The graphs that it holds.
    pub(crate) fn nested(&self) -> impl Iterator<Item = &GraphProto> {
        self.g.iter().chain(&self.graphs)
    }
}

impl GraphProto {
    /// The tensors of the initializers, dense and sparse.
    pub(super) fn constants(&self) -> impl Iterator<Item = &TensorProto> {
        let sparse = self.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        self.initializer.iter().chain(sparse)
    }

    /// The graphs nested in its nodes.
    pub(crate) fn nested_mut(&mut self) -> impl Iterator<Item = &mut GraphProto> {
        self.node.iter_mut().flat_map(NodeProto::nested_mut)
    }
}

/// The value of an attribute.
#[derive(Clone, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Attr {
    Int(i64),
    Float(f32),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    String(String),
    Tensor(TensorProto),
}

/// A node under construction.
pub struct NodeBuilder(NodeProto);

/// Starts a node of ONNX's own domain.
pub fn node<S: Into<String>>(
    op: &str,
    inputs: impl IntoIterator<Item = S>,
    output: impl Into<String>,
) -> NodeBuilder {
    NodeBuilder(NodeProto {
        op_type: Some(op.to_owned()),
        input: inputs.into_iter().map(Into::into).collect(),
        output: vec![output.into()],
        ..Default::default()
    })
}

impl NodeBuilder {
    /// Names the node; a node without a name gets its first output's.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.0.name = Some(name.into());
        self
    }

    /// Puts the node into another operator domain.
    pub fn domain(mut self, domain: &str) -> Self {
        self.0.domain = Some(domain.to_owned());
        self
    }

    /// Adds an output.
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.0.output.push(name.into());
        self
    }

    /// Adds an attribute.
    pub fn attr(self, name: &str, value: Attr) -> Self {
        let mut attribute = AttributeProto { name: Some(name.to_owned()), ..Default::default() };
        attribute.set_type(match value {
            Attr::Int(_) => AttributeType::Int,
            Attr::Float(_) => AttributeType::Float,
            Attr::Floats(_) => AttributeType::Floats,
            Attr::Ints(_) => AttributeType::Ints,
            Attr::String(_) => AttributeType::String,
            Attr::Tensor(_) => AttributeType::Tensor,
        });
        match value {
            Attr::Int(i) => attribute.i = Some(i),
            Attr::Float(f) => attribute.f = Some(f),
            Attr::Floats(floats) => attribute.floats = floats,
            Attr::Ints(ints) => attribute.ints = ints,
            Attr::String(s) => attribute.s = Some(s.into_bytes().into()),
            Attr::Tensor(t) => attribute.t = Some(t),
        }
        self.attribute(attribute)
    }

    /// Names the pass that makes the node.
    pub fn author(mut self, pass: &str) -> Self {
        sign(&mut self.0, pass);
        self
    }

    /// Adds an attribute as another node has it.
    pub fn attribute(mut self, attribute: AttributeProto) -> Self {
        self.0.attribute.push(attribute);
        self
    }

    /// Adds an integer attribute.
    pub fn int(self, name: &str, value: i64) -> Self {
        self.attr(name, Attr::Int(value))
    }

    /// Adds a list of integers.
    pub fn ints(self, name: &str, values: impl Into<Vec<i64>>) -> Self {
        self.attr(name, Attr::Ints(values.into()))
    }

    /// The finished node.
    pub fn build(mut self) -> NodeProto {
        if self.0.name.is_none() {
            self.0.name = self.0.output.first().cloned();
        }
        self.0
    }
}

/// A float input or output; a dimension is a number, or a name for one that stays open.
pub fn value_f32(name: &str, dims: &[&str]) -> ValueInfoProto {
    value_info(name, DataType::Float, dims)
}

/// An int64 input or output; dimensions likewise.
pub fn value_i64(name: &str, dims: &[&str]) -> ValueInfoProto {
    value_info(name, DataType::Int64, dims)
}

fn value_info(name: &str, dtype: DataType, dims: &[&str]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|text| {
            let value = match text.parse::<i64>() {
                Ok(n) => dimension::Value::DimValue(n),
                Err(_) => dimension::Value::DimParam((*text).to_owned()),
            };
            Dimension { value: Some(value), ..Default::default() }
        })
        .collect();
    let tensor =
        type_proto::Tensor { elem_type: Some(dtype as i32), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl ValueInfoProto {
    pub(crate) fn tensor_type(&self) -> Option<&type_proto::Tensor> {
        match self.r#type.as_ref()?.value.as_ref()? {
            type_proto::Value::TensorType(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The element type's short name; `?` where it isn't a tensor.
    pub fn dtype_name(&self) -> String {
        self.tensor_type().map_or_else(|| "?".to_owned(), |t| super::dtype_name(t.elem_type()))
    }

    /// The element type's ONNX code; 0, undefined, where it isn't a tensor.
    pub(crate) fn element_type(&self) -> i32 {
        self.tensor_type().map_or(0, |tensor| tensor.elem_type())
    }

    /// Gives a tensor another element type, by its ONNX code.
    pub(crate) fn set_element_type(&mut self, code: i32) {
        let value = self.r#type.as_mut().and_then(|of| of.value.as_mut());
        if let Some(type_proto::Value::TensorType(tensor)) = value {
            tensor.elem_type = Some(code);
        }
    }

    /// Dimensions as text: a number, the name of an open one, or `?`.
    pub fn dims(&self) -> Vec<String> {
        self.shape().unwrap_or_default()
    }
}
