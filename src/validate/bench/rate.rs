//! How long a text becomes as speech: tokens for each character.

use serde::{Deserialize, Serialize};

use crate::validate::{Kind, References};

/// Tokens that a text takes, before and after the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeakingRate {
    /// Audio tokens for each character of the text.
    pub tokens_per_character: f64,
    /// Tokens of the prompt for each character; [`SpeakingRate::AROUND`] stand around them.
    pub prompt_per_character: f64,
    /// Where the figures are from.
    pub source: String,
}

/// What a text comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextUnits {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Audio tokens, without the one that stops.
    pub audio: usize,
}

impl SpeakingRate {
    /// `[STOP]`, `[TEXT]` and `[START]` stand around a text.
    pub const AROUND: usize = 3;

    /// `soprano-mini`, the trained voice of this repository, over its recipe's sentences: 175 audio tokens and 115
    /// prompt tokens for 172 characters.
    pub fn of_soprano_mini() -> Self {
        Self {
            tokens_per_character: 175.0 / 172.0,
            prompt_per_character: 115.0 / 172.0,
            source: "the five sentences of recipes/soprano-mini.yaml, for this bundle has none"
                .to_owned(),
        }
    }

    /// Measures the spoken sentences in a causal graph's references, if there are any.
    pub fn of_causal(ids: &str, sentences: &[String], references: &References) -> Option<Self> {
        let (mut characters, mut prompts, mut audio) = (0, 0, 0);
        for (at, sentence) in sentences.iter().enumerate() {
            let name = format!("spoken_{at}");
            let case = references.cases.iter().find(|case| case.name == name)?;
            let prompt = *references.inputs(case).get(ids)?.shape().get(1)?;
            // After the prompt: what was said, and the stop.
            let tokens = case.length.checked_sub(prompt + 1)?;
            characters += sentence.chars().count();
            prompts += prompt.saturating_sub(Self::AROUND);
            audio += tokens;
        }
        Self::measured(characters, Some(prompts), audio, sentences.len())
    }

    /// Likewise from a signal graph's references, which hold no prompts.
    pub fn of_signal(sentences: &[String], references: &References) -> Option<Self> {
        let spoken = |name: String| {
            let mut cases = references.cases.iter().filter(|case| case.kind == Kind::Spoken);
            cases.find(|case| case.name == name).map(|case| case.length)
        };
        let lengths = (0..sentences.len()).map(|at| spoken(format!("spoken_{at}")));
        let audio: usize = lengths.collect::<Option<Vec<_>>>()?.iter().sum();
        let characters = sentences.iter().map(|sentence| sentence.chars().count()).sum();
        Self::measured(characters, None, audio, sentences.len())
    }

    fn measured(characters: usize, prompts: Option<usize>, audio: usize, count: usize) -> Option<Self> {
        if characters == 0 || audio == 0 {
            return None;
        }
        let per = |tokens: usize| tokens as f64 / characters as f64;
        let usual = Self::of_soprano_mini().prompt_per_character;
        Some(Self {
            tokens_per_character: per(audio),
            prompt_per_character: prompts.map_or(usual, per),
            source: format!("{count} sentences that the checkpoint said for this bundle's references"),
        })
    }

    /// What so many characters come to.
    pub fn units(&self, characters: usize) -> TextUnits {
        let tokens = |per: f64| (per * characters as f64).round().max(0.0) as usize;
        TextUnits {
            prompt: Self::AROUND + tokens(self.prompt_per_character),
            audio: tokens(self.tokens_per_character).max(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_tokens() {
        let rate = SpeakingRate {
            tokens_per_character: 1.25,
            prompt_per_character: 0.5,
            source: String::new(),
        };
        assert_eq!(rate.units(100), TextUnits { prompt: 53, audio: 125 });
        assert_eq!(rate.units(0), TextUnits { prompt: 3, audio: 2 }, "one frame is not sound");
    }

    #[test]
    fn silence_is_no_rate() {
        assert_eq!(SpeakingRate::measured(10, None, 0, 1), None);
        assert_eq!(SpeakingRate::measured(0, Some(0), 5, 0), None);
        let rate = SpeakingRate::measured(10, Some(5), 12, 1).unwrap();
        assert_eq!((rate.tokens_per_character, rate.prompt_per_character), (1.2, 0.5));
    }
}
