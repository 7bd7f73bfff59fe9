//! Types, shapes and values of `TensorProto`.

use bytes::Bytes;

use super::proto::{TensorProto, tensor_proto::DataType};
use crate::tensor::{DType, Tensor};

/// The library's element type of an ONNX one; none for strings, complex and sub-byte types.
pub(crate) fn dtype_of(code: i32) -> Option<DType> {
    Some(match DataType::try_from(code).ok()? {
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::BF16,
        DataType::Int64 => DType::I64,
        DataType::Int32 => DType::I32,
        DataType::Int16 => DType::I16,
        DataType::Int8 => DType::I8,
        DataType::Uint64 => DType::U64,
        DataType::Uint32 => DType::U32,
        DataType::Uint16 => DType::U16,
        DataType::Uint8 => DType::U8,
        DataType::Bool => DType::Bool,
        _ => return None,
    })
}

/// A short name for any ONNX element type, `f32` or `string`, for people to read.
pub fn dtype_name(code: i32) -> String {
    match dtype_of(code) {
        Some(dtype) => dtype.name().to_owned(),
        None => DataType::try_from(code)
            .map_or_else(|_| format!("type {code}"), |t| t.as_str_name().to_lowercase()),
    }
}

/// The dimensions of a tensor.
///
/// # Errors
/// A sentence, where a dimension is negative or the element count overflows.
pub fn shape_of(tensor: &TensorProto) -> Result<Vec<usize>, String> {
    let mut count = 1usize;
    tensor
        .dims
        .iter()
        .map(|&d| {
            let dim = usize::try_from(d).map_err(|_| format!("dimension {d}"))?;
            count = count.checked_mul(dim.max(1)).ok_or("more elements than memory can hold")?;
            Ok(dim)
        })
        .collect()
}

/// Bytes the raw data of a tensor must have; none where the type is not of whole bytes.
pub(crate) fn raw_len(tensor: &TensorProto) -> Result<Option<usize>, String> {
    let shape = shape_of(tensor)?;
    let Some(dtype) = dtype_of(tensor.data_type()) else { return Ok(None) };
    shape
        .iter()
        .try_fold(dtype.size(), |n, &d| n.checked_mul(d))
        .map(Some)
        .ok_or_else(|| "more bytes than memory can hold".to_owned())
}

/// Bytes the tensor's data takes where it stands, in raw form or counted from a typed field.
pub(crate) fn data_len(tensor: &TensorProto) -> Option<usize> {
    let dtype = dtype_of(tensor.data_type())?;
    Some(match &tensor.raw_data {
        Some(raw) => raw.len(),
        None => {
            let count = match dtype {
                DType::F32 => tensor.float_data.len(),
                DType::F64 => tensor.double_data.len(),
                DType::I64 => tensor.int64_data.len(),
                DType::U64 | DType::U32 => tensor.uint64_data.len(),
                _ => tensor.int32_data.len(),
            };
            count * dtype.size()
        }
    })
}

/// The value of a tensor whose data stands in it, raw or in a typed field.
///
/// # Errors
/// A sentence, where data and shape disagree or the type has no counterpart here.
pub(crate) fn value_of(tensor: &TensorProto) -> Result<Tensor, String> {
    let dtype = dtype_of(tensor.data_type())
        .ok_or_else(|| format!("the type {}", dtype_name(tensor.data_type())))?;
    let shape = shape_of(tensor)?;
    let data = match &tensor.raw_data {
        Some(raw) => raw.clone(),
        None => typed_bytes(tensor, dtype),
    };
    Tensor::new(dtype, shape, data).map_err(|e| e.to_string())
}

fn typed_bytes(tensor: &TensorProto, dtype: DType) -> Bytes {
    fn pack<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Bytes {
        values.iter().flat_map(|&v| bytes(v)).collect::<Vec<u8>>().into()
    }
    match dtype {
        DType::F32 => pack(&tensor.float_data, f32::to_le_bytes),
        DType::F64 => pack(&tensor.double_data, f64::to_le_bytes),
        DType::I64 => pack(&tensor.int64_data, i64::to_le_bytes),
        DType::U64 => pack(&tensor.uint64_data, u64::to_le_bytes),
        DType::U32 => pack(&tensor.uint64_data, |v| (v as u32).to_le_bytes()),
        DType::I32 => pack(&tensor.int32_data, i32::to_le_bytes),
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
            pack(&tensor.int32_data, |v| (v as u16).to_le_bytes())
        }
        DType::I8 | DType::U8 | DType::Bool => pack(&tensor.int32_data, |v| [v as u8]),
    }
}

/// An initializer of the given type with raw little-endian data.
pub fn initializer_raw(name: &str, dtype: DataType, dims: &[usize], data: Bytes) -> TensorProto {
    TensorProto {
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: Some(dtype as i32),
        name: Some(name.to_owned()),
        raw_data: Some(data),
        ..Default::default()
    }
}

/// A float initializer, row-major.
pub fn initializer_f32(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    debug_assert_eq!(dims.iter().product::<usize>(), values.len());
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    initializer_raw(name, DataType::Float, dims, data.into())
}

/// An int64 initializer, row-major.
pub fn initializer_i64(name: &str, dims: &[usize], values: &[i64]) -> TensorProto {
    debug_assert_eq!(dims.iter().product::<usize>(), values.len());
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    initializer_raw(name, DataType::Int64, dims, data.into())
}
