//! The tensors of a checkpoint, by name: mapped, and held against nothing yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::Refused;
use crate::files;
use crate::tensor::{DType, Stored};

/// A language model's weights in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// The list of a language model's weights in shards.
pub const INDEX: &str = "model.safetensors.index.json";

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
        let path = folder.join(WEIGHTS);
        let refuse = |why: String| Refused::new("checkpoint-format", format!("{}: {why}", path.display()), "");
        let bytes = files::map(&path).map_err(|e| refuse(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| refuse(e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let dtype = DType::from_safetensors(view.dtype()).ok_or_else(|| refuse("a dtype".into()))?;
            let stored = Stored::row_major(dtype, view.shape().to_vec(), bytes.slice_ref(view.data()));
            tensors.insert(name.to_owned(), (stored.map_err(|e| refuse(e.to_string()))?, path.clone()));
        }
        Ok(Self { listing: path, tensors })
    }

    /// A state dict's, flat or under the key `state_dict`: a `.pth` file, read without running anything.
    ///
    /// # Errors
    /// As [`Weights::of_language_model`], and `checkpoint-unsafe` for a pickle that asks for code.
    pub fn of_state_dict(path: &Path) -> Result<Self, Refused> {
        Err(Refused::new("checkpoint-format", format!("{}: no reader yet", path.display()), ""))
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}
