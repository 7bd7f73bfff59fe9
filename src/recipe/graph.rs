//! What a recipe says of one graph, by the graph's role.

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::bounds::{
    BATCH, LEAST_AGREEMENT, LEAST_HIDDEN_SNR_DB, LENGTH, LOOSEST_HIDDEN_ERROR, LOOSEST_LSD_DB,
    LOOSEST_MAX_ABS, MOST_GROWTH, MOST_LAYERS, OPSET, PADDED_BATCH, PREFILL, SAMPLE_RATE, SNR_DB,
    STEPS, TIME_LIMIT,
};
use super::{CausalGate, Int8, SignalGate, Targets, present};
use crate::names::{self, Exporter, Ports, Precision, Role, Word as _};

/// How a graph is exported, and what its files must hold up to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Graph {
    /// Tokens to logits, from a cache.
    Causal(Box<Causal>),
    /// Frames to samples.
    Signal(Box<Signal>),
}

/// Reads or changes what a graph of every role has.
macro_rules! each {
    ($graph:expr, $of:ident => $value:expr) => {
        match $graph {
            Graph::Causal($of) => $value,
            Graph::Signal($of) => $value,
        }
    };
}

impl Graph {
    /// What kind of graph it is.
    pub fn role(&self) -> Role {
        match self {
            Graph::Causal(_) => Role::Causal,
            Graph::Signal(_) => Role::Signal,
        }
    }

    /// The names of its inputs and outputs.
    pub fn ports(&self) -> Ports {
        match self {
            Graph::Causal(graph) => Ports::Causal(graph.interface.clone()),
            Graph::Signal(graph) => Ports::Signal(graph.interface.clone()),
        }
    }

    /// The ONNX operator set.
    pub fn opset(&self) -> u32 {
        each!(self, graph => graph.opset)
    }

    /// What turns the checkpoint into a graph.
    pub fn exporter(&self) -> Exporter {
        self.chosen_exporter().unwrap_or_default()
    }

    /// The exporter, where one was chosen.
    pub fn chosen_exporter(&self) -> Option<Exporter> {
        each!(self, graph => graph.exporter)
    }

    /// The file's name, without `.onnx`.
    pub fn file(&self) -> &str {
        each!(self, graph => &graph.file)
    }

    /// The name of its file of a precision, without extension: the recipe's for fp32, and derived from it for others.
    pub fn file_of(&self, precision: Precision) -> String {
        match precision {
            Precision::Fp32 => self.file().to_owned(),
            other => format!("{}_{other}", self.file().strip_suffix("_fp32").unwrap_or(self.file())),
        }
    }

    /// Passes and surgeries by name, where the recipe chooses them.
    pub fn passes(&self) -> Option<&[String]> {
        each!(self, graph => graph.passes.as_deref())
    }

    /// Seconds after which a silent exporter is ended.
    pub fn time_limit_seconds(&self) -> u64 {
        each!(self, graph => graph.time_limit_seconds)
    }

    /// The module that a recipe names, and the rate of its samples.
    pub fn module(&self) -> Option<(&Module, Option<u32>)> {
        match self {
            Graph::Causal(_) => None,
            Graph::Signal(graph) => graph.module.as_ref().map(|module| (module, graph.sample_rate)),
        }
    }

    /// The int8 file that is asked for.
    pub fn int8(&self) -> Option<&Int8> {
        each!(self, graph => graph.int8.as_ref())
    }

    /// Formats other than ONNX.
    pub fn targets(&self) -> &Targets {
        each!(self, graph => &graph.targets)
    }

    /// Sentences whose run is recorded too.
    pub fn sentences(&self) -> &[String] {
        each!(self, graph => &graph.references.sentences)
    }

    /// The int8 file that is asked for, to change.
    pub fn int8_mut(&mut self) -> &mut Option<Int8> {
        each!(self, graph => &mut graph.int8)
    }

    /// Formats other than ONNX, to change.
    pub fn targets_mut(&mut self) -> &mut Targets {
        each!(self, graph => &mut graph.targets)
    }

    /// The exporter, to change.
    pub fn exporter_mut(&mut self) -> &mut Option<Exporter> {
        each!(self, graph => &mut graph.exporter)
    }
}

/// By the role, which stands first: a recipe's tree is given one where its text leaves it to the family.
impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ByRole;
        impl<'de> Visitor<'de> for ByRole {
            type Value = Graph;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Graph, A::Error> {
                if map.next_key::<String>()?.as_deref() != Some("role") {
                    return Err(A::Error::missing_field("role"));
                }
                let role = map.next_value()?;
                let rest = MapAccessDeserializer::new(map);
                Ok(match role {
                    Role::Causal => Graph::Causal(Deserialize::deserialize(rest)?),
                    Role::Signal => Graph::Signal(Deserialize::deserialize(rest)?),
                })
            }
        }
        from.deserialize_map(ByRole)
    }
}

/// Declares what a recipe says of a graph: what it says of every graph, and what of this role's alone.
macro_rules! graph {
    (
        $(#[$about:meta])*
        $graph:ident($references:ty, $tolerance:ty, $gate:ty) {
            $($(#[$export:meta])* $exported:ident: $exported_type:ty,)*
            ..
            $($(#[$own:meta])* $name:ident: $type:ty,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $graph {
            /// The ONNX operator set.
            #[schemars(range(min = *OPSET.start(), max = *OPSET.end()))]
            pub opset: u32,
            /// What turns the checkpoint into a graph; left out, `torch` where its Python environment is, and `native`
            /// elsewhere.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub exporter: Option<Exporter>,
            /// The file's name in the bundle's `onnx/` folder, without `.onnx`; left out, the family's own name for it,
            /// or `NAME_fp32` of the graph's.
            #[schemars(length(max = 64), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9_-])?$"))]
            pub file: String,
            $($(#[$export])* pub $exported: $exported_type,)*
            /// Passes and surgeries by name, run in the order of `pass list`, however written; left out, all that a graph of this role needs.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(inner(inner(regex(pattern = r"^[a-z0-9]+(-[a-z0-9]+)*$"))))]
            pub passes: Option<Vec<String>>,
            /// Seconds after which a silent exporter is ended.
            #[schemars(range(min = *TIME_LIMIT.start(), max = *TIME_LIMIT.end()))]
            pub time_limit_seconds: u64,
            /// Which outputs PyTorch records to hold the export against.
            pub references: $references,
            /// How far the export may be from PyTorch.
            pub tolerance: $tolerance,
            /// An int8 file next to the fp32 one; `{}` takes every default.
            #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
            pub int8: Option<Int8>,
            /// Formats other than ONNX.
            #[serde(skip_serializing_if = "Targets::is_empty")]
            pub targets: Targets,
            /// Speed, memory and size that `bench --gate` holds the graph's files to.
            #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
            pub gate: Option<$gate>,
            $($(#[$own])* pub $name: $type,)*
        }

        impl Default for $graph {
            fn default() -> Self {
                Self {
                    opset: 17,
                    exporter: None,
                    file: Role::$graph.name().into(),
                    $($exported: Default::default(),)*
                    passes: None,
                    time_limit_seconds: 1800,
                    references: Default::default(),
                    tolerance: Default::default(),
                    int8: None,
                    targets: Targets::default(),
                    gate: None,
                    $($name: Default::default(),)*
                }
            }
        }
    };
}

graph! {
    /// How a causal graph is exported.
    Causal(CausalReferences, CausalTolerance, CausalGate) {
        /// Layers whose input becomes an output `hidden_states.{i}`; 0 is the embedding.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 64), inner(range(max = MOST_LAYERS)))]
        hidden_states: Vec<u32>,
        /// Logits of the last position alone: of a prompt's, no client reads the others.
        last_logits: bool,
        ..
        /// Names of inputs and outputs, where the family leaves them to the recipe.
        #[serde(skip_serializing_if = "is_default")]
        interface: names::Causal,
    }
}

graph! {
    /// How a signal graph is exported.
    Signal(SignalReferences, SignalTolerance, SignalGate) {
        ..
        /// Names of the input and the output, where the family leaves them to the recipe.
        #[serde(skip_serializing_if = "is_default")]
        interface: names::Signal,
        /// The `torch.nn.Module` that it is exported from, where the family leaves it to the recipe.
        #[serde(skip_serializing_if = "Option::is_none")]
        module: Option<Module>,
        /// Samples a second of what such a module gives; without it nothing is said in seconds of sound.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(inner(range(min = *SAMPLE_RATE.start(), max = *SAMPLE_RATE.end())))]
        sample_rate: Option<u32>,
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A module that is somebody's code: importing it runs that code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Where the class is: `package.module:Class`.
    #[schemars(length(max = 256), regex(pattern = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"))]
    pub import: String,
    /// What it is constructed with, by name.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// The file of its weights in the checkpoint: a state dict, `.pth` or `.safetensors`.
    #[schemars(length(min = 1, max = 128))]
    pub weights: String,
    /// What each of its tensors' names begins with in that file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub prefix: String,
}

/// Which calls of a causal graph PyTorch records: prompts at once, a padded batch, cached steps, a greedy run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CausalReferences {
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

impl Default for CausalReferences {
    fn default() -> Self {
        Self { prefills: vec![1, 2, 7, 32], batch: 3, steps: 64, seed: 0, sentences: Vec::new() }
    }
}

/// How far a causal graph may be from PyTorch, by precision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CausalTolerance {
    /// For the fp32 file.
    pub fp32: CausalFp32,
}

/// How far the fp32 file of a causal graph may be from PyTorch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CausalFp32 {
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

impl Default for CausalFp32 {
    fn default() -> Self {
        CausalFp32 { max_abs: 2.0e-5, snr_db: 90.0, top_1_agreement: 1.0, error_growth: 2.0 }
    }
}

/// Which calls of a signal graph PyTorch records: every length at every batch size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignalReferences {
    /// Lengths in frames; a few small ones find errors at the edges.
    #[schemars(length(min = 1, max = 64), inner(range(min = *LENGTH.start(), max = *LENGTH.end())))]
    pub lengths: Vec<u32>,
    /// Batch sizes; one above 1 finds an axis that the exporter froze.
    #[schemars(length(min = 1, max = 64), inner(range(min = *BATCH.start(), max = *BATCH.end())))]
    pub batches: Vec<u32>,
    /// Whether to record inputs of extreme magnitude too.
    pub extreme: bool,
    /// Seed of the random inputs.
    pub seed: u64,
    /// Sentences for the checkpoint's own language model to say; the graph is validated on those frames too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 300)))]
    pub sentences: Vec<String>,
}

impl Default for SignalReferences {
    fn default() -> Self {
        Self {
            lengths: vec![2, 3, 4, 5, 16, 64, 100, 512],
            batches: vec![1, 3],
            extreme: true,
            seed: 0,
            sentences: Vec::new(),
        }
    }
}

/// How far a signal graph may be from PyTorch, by precision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignalTolerance {
    /// For the fp32 file.
    pub fp32: SignalFp32,
}

/// How far the fp32 file may be from PyTorch; each value has a bound beyond which it would prove nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignalFp32 {
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

impl Default for SignalFp32 {
    fn default() -> Self {
        SignalFp32 { max_abs_of_peak: 1.0e-5, snr_db: 90.0, log_spectral_distance_db: 0.05 }
    }
}
