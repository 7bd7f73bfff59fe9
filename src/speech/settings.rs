use super::Sampling;
use super::text::Faults;

/// How a text is spoken.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The most tokens of a sentence; upstream's is 512.
    pub limit: usize,
    /// How often a sentence is said again in which the model only repeats one sound ([`Speaker::is_stuck`]).
    pub retries: usize,
    /// Sentences that are said at once; one while streaming.
    pub batch: usize,
    /// The most pieces (64 ms in Soprano) that are given out at a time while a sentence is being said
    /// ([`Stream`]); none gives out whole sentences.
    pub stream: Option<usize>,
    /// What becomes of upstream's faults in reading.
    pub faults: Faults,
}

impl Default for Settings {
    fn default() -> Self {
        let sampling = Sampling::default();
        Self { sampling, limit: 512, retries: 0, batch: 1, stream: None, faults: Faults::Mended }
    }
}

/// A text, and what errors call it: `the text`, `line 3`.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// The text.
    pub text: String,
}
