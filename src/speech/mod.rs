//! Makes a bundle speak: text front end, tokenizer, sampling, the generation loop, and streaming.
//!
//! ```text
//! text -> normalize -> sentences -> prompts -> tokens, and the row that predicted each -> decoder -> samples
//! ```
//!
//! A sentence of T kept tokens has T rows of hidden states: those that *predicted* each token, so that the
//! first is the prompt's last position and the row after the last token is dropped with the stop. That is
//! what upstream's `infer` decodes; its streaming drops the first row instead. Here both ways decode the same
//! rows, so that the streamed signal is the offline one. T rows are 2048 (T - 1) samples in Soprano.

mod decoder;
mod generation;
mod language_model;
mod sampling;
mod settings;
mod speaker;
mod stream;
#[cfg(test)]
mod tests;
pub mod text;
mod tokenizer;
mod voice;

use std::path::PathBuf;

pub use decoder::Decoder;
pub use generation::Generation;
pub use language_model::LanguageModel;
pub use sampling::{Candidate, Filter, Sampler, Sampling};
pub use settings::{Script, Settings};
pub use speaker::{Assemble, Frame, Parts, Speaker, Speaking, Utterance};
pub use stream::Stream;
pub use tokenizer::Tokenizer;
pub use voice::{Audience, Summary, Voice};

/// Why a text can't be spoken.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// A runtime failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Runtime(#[from] crate::runtime::Error),
    /// The tokenizer could not be read, or is of another model.
    #[error("{}: {why}", path.display())]
    #[diagnostic(
        code(speech::tokenizer),
        help("use the tokenizer.json of the checkpoint that the bundle was built from")
    )]
    Tokenizer { path: PathBuf, why: String },
    /// Nothing of the text can be said.
    #[error("{name} has nothing to say: it has no letters or digits")]
    #[diagnostic(
        code(speech::empty),
        help("write a word: soprano-export synth BUNDLE \"Hello there.\"")
    )]
    Nothing { name: String },
    /// A graph is not one that can speak.
    #[error("{what}: {why}")]
    #[diagnostic(code(speech::interface), help("soprano-export verify, and build the bundle again"))]
    Interface { what: String, why: String },
    /// The two graphs are of different checkpoints.
    #[error("the language model's hidden states have {lm} channels, and the decoder takes {decoder}")]
    #[diagnostic(code(speech::width), help("the two files are of different checkpoints"))]
    Width { lm: usize, decoder: usize },
    /// A prompt has a token that the model does not know.
    #[error("a prompt has the token {token}, and the language model knows {vocabulary}")]
    #[diagnostic(code(speech::vocabulary), help("the tokenizer is another model's"))]
    Vocabulary { token: i64, vocabulary: usize },
    /// The model's logits are NaN.
    #[error("sentence {sentence}, token {step}: the language model's logits are not numbers")]
    #[diagnostic(
        code(speech::not_finite),
        help("soprano-export validate says whether the file is right")
    )]
    NotFinite { sentence: usize, step: usize },
    /// A sample of the sound is NaN or infinite.
    #[error("sample {at} of the decoder's audio is not a number")]
    #[diagnostic(
        code(speech::not_finite),
        help("soprano-export validate says whether the file is right")
    )]
    Audio { at: usize },
    /// The sound could not be written.
    #[error("the audio can't be written: {0}")]
    #[diagnostic(code(speech::output))]
    Output(#[from] std::io::Error),
    /// Speaking was stopped from outside.
    #[error("interrupted")]
    #[diagnostic(code(speech::interrupted))]
    Interrupted,
}
