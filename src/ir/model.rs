use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::check::{check, fault};
use super::difference::same_model;
use super::domains::opset_of;
use super::error::Error;
use super::external;
use super::graph::Graph;
use super::map::Mapped;
use super::proto::{GraphProto, ModelProto};
use super::tensors::{check_data, stored_bytes};
use super::walk::for_each_tensor;
use super::wire::{UnknownFields, unknown_fields};
use crate::files::map;

/// Protobuf's own limit, which ONNX Runtime and the Python package enforce.
pub(super) const LIMIT: u64 = (1 << 31) - 1;

/// An ONNX model whose weights lie in a memory map until somebody changes them.
#[derive(Clone, Debug)]
pub struct Model {
    proto: ModelProto,
    path: PathBuf,
    mapped: Option<Mapped>,
    /// The file's own bytes, where it came from one.
    source: Option<Bytes>,
    unknown: Option<UnknownFields>,
    /// The files of its external data.
    data: Vec<PathBuf>,
}

impl Model {
    /// Opens a model: maps the file, decodes it, maps its external data, and checks that names,
    /// order and sizes are consistent, as [`Model::consistent`] does. Weights are not read.
    ///
    /// # Errors
    /// [`Error`] names the file and the node or tensor that is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = map(path).map_err(Error::io(path))?;
        let mut model = Self::from_bytes(bytes.clone(), path)?;
        // An empty file can't be mapped, and was refused above.
        model.mapped = Some(Mapped(bytes));
        Ok(model)
    }

    /// Opens a model that is to be rewritten: one that [`Model::check`] lets pass.
    ///
    /// # Errors
    /// As [`Model::open`] and [`Model::check`].
    pub fn open_checked(path: impl AsRef<Path>) -> Result<Self, Error> {
        let model = Self::open(path)?;
        model.check()?;
        Ok(model)
    }

    /// Decodes a model from memory; `path` is named in errors and is where external data is sought.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: Bytes, path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let length = bytes.len() as u64;
        if length == 0 {
            return Err(Error::Empty { path });
        }
        if length > LIMIT {
            return Err(Error::TooLarge { path, bytes: length });
        }
        let mut proto = ModelProto::decode(bytes.clone())
            .map_err(|e| Error::Decode { path: path.clone(), why: e.to_string() })?;
        if proto.graph.is_none() {
            return Err(Error::Decode { path, why: "it holds no graph".to_owned() });
        }
        let unknown = unknown_fields(&bytes);
        let data = match external::any(&proto) {
            true => external::embed(&mut proto, &path)?,
            false => Vec::new(),
        };
        let model = Model { proto, path, mapped: None, source: Some(bytes), unknown, data };
        model.consistent()?;
        Ok(model)
    }

    /// A model made in memory; consistent as a file must be.
    ///
    /// # Errors
    /// As [`Model::consistent`].
    pub fn from_proto(proto: ModelProto, name: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = name.into();
        let model = Model { proto, path, mapped: None, source: None, unknown: None, data: Vec::new() };
        model.consistent()?;
        Ok(model)
    }

    /// Where the model came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that its weights lie in next to its own, without links on the way.
    pub(super) fn data_files(&self) -> &[PathBuf] {
        &self.data
    }

    /// The protobuf message.
    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The message, for changes outside the graph's nodes; [`Model::check`] it afterwards.
    pub fn proto_mut(&mut self) -> &mut ModelProto {
        &mut self.proto
    }

    /// The main graph.
    pub fn graph_proto(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("checked when opened")
    }

    pub(crate) fn graph_proto_mut(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().expect("checked when opened")
    }

    /// An index of the main graph.
    pub fn graph(&self) -> Graph<'_> {
        Graph::new(&self.proto)
    }

    /// The version of an operator set, if the model imports it (`""` is ONNX's own).
    pub fn opset(&self, domain: &str) -> Option<i64> {
        opset_of(&self.proto, domain)
    }

    /// The bytes of all initializers of the main graph.
    pub fn weight_bytes(&self) -> u64 {
        self.graph_proto().initializer.iter().map(stored_bytes).sum()
    }

    /// What the file has that this version of ONNX doesn't: a rewrite would lose it.
    pub fn unknown_fields(&self) -> Option<&UnknownFields> {
        self.unknown.as_ref()
    }

    /// Checks what reading a model relies on: in the main graph every value is made once and before it
    /// is used, and every output exists; every tensor anywhere holds what its shape says.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first node or tensor that is wrong.
    pub fn consistent(&self) -> Result<(), Error> {
        let refuse = |place, why| Error::invalid(&self.path, fault(place, why));
        if self.proto.graph.is_none() {
            return Err(refuse("the model".to_owned(), "it holds no graph".to_owned()));
        }
        for_each_tensor(&self.proto, &mut |tensor, place| {
            check_data(tensor).map_err(|why| refuse(place.of(tensor), why))
        })?;
        self.graph().check().map_err(|(place, why)| refuse(place, why))
    }

    /// Checks everything that makes a file unusable: what [`Model::consistent`] does, and beyond it the
    /// values of nested graphs and functions, the names of nodes, imported operator sets, the form of
    /// each operator at its operator set with the element types of its inputs, and the rules of the IR
    /// version. Nothing is refused that isn't certainly wrong or of an operator set newer than
    /// the table of forms; operators of other domains are not judged.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first node that is wrong, and the operator set that it needs;
    /// [`Error::UnknownFields`] what of the file would be lost.
    pub fn check(&self) -> Result<(), Error> {
        if let Some(fields) = &self.unknown {
            return Err(Error::UnknownFields { path: self.path.clone(), fields: fields.clone() });
        }
        self.consistent()?;
        check(&self.proto).map_err(|fault| Error::invalid(&self.path, fault))
    }

    /// The file's own bytes, where the model is still what stands in them, bit by bit.
    pub(super) fn unchanged(&self) -> Option<&Bytes> {
        let source = self.source.as_ref()?;
        let then = ModelProto::decode(source.clone()).ok()?;
        same_model(&then, &self.proto).then_some(source)
    }

    /// As [`Model::check`], of a model that may have been changed: a fault is the file's own if the file
    /// has it, and else that of what changed it.
    ///
    /// # Errors
    /// As [`Model::check`]; [`Error::Rewritten`].
    pub fn check_rewritten(&self) -> Result<(), Error> {
        let Err(error) = self.check() else { return Ok(()) };
        let Some(source) = &self.source else { return Err(error) };
        let before = Self::from_bytes(source.clone(), &self.path).and_then(|file| file.check());
        before.and(Err(error.ours()))
    }

    /// Lets go of the memory of weights that were read and have been replaced.
    pub(super) fn release_pages(&self) {
        if let Some(mapped) = &self.mapped {
            mapped.release();
        }
    }

    /// The model as bytes, for a runtime that takes no path.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TestGraph, initializer_f32, node};
    use super::*;

    #[test]
    fn a_model_of_numbers_that_equal_nothing_is_unchanged() {
        let mut weight = initializer_f32("w", &[1], &[f32::NAN]);
        weight.raw_data = None;
        weight.float_data = vec![f32::NAN];
        let original = TestGraph::new()
            .input("x", &["1"])
            .initializer(weight)
            .node(node("Add", ["x", "w"], "y"))
            .output("y", &["1"])
            .model();
        let mut model = Model::from_bytes(original.to_bytes().into(), "m.onnx").unwrap();
        assert!(model.unchanged().is_some());
        model.graph_proto_mut().initializer[0].float_data[0] = -f32::NAN;
        assert!(model.unchanged().is_none());
    }

    #[test]
    fn pages_that_were_given_back_are_read_again() {
        let values: Vec<f32> = (0..1 << 20).map(|i| i as f32).collect();
        let model = TestGraph::new()
            .input("x", &["1048576"])
            .initializer(initializer_f32("w", &[values.len()], &values))
            .node(node("Mul", ["x", "w"], "y"))
            .output("y", &["1048576"])
            .model();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        model.write(&path).unwrap();
        let opened = Model::open(&path).unwrap();
        let read = || opened.graph().constant_f32("w").unwrap().1;
        assert_eq!(read(), values);
        opened.release_pages();
        assert_eq!(read(), values);
        assert_eq!(opened.to_bytes(), std::fs::read(&path).unwrap());
    }
}
