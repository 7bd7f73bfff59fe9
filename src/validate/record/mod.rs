//! References without PyTorch: what a checkpoint's weights answer in double precision, in the files that
//! [`References`](super::References) and [`speech::Recorded`](super::speech::Recorded) read.
//!
//! Inputs are drawn as the recorders in Python draw them, from a generator of another kind: the same recipe gives other
//! numbers of the same distributions. Answers are rounded to f32 once, at the end.
//!
//! A case carries how far its answer moves where a last bit is added to every weight and every input, or taken away:
//! in [`Case::last_bit`], by the metrics that an artifact is judged by. That takes a second run; a case of more than
//! [`MOST_MOVED`] positions has none, and is then held to the recipe's tolerance whatever it is like.

mod causal;
mod drawn;
mod moved;
mod signal;
mod speech;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};

pub use causal::{Spoken, causal, spoken};
pub use signal::signal;
pub use speech::{Asked, Speech, speech};

use super::{Case, Error};
use crate::front::float64;
use crate::source::Refused;
use crate::tensor::{Tensor, TensorFile};

/// Positions of a case, over its batch, up to which it is measured how far a last bit moves it.
pub const MOST_MOVED: usize = 128;
/// New tokens after which a sentence ends that did not stop by itself, as upstream has it.
pub const LIMIT: usize = 512;
/// Of the factors that move weights and inputs.
const SEED: u64 = 0;

/// Who looks on.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Is told how much is done, of how much. The last call has both alike.
    pub progress: &'a dyn Fn(usize, usize),
    /// Ends the work where it is set.
    pub interrupted: &'a AtomicBool,
}

/// Prompts, and how an answer ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prompts<'a> {
    /// The tokens of each.
    pub ids: &'a [Vec<i64>],
    /// The token that ends an answer, if there is one.
    pub stop: Option<i64>,
}

/// Counts the steps of a work.
struct Course<'a> {
    watch: Watch<'a>,
    done: usize,
    total: usize,
}

impl<'a> Course<'a> {
    /// A work of so many steps, of which some may turn out not to be needed.
    fn new(watch: Watch<'a>, total: usize) -> Self {
        (watch.progress)(0, total);
        Self { watch, done: 0, total }
    }

    /// A step is done.
    fn tick(&mut self) -> Result<(), float64::Error> {
        if self.watch.interrupted.load(Ordering::Relaxed) {
            return Err(float64::Error::Interrupted);
        }
        self.done = (self.done + 1).min(self.total.saturating_sub(1));
        (self.watch.progress)(self.done, self.total);
        Ok(())
    }

    /// Everything is done.
    fn finish(self) {
        (self.watch.progress)(self.total, self.total);
    }
}

impl From<float64::Error> for Error {
    fn from(error: float64::Error) -> Self {
        match error {
            float64::Error::Refused(refused) => Error::Checkpoint(refused),
            _ => Error::Interrupted,
        }
    }
}

/// Cases and their tensors, on their way into a file.
#[derive(Default)]
struct Recording {
    cases: Vec<Case>,
    file: TensorFile,
}

impl Recording {
    /// A case, with its inputs and outputs by name.
    fn add<'n>(&mut self, case: Case, tensors: impl IntoIterator<Item = (&'n str, Tensor)>) {
        for (name, tensor) in tensors {
            self.file.tensors.insert(format!("{}/{name}", case.name), tensor);
        }
        self.cases.push(case);
    }

    /// The file, which says what its numbers are.
    fn finish(mut self) -> TensorFile {
        let cases = serde_json::to_string(&self.cases).expect("plain data");
        self.file.metadata.insert("cases".into(), cases);
        self.file.metadata.insert("precision".into(), "float64".into());
        self.file
    }
}

/// An answer as f32.
///
/// # Errors
/// [`Error::Checkpoint`] where a value is not finite as one.
fn rounded(
    what: &str,
    shape: &[usize],
    values: impl IntoIterator<Item = f64>,
) -> Result<Tensor, Error> {
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(Tensor::from_f32(shape, &values)),
        false => {
            let why = format!("the model itself gives NaN or infinite values: {what}");
            Err(Refused::new("reference-nonfinite", why, "the checkpoint's weights overflow float32")
                .into())
        }
    }
}

/// A request that the model can't meet.
fn refuse<T>(why: String) -> Result<T, Error> {
    Err(Refused::new("request", why, "change the recipe's `references`").into())
}
