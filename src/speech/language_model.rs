use super::Error;
use crate::interface::Causal;
use crate::runtime::{Conversation, Session, Tensors};

/// A language model with a cache, loaded.
pub struct LanguageModel {
    session: Box<dyn Session>,
    graph: Causal,
    channels: usize,
}

impl LanguageModel {
    /// A session of a causal graph.
    ///
    /// # Errors
    /// [`Error::Interface`] where it gives no hidden states.
    pub fn new(session: Box<dyn Session>, graph: Causal) -> Result<Self, Error> {
        let Some(channels) = graph.channels() else {
            let what = format!("the language model's {}", graph.names().hidden);
            let why = "must be an output [batch, sequence, channels] with channels fixed";
            return Err(Error::Interface { what, why: why.to_owned() });
        };
        Ok(Self { session, graph, channels })
    }

    /// Channels of its hidden states.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Begins with these prompts; shorter ones are padded on the left with `pad`.
    pub(super) fn begin(&self, prompts: &[Vec<i64>], pad: i64) -> Result<Turn<'_>, Error> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let padding: Vec<usize> = prompts.iter().map(|prompt| longest - prompt.len()).collect();
        let ids = prompts.iter().zip(&padding).flat_map(|(prompt, &padding)| {
            std::iter::repeat_n(pad, padding).chain(prompt.iter().copied())
        });
        let ids = ids.collect();
        let positions = padding.iter().flat_map(|&padding| {
            (0..longest).map(move |at| at.checked_sub(padding).map_or(1, |position| position as i64))
        });
        let positions = positions.collect();
        let conversation = self.session.begin(&self.graph.carried())?;
        let answer = Answer::default();
        let mut turn = Turn { model: self, conversation, length: 0, padding, answer };
        let mut inputs = turn.inputs(longest, ids, positions);
        inputs.extend(self.graph.empty_cache(prompts.len()));
        turn.answer(inputs, longest)?;
        Ok(turn)
    }
}

/// What the model gives for the last position of each sequence.
#[derive(Default)]
pub(super) struct Answer {
    /// Logits, [batch][vocabulary].
    pub logits: Vec<Vec<f32>>,
    /// Hidden states after the final norm, [batch][channels].
    pub rows: Vec<Vec<f32>>,
}

/// Prompts that are being answered.
pub(super) struct Turn<'a> {
    model: &'a LanguageModel,
    conversation: Box<dyn Conversation + 'a>,
    /// Positions so far, padding included.
    length: usize,
    padding: Vec<usize>,
    pub(super) answer: Answer,
}

impl Turn<'_> {
    /// Goes on with one token of each sequence.
    pub(super) fn step(&mut self, tokens: &[i64]) -> Result<(), Error> {
        let positions = self.padding.iter().map(|&padding| (self.length - padding) as i64).collect();
        let inputs = self.inputs(1, tokens.to_vec(), positions);
        self.answer(inputs, 1)
    }

    fn inputs(&self, new: usize, ids: Vec<i64>, positions: Vec<i64>) -> Tensors {
        let (batch, length) = (self.padding.len(), self.length + new);
        let mask: Vec<i64> =
            self.padding.iter().flat_map(|&p| (0..length).map(move |at| i64::from(at >= p))).collect();
        self.model.graph.tokens(batch, &ids, &mask, &positions)
    }

    fn answer(&mut self, inputs: Tensors, new: usize) -> Result<(), Error> {
        let outputs = self.conversation.run(&inputs)?;
        self.length += new;
        let (batch, names) = (self.padding.len(), self.model.graph.names());
        self.answer = Answer {
            logits: last(&outputs, &names.logits, batch, None)?,
            rows: last(&outputs, &names.hidden, batch, Some(self.model.channels))?,
        };
        Ok(())
    }
}

/// The last position of each sequence of an output f32 [batch, positions, size].
fn last(
    outputs: &Tensors,
    name: &str,
    batch: usize,
    channels: Option<usize>,
) -> Result<Vec<Vec<f32>>, Error> {
    let refuse = |why: String| Error::Interface { what: format!("the language model's {name}"), why };
    let tensor = outputs.get(name).ok_or_else(|| refuse("is not among its outputs".to_owned()))?;
    let &[sequences, positions, size] = tensor.shape() else {
        return Err(refuse(format!("has the shape {:?}", tensor.shape())));
    };
    let fits = channels.is_none_or(|channels| channels == size);
    if sequences != batch || positions == 0 || size == 0 || !fits {
        return Err(refuse(format!("has the shape {:?} for {batch} sentences", tensor.shape())));
    }
    let row = |sequence: usize| tensor.row(sequence * positions + positions - 1, size);
    (0..batch).map(row).collect::<Result<_, _>>().map_err(|error| refuse(error.to_string()))
}
