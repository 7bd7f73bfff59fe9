use super::language_model::{LanguageModel, Turn};
use super::{Error, Frame, Sampler, Sampling, Speaking, Utterance};

/// A batch of prompts that a language model answers, a token of each at a time; the frame of a token is the row
/// of hidden states that predicted it.
pub struct Generation<'a> {
    turn: Turn<'a>,
    sentences: Vec<Sentence>,
    stop: i64,
    limit: usize,
}

struct Sentence {
    sampler: Sampler,
    /// Which tokens are in the prompt or were said.
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
            sentences.push(Sentence {
                sampler,
                used,
                utterance: Utterance::default(),
                done: limit == 0,
            });
        }
        Ok(Self { turn, sentences, stop, limit })
    }
}

impl Speaking for Generation<'_> {
    fn is_done(&self) -> bool {
        self.sentences.iter().all(|sentence| sentence.done)
    }

    fn step(&mut self, take: &mut dyn FnMut(usize, &Frame)) -> Result<(), Error> {
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
            let frame = Frame::Row(std::mem::take(row));
            take(at, &frame);
            next[at] = chosen as i64;
            sentence.used[chosen] = true;
            sentence.utterance.tokens.push(chosen as i64);
            sentence.utterance.frames.push(frame);
            sentence.done = sentence.utterance.tokens.len() >= self.limit;
        }
        if self.is_done() { Ok(()) } else { self.turn.step(&next) }
    }

    fn finish(self: Box<Self>) -> Vec<Utterance> {
        self.sentences.into_iter().map(|sentence| sentence.utterance).collect()
    }
}
