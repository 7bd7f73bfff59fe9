use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, FileEntry, MANIFEST};
use crate::digest::Digest;
use crate::ir;
use crate::names::Precision;
use crate::runtime::{Format, Traits};
use crate::source;
use crate::validate::{self, Artifact, Part, Signature, Tolerance};

/// What a bundle holds and how it came to be. Nothing in it depends on when, where or by whom it was
/// built: two builds of one checkpoint are equal byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format; now 1.
    pub format: u32,
    /// The bundle's name.
    pub name: String,
    /// Digest of everything the build depended on.
    pub key: Digest,
    /// What built it.
    pub tool: Tool,
    /// What it was built from.
    pub checkpoint: CheckpointEntry,
    /// Dimensions, as read from the weights.
    pub architecture: BTreeMap<String, serde_json::Value>,
    /// Versions of Python and of the packages that exported and recorded.
    pub environment: BTreeMap<String, String>,
    /// The models.
    pub artifacts: Vec<ArtifactEntry>,
    /// Every file but the manifest and the list of digests, by its path.
    pub files: BTreeMap<String, FileEntry>,
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// The program that built a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `soprano-export`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The checkpoint of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointEntry {
    /// `local`, a hub repository with its revision, or a synthetic preset.
    pub source: String,
    /// Its files.
    pub files: Vec<source::File>,
}

/// A model of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactEntry {
    /// Path inside the bundle.
    pub file: String,
    /// Which part of the voice: `decoder`.
    pub part: Part,
    /// Number format: `fp32`.
    pub scheme: Precision,
    /// What the file is.
    #[serde(default, skip_serializing_if = "is_onnx")]
    pub format: Format,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Length in bytes.
    pub bytes: u64,
    /// Its weights, where they are a file of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsEntry>,
    /// Whether a language model keeps its cache itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stateful: bool,
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
    /// References it is held against, by path inside the bundle.
    pub references: String,
    /// What it must reach.
    pub tolerance: Tolerance,
    /// Whether an int8 file was shown to be faster than its fp32 one on the machine that built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_gate: Option<SpeedGate>,
}

fn is_onnx(format: &Format) -> bool {
    *format == Format::Onnx
}

impl ArtifactEntry {
    /// Its length with its weights, in bytes.
    pub fn all_bytes(&self) -> u64 {
        self.bytes + self.weights.as_ref().map_or(0, |weights| weights.bytes)
    }

    /// What a runtime must know of its file.
    ///
    /// # Errors
    /// As [`Traits::of`].
    pub fn traits(&self, artifact: &Artifact) -> Result<Traits, ir::Error> {
        Traits::of(&artifact.path, self.format, self.scheme)
    }

    /// Its interface.
    pub fn signature(&self) -> Signature {
        let port = |port: &Port| validate::Port {
            name: port.name.clone(),
            dtype: port.dtype.clone(),
            dims: port.shape.clone(),
        };
        let ports = |ports: &[Port]| ports.iter().map(port).collect();
        Signature {
            inputs: ports(&self.inputs),
            outputs: ports(&self.outputs),
            stateful: self.stateful,
        }
    }
}

/// The weights of a model in a file of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsEntry {
    /// Path inside the bundle.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Length in bytes.
    pub bytes: u64,
}

/// How the question whether int8 is faster was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeedGate {
    /// It is.
    Passed,
    /// It was not asked.
    Skipped,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type: `f32`.
    pub dtype: String,
    /// Dimensions: numbers, or the names of open ones.
    pub shape: Vec<String>,
}

impl Manifest {
    /// Samples a second of what its decoder makes.
    pub fn sample_rate(&self) -> Option<u32> {
        self.architecture.get("sample_rate")?.as_u64()?.try_into().ok()
    }

    /// A half's file in a scheme and a format.
    pub fn artifact(&self, part: Part, scheme: Precision, format: Format) -> Option<&ArtifactEntry> {
        let mut entries = self.artifacts.iter();
        entries.find(|e| e.part == part && e.scheme == scheme && e.format == format)
    }

    /// Reads the manifest of the bundle in a folder.
    ///
    /// # Errors
    /// [`Error::Manifest`] where it is missing, not JSON, or of another format.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let refuse = |why: String| Error::Manifest { path: path.clone(), why };
        // A named pipe would be waited for.
        match std::fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => return Err(refuse("not a plain file".into())),
            _ => {}
        }
        let text = std::fs::read_to_string(&path).map_err(|e| refuse(e.to_string()))?;
        // A later format may hold anything else.
        let Version { format } = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
        if format != 1 {
            return Err(Error::Later { path, format });
        }
        serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data");
        text.push('\n');
        text
    }
}
