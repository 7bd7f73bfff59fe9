//! External data: weights in files next to the model. A model may only name plain files inside its
//! own folder, or inside the one that its file really lies in, as a hub's cache links it; and ranges
//! that lie inside them and don't cut into one another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::error::Error;
use super::proto::{ModelProto, TensorProto, tensor_proto::DataLocation};
use super::tensors::raw_len;
use super::walk::{for_each_tensor, for_each_tensor_mut};
use crate::files;
use crate::files::map;

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// Whether any tensor keeps its data elsewhere.
pub(super) fn any(model: &ModelProto) -> bool {
    for_each_tensor(model, &mut |tensor, _| if is_external(tensor) { Err(()) } else { Ok(()) }).is_err()
}

/// Where the tensors of a model keep their data, as they write it.
pub(super) fn locations(model: &ModelProto) -> BTreeSet<String> {
    let mut locations = BTreeSet::new();
    let Ok(()) = for_each_tensor(model, &mut |tensor, _| {
        let entries = tensor.external_data.iter().filter(|_| is_external(tensor));
        let location = entries.filter(|entry| entry.key() == "location");
        locations.extend(location.map(|entry| entry.value().to_owned()));
        Ok::<(), std::convert::Infallible>(())
    });
    locations
}

/// Puts the data of external tensors into the model, mapped, not copied; the files that it lies in, as what
/// they really are.
pub(super) fn embed(model: &mut ModelProto, path: &Path) -> Result<Vec<PathBuf>, Error> {
    let homes = homes(path);
    let mut files: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut places = Vec::new();
    let mut ranges: BTreeMap<String, Vec<(usize, usize, String)>> = BTreeMap::new();
    for_each_tensor_mut(model, &mut |tensor, place| {
        if !is_external(tensor) {
            return Ok(());
        }
        let name = place.of(tensor);
        let refuse = |why: String| Error::External { path: path.to_owned(), tensor: name.clone(), why };
        let range = Range::read(tensor).map_err(&refuse)?;
        if !files.contains_key(&range.location) {
            let place = inside(&homes, &range.location).map_err(&refuse)?;
            let mapped = map(&place).map_err(|e| refuse(format!("{:?}: {e}", range.location)))?;
            files.insert(range.location.clone(), mapped);
            places.push(place);
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
                    why: format!("overlaps the data of {first} in {location:?}"),
                });
            }
        }
    }
    Ok(places)
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

/// The folders that a model's data may lie in: that of its path, and where the path is a link that of
/// the file it leads to.
fn homes(path: &Path) -> Vec<PathBuf> {
    let real = fs_err::canonicalize(path).ok();
    let mut homes = vec![files::home(path).to_owned()];
    homes.extend(real.as_deref().map(files::home).map(Path::to_owned));
    homes
}

/// Where a location leads, if it stays inside the model's folders.
fn inside(homes: &[PathBuf], location: &str) -> Result<PathBuf, String> {
    let parts = || Path::new(location).components().filter(|part| *part != Component::CurDir);
    if parts().next().is_none() || !parts().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!("the location {location:?} leads out of the model's folder"));
    }
    let relative: PathBuf = parts().collect();
    let there = homes.iter().map(|home| home.join(&relative)).find(|p| p.symlink_metadata().is_ok());
    let place = there.unwrap_or_else(|| homes[0].join(&relative));
    let real = fs_err::canonicalize(&place).map_err(|e| format!("{location:?}: {e}"))?;
    let home = |home: &PathBuf| fs_err::canonicalize(home).is_ok_and(|home| real.starts_with(home));
    if !homes.iter().any(home) {
        return Err(format!("the location {location:?} is a link out of the model's folder"));
    }
    Ok(real)
}
