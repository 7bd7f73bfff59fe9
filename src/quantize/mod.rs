//! INT8: which node gets what, and how it is written.
//!
//! Large products with constant weights become integer products over activations that are quantized as
//! they come (dynamic quantization); convolutions, norms, attention and the inverse DFT stay as they are,
//! for a convolution has no fast integer form everywhere, and a spectrum's range is too wide for 8 bits.

mod activation;
mod blocks;
mod body;
mod calibration;
mod columns;
mod layout;
mod plan;
mod qdq;
mod scopes;
mod smooth;
mod weights;
mod write;

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::ir::{GraphProto, Model, Names, NodeProto, OperatorSetIdProto, constant_of, stored_bytes};
use crate::passes::REPLACE_ISTFT;
use crate::recipe::{Form, Granularity, Int8, Terms};

pub use calibration::{Calibration, Observed};
pub use smooth::smooth;

use body::{Stored, Writer};
use layout::Key;
use plan::{Plan, Unused, Work};
use scopes::Constant;
use weights::Weight;
use write::Step;

/// How a model is quantized.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// How products are written.
    pub form: Form,
    /// How activations are held.
    pub terms: Terms,
    /// What of them has a range of its own.
    pub granularity: Granularity,
    /// Nodes that hold theirs in two terms all the same: by name, or by their first output's where they have
    /// none; `*` stands for anything.
    pub two_terms: Vec<String>,
    /// Weights in 7 bits where activations are in one term of 8: processors without VNNI add pairs of
    /// products in 16 bits, which then can't overflow. Of two terms of 7 bits they can't anyway.
    pub reduce_range: bool,
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
            granularity: int8.granularity,
            seen: Calibration::new(),
            two_terms: int8.two_terms.clone(),
            reduce_range: int8.reduce_range,
            keep_fp32: int8.keep_fp32.clone(),
        }
    }
}

/// Why a model can't be quantized.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// A weight has values that 8 bits have no numbers for.
    #[error("node {node:?}: the weight {weight:?} has NaN or infinite values")]
    #[diagnostic(code(quantize::values), help("the checkpoint is damaged, or its training diverged"))]
    NotFinite { node: String, weight: String },
    /// The model has quantized operators already.
    #[error("node {node:?} ({op}): the model is quantized already")]
    #[diagnostic(code(quantize::twice), help("quantize the fp32 model it was made from"))]
    Twice { node: String, op: String },
    /// No product is left that could be quantized.
    #[error("no product with a constant weight is left to quantize{}", listed(kept, others))]
    #[diagnostic(
        code(quantize::nothing),
        help("is this the model you meant? `soprano-export inspect` lists its operators")
    )]
    Nothing { kept: Vec<(String, String)>, others: Vec<Other> },
    /// The model's operator set lacks the operators of this form.
    #[error("{form} products need opset {needs}; the model has {has}")]
    #[diagnostic(
        code(quantize::opset),
        help(
            "raise it: python -c \"import onnx, onnx.version_converter as v; \
             onnx.save(v.convert_version(onnx.load('model.onnx'), {needs}), 'raised.onnx')\""
        )
    )]
    Opset { form: &'static str, needs: i64, has: i64 },
    /// A static product has an activation that the calibration did not see.
    #[error("node {node:?}: the range of its activation {value:?} was not seen")]
    #[diagnostic(
        code(quantize::calibration),
        help("a static form needs references that reach every product: add lengths to the recipe")
    )]
    NotSeen { node: String, value: String },
    /// A pattern of nodes to keep names no node.
    #[error("no node is named {pattern:?}")]
    #[diagnostic(code(quantize::keep), help("`soprano-export inspect` and `diff` show node names"))]
    Keep { pattern: String },
    /// A pattern of nodes for two terms names no product.
    #[error("no node that is named {pattern:?} is a product")]
    #[diagnostic(
        code(quantize::two_terms),
        help("only MatMul and Gemm have terms: `soprano-export inspect` and `diff` show node names")
    )]
    NoProduct { pattern: String },
}

/// What quantization did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Products in 8 bits, by node; one without a name by its first output, here and below.
    pub products: Vec<String>,
    /// Tables in 8 bits, by node.
    pub tables: Vec<String>,
    /// Products and tables that stay fp32, with the reason.
    pub kept: Vec<(String, String)>,
    /// Other nodes with weights that stay fp32, and products without any.
    pub others: Vec<Other>,
    /// Weights that are there in fp32 too, for a node that was named to stay so, with the bytes of the 8 bits
    /// next to them.
    pub twice: Vec<(String, u64)>,
    /// Patterns of [`Options`] that changed nothing, with the reason.
    pub idle: Vec<(String, &'static str)>,
    /// Bytes of constants before and after.
    pub weight_bytes: (u64, u64),
    /// Nodes of the main graph before and after.
    pub nodes: (usize, usize),
}

/// Nodes of one operator that stay fp32.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Other {
    /// The operator.
    pub op: String,
    /// How many.
    pub count: usize,
    /// The reason.
    pub why: &'static str,
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = if self.count == 1 { "node stays" } else { "nodes stay" };
        write!(f, "{} {} {nodes} fp32: {}", self.count, self.op, self.why)
    }
}

/// What stays fp32, for people to read.
fn listed(kept: &[(String, String)], others: &[Other]) -> String {
    const MOST: usize = 16;
    let kept = kept.iter().map(|(node, why)| format!("{node:?} stays fp32: {why}"));
    let lines: Vec<String> = kept.chain(others.iter().map(Other::to_string)).collect();
    let more = lines.len().saturating_sub(MOST);
    let mut text: String = lines.iter().take(MOST).map(|line| format!("\n  {line}")).collect();
    if more > 0 {
        text += &format!("\n  and {more} more");
    }
    text
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
        weight_bytes: (constant_bytes(model.graph_proto()), 0),
        nodes: (model.graph_proto().node.len(), 0),
        ..Default::default()
    };
    let (steps, weights, unused) = {
        let plan = Plan::of(model, options)?;
        plan.report(model, options, &mut report);
        for (node, work) in plan.nodes() {
            match work {
                Work::Product(_) => report.products.push(node.called().to_owned()),
                Work::Table(_) => report.tables.push(node.called().to_owned()),
                _ => {}
            }
        }
        if needs_product && report.products.is_empty() {
            return Err(Error::Nothing { kept: report.kept, others: report.others });
        }
        check_opset(model, &plan)?;
        let unused = plan.unused();
        (steps(&plan, &unused), quantized(&plan)?, unused)
    };
    if !report.products.is_empty() || !report.tables.is_empty() {
        model.free_constants_of_inputs();
    }
    let names = Names::of(model.graph_proto());
    let opset = model.opset("").unwrap_or(1);
    let graph = model.graph_proto_mut();
    Writer::new(names, opset, options, weights).write(graph, steps);
    drop_values(graph, &mut 0, &unused);
    if options.form.is_blocks() && !report.products.is_empty() {
        let sets = &mut model.proto_mut().opset_import;
        if sets.iter().all(|set| set.domain() != blocks::DOMAIN) {
            sets.push(OperatorSetIdProto { domain: Some(blocks::DOMAIN.to_owned()), version: Some(1) });
        }
    }
    // What a description of training names may have no other reader.
    if model.proto().training_info.is_empty() {
        model.drop_unused_constants();
    }
    report.weight_bytes.1 = constant_bytes(model.graph_proto());
    report.nodes.1 = model.graph_proto().node.len();
    Ok(report)
}

/// Whether a model's own operator set has what the plan writes.
fn check_opset(model: &Model, plan: &Plan<'_>) -> Result<(), Error> {
    let has = model.opset("").unwrap_or(1);
    let needs = |work: &Work<'_>| match work {
        Work::Product(product) if product.key.layout.is_blocks() => None,
        // `DequantizeLinear` along an axis.
        Work::Product(_) if plan.form == Form::Static => Some(("static", 13)),
        // A negative axis.
        Work::Product(_) if plan.granularity == Granularity::Row => Some(("dynamic", 11)),
        Work::Product(product) if product.terms == Terms::Two => Some(("integer", 10)),
        // `DynamicQuantizeLinear`.
        Work::Product(_) => Some(("dynamic", 11)),
        _ => None,
    };
    let most = plan.nodes().filter_map(|(_, work)| needs(work)).max_by_key(|(_, needs)| *needs);
    match most {
        Some((form, needs)) if has < needs => Err(Error::Opset { form, needs, has }),
        _ => Ok(()),
    }
}

/// Every weight of a plan in 8 bits.
fn quantized(plan: &Plan<'_>) -> Result<HashMap<Key, Stored>, Error> {
    let mut jobs: BTreeMap<&Key, (&Constant<'_>, &str, String)> = BTreeMap::new();
    for (node, work) in plan.nodes() {
        if let Some((key, weight, slot)) = work.weight() {
            let name = node.input_at(slot).unwrap_or_default().to_owned();
            jobs.entry(key).or_insert((weight, node.called(), name));
        }
    }
    let jobs: Vec<_> = jobs.into_iter().collect();
    let weights = jobs.into_par_iter().map(|(key, (weight, node, name))| {
        match weight.floats().and_then(|tensor| Weight::of(&tensor, key.layout)) {
            Some(weight) => Ok((key.clone(), Stored { name, weight })),
            None => Err(Error::NotFinite { node: node.to_owned(), weight: name }),
        }
    });
    weights.collect()
}

/// What becomes of each node.
fn steps(plan: &Plan<'_>, unused: &Unused) -> Vec<Vec<Step>> {
    let step = |at: usize, id: usize, work: &Work<'_>| match work {
        Work::Product(product) => Step::Product {
            key: product.key.clone(),
            factor: product.factor,
            dtype: product.weight.dtype,
            terms: product.terms,
            gemm: product.gemm.clone(),
            rank: product.rank,
        },
        Work::Table(table) => {
            Step::Table { key: table.key.clone(), dtype: table.weight.dtype, rank: table.rank }
        }
        _ if unused.nodes.contains(&(at, crate::ir::NodeId(id))) => Step::Drop,
        _ => Step::Keep,
    };
    let graphs = plan.work.iter().enumerate();
    graphs.map(|(at, work)| work.iter().enumerate().map(|(id, w)| step(at, id, w)).collect()).collect()
}

/// Drops the constants that nothing needs any more, and what was said of types, shapes and levels of what is
/// gone.
fn drop_values(graph: &mut GraphProto, next: &mut usize, unused: &Unused) {
    let at = *next;
    *next += 1;
    let used = |name: &str| !unused.values.contains(&(at, name.to_owned()));
    graph.initializer.retain(|tensor| used(tensor.name()));
    graph.value_info.retain(|value| used(value.name()));
    graph.quantization_annotation.retain(|annotation| used(annotation.tensor_name()));
    graph.nested_mut().for_each(|inner| drop_values(inner, next, unused));
}

/// Bytes of the constants of a graph and of those inside it.
fn constant_bytes(graph: &GraphProto) -> u64 {
    let constants = graph.node.iter().filter(|node| node.is("Constant")).filter_map(constant_of);
    let constants: u64 = constants.map(|tensor| stored_bytes(&tensor)).sum();
    let own: u64 = graph.initializer.iter().map(stored_bytes).sum();
    own + constants + graph.node.iter().flat_map(NodeProto::nested).map(constant_bytes).sum::<u64>()
}

/// A node that can be held in 8 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, or its first output's where it has none.
    pub node: String,
    /// Rows and columns of its weight.
    pub shape: [usize; 2],
    /// Whether it is a product; otherwise it reads a table.
    pub product: bool,
    /// The value that is quantized on the way into a product, where the main graph has it.
    pub activation: Option<String>,
}

/// Whether a model has weights in blocks of 8 bits.
pub fn has_byte_blocks(model: &Model) -> bool {
    fn in_graph(graph: &GraphProto) -> bool {
        let blocks = |node: &NodeProto| {
            node.domain() == blocks::DOMAIN
                && node.op_type() == "MatMulNBits"
                && node.attr_i("bits", 4) == 8
        };
        graph.node.iter().any(|node| blocks(node) || node.nested().any(in_graph))
    }
    in_graph(model.graph_proto())
}

/// Every node that [`quantize`] would hold in 8 bits, each graph's in its order, the main one's first.
///
/// # Errors
/// [`Error::Twice`].
pub fn candidates(model: &Model) -> Result<Vec<Candidate>, Error> {
    let plan = Plan::of(model, &Options::default())?;
    let mut candidates = Vec::new();
    for (at, id, node) in plan.scopes.nodes() {
        let work = &plan.work[at][id.0];
        let Some((_, weight, _)) = work.weight() else { continue };
        let [.., rows, columns] = weight.dims[..] else { continue };
        let product = matches!(work, Work::Product(_));
        let activation = node.input_at(0).filter(|_| product && at == 0).map(str::to_owned);
        candidates.push(Candidate {
            node: node.called().to_owned(),
            shape: [rows, columns],
            product,
            activation,
        });
    }
    Ok(candidates)
}

/// Whether a node is a product of the inverse DFT.
fn is_spectral(node: &NodeProto) -> bool {
    node.op_type() == "MatMul" && node.author() == Some(REPLACE_ISTFT)
}

/// The names of products that no file holds in 8 bits: the range of a spectrum is too wide.
pub fn spectral_products(model: &Model) -> Vec<String> {
    let nodes = model.graph_proto().node.iter().filter(|node| is_spectral(node));
    nodes.map(|node| node.name().to_owned()).collect()
}

/// Whether a node's operator holds numbers in 8 bits or fewer.
fn is_quantized(node: &NodeProto) -> bool {
    let op = node.op_type();
    if node.domain() == blocks::DOMAIN {
        let starts = |start: &str| op.starts_with(start);
        return ["QLinear", "QuantizeLinear", "DequantizeLinear"].into_iter().any(starts)
            || ["DynamicQuantizeMatMul", "MatMulInteger"].into_iter().any(starts)
            || matches!(
                op,
                "DynamicQuantizeLSTM" | "GatherBlockQuantized" | "MatMulBnb4" | "MatMulNBits"
            )
            || matches!(op, "QAttention" | "QEmbedLayerNormalization" | "QGemm" | "QMoE");
    }
    node.is(op)
        && (matches!(op, "ConvInteger" | "MatMulInteger" | "QLinearConv" | "QLinearMatMul")
            || matches!(op, "DequantizeLinear" | "DynamicQuantizeLinear" | "QuantizeLinear"))
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

#[cfg(test)]
mod tests;
