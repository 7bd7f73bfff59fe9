//! INT8: which node gets what, and how it is written.
//!
//! Large products with constant weights become integer products over activations that are quantized as
//! they come (dynamic quantization); convolutions, norms, attention and the inverse DFT stay as they are,
//! for a convolution has no fast integer form everywhere, and a spectrum's range is too wide for 8 bits.

mod activation;
mod blocks;
mod calibration;
mod qdq;
mod smooth;
mod weights;

use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;

use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{
    Graph, Model, NodeProto, OperatorSetIdProto, TensorProto, initializer_f32, initializer_i64,
    initializer_raw, node,
};
use crate::recipe::{Form, Int8, Terms};

pub use calibration::{Calibration, Observed};
pub use smooth::smooth;

use activation::Activations;
use blocks::Blocks;
use weights::Columns;

/// How a model is quantized.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// How products are written.
    pub form: Form,
    /// How activations are held.
    pub terms: Terms,
    /// Nodes (by name; `*` stands for anything) that hold theirs in two terms all the same.
    pub two_terms: Vec<String>,
    /// Weights in 7 bits where activations are in one term of 8: processors without VNNI add pairs of
    /// products in 16 bits, which then can't overflow. Of two terms of 7 bits they can't anyway.
    pub reduce_range: bool,
    /// Activations have many rows, as a decoder's: two terms are two products then.
    pub many_rows: bool,
    /// What activations were seen to be, for [`Form::Static`].
    pub seen: Calibration,
    /// Nodes (likewise) that stay fp32.
    pub keep_fp32: Vec<String>,
}

impl From<&Int8> for Options {
    fn from(int8: &Int8) -> Self {
        Self {
            form: int8.form,
            terms: int8.activations,
            seen: Calibration::new(),
            two_terms: int8.two_terms.clone(),
            reduce_range: int8.reduce_range,
            many_rows: false,
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
    #[error("node {node:?}: the range of its activation {value:?} was not seen")]
    #[diagnostic(
        code(quantize::calibration),
        help("a static form needs references that reach every product: add lengths to the recipe")
    )]
    NotSeen { node: String, value: String },
    #[error("no node is named {pattern:?}")]
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

/// The shape [batch, sequence, channels] of a table's rows, channels as they come.
const ROW: &str = "quantize/row_shape";
/// Below this many weights a product gains nothing.
const SMALLEST: usize = 4096;

/// A weight in 8 bits or fewer.
enum Weight {
    Columns(Columns),
    Blocks(Blocks),
}

enum Work {
    Product(String, Held, Terms),
    Table(String, Held),
    Leave,
}

/// How a weight is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Held {
    Columns,
    /// In 7 bits.
    Narrow,
    Rows,
    Groups,
    Blocks8,
    Blocks4,
}

impl Held {
    /// How a product's weight is held.
    fn of(form: Form, terms: Terms, reduce_range: bool) -> Self {
        match form {
            Form::Dynamic if reduce_range && terms == Terms::One => Held::Narrow,
            Form::Static if reduce_range => Held::Narrow,
            Form::Dynamic | Form::Static => Held::Columns,
            Form::Blocks8 => Held::Blocks8,
            Form::Blocks4 => Held::Blocks4,
        }
    }

    fn is_product(self) -> bool {
        matches!(self, Held::Columns | Held::Narrow | Held::Blocks8 | Held::Blocks4)
    }

    fn name(self) -> &'static str {
        match self {
            Held::Columns => "columns",
            Held::Narrow => "narrow",
            Held::Rows => "rows",
            Held::Groups => "groups",
            Held::Blocks8 => "blocks_8",
            Held::Blocks4 => "blocks_4",
        }
    }
}

impl Work {
    /// The weight that is to be held in 8 bits, and how.
    fn weight(&self) -> Option<(&str, Held)> {
        match self {
            Work::Product(weight, held, _) => Some((weight, *held)),
            Work::Table(weight, held) => Some((weight, *held)),
            Work::Leave => None,
        }
    }
}

/// Quantizes a model in place.
///
/// # Errors
/// [`Error`]; the model is untouched then.
pub fn quantize(model: &mut Model, options: &Options) -> Result<Report, Error> {
    apply(model, options, true)
}

/// As [`quantize`], of a model of which perhaps nothing, or a table alone, is left to hold in 8 bits.
///
/// # Errors
/// [`Error`]; the model is untouched then.
pub fn quantize_any(model: &mut Model, options: &Options) -> Result<Report, Error> {
    apply(model, options, false)
}

fn apply(model: &mut Model, options: &Options, needs_product: bool) -> Result<Report, Error> {
    let mut report = Report {
        weight_bytes: (model.weight_bytes(), 0),
        nodes: (model.graph_proto().node.len(), 0),
        ..Default::default()
    };
    let (work, held) = {
        let graph = model.graph();
        check_patterns(&graph, &options.keep_fp32)?;
        check_patterns(&graph, &options.two_terms)?;
        let mut work = Vec::new();
        for (_, made) in graph.nodes() {
            work.push(sort(&graph, made, options, &mut report)?);
        }
        let jobs: BTreeSet<(&str, Held)> = work.iter().filter_map(Work::weight).collect();
        if needs_product && !jobs.iter().any(|(_, held)| held.is_product()) {
            return Err(Error::Nothing);
        }
        let jobs: Vec<_> = jobs.into_iter().collect();
        let held = jobs
            .par_iter()
            .map(|&(name, held)| {
                let tensor = graph.initializer(name).expect("sorted by its initializer");
                let made = match held {
                    Held::Columns => Columns::per_column(tensor, false).map(Weight::Columns),
                    Held::Narrow => Columns::per_column(tensor, true).map(Weight::Columns),
                    Held::Rows => Columns::per_row(tensor, false).map(Weight::Columns),
                    Held::Groups => Columns::per_row(tensor, true).map(Weight::Columns),
                    Held::Blocks8 => Blocks::of(tensor, 8).map(Weight::Blocks),
                    Held::Blocks4 => Blocks::of(tensor, 4).map(Weight::Blocks),
                };
                let refuse = || Error::NotFinite { node: user(&graph, name), weight: name.to_owned() };
                Ok(((name.to_owned(), held), made.ok_or_else(refuse)?))
            })
            .collect::<Result<HashMap<_, _>, Error>>()?;
        (work, held)
    };

    let mut activations = Activations::new(options.many_rows);
    let graph = model.proto_mut().graph.as_mut().expect("a checked model has a graph");
    let old = std::mem::take(&mut graph.node);
    let mut added: HashMap<(String, Held), (String, String)> = HashMap::new();
    let mut initializers: Vec<TensorProto> = Vec::new();
    let mut ranged: HashMap<String, String> = HashMap::new();
    if work.iter().any(|work| matches!(work, Work::Product(_, Held::Columns, Terms::Two))) {
        initializers.extend(Activations::constants());
    }
    for (mut made, work) in old.into_iter().zip(work) {
        let Some((weight, held_as)) = work.weight() else {
            graph.node.push(made);
            continue;
        };
        let key = (weight.to_owned(), held_as);
        let names = added.entry(key.clone()).or_insert_with(|| {
            let kind = held_as.name();
            let names = (format!("{weight}/int8_{kind}"), format!("{weight}/scale_{kind}"));
            match &held[&key] {
                Weight::Columns(columns) => {
                    let bytes = bytes::Bytes::from(columns.values.clone());
                    initializers.push(initializer_raw(&names.0, DataType::Int8, &columns.shape, bytes));
                    let (shape, scales) = (&columns.scale_shape, &columns.scales);
                    initializers.push(initializer_f32(&names.1, shape, scales));
                }
                Weight::Blocks(blocks) => {
                    initializers.extend(blocks.initializers(&names.0, &names.1));
                }
            }
            names
        });
        let output = made.output.first_mut().map(std::mem::take).unwrap_or_default();
        if let Work::Product(_, _, terms) = work {
            let input = made.input.first().cloned().unwrap_or_default();
            report.products.push(made.name().to_owned());
            match (&held[&key], options.form) {
                (Weight::Blocks(blocks), _) => {
                    graph.node.push(blocks.product(&input, names, &output, made.name()));
                }
                (_, Form::Static) => {
                    let floats = ranged.entry(input.clone()).or_insert_with(|| {
                        let (nodes, constants, floats) = qdq::activation(&input, &options.seen[&input]);
                        graph.node.extend(nodes);
                        initializers.extend(constants);
                        floats
                    });
                    graph.node.extend(qdq::product(floats, names, &output, made.name()));
                }
                _ => {
                    let (weight, scale) = names;
                    let nodes = activations.product(terms, &input, weight, scale, &output, made.name());
                    graph.node.extend(nodes);
                }
            }
        } else {
            let ids = made.input.get(1).cloned().unwrap_or_default();
            report.tables.push(made.name().to_owned());
            graph.node.extend(table(&ids, names, &output, made.name(), held_as == Held::Groups));
        }
    }
    if added.keys().any(|(_, held)| *held == Held::Groups) {
        initializers.push(initializer_i64(ROW, &[3], &[0, 0, -1]));
    }
    graph.initializer.extend(initializers);
    if options.form.is_blocks() {
        let sets = &mut model.proto_mut().opset_import;
        if sets.iter().all(|set| set.domain() != blocks::DOMAIN) {
            sets.push(OperatorSetIdProto { domain: Some(blocks::DOMAIN.to_owned()), version: Some(1) });
        }
    }
    model.drop_unused_constants();
    report.weight_bytes.1 = model.weight_bytes();
    report.nodes.1 = model.graph_proto().node.len();
    Ok(report)
}

/// `y[..., g, :] = scale[ids, g] * table[ids, g, :]`: each group of a row, or the row, has its own scale.
fn table(
    ids: &str,
    names: &(String, String),
    output: &str,
    name: &str,
    grouped: bool,
) -> Vec<NodeProto> {
    let [rows, scales, floats, groups] =
        ["rows", "scales", "floats", "groups"].map(|part| format!("{output}/{part}"));
    let (weight, scale) = (names.0.as_str(), names.1.as_str());
    let last = if grouped { &groups } else { output };
    let mut nodes = vec![
        node("Gather", [weight, ids], &rows).named(name).int("axis", 0).build(),
        node("Gather", [scale, ids], &scales).named(format!("{name}/scale")).int("axis", 0).build(),
        node("Cast", [&rows], &floats).named(format!("{name}/float")).int("to", 1).build(),
        node("Mul", [&floats, &scales], last).named(format!("{name}/scaled")).build(),
    ];
    if grouped {
        nodes.push(node("Reshape", [&groups, ROW], output).named(format!("{name}/row")).build());
    }
    nodes
}

/// A node that can be held in 8 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub node: String,
    /// Rows and columns of its weight.
    pub shape: [usize; 2],
    /// Whether it is a product; otherwise it reads a table.
    pub product: bool,
}

/// Whether a model has operators that ONNX Runtime alone runs: tract has no blocks of 8 bits.
pub fn needs_onnxruntime(model: &Model) -> bool {
    model.graph_proto().node.iter().any(|n| n.op_type() == "MatMulNBits" && n.attr_i("bits", 4) == 8)
}

/// Every node that [`quantize`] would hold in 8 bits, in the graph's order.
///
/// # Errors
/// [`Error::Twice`].
pub fn candidates(model: &Model) -> Result<Vec<Candidate>, Error> {
    let graph = model.graph();
    let mut found = Vec::new();
    for (_, made) in graph.nodes() {
        let work = sort(&graph, made, &Options::default(), &mut Report::default())?;
        let Some((weight, held)) = work.weight() else { continue };
        let dims = graph.initializer(weight).map(|tensor| tensor.dims.as_slice()).unwrap_or_default();
        let dim = |at: usize| dims.get(at).and_then(|&n| usize::try_from(n).ok()).unwrap_or(0);
        let product = held.is_product();
        found.push(Candidate { node: made.name().to_owned(), shape: [dim(0), dim(1)], product });
    }
    Ok(found)
}

/// Whether a node is a product of the inverse DFT.
fn is_spectral(made: &NodeProto) -> bool {
    let pass = |p: &crate::ir::proto::StringStringEntryProto| {
        p.key() == "soprano_export.pass" && p.value() == "replace-istft"
    };
    made.op_type() == "MatMul" && made.metadata_props.iter().any(pass)
}

/// The names of products that no file holds in 8 bits: the range of a spectrum is too wide.
pub fn spectral_products(model: &Model) -> Vec<String> {
    let nodes = model.graph_proto().node.iter().filter(|made| is_spectral(made));
    nodes.map(|made| made.name().to_owned()).collect()
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
    let why = if is_spectral(made) {
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
    if op != "MatMul" {
        // Of ids [batch, sequence] it is known what shape their rows have.
        let of = |input: &&crate::ir::ValueInfoProto| Some(input.name()) == made.input_at(1);
        let input = graph.proto().input.iter().find(of);
        let flat = input.is_some_and(|input| input.dims().len() == 2);
        return Ok(Work::Table(weight.to_owned(), if flat { Held::Groups } else { Held::Rows }));
    }
    let two = options.two_terms.iter().any(|pattern| matches(pattern, made.name()));
    let terms = if two { Terms::Two } else { options.terms };
    let x = made.input_at(0).unwrap_or_default();
    if options.form == Form::Static && !options.seen.contains_key(x) {
        return Err(Error::NotSeen { node: made.name().to_owned(), value: x.to_owned() });
    }
    let held = Held::of(options.form, terms, options.reduce_range);
    Ok(Work::Product(weight.to_owned(), held, terms))
}

fn check_patterns(graph: &Graph<'_>, patterns: &[String]) -> Result<(), Error> {
    let unused = patterns.iter().find(|p| !graph.nodes().any(|(_, made)| matches(p, made.name())));
    unused.map_or(Ok(()), |pattern| Err(Error::Keep { pattern: pattern.clone() }))
}

/// Whether a name fits a pattern, in which each `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn user(graph: &Graph<'_>, weight: &str) -> String {
    let user = graph.users(weight).first().map(|&id| graph.node(id).name().to_owned());
    user.unwrap_or_default()
}

#[cfg(test)]
mod tests;
