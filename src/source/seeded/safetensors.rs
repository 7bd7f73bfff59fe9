//! `model.safetensors`, a tensor at a time.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use super::Drawn;
use crate::files::Staged;
use crate::tensor::DType;

/// Draws tensors of one type into a safetensors file, in the order of their names, with the metadata that
/// `transformers` asks for. One of them is in memory at a time.
///
/// # Errors
/// Where the file can't be written.
pub fn write(path: &Path, dtype: DType, seed: u64, mut tensors: Vec<Drawn>) -> io::Result<()> {
    tensors.sort_by(|one, other| one.name.cmp(&other.name));
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let begin = end;
        end += tensor.elements() * dtype.size();
        let shape = tensor.shape.clone();
        let info = TensorInfo { dtype: dtype.to_safetensors(), shape, data_offsets: (begin, end) };
        (tensor.name.clone(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(format), infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut staged = Staged::beside(path)?;
    staged.file().write_all(&(header.len() as u64).to_le_bytes())?;
    staged.file().write_all(&header)?;
    let mut bytes = Vec::new();
    for tensor in &tensors {
        tensor.draw(seed, dtype, &mut bytes);
        staged.file().write_all(&bytes)?;
    }
    staged.put()
}
