//! INT8: which node gets what, and how it is written.
//!
//! Large products with constant weights become integer products over activations that are quantized as
//! they come (dynamic quantization); convolutions, norms, attention and the inverse DFT stay as they are,
//! for a convolution has no fast integer form everywhere, and a spectrum's range is too wide for 8 bits.

mod activation;
mod weights;

use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;

use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{Graph, Model, NodeProto, TensorProto, initializer_f32, initializer_raw, node};
use crate::recipe::{Int8, Terms};

use activation::Activations;
use weights::Columns;

/// How a model is quantized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How activations are held.
    pub terms: Terms,
    /// Weights in 7 bits: processors without VNNI add pairs of products in 16 bits, which then can't
    /// overflow.
    pub reduce_range: bool,
    /// Nodes (by name; a `*` at the end stands for anything) that stay fp32.
    pub keep_fp32: Vec<String>,
}

impl From<&Int8> for Options {
    fn from(int8: &Int8) -> Self {
        Self {
            terms: int8.activations,
            reduce_range: int8.reduce_range,
            keep_fp32: int8.keep_fp32.clone(),
        }
    }
}

/// What goes wrong.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
pub enum Error {
    #[error("node {node:?}: the weight {weight:?} has NaN or infinite values")]
    #[diagnostic(code(quantize::values), help("the checkpoint is damaged, or its training diverged"))]
    NotFinite { node: String, weight: String },
    #[error("node {node:?} ({op}): the model is quantized already")]
    #[diagnostic(code(quantize::twice), help("quantize the fp32 model it was made from"))]
    Twice { node: String, op: String },
    #[error("no product with a constant weight is left to quantize")]
    #[diagnostic(
        code(quantize::nothing),
        help("is this the model you meant? `soprano-export inspect`")
    )]
    Nothing,
    #[error("no node is named {pattern:?}, which was to stay fp32")]
    #[diagnostic(code(quantize::keep), help("`soprano-export inspect` and `diff` show node names"))]
    Keep { pattern: String },
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Products in 8 bits, by node.
    pub products: Vec<String>,
    /// Tables in 8 bits, by node.
    pub tables: Vec<String>,
    /// Products that stay fp32, with the reason.
    pub kept: Vec<(String, &'static str)>,
    /// Bytes of initializers before and after.
    pub weight_bytes: (u64, u64),
    /// Nodes before and after.
    pub nodes: (usize, usize),
}

/// Below this many weights a product gains nothing.
const SMALLEST: usize = 4096;

enum Work {
    Product(String),
    Table(String),
    Leave,
}

/// Quantizes a model in place.
///
/// # Errors
/// [`Error`]; the model is untouched then.
pub fn quantize(model: &mut Model, options: &Options) -> Result<Report, Error> {
    let mut report = Report {
        weight_bytes: (model.weight_bytes(), 0),
        nodes: (model.graph_proto().node.len(), 0),
        ..Default::default()
    };
    let (work, held) = {
        let graph = model.graph();
        check_patterns(&graph, &options.keep_fp32)?;
        let mut work = Vec::new();
        for (_, made) in graph.nodes() {
            work.push(sort(&graph, made, options, &mut report)?);
        }
        let mut jobs: BTreeSet<(&str, bool)> = BTreeSet::new();
        for one in &work {
            match one {
                Work::Product(weight) => jobs.insert((weight, true)),
                Work::Table(weight) => jobs.insert((weight, false)),
                Work::Leave => false,
            };
        }
        if !jobs.iter().any(|(_, product)| *product) {
            return Err(Error::Nothing);
        }
        let jobs: Vec<_> = jobs.into_iter().collect();
        let held = jobs
            .par_iter()
            .map(|&(name, product)| {
                let tensor = graph.initializer(name).expect("sorted by its initializer");
                let held = if product {
                    Columns::per_column(tensor, options.reduce_range)
                } else {
                    Columns::per_row(tensor)
                };
                let refuse = || Error::NotFinite { node: user(&graph, name), weight: name.to_owned() };
                Ok(((name.to_owned(), product), held.ok_or_else(refuse)?))
            })
            .collect::<Result<HashMap<_, _>, Error>>()?;
        (work, held)
    };

    let mut activations = Activations::new(options.terms);
    let graph = model.proto_mut().graph.as_mut().expect("a checked model has a graph");
    let old = std::mem::take(&mut graph.node);
    let mut added: HashMap<(String, bool), (String, String)> = HashMap::new();
    let mut initializers: Vec<TensorProto> = activations.constants();
    for (mut made, work) in old.into_iter().zip(work) {
        let key = match &work {
            Work::Product(weight) => (weight.clone(), true),
            Work::Table(weight) => (weight.clone(), false),
            Work::Leave => {
                graph.node.push(made);
                continue;
            }
        };
        let (weight, scale) = added.entry(key.clone()).or_insert_with(|| {
            let columns = &held[&key];
            let kind = if key.1 { "columns" } else { "rows" };
            let names = (format!("{}/int8_{kind}", key.0), format!("{}/scale_{kind}", key.0));
            let bytes = bytes::Bytes::from(columns.bytes());
            initializers.push(initializer_raw(&names.0, DataType::Int8, &columns.shape, bytes));
            initializers.push(initializer_f32(&names.1, &columns.scale_shape, &columns.scales));
            names
        });
        let output = made.output.first_mut().map(std::mem::take).unwrap_or_default();
        if key.1 {
            let input = made.input.first().cloned().unwrap_or_default();
            report.products.push(made.name().to_owned());
            graph.node.extend(activations.product(&input, weight, scale, &output, made.name()));
        } else {
            let ids = made.input.get(1).cloned().unwrap_or_default();
            report.tables.push(made.name().to_owned());
            graph.node.extend(table(&ids, weight, scale, &output, made.name()));
        }
    }
    graph.initializer.extend(initializers);
    model.drop_unused_constants();
    report.weight_bytes.1 = model.weight_bytes();
    report.nodes.1 = model.graph_proto().node.len();
    Ok(report)
}

/// `y[..., :] = scale[ids] * table[ids]`: the row's own scale.
fn table(ids: &str, weight: &str, scale: &str, output: &str, name: &str) -> Vec<NodeProto> {
    let [rows, scales, floats] = ["rows", "scales", "floats"].map(|part| format!("{output}/{part}"));
    vec![
        node("Gather", [weight, ids], &rows).named(name).int("axis", 0).build(),
        node("Gather", [scale, ids], &scales).named(format!("{name}/scale")).int("axis", 0).build(),
        node("Cast", [&rows], &floats).named(format!("{name}/float")).int("to", 1).build(),
        node("Mul", [&floats, &scales], output).named(format!("{name}/scaled")).build(),
    ]
}

/// What to do with a node.
fn sort(
    graph: &Graph<'_>,
    made: &NodeProto,
    options: &Options,
    report: &mut Report,
) -> Result<Work, Error> {
    let op = made.op_type();
    if op.contains("Integer") || op.contains("QuantizeLinear") || op == "MatMulNBits" {
        return Err(Error::Twice { node: made.name().to_owned(), op: op.to_owned() });
    }
    let at = match op {
        "MatMul" => 1,
        "Gather" if made.attr_i("axis", 0) == 0 => 0,
        _ => return Ok(Work::Leave),
    };
    let Some(weight) = made.input_at(at) else { return Ok(Work::Leave) };
    let Some(tensor) = graph.initializer(weight) else { return Ok(Work::Leave) };
    if tensor.data_type() != DataType::Float as i32 || tensor.dims.len() != 2 {
        return Ok(Work::Leave);
    }
    let size: i64 = tensor.dims.iter().product();
    let from_pass = |pass: &str| {
        made.metadata_props.iter().any(|p| p.key() == "soprano_export.pass" && p.value() == pass)
    };
    let why = if from_pass("replace-istft") {
        Some("the range of a spectrum is too wide for 8 bits")
    } else if size < SMALLEST as i64 {
        Some("it is small")
    } else if options.keep_fp32.iter().any(|pattern| matches(pattern, made.name())) {
        Some("the recipe keeps it")
    } else {
        None
    };
    if let Some(why) = why {
        report.kept.push((made.name().to_owned(), why));
        return Ok(Work::Leave);
    }
    Ok(if op == "MatMul" { Work::Product(weight.to_owned()) } else { Work::Table(weight.to_owned()) })
}

fn check_patterns(graph: &Graph<'_>, patterns: &[String]) -> Result<(), Error> {
    let unused = patterns.iter().find(|p| !graph.nodes().any(|(_, made)| matches(p, made.name())));
    unused.map_or(Ok(()), |pattern| Err(Error::Keep { pattern: pattern.clone() }))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn user(graph: &Graph<'_>, weight: &str) -> String {
    let user = graph.users(weight).first().map(|&id| graph.node(id).name().to_owned());
    user.unwrap_or_default()
}

#[cfg(test)]
mod tests;
