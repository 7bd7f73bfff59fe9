//! The tensors of a checkpoint, by name: mapped, and held against nothing yet.

mod safe;
mod shards;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rayon::prelude::*;

use super::Refused;
use crate::files;
use crate::tensor::{Stored, torch};

/// A language model's weights in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// The list of a language model's weights in shards.
pub const INDEX: &str = "model.safetensors.index.json";
/// How a Git LFS pointer begins, which stands where a file should.
const POINTER: &[u8] = b"version https://git-lfs";
/// The types that weights have.
const FLOATS: &str = "float32, float16 or bfloat16 is expected";
/// What helps where a file is damaged.
const AGAIN: &str = "fetch it again, or compare its sha256 with the publisher's";

/// Named tensors in f32, f16 or bf16, where they lie in mapped files.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The file that holds or lists them all, which errors name.
    pub listing: PathBuf,
    tensors: BTreeMap<String, (Stored, PathBuf)>,
}

impl Weights {
    /// A language model's: `model.safetensors` of a folder, or the shards that its index names.
    ///
    /// # Errors
    /// [`Refused`] with the code `checkpoint-missing`, `-format`, `-shape` or `-dtype`.
    pub fn of_language_model(folder: &Path) -> Result<Self, Refused> {
        let (listing, files) = shards::list(folder)?;
        let mut tensors = BTreeMap::new();
        for (path, names) in files {
            let bytes = open(&path, shards::HOLDS)?;
            let of_file = safe::read(&bytes, &path, names.as_deref())?;
            tensors.extend(of_file.into_iter().map(|(name, stored)| (name, (stored, path.clone()))));
        }
        Ok(Self { listing, tensors })
    }

    /// Those of one safetensors file's bytes; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Weights::of_language_model`], but for `-missing`.
    pub fn from_safetensors_bytes(bytes: Bytes, path: &Path) -> Result<Self, Refused> {
        Ok(Self::of_one(safe::read(&bytes, path, None)?, path))
    }

    /// A state dict's, flat or under the key `state_dict`: a `.pth` file, read without running anything.
    ///
    /// # Errors
    /// As [`Weights::of_language_model`], and `checkpoint-unsafe` for a pickle that asks for code.
    pub fn of_state_dict(path: &Path) -> Result<Self, Refused> {
        let name = path.file_name().unwrap_or_default().display();
        let bytes = open(path, &format!("a checkpoint's folder holds {name}"))?;
        Self::from_torch_bytes(bytes, path)
    }

    /// Those of a `.pth` file's bytes; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Weights::of_state_dict`], but for `-missing`.
    pub fn from_torch_bytes(bytes: Bytes, path: &Path) -> Result<Self, Refused> {
        let place = path.display();
        let refuse = |code, message: String, hint| Err(Refused::new(code, message, hint));
        if bytes.is_empty() {
            return refuse("checkpoint-format", format!("{place} is empty"), "fetch it again");
        }
        no_pointer(&bytes, path)?;
        match torch::read(&bytes) {
            Ok(tensors) => Ok(Self::of_one(tensors, path)),
            Err(torch::Error::Damaged(why)) => {
                let message = format!("{place} is not a whole PyTorch state dict: {why}");
                refuse("checkpoint-format", message, AGAIN)
            }
            Err(torch::Error::Form { why, hint }) => {
                refuse("checkpoint-format", format!("{place} is not read: {why}"), hint)
            }
            Err(torch::Error::Content(why)) => {
                let hint = "a state dict, flat or under the key \"state_dict\", is expected";
                refuse("checkpoint-format", format!("{place}: {why}"), hint)
            }
            Err(asks @ torch::Error::Unsafe { .. }) => refuse(
                "checkpoint-unsafe",
                format!("{place} was not loaded: {asks}, which is not part of a tensor"),
                "save the weights alone, torch.save(model.state_dict(), ...), or use a checkpoint you can trust",
            ),
            Err(dtype @ torch::Error::Dtype { .. }) => {
                refuse("checkpoint-dtype", format!("{place}: {dtype}; {FLOATS}"), "")
            }
            Err(shape @ torch::Error::Shape { .. }) => {
                refuse("checkpoint-shape", format!("{place}: {shape}"), "")
            }
        }
    }

    fn of_one(tensors: BTreeMap<String, Stored>, path: &Path) -> Self {
        let tensors = tensors.into_iter().map(|(name, stored)| (name, (stored, path.to_owned())));
        Self { listing: path.to_owned(), tensors: tensors.collect() }
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name).map(|(stored, _)| stored)
    }

    /// The file that a tensor lies in.
    pub fn place(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(&self.listing, |(_, place)| place)
    }

    /// Every tensor, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, (stored, _))| (name.as_str(), stored))
    }

    /// Refuses values that are NaN or infinite; looks at every value, on every core.
    ///
    /// # Errors
    /// [`Refused`] with the code `checkpoint-nan`, of the first tensor in the order of names.
    pub fn check_finite(&self) -> Result<(), Refused> {
        let tensors: Vec<_> = self.tensors.iter().collect();
        tensors
            .par_iter()
            .map(|(name, (stored, place))| finite(name, stored, place))
            .find_first(Result::is_err)
            .unwrap_or(Ok(()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

/// Refuses a tensor with values that are NaN or infinite.
fn finite(name: &str, stored: &Stored, place: &Path) -> Result<(), Refused> {
    let count = stored.count_not_finite().map_err(|e| {
        let message = format!("{}: tensor `{name}`: {e}; {FLOATS}", place.display());
        Refused::new("checkpoint-dtype", message, "")
    })?;
    if count == 0 {
        return Ok(());
    }
    let (place, all) = (place.display(), stored.len());
    let message =
        format!("{place}: tensor `{name}` has {count} of {all} values that are NaN or infinite");
    let hint = "the checkpoint is damaged or training diverged; use another one";
    Err(Refused::new("checkpoint-nan", message, hint))
}

/// Maps a file; `hint` is what helps where it isn't there.
fn open(path: &Path, hint: &str) -> Result<Bytes, Refused> {
    files::map(path).map_err(|error| {
        let message = match error.kind() {
            ErrorKind::NotFound => format!("{} does not exist", path.display()),
            _ => format!("{} cannot be read: {error}", path.display()),
        };
        Refused::new("checkpoint-missing", message, hint)
    })
}

/// Refuses what stands in a file's place where Git LFS has not fetched it.
fn no_pointer(bytes: &[u8], path: &Path) -> Result<(), Refused> {
    if !bytes.starts_with(POINTER) {
        return Ok(());
    }
    let message = format!("{} is a Git LFS pointer, not the file itself", path.display());
    Err(Refused::new("checkpoint-format", message, "run `git lfs pull`"))
}
