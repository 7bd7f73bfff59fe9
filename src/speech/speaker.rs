use std::collections::BTreeMap;
use std::sync::Arc;

use super::text::Faults;
use super::{Error, Script, Settings, Tokenizer};
use crate::interface::Interface;
use crate::runtime::Session;

/// What one step of a language model gives, and a decoder makes sound of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Frame {
    /// A row of hidden states, [channels].
    Row(Vec<f32>),
    /// A code of each codebook, [codebooks].
    Codes(Vec<i64>),
}

/// The answer to one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Utterance {
    /// Audio tokens, without the one that stops.
    pub tokens: Vec<i64>,
    /// For each token the frame that it stands for.
    pub frames: Vec<Frame>,
    /// Whether it stopped by itself.
    pub stopped: bool,
}

/// What a family knows of speaking: how a text becomes prompts, how prompts are answered, and how the answer
/// becomes sound. [`Voice`](super::Voice) does the rest.
pub trait Speaker: Send + Sync {
    /// Samples a second.
    fn sample_rate(&self) -> u32;

    /// The prompts' tokens of a text, sentence by sentence.
    ///
    /// # Errors
    /// [`Error::Nothing`] where nothing of the text can be said; [`Error::Tokenizer`].
    fn read(&self, script: &Script, faults: Faults) -> Result<Vec<Vec<i64>>, Error>;

    /// Gives prompts to the model, to be answered side by side. `streams` tell sentences apart that share a seed.
    ///
    /// # Errors
    /// [`Error::Runtime`], [`Error::Interface`], [`Error::Vocabulary`].
    fn begin<'a>(
        &'a self,
        prompts: &[Vec<i64>],
        settings: &Settings,
        streams: &[u64],
    ) -> Result<Box<dyn Speaking + 'a>, Error>;

    /// Samples of frames that follow each other, full scale ±1.
    ///
    /// # Errors
    /// [`Error::Runtime`], [`Error::Interface`], [`Error::Audio`] for a sample that is not a number.
    fn render(&self, frames: &[Frame]) -> Result<Vec<f32>, Error>;

    /// Frames before and after a frame that change its samples, rounded up.
    fn receptive_field(&self) -> usize;

    /// Whether these frames are not speech but one sound again and again, so that the sentence is said anew.
    fn is_stuck(&self, _frames: &[Frame]) -> bool {
        false
    }
}

/// Prompts that are being answered, a frame of each at a time.
pub trait Speaking {
    /// Whether every sentence has ended.
    fn is_done(&self) -> bool;

    /// Lets every sentence that has not ended go on by one frame. Calls `take` with the sentence's number and its
    /// new frame; not for the token that stops.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Runtime`] and [`Error::Interface`] of the model.
    fn step(&mut self, take: &mut dyn FnMut(usize, &Frame)) -> Result<(), Error>;

    /// The utterances, in the order of the prompts.
    fn finish(self: Box<Self>) -> Vec<Utterance>;
}

/// What a family makes a speaker of.
pub struct Parts {
    /// The checkpoint's tokenizer.
    pub tokenizer: Tokenizer,
    /// Samples a second.
    pub sample_rate: u32,
    /// The graphs that speak, by name: their interface, and a session of each.
    pub graphs: BTreeMap<String, (Interface, Box<dyn Session>)>,
}

/// Makes a speaker of its parts, or says why they make none.
pub type Assemble = fn(Parts) -> Result<Arc<dyn Speaker>, Error>;
