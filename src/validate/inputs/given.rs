//! Inputs from a NumPy file, checked against what the models take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::Error;
use super::dims::{Term, parse};
use crate::ir::{Model, ValueInfoProto};
use crate::runtime::Tensors;
use crate::tensor::{DType, NumpyFile};

/// The inputs of some models from a `.npz` file, in which each array has an input's name, or from a `.npy` file
/// where there is one input.
///
/// # Errors
/// [`Error::Given`] names the file and the input where one is missing, is none of the models', or isn't of their
/// type or shape; [`Error::Tensor`] where the file isn't what it says.
pub fn given_inputs(models: &[&Model], path: &Path) -> Result<Tensors, Error> {
    let refuse = |why: String| Error::Given { path: path.to_owned(), why };
    let mut ports: BTreeMap<&str, &ValueInfoProto> = BTreeMap::new();
    for input in models.iter().rev().flat_map(|model| super::required(model)) {
        ports.insert(input.name(), input);
    }
    let mut file = NumpyFile::open(path)?;
    let names = file.names().map(<[String]>::to_vec);
    let list = || ports.keys().copied().collect::<Vec<_>>().join(", ");
    match &names {
        None if ports.len() != 1 => {
            return Err(refuse(format!("one array, and the inputs are: {}", list())));
        }
        None => {}
        Some(names) => {
            if let Some(missing) = ports.keys().find(|name| !names.iter().any(|known| known == *name)) {
                let has = names.join(", ");
                return Err(refuse(format!(
                    "it has no array for the input {missing:?}; it has: {has}"
                )));
            }
            if let Some(extra) = names.iter().find(|name| !ports.contains_key(name.as_str())) {
                return Err(refuse(format!(
                    "the array {extra:?} is not an input; the inputs are: {}",
                    list()
                )));
            }
        }
    }
    let mut sizes = BTreeMap::new();
    let mut tensors = Tensors::new();
    for (name, port) in &ports {
        let array = names.is_some().then_some(*name);
        let tensor = file.read(array, |dtype, shape| fits(port, dtype, shape, &mut sizes))?;
        tensors.insert((*name).to_owned(), tensor);
    }
    // Arithmetic can only be checked once every name has its size.
    for (name, port) in &ports {
        for (axis, dim) in port.shape().unwrap_or_default().iter().enumerate() {
            let Some(term) = parse(dim).filter(|term| matches!(term, Term::Of(..))) else { continue };
            let mut used = BTreeSet::new();
            term.names(&mut used);
            if !used.iter().all(|name| sizes.contains_key(name)) {
                continue;
            }
            let (size, length) =
                (term.value(&|name| sizes[name].0 as f64), tensors[*name].shape()[axis]);
            if size != length as f64 {
                let used = used.iter().map(|name| format!("{name} = {}", sizes[name].0));
                let used = used.collect::<Vec<_>>().join(", ");
                return Err(refuse(format!(
                    "axis {axis} of the input {name:?} is {length}, and {dim} is {size} where {used}"
                )));
            }
        }
    }
    Ok(tensors)
}

/// Whether an array is of an input's type and shape; `sizes` are those of names, and where each was seen.
fn fits(
    port: &ValueInfoProto,
    dtype: DType,
    shape: &[usize],
    sizes: &mut BTreeMap<String, (usize, String)>,
) -> Result<(), String> {
    if port.type_name() != dtype.name() {
        return Err(format!(
            "it is of type {}, and the input of type {}",
            dtype.name(),
            port.type_name()
        ));
    }
    let Some(dims) = port.shape() else { return Ok(()) };
    let expected = dims.join(", ");
    if dims.len() != shape.len() {
        return Err(format!("its shape is {shape:?}, and the input's [{expected}]"));
    }
    for (axis, (dim, &size)) in dims.iter().zip(shape).enumerate() {
        match parse(dim) {
            Some(Term::Number(n)) if n >= 0.0 && n != size as f64 => {
                return Err(format!("its shape is {shape:?}, and the input's [{expected}]"));
            }
            Some(Term::Name(name)) => {
                let place = format!("axis {axis} of {:?}", port.name());
                let (known, where_seen) =
                    sizes.entry(name.clone()).or_insert_with(|| (size, place)).clone();
                if known != size {
                    return Err(format!("axis {axis} ({name}) is {size}, and {known} on {where_seen}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
