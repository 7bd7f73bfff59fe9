//! What a stage is: what it does, what it leaves, and how others find it.

use std::collections::BTreeMap;

use super::cache::Key;
use crate::bundle::Framing;
use crate::names::Precision;
use crate::runtime::Format;

/// Whether a stage has to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the cache.
    Hit,
    /// It must be made, and why.
    Miss(String),
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Makes the checkpoint available.
    Checkpoint,
    /// Turns the checkpoint into a graph.
    Export(String),
    /// Records what the original module answers.
    Record(String),
    /// Runs passes and surgeries.
    Rewrite(String),
    /// Writes the graph in 8 bits.
    Quantize(String),
    /// Converts the rewritten graph to another format.
    Convert(String),
    /// Runs the references through a file.
    Validate(String, Precision, Format),
    /// Times the int8 file against the fp32 one.
    Time(String),
    /// Has the original model say sentences.
    Speak,
}

impl Work {
    /// The stage's name: what it does, to which graph.
    pub fn name(&self) -> String {
        match self {
            Work::Checkpoint => "checkpoint".to_owned(),
            Work::Export(graph) => format!("export-{graph}"),
            Work::Record(graph) => format!("record-{graph}"),
            Work::Rewrite(graph) => format!("rewrite-{graph}"),
            Work::Quantize(graph) => format!("quantize-{graph}"),
            Work::Convert(graph) => format!("convert-{graph}"),
            Work::Validate(graph, Precision::Fp32, Format::Onnx) => format!("validate-{graph}"),
            Work::Validate(graph, precision, Format::Onnx) => format!("validate-{graph}-{precision}"),
            Work::Validate(graph, precision, Format::OpenVino) => {
                format!("validate-{graph}-ir-{precision}")
            }
            Work::Time(graph) => format!("time-{graph}"),
            Work::Speak => "speak".to_owned(),
        }
    }

    /// The stage that leaves the file which a validation runs, and the one of the fp32 ONNX file.
    pub(super) fn file_of(graph: &str, precision: Precision, format: Format) -> Work {
        match (precision, format) {
            (_, Format::OpenVino) => Work::Convert(graph.to_owned()),
            (Precision::Fp32, Format::Onnx) => Work::Rewrite(graph.to_owned()),
            (_, Format::Onnx) => Work::Quantize(graph.to_owned()),
        }
    }

    /// Threads that a stage needs (none for the whole machine), and megabytes that are enough for a full-size model.
    pub(super) fn needs(&self) -> (Option<u32>, u32) {
        match self {
            // Nothing may run while it is timed.
            Work::Time(_) => (None, 3000),
            Work::Checkpoint
            | Work::Export(_)
            | Work::Record(_)
            | Work::Convert(_)
            | Work::Validate(..) => (Some(2), 4000),
            // One thread: two runs agree to the last bit.
            Work::Speak => (Some(1), 4000),
            Work::Rewrite(_) | Work::Quantize(_) => (Some(1), 2000),
        }
    }
}

/// A stage of a plan.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What it does.
    pub work: Work,
    /// Everything it depends on.
    pub key: Key,
    /// Whether it is there.
    pub state: State,
    /// The places of the stages whose results it reads.
    pub after: Vec<usize>,
}

/// The file that an export leaves.
pub(super) const MODEL: &str = "model.onnx";
/// The file that a recording leaves.
pub(crate) const REFERENCES: &str = "references.safetensors";
/// Inner values of PyTorch's module, where an export leaves them.
pub(super) const PROBES: &str = "probes.safetensors";
/// The file that a rewrite leaves.
pub(super) const REWRITTEN: &str = "rewritten.onnx";
/// The file that the original model's speech is in.
pub(super) const SPEECH: &str = "speech.safetensors";

/// What later stages and the bundle need of an export.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Exported {
    pub(super) architecture: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub(super) sample_rate: Option<u32>,
    #[serde(default)]
    pub(super) framing: Option<Framing>,
    pub(super) environment: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Word as _;

    #[test]
    fn each_stage_has_a_name_of_its_own() {
        let graph = || "lm".to_owned();
        let mut names: Vec<String> = [
            Work::Checkpoint,
            Work::Export(graph()),
            Work::Record(graph()),
            Work::Rewrite(graph()),
            Work::Quantize(graph()),
            Work::Convert(graph()),
            Work::Time(graph()),
            Work::Speak,
        ]
        .iter()
        .map(Work::name)
        .collect();
        for &precision in Precision::ALL {
            for format in [Format::Onnx, Format::OpenVino] {
                names.push(Work::Validate(graph(), precision, format).name());
            }
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
