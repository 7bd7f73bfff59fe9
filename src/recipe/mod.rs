//! YAML recipes as plain data.
//!
//! A recipe says what to export and what the result must hold up to; it can't say less than the floor
//! in [`Fp32Tolerance`], so that no recipe switches validation off. Text becomes a [`Recipe`] through
//! [`Recipe::parse`] only, which refuses whatever is unknown, repeated or out of range, at its place.

mod check;
mod error;
mod gate;
mod speech;
mod targets;
mod yaml;

use std::io::Read as _;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use check::Invalid;
pub use error::{Error, Misfit, Problem};
pub use gate::{DecoderGate, Gate, LmGate};
pub use speech::{Fp32Speech, Int8Speech, Speech};
pub use targets::{OpenVinoTarget, Targets, Via};
pub use yaml::Step;

use check::{
    BATCH, LEAST_AGREEMENT, LEAST_HIDDEN_SNR_DB, LEAST_INT8_SNR_DB, LENGTH, LOOSEST_HIDDEN_ERROR,
    LOOSEST_LSD_DB, LOOSEST_MAX_ABS, MOST_GROWTH, MOST_LAYERS, OPSET, PADDED_BATCH, PREFILL, SNR_DB,
    STEPS, TIME_LIMIT,
};

/// The longest text that is read as a recipe: fifty times the built-in ones, and short enough that no
/// hostile text keeps the YAML parser busy.
pub const MOST_BYTES: usize = 1 << 16;

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
    /// How the decoder (hidden states to audio) is exported; `{}` takes every default, and a recipe
    /// without this key exports none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Decoder>,
    /// How the language model (tokens to hidden states) is exported; `{}` takes every default, and a
    /// recipe without this key exports none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub lm: Option<LanguageModel>,
    /// Sentences that the whole voice says, as upstream's PyTorch does.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub speech: Option<Speech>,
    /// Speed, memory and size that `bench --gate` holds the bundle to.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
}

/// A key that is there means its defaults even where nothing stands behind it.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
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
    /// An int8 file beside the fp32 one; `{}` takes every default.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub int8: Option<Int8>,
    /// Formats beside ONNX.
    #[serde(skip_serializing_if = "Targets::is_empty")]
    pub targets: Targets,
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
            int8: None,
            targets: Targets::default(),
        }
    }
}

/// Which exporter makes the language model's graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// A plain forward pass by `torch.onnx`; the cache is added here.
    #[default]
    Torch,
    /// HuggingFace Optimum, with its cache.
    Optimum,
}

impl Route {
    /// The name in recipes and requests.
    pub fn name(self) -> &'static str {
        match self {
            Route::Torch => "torch",
            Route::Optimum => "optimum",
        }
    }
}

/// How the language model is exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageModel {
    /// The ONNX operator set.
    #[schemars(range(min = *OPSET.start(), max = *OPSET.end()))]
    pub opset: u32,
    /// Which exporter makes the graph.
    pub route: Route,
    /// The file's name in the bundle's `onnx/` folder, without `.onnx`.
    #[schemars(length(max = 64), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9_-])?$"))]
    pub file: String,
    /// Layers whose input becomes an output `hidden_states.{i}`; 0 is the embedding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(max = MOST_LAYERS)))]
    pub hidden_states: Vec<u32>,
    /// Logits of the last position alone: of a prompt's, no client reads the others.
    pub last_logits: bool,
    /// Seconds after which a silent exporter is ended.
    #[schemars(range(min = *TIME_LIMIT.start(), max = *TIME_LIMIT.end()))]
    pub time_limit_seconds: u64,
    /// Which outputs PyTorch records to hold the export against.
    pub references: LmReferences,
    /// How far the export may be from PyTorch.
    pub tolerance: LmTolerance,
    /// An int8 file beside the fp32 one; `{}` takes every default.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub int8: Option<Int8>,
    /// Formats beside ONNX.
    #[serde(skip_serializing_if = "Targets::is_empty")]
    pub targets: Targets,
}

/// How a half of the model is held in 8 bits, and what that file must reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Int8 {
    /// How products are written.
    pub form: Form,
    /// How activations are held.
    pub activations: Terms,
    /// Weights in 7 bits where activations are in one term: processors without VNNI add pairs of products in
    /// 16 bits, which overflow otherwise, and the file is other numbers there. `false` gives such weights
    /// 8 bits, for processors that have it. In two terms weights keep their 8 bits, and nothing overflows.
    pub reduce_range: bool,
    /// Moves outliers from activations into weights first, by this share (0.5 halves them), as the
    /// references show them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub smoothing: Option<f64>,
    /// Nodes whose activations are held in two terms where the others' are in one, by name; `*` stands for
    /// anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub two_terms: Vec<String>,
    /// Nodes that stay fp32, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub keep_fp32: Vec<String>,
    /// The least signal-to-noise ratio of its outputs against PyTorch's.
    #[schemars(range(min = LEAST_INT8_SNR_DB, max = *SNR_DB.end()))]
    pub snr_db: f64,
}

impl Default for Int8 {
    fn default() -> Self {
        Int8 {
            form: Form::Dynamic,
            smoothing: None,
            activations: Terms::One,
            reduce_range: true,
            two_terms: Vec::new(),
            keep_fp32: Vec::new(),
            snr_db: 18.0,
        }
    }
}

/// How products are written in 8 bits or fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Integer products; activations are quantized as they come.
    #[default]
    Dynamic,
    /// Quantize, dequantize, product; activations have the range that the references show.
    Static,
    /// Weights in blocks of 8 bits, for ONNX Runtime alone.
    #[serde(rename = "blocks-8")]
    Blocks8,
    /// Weights in blocks of 4 bits.
    #[serde(rename = "blocks-4")]
    Blocks4,
}

impl Form {
    /// Whether weights are in blocks.
    pub fn is_blocks(self) -> bool {
        matches!(self, Form::Blocks8 | Form::Blocks4)
    }
}

/// How an activation is held in 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Terms {
    /// One byte a value.
    #[default]
    One,
    /// Two bytes a value, two products for each: more exact. A language model's step, which is bound by memory,
    /// is little slower for it; where an activation has many rows, as in a decoder, products take twice as long.
    Two,
}

impl Default for LanguageModel {
    fn default() -> Self {
        LanguageModel {
            opset: 17,
            route: Route::Torch,
            file: "soprano_backbone_kv_fp32".into(),
            hidden_states: Vec::new(),
            last_logits: false,
            time_limit_seconds: 1800,
            references: LmReferences::default(),
            tolerance: LmTolerance::default(),
            int8: None,
            targets: Targets::default(),
        }
    }
}

/// Which prompts PyTorch runs: several at once, a padded batch, cached steps, a greedy run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LmReferences {
    /// Lengths of prompts that are given at once, in tokens.
    #[schemars(length(min = 1, max = 64), inner(range(min = *PREFILL.start(), max = *PREFILL.end())))]
    pub prefills: Vec<u32>,
    /// Prompts of the batch with left padding.
    #[schemars(range(min = *PADDED_BATCH.start(), max = *PADDED_BATCH.end()))]
    pub batch: u32,
    /// Tokens that are given one at a time, from the cache.
    #[schemars(range(min = *STEPS.start(), max = *STEPS.end()))]
    pub steps: u32,
    /// Seed of the random tokens.
    pub seed: u64,
    /// Sentences to say greedily.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 300)))]
    pub sentences: Vec<String>,
}

impl Default for LmReferences {
    fn default() -> Self {
        LmReferences {
            prefills: vec![1, 2, 7, 32],
            batch: 3,
            steps: 64,
            seed: 0,
            sentences: Vec::new(),
        }
    }
}

/// How far a language model may be from PyTorch, by number format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LmTolerance {
    /// For the fp32 file.
    pub fp32: LmFp32Tolerance,
}

/// How far the fp32 language model may be from PyTorch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LmFp32Tolerance {
    /// The largest error of a hidden state.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = LOOSEST_HIDDEN_ERROR))]
    pub max_abs: f64,
    /// The least signal-to-noise ratio of the hidden states.
    #[schemars(range(min = LEAST_HIDDEN_SNR_DB, max = *SNR_DB.end()))]
    pub snr_db: f64,
    /// The least share of positions whose likeliest token is PyTorch's.
    #[schemars(range(min = LEAST_AGREEMENT, max = 1.0))]
    pub top_1_agreement: f64,
    /// How much larger the error may be at the last cached steps than at the first.
    #[schemars(range(min = 1.0, max = MOST_GROWTH))]
    pub error_growth: f64,
}

impl Default for LmFp32Tolerance {
    fn default() -> Self {
        LmFp32Tolerance { max_abs: 2.0e-5, snr_db: 90.0, top_1_agreement: 1.0, error_growth: 2.0 }
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
    /// Sentences for the checkpoint's own language model to say: the decoder is held to what it hears then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 300)))]
    pub sentences: Vec<String>,
}

impl Default for References {
    fn default() -> Self {
        References {
            lengths: vec![2, 3, 4, 5, 16, 64, 100, 512],
            batches: vec![1, 3],
            extreme: true,
            seed: 0,
            sentences: Vec::new(),
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
    /// Whether the export reads the language model's weights: to export them, or to speak sentences.
    pub fn reads_language_model(&self) -> bool {
        self.lm.is_some() || self.decoder.as_ref().is_some_and(|d| !d.references.sentences.is_empty())
    }

    /// Reads a recipe's text; `name` stands before the line in errors.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or [`Error::Text`] with the place in the text.
    pub fn parse(text: &str, name: &str) -> Result<Self, Error> {
        if text.len() > MOST_BYTES {
            return Err(Error::TooLarge { name: name.into(), most: MOST_BYTES });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let tree = yaml::tree(name, text)?;
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
        // A named pipe would be waited for.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(io(std::io::Error::other("not a plain file")));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: &str = "name: a\nsource: ./b\ndecoder: {}\n";

    fn refused(text: &str) -> String {
        Recipe::parse(text, "t.yaml").expect_err("refused").to_string()
    }

    #[test]
    fn the_shortest_recipe_takes_every_default() {
        let recipe = Recipe::parse(SHORTEST, "t.yaml").unwrap();
        assert_eq!(recipe.decoder, Some(Decoder::default()));
        assert_eq!(recipe.lm, None);
        assert_eq!((recipe.family, recipe.license.as_str()), (Family::Soprano, "apache-2.0"));
        let commented_out = "name: a\nsource: ./b\ndecoder:\n#  opset: 18\n";
        assert_eq!(Recipe::parse(commented_out, "t.yaml").unwrap(), recipe);
        let marked = format!("\u{feff}{SHORTEST}");
        assert_eq!(Recipe::parse(&marked, "t.yaml").unwrap(), recipe);
    }

    #[test]
    fn built_in_recipes_are_found_by_the_name_they_carry() {
        for (name, _) in builtin() {
            assert_eq!(Recipe::find(name).unwrap().name, *name);
        }
        let missed = Recipe::find("soprano-1.2").unwrap_err().to_string();
        assert_eq!(missed, "no recipe named `soprano-1.2`; did you mean `soprano-1.1`?");
        assert!(matches!(Recipe::find("no/such.yaml"), Err(Error::Io { .. })));
        assert!(matches!(Recipe::find("no-such.yml"), Err(Error::Io { .. })));
    }

    #[test]
    fn the_full_form_is_stable_and_reads_back() {
        let recipe = Recipe::parse(SHORTEST, "t.yaml").unwrap();
        let text = recipe.to_yaml();
        assert_eq!(
            text,
            "name: a\nfamily: soprano\nsource: ./b\nlicense: apache-2.0\ndecoder:\n  opset: 17\n  file: \
             soprano_decoder_fp32\n  time_limit_seconds: 1800\n  references:\n    lengths:\n    - 2\n    - 3\n    \
             - 4\n    - 5\n    - 16\n    - 64\n    - 100\n    - 512\n    batches:\n    - 1\n    - 3\n    extreme: \
             true\n    seed: 0\n  tolerance:\n    fp32:\n      max_abs_of_peak: 0.00001\n      snr_db: 90.0\n      \
             log_spectral_distance_db: 0.05\n"
        );
        assert_eq!(Recipe::parse(&text, "t.yaml").unwrap(), recipe);
        assert_eq!(yaml_1_1("  a: 1e-6"), "  a: 1.0e-6");
        for as_it_is in ["a: '1e-5'", "a: 1.5e-5", "source: pole-5", "source: e-5", "- 1e-5x: y"] {
            assert_eq!(yaml_1_1(as_it_is), as_it_is);
        }
    }

    #[test]
    fn no_tolerance_is_looser_than_the_floor() {
        let with = |key: &str, value: &str| {
            format!("name: a\nsource: b\ndecoder: {{tolerance: {{fp32: {{{key}: {value}}}}}}}\n")
        };
        for (key, at_the_floor, beyond) in [
            ("max_abs_of_peak", "1.0e-4", "1.1e-4"),
            ("snr_db", "40", "39.9"),
            ("log_spectral_distance_db", "1", "1.01"),
        ] {
            assert!(Recipe::parse(&with(key, at_the_floor), "t.yaml").is_ok(), "{key}");
            let why = refused(&with(key, beyond));
            assert!(why.contains(&format!("`decoder.tolerance.fp32.{key}` is")), "{why}");
            assert!(why.contains("looser than"), "{why}");
            for no_bound in [".nan", ".inf", "-.inf", "0", "-1"] {
                let why = refused(&with(key, no_bound));
                assert!(why.contains("not a bound"), "{why}");
            }
        }
        assert!(refused(&with("snr_db", "1.0e+308")).contains("not a bound"));
    }

    #[test]
    fn names_are_plain_file_names() {
        let named =
            |name: &str| Recipe::parse(&format!("name: '{name}'\nsource: b\ndecoder:"), "t.yaml");
        for good in ["a", "0", "soprano-1.1", "a_b..c", "a-", &"x".repeat(64), "console", "com10"] {
            assert!(named(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "", ".", "..", "../a", "a/b", "a\\b", "/a", "A", "-a", ".a", "a.", "a b", "é", "nul",
            "com1.x", &long,
        ] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_hold_each_value_once_and_within_bounds() {
        let with = |lengths: &str, batches: &str| {
            let text = format!(
                "name: a\nsource: b\ndecoder: {{references: {{lengths: {lengths}, batches: {batches}}}}}"
            );
            Recipe::parse(&text, "t.yaml").map_err(|e| e.to_string())
        };
        assert!(with("[2, 4096]", "[1, 64]").is_ok());
        assert!(with("[1]", "[1]").unwrap_err().contains("`decoder.references.lengths[0]` is 1"));
        assert!(with("[4097]", "[1]").is_err());
        assert!(with("[]", "[1]").unwrap_err().contains("empty list"));
        assert!(with("[2, 3, 2]", "[1]").unwrap_err().contains("lengths[2]` is 2 again"));
        assert!(with("[2]", "[0]").is_err());
        assert!(with("[2]", "[65]").is_err());
        assert!(with("2", "[1]").unwrap_err().contains("expected a list, found the number 2"));
        let many = |from, to| format!("{:?}", (from..to).collect::<Vec<u32>>());
        assert!(with(&many(2, 34), &many(1, 9)).is_ok());
        assert!(with(&many(2, 34), &many(1, 10)).unwrap_err().contains("ask for 288 recordings"));
        assert!(with(&many(2, 67), "[1]").unwrap_err().contains("has 65 entries"));
    }

    #[test]
    fn numbers_and_switches_are_not_text() {
        assert!(refused("name: 1.1\nsource: b\ndecoder: {}").starts_with("t.yaml:1:7: expected text"));
        assert!(
            refused("name: yes\nsource: true\ndecoder: {}").starts_with("t.yaml:2:9: expected text")
        );
        assert!(refused("name: a\nsource: b\ndecoder: {opset: '17'}").contains("found the text `17`"));
        assert!(refused("name: a\nsource: b\ndecoder: {opset: -17}").contains("0 or more"));
        assert!(
            refused("name: a\nsource: b\ndecoder: [17]").contains("expected a mapping, found a list")
        );
        assert!(refused("name: a\nsource: b\nfamily: [x]\ndecoder: {}").contains("expected a name"));
        assert!(refused("just text").contains("expected a mapping, found the text"));
    }

    #[test]
    fn messages_are_short_and_harmless_to_terminals() {
        let why = refused(&format!("\"\\e[31m{}\": 1", "x".repeat(5000)));
        assert!(why.len() < 300 && !why.contains('\u{1b}'), "{why:?}");
        assert!(
            refused(&format!("name: \"\\e\"\nsource: b\ndecoder: \"\\e{SHORTEST:?}\"")).len() < 300
        );
    }

    #[test]
    fn the_schema_knows_every_key_with_its_words_and_bounds() {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["required"], serde_json::json!(["name", "source"]));
        let defs = schema["$defs"].as_object().expect("definitions");
        for (name, def) in defs.iter().filter(|(_, def)| def["properties"].is_object()) {
            assert_eq!(def["additionalProperties"], false, "{name}");
            for (key, property) in def["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{name}.{key}");
            }
        }
        let opset = &defs["Decoder"]["properties"]["opset"];
        assert_eq!((&opset["minimum"], &opset["maximum"]), (&13.into(), &20.into()));
        assert_eq!(opset["default"], 17);
        let lengths = &defs["References"]["properties"]["lengths"];
        assert_eq!((&lengths["items"]["minimum"], &lengths["minItems"]), (&2.into(), &1.into()));
        let peak = &defs["Fp32Tolerance"]["properties"]["max_abs_of_peak"];
        assert_eq!((&peak["exclusiveMinimum"], &peak["maximum"]), (&0.into(), &1e-4.into()));
    }
}
