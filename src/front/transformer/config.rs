//! What `config.json` says of a language model, held against itself.

mod scaling;

use std::path::Path;

use serde_json::{Map, Value};

use crate::source::Refused;

/// The file.
pub(super) const CONFIG: &str = "config.json";
/// The largest count that is built.
const LARGEST: u64 = (1 << 31) - 1;
/// The most layers.
const MOST_LAYERS: u64 = 4096;
/// The largest scalar: twice it is no float.
const LARGEST_SCALAR: f64 = 1.7014118346046923e38;

/// Every dimension of a language model, and what its layers have.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The class in `transformers`: `Qwen3ForCausalLM`.
    pub architecture: String,
    /// Channels of a hidden state.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, each shared by as many queries.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Channels between the two products of an MLP.
    pub intermediate_size: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Positions that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// The base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// How the frequencies are scaled.
    pub rotation: Rotation,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has one.
    pub out_bias: bool,
    /// Whether the MLP's products have them.
    pub mlp_bias: bool,
    /// Whether queries and keys are normed, head by head.
    pub qk_norm: bool,
}

/// How a rotary embedding's frequencies are scaled, as `rope_scaling` has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Rotation {
    /// Not at all.
    Default,
    /// All by a factor.
    Linear {
        /// By which they are divided.
        factor: f64,
    },
    /// Low frequencies by a factor, high ones not at all.
    Llama3 {
        /// By which low ones are divided.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings` over this are low.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings` over this are high.
        high_freq_factor: f64,
        /// Positions before the scaling.
        original_max_position_embeddings: f64,
    },
    /// Low frequencies by a factor, high ones not at all, and all rotations by an amplitude.
    Yarn {
        /// By which low ones are divided.
        factor: f64,
        /// The amplitude; by the factor where none is given.
        attention_factor: Option<f64>,
        /// `mscale` and `mscale_all_dim`, which give the amplitude where both are there.
        mscale: Option<(f64, f64)>,
        /// Rotations over the original length above which a frequency is high.
        beta_fast: f64,
        /// Rotations below which it is low.
        beta_slow: f64,
        /// Positions before the scaling.
        original_max_position_embeddings: f64,
        /// Whether the bounds between low and high are rounded to whole dimensions.
        truncate: bool,
    },
}

/// A kind of model: what its class in `transformers` has that `config.json` does not say.
struct Kind {
    model_type: &'static str,
    class: &'static str,
    /// Key-value heads where none are given; none for as many as heads.
    kv_heads: Option<u64>,
    /// The size of a head where none is given; none for an equal share of the channels.
    head_dim: Option<u64>,
    positions: u64,
    qk_norm: bool,
    /// Whether queries, keys and values have biases, whatever the config says.
    qkv_bias: Option<bool>,
    /// Whether `attention_bias` is the output's as well.
    out_bias: bool,
    mlp_bias: bool,
    window: Window,
}

/// Which layers attend to the last positions alone, where `layer_types` doesn't say.
#[derive(Clone, Copy)]
enum Window {
    /// None.
    Never,
    /// Those from `max_window_layers` on, where `use_sliding_window` is set.
    Asked,
    /// All; the window where the config has no key for it.
    Usual(u64),
}

/// Layers without a window where `max_window_layers` isn't given.
const UNWINDOWED: u64 = 28;

/// Defaults as in `transformers` 4.57 (`configuration_qwen3.py` and the like).
const KINDS: &[Kind] = &[
    Kind {
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        kv_heads: Some(32),
        head_dim: Some(128),
        positions: 32768,
        qk_norm: true,
        qkv_bias: None,
        out_bias: true,
        mlp_bias: false,
        window: Window::Asked,
    },
    Kind {
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        kv_heads: Some(32),
        head_dim: None,
        positions: 32768,
        qk_norm: false,
        qkv_bias: Some(true),
        out_bias: false,
        mlp_bias: false,
        window: Window::Asked,
    },
    Kind {
        model_type: "llama",
        class: "LlamaForCausalLM",
        kv_heads: None,
        head_dim: None,
        positions: 2048,
        qk_norm: false,
        qkv_bias: None,
        out_bias: true,
        mlp_bias: true,
        window: Window::Never,
    },
    Kind {
        model_type: "mistral",
        class: "MistralForCausalLM",
        kv_heads: Some(8),
        head_dim: None,
        positions: 131_072,
        qk_norm: false,
        qkv_bias: Some(false),
        out_bias: false,
        mlp_bias: false,
        window: Window::Usual(4096),
    },
];

/// A config on its way: its fields, and the file that errors name.
struct Fields<'a> {
    fields: Map<String, Value>,
    path: &'a Path,
}

impl Config {
    /// Reads a checkpoint's `config.json`.
    ///
    /// # Errors
    /// [`Refused`] with `checkpoint-missing`, `-format` or `-config`, and `lm-unsupported` for a model that is of
    /// another kind.
    pub(super) fn read(folder: &Path) -> Result<Self, Refused> {
        let path = folder.join(CONFIG);
        let fields = super::files::object(&path)?;
        Fields { fields, path: &path }.config()
    }
}

/// Types that a config may name; weights say their own.
const DTYPES: [&str; 13] = [
    "float32", "float", "float64", "double", "float16", "half", "bfloat16", "float8_e4m3fn",
    "float8_e5m2", "int8", "uint8", "int32", "int64",
];

impl Fields<'_> {
    fn config(&self) -> Result<Config, Refused> {
        let kind = self.kind()?;
        self.known_layout()?;
        let [hidden_size, layers, heads, intermediate_size, vocab_size] = [
            ("hidden_size", LARGEST),
            ("num_hidden_layers", MOST_LAYERS),
            ("num_attention_heads", LARGEST),
            ("intermediate_size", LARGEST),
            ("vocab_size", LARGEST),
        ]
        .map(|(name, largest)| {
            self.count(name, largest)?.ok_or_else(|| {
                let message = format!("{}: no `{name}`", self.path.display());
                Refused::new("lm-unsupported", message, "a causal language model is expected")
            })
        });
        let (hidden_size, heads) = (hidden_size?, heads?);
        let kv_heads = self.count("num_key_value_heads", LARGEST)?;
        // What is null is as many as there are heads; what is left out is what the class has.
        let usual = kind.kv_heads.filter(|_| !self.fields.contains_key("num_key_value_heads"));
        let kv_heads = kv_heads.or(usual).unwrap_or(heads);
        if heads % kv_heads != 0 {
            return Err(self.refuse(
                format!("{heads} attention heads cannot be shared by {kv_heads} key-value heads"),
                "num_attention_heads is a multiple of num_key_value_heads",
            ));
        }
        let head_dim = self.count("head_dim", LARGEST)?.or(kind.head_dim);
        let head_dim = head_dim.unwrap_or(hidden_size / heads);
        if head_dim < 2 || head_dim % 2 != 0 {
            return Err(self.wrong("head_dim", "an even number: channels are rotated in pairs"));
        }
        let positions = self.count("max_position_embeddings", LARGEST)?.unwrap_or(kind.positions);
        let layers = layers?;
        self.whole_attention(kind, layers, positions)?;
        if let Some(act) = self.fields.get("hidden_act").filter(|act| act.as_str() != Some("silu")) {
            return Err(self.unsupported(&format!("hidden_act {act}")));
        }
        if self.fields.get("partial_rotary_factor").is_some_and(|f| f.as_f64() != Some(1.0)) {
            return Err(self.unsupported("a partial rotary embedding"));
        }
        let attention_bias = self.flag("attention_bias")?;
        Ok(Config {
            architecture: kind.class.to_owned(),
            hidden_size: size(hidden_size),
            layers: size(layers),
            heads: size(heads),
            kv_heads: size(kv_heads),
            head_dim: size(head_dim),
            intermediate_size: size(intermediate_size?),
            vocab_size: size(vocab_size?),
            max_position_embeddings: size(positions),
            tied: self.flag("tie_word_embeddings")?,
            rms_norm_eps: self.scalar("rms_norm_eps", 1e-6)?,
            rope_theta: self.scalar("rope_theta", 10_000.0)?,
            rotation: self.rotation(positions)?,
            qkv_bias: kind.qkv_bias.unwrap_or(attention_bias),
            out_bias: kind.out_bias && attention_bias,
            mlp_bias: kind.mlp_bias && self.flag("mlp_bias")?,
            qk_norm: kind.qk_norm,
        })
    }

    /// The kind of model, of which `architectures` must be the class.
    fn kind(&self) -> Result<&'static Kind, Refused> {
        let Some(model_type) = self.fields.get("model_type").and_then(Value::as_str) else {
            return Err(self.refuse("no `model_type`", "a causal language model is expected"));
        };
        let Some(kind) = KINDS.iter().find(|kind| kind.model_type == model_type) else {
            return Err(Refused::new(
                "lm-unsupported",
                format!(
                    "{}: a model of model_type {model_type:?} is not supported",
                    self.path.display()
                ),
                "use `exporter: optimum` for it",
            ));
        };
        let named = match self.fields.get("architectures") {
            None | Some(Value::Null) => return Ok(kind),
            Some(named) => named,
        };
        let classes = named.as_array();
        let fits = classes.is_some_and(|classes| {
            classes.is_empty() || classes.iter().any(|class| class.as_str() == Some(kind.class))
        });
        if !fits {
            return Err(self.refuse(
                format!(
                    "`architectures` is {}, and model_type {model_type:?} is {}",
                    shown(named),
                    kind.class
                ),
                "the two name one model",
            ));
        }
        Ok(kind)
    }

    /// Refuses a layer that does not attend to every position before it: no graph here masks more than the future. A
    /// window of as many positions as the model has hides nothing.
    fn whole_attention(&self, kind: &Kind, layers: u64, positions: u64) -> Result<(), Refused> {
        let given = self.count("sliding_window", LARGEST)?;
        let (window, from) = match kind.window {
            Window::Never => return Ok(()),
            Window::Asked => {
                let from = self.fields.get("max_window_layers").and_then(Value::as_u64);
                let asked = self.flag("use_sliding_window")?;
                (given.filter(|_| asked), from.unwrap_or(UNWINDOWED))
            }
            Window::Usual(_) if self.fields.contains_key("sliding_window") => (given, 0),
            Window::Usual(usual) => (Some(usual), 0),
        };
        let refuse = |message: String, hint: &str| {
            Err(Refused::new("lm-unsupported", format!("{}: {message}", self.path.display()), hint))
        };
        let windowed = match self.fields.get("layer_types") {
            None | Some(Value::Null) => window.map_or(0, |_| layers.saturating_sub(from)),
            Some(kinds) => {
                let kinds = kinds.as_array().map(Vec::as_slice).unwrap_or_default();
                if kinds.len() as u64 != layers {
                    let what =
                        format!("`layer_types` has {} entries, for {layers} layers", kinds.len());
                    return Err(self.refuse(what, "it names the kind of each layer"));
                }
                let known = ["full_attention", "sliding_attention"];
                let is_known = |kind: &&Value| kind.as_str().is_some_and(|kind| known.contains(&kind));
                if let Some(other) = kinds.iter().find(|kind| !is_known(kind)) {
                    let elsewhere = ["chunked_attention", "linear_attention"];
                    let is_one = other.as_str().is_some_and(|kind| elsewhere.contains(&kind));
                    let other = shown(other);
                    if !is_one {
                        let what =
                            format!("`layer_types` has {other}, which `transformers` does not know");
                        return Err(self.refuse(what, "it names the kind of each layer"));
                    }
                    return refuse(
                        format!(
                            "`layer_types` has {other}, and every layer must attend to all positions before"
                        ),
                        "no exporter takes it",
                    );
                }
                kinds.iter().filter(|kind| kind.as_str() == Some("sliding_attention")).count() as u64
            }
        };
        if windowed > 0 && window.is_none_or(|window| window < positions) {
            let window = window.map_or("none".to_owned(), |window| window.to_string());
            return refuse(
                format!(
                    "a sliding window is not supported: {windowed} of {layers} layers attend to the last {window} \
                     positions alone (`sliding_window`), and the model has {positions}"
                ),
                "no exporter takes it; set `max_position_embeddings` to `sliding_window`, and it is exported for \
                 that many positions",
            );
        }
        Ok(())
    }

    /// Refuses what changes a model and stands where it isn't read.
    fn known_layout(&self) -> Result<(), Refused> {
        let given = |name: &str| self.fields.get(name).is_some_and(|value| !value.is_null());
        let refuse = |message: &str, hint: &str| {
            Err(Refused::new("lm-unsupported", format!("{}: {message}", self.path.display()), hint))
        };
        if given("rope_parameters") {
            return refuse(
                "`rope_parameters` is how transformers 5 writes the rotary embedding, which is not read",
                "write its `rope_theta` beside it, and the rest of it as `rope_scaling`",
            );
        }
        for name in ["dtype", "torch_dtype"] {
            let word = self.fields.get(name).filter(|word| !word.is_null());
            if let Some(word) =
                word.filter(|word| !word.as_str().is_some_and(|word| DTYPES.contains(&word)))
            {
                let what = format!("`{name}` is {}, which PyTorch does not know", shown(word));
                return Err(self.refuse(what, "a causal language model is expected"));
            }
        }
        if given("quantization_config") {
            return refuse(
                "quantized weights are not read",
                "use the model's f32, f16 or bf16 checkpoint",
            );
        }
        Ok(())
    }

    /// A count from 1; none where it isn't given.
    fn count(&self, name: &str, largest: u64) -> Result<Option<u64>, Refused> {
        let value = match self.fields.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        match value.as_u64().filter(|count| (1..=largest).contains(count)) {
            Some(count) => Ok(Some(count)),
            None => Err(self.wrong(name, &format!("a whole number from 1 to {largest}"))),
        }
    }

    fn scalar(&self, name: &str, usual: f64) -> Result<f64, Refused> {
        let Some(value) = self.fields.get(name) else { return Ok(usual) };
        let fits = |value: &f64| *value > 0.0 && *value < LARGEST_SCALAR;
        value.as_f64().filter(fits).ok_or_else(|| self.wrong(name, "a finite number above 0"))
    }

    fn flag(&self, name: &str) -> Result<bool, Refused> {
        match self.fields.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    fn wrong(&self, name: &str, wanted: &str) -> Refused {
        let value = self.fields.get(name).unwrap_or(&Value::Null);
        self.refuse(format!("`{name}` is {}, expected {wanted}", shown(value)), "fetch it again")
    }

    fn refuse(&self, what: impl AsRef<str>, hint: &str) -> Refused {
        let message = format!("{}: {}", self.path.display(), what.as_ref());
        Refused::new("checkpoint-config", message, hint)
    }

    fn unsupported(&self, what: &str) -> Refused {
        let model = self.fields.get("model_type").and_then(Value::as_str).unwrap_or("?");
        Refused::new(
            "lm-unsupported",
            format!("{}: a {model} model with {what} is not supported", self.path.display()),
            "use `exporter: optimum` for it",
        )
    }
}

/// A value in so few characters that a message stays one.
pub(super) fn shown(value: &Value) -> String {
    value.to_string().chars().filter(|c| !c.is_control()).take(40).collect()
}

fn size(count: u64) -> usize {
    usize::try_from(count).expect("at most 2^31")
}
