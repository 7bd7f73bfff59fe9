use super::Error;
use crate::runtime::{Conversation, Session, Tensors};
use crate::tensor::Tensor;

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const POSITIONS: &str = "position_ids";
const LOGITS: &str = "logits";
const HIDDEN: &str = "last_hidden_state";
const PAST: &str = "past_key_values.";
const PRESENT: &str = "present.";

/// A model's inputs or outputs: names and dimensions, as a bundle's manifest has them.
pub type Ports = [(String, Vec<String>)];

/// A language model with a cache, loaded.
pub struct LanguageModel {
    session: Box<dyn Session>,
    /// Each cache input with its heads and their size; none where the model keeps its cache itself.
    cache: Vec<(String, usize, usize)>,
    channels: usize,
}

impl LanguageModel {
    /// A session of a model with these inputs and outputs.
    ///
    /// # Errors
    /// [`Error::Interface`] where they aren't a language model's.
    pub fn new(session: Box<dyn Session>, inputs: &Ports, outputs: &Ports) -> Result<Self, Error> {
        let refuse = |what: &str, why: &str| {
            Err(Error::Interface { what: format!("the language model's {what}"), why: why.to_owned() })
        };
        let fixed = |dims: &[String], at: usize| dims.get(at)?.parse::<usize>().ok().filter(|&n| n > 0);
        let mut cache = Vec::new();
        for (name, dims) in inputs.iter().filter(|(name, _)| name.starts_with(PAST)) {
            let (Some(heads), Some(size), 4) = (fixed(dims, 1), fixed(dims, 3), dims.len()) else {
                return refuse(name, "must be [batch, heads, past, size] with heads and size fixed");
            };
            cache.push((name.clone(), heads, size));
        }
        for name in [IDS, MASK, POSITIONS] {
            if !inputs.iter().any(|(input, _)| input == name) {
                return refuse(name, "is not among its inputs");
            }
        }
        let hidden = outputs.iter().find(|(name, _)| name == HIDDEN);
        let Some(channels) = hidden.and_then(|(_, dims)| fixed(dims, 2)) else {
            return refuse(HIDDEN, "must be an output [batch, sequence, channels] with channels fixed");
        };
        Ok(Self { session, cache, channels })
    }

    /// Channels of its hidden states.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Begins with these prompts; shorter ones are padded on the left with `pad`.
    pub(super) fn begin(&self, prompts: &[Vec<i64>], pad: i64) -> Result<Turn<'_>, Error> {
        let carried: Vec<(String, String)> = self
            .cache
            .iter()
            .map(|(name, ..)| (format!("{PRESENT}{}", &name[PAST.len()..]), name.clone()))
            .collect();
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
        let conversation = self.session.begin(&carried)?;
        let answer = Answer::default();
        let mut turn = Turn { model: self, conversation, length: 0, padding, answer };
        let mut inputs = turn.inputs(longest, ids, positions);
        for (name, heads, size) in &self.cache {
            inputs.insert(name.clone(), Tensor::from_f32(&[prompts.len(), *heads, 0, *size], &[]));
        }
        turn.answer(inputs, longest)?;
        Ok(turn)
    }
}

/// What the model makes of the last position of each sequence.
#[derive(Default)]
pub(super) struct Answer {
    /// Logits, [batch][vocabulary].
    pub logits: Vec<Vec<f32>>,
    /// Hidden states behind the final norm, [batch][channels].
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
        Tensors::from([
            (IDS.to_owned(), Tensor::from_i64(&[batch, new], &ids)),
            (MASK.to_owned(), Tensor::from_i64(&[batch, length], &mask)),
            (POSITIONS.to_owned(), Tensor::from_i64(&[batch, new], &positions)),
        ])
    }

    fn answer(&mut self, inputs: Tensors, new: usize) -> Result<(), Error> {
        let outputs = self.conversation.run(&inputs)?;
        self.length += new;
        let batch = self.padding.len();
        self.answer = Answer {
            logits: last(&outputs, LOGITS, batch, None)?,
            rows: last(&outputs, HIDDEN, batch, Some(self.model.channels))?,
        };
        Ok(())
    }
}

/// The last position of each sequence of an output f32 [batch, positions, size].
fn last(
    outputs: &Tensors,
    name: &str,
    batch: usize,
    wanted: Option<usize>,
) -> Result<Vec<Vec<f32>>, Error> {
    let refuse = |why: String| Error::Interface { what: format!("the language model's {name}"), why };
    let tensor = outputs.get(name).ok_or_else(|| refuse("is not among its outputs".to_owned()))?;
    let &[found, positions, size] = tensor.shape() else {
        return Err(refuse(format!("has the shape {:?}", tensor.shape())));
    };
    if found != batch || positions == 0 || size == 0 || wanted.is_some_and(|wanted| wanted != size) {
        return Err(refuse(format!("has the shape {:?} for {batch} sentences", tensor.shape())));
    }
    let row = |sequence: usize| tensor.row(sequence * positions + positions - 1, size);
    (0..batch).map(row).collect::<Result<_, _>>().map_err(|error| refuse(error.to_string()))
}
