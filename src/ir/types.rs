//! Types of values as people read them: `f32 [n, 2]`, `sequence(f32 ?)`, `optional(i64 [])`.

use super::proto::{
    TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto::Value,
};
use super::tensors::dtype_name;

impl ValueInfoProto {
    /// The type without a tensor's shape: `f32`, `sparse f32`, `sequence(f32 [n])`, `map(i64, f32 [])`; `?`
    /// where none is given.
    pub fn type_name(&self) -> String {
        self.r#type.as_ref().map_or_else(|| "?".to_owned(), TypeProto::name)
    }

    /// Dimensions as text: a number, the name of an open one, or `?`. None where the shape is not known, and
    /// where the value is not a tensor; a scalar has a list without entries.
    pub fn shape(&self) -> Option<Vec<String>> {
        self.r#type.as_ref()?.shape().map(TensorShapeProto::sizes)
    }

    /// The element type, where it is a tensor and says so.
    pub(super) fn elem_type(&self) -> Option<i32> {
        self.tensor_type()?.elem_type.filter(|&dtype| dtype != 0)
    }

    /// Whether it is a tensor, dense or sparse: only those have a shape.
    pub fn is_tensor(&self) -> bool {
        let value = self.r#type.as_ref().and_then(|t| t.value.as_ref());
        matches!(value, Some(Value::TensorType(_) | Value::SparseTensorType(_)))
    }
}

impl TypeProto {
    fn shape(&self) -> Option<&TensorShapeProto> {
        match self.value.as_ref()? {
            Value::TensorType(tensor) => tensor.shape.as_ref(),
            Value::SparseTensorType(tensor) => tensor.shape.as_ref(),
            _ => None,
        }
    }

    /// The type without a tensor's shape.
    fn name(&self) -> String {
        let inner = |of: &Option<Box<TypeProto>>| {
            of.as_ref().map_or_else(|| "?".to_owned(), |inner| inner.text())
        };
        match &self.value {
            None => "?".to_owned(),
            Some(Value::TensorType(tensor)) => dtype_name(tensor.elem_type()),
            Some(Value::SparseTensorType(tensor)) => {
                format!("sparse {}", dtype_name(tensor.elem_type()))
            }
            Some(Value::SequenceType(of)) => format!("sequence({})", inner(&of.elem_type)),
            Some(Value::OptionalType(of)) => format!("optional({})", inner(&of.elem_type)),
            Some(Value::MapType(of)) => {
                format!("map({}, {})", dtype_name(of.key_type()), inner(&of.value_type))
            }
            Some(Value::OpaqueType(of)) if of.domain().is_empty() => format!("opaque({})", of.name()),
            Some(Value::OpaqueType(of)) => format!("opaque({}.{})", of.domain(), of.name()),
        }
    }

    /// The type with a tensor's shape: `f32 [n, 2]`, `f32 ?` where the shape is not known.
    pub(crate) fn text(&self) -> String {
        match (&self.value, self.shape()) {
            (Some(Value::TensorType(_) | Value::SparseTensorType(_)), None) => {
                format!("{} ?", self.name())
            }
            (_, Some(shape)) => format!("{} [{}]", self.name(), shape.sizes().join(", ")),
            (_, None) => self.name(),
        }
    }
}

impl TensorShapeProto {
    /// Dimensions as text.
    pub(crate) fn sizes(&self) -> Vec<String> {
        let text = |dim: &Dimension| match &dim.value {
            Some(dimension::Value::DimValue(n)) => n.to_string(),
            Some(dimension::Value::DimParam(name)) if !name.is_empty() => name.clone(),
            _ => "?".to_owned(),
        };
        self.dim.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::type_proto;
    use super::super::{value_f32, value_i64};
    use super::*;

    fn value(of: Option<Value>) -> ValueInfoProto {
        let r#type = of.map(|value| TypeProto { value: Some(value), ..Default::default() });
        ValueInfoProto { r#type, ..Default::default() }
    }

    #[test]
    fn an_unknown_shape_is_no_scalar() {
        let tensor =
            |shape| value(Some(Value::TensorType(type_proto::Tensor { elem_type: Some(1), shape })));
        let seen = |v: &ValueInfoProto| (v.type_name(), v.shape(), v.is_tensor());
        assert_eq!(seen(&tensor(None)), ("f32".into(), None, true));
        assert_eq!(seen(&value_f32("x", &[])), ("f32".into(), Some(vec![]), true));
        let open = TensorShapeProto { dim: vec![Dimension::default()] };
        assert_eq!(seen(&tensor(Some(open))), ("f32".into(), Some(vec!["?".into()]), true));
        assert_eq!(seen(&value(None)), ("?".into(), None, false));
    }

    #[test]
    fn what_is_no_dense_tensor_is_named() {
        let element = || Some(Box::new(value_i64("x", &["n"]).r#type.unwrap()));
        let types = [
            (
                Value::SequenceType(Box::new(type_proto::Sequence { elem_type: element() })),
                "sequence(i64 [n])",
            ),
            (Value::OptionalType(Box::new(type_proto::Optional { elem_type: None })), "optional(?)"),
            (
                Value::MapType(Box::new(type_proto::Map { key_type: Some(8), value_type: element() })),
                "map(string, i64 [n])",
            ),
            (
                Value::SparseTensorType(type_proto::SparseTensor { elem_type: Some(21), shape: None }),
                "sparse uint4",
            ),
            (
                Value::OpaqueType(type_proto::Opaque {
                    domain: Some("a".into()),
                    name: Some("B".into()),
                }),
                "opaque(a.B)",
            ),
        ];
        for (of, name) in types {
            assert_eq!(value(Some(of)).type_name(), name);
        }
    }
}
