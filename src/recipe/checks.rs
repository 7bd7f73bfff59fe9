//! Values that no recipe may have, the way to one, and the checks that find it.

use std::fmt;
use std::ops::RangeInclusive;

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// The value at a place of a list.
    Index(usize),
}

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
        // Recipes may name graphs at the top too.
        let path = match &self.path[..] {
            [Step::Key(first), rest @ ..] if first == "graphs" && !rest.is_empty() => rest,
            path => path,
        };
        for (i, step) in path.iter().enumerate() {
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

pub(super) const FLOOR: &str = "an fp32 export that is further from PyTorch computes something else, and a recipe can't switch validation \
     off";

/// The first check that fails, with the path of its value.
#[derive(Default)]
pub(super) struct Checks {
    path: Vec<Step>,
}

pub(super) type Outcome = Result<(), Invalid>;

impl Checks {
    pub(super) fn at(&self, step: Step) -> Checks {
        Checks { path: self.path.iter().cloned().chain([step]).collect() }
    }

    pub(super) fn key(&self, key: &str) -> Checks {
        self.at(Step::Key(key.to_owned()))
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

    pub(super) fn each<T: PartialOrd + fmt::Display + Copy>(
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
    pub(super) fn file_name(&self, value: &str) -> Outcome {
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
