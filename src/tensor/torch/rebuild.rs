//! The calls that make a tensor, done without calling anything.

use super::globals::{Element, Global, Rebuild};
use super::value::{Id, Storage, Value, Values, View};
use super::{Error, damaged, form};

/// More axes than any tensor has.
const MOST_AXES: usize = 64;

/// What `function(*arguments)` is.
pub(super) fn call(values: &Values<'_>, function: Id, arguments: Id) -> Result<Value, Error> {
    let Value::Global(function) = *values.get(function) else {
        return Err(Error::Unsafe { what: "code".into() });
    };
    let Value::Tuple(given) = values.get(arguments) else {
        return Err(damaged("its pickle calls a function without a tuple of arguments"));
    };
    match function {
        Global::OrderedDict if given.is_empty() => Ok(Value::Dict(Vec::new())),
        Global::OrderedDict => {
            Err(damaged("its pickle makes an OrderedDict of a list, as Python 2 did"))
        }
        Global::Size => match given.as_ref() {
            [] => Ok(Value::Tuple([].into())),
            &[of] if matches!(values.get(of), Value::Tuple(_)) => axes_of(values, of).map(Value::Tuple),
            _ => Err(damaged("its pickle has a torch.Size of no known form")),
        },
        Global::Rebuild(function) => tensor(values, function, given),
        Global::Other(kind) => Ok(Value::Other(kind)),
        Global::Storage(_) | Global::Element(_) => {
            Err(damaged("its pickle makes a storage that is in no record"))
        }
    }
}

/// What `class.__new__(class, *arguments)` is.
pub(super) fn new(values: &Values<'_>, class: Id, arguments: Id) -> Result<Value, Error> {
    match values.get(class) {
        Value::Global(Global::OrderedDict | Global::Size | Global::Other(_)) => {
            call(values, class, arguments)
        }
        Value::Global(_) => Err(damaged("its pickle makes an object of what is not a class")),
        _ => Err(Error::Unsafe { what: "code".into() }),
    }
}

/// The places of a short tuple: copied, so no longer than a tensor has axes.
fn axes_of(values: &Values<'_>, id: Id) -> Result<Box<[Id]>, Error> {
    match values.get(id) {
        Value::Tuple(items) if items.len() <= MOST_AXES => Ok(items.clone()),
        _ => Err(damaged("a tensor's shape or strides are not a tuple of a few numbers")),
    }
}

fn tensor(values: &Values<'_>, function: Rebuild, given: &[Id]) -> Result<Value, Error> {
    let unknown = || damaged("its pickle makes a tensor of arguments that are not known");
    match (function, given) {
        (Rebuild::V1, &[storage, offset, shape, strides]) => {
            dense(values, storage, [offset, shape, strides], None)
        }
        (Rebuild::V2, &[storage, offset, shape, strides, _, _, ref rest @ ..]) if rest.len() <= 1 => {
            as_it_lies(values, rest)?;
            dense(values, storage, [offset, shape, strides], None)
        }
        (Rebuild::V3, &[storage, offset, shape, strides, _, _, element, ref rest @ ..])
            if rest.len() <= 1 =>
        {
            let Value::Global(Global::Element(element)) = values.get(element) else {
                return Err(unknown());
            };
            as_it_lies(values, rest)?;
            dense(values, storage, [offset, shape, strides], Some(element))
        }
        (Rebuild::Parameter, &[data, _, _, ref rest @ ..]) if rest.len() <= 1 => {
            same(values, data).ok_or_else(unknown)
        }
        (Rebuild::FromType, &[function, _, arguments, _]) => match values.get(function) {
            Value::Global(Global::Rebuild(Rebuild::FromType)) => Err(unknown()),
            Value::Global(Global::Rebuild(_)) => call(values, function, arguments),
            _ => Err(Error::Unsafe { what: "code".into() }),
        },
        (Rebuild::FromDevice, &[data, element, _, _]) => {
            match (same(values, data), values.get(element)) {
                (Some(Value::Tensor(view)), Value::Global(Global::Element(element)))
                    if view.element == *element =>
                {
                    Ok(Value::Tensor(view))
                }
                _ => Ok(foreign(values, "of another device", given)),
            }
        }
        (Rebuild::Foreign(layout), _) => Ok(foreign(values, layout, given)),
        _ => Err(unknown()),
    }
}

/// A tensor once more.
fn same(values: &Values<'_>, id: Id) -> Option<Value> {
    match values.get(id) {
        tensor @ (Value::Tensor(_) | Value::Other("Tensor")) => Some(tensor.clone()),
        _ => None,
    }
}

/// Refuses tensors whose values are others than their storage's: `metadata` is a dict that may say `neg` or `conj`.
fn as_it_lies(values: &Values<'_>, metadata: &[Id]) -> Result<(), Error> {
    match metadata.first().map(|&id| values.get(id)) {
        None | Some(Value::None) => Ok(()),
        // A longer one is not looked through again and again.
        Some(Value::Dict(items))
            if items.len() <= 4
                && items.iter().all(|&(_, value)| matches!(values.get(value), Value::Bool(false))) =>
        {
            Ok(())
        }
        _ => Err(form(
            "a tensor's values are its storage's negated or conjugated",
            "call resolve_neg() and resolve_conj() on the tensors before they are saved",
        )),
    }
}

/// A tensor that is refused wherever it is asked for: all that is known is what it is.
fn foreign(values: &Values<'_>, layout: &'static str, given: &[Id]) -> Value {
    let of = |id: Id| match values.get(id) {
        Value::Global(Global::Element(element)) => Some(*element),
        Value::Storage(storage) => Some(storage.element),
        Value::Tensor(view) => Some(view.element),
        _ => None,
    };
    // Of a sparse tensor, the last of its parts has the values.
    let within = |id: Id| match values.get(id) {
        Value::Tuple(parts) if parts.len() <= 8 => parts.iter().rev().find_map(|&id| of(id)),
        _ => of(id),
    };
    let element = given.iter().find_map(|&id| within(id));
    static UNKNOWN: Element = Element { name: "", size: 1, dtype: None };
    let element = element.unwrap_or(&UNKNOWN);
    let (shape, strides, bytes) = Default::default();
    Value::Tensor(Box::new(View { element, layout, shape, strides, bytes, storage: 0 }))
}

fn dense(
    values: &Values<'_>,
    storage: Id,
    [offset, shape, strides]: [Id; 3],
    element: Option<&'static Element>,
) -> Result<Value, Error> {
    let Storage { element: own, bytes } = match values.get(storage) {
        Value::Storage(storage) => storage.as_ref(),
        // The file is refused anyway, and read only for what else it asks.
        Value::Other("Storage") => return Ok(Value::Other("Tensor")),
        _ => return Err(damaged("its pickle makes a tensor of what is not a storage")),
    };
    let element = element.unwrap_or(own);
    let offset = count(values, offset)?;
    let shape = counts(values, shape)?;
    let strides = counts(values, strides)?;
    let past = || damaged(format!("a tensor of shape {shape:?} lies past the end of its storage"));
    if strides.len() != shape.len() {
        return Err(damaged(format!("a tensor of shape {shape:?} has strides {strides:?}")));
    }
    let start = offset.checked_mul(element.size).ok_or_else(past)?;
    // One past the last element, from the first one on.
    let span = match shape.contains(&0) {
        true => Some(0),
        false => shape.iter().zip(&strides).try_fold(1_usize, |end, (&size, &stride)| {
            end.checked_add((size - 1).checked_mul(stride)?)
        }),
    };
    let span = span.and_then(|span| span.checked_mul(element.size)).ok_or_else(past)?;
    let end = start.checked_add(span).filter(|&end| end <= bytes.len());
    let whole = bytes.len();
    let bytes = match end {
        Some(end) => bytes.slice(start..end),
        // PyTorch has such views of nothing.
        None if span == 0 => Default::default(),
        None => return Err(past()),
    };
    let storage = whole;
    Ok(Value::Tensor(Box::new(View { element, layout: "", shape, strides, bytes, storage })))
}

fn count(values: &Values<'_>, id: Id) -> Result<usize, Error> {
    match *values.get(id) {
        Value::Int(number) => usize::try_from(number).ok(),
        _ => None,
    }
    .ok_or_else(|| damaged("a tensor's place, shape or strides are not whole numbers from 0 on"))
}

fn counts(values: &Values<'_>, id: Id) -> Result<Vec<usize>, Error> {
    axes_of(values, id)?.iter().map(|&id| count(values, id)).collect()
}
