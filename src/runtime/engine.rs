//! What a runtime tells about itself: how it is found, and which files it runs.

use std::fmt;
use std::path::Path;

use super::library::{Library, Places};
use super::{Error, Format, Options, Runtime};
use crate::ir::{self, Model};
use crate::names::Precision;
use crate::quantize::has_byte_blocks;

/// A runtime that this program knows, whether or not it is found here.
pub trait Engine: Sync {
    /// Its name in options, recipes and reports.
    fn name(&self) -> &'static str;

    /// What it is, in a line of help.
    fn about(&self) -> &'static str;

    /// Its shared library; none where it is built in.
    fn library(&self) -> Option<&'static Library> {
        None
    }

    /// The formats that it reads, the one it is fastest with first.
    fn formats(&self) -> &'static [Format] {
        &[Format::Onnx]
    }

    /// How well it runs a file of one of these formats.
    fn takes(&self, file: &Traits) -> Takes;

    /// Whether a build validates its files in it too: its version is then part of a stage's key.
    fn judges_builds(&self) -> bool {
        true
    }

    /// Finds it, without loading more than it must.
    ///
    /// # Errors
    /// [`Error::Missing`] where it is not here.
    fn find(&self, places: &Places, options: Options) -> Result<Box<dyn Runtime>, Error>;
}

impl PartialEq for dyn Engine {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for dyn Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a model's file is, as far as a runtime cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Its format.
    pub format: Format,
    /// How its numbers are held.
    pub precision: Precision,
    /// Whether it has weights in blocks of 8 bits.
    pub byte_blocks: bool,
}

impl Traits {
    /// An ONNX file of integer products.
    pub const INT8: Self =
        Self { format: Format::Onnx, precision: Precision::Int8, byte_blocks: false };

    /// Those of a file; an ONNX file is read for them.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn of(path: &Path, format: Format, precision: Precision) -> Result<Self, ir::Error> {
        let byte_blocks = format == Format::Onnx && has_byte_blocks(&Model::open(path)?);
        Ok(Self { format, precision, byte_blocks })
    }
}

/// How well a runtime runs a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// At full speed.
    Well,
    /// Correctly, but so slowly that it must be asked for by name.
    Slowly(&'static str),
    /// Not at all, or slower than another file of the same model.
    Not(&'static str),
}
