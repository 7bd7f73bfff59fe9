//! Types, shapes and values of `TensorProto`.

use std::borrow::Cow;

use bytes::Bytes;

use super::proto::{NodeProto, TensorProto, tensor_proto::DataType};
use crate::tensor::{DType, Tensor};

/// The ONNX code of an element type.
pub(crate) fn code_of(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I64 => DataType::Int64,
        DType::I32 => DataType::Int32,
        DType::I16 => DataType::Int16,
        DType::I8 => DataType::Int8,
        DType::U64 => DataType::Uint64,
        DType::U32 => DataType::Uint32,
        DType::U16 => DataType::Uint16,
        DType::U8 => DataType::Uint8,
        DType::Bool => DataType::Bool,
    }
}

/// The library's element type of an ONNX one; none for strings, complex and sub-byte types.
pub(crate) fn dtype_of(code: i32) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| code_of(dtype) as i32 == code)
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
    // Zeros count as ones: every product of some of the dimensions is then safe as well.
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

/// Bits an element takes in raw data; none for strings and for types of no known ONNX version.
pub(super) fn bits_of(code: i32) -> Option<usize> {
    Some(match DataType::try_from(code).ok()? {
        DataType::Undefined | DataType::String => return None,
        DataType::Complex128 => 128,
        DataType::Complex64 | DataType::Double | DataType::Int64 | DataType::Uint64 => 64,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 32,
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => 16,
        DataType::Int8 | DataType::Uint8 | DataType::Bool => 8,
        DataType::Float8e4m3fn | DataType::Float8e4m3fnuz => 8,
        DataType::Float8e5m2 | DataType::Float8e5m2fnuz | DataType::Float8e8m0 => 8,
        DataType::Float6e2m3 | DataType::Float6e3m2 => 6,
        DataType::Int4 | DataType::Uint4 | DataType::Float4e2m1 => 4,
        DataType::Int2 | DataType::Uint2 => 2,
    })
}

/// Bytes the raw data of a tensor must have; none where its type has no raw form.
pub(crate) fn raw_len(tensor: &TensorProto) -> Result<Option<usize>, String> {
    let shape = shape_of(tensor)?;
    let Some(bits) = bits_of(tensor.data_type()) else { return Ok(None) };
    let bits = shape.iter().fold(bits as u128, |n, &d| n.saturating_mul(d as u128));
    usize::try_from(bits.div_ceil(8))
        .map(Some)
        .map_err(|_| "more bytes than memory can hold".to_owned())
}

/// Bytes of a tensor's numbers as raw data holds them, or of its texts, whatever field they stand in.
pub fn stored_bytes(tensor: &TensorProto) -> u64 {
    match raw_len(tensor) {
        Ok(Some(bytes)) => bytes as u64,
        _ => {
            let texts = tensor.string_data.iter().map(|text| text.len() as u64).sum::<u64>();
            texts + tensor.raw_data.as_ref().map_or(0, |raw| raw.len() as u64)
        }
    }
}

/// Whether the data that stands in a tensor, raw or in the typed field of its type, is as much as its
/// shape says.
///
/// # Errors
/// A sentence, where it isn't, or where the shape is impossible.
pub(super) fn check_data(tensor: &TensorProto) -> Result<(), String> {
    let shape = shape_of(tensor)?;
    let typed = tensor.float_data.len()
        + tensor.int32_data.len()
        + tensor.int64_data.len()
        + tensor.double_data.len()
        + tensor.uint64_data.len()
        + tensor.string_data.len();
    if let Some(raw) = tensor.raw_data.as_ref().filter(|raw| typed == 0 || !raw.is_empty()) {
        return match raw_len(tensor)? {
            _ if typed > 0 => Err("it has raw data and typed data at once".to_owned()),
            Some(needs) if needs != raw.len() => {
                Err(format!("{} bytes; shape {shape:?} needs {needs}", raw.len()))
            }
            None if tensor.data_type() == DataType::String as i32 && !raw.is_empty() => {
                Err("strings can't be raw data".to_owned())
            }
            _ => Ok(()),
        };
    }
    let count: usize = shape.iter().product();
    let Ok(dtype) = DataType::try_from(tensor.data_type()) else { return Ok(()) };
    let (has, needs) = match dtype {
        DataType::Undefined => return Ok(()),
        DataType::Float => (tensor.float_data.len(), count as u128),
        DataType::Complex64 => (tensor.float_data.len(), 2 * count as u128),
        DataType::Double => (tensor.double_data.len(), count as u128),
        DataType::Complex128 => (tensor.double_data.len(), 2 * count as u128),
        DataType::Int64 => (tensor.int64_data.len(), count as u128),
        DataType::Uint64 | DataType::Uint32 => (tensor.uint64_data.len(), count as u128),
        DataType::String => (tensor.string_data.len(), count as u128),
        DataType::Int4 | DataType::Uint4 | DataType::Float4e2m1 => {
            (tensor.int32_data.len(), count.div_ceil(2) as u128)
        }
        DataType::Int2 | DataType::Uint2 => (tensor.int32_data.len(), count.div_ceil(4) as u128),
        _ => (tensor.int32_data.len(), count as u128),
    };
    if has as u128 != needs || has != typed {
        return Err(format!(
            "{typed} typed values, {has} of them {}; shape {shape:?} needs {needs}",
            dtype_name(tensor.data_type())
        ));
    }
    Ok(())
}

/// The tensor that a `Constant` node holds in its one attribute, without a name where that is a number or a
/// list of numbers. None for texts, sparse tensors, and nodes with no value or several.
pub(crate) fn constant_of(node: &NodeProto) -> Option<Cow<'_, TensorProto>> {
    let [attribute] = node.attribute.as_slice() else { return None };
    let (floats, ints) = (&attribute.floats, &attribute.ints);
    Some(match attribute.name() {
        "value" => Cow::Borrowed(attribute.t.as_ref()?),
        "value_float" => Cow::Owned(initializer_f32("", &[], &[attribute.f()])),
        "value_floats" => Cow::Owned(initializer_f32("", &[floats.len()], floats)),
        "value_int" => Cow::Owned(initializer_i64("", &[], &[attribute.i()])),
        "value_ints" => Cow::Owned(initializer_i64("", &[ints.len()], ints)),
        _ => return None,
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
    let data = plain_bytes(tensor).unwrap_or_default();
    Tensor::new(dtype, shape, data).map_err(|e| e.to_string())
}

/// The numbers as raw data holds them, from whatever field they stand in; none of strings and of unknown types.
pub(crate) fn plain_bytes(tensor: &TensorProto) -> Option<Bytes> {
    fn pack<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Bytes {
        values.iter().flat_map(|&v| bytes(v)).collect::<Vec<u8>>().into()
    }
    let bits = bits_of(tensor.data_type())?;
    if let Some(raw) = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty()) {
        return Some(raw.clone());
    }
    Some(match DataType::try_from(tensor.data_type()).ok()? {
        DataType::Float | DataType::Complex64 => pack(&tensor.float_data, f32::to_le_bytes),
        DataType::Double | DataType::Complex128 => pack(&tensor.double_data, f64::to_le_bytes),
        DataType::Int64 => pack(&tensor.int64_data, i64::to_le_bytes),
        DataType::Uint64 => pack(&tensor.uint64_data, u64::to_le_bytes),
        DataType::Uint32 => pack(&tensor.uint64_data, |v| (v as u32).to_le_bytes()),
        DataType::Int32 => pack(&tensor.int32_data, i32::to_le_bytes),
        _ if bits == 16 => pack(&tensor.int32_data, |v| (v as u16).to_le_bytes()),
        _ => pack(&tensor.int32_data, |v| [v as u8]),
    })
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
