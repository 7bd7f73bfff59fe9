//! Writes models: whole files or none, and none that [`Model::check`] refuses.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::error::Error;
use super::external;
use super::model::{LIMIT, Model};
use super::proto::{ModelProto, StringStringEntryProto, TensorProto, tensor_proto::DataLocation};
use super::tensors::value_of;
use super::walk::for_each_initializer;
use super::write;
use crate::digest::{Digest, HashingWriter};
use crate::files::map;
use crate::files::{self, Staged};

/// Tensors of fewer bytes stay in the model's file, as the `onnx` package has it.
const SMALLEST: usize = 1 << 10;
/// Tensors of this many bytes begin at a page, so that runtimes can map them.
const LARGE: usize = 1 << 16;
const PAGE: u64 = 1 << 12;
/// Where smaller ones begin: as far apart as any type or vector of numbers needs.
const ALIGNED: u64 = 1 << 6;

/// Where the weights of a saved model go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Into the model's own file; next to it where protobuf's 2 GiB would not do.
    #[default]
    Inside,
    /// Into a file next to it, of the same name with `.data` after it.
    Beside,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The model's file.
    pub model: Written,
    /// The file of its weights, where they are next to it.
    pub data: Option<(PathBuf, Written)>,
    /// The file of weights that the replaced model had next to it, and this one has not.
    pub left: Option<PathBuf>,
}

impl Model {
    /// Writes the model in one stream, hashing on the way; nothing of it is copied in memory. A model
    /// that is still what its file holds is written as that file is, byte for byte.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::TooLarge`] past protobuf's 2 GiB; as [`Model::check`], or where it was
    /// a change that made the model unusable [`Error::Rewritten`].
    pub fn write(&self, path: &Path) -> Result<Written, Error> {
        let whole = Whole::of(self)?;
        if whole.bytes() > LIMIT {
            return Err(Error::TooLarge { path: path.to_owned(), bytes: whole.bytes() });
        }
        let file = std::fs::File::create(path).map_err(Error::io(path))?;
        whole.write(file).map_err(Error::io(path))
    }

    /// As [`Model::write`]; a model that is still what its file holds is that file under another name, where the file
    /// system has such names, and nothing is written.
    ///
    /// # Errors
    /// As [`Model::write`].
    pub fn link_or_write(&self, path: &Path) -> Result<Option<Written>, Error> {
        let is_linked = self.unchanged().is_some() && std::fs::hard_link(self.path(), path).is_ok();
        if is_linked { Ok(None) } else { self.write(path).map(Some) }
    }

    /// Writes the model next to its place and renames it there: a whole file, or none. Likewise its
    /// weights, where they go next to it.
    ///
    /// # Errors
    /// [`Error::Exists`] unless `overwrite`; [`Error::WeightsInUse`] where a file of the model's own external
    /// data would be replaced, and not the model with it; as [`Model::write`], but that only what can't be
    /// external data must fit into 2 GiB.
    pub fn save(&self, path: &Path, overwrite: bool, weights: Weights) -> Result<Saved, Error> {
        self.save_within(path, overwrite, weights, LIMIT)
    }

    fn save_within(
        &self,
        path: &Path,
        overwrite: bool,
        weights: Weights,
        limit: u64,
    ) -> Result<Saved, Error> {
        is_free(path, overwrite)?;
        self.spares_weights(path)?;
        let whole = Whole::of(self)?;
        if weights == Weights::Beside || whole.bytes() > limit {
            return self.save_beside(path, overwrite, limit);
        }
        let mut staged = Staged::beside(path).map_err(Error::io(path))?;
        let model = whole.write(staged.file()).map_err(Error::io(path))?;
        let left = data_beside(path);
        staged.put().map_err(Error::io(path))?;
        Ok(Saved { model, data: None, left })
    }

    /// Refuses to replace a file of the model's external data.
    fn spares_weights(&self, place: &Path) -> Result<(), Error> {
        match fs_err::canonicalize(place) {
            Ok(data) if self.data_files().contains(&data) => {
                Err(Error::WeightsInUse { data: place.to_owned(), model: self.path().to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Whether a file is the one that the model was read from, and no link to it, which would be replaced
    /// and leave that one.
    fn is_at(&self, path: &Path) -> bool {
        let real = |path| fs_err::canonicalize(path).ok();
        let link = path.symlink_metadata().is_ok_and(|there| there.is_symlink());
        !link && real(path).is_some_and(|place| real(self.path()) == Some(place))
    }

    fn save_beside(&self, path: &Path, overwrite: bool, limit: u64) -> Result<Saved, Error> {
        self.check_rewritten()?;
        let name = path.file_name().and_then(|name| name.to_str());
        let no_text = || io::Error::new(io::ErrorKind::InvalidInput, "the name is not text");
        let location = data_name(name.ok_or_else(no_text).map_err(Error::io(path))?);
        let place = path.with_file_name(&location);
        is_free(&place, overwrite)?;
        if !self.is_at(path) {
            self.spares_weights(&place)?;
        }

        let mut staged_data = Staged::beside(&place).map_err(Error::io(&place))?;
        let to = HashingWriter::new(io::BufWriter::new(staged_data.file()));
        let mut data = Data { to, end: 0, location: &location, ranges: HashMap::new() };
        let mut proto = self.proto().clone();
        let mut graphs = proto.graph.iter_mut();
        graphs
            .try_for_each(|graph| for_each_initializer(graph, &mut |tensor| data.take(tensor)))
            .map_err(Error::io(&place))?;
        let written = data.finish().map_err(Error::io(&place))?;
        let whole = Whole::Changed(&proto);
        if whole.bytes() > limit {
            return Err(Error::TooLarge { path: path.to_owned(), bytes: whole.bytes() });
        }
        let mut staged = Staged::beside(path).map_err(Error::io(path))?;
        let model = whole.write(staged.file()).map_err(Error::io(path))?;
        files::put_both(staged_data, staged).map_err(Error::io(path))?;
        Ok(Saved { model, data: Some((place, written)), left: None })
    }
}

/// What the file next to a model is called.
fn data_name(model: &str) -> String {
    format!("{model}.data")
}

/// The file of weights next to a model's file, if that file's tensors lie in it.
fn data_beside(path: &Path) -> Option<PathBuf> {
    let location = data_name(path.file_name()?.to_str()?);
    let place = path.with_file_name(&location);
    place.symlink_metadata().ok()?;
    let older = ModelProto::decode(map(path).ok()?).ok()?;
    external::locations(&older).contains(&location).then_some(place)
}

/// Refuses what is in the way, unless it is to be replaced.
fn is_free(path: &Path, overwrite: bool) -> Result<(), Error> {
    match path.symlink_metadata() {
        Ok(_) if !overwrite => Err(Error::Exists { path: path.to_owned() }),
        _ => files::plain(path).map_err(Error::io(path)),
    }
}

/// What a file is to hold.
enum Whole<'m> {
    Unchanged(&'m Bytes),
    Changed(&'m ModelProto),
}

impl<'m> Whole<'m> {
    /// What a model comes to, if it may be written at all.
    fn of(model: &'m Model) -> Result<Self, Error> {
        if let Some(bytes) = model.unchanged() {
            return Ok(Self::Unchanged(bytes));
        }
        model.check_rewritten()?;
        Ok(Self::Changed(model.proto()))
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Unchanged(bytes) => bytes.len() as u64,
            Self::Changed(proto) => proto.encoded_len() as u64,
        }
    }

    fn write(&self, to: impl Write) -> io::Result<Written> {
        let mut to = HashingWriter::new(to);
        match self {
            Self::Unchanged(bytes) => to.write_all(bytes)?,
            Self::Changed(proto) => write::stream(*proto, &mut to)?,
        }
        let (_, digest, bytes) = to.finish()?;
        Ok(Written { digest, bytes })
    }
}

/// A file of external data that is being written.
struct Data<'l, W: Write> {
    to: HashingWriter<W>,
    end: u64,
    location: &'l str,
    /// Where bytes stand that were written: tensors that share them in memory share them here.
    ranges: HashMap<(*const u8, usize), u64>,
}

impl<W: Write> Data<'_, W> {
    /// Takes the data of a tensor, unless it is small or of a type that has no raw form.
    fn take(&mut self, tensor: &mut TensorProto) -> io::Result<()> {
        let raw = match &tensor.raw_data {
            Some(raw) => raw.clone(),
            None => match value_of(tensor) {
                Ok(value) => value.bytes().clone(),
                Err(_) => return Ok(()),
            },
        };
        if raw.len() < SMALLEST {
            return Ok(());
        }
        let offset = match self.ranges.get(&(raw.as_ptr(), raw.len())) {
            Some(&offset) => offset,
            None => self.append(&raw)?,
        };
        let fresh = TensorProto {
            dims: std::mem::take(&mut tensor.dims),
            data_type: tensor.data_type,
            name: tensor.name.take(),
            doc_string: tensor.doc_string.take(),
            metadata_props: std::mem::take(&mut tensor.metadata_props),
            data_location: Some(DataLocation::External as i32),
            external_data: vec![
                entry("location", self.location.to_owned()),
                entry("offset", offset.to_string()),
                entry("length", raw.len().to_string()),
            ],
            ..Default::default()
        };
        if tensor.raw_data.is_some() {
            self.ranges.insert((raw.as_ptr(), raw.len()), offset);
        }
        *tensor = fresh;
        Ok(())
    }

    fn append(&mut self, raw: &[u8]) -> io::Result<u64> {
        let step = if raw.len() >= LARGE { PAGE } else { ALIGNED };
        let offset = self.end.next_multiple_of(step);
        let gap = usize::try_from(offset - self.end).expect("less than a page");
        self.to.write_all(&[0; PAGE as usize][..gap])?;
        self.to.write_all(raw)?;
        self.end = offset + raw.len() as u64;
        Ok(offset)
    }

    fn finish(mut self) -> io::Result<Written> {
        self.to.flush()?;
        let (_, digest, bytes) = self.to.finish()?;
        Ok(Written { digest, bytes })
    }
}

fn entry(key: &str, value: String) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::super::{Attr, TestGraph, initializer_f32, node};
    use super::*;

    /// Weights that are large, shared, small, in a typed field and in a node.
    fn model() -> Model {
        let values: Vec<f32> = (0..1 << 15).map(|i| i as f32).collect();
        let large = initializer_f32("large", &[1 << 15], &values);
        let tied = TensorProto { name: Some("tied".to_owned()), ..large.clone() };
        let mut typed = initializer_f32("typed", &[400], &values[..400]);
        typed.raw_data = None;
        typed.float_data = values[..400].to_vec();
        let held = initializer_f32("held", &[400], &values[..400]);
        TestGraph::new()
            .input("x", &["1"])
            .initializer(initializer_f32("middle", &[300], &values[..300]))
            .initializer(large)
            .initializer(tied)
            .initializer(typed)
            .initializer(initializer_f32("small", &[255], &values[..255]))
            .node(node("Constant", [""; 0], "c").attr("value", Attr::Tensor(held)))
            .node(
                node("Concat", ["x", "middle", "large", "tied", "typed", "small", "c"], "y")
                    .int("axis", 0),
            )
            .output("y", &["n"])
            .model()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn weights_beside_are_read_as_those_inside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let model = model();
        let saved = model.save(&path, false, Weights::Beside).unwrap();
        let (place, data) = saved.data.unwrap();
        assert_eq!(names(folder.path()), ["m.onnx", "m.onnx.data"]);
        // The middle one, a page's start for the large one, the typed one; the tied one is the large one.
        let ends = [(0, 1200), (4096, 131072), (135168, 1600)];
        assert_eq!(data.bytes, 135168 + 1600);
        assert_eq!(data.digest, Digest::of_file(&place).unwrap());
        let written = ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
        let ranges: Vec<(String, usize, usize)> = written
            .graph
            .unwrap()
            .initializer
            .iter()
            .filter_map(|t| {
                let entry = |key: &str| {
                    t.external_data.iter().find(|e| e.key() == key).map(|e| e.value().parse().unwrap())
                };
                Some((t.name().to_owned(), entry("offset")?, entry("length")?))
            })
            .collect();
        let expected = [("middle", ends[0]), ("large", ends[1]), ("tied", ends[1]), ("typed", ends[2])];
        assert_eq!(ranges, expected.map(|(name, (start, length))| (name.to_owned(), start, length)));
        let again = Model::open_checked(&path).unwrap();
        for tensor in &model.graph_proto().initializer {
            let name = tensor.name();
            assert_eq!(again.graph().constant(name), model.graph().constant(name), "{name}");
        }
        assert_eq!(again.graph_proto().node, model.graph_proto().node);
    }

    #[test]
    fn weights_go_beside_where_one_file_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let model = model();
        let whole = model.proto().encoded_len() as u64;
        assert!(model.save_within(&path, false, Weights::Inside, whole).unwrap().data.is_none());
        let saved = model.save_within(&path, true, Weights::Inside, whole - 1).unwrap();
        assert!(saved.data.is_some());
        // What a node holds can't be next to the file.
        let error = model.save_within(&path, true, Weights::Inside, 1600).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert_eq!(names(folder.path()), ["m.onnx", "m.onnx.data"]);
        Model::open_checked(&path).unwrap();
    }

    #[test]
    fn weights_that_a_model_reads_go_with_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        model().save(&at("m.onnx"), false, Weights::Beside).unwrap();
        std::fs::copy(at("m.onnx"), at("copy.onnx")).unwrap();
        let copy = Model::open(at("copy.onnx")).unwrap();
        let refused = |model: &Model, path: &str, weights: Weights| {
            let error = model.save(&at(path), true, weights).unwrap_err();
            assert!(matches!(&error, Error::WeightsInUse { .. }), "{error}");
            Model::open_checked(at("copy.onnx")).unwrap();
        };
        refused(&copy, "m.onnx", Weights::Beside);
        refused(&copy, "m.onnx.data", Weights::Inside);
        refused(&copy, "./m.onnx", Weights::Beside);
        // In its own place the model goes with its weights, which stay readable meanwhile.
        let own = Model::open(at("m.onnx")).unwrap();
        refused(&own, "m.onnx.data", Weights::Inside);
        own.save(&at("m.onnx"), true, Weights::Beside).unwrap();
        copy.save(&at("copy.onnx"), true, Weights::Beside).unwrap();
        assert_eq!(Model::open_checked(at("copy.onnx")).unwrap().proto(), own.proto());
        // A link in the place of the model would give way to a file, and what it leads to would stay.
        #[cfg(unix)]
        {
            std::fs::rename(at("m.onnx"), at("real.onnx")).unwrap();
            std::os::unix::fs::symlink("real.onnx", at("m.onnx")).unwrap();
            refused(&Model::open(at("real.onnx")).unwrap(), "m.onnx", Weights::Beside);
            std::fs::rename(at("real.onnx"), at("m.onnx")).unwrap();
        }
        // Weights that were next to the model and are inside now are told.
        let inside = |name: &str| own.save(&at(name), true, Weights::Inside).unwrap().left;
        assert_eq!(inside("m.onnx"), Some(at("m.onnx.data")));
        assert_eq!(inside("m.onnx"), None);
        assert_eq!(inside("other.onnx"), None);
    }

    #[test]
    fn what_is_in_the_way_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let data = folder.path().join("m.onnx.data");
        std::fs::write(&data, "mine").unwrap();
        let model = model();
        let error = model.save(&path, false, Weights::Beside).unwrap_err();
        assert!(matches!(&error, Error::Exists { path } if *path == data), "{error}");
        std::fs::create_dir(&path).unwrap();
        model.save(&path, true, Weights::Beside).unwrap_err();
        assert_eq!(std::fs::read(&data).unwrap(), b"mine");
        assert_eq!(names(folder.path()), ["m.onnx", "m.onnx.data"]);
    }
}
