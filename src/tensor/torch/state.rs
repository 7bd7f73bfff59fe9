//! From what a pickle holds to the tensors of a state dict.

use std::collections::BTreeMap;

use super::machine::Machine;
use super::value::{Id, Value, Values, View};
use super::{Error, SAVE_AGAIN, damaged, form};
use crate::tensor::{DType, Stored};

/// Where the legacy format begins: the pickle of 0x1950a86a20f9469cfc6c.
const LEGACY: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Pickles in a row in a file of the legacy format: a number, a version, what machine it was, and the contents.
const LEGACY_PICKLES: usize = 4;

/// The dict of tensors in a pickle's value.
pub(super) fn tensors(values: &Values<'_>, root: Id) -> Result<BTreeMap<String, Stored>, Error> {
    let mut items = match values.get(root) {
        Value::Dict(items) => items,
        other => {
            return Err(Error::Content(format!(
                "holds a {}, not a dict of tensors",
                other.type_name()
            )));
        }
    };
    let inner = items.iter().rev().find(|(key, _)| values.text(*key) == Some("state_dict"));
    if let Some(&(_, inner)) = inner
        && let Value::Dict(inner) = values.get(inner)
    {
        items = inner;
    }
    let mut tensors = BTreeMap::new();
    for &(key, value) in items {
        let value = values.get(value);
        let (Some(name), Value::Tensor(view)) = (values.text(key), value) else {
            let name = match values.text(key) {
                Some(name) => format!("'{}'", name.escape_debug()),
                None => format!("a {}", values.get(key).type_name()),
            };
            return Err(Error::Content(format!("{name} is a {}, not a tensor", value.type_name())));
        };
        if tensors.insert(name.to_owned(), stored(name, view)?).is_some() {
            return Err(damaged(format!("its pickle has the tensor {name:?} twice")));
        }
    }
    Ok(tensors)
}

fn stored(name: &str, view: &View) -> Result<Stored, Error> {
    let named = || name.to_owned();
    let dtype = match view.element.dtype {
        Some(dtype @ (DType::F32 | DType::F16 | DType::BF16)) if view.layout.is_empty() => dtype,
        _ => {
            let parts = [view.element.name, view.layout].map(str::to_owned);
            let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            return Err(Error::Dtype { name: named(), is: parts.join(", ") });
        }
    };
    let shape = view.shape.clone();
    let needs = shape.iter().fold(dtype.size() as u128, |n, &size| n.saturating_mul(size as u128));
    if needs > view.storage as u128 {
        return Err(Error::Shape { name: named(), shape, has: view.storage });
    }
    Stored::new(dtype, shape, view.strides.clone(), view.bytes.clone())
        .map_err(|e| damaged(format!("tensor `{name}`: {e}")))
}

/// Why a file that is not a zip archive is refused: for what its pickle asks for, where it is one.
pub(super) fn not_zip(bytes: &[u8]) -> Error {
    let mut rest = &bytes[..bytes.len().min(super::LARGEST_PICKLE)];
    let legacy =
        rest.starts_with(&[0x80]) && rest.get(4..).is_some_and(|rest| rest.starts_with(LEGACY));
    for _ in 0..if legacy { LEGACY_PICKLES } else { 1 } {
        let mut machine = Machine::new(rest, None);
        match machine.run() {
            Err(asks @ Error::Unsafe { .. }) => return asks,
            Err(_) => break,
            Ok(_) => rest = &rest[machine.read()..],
        }
    }
    match bytes {
        _ if legacy => form("it is of PyTorch's legacy format of before 1.6", SAVE_AGAIN),
        _ if bytes.get(257..262) == Some(b"ustar") => {
            form("it is a tar archive, PyTorch's format of before 0.1.10", SAVE_AGAIN)
        }
        [0x80, ..] => form("it is a pickle without a zip archive around it", SAVE_AGAIN),
        _ => damaged("it is not a zip archive, as torch.save writes"),
    }
}
