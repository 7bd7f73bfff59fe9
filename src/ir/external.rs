//! External data: weights in files beside the model. A model may only name plain files inside its
//! own folder, and ranges that lie inside them and don't cut into one another.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::error::Error;
use super::model::map;
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
    tensor_proto::DataLocation,
};
use super::tensors::raw_len;

/// Where a tensor stands: in a list of the model, or in an attribute of a node, which is then named.
pub(super) struct Place<'a> {
    node: Option<(usize, &'a Option<String>, &'a Option<String>)>,
}

impl Place<'_> {
    /// `initializer "w"`, or `tensor "t" of node 3 "n" (Constant)`.
    pub(super) fn of(&self, tensor: &TensorProto) -> String {
        match self.node {
            None => format!("initializer {:?}", tensor.name()),
            Some((at, name, op)) => format!(
                "tensor {:?} of node {at} {:?} ({})",
                tensor.name(),
                name.as_deref().unwrap_or_default(),
                op.as_deref().unwrap_or_default()
            ),
        }
    }
}

/// Every tensor of a model: of nested graphs, attributes, sparse tensors, functions and training too.
macro_rules! tensor_walker {
    ($walk:ident, $iter:ident, $($mutable:tt)?) => {
        pub(super) fn $walk<E>(
            model: & $($mutable)? ModelProto,
            visit: &mut dyn FnMut(& $($mutable)? TensorProto, &Place<'_>) -> Result<(), E>,
        ) -> Result<(), E> {
            type Visit<'a, E> = &'a mut dyn FnMut(& $($mutable)? TensorProto, &Place<'_>) -> Result<(), E>;

            fn sparse<E>(
                sparse: & $($mutable)? SparseTensorProto,
                place: &Place<'_>,
                visit: Visit<'_, E>,
            ) -> Result<(), E> {
                let mut parts = sparse.values.$iter().chain(sparse.indices.$iter());
                parts.try_for_each(|tensor| visit(tensor, place))
            }
            fn attributes<E>(
                list: & $($mutable)? [AttributeProto],
                place: &Place<'_>,
                visit: Visit<'_, E>,
            ) -> Result<(), E> {
                for a in list {
                    a.t.$iter().chain(a.tensors.$iter()).try_for_each(|tensor| visit(tensor, place))?;
                    let mut all = a.sparse_tensor.$iter().chain(a.sparse_tensors.$iter());
                    all.try_for_each(|s| sparse(s, place, visit))?;
                    a.g.$iter().chain(a.graphs.$iter()).try_for_each(|inner| graph(inner, visit))?;
                }
                Ok(())
            }
            fn nodes<E>(list: & $($mutable)? [NodeProto], visit: Visit<'_, E>) -> Result<(), E> {
                list.$iter().enumerate().try_for_each(|(at, node)| {
                    let place = Place { node: Some((at, &node.name, &node.op_type)) };
                    attributes(& $($mutable)? node.attribute, &place, visit)
                })
            }
            fn graph<E>(graph: & $($mutable)? GraphProto, visit: Visit<'_, E>) -> Result<(), E> {
                let place = Place { node: None };
                graph.initializer.$iter().try_for_each(|tensor| visit(tensor, &place))?;
                graph.sparse_initializer.$iter().try_for_each(|s| sparse(s, &place, visit))?;
                nodes(& $($mutable)? graph.node, visit)
            }
            for inner in model.graph.$iter() {
                graph(inner, visit)?;
            }
            for training in model.training_info.$iter() {
                let mut graphs = training.initialization.$iter().chain(training.algorithm.$iter());
                graphs.try_for_each(|inner| graph(inner, visit))?;
            }
            for function in model.functions.$iter() {
                let place = Place { node: None };
                attributes(& $($mutable)? function.attribute_proto, &place, visit)?;
                nodes(& $($mutable)? function.node, visit)?;
            }
            Ok(())
        }
    };
}
tensor_walker!(for_each_tensor, iter,);
tensor_walker!(for_each_tensor_mut, iter_mut, mut);

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// Whether any tensor keeps its data elsewhere.
pub(super) fn any(model: &ModelProto) -> bool {
    for_each_tensor(model, &mut |tensor, _| if is_external(tensor) { Err(()) } else { Ok(()) }).is_err()
}

/// Puts the data of external tensors into the model: mapped, not copied.
pub(super) fn embed(model: &mut ModelProto, path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut files: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut ranges: BTreeMap<String, Vec<(usize, usize, String)>> = BTreeMap::new();
    for_each_tensor_mut(model, &mut |tensor, place| {
        if !is_external(tensor) {
            return Ok(());
        }
        let name = place.of(tensor);
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
                    why: format!("overlaps the data of {first} in {location:?}"),
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
    Ok(real)
}
