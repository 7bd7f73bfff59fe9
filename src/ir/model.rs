use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::error::Error;
use super::graph::{Graph, is_own_domain};
use super::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use super::tensors::{bytes_of, check_data};
use super::{external, write};
use crate::digest::{Digest, HashingWriter};

/// Protobuf's own limit, which ONNX Runtime and the Python package enforce.
const LIMIT: u64 = (1 << 31) - 1;

/// Maps a file read-only.
#[allow(unsafe_code)]
pub(super) fn map(path: &Path) -> std::io::Result<Bytes> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a plain file"));
    }
    let file = std::fs::File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the file is only read. Another process that cuts it short meanwhile ends this one with
    // SIGBUS, as with any mapped file; artifacts are therefore renamed into place, never cut.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

/// The map of a model's own file, as a whole: only [`Model::open`] makes one.
#[derive(Clone, Debug)]
struct Mapped(Bytes);

impl Mapped {
    /// Gives the pages that were read back to the system, which reads them again if they are needed:
    /// a rewrite that replaces every weight would otherwise hold each of them twice.
    fn release(&self) {
        #[cfg(target_os = "linux")]
        #[allow(unsafe_code)]
        // SAFETY: the range is one read-only map of a file, whole, alive through the handle, and never
        // written; dropped pages hold the file's own bytes when they are next read.
        unsafe {
            libc::madvise(self.0.as_ptr().cast_mut().cast(), self.0.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The version of an operator set that a model imports.
pub(super) fn opset_of(model: &ModelProto, domain: &str) -> Option<i64> {
    let same = |set: &&OperatorSetIdProto| {
        set.domain() == domain || is_own_domain(set.domain()) && is_own_domain(domain)
    };
    model.opset_import.iter().find(same).map(|set| set.version())
}

/// An ONNX model whose weights lie in a memory map until somebody changes them.
#[derive(Clone, Debug)]
pub struct Model {
    proto: ModelProto,
    path: PathBuf,
    mapped: Option<Mapped>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

impl Model {
    /// Opens a model: maps the file, decodes it, maps its external data, and checks that names,
    /// order and sizes are consistent. Weights are not read.
    ///
    /// # Errors
    /// [`Error`] names the file and the node or tensor that is wrong; a file with fields that this
    /// version of the format doesn't have is refused as [`Error::Lossy`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = map(path).map_err(Error::io(path))?;
        let mut model = Self::from_bytes(bytes.clone(), path)?;
        // An empty file is no map, and was refused above.
        model.mapped = Some(Mapped(bytes));
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
        let mut proto = ModelProto::decode(bytes)
            .map_err(|e| Error::Decode { path: path.clone(), why: e.to_string() })?;
        if proto.graph.is_none() {
            return Err(Error::Decode { path, why: "it holds no graph".to_owned() });
        }
        let kept = proto.encoded_len() as u64;
        if kept != length {
            return Err(Error::Lossy { path, lost: length as i64 - kept as i64 });
        }
        if external::any(&proto) {
            external::embed(&mut proto, &path)?;
        }
        let model = Model { proto, path, mapped: None };
        model.check()?;
        Ok(model)
    }

    /// A model made in memory; checked as a file would be.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it isn't consistent.
    pub fn from_proto(proto: ModelProto, name: impl Into<PathBuf>) -> Result<Self, Error> {
        let model = Model { proto, path: name.into(), mapped: None };
        model.check()?;
        Ok(model)
    }

    /// Where the model came from.
    pub fn path(&self) -> &Path {
        &self.path
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

    pub(super) fn graph_proto_mut(&mut self) -> &mut GraphProto {
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
        self.graph_proto().initializer.iter().map(bytes_of).sum()
    }

    /// Checks names and order of the main graph: every value is made once and before it is
    /// used, every output exists; and every tensor anywhere in the model holds what its shape says.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first node or tensor that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let refuse =
            |place: String, why: String| Error::Invalid { path: self.path.clone(), place, why };
        if self.proto.graph.is_none() {
            return Err(refuse("the model".to_owned(), "it holds no graph".to_owned()));
        }
        external::for_each_tensor(&self.proto, &mut |tensor, place| {
            check_data(tensor).map_err(|why| refuse(place.of(tensor), why))
        })?;
        self.graph().check().map_err(|(place, why)| refuse(place, why))
    }

    /// Lets go of the memory of weights that were read and have been replaced.
    pub(super) fn release_pages(&self) {
        if let Some(mapped) = &self.mapped {
            mapped.release();
        }
    }

    /// Writes the model in one stream, hashing on the way; nothing of it is copied in memory.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::TooLarge`] past protobuf's 2 GiB.
    pub fn write(&self, path: &Path) -> Result<Written, Error> {
        let bytes = self.proto.encoded_len() as u64;
        if bytes > LIMIT {
            return Err(Error::TooLarge { path: path.to_owned(), bytes });
        }
        let file = std::fs::File::create(path).map_err(Error::io(path))?;
        let mut to = HashingWriter::new(file);
        write::stream(&self.proto, &mut to).map_err(Error::io(path))?;
        let (_, digest, bytes) = to.finish().map_err(Error::io(path))?;
        Ok(Written { digest, bytes })
    }

    /// Writes the model beside its place and renames it there: a whole file, or none.
    ///
    /// # Errors
    /// [`Error::Exists`] unless `overwrite`; as [`Model::write`].
    pub fn save(&self, path: &Path, overwrite: bool) -> Result<Written, Error> {
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let staging = tempfile::Builder::new()
            .prefix(".soprano-export-")
            .tempfile_in(folder)
            .map_err(Error::io(folder))?;
        let written = self.write(staging.path())?;
        staging.persist(path).map_err(|e| Error::io(path)(e.error))?;
        Ok(written)
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
