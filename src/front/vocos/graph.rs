//! The graph of a decoder, in the layout [batch, frames, channels]: products in place of pointwise convolutions, layer
//! normalizations and layer scales inside the weights of the products next to them.
//!
//! ```text
//! u      = hidden states, linearly between two of them       f32 [B, C, 4 (T - 1) + 1]
//! x_0    = norm(conv(u))
//! x_i+1  = x_i + g (gelu(norm(dwconv(x_i)) W_1 + b_1) W_2 + b_2)   Liu et al. 2022 (ConvNeXt), fig. 4; Siuzdak 2024 (Vocos)
//! m, p   = norm(x_L) W + b
//! audio  = istft(min(exp(m), limit) (cos p, sin p))
//! ```
//!
//! Nodes are called as `torch.onnx` calls those of upstream's modules, and as the passes call what they make of them:
//! recipes know them by these names.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Vocos;
use super::dimensions::Checkpoint;
use super::weights;
use crate::front::fold::{self, BIAS, Normed};
use crate::front::inverse_stft::{Grow, InverseStft};
use crate::front::sketch::Sketch;
use crate::ir::{Attr, Draft, Make, NodeBuilder, TensorProto, node, value_f32};
use crate::names::Signal;
use crate::source::Refused;

/// Added to the variance in every normalization.
const EPSILON: f32 = 1e-6;
/// From this operator set on, a layer normalization is one node.
const LAYER_NORMALIZATION: u32 = 17;
/// From this one on, so is a GELU.
const GELU: u32 = 20;

/// Writes the graph of a checkpoint.
pub(super) fn draft(
    of: &Vocos,
    checkpoint: &Checkpoint,
    ports: &Signal,
    opset: u32,
) -> Result<Draft, Refused> {
    let dimensions = checkpoint.dimensions;
    let mut graph = Builder { sketch: Sketch::new(opset), checkpoint, twins: twins(checkpoint)? };
    let channels = dimensions.input_channels.to_string();
    graph.sketch.input(value_f32(&ports.frames, &["batch", &channels, "sequence"]));
    graph.sketch.output(value_f32(&ports.samples, &["batch", "samples"]));
    let frames = graph.interpolated(&ports.frames, of.upscale);
    let embedded = graph.embedded(&frames)?;
    let mut x = graph.norm("decoder.norm", &embedded)?;
    for layer in 0..dimensions.layers {
        x = graph.block(layer, &x)?;
    }
    let spectrum = graph.normed_linear("decoder.final_layer_norm", "head.out", &x)?;
    let parts = graph.head(&spectrum, of.magnitude_limit);
    let hop = dimensions.n_fft / of.hops;
    let transform = InverseStft::new(dimensions.n_fft, hop, &checkpoint.window, false, true)
        .map_err(|why| Refused::new("checkpoint-window", why, ""))?;
    let mut scoped = Scoped { sketch: &mut graph.sketch, counts: HashMap::new() };
    let [re, im] = parts.each_ref().map(String::as_str);
    transform.write(&mut scoped, "/head/ISTFT", [re, im], &ports.samples, "/head/ISTFT");
    Ok(graph.sketch.finish())
}

/// The first of the products' weights that is equal to a later one, by the later one's name, and by its own.
fn twins(checkpoint: &Checkpoint) -> Result<HashMap<String, String>, Refused> {
    let of_block = |layer: usize| {
        ["pwconv1", "pwconv2"].map(|part| format!("decoder.convnext.{layer}.{part}.weight"))
    };
    let names = (0..checkpoint.dimensions.layers).flat_map(of_block);
    let names: Vec<String> = names.chain(["head.out.weight".to_owned()]).collect();
    let mut twins = HashMap::new();
    for (at, name) in names.iter().enumerate() {
        let this = checkpoint.tensor(name)?;
        for earlier in &names[..at] {
            let other = checkpoint.tensor(earlier)?;
            let is_alike = this.shape() == other.shape() && this.dtype() == other.dtype();
            // Bytes that differ do so within the first few, as a rule.
            if is_alike && this.bytes().is_some_and(|bytes| other.bytes() == Some(bytes)) {
                twins.insert(earlier.clone(), earlier.clone());
                twins.insert(name.clone(), earlier.clone());
                break;
            }
        }
    }
    Ok(twins)
}

/// A graph that takes the nodes of one scope, whose values are numbered.
struct Scoped<'a> {
    sketch: &'a mut Sketch,
    counts: HashMap<String, usize>,
}

impl Grow for Scoped<'_> {
    fn fresh(&mut self, base: &str) -> String {
        let count = self.counts.entry(base.to_owned()).or_default();
        *count += 1;
        if *count == 1 { base.to_owned() } else { format!("{base}_{}", *count - 1) }
    }

    fn constant(&mut self, base: &str, tensor: TensorProto) -> String {
        let name = Some(self.fresh(base));
        self.sketch.constant(TensorProto { name, ..tensor })
    }

    fn node(&mut self, node: NodeBuilder) {
        self.sketch.push(node);
    }
}

struct Builder<'a> {
    sketch: Sketch,
    checkpoint: &'a Checkpoint,
    /// Weights that serve two products, by name, and the name of the one constant.
    twins: HashMap<String, String>,
}

/// A module's name in a node's: `/decoder/convnext.0/norm` of `decoder.convnext.0.norm`.
fn scope(module: &str) -> String {
    format!("/{}", module.replace('.', "/").replace("convnext/", "convnext."))
}

impl Builder<'_> {
    /// Adds a node whose output is called after it, as `torch.onnx` does.
    fn add<const N: usize>(&mut self, op: &str, name: &str, inputs: [&str; N]) -> String {
        self.sketch.push(node(op, inputs, format!("{name}_output_0")).named(name))
    }

    /// Adds a node whose output has a name of its own.
    fn put<const N: usize>(&mut self, op: &str, name: &str, inputs: [&str; N], output: &str) -> String {
        self.sketch.push(node(op, inputs, output).named(name))
    }

    /// A transpose, called after its output.
    fn transpose<const N: usize>(&mut self, x: &str, perm: [i64; N], output: &str) -> String {
        self.sketch.push(node("Transpose", [x], output).ints("perm", perm))
    }

    /// A small constant f32 [n] as it lies in the checkpoint.
    fn vector(&mut self, name: &str) -> Result<String, Refused> {
        let values = self.checkpoint.values(name)?;
        Ok(self.sketch.values(name, &[values.len()], &values))
    }

    /// The weights of a product: a tensor [out, in, ...], as [in, out].
    fn matrix(&mut self, name: &str, tensor: &str, make: Make) -> Result<String, Refused> {
        let shape = self.checkpoint.tensor(tensor)?.shape();
        let shape = [shape[1], shape[0]];
        Ok(self.sketch.late(name, &shape, make))
    }

    /// Weights that nothing was folded into; one constant for all products that have them.
    fn plain_matrix(&mut self, tensor: &str) -> Result<String, Refused> {
        match self.twins.get(tensor) {
            Some(first) if first != tensor => Ok(first.clone()),
            _ => self.matrix(tensor, tensor, weights::turned(self.checkpoint.tensor(tensor)?)),
        }
    }

    /// x[:, :, from..to] of a value [B, C, T].
    fn frames(&mut self, name: &str, x: &str, from: i64, to: i64) -> String {
        let [from, to, axis, step] = [from, to, 2, 1].map(|n| self.sketch.numbers(&[n]));
        self.add("Slice", name, [x, &from, &to, &axis, &step])
    }

    /// Linearly between frames, f32 [B, C, T] to [B, C, upscale (T - 1) + 1]: frame i is from i / upscale.
    fn interpolated(&mut self, x: &str, upscale: usize) -> String {
        let left = self.frames("/Slice", x, 0, -1);
        let right = self.frames("/Slice_1", x, 1, i64::MAX);
        let slope = self.add("Sub", "/Sub", [&right, &left]);
        let mut between = vec![left.clone()];
        for step in 1..upscale {
            let share = self.sketch.scalar((step as f64 / upscale as f64) as f32);
            let rise = self.add("Mul", &numbered("/Mul", step - 1), [&slope, &share]);
            between.push(self.add("Add", &numbered("/Add", step - 1), [&left, &rise]));
        }
        let last = self.sketch.numbers(&[3]);
        let columns: Vec<String> = (between.iter().enumerate())
            .map(|(at, frames)| self.add("Unsqueeze", &numbered("/Unsqueeze", at), [frames, &last]))
            .collect();
        let stacked = node("Concat", columns, "/Concat_output_0").named("/Concat");
        let stacked = self.sketch.push(stacked.int("axis", 3));
        let merged = self.sketch.numbers(&[0, 0, -1]);
        let merged = self.add("Reshape", "/Reshape", [&stacked, &merged]);
        let end = self.frames("/Slice_2", x, -1, i64::MAX);
        let all = node("Concat", [merged, end], "/Concat_1_output_0").named("/Concat_1");
        self.sketch.push(all.int("axis", 2))
    }

    /// The first convolution, f32 [B, C, N] to [B, N, D]: a product where it is one frame wide.
    fn embedded(&mut self, x: &str) -> Result<String, Refused> {
        let (name, conv) = ("decoder.embed.weight", "/decoder/embed/Conv");
        let kernel = self.checkpoint.dimensions.input_kernel;
        let value = |what: &str| format!("{conv}_output_0{what}");
        let bias = self.vector("decoder.embed.bias")?;
        let weight = self.checkpoint.tensor(name)?;
        if kernel == 1 {
            let matrix = self.matrix(name, name, weights::turned(weight))?;
            let rows = self.transpose(x, [0, 2, 1], &value("/transposed"));
            let product = format!("{conv}/MatMul");
            let product = self.put("MatMul", &product, [&rows, &matrix], &value("/MatMul"));
            return Ok(self.put("Add", &value("/Add"), [&product, &bias], &value("/Add")));
        }
        let weight = self.sketch.late(name, weight.shape(), weights::stored(weight));
        let pad = (kernel / 2) as i64;
        let convolution = node("Conv", [x, &weight, &bias], value("")).named(conv);
        let convolution = convolution
            .ints("dilations", [1])
            .int("group", 1)
            .ints("kernel_shape", [kernel as i64])
            .ints("pads", [pad, pad])
            .ints("strides", [1]);
        let embedded = self.sketch.push(convolution);
        let turned = node("Transpose", [embedded], "/decoder/Transpose_output_0");
        Ok(self.sketch.push(turned.ints("perm", [0, 2, 1]).named("/decoder/Transpose")))
    }

    /// A layer normalization over channels.
    fn norm(&mut self, module: &str, x: &str) -> Result<String, Refused> {
        let scale = self.vector(&format!("{module}.weight"))?;
        let bias = self.vector(&format!("{module}.bias"))?;
        let scope = scope(module);
        if self.sketch.opset() >= LAYER_NORMALIZATION {
            let output = format!("{scope}/LayerNormalization_output_0");
            return Ok(self.normalization(&scope, [x, &scale, &bias], &output));
        }
        let mean = |what: &str, x: &str| {
            let output = format!("{scope}/{what}_output_0");
            node("ReduceMean", [x], output).named(format!("{scope}/{what}")).ints("axes", [-1])
        };
        let (two, epsilon) = (self.sketch.scalar(2.0), self.sketch.scalar(EPSILON));
        let part = |what: &str| format!("{scope}/{what}");
        let average = self.sketch.push(mean("ReduceMean", x));
        let centred = self.add("Sub", &part("Sub"), [x, &average]);
        let squares = self.add("Pow", &part("Pow"), [&centred, &two]);
        let variance = self.sketch.push(mean("ReduceMean_1", &squares));
        let variance = self.add("Add", &part("Add"), [&variance, &epsilon]);
        let deviation = self.add("Sqrt", &part("Sqrt"), [&variance]);
        let normal = self.add("Div", &part("Div"), [&centred, &deviation]);
        let product = self.add("Mul", &part("Mul"), [&normal, &scale]);
        Ok(self.add("Add", &part("Add_1"), [&product, &bias]))
    }

    fn normalization(&mut self, scope: &str, inputs: [&str; 3], output: &str) -> String {
        let norm = node("LayerNormalization", inputs, output)
            .named(format!("{scope}/LayerNormalization"))
            .int("axis", -1);
        self.sketch.push(norm.attr("epsilon", Attr::Float(EPSILON)))
    }

    /// A layer normalization and the linear layer after it: one product, where its weights take up the rest.
    fn normed_linear(&mut self, norm: &str, linear: &str, x: &str) -> Result<String, Refused> {
        let (of_norm, of_linear) = (scope(norm), scope(linear));
        let (product, sum) = (format!("{of_linear}/MatMul"), format!("{of_linear}/Add"));
        let tensor = format!("{linear}.weight");
        if let Some(fold) = self.fold(norm, linear)? {
            let dim = self.checkpoint.dimensions.dim;
            let ones = self.sketch.values("norm.ones", &[dim], &vec![1.0; dim]);
            let bias = self.sketch.values("norm.bias", &[dim], &vec![BIAS; dim]);
            let output = format!("{of_norm}/LayerNormalization_output_0/normalized");
            let normal = self.normalization(&of_norm, [x, &ones, &bias], &output);
            let make = weights::normed(self.checkpoint.tensor(&tensor)?, fold);
            let matrix = self.matrix(&format!("{tensor}/folded"), &tensor, make)?;
            return Ok(self.put("MatMul", &product, [&normal, &matrix], &format!("{sum}_output_0")));
        }
        let normal = self.norm(norm, x)?;
        let bias = self.vector(&format!("{linear}.bias"))?;
        let matrix = self.plain_matrix(&tensor)?;
        let product = self.add("MatMul", &product, [&normal, &matrix]);
        Ok(self.add("Add", &sum, [&bias, &product]))
    }

    /// What moves from a layer normalization into the linear layer after it.
    fn fold(&self, norm: &str, linear: &str) -> Result<Option<Normed>, Refused> {
        let tensor = format!("{linear}.weight");
        if self.sketch.opset() < LAYER_NORMALIZATION || self.twins.contains_key(&tensor) {
            return Ok(None);
        }
        let of = |name: String| self.checkpoint.values(&name);
        let weight = weights::turn(self.checkpoint.tensor(&tensor)?);
        let weight = weight
            .to_f32()
            .map_err(|why| Refused::new("checkpoint-dtype", format!("tensor `{tensor}`: {why}"), ""))?;
        let (scale, beta) = (of(format!("{norm}.weight"))?, of(format!("{norm}.bias"))?);
        Ok(Normed::of(&weight, scale, &beta, &of(format!("{linear}.bias"))?).ok())
    }

    /// A block: f32 [B, N, D] to the same.
    fn block(&mut self, layer: usize, x: &str) -> Result<String, Refused> {
        let module = format!("decoder.convnext.{layer}");
        let mixed = self.depthwise(&module, x)?;
        let wide =
            self.normed_linear(&format!("{module}.norm"), &format!("{module}.pwconv1"), &mixed)?;
        let wide = self.gelu(&scope(&module), &wide);
        let change = self.scaled_linear(&module, &wide)?;
        let sum = format!("{}/Add", scope(&module));
        Ok(self.put("Add", &sum, [x, &change], &format!("{sum}_output_0/untransposed")))
    }

    /// A depthwise convolution along frames, as one of height 1.
    fn depthwise(&mut self, module: &str, x: &str) -> Result<String, Refused> {
        let (dim, kernel) = (self.checkpoint.dimensions.dim, self.checkpoint.dimensions.dw_kernel);
        let scope = scope(module);
        let value = |what: &str| format!("{scope}/dwconv/Conv_output_0/{what}");
        let weight = format!("{module}.dwconv.weight");
        let values = self.checkpoint.values(&weight)?;
        let weight = self.sketch.values(&weight, &[dim, 1, 1, kernel], &values);
        let bias = self.vector(&format!("{module}.dwconv.bias"))?;
        let height = self.sketch.numbers(&[1]);
        let (tall, pad) = (value("unsqueezed"), (kernel / 2) as i64);
        let tall = self.put("Unsqueeze", &tall, [x, &height], &tall);
        let first = self.transpose(&tall, [0, 3, 1, 2], &value("channels_first"));
        let convolution = node("Conv", [&first, &weight, &bias], value("Conv"))
            .named(format!("{scope}/dwconv/Conv"))
            .int("group", dim as i64)
            .ints("kernel_shape", [1, kernel as i64])
            .ints("pads", [0, pad, 0, pad])
            .ints("strides", [1, 1])
            .ints("dilations", [1, 1]);
        let convolved = self.sketch.push(convolution);
        let last = self.transpose(&convolved, [0, 2, 3, 1], &value("channels_last"));
        let output = format!("{scope}/Transpose_output_0");
        Ok(self.put("Squeeze", &output, [&last, &height], &output))
    }

    /// gelu(x) = x/2 (1 + erf(x / sqrt 2)).
    fn gelu(&mut self, scope: &str, x: &str) -> String {
        let part = |what: &str| format!("{scope}/act/{what}");
        if self.sketch.opset() >= GELU {
            let name = part("Gelu");
            let gelu = node("Gelu", [x], format!("{name}_output_0")).named(name);
            let exact = Attr::String("none".to_owned());
            return self.sketch.push(gelu.attr("approximate", exact));
        }
        let [root, one, half] =
            [std::f32::consts::SQRT_2, 1.0, 0.5].map(|value| self.sketch.scalar(value));
        let quotient = self.add("Div", &part("Div"), [x, &root]);
        let erf = self.add("Erf", &part("Erf"), [&quotient]);
        let sum = self.add("Add", &part("Add"), [&erf, &one]);
        let product = self.add("Mul", &part("Mul"), [x, &sum]);
        self.add("Mul", &part("Mul_1"), [&product, &half])
    }

    /// A block's second product, its bias, and its scale: inside the other two, where that is exact to the last bit.
    fn scaled_linear(&mut self, module: &str, x: &str) -> Result<String, Refused> {
        let scope = scope(module);
        let (matmul, add) = (format!("{scope}/pwconv2/MatMul"), format!("{scope}/pwconv2/Add"));
        let [tensor, of_bias] = ["weight", "bias"].map(|part| format!("{module}.pwconv2.{part}"));
        let output = format!("{scope}/Mul_output_0");
        let gamma = self.checkpoint.values(&format!("{module}.gamma"))?;
        if self.takes_scale(&tensor, &of_bias, &gamma)? {
            let bias = self.checkpoint.values(&of_bias)?;
            let bias: Vec<f32> = bias.iter().zip(&gamma).map(|(b, g)| b * g).collect();
            let bias = self.sketch.values(&format!("{of_bias}/scaled"), &[bias.len()], &bias);
            let make = weights::scaled(self.checkpoint.tensor(&tensor)?, gamma);
            let matrix = self.matrix(&format!("{tensor}/scaled"), &tensor, make)?;
            let product = format!("{matmul}_output_0/scaled");
            let product = self.put("MatMul", &matmul, [x, &matrix], &product);
            return Ok(self.put("Add", &add, [&product, &bias], &output));
        }
        let (matrix, bias) = (self.plain_matrix(&tensor)?, self.vector(&of_bias)?);
        let gamma = self.vector(&format!("{module}.gamma"))?;
        let product = self.add("MatMul", &matmul, [x, &matrix]);
        let sum = self.add("Add", &add, [&bias, &product]);
        Ok(self.add("Mul", &format!("{scope}/Mul"), [&gamma, &sum]))
    }

    /// Whether weights and bias can be scaled without leaving the normal numbers.
    fn takes_scale(&self, tensor: &str, bias: &str, gamma: &[f32]) -> Result<bool, Refused> {
        if self.twins.contains_key(tensor) {
            return Ok(false);
        }
        let (weight, bias) = (self.checkpoint.values(tensor)?, self.checkpoint.values(bias)?);
        let rows = weight.par_chunks_exact((weight.len() / gamma.len().max(1)).max(1));
        let fits = |row: &[f32], scale: f32| {
            row.iter().fold(true, |fits, &w| fits & fold::scaled(w, scale).is_ok())
        };
        let of_weight = rows.zip(gamma).all(|(row, &scale)| fits(row, scale));
        Ok(of_weight && bias.iter().zip(gamma).all(|(&b, &scale)| fits(&[b], scale)))
    }

    /// Real and imaginary parts of the spectrum, f32 [B, N, F] each, of magnitudes' logarithms and phases, [B, N, 2 F].
    fn head(&mut self, x: &str, limit: f32) -> [String; 2] {
        let bins = (self.checkpoint.dimensions.n_fft / 2 + 1) as i64;
        let value = |what: &str| format!("/head/{what}/untransposed");
        let sizes = self.sketch.numbers(&[bins, bins]);
        let [log, phase] = [value("Split_output_0"), value("Split_output_1")];
        let split = node("Split", [x, &sizes], &log).output(&phase).named("/head/Split");
        self.sketch.push(split.int("axis", 2));
        let limit = self.sketch.scalar(limit);
        let mut one = |op: &str, name: &str, inputs: &[&str]| {
            let output = value(&format!("{name}_output_0"));
            let inputs = inputs.iter().copied();
            self.sketch.push(node(op, inputs, output).named(format!("/head/{name}")))
        };
        let magnitude = one("Exp", "Exp", &[&log]);
        let magnitude = one("Clip", "Clip", &[&magnitude, "", &limit]);
        let cosine = one("Cos", "Cos", &[&phase]);
        let re = one("Mul", "Mul", &[&magnitude, &cosine]);
        let sine = one("Sin", "Sin", &[&phase]);
        let im = one("Mul", "Mul_1", &[&magnitude, &sine]);
        [re, im]
    }
}

/// `/Mul`, `/Mul_1`, `/Mul_2`.
fn numbered(name: &str, at: usize) -> String {
    if at == 0 { name.to_owned() } else { format!("{name}_{at}") }
}
