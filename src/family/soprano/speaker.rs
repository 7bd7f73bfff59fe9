use std::sync::Arc;

use super::repetition::hallucinates;
use super::{DECODER, LM};
use crate::interface::Interface;
use crate::speech::text::{self, Faults};
use crate::speech::{
    Decoder, Error, Frame, Generation, LanguageModel, Parts, Script, Settings, Speaker, Speaking,
    Tokenizer,
};

/// Rows after a row that can still change its samples, rounded up: upstream's figure. A row's samples depend on
/// those within 2.2 of it.
const RECEPTIVE_FIELD: usize = 4;

/// A language model whose hidden states a decoder makes sound of.
pub struct Soprano {
    tokenizer: Tokenizer,
    lm: LanguageModel,
    decoder: Decoder,
    sample_rate: u32,
}

impl Soprano {
    /// Puts the graphs together.
    ///
    /// # Errors
    /// [`Error::Width`] where they are of different checkpoints.
    pub fn new(
        tokenizer: Tokenizer,
        lm: LanguageModel,
        decoder: Decoder,
        sample_rate: u32,
    ) -> Result<Self, Error> {
        let (wide, taken) = (lm.channels(), decoder.channels());
        match wide == taken {
            true => Ok(Self { tokenizer, lm, decoder, sample_rate }),
            false => Err(Error::Width { lm: wide, decoder: taken }),
        }
    }

    /// The speaker of a bundle's parts.
    ///
    /// # Errors
    /// [`Error::Interface`] for a graph that is missing or of another role; [`Error::Width`].
    pub(super) fn of(mut parts: Parts) -> Result<Arc<dyn Speaker>, Error> {
        let refuse = |graph: &str, why: &str| Error::Interface {
            what: format!("the graph {graph:?}"),
            why: why.to_owned(),
        };
        let mut part = |graph| parts.graphs.remove(graph).ok_or_else(|| refuse(graph, "is missing"));
        let (Interface::Causal(lm), lm_session) = part(LM)? else {
            return Err(refuse(LM, "is not a language model"));
        };
        let (Interface::Signal(decoder), decoder_session) = part(DECODER)? else {
            return Err(refuse(DECODER, "is not a decoder"));
        };
        let lm = LanguageModel::new(lm_session, lm)?;
        let decoder = Decoder::new(decoder_session, decoder);
        Ok(Arc::new(Self::new(parts.tokenizer, lm, decoder, parts.sample_rate)?))
    }
}

impl Speaker for Soprano {
    fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    fn read(&self, script: &Script, faults: Faults) -> Result<Vec<Vec<i64>>, Error> {
        let sentences = text::sentences(&text::normalize(script.text.trim(), faults), faults);
        let spoken = sentences.iter().filter(|sentence| sentence.contains(char::is_alphanumeric));
        let prompts = spoken.map(|sentence| self.tokenizer.encode(&text::prompt(sentence)));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        match prompts.is_empty() {
            true => Err(Error::Nothing { name: script.name.clone() }),
            false => Ok(prompts),
        }
    }

    fn begin<'a>(
        &'a self,
        prompts: &[Vec<i64>],
        settings: &Settings,
        streams: &[u64],
    ) -> Result<Box<dyn Speaking + 'a>, Error> {
        let (stop, Settings { sampling, limit, .. }) = (self.tokenizer.stop(), *settings);
        Ok(Box::new(Generation::begin(&self.lm, prompts, stop, sampling, streams, limit)?))
    }

    fn render(&self, frames: &[Frame]) -> Result<Vec<f32>, Error> {
        self.decoder.decode(frames)
    }

    fn receptive_field(&self) -> usize {
        RECEPTIVE_FIELD
    }

    fn is_stuck(&self, frames: &[Frame]) -> bool {
        hallucinates(frames)
    }
}
