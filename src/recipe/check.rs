use std::fmt;
use std::ops::RangeInclusive;

use super::{
    Decoder, Fp32Tolerance, Int8, LanguageModel, LmFp32Tolerance, LmReferences, Recipe, References,
    Step,
};

/// Below 13 there is no per-channel quantization, and above 20 not every runtime follows.
pub(super) const OPSET: RangeInclusive<u32> = 13..=20;
/// The inverse STFT needs two frames.
pub(super) const LENGTH: RangeInclusive<u32> = 2..=4096;
pub(super) const BATCH: RangeInclusive<u32> = 1..=64;
pub(super) const TIME_LIMIT: RangeInclusive<u64> = 1..=7 * 24 * 3600;
pub(super) const LOOSEST_MAX_ABS: f64 = 1e-4;
pub(super) const LOOSEST_LSD_DB: f64 = 1.0;
/// No float32 result reaches the upper end.
pub(super) const SNR_DB: RangeInclusive<f64> = 40.0..=200.0;
/// In tokens; beyond it a reference would be larger than the model.
pub(super) const PREFILL: RangeInclusive<u32> = 1..=1024;
pub(super) const PADDED_BATCH: RangeInclusive<u32> = 2..=64;
/// Fewer would not show an error that grows.
pub(super) const STEPS: RangeInclusive<u32> = 8..=512;
pub(super) const LOOSEST_HIDDEN_ERROR: f64 = 1e-3;
pub(super) const LEAST_HIDDEN_SNR_DB: f64 = 60.0;
/// Below it an int8 file is noise, not a coarser version.
pub(super) const LEAST_INT8_SNR_DB: f64 = 12.0;
pub(super) const LEAST_AGREEMENT: f64 = 0.99;
pub(super) const MOST_GROWTH: f64 = 4.0;
pub(super) const MOST_LAYERS: u32 = 1023;
const MOST_CASES: usize = 256;
/// The longest sentence of a half's references, in characters.
const SENTENCE: usize = 300;

/// A value that no recipe may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Where it stands.
    pub path: Vec<Step>,
    /// What is wrong with it.
    pub why: String,
    /// What to write instead.
    pub help: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        for (i, step) in self.path.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        write!(f, "` {}", self.why)
    }
}

impl std::error::Error for Invalid {}

/// The first check that fails, with the path of its value.
pub(super) struct Checks {
    path: Vec<Step>,
}

pub(super) type Outcome = Result<(), Invalid>;

impl Checks {
    pub(super) fn at(&self, step: Step) -> Checks {
        Checks { path: self.path.iter().copied().chain([step]).collect() }
    }

    pub(super) fn key(&self, key: &'static str) -> Checks {
        self.at(Step::Key(key))
    }

    pub(super) fn ensure(
        &self,
        holds: bool,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Outcome {
        if holds {
            return Ok(());
        }
        Err(Invalid { path: self.path.clone(), why: why.into(), help: help.into() })
    }

    pub(super) fn range<T: PartialOrd + fmt::Display>(
        &self,
        value: T,
        range: &RangeInclusive<T>,
    ) -> Outcome {
        let (from, to) = (range.start(), range.end());
        self.ensure(
            range.contains(&value),
            format!("is {value}, outside of {from} to {to}"),
            "write a number in between",
        )
    }

    fn each<T: PartialOrd + fmt::Display + Copy>(
        &self,
        list: &[T],
        range: &RangeInclusive<T>,
    ) -> Outcome {
        self.ensure(!list.is_empty(), "is an empty list", "remove the key to take the default")?;
        self.ensure(list.len() <= 64, format!("has {} entries", list.len()), "write at most 64")?;
        for (i, &value) in list.iter().enumerate() {
            let here = self.at(Step::Index(i));
            here.range(value, range)?;
            here.ensure(!list[..i].contains(&value), format!("is {value} again"), "write each once")?;
        }
        Ok(())
    }

    pub(super) fn sentences(&self, sentences: &[String], characters: usize) -> Outcome {
        self.ensure(
            sentences.len() <= 64,
            format!("has {} entries", sentences.len()),
            "write at most 64",
        )?;
        for (i, sentence) in sentences.iter().enumerate() {
            self.at(Step::Index(i)).ensure(
                sentence.chars().any(char::is_alphanumeric)
                    && sentence.chars().count() <= characters
                    && !sentence.contains(char::is_control),
                "is not a sentence",
                format!("write words on one line, up to {characters} characters"),
            )?;
        }
        Ok(())
    }

    /// A bound that must be a number above 0 and no looser than `most`.
    pub(super) fn at_most(&self, value: f64, most: f64, floor: &str) -> Outcome {
        self.ensure(
            value.is_finite() && value > 0.0,
            format!("is {value}, which is not a bound"),
            format!("write a number above 0 and up to {most}"),
        )?;
        self.ensure(value <= most, format!("is {value}, looser than {most}"), floor)
    }

    /// A bound that must be a number from `least` to `most`; below, it is looser than allowed.
    pub(super) fn at_least(&self, value: f64, least: f64, most: f64, floor: &str) -> Outcome {
        self.ensure(
            value.is_finite() && value > 0.0 && value <= most,
            format!("is {value}, which is not a bound"),
            format!("write a number from {least} to {most}"),
        )?;
        self.ensure(value >= least, format!("is {value}, looser than {least}"), floor)
    }

    /// A name that is one plain file name on every system.
    fn file_name(&self, value: &str) -> Outcome {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let plain = value.bytes().all(inner)
            && value.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !value.ends_with('.');
        self.ensure(
            plain,
            "is not a plain file name",
            "write lower-case letters, digits, `.`, `_` and `-`; first a letter or digit, no `.` at the end",
        )?;
        self.ensure(value.len() <= 64, format!("has {} characters", value.len()), "write at most 64")?;
        let stem = value.split('.').next().unwrap_or_default();
        let device = matches!(stem, "con" | "prn" | "aux" | "nul")
            || (stem.len() == 4
                && (stem.starts_with("com") || stem.starts_with("lpt"))
                && stem.ends_with(|c: char| c.is_ascii_digit()));
        self.ensure(!device, "is a device's name on Windows", format!("write `{value}-model`"))
    }
}

impl Recipe {
    /// Checks what types can't: ranges, names, and tolerances that would prove nothing.
    ///
    /// # Errors
    /// The first value that no recipe may have.
    pub fn validate(&self) -> Result<(), Invalid> {
        let root = Checks { path: Vec::new() };
        root.key("name").file_name(&self.name)?;
        let source = root.key("source");
        source.ensure(
            !self.source.trim().is_empty(),
            "is empty",
            "write a folder, a hub id, or `synthetic:soprano-1.1`",
        )?;
        source.ensure(
            self.source.len() <= 1024 && !self.source.contains(char::is_control),
            "is longer than 1024 bytes or has control characters",
            "write a folder, a hub id, or `synthetic:soprano-1.1`",
        )?;
        root.key("license").ensure(
            word(&self.license, b".+-") && self.license.len() <= 64,
            "is not an SPDX id",
            "write one such as `apache-2.0` or `mit`",
        )?;
        if let Some(base) = &self.base_model {
            let parts: Vec<&str> = base.split('/').collect();
            root.key("base_model").ensure(
                parts.len() == 2 && parts.iter().all(|part| word(part, b"._-")) && base.len() <= 128,
                "is not a hub id",
                "write `owner/name`, such as `ekwek/Soprano-1.1-80M`",
            )?;
        }
        root.ensure(
            self.decoder.is_some() || self.lm.is_some(),
            "names nothing to export",
            "add `decoder: {}`, `lm: {}`, or both",
        )?;
        if let Some(decoder) = &self.decoder {
            decoder.validate(&root.key("decoder"))?;
        }
        self.lm.as_ref().map_or(Ok(()), |lm| lm.validate(&root.key("lm")))?;
        let (lm, decoder) = (self.lm.is_some(), self.decoder.is_some());
        let speech = self.speech.as_ref();
        speech.map_or(Ok(()), |speech| speech.validate(&root.key("speech"), lm, decoder))?;
        let gate = self.gate.as_ref();
        gate.map_or(Ok(()), |gate| gate.validate(&root.key("gate"), lm, decoder))
    }
}

/// Whether a text is a letter or digit, followed by letters, digits and the given signs.
fn word(text: &str, signs: &[u8]) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || signs.contains(&b))
}

impl Decoder {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("opset").range(self.opset, &OPSET)?;
        here.key("file").file_name(&self.file)?;
        for (i, pass) in self.passes.iter().flatten().enumerate() {
            let kebab = pass.split('-').all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            });
            here.key("passes").at(Step::Index(i)).ensure(
                kebab && pass.len() <= 64,
                "is not a pass's name",
                "pass names are lower-case words with `-` between, such as `constant-folding`",
            )?;
        }
        here.key("time_limit_seconds").range(self.time_limit_seconds, &TIME_LIMIT)?;
        self.references.validate(&here.key("references"))?;
        self.tolerance.fp32.validate(&here.key("tolerance").key("fp32"))?;
        self.targets.validate(&here.key("targets"), false)?;
        self.int8.as_ref().map_or(Ok(()), |int8| int8.validate(&here.key("int8")))
    }
}

impl References {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("lengths").each(&self.lengths, &LENGTH)?;
        here.key("batches").each(&self.batches, &BATCH)?;
        here.key("sentences").sentences(&self.sentences, SENTENCE)?;
        let cases = self.lengths.len() * self.batches.len();
        here.ensure(
            cases <= MOST_CASES,
            format!(
                "ask for {cases} recordings: {} lengths at {} batch sizes",
                self.lengths.len(),
                self.batches.len()
            ),
            format!("each travels in the bundle: keep to {MOST_CASES}"),
        )
    }
}

pub(super) const FLOOR: &str = "an fp32 export that is further from PyTorch computes something else, and a recipe can't switch validation \
     off";

impl Fp32Tolerance {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("max_abs_of_peak").at_most(self.max_abs_of_peak, LOOSEST_MAX_ABS, FLOOR)?;
        here.key("snr_db").at_least(self.snr_db, *SNR_DB.start(), *SNR_DB.end(), FLOOR)?;
        here.key("log_spectral_distance_db").at_most(
            self.log_spectral_distance_db,
            LOOSEST_LSD_DB,
            FLOOR,
        )
    }
}

impl LanguageModel {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("opset").range(self.opset, &OPSET)?;
        here.key("file").file_name(&self.file)?;
        if !self.hidden_states.is_empty() {
            here.key("hidden_states").each(&self.hidden_states, &(0..=MOST_LAYERS))?;
        }
        here.key("time_limit_seconds").range(self.time_limit_seconds, &TIME_LIMIT)?;
        self.references.validate(&here.key("references"))?;
        self.tolerance.fp32.validate(&here.key("tolerance").key("fp32"))?;
        self.targets.validate(&here.key("targets"), true)?;
        self.int8.as_ref().map_or(Ok(()), |int8| int8.validate(&here.key("int8")))
    }
}

impl LmReferences {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("prefills").each(&self.prefills, &PREFILL)?;
        here.key("batch").range(self.batch, &PADDED_BATCH)?;
        here.key("steps").range(self.steps, &STEPS)?;
        here.key("sentences").sentences(&self.sentences, SENTENCE)
    }
}

impl LmFp32Tolerance {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("max_abs").at_most(self.max_abs, LOOSEST_HIDDEN_ERROR, FLOOR)?;
        here.key("snr_db").at_least(self.snr_db, LEAST_HIDDEN_SNR_DB, *SNR_DB.end(), FLOOR)?;
        here.key("top_1_agreement").at_least(self.top_1_agreement, LEAST_AGREEMENT, 1.0, FLOOR)?;
        here.key("error_growth").at_most(self.error_growth, MOST_GROWTH, FLOOR)
    }
}

impl Int8 {
    fn validate(&self, here: &Checks) -> Outcome {
        let floor = "an int8 file that is further from PyTorch is noise";
        here.key("snr_db").at_least(self.snr_db, LEAST_INT8_SNR_DB, *SNR_DB.end(), floor)?;
        if let Some(strength) = self.smoothing {
            here.key("smoothing").range(strength, &(0.0..=1.0))?;
        }
        for (key, patterns) in [("two_terms", &self.two_terms), ("keep_fp32", &self.keep_fp32)] {
            let list = here.key(key);
            list.ensure(patterns.len() <= 256, "has more than 256 entries", "put `*` into names")?;
            for (i, pattern) in patterns.iter().enumerate() {
                list.at(Step::Index(i)).ensure(
                    !pattern.is_empty() && pattern.len() <= 256 && !pattern.contains(char::is_control),
                    "is not a node's name",
                    "`soprano-export inspect` and `diff` show node names",
                )?;
            }
        }
        Ok(())
    }
}
