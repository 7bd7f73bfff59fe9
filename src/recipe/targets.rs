//! What a graph is converted to, other than ONNX.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{Format, Precision, Role, Word as _};

use super::bounds::{LEAST_INT8_SNR_DB, SNR_DB};
use super::checks::{Checks, Outcome};
use super::{Step, present};

/// The formats other than ONNX.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Targets {
    /// OpenVINO's intermediate representation; `{}` takes every default.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub openvino: Option<OpenVinoTarget>,
}

impl Targets {
    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.openvino.is_none()
    }
}

/// What OpenVINO's converter reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The rewritten fp32 ONNX file.
    #[default]
    Onnx,
    /// The PyTorch module: a second way, which shares nothing with the first but the weights.
    Torch,
}

impl Via {
    /// The name in recipes and requests.
    pub fn name(self) -> &'static str {
        match self {
            Via::Onnx => "onnx",
            Via::Torch => "torch",
        }
    }
}

/// How OpenVINO IR is made, and what it must reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenVinoTarget {
    /// The files to write: fp32, fp16, int8.
    #[schemars(length(min = 1, max = 3))]
    pub precisions: Vec<Precision>,
    /// What the converter reads.
    pub via: Via,
    /// A language model's cache inside the model: inputs and outputs without it, for one conversation at a
    /// time.
    pub stateful: bool,
    /// Activations of the int8 file too in 8 bits, in the ranges that a decoder's references show (nncf's
    /// post-training quantization); otherwise weights alone.
    pub calibrated: bool,
    /// Dimensions of inputs that are to be fixed or bounded, by the input's name: a number, `a..b`, or `?`
    /// for any, each; left out, as open as in the ONNX file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64))]
    pub shapes: BTreeMap<String, Vec<String>>,
    /// Nodes whose weights stay fp32 in the int8 file, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub keep_fp32: Vec<String>,
    /// The least signal-to-noise ratio of the fp16 file against PyTorch.
    #[schemars(range(min = LEAST_INT8_SNR_DB, max = *SNR_DB.end()))]
    pub fp16_snr_db: f64,
    /// The least signal-to-noise ratio of the int8 file against PyTorch.
    #[schemars(range(min = LEAST_INT8_SNR_DB, max = *SNR_DB.end()))]
    pub int8_snr_db: f64,
}

impl Default for OpenVinoTarget {
    fn default() -> Self {
        Self {
            precisions: vec![Precision::Fp32, Precision::Int8],
            via: Via::Onnx,
            stateful: false,
            calibrated: false,
            shapes: BTreeMap::new(),
            keep_fp32: Vec::new(),
            fp16_snr_db: 22.0,
            int8_snr_db: 18.0,
        }
    }
}

impl Targets {
    pub(super) fn validate(&self, here: &Checks, role: Role) -> Outcome {
        let Some(openvino) = &self.openvino else { return Ok(()) };
        let here = here.key(Format::OpenVino.name());
        let precisions = &openvino.precisions;
        let causal = role == Role::Causal;
        let list = here.key("precisions");
        list.ensure(!precisions.is_empty(), "is an empty list", "write `[fp32, int8]`")?;
        for (i, precision) in precisions.iter().enumerate() {
            let again = format!("is {precision} again");
            let before = &precisions[..i];
            list.at(Step::Index(i)).ensure(!before.contains(precision), again, "write each once")?;
        }
        here.key("stateful").ensure(
            causal || !openvino.stateful,
            "is true of a graph without a cache",
            "a signal graph has no state: leave it out",
        )?;
        here.key("stateful").ensure(
            !openvino.stateful || openvino.via == Via::Onnx,
            "is true with `via: torch`",
            "write `via: onnx`",
        )?;
        here.key("calibrated").ensure(
            !openvino.calibrated || !causal,
            "is true of a causal graph",
            "its activations' ranges are too wide for 8 bits: leave it out",
        )?;
        here.key("calibrated").ensure(
            !openvino.calibrated || precisions.contains(&Precision::Int8),
            "is true, and no int8 file is asked for",
            "add int8 to the precisions, or leave it out",
        )?;
        for (input, dims) in &openvino.shapes {
            let good = !dims.is_empty() && dims.len() <= 8 && dims.iter().all(|dim| is_dimension(dim));
            here.key("shapes").ensure(
                good && !input.is_empty() && input.len() <= 256,
                format!("has {:?} for {input:?}", dims.join(", ")),
                "write each dimension as a number, `a..b`, or `?`: `hidden_states: [1, 512, 50..200]`",
            )?;
        }
        here.key("keep_fp32").ensure(
            openvino.keep_fp32.len() <= 256
                && openvino.keep_fp32.iter().all(|n| !n.is_empty() && n.len() <= 256),
            "is not a list of nodes' names",
            "`soprano-export inspect` and `diff` show node names",
        )?;
        let floor = "a file that is further from PyTorch is noise";
        let most = *SNR_DB.end();
        here.key("fp16_snr_db").at_least(openvino.fp16_snr_db, LEAST_INT8_SNR_DB, most, floor)?;
        here.key("int8_snr_db").at_least(openvino.int8_snr_db, LEAST_INT8_SNR_DB, most, floor)
    }
}

/// `?`, a number from 1, or two of them with `..` between.
fn is_dimension(text: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok().filter(|&n| n > 0 || text == "0");
    match text.split_once("..") {
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from < to),
        None => text == "?" || number(text).is_some_and(|n| n > 0),
    }
}

#[cfg(test)]
mod tests {
    use crate::family::recipes;
    use crate::recipe::Recipe;

    fn parsed(part: &str, target: &str) -> Result<Recipe, String> {
        let text = format!("name: a\nsource: b\n{part}:\n  targets:\n    openvino: {target}\n");
        recipes().parse(&text, "t.yaml").map_err(|e| e.to_string())
    }

    #[test]
    fn a_target_takes_its_defaults_and_reads_back() {
        let recipe = parsed("decoder", "{}").unwrap();
        assert!(
            recipe.to_yaml().contains("precisions:\n        - fp32\n        - int8\n"),
            "{}",
            recipe.to_yaml()
        );
        assert_eq!(recipes().parse(&recipe.to_yaml(), "t.yaml").unwrap(), recipe);
        let without = recipes().parse("name: a\nsource: b\ndecoder: {}\n", "t.yaml").unwrap();
        assert!(!without.to_yaml().contains("targets"));
    }

    #[test]
    fn what_no_converter_could_do_is_refused_at_its_place() {
        let why = |part: &str, target: &str| parsed(part, target).unwrap_err();
        assert!(why("decoder", "{stateful: true}").contains("`decoder.targets.openvino.stateful`"));
        assert!(why("lm", "{stateful: true, via: torch}").contains("via: torch"));
        assert!(why("lm", "{calibrated: true}").contains("`lm.targets.openvino.calibrated`"));
        assert!(why("decoder", "{calibrated: true, precisions: [fp32]}").contains("no int8 file"));
        assert!(why("lm", "{precisions: []}").contains("empty list"));
        assert!(why("lm", "{precisions: [int8, int8]}").contains("int8 again"));
        assert!(why("lm", "{precision: [int8]}").contains("precisions"));
        assert!(why("lm", "{int8_snr_db: 11}").contains("looser"));
        for dims in ["['200..50']", "['0']", "['x']", "[]", "['-1']", "['1..']"] {
            let target = format!("{{shapes: {{hidden_states: {dims}}}}}");
            let why = why("decoder", &target);
            assert!(why.contains("`decoder.targets.openvino.shapes`"), "{why}");
        }
        assert!(parsed("decoder", "{shapes: {hidden_states: ['1', '512', '50..200']}}").is_ok());
        assert!(parsed("lm", "{stateful: true, precisions: [fp16]}").is_ok());
    }
}
