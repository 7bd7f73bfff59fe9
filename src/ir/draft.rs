//! A model whose large constants are made when its file is written, one at a time.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::error::Error;
use super::model::{LIMIT, Model};
use super::proto::{GraphProto, ModelProto, TensorProto, tensor_proto::DataType};
use super::save::Written;
use super::tensors::initializer_raw;
use crate::digest::HashingWriter;
use crate::tensor;

/// Numbers of the fields that hold them, in `onnx.proto`.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

/// Makes the values of a constant: little-endian f32, row-major.
pub type Make = Box<dyn Fn() -> Result<Bytes, tensor::Error> + Send + Sync>;

/// A constant f32 whose values are made when they are written.
pub struct Late {
    /// Its name in the graph.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Makes its values.
    pub make: Make,
}

impl Late {
    fn tensor(&self, data: Bytes) -> TensorProto {
        initializer_raw(&self.name, DataType::Float, &self.shape, data)
    }

    fn values(&self) -> Result<Bytes, tensor::Error> {
        let bytes = (self.make)()?;
        match bytes.len() == self.size() {
            true => Ok(bytes),
            false => Err(tensor::Error::Length {
                shape: self.shape.clone(),
                dtype: tensor::DType::F32,
                needs: self.size() as u128,
                has: bytes.len(),
            }),
        }
    }

    fn size(&self) -> usize {
        4 * self.shape.iter().product::<usize>()
    }
}

/// A graph in full but for its large constants. Written, it is byte for byte what [`Draft::whole`] is written as.
pub struct Draft {
    /// The model, with its small constants.
    pub model: ModelProto,
    /// The others; they stand behind the small ones.
    pub late: Vec<Late>,
}

impl Draft {
    /// The model in memory, every constant made.
    ///
    /// # Errors
    /// [`Error::Values`] where one can't be made; as [`Model::from_proto`].
    pub fn whole(&self, name: impl Into<std::path::PathBuf>) -> Result<Model, Error> {
        let name = name.into();
        let mut proto = self.model.clone();
        let graph = proto.graph.get_or_insert_default();
        for late in &self.late {
            let data = late.values().map_err(|why| fault(&name, late, &why))?;
            graph.initializer.push(late.tensor(data));
        }
        Model::from_proto(proto, name)
    }

    /// Writes the model's file, hashing on the way. Two constants are in memory at a time: one that is written, and
    /// the next.
    ///
    /// # Errors
    /// [`Error::TooLarge`] past protobuf's 2 GiB; [`Error::Values`] and [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<Written, Error> {
        let parts = Parts::of(self);
        if parts.bytes > LIMIT {
            return Err(Error::TooLarge { path: path.to_owned(), bytes: parts.bytes });
        }
        let file = std::fs::File::create(path).map_err(Error::io(path))?;
        let mut to = HashingWriter::new(file);
        std::thread::scope(|scope| {
            let (send, made) = mpsc::sync_channel(0);
            scope.spawn(move || {
                // Nobody listens any more where writing failed.
                self.late
                    .iter()
                    .map(Late::values)
                    .try_for_each(|values| send.send(values).map_err(drop))
            });
            to.write_all(&parts.before).map_err(Error::io(path))?;
            for (late, head) in self.late.iter().zip(&parts.heads) {
                let values = made.recv().map_err(|_| Error::io(path)(io::Error::other("no values")))?;
                let values = values.map_err(|why| fault(path, late, &why))?;
                to.write_all(head).and_then(|()| to.write_all(&values)).map_err(Error::io(path))?;
            }
            to.write_all(&parts.after).map_err(Error::io(path))
        })?;
        let (_, digest, bytes) = to.finish().map_err(Error::io(path))?;
        Ok(Written { digest, bytes })
    }
}

fn fault(path: &Path, late: &Late, why: &tensor::Error) -> Error {
    Error::Values { path: path.to_owned(), tensor: late.name.clone(), why: why.to_string() }
}

/// The file in pieces: what stands before the large constants, before each one's values, and after them.
struct Parts {
    before: Vec<u8>,
    heads: Vec<Vec<u8>>,
    after: Vec<u8>,
    bytes: u64,
}

impl Parts {
    fn of(draft: &Draft) -> Self {
        let mut model = draft.model.clone();
        let graph = model.graph.take().unwrap_or_default();
        let heads: Vec<Vec<u8>> = draft.late.iter().map(head).collect();
        let values: usize = draft.late.iter().map(Late::size).sum();
        // Fields are written in the order of their numbers: nodes, a name, constants, the rest.
        let (first, rest) = (
            GraphProto {
                node: graph.node,
                name: graph.name,
                initializer: graph.initializer,
                ..Default::default()
            },
            GraphProto { node: Vec::new(), name: None, initializer: Vec::new(), ..graph },
        );
        let of_graph = first.encoded_len()
            + heads.iter().map(Vec::len).sum::<usize>()
            + values
            + rest.encoded_len();
        let (head, tail) = around_graph(model);
        let mut before = head.encode_to_vec();
        encode_key(GRAPH, WireType::LengthDelimited, &mut before);
        encode_varint(of_graph as u64, &mut before);
        first.encode(&mut before).expect("a vector takes any length");
        let mut after = rest.encode_to_vec();
        tail.encode(&mut after).expect("a vector takes any length");
        let bytes = before.len() + heads.iter().map(Vec::len).sum::<usize>() + values + after.len();
        Self { before, heads, after, bytes: bytes as u64 }
    }
}

/// The fields of a model before its graph, and those after it.
fn around_graph(model: ModelProto) -> (ModelProto, ModelProto) {
    let head = ModelProto {
        ir_version: model.ir_version,
        producer_name: model.producer_name,
        producer_version: model.producer_version,
        domain: model.domain,
        model_version: model.model_version,
        doc_string: model.doc_string,
        ..Default::default()
    };
    let tail = ModelProto {
        ir_version: None,
        producer_name: None,
        producer_version: None,
        domain: None,
        model_version: None,
        doc_string: None,
        ..model
    };
    (head, tail)
}

/// What stands before a constant's values.
fn head(late: &Late) -> Vec<u8> {
    let tensor = late.tensor(Bytes::new());
    let tensor = TensorProto { raw_data: None, ..tensor };
    let size = late.size();
    let of_data = key_len(RAW_DATA) + encoded_len_varint(size as u64) + size;
    let mut head = Vec::new();
    encode_key(INITIALIZER, WireType::LengthDelimited, &mut head);
    encode_varint((tensor.encoded_len() + of_data) as u64, &mut head);
    tensor.encode(&mut head).expect("a vector takes any length");
    encode_key(RAW_DATA, WireType::LengthDelimited, &mut head);
    encode_varint(size as u64, &mut head);
    head
}

#[cfg(test)]
mod tests {
    use super::super::{TestGraph, initializer_f32, node};
    use super::*;

    fn draft() -> Draft {
        let model = TestGraph::new()
            .input("x", &["4"])
            .initializer(initializer_f32("small", &[4], &[1.0, 2.0, 3.0, 4.0]))
            .initializer(initializer_f32("late", &[4], &[0.5; 4]))
            .initializer(initializer_f32("other", &[4], &[2.0; 4]))
            .node(node("Add", ["x", "small"], "a"))
            .node(node("Add", ["a", "late"], "b"))
            .node(node("Mul", ["b", "other"], "y"))
            .output("y", &["4"])
            .model();
        let mut model = model.proto().clone();
        model.graph.as_mut().unwrap().initializer.truncate(1);
        let late = |name: &str, value: f32| Late {
            name: name.into(),
            shape: vec![4],
            make: Box::new(move || Ok(value.to_le_bytes().repeat(4).into())),
        };
        Draft { model, late: vec![late("late", 0.5), late("other", 2.0)] }
    }

    #[test]
    fn the_file_is_the_one_of_the_whole_model() {
        let folder = tempfile::tempdir().unwrap();
        let [streamed, whole] = ["a.onnx", "b.onnx"].map(|name| folder.path().join(name));
        let written = draft().write(&streamed).unwrap();
        assert_eq!(written, draft().whole("b.onnx").unwrap().write(&whole).unwrap());
        assert_eq!(std::fs::read(&streamed).unwrap(), std::fs::read(&whole).unwrap());
        Model::open_checked(&streamed).unwrap();
    }

    #[test]
    fn values_that_are_too_few_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = draft();
        draft.late[1].make = Box::new(|| Ok(Bytes::new()));
        let error = draft.write(&folder.path().join("a.onnx")).unwrap_err();
        assert!(error.to_string().contains("other"), "{error}");
        draft.whole("a.onnx").unwrap_err();
    }
}
