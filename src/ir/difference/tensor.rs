//! The data of two tensors: in which field it stands, and how far the numbers are from each other.

use bytes::Bytes;
use half::{bf16, f16};

use super::parts::Part;
use super::{Change, Walk};
use crate::ir::proto::{TensorProto, tensor_proto::DataType};
use crate::ir::tensors::{bits_of, plain_bytes};

/// Whether data is equal bit by bit, in the same fields.
pub(super) fn same_data(old: &TensorProto, new: &TensorProto) -> bool {
    old.raw_data == new.raw_data
        && old.float_data.same(&new.float_data)
        && old.int32_data == new.int32_data
        && old.string_data == new.string_data
        && old.int64_data == new.int64_data
        && old.double_data.same(&new.double_data)
        && old.uint64_data == new.uint64_data
}

/// Tells how data that is not the same differs.
pub(super) fn compare_data(old: &TensorProto, new: &TensorProto, walk: &mut Walk) {
    let fields = [fields_of(old), fields_of(new)];
    if old.data_type == new.data_type && old.dims == new.dims {
        let values = [plain(old), plain(new)];
        if let [Some(a), Some(b)] = &values {
            if a != b {
                let note = Some(apart(old.data_type(), a, b, count(old)));
                walk.within("data", |walk| walk.add(Change::Changed, [None, None], note, false));
            }
            if a == b || fields[0] != fields[1] {
                let note = (a == b).then(|| "the same values".to_owned());
                let sides = fields.map(Some);
                walk.within("data", |walk| walk.add(Change::Changed, sides, note, a == b));
            }
            return;
        }
    }
    let before = walk.differences.len();
    walk.field("string_data", &old.string_data, &new.string_data);
    if walk.differences.len() == before || fields[0] != fields[1] {
        walk.within("data", |walk| walk.changed(fields[0].clone(), fields[1].clone(), false));
    }
}

/// `8 bytes of raw_data`, `2 entries of float_data`.
fn fields_of(tensor: &TensorProto) -> String {
    let TensorProto {
        float_data, int32_data, string_data, int64_data, double_data, uint64_data, ..
    } = tensor;
    let lists = [
        (float_data.len(), "float_data"),
        (int32_data.len(), "int32_data"),
        (string_data.len(), "string_data"),
        (int64_data.len(), "int64_data"),
        (double_data.len(), "double_data"),
        (uint64_data.len(), "uint64_data"),
    ];
    let raw = tensor.raw_data.as_ref().map(|raw| format!("{} bytes of raw_data", raw.len()));
    let typed =
        lists.iter().filter(|(n, _)| *n > 0).map(|(n, field)| format!("{n} entries of {field}"));
    let fields: Vec<String> = raw.into_iter().chain(typed).collect();
    if fields.is_empty() { "no data".to_owned() } else { fields.join(" and ") }
}

/// How many elements the shape says.
fn count(tensor: &TensorProto) -> usize {
    tensor.dims.iter().fold(1, |n: usize, &d| n.saturating_mul(d.max(0) as usize))
}

/// The numbers as raw data holds them; none where they are not as many as the shape says.
fn plain(tensor: &TensorProto) -> Option<Bytes> {
    let needs = (count(tensor) as u128 * bits_of(tensor.data_type())? as u128).div_ceil(8);
    plain_bytes(tensor).filter(|bytes| bytes.len() as u128 == needs)
}

/// `3 of 8 values differ, by 0.5 at most`.
fn apart(code: i32, old: &[u8], new: &[u8], count: usize) -> String {
    fn between<T, const N: usize>(
        old: &[u8],
        new: &[u8],
        read: impl Fn([u8; N]) -> T,
        distance: impl Fn(T, T) -> f64,
    ) -> (usize, Option<f64>, usize) {
        let (mut differ, mut worst, mut endless) = (0, None::<f64>, 0);
        for (a, b) in old.as_chunks::<N>().0.iter().zip(new.as_chunks::<N>().0) {
            if a != b {
                differ += 1;
                let distance = distance(read(*a), read(*b));
                if distance.is_finite() {
                    worst = Some(worst.map_or(distance, |worst| worst.max(distance)));
                } else {
                    endless += 1;
                }
            }
        }
        (differ, worst, endless)
    }
    fn only<const N: usize>(old: &[u8], new: &[u8]) -> (usize, Option<f64>, usize) {
        let (differ, ..) = between::<_, N>(old, new, |bytes| bytes, |_, _| 0.0);
        (differ, None, 0)
    }
    let float = |a: f64, b: f64| (a - b).abs();
    let (differ, worst, endless) = match DataType::try_from(code).unwrap_or_default() {
        DataType::Float => between(old, new, |b| f64::from(f32::from_le_bytes(b)), float),
        DataType::Double => between(old, new, f64::from_le_bytes, float),
        DataType::Float16 => between(old, new, |b| f16::from_le_bytes(b).to_f64(), float),
        DataType::Bfloat16 => between(old, new, |b| bf16::from_le_bytes(b).to_f64(), float),
        DataType::Int64 => between(old, new, i64::from_le_bytes, |a, b| a.abs_diff(b) as f64),
        DataType::Int32 => between(old, new, i32::from_le_bytes, |a, b| a.abs_diff(b) as f64),
        DataType::Int16 => between(old, new, i16::from_le_bytes, |a, b| a.abs_diff(b) as f64),
        DataType::Int8 => between(old, new, i8::from_le_bytes, |a, b| a.abs_diff(b) as f64),
        DataType::Uint64 => between(old, new, u64::from_le_bytes, |a, b| a.abs_diff(b) as f64),
        DataType::Uint32 => between(old, new, u32::from_le_bytes, |a, b| a.abs_diff(b) as f64),
        DataType::Uint16 => between(old, new, u16::from_le_bytes, |a, b| a.abs_diff(b) as f64),
        DataType::Uint8 => between(old, new, u8::from_le_bytes, |a, b| a.abs_diff(b) as f64),
        _ => match bits_of(code) {
            Some(128) => only::<16>(old, new),
            Some(64) => only::<8>(old, new),
            Some(8) => only::<1>(old, new),
            Some(bits @ (2 | 4)) => (packed(old, new, bits), None, 0),
            _ => return format!("the packed values of {count} elements differ"),
        },
    };
    let mut text = format!("{differ} of {count} values differ");
    if let Some(worst) = worst {
        text += &format!(", by {worst:.3e} at most");
    }
    if endless > 0 {
        text += &format!(", {endless} of them NaN or infinite on one side or both");
    }
    text
}

/// How many elements of a part of a byte differ.
fn packed(old: &[u8], new: &[u8], bits: usize) -> usize {
    let mask = (1u8 << bits) - 1;
    let in_byte = |x: u8| (0..8 / bits).filter(|at| x >> (at * bits) & mask != 0).count();
    old.iter().zip(new).map(|(a, b)| in_byte(a ^ b)).sum()
}
