//! The closed words that recipes, manifests, tables and the command line share, each said once.

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A closed set of words.
pub trait Word: Copy + PartialEq + 'static {
    /// Every word, in the order in which a person reads them.
    const ALL: &'static [Self];

    /// The word in recipes, manifests, file names and tables.
    fn name(self) -> &'static str;

    /// What it means, in a line of help.
    fn about(self) -> &'static str;

    /// The word of a name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.name() == name)
    }
}

/// Declares closed sets, each word with its name and its line of help.
macro_rules! words {
    ($($(#[$about:meta])* $set:ident { $($(#[$doc:meta])* $word:ident = $name:literal: $help:literal,)* })*) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum $set {
            $($(#[$doc])* $word,)*
        }

        impl Word for $set {
            const ALL: &'static [Self] = &[$(Self::$word),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$word => $name,)*
                }
            }

            fn about(self) -> &'static str {
                match self {
                    $(Self::$word => $help,)*
                }
            }
        }

        impl fmt::Display for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    )* };
}

words! {
    /// How the numbers of a file are stored.
    Precision {
        /// 32-bit floats throughout.
        Fp32 = "fp32": "32-bit floats throughout",
        /// Weights in 16-bit floats.
        Fp16 = "fp16": "Weights in 16-bit floats",
        /// Weights, and in ONNX activations too, in 8 bits in the large products.
        Int8 = "int8": "Weights in 8 bits in the large products",
    }

    /// What a model's file is.
    #[derive(Default)]
    Format {
        /// ONNX.
        #[default]
        Onnx = "onnx": "ONNX",
        /// OpenVINO's intermediate representation: a graph in XML, and its weights in a `.bin` of the same name.
        OpenVino = "openvino": "OpenVINO's intermediate representation",
    }

    /// What kind of component graph a graph is: how it is fed, stepped, timed and judged. A closed set, so that the
    /// compiler lists every place that a new kind touches; a new model touches none of them.
    Role {
        /// Tokens to logits, one position after another from a cache: a language model.
        Causal = "causal": "Tokens to logits, from a cache",
        /// Frames to samples: a vocoder, a codec's decoder.
        Signal = "signal": "Frames to samples",
    }

    /// What turns a checkpoint into a graph.
    #[derive(Default)]
    Exporter {
        /// A plain forward pass by `torch.onnx`.
        #[default]
        Torch = "torch": "A plain forward pass by torch.onnx; the cache is added here",
        /// HuggingFace Optimum.
        Optimum = "optimum": "HuggingFace Optimum, with its cache",
        /// The graph that the others' end in, written directly from the weights.
        Native = "native": "Written directly from the weights, without Python",
    }

    /// What answers the calls that a file is held against.
    #[derive(Default)]
    Oracle {
        /// The unmodified model in PyTorch, in float32.
        #[default]
        PyTorch = "pytorch": "The unmodified model in PyTorch, in float32",
        /// The model's formulas in double precision, straight from the weights.
        Float64 = "float64": "The model's formulas in double precision, without Python",
    }
}

impl Format {
    /// The format of a file, by its name.
    pub fn of(path: &Path) -> Self {
        match path.extension().is_some_and(|extension| extension == "xml") {
            true => Format::OpenVino,
            false => Format::Onnx,
        }
    }
}

impl Exporter {
    /// Whether it is Python's.
    pub fn is_python(self) -> bool {
        self != Exporter::Native
    }

    /// Whether it names nodes as the other does, so that a recipe's patterns mean the same in both.
    pub fn names_as(self, other: Self) -> bool {
        (self == Exporter::Optimum) == (other == Exporter::Optimum)
    }
}

/// The names of a causal graph's inputs and outputs; by default those of `transformers`, as Optimum exports them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Causal {
    /// Token ids i64 [batch, sequence].
    pub ids: String,
    /// Which positions count, i64 [batch, past + sequence].
    pub mask: String,
    /// Place of each token, i64 [batch, sequence].
    pub positions: String,
    /// Cached keys and values, `{past}.{layer}.key` and `.value`, f32 [batch, heads, past, size].
    pub past: String,
    /// The same after the call, `{present}.{layer}.key` and `.value`.
    pub present: String,
    /// Scores of the next token, f32 [batch, sequence, vocabulary].
    pub logits: String,
    /// Hidden states after the final norm, f32 [batch, sequence, channels].
    pub hidden: String,
    /// What enters a layer, `{layers}.{layer}`, f32 [batch, sequence, channels].
    pub layers: String,
}

impl Default for Causal {
    fn default() -> Self {
        Self {
            ids: "input_ids".into(),
            mask: "attention_mask".into(),
            positions: "position_ids".into(),
            past: "past_key_values".into(),
            present: "present".into(),
            logits: "logits".into(),
            hidden: "last_hidden_state".into(),
            layers: "hidden_states".into(),
        }
    }
}

/// The names of a signal graph's input and output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Signal {
    /// Frames f32 [batch, channels, frames], or with the last two axes the other way round.
    pub frames: String,
    /// Samples f32 [batch, samples].
    pub samples: String,
}

impl Default for Signal {
    fn default() -> Self {
        Self { frames: "hidden_states".into(), samples: "audio".into() }
    }
}

/// Which of the names of inputs and outputs is not a word, or not its own: its role, what is wrong, what helps.
pub(crate) fn misnamed<T: Serialize>(names: &T) -> Option<(String, String, &'static str)> {
    let names = serde_json::to_value(names).expect("plain data");
    let names =
        names.as_object().into_iter().flatten().filter_map(|(role, name)| Some((role, name.as_str()?)));
    let names: Vec<(&String, &str)> = names.collect();
    names.iter().enumerate().find_map(|(i, &(role, name))| {
        let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.len() <= 64;
        let (why, hint) = match names[..i].iter().any(|(_, before)| *before == name) {
            _ if !is_word => (
                "is not a name of an input or output".to_owned(),
                "write up to 64 letters, digits and `_`; first a letter or `_`",
            ),
            true => (format!("is `{name}` again"), "give each input and output a name of its own"),
            false => return None,
        };
        Some((role.clone(), why, hint))
    })
}

/// The names of a graph's inputs and outputs, by its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Ports {
    /// Of a causal graph.
    Causal(Causal),
    /// Of a signal graph.
    Signal(Signal),
}

impl Ports {
    /// The role.
    pub fn role(&self) -> Role {
        match self {
            Ports::Causal(_) => Role::Causal,
            Ports::Signal(_) => Role::Signal,
        }
    }

    /// The usual names of a role.
    pub fn usual(role: Role) -> Self {
        match role {
            Role::Causal => Ports::Causal(Causal::default()),
            Role::Signal => Ports::Signal(Signal::default()),
        }
    }

    /// Whether an input or output is cached keys or values.
    pub fn is_cache(&self, name: &str) -> bool {
        let of = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
        match self {
            Ports::Causal(names) => of(&names.past) || of(&names.present),
            Ports::Signal(_) => false,
        }
    }
}
