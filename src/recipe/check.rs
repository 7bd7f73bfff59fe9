use std::fmt;
use std::ops::RangeInclusive;

use super::{Decoder, Fp32Tolerance, Recipe, References, Step};

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
const MOST_CASES: usize = 256;

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
struct Checks {
    path: Vec<Step>,
}

type Outcome = Result<(), Invalid>;

impl Checks {
    fn at(&self, step: Step) -> Checks {
        Checks { path: self.path.iter().copied().chain([step]).collect() }
    }

    fn key(&self, key: &'static str) -> Checks {
        self.at(Step::Key(key))
    }

    fn ensure(&self, holds: bool, why: impl Into<String>, help: impl Into<String>) -> Outcome {
        if holds {
            return Ok(());
        }
        Err(Invalid { path: self.path.clone(), why: why.into(), help: help.into() })
    }

    fn range<T: PartialOrd + fmt::Display>(&self, value: T, range: &RangeInclusive<T>) -> Outcome {
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
        self.decoder.validate(&root.key("decoder"))
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
        self.tolerance.fp32.validate(&here.key("tolerance").key("fp32"))
    }
}

impl References {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("lengths").each(&self.lengths, &LENGTH)?;
        here.key("batches").each(&self.batches, &BATCH)?;
        let sentences = here.key("sentences");
        sentences.ensure(
            self.sentences.len() <= 64,
            format!("has {} entries", self.sentences.len()),
            "write at most 64",
        )?;
        for (i, sentence) in self.sentences.iter().enumerate() {
            sentences.at(Step::Index(i)).ensure(
                sentence.chars().any(char::is_alphanumeric)
                    && sentence.len() <= 300
                    && !sentence.contains(char::is_control),
                "is not a sentence",
                "write words on one line, up to 300 bytes",
            )?;
        }
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

impl Fp32Tolerance {
    fn validate(&self, here: &Checks) -> Outcome {
        let floor = "an fp32 export that is further from PyTorch computes something else, and a recipe can't \
                     switch validation off";
        let largest = |key, value: f64, most: f64| {
            let here = here.key(key);
            here.ensure(
                value.is_finite() && value > 0.0,
                format!("is {value}, which is not a bound"),
                format!("write a number above 0 and up to {most}"),
            )?;
            here.ensure(value <= most, format!("is {value}, looser than {most}"), floor)
        };
        largest("max_abs_of_peak", self.max_abs_of_peak, LOOSEST_MAX_ABS)?;
        let (least, most) = (*SNR_DB.start(), *SNR_DB.end());
        let snr = here.key("snr_db");
        snr.ensure(
            self.snr_db.is_finite() && self.snr_db > 0.0 && self.snr_db <= most,
            format!("is {}, which is not a bound", self.snr_db),
            format!("write a number from {least} to {most}"),
        )?;
        snr.ensure(self.snr_db >= least, format!("is {}, looser than {least}", self.snr_db), floor)?;
        largest("log_spectral_distance_db", self.log_spectral_distance_db, LOOSEST_LSD_DB)
    }
}
