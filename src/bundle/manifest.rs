use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Error, FileEntry, MANIFEST};
use crate::digest::Digest;
use crate::family::soprano;
use crate::interface::{Port, Signature};
use crate::ir;
use crate::names::{Oracle, Ports, Precision, Role};
use crate::recipe::SAMPLE_RATE;
use crate::runtime::{Format, Traits};
use crate::source;
use crate::validate::{Artifact, Tolerance};

/// The format that is written.
pub const FORMAT: u32 = 2;

/// The most samples of a frame, and frames without one.
const MOST_SAMPLES: usize = 1 << 20;

/// What a bundle holds and how it was built; no date, machine or person: two builds of one checkpoint are identical.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format; now 2.
    pub format: u32,
    /// The bundle's name.
    pub name: String,
    /// Digest of everything the build depended on.
    pub key: Digest,
    /// What built it.
    pub tool: Tool,
    /// What it was built from.
    pub checkpoint: CheckpointEntry,
    /// The model's family.
    pub family: String,
    /// Code of a checkpoint's author that was imported to export and record: `package.module:Class`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_code: Vec<String>,
    /// The graphs that its artifacts are files of, by name.
    pub graphs: BTreeMap<String, GraphEntry>,
    /// What answered the references, where it is not PyTorch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<Oracle>,
    /// Versions of Python and of the packages that exported and recorded.
    pub environment: BTreeMap<String, String>,
    /// The models.
    pub artifacts: Vec<ArtifactEntry>,
    /// Every file but the manifest and the list of digests, by its path.
    pub files: BTreeMap<String, FileEntry>,
}

/// A graph of a bundle's model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphEntry {
    /// Its role, and the names of its inputs and outputs.
    pub interface: Ports,
    /// Dimensions, as read from the weights.
    pub architecture: BTreeMap<String, serde_json::Value>,
    /// Samples a second, where it makes sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = *SAMPLE_RATE.start(), max = *SAMPLE_RATE.end())))]
    pub sample_rate: Option<u32>,
    /// How frames become samples, where it makes sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<Framing>,
}

/// How frames become samples: there are `per_frame * (frames - lead)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Framing {
    /// Samples of a frame.
    #[schemars(range(min = 1, max = MOST_SAMPLES))]
    pub per_frame: usize,
    /// Frames that give no sample of their own.
    #[schemars(range(max = MOST_SAMPLES))]
    pub lead: usize,
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// The program that built a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `soprano-export`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The checkpoint of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointEntry {
    /// `local`, a hub repository with its revision, or a synthetic preset.
    pub source: String,
    /// Its files.
    pub files: Vec<source::File>,
}

/// A model of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArtifactEntry {
    /// Path inside the bundle.
    pub file: String,
    /// The graph that it is a file of.
    pub graph: String,
    /// How its numbers are held.
    pub precision: Precision,
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
    /// Whether a causal graph keeps its cache itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stateful: bool,
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
    /// The references that it is validated against, by path inside the bundle.
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

    /// Its file, and that of its weights, with what it says of each.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, FileEntry)> {
        let model = (self.file.as_str(), FileEntry { sha256: self.sha256, bytes: self.bytes });
        let weights = self.weights.as_ref().map(|weights| {
            (weights.file.as_str(), FileEntry { sha256: weights.sha256, bytes: weights.bytes })
        });
        std::iter::once(model).chain(weights)
    }

    /// What a runtime must know of its file.
    pub fn traits(&self, artifact: &Artifact) -> Result<Traits, ir::Error> {
        Traits::of(&artifact.path, self.format, self.precision)
    }

    /// Its interface.
    pub fn signature(&self) -> Signature {
        let (inputs, outputs) = (self.inputs.clone(), self.outputs.clone());
        Signature { inputs, outputs, stateful: self.stateful }
    }
}

/// The weights of a model in a file of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpeedGate {
    /// It was faster.
    Passed,
    /// The two were not compared, or by calls too short to tell.
    Skipped,
}

impl Manifest {
    /// The first graph that makes sound.
    pub fn signal(&self) -> Option<&GraphEntry> {
        self.graphs.values().find(|graph| graph.interface.role() == Role::Signal)
    }

    /// Samples a second of the sound that it makes.
    pub fn sample_rate(&self) -> Option<u32> {
        self.signal()?.sample_rate
    }

    /// The graph of an artifact.
    ///
    /// # Panics
    /// If the artifact is not one of this manifest's.
    pub fn graph(&self, entry: &ArtifactEntry) -> &GraphEntry {
        &self.graphs[&entry.graph]
    }

    /// A graph's file in a precision and a format.
    pub fn artifact(
        &self,
        graph: &str,
        precision: Precision,
        format: Format,
    ) -> Option<&ArtifactEntry> {
        let mut entries = self.artifacts.iter();
        entries.find(|e| e.graph == graph && e.precision == precision && e.format == format)
    }

    /// Reads the manifest of the bundle in a folder.
    ///
    /// # Errors
    /// [`Error::Manifest`] where it is missing, not JSON, or of another format.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let refuse = |why: String| Error::Manifest { path: path.clone(), why };
        let text = crate::files::read(&path).map_err(|e| refuse(e.to_string()))?;
        serde_json::from_slice::<Unique>(&text).map_err(|e| refuse(e.to_string()))?;
        // A later format may hold anything else.
        let Version { format } = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
        let manifest = match format {
            1 => serde_json::from_slice(&text)
                .and_then(soprano::upgrade)
                .and_then(serde_json::from_value),
            FORMAT => serde_json::from_slice(&text),
            _ => return Err(Error::Later { path, format }),
        };
        let manifest: Self = manifest.map_err(|e| refuse(e.to_string()))?;
        manifest.check().map_err(refuse)?;
        Ok(manifest)
    }

    /// Refuses what the types of its fields admit, and no build writes.
    fn check(&self) -> Result<(), String> {
        if let Some(name) = self.graphs.keys().chain([&self.name]).find(|name| !is_name(name)) {
            return Err(format!("{name:?} is not a name of a bundle or graph"));
        }
        for (name, graph) in &self.graphs {
            if let Some(rate) = graph.sample_rate.filter(|rate| !SAMPLE_RATE.contains(rate)) {
                return Err(format!("graph {name:?} makes {rate} samples a second"));
            }
            let fits =
                |f: &Framing| (1..=MOST_SAMPLES).contains(&f.per_frame) && f.lead <= MOST_SAMPLES;
            if graph.framing.as_ref().is_some_and(|framing| !fits(framing)) {
                return Err(format!("the framing of graph {name:?} is not one"));
            }
        }
        match self.artifacts.iter().find(|entry| !self.graphs.contains_key(&entry.graph)) {
            Some(entry) => Err(format!("{:?} is a file of a graph that it doesn't list", entry.file)),
            None => Ok(()),
        }
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data");
        text.push('\n');
        text
    }
}

/// Whether a text can be the name of a bundle or graph, a version and a folder: 1 to 128 ASCII letters, digits, `_`,
/// `.` and `-`, not beginning with `.` or `-`.
pub(super) fn is_name(text: &str) -> bool {
    let sign = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=128).contains(&text.len()) && text.chars().all(sign) && !text.starts_with(['.', '-'])
}

/// JSON in which no key of an object stands there twice: which of the two holds is up to the reader.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands there twice")));
            }
            map.next_value::<Unique>()?;
            keys.insert(key);
        }
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unique, A::Error> {
        while list.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
}
