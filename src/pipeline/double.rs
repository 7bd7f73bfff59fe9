//! What the original model answers in double precision, straight from a checkpoint's weights.

use std::path::Path;

use super::Error;
use crate::family::{self, Family, Text};
use crate::front::InDouble;
use crate::front::float64::{CausalInDouble, Frames, SignalInDouble};
use crate::names::Role;
use crate::recipe::{Graph, Recipe};
use crate::source::Refused;
use crate::speech::Tokenizer;
use crate::tensor::TensorFile;
use crate::validate::record::{self, Asked, Prompts, Speech, Watch};

/// The file that prompts are cut into tokens by.
const TOKENIZER: &str = "tokenizer.json";

/// A checkpoint that is asked in double precision.
pub(super) struct Double<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) checkpoint: &'a Path,
    pub(super) watch: Watch<'a>,
}

/// A text front end and its tokenizer.
struct Reading {
    text: Text,
    tokenizer: Tokenizer,
}

impl Reading {
    fn tokens(&self, prompt: &str) -> Result<Vec<i64>, Error> {
        Ok(self.tokenizer.encode(prompt).map_err(crate::validate::Error::from)?)
    }
}

impl Double<'_> {
    fn family(&self) -> &'static Family {
        family::of(self.recipe)
    }

    /// The references of a graph.
    ///
    /// # Errors
    /// [`Error::Validate`] where the checkpoint or the recipe asks for what can't be computed.
    pub(super) fn references(&self, name: &str) -> Result<TensorFile, Error> {
        let graph = self.recipe.graph(name).expect("a planned graph is in the recipe");
        let sentences = graph.sentences();
        let prompts = match sentences.is_empty() {
            true => (Vec::new(), None),
            false => {
                let reading = self.reading()?;
                let whole = sentences.iter().map(|sentence| (reading.text.whole)(sentence));
                let ids = whole.map(|prompt| reading.tokens(&prompt)).collect::<Result<_, _>>()?;
                (ids, Some(reading.tokenizer.stop()))
            }
        };
        let prompts = Prompts { ids: &prompts.0, stop: prompts.1 };
        Ok(match graph {
            Graph::Causal(graph) => record::causal(
                self.causal(name)?.as_ref(),
                &graph.interface,
                &graph.references,
                &graph.hidden_states,
                prompts,
                self.watch,
            )?,
            Graph::Signal(graph) => {
                let spoken = self.spoken(name, prompts)?;
                let model = self.signal(name)?;
                record::signal(
                    model.as_ref(),
                    &graph.interface,
                    &graph.references,
                    &spoken,
                    self.watch,
                )?
            }
        })
    }

    /// The frames that the checkpoint's own causal graph makes of prompts.
    fn spoken(&self, name: &str, prompts: Prompts<'_>) -> Result<Vec<Frames>, Error> {
        if prompts.ids.is_empty() {
            return Ok(Vec::new());
        }
        let speaker = self.family().shape.graph(name).and_then(|graph| graph.spoken_by);
        let speaker = speaker.ok_or_else(|| self.no_voice())?;
        let spoken = record::spoken(self.causal(speaker)?.as_ref(), prompts, self.watch)?;
        Ok(spoken.into_iter().map(|spoken| spoken.frames).collect())
    }

    /// What the whole voice says to the recipe's sentences, and what is kept of it beside the file.
    ///
    /// # Errors
    /// As [`Double::references`].
    pub(super) fn speech(&self) -> Result<(TensorFile, serde_json::Value), Error> {
        let speech = self.recipe.speech.as_ref().expect("a planned stage is in the recipe");
        let reading = self.reading()?;
        let mut asked = Vec::new();
        for (sentence, text) in speech.sentences.iter().enumerate() {
            for prompt in (reading.text.pieces)(text) {
                let ids = reading.tokens(&prompt)?;
                asked.push(Asked { sentence, prompt, ids });
            }
        }
        let &[causal, signal] = self.family().voice else { return Err(self.no_voice().into()) };
        let wanted = Speech {
            sentences: &speech.sentences,
            asked: &asked,
            repetition_penalty: speech.repetition_penalty,
            stop: reading.tokenizer.stop(),
        };
        let (causal, signal) = (self.causal(causal)?, self.signal(signal)?);
        Ok(record::speech(causal.as_ref(), signal.as_ref(), wanted, self.watch)?)
    }

    fn reading(&self) -> Result<Reading, Error> {
        let text = self.family().text.ok_or_else(|| self.no_voice())?;
        let tokenizer = Tokenizer::read(&self.checkpoint.join(TOKENIZER));
        Ok(Reading { text, tokenizer: tokenizer.map_err(crate::validate::Error::from)? })
    }

    fn model(&self, name: &str, role: Role) -> Result<InDouble, Error> {
        let front = self.family().front(name, role).ok_or_else(|| {
            let message = format!("graph `{name}` is not computed in double precision");
            Refused::new("request", message, "`references: pytorch` asks PyTorch")
        })?;
        Ok(front.in_double(self.checkpoint)?)
    }

    fn causal(&self, name: &str) -> Result<Box<dyn CausalInDouble>, Error> {
        match self.model(name, Role::Causal)? {
            InDouble::Causal(model) => Ok(model),
            InDouble::Signal(_) => Err(self.no_voice().into()),
        }
    }

    fn signal(&self, name: &str) -> Result<Box<dyn SignalInDouble>, Error> {
        match self.model(name, Role::Signal)? {
            InDouble::Signal(model) => Ok(model),
            InDouble::Causal(_) => Err(self.no_voice().into()),
        }
    }

    fn no_voice(&self) -> Refused {
        let message = format!("the family `{}` has no prompts for sentences", self.recipe.family);
        Refused::new("request", message, "leave `sentences` out")
    }
}
