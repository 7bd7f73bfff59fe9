//! Models written directly from their weights, by architecture: the graph that exporters and passes end in, and,
//! sharing no formula with it, the same model in double precision.

pub mod float64;
pub(crate) mod fold;
pub(crate) mod inverse_stft;
mod sketch;
pub mod transformer;
pub mod vocos;

use std::path::Path;

use serde_json::{Map, Value};

use self::float64::{CausalInDouble, SignalInDouble};
use crate::ir::Draft;
use crate::names::Ports;
use crate::source::Refused;

/// What is asked of a graph.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// The ONNX operator set.
    pub opset: u32,
    /// The names of the graph's inputs and outputs.
    pub ports: &'a Ports,
    /// Of a causal graph: the layers whose input becomes an output.
    pub hidden_states: &'a [u32],
    /// Of a causal graph: whether logits are those of the last position alone.
    pub last_logits: bool,
}

/// A graph that was written, and what it is.
pub struct Drafted {
    /// The graph.
    pub draft: Draft,
    /// The dimensions, by the names that the manifest has for them, and `parameters`, how many numbers the checkpoint has.
    pub architecture: Map<String, Value>,
    /// Of a signal graph: how its frames become samples.
    pub sound: Option<Sound>,
}

/// How frames become samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// Samples a second.
    pub sample_rate: usize,
    /// Samples that a frame gives.
    pub per_frame: usize,
    /// Frames at the beginning that give none.
    pub lead: usize,
}

/// An architecture.
pub trait Front: std::fmt::Debug + Sync {
    /// Writes the graph of a checkpoint.
    ///
    /// # Errors
    /// [`Refused`] for a checkpoint that is not whole, or not of this architecture.
    fn draft(&self, asked: &Asked<'_>) -> Result<Drafted, Refused>;

    /// The model of a checkpoint in double precision.
    ///
    /// # Errors
    /// As [`Front::draft`].
    fn in_double(&self, checkpoint: &Path) -> Result<InDouble, Refused>;
}

/// A model in double precision, by its role.
pub enum InDouble {
    /// Tokens to logits.
    Causal(Box<dyn CausalInDouble>),
    /// Frames to samples.
    Signal(Box<dyn SignalInDouble>),
}
