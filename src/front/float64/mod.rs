//! Models in double precision: what a checkpoint's own weights compute, to about twelve digits, written as the formulas
//! of the papers and sharing nothing with the graphs that are written from the same weights.
//!
//! A float32 run, of PyTorch or of any runtime, is off by some 1e-6 of its peak; next to that, these answers are exact.
//! They are what float32 files are held to where no PyTorch is at hand.
//!
//! Weights stay where their file is mapped, and are widened a tile at a time. Every sum is taken in an order that the
//! shapes alone decide, so that one thread or two give the same bytes on one machine. Machines whose processors have
//! other instructions may differ in the last bits of a double, which is seldom seen once an answer is rounded to f32.

mod functions;
mod linear;
mod parameters;
#[cfg(test)]
pub(crate) mod testing;

use crate::source::Refused;

pub(crate) use functions::{Gelu, add, argmax, layer_norm, rms_norm, silu, softmax};
pub(crate) use linear::{Linear, by_rows};
pub use parameters::{Numbers, Signs};
pub(crate) use parameters::{Parameter, Parameters};

/// Numbers row by row: [rows, channels].
pub type Rows = ndarray::Array2<f64>;

/// Why a run gives no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was stopped from outside.
    #[error("interrupted")]
    Interrupted,
    /// The input doesn't fit the model.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Is called after each step of a run, all of which cost about the same; an error ends the run.
pub type Tick<'a> = &'a mut dyn FnMut() -> Result<(), Error>;

/// A sequence that a causal model is given at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens.
    pub ids: Vec<i64>,
    /// Of each whether the others see it: not where it is padding.
    pub seen: Vec<bool>,
    /// The place of each, from 0 on.
    pub positions: Vec<i64>,
}

impl Sequence {
    /// Tokens at their places, none of them padding.
    pub fn of(ids: &[i64]) -> Self {
        Self {
            ids: ids.to_vec(),
            seen: vec![true; ids.len()],
            positions: (0..).take(ids.len()).collect(),
        }
    }
}

/// What is wanted of a run besides the last hidden states.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Whether the logits are kept; the likeliest token is known without.
    pub logits: bool,
    /// The layers whose input is kept.
    pub layers: &'a [u32],
}

/// What a causal model answers to a sequence.
#[derive(Clone, Debug)]
pub struct CausalAnswer {
    /// Hidden states after the final norm, [tokens, channels].
    pub hidden: Rows,
    /// Scores of the next token, [tokens, vocabulary], if they were wanted.
    pub logits: Option<Rows>,
    /// The likeliest next token at each place; the first of equals.
    pub likeliest: Vec<i64>,
    /// What enters each layer that was wanted, [tokens, channels].
    pub layers: Vec<Rows>,
}

/// What a sequence has come to.
#[derive(Clone, Debug)]
pub struct Next {
    /// The last token's hidden state after the final norm, [channels].
    pub hidden: Vec<f64>,
    /// Scores of the next token, [vocabulary].
    pub logits: Vec<f64>,
}

/// A causal model in double precision.
pub trait CausalInDouble: Sync {
    /// How many tokens it knows.
    fn vocabulary(&self) -> usize;

    /// Channels of a hidden state.
    fn channels(&self) -> usize;

    /// How many positions it was made for.
    fn positions(&self) -> usize;

    /// How many layers it has: a run over sequences ticks once after each, and once at its end.
    fn layers(&self) -> usize;

    /// Each sequence by itself, whole.
    ///
    /// # Errors
    /// [`Error::Refused`] for a token that the model doesn't know, and what `tick` gives.
    fn run(
        &self,
        sequences: &[Sequence],
        wanted: Wanted<'_>,
        numbers: Numbers,
        tick: Tick<'_>,
    ) -> Result<Vec<CausalAnswer>, Error>;

    /// So many sequences that go on token by token from what was computed before.
    fn begin(&self, sequences: usize) -> Box<dyn Stepping + '_>;
}

/// Sequences that go on token by token.
pub trait Stepping {
    /// Feeds tokens to sequences, by their place, and says what comes after each.
    ///
    /// # Errors
    /// [`Error::Refused`] for a token that the model doesn't know.
    fn feed(&mut self, tokens: &[(usize, &[i64])]) -> Result<Vec<Next>, Error>;
}

/// Frames of one sequence, [channels, length].
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    /// How many there are.
    pub length: usize,
    /// Channel by channel.
    pub values: Vec<f64>,
}

/// What a signal model answers.
#[derive(Clone, Debug)]
pub struct SignalAnswer {
    /// `per_frame · (length − lead)` samples.
    pub samples: Vec<f64>,
    /// What else there is to say of it, by name.
    pub facts: Vec<(&'static str, f64)>,
}

/// A signal model in double precision.
pub trait SignalInDouble: Sync {
    /// Channels of a frame.
    fn channels(&self) -> usize;

    /// Samples that a frame gives.
    fn per_frame(&self) -> usize;

    /// Frames at the beginning that give none.
    fn lead(&self) -> usize;

    /// How often a run over so many frames in all ticks.
    fn ticks(&self) -> usize;

    /// Each sequence by itself. The time goes into products: it is that of all frames together.
    ///
    /// # Errors
    /// [`Error::Refused`] for frames that give no sample, or of other channels; and what `tick` gives.
    fn run(
        &self,
        frames: &[Frames],
        numbers: Numbers,
        tick: Tick<'_>,
    ) -> Result<Vec<SignalAnswer>, Error>;

    /// How often [`SignalInDouble::driven`] ticks.
    fn driven_ticks(&self) -> usize {
        0
    }

    /// Frames that drive the model to its limits, by what they are called: for each `start` one of each name. None
    /// that any model has.
    ///
    /// # Errors
    /// As [`SignalInDouble::run`].
    fn driven(
        &self,
        starts: &[Frames],
        tick: Tick<'_>,
    ) -> Result<Vec<(&'static str, Vec<Frames>)>, Error> {
        let _ = (starts, tick);
        Ok(Vec::new())
    }
}
