//! External data: weights in files beside the model. A model may only name plain files inside its
//! own folder, and ranges that lie inside them and don't cut into one another.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::error::Error;
use super::model::map;
use super::proto::{AttributeProto, GraphProto, ModelProto, TensorProto, tensor_proto::DataLocation};
use super::tensors::raw_len;

/// Every tensor of the model, those of nested graphs and attributes included.
pub(super) fn for_each_tensor<E>(
    model: &mut ModelProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    fn attributes<E>(
        attributes: &mut [AttributeProto],
        visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
    ) -> Result<(), E> {
        for attribute in attributes {
            attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                graph(inner, visit)?;
            }
        }
        Ok(())
    }
    fn graph<E>(
        graph: &mut GraphProto,
        visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
    ) -> Result<(), E> {
        graph.initializer.iter_mut().try_for_each(&mut *visit)?;
        graph.node.iter_mut().try_for_each(|node| attributes(&mut node.attribute, visit))
    }
    if let Some(main) = &mut model.graph {
        graph(main, visit)?;
    }
    for function in &mut model.functions {
        function.node.iter_mut().try_for_each(|node| attributes(&mut node.attribute, visit))?;
    }
    Ok(())
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// Whether any tensor keeps its data elsewhere.
pub(super) fn any(model: &mut ModelProto) -> bool {
    for_each_tensor(model, &mut |tensor| if is_external(tensor) { Err(()) } else { Ok(()) }).is_err()
}

/// Puts the data of external tensors into the model: mapped, not copied.
pub(super) fn embed(model: &mut ModelProto, path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut files: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut ranges: BTreeMap<String, Vec<(usize, usize, String)>> = BTreeMap::new();
    for_each_tensor(model, &mut |tensor| {
        if !is_external(tensor) {
            return Ok(());
        }
        let name = tensor.name().to_owned();
        let refuse = |why: String| Error::External { path: path.to_owned(), tensor: name.clone(), why };
        let range = Range::read(tensor).map_err(&refuse)?;
        if !files.contains_key(&range.location) {
            let place = inside(&folder, &range.location).map_err(&refuse)?;
            let mapped = map(&place).map_err(|e| refuse(format!("{:?}: {e}", range.location)))?;
            files.insert(range.location.clone(), mapped);
        }
        let file = &files[&range.location];
        let end = range.offset.checked_add(range.length).filter(|&end| end <= file.len());
        let Some(end) = end else {
            return Err(refuse(format!(
                "bytes {}..{} of {:?}, which has {}",
                range.offset,
                range.offset as u128 + range.length as u128,
                range.location,
                file.len()
            )));
        };
        ranges.entry(range.location.clone()).or_default().push((range.offset, end, name.clone()));
        tensor.raw_data = Some(file.slice(range.offset..end));
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    })?;
    for (location, mut taken) in ranges {
        taken.retain(|(start, end, _)| start < end);
        taken.sort();
        for pair in taken.windows(2) {
            let ((start, end, first), (next, next_end, second)) = (&pair[0], &pair[1]);
            // Two tensors may share one range whole (tied weights), never a part of one.
            if next < end && (start, end) != (next, next_end) {
                return Err(Error::External {
                    path: path.to_owned(),
                    tensor: second.clone(),
                    why: format!("overlaps the data of {first:?} in {location:?}"),
                });
            }
        }
    }
    Ok(())
}

struct Range {
    location: String,
    offset: usize,
    length: usize,
}

impl Range {
    fn read(tensor: &TensorProto) -> Result<Self, String> {
        let entry = |key: &str| {
            tensor.external_data.iter().find(|e| e.key() == key).map(|e| e.value().to_owned())
        };
        let number = |key: &str| -> Result<Option<usize>, String> {
            let Some(text) = entry(key) else { return Ok(None) };
            text.parse().map(Some).map_err(|_| format!("{key} is {text:?}"))
        };
        let location = entry("location").ok_or("no location")?;
        let needs = raw_len(tensor)?.ok_or("a type that has no raw form")?;
        let length = number("length")?.unwrap_or(needs);
        if length != needs {
            return Err(format!("length is {length}, and the shape needs {needs}"));
        }
        Ok(Range { location, offset: number("offset")?.unwrap_or(0), length })
    }
}

/// Where a location leads, if it stays inside `folder`.
fn inside(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let relative = Path::new(location);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if location.is_empty() || !plain {
        return Err(format!("the location {location:?} leads out of the model's folder"));
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let place = folder.join(relative);
    let real = fs_err::canonicalize(&place).map_err(|e| format!("{location:?}: {e}"))?;
    let home = fs_err::canonicalize(folder).map_err(|e| e.to_string())?;
    if !real.starts_with(&home) {
        return Err(format!("the location {location:?} is a link out of the model's folder"));
    }
    if !real.is_file() {
        return Err(format!("{location:?} is not a file"));
    }
    Ok(place)
}
