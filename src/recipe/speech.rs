use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::SNR_DB;
use super::checks::{Checks, FLOOR, Outcome};
use super::validate::Whole;

/// Upstream divides a logit by it, or multiplies; below 1 it would ask for repetition.
const PENALTY: std::ops::RangeInclusive<f64> = 1.0..=10.0;
/// Below it words are lost.
const LEAST_STOI: f64 = 0.75;
/// About what white noise 30 dB below the speech makes of it.
const MOST_DISTORTION_DB: f64 = 6.0;
/// "Poor" on the scale of ITU-T P.800.
const LEAST_PESQ: f64 = 2.0;
/// Two signals that are equal have 4.549 (ITU-T P.862.1).
const MOST_PESQ: f64 = 4.5;
const MOST_SENTENCES: usize = 64;
const MOST_CHARACTERS: usize = 1000;

/// What the whole voice says: upstream's PyTorch records it, and the bundle is compared with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Speech {
    /// The texts, each as a user writes it: upstream's front end makes its prompts of it.
    #[schemars(length(min = 1, max = MOST_SENTENCES), inner(length(min = 1, max = MOST_CHARACTERS)))]
    pub sentences: Vec<String>,
    /// How much a token that was there already loses of its likelihood; 1.0 nothing.
    #[serde(default = "penalty")]
    #[schemars(range(min = *PENALTY.start(), max = *PENALTY.end()))]
    pub repetition_penalty: f64,
    /// How far the fp32 files may be from PyTorch.
    #[serde(default)]
    pub fp32: Fp32Speech,
    /// How far the int8 files may be from the fp32 ones.
    #[serde(default)]
    pub int8: Int8Speech,
}

fn penalty() -> f64 {
    1.2
}

/// How far the fp32 files' speech may be from PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fp32Speech {
    /// The least signal-to-noise ratio of the audio that the files make of their own run.
    #[schemars(range(min = *SNR_DB.start(), max = *SNR_DB.end()))]
    pub snr_db: f64,
}

impl Default for Fp32Speech {
    fn default() -> Self {
        Self { snr_db: 60.0 }
    }
}

/// How far the int8 files' speech may be from that of the fp32 ones, from the same rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Int8Speech {
    /// The least short-time objective intelligibility.
    #[schemars(range(min = LEAST_STOI, max = 1.0))]
    pub stoi: f64,
    /// The greatest mel-cepstral distortion, in dB.
    #[schemars(range(min = 0.0, max = MOST_DISTORTION_DB))]
    pub mel_cepstral_distortion_db: f64,
    /// The least perceptual quality (PESQ, as MOS-LQO), held where the Python environment has the package `pesq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST_PESQ, max = MOST_PESQ))]
    pub pesq: Option<f64>,
}

impl Default for Int8Speech {
    /// On this repository's small voice an 8-bit decoder is at 0.15 dB (PESQ 4.62), a 4-bit one at 1.74 (3.84).
    fn default() -> Self {
        Self { stoi: 0.95, mel_cepstral_distortion_db: 1.5, pesq: None }
    }
}

impl Speech {
    pub(super) fn validate(&self, here: &Checks, whole: &Whole) -> Outcome {
        whole.ensure(here)?;
        let list = here.key("sentences");
        list.ensure(
            !self.sentences.is_empty(),
            "is an empty list",
            "write a sentence, or take `speech` out",
        )?;
        list.sentences(&self.sentences, MOST_CHARACTERS)?;
        here.key("repetition_penalty").range(self.repetition_penalty, &PENALTY)?;
        let fp32 = here.key("fp32").key("snr_db");
        fp32.at_least(self.fp32.snr_db, *SNR_DB.start(), *SNR_DB.end(), FLOOR)?;
        let floor = "an int8 file that is further from the fp32 one says something else";
        let int8 = here.key("int8");
        int8.key("stoi").at_least(self.int8.stoi, LEAST_STOI, 1.0, floor)?;
        let distortion = self.int8.mel_cepstral_distortion_db;
        int8.key("mel_cepstral_distortion_db").at_most(distortion, MOST_DISTORTION_DB, floor)?;
        match self.int8.pesq {
            Some(pesq) => int8.key("pesq").at_least(pesq, LEAST_PESQ, MOST_PESQ, floor),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::recipes;
    use crate::recipe::Recipe;

    const BOTH: &str = "name: a\nsource: ./b\ndecoder: {}\nlm: {}\n";

    fn read(speech: &str) -> Result<Recipe, String> {
        recipes().parse(&format!("{BOTH}speech: {speech}\n"), "t.yaml").map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_written_out_where_the_section_is_there() {
        let recipe = read("{sentences: [Hello.]}").unwrap();
        let wanted = Speech {
            sentences: vec!["Hello.".into()],
            repetition_penalty: 1.2,
            fp32: Fp32Speech { snr_db: 60.0 },
            int8: Int8Speech { stoi: 0.95, mel_cepstral_distortion_db: 1.5, pesq: None },
        };
        assert_eq!(recipe.speech, Some(wanted));
        let text = recipe.to_yaml();
        let section = "speech:\n  sentences:\n  - Hello.\n  repetition_penalty: 1.2\n  fp32:\n    snr_db: 60.0\n  \
                       int8:\n    stoi: 0.95\n    mel_cepstral_distortion_db: 1.5\n";
        assert!(text.ends_with(section), "{text}");
        assert_eq!(recipes().parse(&text, "t.yaml").unwrap(), recipe);
        assert!(!recipes().parse(BOTH, "t.yaml").unwrap().to_yaml().contains("speech"));
    }

    #[test]
    fn what_no_voice_could_be_held_to_is_refused_at_its_place() {
        let why = |speech: &str| read(speech).unwrap_err();
        assert!(why("").contains("sentences"), "{}", why(""));
        assert!(why("{sentences: []}").contains("`speech.sentences` is an empty list"));
        assert!(
            why("{sentences: [Hello., '...']}").contains("`speech.sentences[1]` is not a sentence")
        );
        assert!(why("{sentences: ['']}").contains("is not a sentence"));
        assert!(why("{sentences: [\"a\\nb\"]}").contains("is not a sentence"));
        let many = |n: usize| format!("{{sentences: [{}]}}", vec!["a"; n].join(", "));
        assert!(read(&many(64)).is_ok());
        assert!(why(&many(65)).contains("has 65 entries"));
        let long = |n: usize| format!("{{sentences: ['{}']}}", "é".repeat(n));
        assert!(read(&long(1000)).is_ok(), "characters, not bytes");
        assert!(why(&long(1001)).contains("is not a sentence"));
        let with = |more: &str| format!("{{sentences: [Hello.], {more}}}");
        for (good, bad, place) in [
            ("repetition_penalty: 1", "repetition_penalty: 0.99", "repetition_penalty` is 0.99"),
            ("repetition_penalty: 10", "repetition_penalty: .nan", "repetition_penalty` is NaN"),
            ("fp32: {snr_db: 40}", "fp32: {snr_db: 39}", "fp32.snr_db` is 39, looser"),
            ("int8: {stoi: 1}", "int8: {stoi: 1.1}", "int8.stoi` is 1.1, which is not a bound"),
            ("int8: {stoi: 0.75}", "int8: {stoi: 0.7}", "int8.stoi` is 0.7, looser"),
            (
                "int8: {mel_cepstral_distortion_db: 6}",
                "int8: {mel_cepstral_distortion_db: 6.1}",
                "int8.mel_cepstral_distortion_db` is 6.1, looser",
            ),
            ("int8: {pesq: 4.5}", "int8: {pesq: 4.6}", "int8.pesq` is 4.6, which is not a bound"),
            ("int8: {pesq: 2}", "int8: {pesq: -1}", "int8.pesq` is -1, which is not a bound"),
        ] {
            assert!(read(&with(good)).is_ok(), "{good}");
            assert!(why(&with(bad)).contains(&format!("`speech.{place}")), "{}", why(&with(bad)));
        }
        assert!(why(&with("repetition_penalti: 2")).contains("did you mean `repetition_penalty`?"));
        assert!(why(&with("int8: {stoy: 1}")).contains("did you mean `stoi`?"));
    }

    #[test]
    fn half_a_voice_says_nothing() {
        for half in ["lm", "decoder"] {
            let text = format!("name: a\nsource: b\n{half}: {{}}\nspeech: {{sentences: [Hello.]}}\n");
            let why = recipes().parse(&text, "t.yaml").unwrap_err().to_string();
            assert!(why.contains("`speech` is about a whole voice"), "{why}");
        }
    }
}
