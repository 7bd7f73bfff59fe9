use super::language_model::{LanguageModel, Turn};
use super::{Error, Sampler, Sampling};

/// The answer to one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Utterance {
    /// Audio tokens, without the one that stops.
    pub tokens: Vec<i64>,
    /// For each token the row of hidden states that predicted it, each [channels].
    pub rows: Vec<Vec<f32>>,
    /// Whether it stopped by itself.
    pub stopped: bool,
}

/// A batch of prompts that is being answered, a token of each at a time.
pub struct Generation<'a> {
    turn: Turn<'a>,
    sentences: Vec<Sentence>,
    stop: i64,
    limit: usize,
    steps: usize,
}

struct Sentence {
    sampler: Sampler,
    /// Which tokens are in the prompt or the utterance.
    used: Vec<bool>,
    utterance: Utterance,
    done: bool,
}

impl<'a> Generation<'a> {
    /// Gives the prompts to the model. `streams` tell the sentences apart that share a seed; `limit` is the
    /// most tokens of each.
    ///
    /// # Errors
    /// [`Error::Runtime`], [`Error::Interface`], [`Error::Vocabulary`].
    pub fn begin(
        model: &'a LanguageModel,
        prompts: &[Vec<i64>],
        stop: i64,
        sampling: Sampling,
        streams: &[u64],
        limit: usize,
    ) -> Result<Self, Error> {
        let turn = model.begin(prompts, stop)?;
        let vocabulary = turn.answer.logits.first().map_or(0, Vec::len);
        let place = |token: i64| usize::try_from(token).ok().filter(|&at| at < vocabulary);
        let mut sentences = Vec::with_capacity(prompts.len());
        for (prompt, &stream) in prompts.iter().zip(streams) {
            let mut used = vec![false; vocabulary];
            // The stop stands for padding too, which upstream's penalty sees.
            for &token in prompt.iter().chain([&stop]) {
                let at = place(token).ok_or(Error::Vocabulary { token, vocabulary })?;
                used[at] = true;
            }
            let sampler = Sampler::new(sampling, stream);
            let utterance = Utterance::default();
            sentences.push(Sentence { sampler, used, utterance, done: limit == 0 });
        }
        Ok(Self { turn, sentences, stop, limit, steps: 0 })
    }

    /// Whether every sentence has ended.
    pub fn is_done(&self) -> bool {
        self.sentences.iter().all(|sentence| sentence.done)
    }

    /// Chooses the next token of every sentence that goes on, and lets the model answer. Calls `take` with
    /// the sentence's number and its new row; not for the token that stops.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Runtime`] and [`Error::Interface`] of the model.
    pub fn step(&mut self, mut take: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        let mut next = vec![self.stop; self.sentences.len()];
        let answers = self.turn.answer.logits.iter().zip(&mut self.turn.answer.rows);
        for (at, (sentence, (logits, row))) in self.sentences.iter_mut().zip(answers).enumerate() {
            if sentence.done {
                continue;
            }
            let refuse = || Error::NotFinite { sentence: at, step: sentence.utterance.tokens.len() };
            let chosen = sentence.sampler.choose(logits, &sentence.used);
            let chosen = chosen.filter(|_| row.iter().all(|value| value.is_finite()));
            let chosen = chosen.ok_or_else(refuse)?;
            if chosen as i64 == self.stop {
                (sentence.utterance.stopped, sentence.done) = (true, true);
                continue;
            }
            take(at, row);
            next[at] = chosen as i64;
            sentence.used[chosen] = true;
            sentence.utterance.tokens.push(chosen as i64);
            sentence.utterance.rows.push(std::mem::take(row));
            sentence.done = sentence.utterance.tokens.len() >= self.limit;
        }
        self.steps += 1;
        if !self.is_done() {
            self.turn.step(&next)?;
        }
        Ok(())
    }

    /// Calls of the model so far, the prompt's included.
    pub fn calls(&self) -> usize {
        self.steps
    }

    /// The utterances, in the order of the prompts.
    pub fn finish(self) -> Vec<Utterance> {
        self.sentences.into_iter().map(|sentence| sentence.utterance).collect()
    }
}
