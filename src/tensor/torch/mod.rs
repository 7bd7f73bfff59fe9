//! PyTorch's `.pth` files: a zip archive of a pickle and its storages, read where they lie.
//!
//! The pickle is read by a machine that can build tensors and plain containers and nothing else: what it asks for beyond
//! that is refused by name, and nothing is ever run. Its work is bounded by its length. Format:
//! `torch/serialization.py` and `torch/_weights_only_unpickler.py` of PyTorch 1.13 to 2.15.

mod archive;
mod globals;
mod machine;
mod rebuild;
mod state;
mod value;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Stored;
use archive::Archive;
use machine::Machine;

/// The first bytes of a zip archive's first record.
const ZIP: &[u8] = b"PK\x03\x04";
/// The largest pickle that is read: those of state dicts take about 150 bytes a tensor.
const LARGEST_PICKLE: usize = 8 << 20;

/// Why a PyTorch file is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is cut short, damaged, or contradicts itself.
    #[error("{0}")]
    Damaged(String),
    /// It is of a form that is not read.
    #[error("{why}")]
    Form {
        /// Which form.
        why: String,
        /// How to write it in one that is.
        hint: &'static str,
    },
    /// It is whole, and not a dict of tensors.
    #[error("{0}")]
    Content(String),
    /// The pickle asks for what is not part of a tensor.
    #[error("it asks to run {what}")]
    Unsafe {
        /// The name of it, as Python writes it; `code` where it has none.
        what: String,
    },
    /// A tensor is not dense, or not of float32, float16 or bfloat16.
    #[error("tensor `{name}` is {is}")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type, as PyTorch names it.
        is: String,
    },
    /// A tensor has more elements than its storage.
    #[error("tensor `{name}` claims shape {shape:?} over {has} bytes")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape that it claims.
        shape: Vec<usize>,
        /// Bytes of its storage.
        has: usize,
    },
}

fn damaged(why: impl Into<String>) -> Error {
    Error::Damaged(why.into())
}

fn form(why: impl Into<String>, hint: &'static str) -> Error {
    Error::Form { why: why.into(), hint }
}

/// What helps where PyTorch reads a file that is not read here.
const SAVE_AGAIN: &str =
    "write it again: torch.save(torch.load(FILE, map_location=\"cpu\", weights_only=True), FILE)";

/// The tensors of a state dict, flat or under the key `state_dict`: views of `bytes`, in f32, f16 or bf16.
///
/// # Errors
/// [`Error`] says why the file is refused.
pub fn read(bytes: &Bytes) -> Result<BTreeMap<String, Stored>, Error> {
    if !bytes.starts_with(ZIP) {
        return Err(state::not_zip(bytes));
    }
    let archive = Archive::open(bytes)?;
    let pickle = archive.pickle()?;
    let mut machine = Machine::new(&pickle, Some(&archive));
    let root = machine.run()?;
    state::tensors(&machine.values, root)
}
