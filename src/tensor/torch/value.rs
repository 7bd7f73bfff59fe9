//! What a pickle of a state dict is made of.

use std::ops::Range;

use bytes::Bytes;

use super::globals::{Element, Global};

/// A value's place in the machine's list of values: containers hold places, so that nothing nests in memory.
pub(super) type Id = usize;

/// A value that the pickle makes.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    /// Text, by its place in the pickle.
    Text(Range<usize>),
    Tuple(Box<[Id]>),
    List,
    /// Items in the order in which they were set; keys may repeat.
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Box<Storage>),
    Tensor(Box<View>),
    /// Something harmless that no tensor needs, by the name of its type.
    Other(&'static str),
}

impl Value {
    /// The name of its type in Python.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float => "float",
            Value::Text(_) => "str",
            Value::Tuple(_) => "tuple",
            Value::List => "list",
            Value::Dict(_) => "dict",
            Value::Global(_) => "type",
            Value::Storage(_) => "Storage",
            Value::Tensor(_) => "Tensor",
            Value::Other(name) => name,
        }
    }
}

/// Bytes of a record of the archive, as the pickle speaks of them.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub element: &'static Element,
    pub bytes: Bytes,
}

/// A tensor: a strided view of a storage, or one of a form that has none.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub element: &'static Element,
    /// `sparse_coo`, `meta`, …; empty for dense tensors, which alone have what follows.
    pub layout: &'static str,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
    /// From the first element on.
    pub bytes: Bytes,
    /// Bytes of the whole storage.
    pub storage: usize,
}

/// The values that a pickle has made, and the pickle, which its texts lie in.
pub(super) struct Values<'a> {
    pub pickle: &'a [u8],
    list: Vec<Value>,
}

impl<'a> Values<'a> {
    pub fn new(pickle: &'a [u8]) -> Self {
        Self { pickle, list: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn push(&mut self, value: Value) -> Id {
        self.list.push(value);
        self.list.len() - 1
    }

    pub fn get(&self, id: Id) -> &Value {
        &self.list[id]
    }

    pub fn get_mut(&mut self, id: Id) -> &mut Value {
        &mut self.list[id]
    }

    /// Text, where a value is that.
    pub fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Text(place) => std::str::from_utf8(&self.pickle[place.clone()]).ok(),
            _ => None,
        }
    }
}
