//! The graph of a causal language model: its cache an input and an output, the queries of a group below each other over
//! one key-value head, products that read the same value as one.
//!
//! ```text
//! rms(x, w) = x / sqrt(mean(x^2) + e) * w                        Zhang and Sennrich 2019, eq. 4
//! rope(l, r) = (l cos - r sin, r cos + l sin)                    Su et al. 2021, eq. 34, in halves
//! attention(x) = softmax(q k^T / sqrt(d) + mask) v W_o           Vaswani et al. 2017; groups: Ainslie et al. 2023
//! mlp(x) = (silu(x G) * (x U)) D                                 Shazeer 2020, eq. 6
//! layer(x) = y + mlp(rms(y)), y = x + attention(rms(x))
//! ```

use super::Config;
use super::rotary::Rotary;
use super::weights::{columns, rows};
use crate::front::Asked;
use crate::front::sketch::Sketch;
use crate::ir::{Draft, node, value_f32, value_i64};
use crate::names::Causal;
use crate::source::Weights;

/// Added to the score of a position that may not be seen: finite, so that a row of padding stays a number.
const MASKED: f32 = -1e9;
const LENGTH: &str = "sequence_length";
const PAST: &str = "past_sequence_length";
const TOTAL: &str = "past_sequence_length + sequence_length";

/// The values that every layer reads.
struct Shared {
    /// f32 [batch, 1, group * sequence, total].
    mask: String,
    /// f32 [batch, sequence, 1, head / 2].
    cos: String,
    sin: String,
    /// The batch size, i64 [1].
    batch: String,
    /// Shapes that heads are told apart by.
    shapes: Shapes,
}

/// Shapes i64 [n], made of the batch size; one of each.
#[derive(Default)]
struct Shapes(Vec<(Vec<i64>, String)>);

impl Shapes {
    fn of(&mut self, sketch: &mut Sketch, batch: &str, rest: &[i64]) -> String {
        if let Some((_, name)) = self.0.iter().find(|(known, _)| known == rest) {
            return name.clone();
        }
        let parts: Vec<String> = rest.iter().map(|&size| sketch.numbers(&[size])).collect();
        let parts: Vec<&str> = [batch].into_iter().chain(parts.iter().map(String::as_str)).collect();
        let name = format!("/shape.{}", self.0.len());
        let shape = sketch.push(node("Concat", parts, &name).int("axis", 0));
        self.0.push((rest.to_vec(), shape.clone()));
        shape
    }
}

/// Writes the graph of a model; config and weights were held against each other.
pub(super) fn draft(config: &Config, weights: &Weights, names: &Causal, asked: &Asked<'_>) -> Draft {
    let mut graph = Builder { sketch: Sketch::new(asked.opset), config, weights, names };
    graph.ports(asked);
    let mut shared = graph.shared();
    let embedding = graph.stored("embedding", "model.embed_tokens.weight");
    let entry = |layer: usize, else_: String| match asked.hidden_states.contains(&(layer as u32)) {
        true => format!("{}.{layer}", names.layers),
        false => else_,
    };
    let first = entry(0, "/Gather_3".to_owned());
    let gather = node("Gather", [embedding.as_str(), &names.ids], &first).named("/Gather_3");
    let mut x = graph.sketch.push(gather);
    for layer in 0..config.layers {
        let last = layer + 1 == config.layers;
        let out = format!("/layers.{layer}/Add_3");
        let out = if last { out } else { entry(layer + 1, out) };
        x = graph.layer(layer, &x, &out, &mut shared);
    }
    graph.head(&x, asked.last_logits);
    graph.sketch.finish()
}

struct Builder<'a> {
    sketch: Sketch,
    config: &'a Config,
    weights: &'a Weights,
    names: &'a Causal,
}

impl Builder<'_> {
    /// Inputs and outputs, in the bundle's order.
    fn ports(&mut self, asked: &Asked<'_>) {
        let (config, names, sketch) = (self.config, self.names, &mut self.sketch);
        sketch.input(value_i64(&names.ids, &["batch", LENGTH]));
        sketch.input(value_i64(&names.mask, &["batch", TOTAL]));
        sketch.input(value_i64(&names.positions, &["batch", LENGTH]));
        let [heads, size, width, tokens] =
            [config.kv_heads, config.head_dim, config.hidden_size, config.vocab_size]
                .map(|n| n.to_string());
        let of_logits = if asked.last_logits { "1" } else { LENGTH };
        sketch.output(value_f32(&names.logits, &["batch", of_logits, &tokens]));
        for layer in 0..config.layers {
            for part in ["key", "value"] {
                let (past, present) = (
                    format!("{}.{layer}.{part}", names.past),
                    format!("{}.{layer}.{part}", names.present),
                );
                sketch.input(value_f32(&past, &["batch", &heads, PAST, &size]));
                sketch.output(value_f32(&present, &["batch", &heads, TOTAL, &size]));
            }
        }
        let hidden = ["batch", LENGTH, &width];
        for layer in asked.hidden_states {
            sketch.output(value_f32(&format!("{}.{layer}", names.layers), &hidden));
        }
        sketch.output(value_f32(&names.hidden, &hidden));
    }

    /// A weight as it lies in the checkpoint.
    fn stored(&mut self, name: &str, of: &str) -> String {
        let stored = self.weight(of);
        let shape = stored.shape().to_vec();
        self.sketch.late(name, &shape, rows(&[stored]))
    }

    fn weight(&self, name: &str) -> crate::tensor::Stored {
        self.weights.get(name).expect("every weight was found").clone()
    }

    /// The weights of products that read the same value as one: each [out, in], together [in, all out].
    fn product(&mut self, name: &str, of: &[String]) -> String {
        let parts: Vec<_> = of.iter().map(|name| self.weight(name)).collect();
        let inputs = parts[0].shape()[1];
        let outputs = parts.iter().map(|part| part.shape()[0]).sum();
        self.sketch.late(name, &[inputs, outputs], columns(&parts))
    }

    /// `x W`, and `+ b` where the model has biases there.
    fn linear(&mut self, node: &str, x: &str, name: &str, of: &[String], biased: bool) -> String {
        let weight = self.product(name, of);
        let product = self.sketch.add("MatMul", node, [x, &weight]);
        if !biased {
            return product;
        }
        let parts: Vec<_> =
            of.iter().map(|name| self.weight(&name.replace(".weight", ".bias"))).collect();
        let size = parts.iter().map(crate::tensor::Stored::len).sum();
        let bias = self.sketch.late(&format!("{name}.bias"), &[size], rows(&parts));
        self.sketch.add("Add", &format!("{node}/bias"), [&product, &bias])
    }

    /// Mask, rotations and the batch size.
    fn shared(&mut self) -> Shared {
        let names = self.names;
        let s = &mut self.sketch;
        let (zero, one, first) = (s.number(0), s.number(1), s.numbers(&[1]));
        let shape = s.add("Shape", "/Shape", [&names.ids]);
        let batch = s.add("Gather", "/batch", [&shape, &zero]);
        let length = s.add("Gather", "/length", [&shape, &one]);
        let of_mask = s.add("Shape", "/Shape_1", [&names.mask]);
        let total = s.add("Gather", "/total", [&of_mask, &one]);
        // Query s stands at place total - length + s.
        let keys = s.add("Range", "/keys", [&zero, &total, &one]);
        let queries = s.add("Range", "/queries", [&zero, &length, &one]);
        let queries = s.add("Unsqueeze", "/queries/column", [&queries, &first]);
        let past = s.add("Sub", "/past", [&total, &length]);
        let places = s.add("Add", "/places", [&queries, &past]);
        let before = s.add("LessOrEqual", "/before", [&keys, &places]);
        let before = s.push(node("Cast", [&before], "/before/f32").int("to", 1));
        let counts = s.push(node("Cast", [&names.mask], "/counts").int("to", 1));
        let counts = s.add("Unsqueeze", "/counts/row", [&counts, &first]);
        let seen = s.add("Mul", "/seen", [&before, &counts]);
        let (unit, masked) = (s.scalar(1.0), s.scalar(MASKED));
        let hidden = s.add("Sub", "/hidden", [&unit, &seen]);
        let mask = s.add("Mul", "/mask", [&hidden, &masked]);
        let mut mask = s.add("Unsqueeze", "/mask/heads", [&mask, &first]);
        let group = self.config.heads / self.config.kv_heads;
        if group > 1 {
            let copies = vec![mask.as_str(); group];
            mask = s.push(node("Concat", copies, "/mask/group").int("axis", 2));
        }
        let [cos, sin] = self.rotations();
        let outer = self.sketch.numbers(&[0]);
        let batch = self.sketch.add("Unsqueeze", "/batch/size", [&batch, &outer]);
        Shared { mask, cos, sin, batch, shapes: Shapes::default() }
    }

    /// Cosines and sines of each position's angles.
    fn rotations(&mut self) -> [String; 2] {
        let rotary = Rotary::of(self.config);
        let s = &mut self.sketch;
        let (second, third) = (s.numbers(&[2]), s.numbers(&[3]));
        let places = s.push(node("Cast", [&self.names.positions], "/positions").int("to", 1));
        let places = s.add("Unsqueeze", "/positions/heads", [&places, &second]);
        let places = s.add("Unsqueeze", "/positions/angles", [&places, &third]);
        let count = rotary.frequencies.len();
        let frequencies = s.values("frequencies", &[count], &rotary.frequencies);
        let angles = s.add("Mul", "/angles", [&places, &frequencies]);
        ["Cos", "Sin"].map(|op| {
            let turned = s.add(op, &format!("/{op}"), [&angles]);
            if rotary.amplitude == 1.0 {
                return turned;
            }
            let amplitude = s.scalar(rotary.amplitude);
            s.add("Mul", &format!("/{op}/amplitude"), [&turned, &amplitude])
        })
    }

    /// x / sqrt(mean(x^2) + e) * w.
    fn rms_norm(&mut self, at: &str, x: &str, weight: &str, out: &str) -> String {
        let epsilon = self.config.rms_norm_eps as f32;
        let s = &mut self.sketch;
        let (two, epsilon) = (s.scalar(2.0), s.scalar(epsilon));
        let square = s.add("Pow", &format!("{at}/square"), [x, &two]);
        let mean = s.reduce_mean(&format!("{at}/mean"), &square);
        let mean = s.add("Add", &format!("{at}/epsilon"), [&mean, &epsilon]);
        let root = s.add("Sqrt", &format!("{at}/root"), [&mean]);
        let normed = s.add("Div", &format!("{at}/normed"), [x, &root]);
        s.push(node("Mul", [&normed, weight], out).named(format!("{at}/scaled")))
    }

    fn layer(&mut self, layer: usize, x: &str, out: &str, shared: &mut Shared) -> String {
        let (of, at) = (format!("model.layers.{layer}"), format!("/layers.{layer}"));
        let before =
            self.stored(&format!("layers.{layer}.before"), &format!("{of}.input_layernorm.weight"));
        let normed = self.rms_norm(&format!("{at}/norm"), x, &before, &format!("{at}/norm/scaled"));
        let seen = self.attention(layer, &normed, shared);
        let y = self.sketch.add("Add", &format!("{at}/Add_1"), [x, &seen]);
        let of_norm = format!("{of}.post_attention_layernorm.weight");
        let between = self.stored(&format!("layers.{layer}.between"), &of_norm);
        let at_norm = format!("{at}/norm_1");
        let normed = self.rms_norm(&at_norm, &y, &between, &format!("{at_norm}/scaled"));
        let rise = self.mlp(layer, &normed);
        self.sketch.push(node("Add", [&y, &rise], out).named(format!("{at}/Add_3")))
    }

    fn attention(&mut self, layer: usize, x: &str, shared: &mut Shared) -> String {
        let config = self.config;
        let (heads, kv_heads, size) =
            (config.heads as i64, config.kv_heads as i64, config.head_dim as i64);
        let (of, at) =
            (format!("model.layers.{layer}.self_attn"), format!("/layers.{layer}/attention"));
        let parts = ["q", "k", "v"].map(|part| format!("{of}.{part}_proj.weight"));
        let name = format!("layers.{layer}.attention");
        let qkv =
            self.linear(&format!("{at}/MatMul"), x, &format!("{name}.qkv"), &parts, config.qkv_bias);
        let by_head =
            shared.shapes.of(&mut self.sketch, &shared.batch, &[-1, heads + 2 * kv_heads, size]);
        let qkv = self.sketch.add("Reshape", &format!("{at}/heads"), [&qkv, &by_head]);
        let parts = self.sketch.split(&format!("{at}/qk_v"), &qkv, 2, &[heads + kv_heads, kv_heads]);
        let [mut qk, v]: [String; 2] = parts.try_into().expect("two parts");
        if config.qk_norm {
            let rows: Vec<_> = ["q", "k"]
                .iter()
                .zip([config.heads, config.kv_heads])
                .flat_map(|(part, count)| vec![self.weight(&format!("{of}.{part}_norm.weight")); count])
                .collect();
            let shape = [config.heads + config.kv_heads, config.head_dim];
            let weight = self.sketch.late(&format!("{name}.norm"), &shape, self::rows(&rows));
            qk = self.rms_norm(&format!("{at}/norm"), &qk, &weight, &format!("{at}/norm/scaled"));
        }
        let qk = self.rotate(&at, &qk, shared);
        let parts = self.sketch.split(&format!("{at}/q_k"), &qk, 2, &[heads, kv_heads]);
        let [q, k]: [String; 2] = parts.try_into().expect("two parts");
        let s = &mut self.sketch;
        let heads_first = |s: &mut Sketch, name: &str, x: &str| {
            s.push(node("Transpose", [x], format!("{at}/{name}")).ints("perm", [0, 2, 1, 3]))
        };
        let q = heads_first(s, "queries", &q);
        let grouped = shared.shapes.of(s, &shared.batch, &[kv_heads, -1, size]);
        let q = s.add("Reshape", &format!("{at}/groups"), [&q, &grouped]);
        let [k, v] = [("key", k), ("value", v)].map(|(part, x)| {
            let x = heads_first(s, &format!("{part}s"), &x);
            let past = format!("{}.{layer}.{part}", self.names.past);
            let present = format!("{}.{layer}.{part}", self.names.present);
            let joined = node("Concat", [&past, &x], present).named(format!("{at}/{part}"));
            s.push(joined.int("axis", 2))
        });
        let k = s.push(node("Transpose", [&k], format!("{at}/turned")).ints("perm", [0, 1, 3, 2]));
        let scores = s.add("MatMul", &format!("{at}/MatMul_1"), [&q, &k]);
        let scale = s.scalar(1.0 / (size as f64).sqrt() as f32);
        let scores = s.add("Mul", &format!("{at}/scores"), [&scores, &scale]);
        let scores = s.add("Add", &format!("{at}/masked"), [&scores, &shared.mask]);
        let shares = s.push(node("Softmax", [&scores], format!("{at}/Softmax")).int("axis", -1));
        let seen = s.add("MatMul", &format!("{at}/MatMul_2"), [&shares, &v]);
        let by_head = shared.shapes.of(s, &shared.batch, &[heads, -1, size]);
        let seen = s.add("Reshape", &format!("{at}/ungrouped"), [&seen, &by_head]);
        let seen = heads_first(s, "seen", &seen);
        let whole = shared.shapes.of(s, &shared.batch, &[-1, heads * size]);
        let seen = s.add("Reshape", &format!("{at}/joined"), [&seen, &whole]);
        let out = [format!("{of}.o_proj.weight")];
        let name = format!("{name}.out");
        self.linear(&format!("{at}/MatMul_3"), &seen, &name, &out, config.out_bias)
    }

    /// Turns queries and keys by their positions.
    fn rotate(&mut self, at: &str, qk: &str, shared: &Shared) -> String {
        let half = self.config.head_dim as i64 / 2;
        let s = &mut self.sketch;
        let parts = s.split(&format!("{at}/halves"), qk, 3, &[half, half]);
        let [left, right]: [String; 2] = parts.try_into().expect("two halves");
        let mut times = |name: &str, x: &str, by: &str| s.add("Mul", &format!("{at}/{name}"), [x, by]);
        let left_cos = times("left_cos", &left, &shared.cos);
        let right_sin = times("right_sin", &right, &shared.sin);
        let right_cos = times("right_cos", &right, &shared.cos);
        let left_sin = times("left_sin", &left, &shared.sin);
        let turned_left = s.add("Sub", &format!("{at}/turned_left"), [&left_cos, &right_sin]);
        let turned_right = s.add("Add", &format!("{at}/turned_right"), [&right_cos, &left_sin]);
        let joined = node("Concat", [&turned_left, &turned_right], format!("{at}/rotated"));
        s.push(joined.int("axis", 3))
    }

    fn mlp(&mut self, layer: usize, x: &str) -> String {
        let config = self.config;
        let (of, at) = (format!("model.layers.{layer}.mlp"), format!("/layers.{layer}/mlp"));
        let parts = ["gate", "up"].map(|part| format!("{of}.{part}_proj.weight"));
        let name = format!("layers.{layer}.mlp");
        let both = format!("{name}.gate_up");
        let both = self.linear(&format!("{at}/MatMul"), x, &both, &parts, config.mlp_bias);
        let size = config.intermediate_size as i64;
        let parts = self.sketch.split(&format!("{at}/gate_up"), &both, 2, &[size, size]);
        let [gate, up]: [String; 2] = parts.try_into().expect("two parts");
        let s = &mut self.sketch;
        let open = s.add("Sigmoid", &format!("{at}/Sigmoid"), [&gate]);
        let gate = s.add("Mul", &format!("{at}/silu"), [&gate, &open]);
        let x = s.add("Mul", &format!("{at}/gated"), [&gate, &up]);
        let down = [format!("{of}.down_proj.weight")];
        self.linear(&format!("{at}/MatMul_1"), &x, &format!("{name}.down"), &down, config.mlp_bias)
    }

    /// The final norm, and the logits.
    fn head(&mut self, x: &str, last_logits: bool) {
        let norm = self.stored("norm", "model.norm.weight");
        let mut hidden = self.rms_norm("/norm", x, &norm, &self.names.hidden.clone());
        if last_logits {
            let s = &mut self.sketch;
            let (starts, ends, axes) = (s.numbers(&[-1]), s.numbers(&[i64::MAX]), s.numbers(&[1]));
            hidden = s.add("Slice", "/last", [&hidden, &starts, &ends, &axes]);
        }
        let of = if self.config.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let head = self.product("head", &[of.to_owned()]);
        let logits = node("MatMul", [&hidden, &head], &self.names.logits).named("/MatMul");
        self.sketch.push(logits);
    }
}
