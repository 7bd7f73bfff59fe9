//! YAML recipes as plain data.
//!
//! A recipe says what to export and what the result must hold up to; it can't say less than the floor
//! in [`Fp32Tolerance`], so that no recipe switches validation off. Text becomes a [`Recipe`] through
//! [`Recipe::parse`] only, which refuses whatever is unknown, repeated or out of range, at its place.

mod check;
mod error;
mod yaml;

use std::io::Read as _;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::Invalid;
pub use error::{Error, Misfit, Problem};
pub use yaml::Step;

use check::{BATCH, LENGTH, LOOSEST_LSD_DB, LOOSEST_MAX_ABS, OPSET, SNR_DB, TIME_LIMIT};

/// The longest text that is read as a recipe.
pub const MOST_BYTES: usize = 1 << 20;

/// What to export, and what the result must hold up to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "soprano-export recipe")]
pub struct Recipe {
    /// The bundle's folder name.
    #[schemars(length(max = 64), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9_-])?$"))]
    pub name: String,
    /// The model family: which Python environment exports it.
    #[serde(default)]
    pub family: Family,
    /// The checkpoint: a folder, a hub id with an optional `@revision`, or `synthetic:PRESET` with an
    /// optional `#SEED`.
    #[schemars(length(min = 1, max = 1024))]
    pub source: String,
    /// The model's license in the model card, as an SPDX id.
    #[serde(default = "license")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9.+-]*$"))]
    pub license: String,
    /// The hub id of the model that this one was made from, for the model card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub base_model: Option<String>,
    /// How the decoder (hidden states to audio) is exported; `{}` takes every default.
    pub decoder: Decoder,
}

fn license() -> String {
    "apache-2.0".into()
}

/// A model family: models that one Python environment can export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Soprano: a Qwen3 language model and a Vocos decoder.
    #[default]
    Soprano,
}

impl Family {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Family::Soprano => "soprano",
        }
    }
}

/// How the decoder is exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Decoder {
    /// The ONNX operator set.
    #[schemars(range(min = *OPSET.start(), max = *OPSET.end()))]
    pub opset: u32,
    /// The file's name in the bundle's `onnx/` folder, without `.onnx`.
    #[schemars(length(max = 64), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9_-])?$"))]
    pub file: String,
    /// Graph passes by name, in their order; left out, all that a decoder needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(inner(inner(regex(pattern = r"^[a-z0-9]+(-[a-z0-9]+)*$"))))]
    pub passes: Option<Vec<String>>,
    /// Seconds after which a silent exporter is ended.
    #[schemars(range(min = *TIME_LIMIT.start(), max = *TIME_LIMIT.end()))]
    pub time_limit_seconds: u64,
    /// Which outputs PyTorch records to hold the export against.
    pub references: References,
    /// How far the export may be from PyTorch.
    pub tolerance: Tolerance,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder {
            opset: 17,
            file: "soprano_decoder_fp32".into(),
            passes: None,
            time_limit_seconds: 1800,
            references: References::default(),
            tolerance: Tolerance::default(),
        }
    }
}

/// Which outputs PyTorch records: every length at every batch size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct References {
    /// Lengths in hidden states; a few small ones find errors at the edges.
    #[schemars(length(min = 1, max = 64), inner(range(min = *LENGTH.start(), max = *LENGTH.end())))]
    pub lengths: Vec<u32>,
    /// Batch sizes; one above 1 finds an axis that the exporter froze.
    #[schemars(length(min = 1, max = 64), inner(range(min = *BATCH.start(), max = *BATCH.end())))]
    pub batches: Vec<u32>,
    /// Whether to record inputs of extreme magnitude too.
    pub extreme: bool,
    /// Seed of the random inputs.
    pub seed: u64,
}

impl Default for References {
    fn default() -> Self {
        References {
            lengths: vec![2, 3, 4, 5, 16, 64, 100, 512],
            batches: vec![1, 3],
            extreme: true,
            seed: 0,
        }
    }
}

/// How far an export may be from PyTorch, by number format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    /// For the fp32 file.
    pub fp32: Fp32Tolerance,
}

/// How far the fp32 file may be from PyTorch; each value has a bound beyond which it would prove nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fp32Tolerance {
    /// The largest error of a sample, as a share of the reference's peak.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = LOOSEST_MAX_ABS))]
    pub max_abs_of_peak: f64,
    /// The least signal-to-noise ratio.
    #[schemars(range(min = *SNR_DB.start(), max = *SNR_DB.end()))]
    pub snr_db: f64,
    /// The largest log-spectral distance.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = LOOSEST_LSD_DB))]
    pub log_spectral_distance_db: f64,
}

impl Default for Fp32Tolerance {
    fn default() -> Self {
        Fp32Tolerance { max_abs_of_peak: 1.0e-5, snr_db: 90.0, log_spectral_distance_db: 0.05 }
    }
}

impl Recipe {
    /// Reads a recipe's text; `name` stands before the line in errors.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or [`Error::Text`] with the place in the text.
    pub fn parse(text: &str, name: &str) -> Result<Self, Error> {
        if text.len() > MOST_BYTES {
            return Err(Error::TooLarge { name: name.into(), most: MOST_BYTES });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let tree = yaml::tree(name, text).map_err(Box::new)?;
        let misfit = |at, problem| Box::new(Misfit::new(name, text, yaml::locate(text, at), problem));
        let recipe = Recipe::deserialize(&tree)
            .map_err(|fault| misfit(fault.at.unwrap_or(tree.id), fault.problem))?;
        recipe
            .validate()
            .map_err(|invalid| misfit(tree.nearest(&invalid.path), Problem::Value { invalid }))?;
        Ok(recipe)
    }

    /// Reads a recipe's file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::NotUtf8`], and those of [`Recipe::parse`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.into(), source };
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(io)?;
        if bytes.len() > MOST_BYTES {
            return Err(Error::TooLarge { name, most: MOST_BYTES });
        }
        match str::from_utf8(&bytes) {
            Ok(text) => Recipe::parse(text, &name),
            Err(error) => {
                let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                Err(Error::NotUtf8 { name, line: yaml::line_of(&good, good.len()), column })
            }
        }
    }

    /// A built-in recipe by its name, or a file by its path.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a word that is neither, and those of [`Recipe::read`].
    pub fn find(name_or_path: &str) -> Result<Self, Error> {
        if let Some((name, text)) = builtin().iter().find(|(name, _)| *name == name_or_path) {
            return Recipe::parse(text, &format!("recipes/{name}.yaml"));
        }
        let path = Path::new(name_or_path);
        let looks_like_a_path = name_or_path.contains(['/', '\\'])
            || path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if looks_like_a_path || path.is_file() {
            return Recipe::read(path);
        }
        let names = || builtin().iter().map(|(name, _)| *name);
        Err(Error::Unknown {
            name: error::short(name_or_path),
            guess: error::closest(name_or_path, names()).map(str::to_owned),
            builtin: names().collect::<Vec<_>>().join(", "),
        })
    }

    /// The same recipe with every default written out; equal recipes give equal bytes.
    pub fn to_yaml(&self) -> String {
        let text = serde_yaml::to_string(self).expect("strings, numbers and lists have a YAML form");
        text.lines().map(|line| yaml_1_1(line) + "\n").collect()
    }
}

/// `1e-5` as `1.0e-5`: YAML 1.1, which PyYAML reads, takes a number without a point for text.
fn yaml_1_1(line: &str) -> String {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match line.rsplit_once(": ").and_then(|(key, value)| Some((key, value.split_once("e-")?))) {
        Some((key, (mantissa, exponent))) if digits(mantissa) && digits(exponent) => {
            format!("{key}: {mantissa}.0e-{exponent}")
        }
        _ => line.to_owned(),
    }
}

/// The recipes inside this program: name and text.
pub fn builtin() -> &'static [(&'static str, &'static str)] {
    &[
        ("soprano-1.1", include_str!("../../recipes/soprano-1.1.yaml")),
        ("soprano-1.0", include_str!("../../recipes/soprano-1.0.yaml")),
        ("soprano-tiny", include_str!("../../recipes/soprano-tiny.yaml")),
    ]
}

/// The JSON schema of a recipe (draft 2020-12), for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Recipe).to_value()
}
