//! A named, typed block of numbers, and the safetensors and NumPy files that hold them.

mod gather;
mod npy;
mod stored;
pub mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

pub use npy::NumpyFile;
pub use stored::Stored;
pub(crate) use stored::row_major;

use crate::files;

/// Tensors by the names that a model gives its inputs or outputs.
pub type Tensors = BTreeMap<String, Tensor>;

/// Element types that models use for inputs, outputs and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// 64-bit signed integers.
    I64,
    /// 32-bit signed integers.
    I32,
    /// 16-bit signed integers.
    I16,
    /// 8-bit signed integers.
    I8,
    /// 64-bit unsigned integers.
    U64,
    /// 32-bit unsigned integers.
    U32,
    /// 16-bit unsigned integers.
    U16,
    /// 8-bit unsigned integers.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Every one.
    pub const ALL: [DType; 13] = {
        use DType::*;
        [F32, F64, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, Bool]
    };

    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }

    /// The name that ONNX tools print: `f32`, `i64`, …
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// The names that ONNX tools, NumPy and safetensors have for it.
    fn names(self) -> (&'static str, &'static str, Dtype) {
        match self {
            DType::F32 => ("f32", "f4", Dtype::F32),
            DType::F64 => ("f64", "f8", Dtype::F64),
            DType::F16 => ("f16", "f2", Dtype::F16),
            // NumPy has no such type, and keeps two raw bytes.
            DType::BF16 => ("bf16", "V2", Dtype::BF16),
            DType::I64 => ("i64", "i8", Dtype::I64),
            DType::I32 => ("i32", "i4", Dtype::I32),
            DType::I16 => ("i16", "i2", Dtype::I16),
            DType::I8 => ("i8", "i1", Dtype::I8),
            DType::U64 => ("u64", "u8", Dtype::U64),
            DType::U32 => ("u32", "u4", Dtype::U32),
            DType::U16 => ("u16", "u2", Dtype::U16),
            DType::U8 => ("u8", "u1", Dtype::U8),
            DType::Bool => ("bool", "b1", Dtype::BOOL),
        }
    }

    fn from_numpy(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.names().1 == code)
    }

    pub(crate) fn to_safetensors(self) -> Dtype {
        self.names().2
    }

    pub(crate) fn from_safetensors(theirs: Dtype) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.names().2 == theirs)
    }
}

/// Why a tensor or a file of tensors can't be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[diagnostic(code(tensor))]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not as many as shape and type need.
    #[error("a tensor of shape {shape:?} and type {} needs {needs} bytes and has {has}", dtype.name())]
    Length { shape: Vec<usize>, dtype: DType, needs: u128, has: usize },
    /// The tensor is of another type.
    #[error("the tensor is {}, not {}", is.name(), needed.name())]
    Type { is: DType, needed: DType },
    /// A file could not be read or written.
    #[error(transparent)]
    #[diagnostic(help("is the path right, and may you read it?"))]
    Io(#[from] std::io::Error),
    /// The file is not a safetensors file.
    #[error("{}: not a safetensors file: {why}", path.display())]
    #[diagnostic(help("it is cut short, damaged or of another kind: copy it or write it again"))]
    Safetensors { path: PathBuf, why: String },
    /// The file is not a NumPy file that can be read.
    #[error("{}: {}{why}", path.display(), array.as_ref().map_or(String::new(), |a| format!("array {a:?}: ")))]
    #[diagnostic(help(
        "numpy.savez(\"inputs.npz\", **{{\"NAME\": array}}) writes one that can be read"
    ))]
    Numpy { path: PathBuf, array: Option<String>, why: String },
}

/// Element type, shape and little-endian bytes in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// Bytes with their meaning.
    ///
    /// # Errors
    /// [`Error::Length`] where the bytes are not as many as the shape needs.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Self, Error> {
        let needs = shape.iter().fold(dtype.size() as u128, |n, &d| n.saturating_mul(d as u128));
        if needs != data.len() as u128 {
            return Err(Error::Length { shape, dtype, needs, has: data.len() });
        }
        Ok(Self { dtype, shape, data })
    }

    /// A float tensor of the given shape.
    ///
    /// # Panics
    /// Where `values` are not as many as `shape` says: a fault of the caller, never of a file.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(DType::F32, shape.to_vec(), data.into()).expect("as many values as the shape says")
    }

    /// An int64 tensor of the given shape; panics as [`Tensor::from_f32`] does.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(DType::I64, shape.to_vec(), data.into()).expect("as many values as the shape says")
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Little-endian bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The values as float, copied out of the (possibly unaligned) bytes.
    ///
    /// # Errors
    /// [`Error::Type`] where the tensor isn't `f32`.
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        self.row(0, self.data.len() / 4)
    }

    /// Row `at` of a tensor seen as rows of `size` values; past its end an empty one.
    ///
    /// # Errors
    /// [`Error::Type`] where the tensor isn't `f32`.
    pub fn row(&self, at: usize, size: usize) -> Result<Vec<f32>, Error> {
        self.require(DType::F32)?;
        let bytes = self.data.get(at * size * 4..(at + 1) * size * 4).unwrap_or_default();
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// The values as int64.
    ///
    /// # Errors
    /// [`Error::Type`] where the tensor isn't `i64`.
    pub fn to_i64(&self) -> Result<Vec<i64>, Error> {
        self.require(DType::I64)?;
        Ok(self.data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }

    /// The axes in another order; none where the order is not one of all axes.
    pub(crate) fn transposed(&self, order: &[usize]) -> Option<Self> {
        let rank = self.shape.len();
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return None;
        }
        let size = self.dtype.size();
        let mut strides = vec![size; rank];
        for axis in (1..rank).rev() {
            // A dimension of zero leaves nothing to walk, and the others free to be huge.
            strides[axis - 1] = strides[axis].checked_mul(self.shape[axis])?;
        }
        let shape: Vec<usize> = order.iter().map(|&axis| self.shape[axis]).collect();
        let steps: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
        let mut data = Vec::with_capacity(self.data.len());
        let mut at = vec![0; rank];
        while data.len() < self.data.len() {
            let from: usize = at.iter().zip(&steps).map(|(at, step)| at * step).sum();
            data.extend_from_slice(&self.data[from..from + size]);
            for axis in (0..rank).rev() {
                at[axis] += 1;
                if at[axis] < shape[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Some(Self { dtype: self.dtype, shape, data: data.into() })
    }

    fn require(&self, needed: DType) -> Result<(), Error> {
        if self.dtype == needed { Ok(()) } else { Err(Error::Type { is: self.dtype, needed }) }
    }
}

/// Tensors by name, and the file's metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFile {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free-form strings of the header.
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads a safetensors file whole.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Safetensors`] where header, offsets or types are not right.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Safetensors { path: path.to_owned(), why };
        files::plain(path).map_err(|e| refuse(e.to_string()))?;
        Self::of_bytes(Bytes::from(fs_err::read(path)?), path)
    }

    /// Reads a safetensors file's bytes; `path` is named in errors.
    ///
    /// # Errors
    /// As [`TensorFile::read`].
    pub(crate) fn of_bytes(bytes: Bytes, path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Safetensors { path: path.to_owned(), why };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| refuse(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| refuse(e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let dtype = DType::from_safetensors(view.dtype())
                .ok_or_else(|| refuse(format!("tensor {name:?} has the type {:?}", view.dtype())))?;
            let data = bytes.slice_ref(view.data());
            tensors.insert(name.to_owned(), Tensor::new(dtype, view.shape().to_vec(), data)?);
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { tensors, metadata })
    }

    /// The file's bytes, the same for the same contents.
    ///
    /// # Errors
    /// [`Error::Safetensors`] where a tensor can't be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let refuse = |why: String| Error::Safetensors { path: PathBuf::new(), why };
        let mut views = Vec::new();
        for (name, t) in &self.tensors {
            let view = TensorView::new(t.dtype.names().2, t.shape.clone(), &t.data);
            views.push((name.as_str(), view.map_err(|e| refuse(e.to_string()))?));
        }
        let bytes = safetensors::serialize(views, None).map_err(|e| refuse(e.to_string()))?;
        if self.metadata.is_empty() {
            return Ok(bytes);
        }
        // The library would write metadata in an order that changes.
        let (length, rest) = bytes.split_first_chunk().expect("the header's length comes first");
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let metadata = serde_json::json!({ "__metadata__": self.metadata }).to_string();
        let metadata = metadata.strip_suffix('}').expect("an object").as_bytes();
        let header = header.trim_ascii_end().strip_prefix(b"{").expect("an object");
        let separator: &[u8] = if header == b"}" { b"" } else { b"," };
        let mut header = [metadata, separator, header].concat();
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok([&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safetensors_round_trip() {
        let mut file = TensorFile::default();
        file.tensors.insert("a".into(), Tensor::from_f32(&[2, 2], &[1.0, -2.0, 3.5, f32::MIN]));
        file.tensors.insert("b".into(), Tensor::from_i64(&[3], &[1, -2, i64::MAX]));
        file.metadata.insert("k".into(), "v".into());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        fs_err::write(&path, file.to_bytes().unwrap()).unwrap();
        assert_eq!(TensorFile::read(&path).unwrap(), file);
        // However much metadata there is, and of no tensor at all.
        for at in 0..40 {
            file.metadata.insert(format!("k{at}"), "\"{}\\ \u{e9}".repeat(at));
        }
        for file in [&file, &TensorFile { tensors: BTreeMap::new(), ..file.clone() }] {
            let bytes = file.to_bytes().unwrap();
            assert_eq!(bytes, file.clone().to_bytes().unwrap(), "the same bytes each time");
            fs_err::write(&path, bytes).unwrap();
            assert_eq!(&TensorFile::read(&path).unwrap(), file);
        }
    }

    #[test]
    fn a_length_that_overflows_is_refused() {
        let huge = vec![usize::MAX, usize::MAX, 3];
        assert!(matches!(Tensor::new(DType::F32, huge, Bytes::new()), Err(Error::Length { .. })));
    }

    #[test]
    fn a_file_that_lies_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        for bytes in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x02\0\0\0\0\0\0\0[]"] {
            fs_err::write(&path, bytes).unwrap();
            assert!(matches!(TensorFile::read(&path), Err(Error::Safetensors { .. })));
        }
    }
}
