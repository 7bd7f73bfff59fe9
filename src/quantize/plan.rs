//! What is done with each node: which products and tables are held in 8 bits, and why others are not.

use std::collections::{BTreeMap, HashSet};

use super::blocks::BLOCK;
use super::scopes::{Constant, Reader, Scopes, Value, inner, is_link, label};
use super::weights::GROUP;
use super::{Error, Options, Other, Report, is_quantized, is_spectral, matches};
use crate::ir::{Model, NodeId, NodeProto, dtype_name};
use crate::recipe::{Form, Terms};

/// Below this many weights a product gains nothing.
const SMALLEST: usize = 4096;
/// Products of 8 bits that a sum of 32 bits holds: `(2^31 − 1) / (255 · 127)`.
const LONGEST_SUM: usize = 66_311;

/// How a weight is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Held {
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

    pub(super) fn name(self) -> &'static str {
        match self {
            Held::Columns => "columns",
            Held::Narrow => "narrow",
            Held::Rows => "rows",
            Held::Groups => "groups",
            Held::Blocks8 => "blocks_8",
            Held::Blocks4 => "blocks_4",
        }
    }

    pub(super) fn is_blocks(self) -> bool {
        matches!(self, Held::Blocks8 | Held::Blocks4)
    }

    /// Bytes of a matrix with its scales.
    fn bytes(self, [rows, columns]: [usize; 2]) -> usize {
        let blocks = columns * rows.div_ceil(BLOCK);
        match self {
            Held::Columns | Held::Narrow => rows * columns + 4 * columns,
            Held::Rows => rows * columns + 4 * rows,
            Held::Groups => rows * columns + 4 * rows * (columns / GROUP).max(1),
            Held::Blocks8 => blocks * (BLOCK + 4),
            Held::Blocks4 => blocks * (BLOCK / 2 + 4),
        }
    }
}

/// A weight in 8 bits: the value it stands for, and what a `Gemm` does to that first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// The graph of the value.
    pub(super) scope: usize,
    pub(super) value: String,
    /// Transposed.
    pub(super) turned: bool,
    /// The bits of a factor.
    pub(super) times: u32,
    pub(super) held: Held,
}

/// What a `Gemm` has beside its product.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gemm {
    pub(super) turned: bool,
    pub(super) beta: f32,
    pub(super) bias: Option<String>,
}

/// A product with a constant weight on its right.
pub(super) struct Product<'m> {
    pub(super) key: Key,
    pub(super) weight: Constant<'m>,
    pub(super) terms: Terms,
    pub(super) gemm: Option<Gemm>,
    /// The activation is known to be a vector.
    pub(super) vector: bool,
}

/// Rows of a constant matrix, read by index.
pub(super) struct Table<'m> {
    pub(super) key: Key,
    pub(super) weight: Constant<'m>,
    /// The rank of the indices, where it is known.
    pub(super) rank: Option<usize>,
}

/// What is done with a node.
pub(super) enum Work<'m> {
    Product(Product<'m>),
    Table(Table<'m>),
    /// It stays fp32, and a report says why.
    Keep {
        why: String,
        /// Its name was given.
        asked: bool,
    },
    /// It stays fp32, one of many.
    Other(&'static str),
    Leave,
}

impl<'m> Work<'m> {
    fn keep(why: impl Into<String>) -> Self {
        Work::Keep { why: why.into(), asked: false }
    }

    /// The weight that is to be held in 8 bits, and the input that reads it.
    pub(super) fn weight(&self) -> Option<(&Key, &Constant<'m>, usize)> {
        match self {
            Work::Product(product) => Some((&product.key, &product.weight, 1)),
            Work::Table(table) => Some((&table.key, &table.weight, 0)),
            _ => None,
        }
    }
}

/// What is done with every node of every graph.
pub(super) struct Plan<'m> {
    pub(super) form: Form,
    pub(super) scopes: Scopes<'m>,
    pub(super) work: Vec<Vec<Work<'m>>>,
}

impl<'m> Plan<'m> {
    /// # Errors
    /// [`Error::Twice`], [`Error::Keep`], [`Error::NotSeen`].
    pub(super) fn of(model: &'m Model, options: &Options) -> Result<Self, Error> {
        let scopes = Scopes::new(model.proto());
        for pattern in options.keep_fp32.iter().chain(&options.two_terms) {
            if !scopes.nodes().any(|(_, _, node)| matches(pattern, label(node))) {
                return Err(Error::Keep { pattern: pattern.clone() });
            }
        }
        let mut work = Vec::new();
        for (at, graph) in scopes.graphs() {
            let sorted = graph.nodes().map(|(_, node)| sort(model, &scopes, at, node, options));
            work.push(sorted.collect::<Result<Vec<_>, Error>>()?);
        }
        let mut plan = Self { form: options.form, scopes, work };
        plan.settle();
        Ok(plan)
    }

    /// Every node's work.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&'m NodeProto, &Work<'m>)> {
        self.scopes.nodes().map(|(at, id, node)| (node, &self.work[at][id.0]))
    }

    /// Keeps fp32 what would be there twice, for something else needs the same weight as it is.
    fn settle(&mut self) {
        loop {
            let mut kept = Vec::new();
            for (at, id, _) in self.scopes.nodes() {
                let Some((_, weight, _)) = self.work[at][id.0].weight() else { continue };
                if let Some(Holder::Node(by)) = self.holder(weight.root) {
                    let (root, by) = (weight.root.1, by.to_owned());
                    kept.push((at, id, format!("its weight {root:?} stays as it is for {by}")));
                }
            }
            if kept.is_empty() {
                return;
            }
            for (at, id, why) in kept {
                self.work[at][id.0] = Work::keep(why);
            }
        }
    }

    /// What needs a value as it is: a node that was named before anything else.
    fn holder(&self, value: Value<'m>) -> Option<Holder> {
        let mut asked = None;
        for reader in self.scopes.readers(value) {
            let Reader::Node(at, id, place) = *reader else {
                return Some(Holder::Node("the graph's output".to_owned()));
            };
            let node = self.scopes.node(at, id);
            let found = match &self.work[at][id.0] {
                work if work.weight().is_some_and(|(_, _, slot)| slot == place) => None,
                Work::Keep { asked: true, .. } => Some(Holder::Asked),
                _ if is_link(node) && place == 0 => {
                    node.output_at(0).and_then(|output| self.holder((at, output)))
                }
                _ => Some(Holder::Node(format!("{:?} ({})", label(node), node.qualified_op()))),
            };
            match found {
                Some(Holder::Node(_)) => return found,
                Some(Holder::Asked) => asked = found,
                None => {}
            }
        }
        asked
    }

    /// The nodes between a constant and its products, and the constants, that nothing needs afterwards.
    pub(super) fn unused(&self) -> Unused {
        let mut unused = Unused::default();
        for (_, work) in self.nodes() {
            let Some((_, weight, _)) = work.weight() else { continue };
            for &(at, id) in &weight.links {
                let output = self.scopes.node(at, id).output_at(0);
                if output.is_some_and(|output| self.holder((at, output)).is_none()) {
                    unused.nodes.insert((at, id));
                }
            }
            let (at, name) = weight.root;
            if self.holder(weight.root).is_none() {
                unused.values.insert((at, name.to_owned()));
            }
        }
        unused
    }

    /// Fills in what a report says of nodes that stay fp32, and of weights that are there twice.
    pub(super) fn report(&self, model: &Model, report: &mut Report) {
        let mut others: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
        let mut twice = BTreeMap::new();
        for (node, work) in self.nodes() {
            match work {
                Work::Keep { why, .. } => report.kept.push((label(node).to_owned(), why.clone())),
                Work::Other(why) => *others.entry((node.qualified_op(), why)).or_default() += 1,
                _ => {}
            }
            let Some((key, weight, _)) = work.weight() else { continue };
            if self.holder(weight.root).is_some() {
                let [rows, columns] = matrix(&weight.dims).unwrap_or_default();
                twice.insert(weight.root.1.to_owned(), key.held.bytes([rows, columns]) as u64);
            }
        }
        let functions = model.proto().functions.iter().flat_map(|function| &function.node);
        for node in functions.filter(|node| node.is("MatMul") || node.is("Gemm")) {
            *others
                .entry((node.qualified_op(), "it stands in a function: inline that first"))
                .or_default() += 1;
        }
        report.others = others.into_iter().map(|((op, why), count)| Other { op, count, why }).collect();
        report.twice = twice.into_iter().collect();
    }
}

enum Holder {
    Node(String),
    /// A node that was asked to stay fp32.
    Asked,
}

/// What a quantized model no longer needs.
#[derive(Default)]
pub(super) struct Unused {
    pub(super) nodes: HashSet<(usize, NodeId)>,
    pub(super) values: HashSet<(usize, String)>,
}

/// Rows and columns of a weight whose axes before the last two are 1.
fn matrix(dims: &[usize]) -> Option<[usize; 2]> {
    let (front, matrix) = dims.split_last_chunk::<2>()?;
    front.iter().all(|&dim| dim == 1).then_some(*matrix)
}

/// What to do with a node.
fn sort<'m>(
    model: &Model,
    scopes: &Scopes<'m>,
    scope: usize,
    node: &'m NodeProto,
    options: &Options,
) -> Result<Work<'m>, Error> {
    if is_quantized(node) {
        return Err(Error::Twice { node: label(node).to_owned(), op: node.qualified_op() });
    }
    if scopes.is(scope, node, "MatMul") || scopes.is(scope, node, "Gemm") {
        return product(scopes, scope, node, options);
    }
    if scopes.is(scope, node, "Gather") {
        return Ok(table(scopes, scope, node, options));
    }
    let weighty = |input: &&String| scopes.constant(scope, input).is_some_and(|c| is_weight(&c));
    if inner(node).next().is_some() || is_link(node) || !node.input.iter().any(|i| weighty(&i)) {
        return Ok(Work::Leave);
    }
    let calls =
        |f: &crate::ir::proto::FunctionProto| f.domain() == node.domain() && f.name() == node.op_type();
    Ok(match node.op_type() {
        _ if model.proto().functions.iter().any(calls) => {
            Work::Other("it calls a function: inline that first")
        }
        _ if !node.is(node.op_type()) => Work::Other("it is not an operator of ONNX's own domain"),
        "Conv" | "ConvTranspose" => Work::Other("a convolution has no fast integer form everywhere"),
        "Einsum" | "LSTM" | "GRU" | "RNN" => {
            Work::Other("only MatMul, Gemm and Gather are held in 8 bits")
        }
        _ => Work::Leave,
    })
}

fn is_weight(constant: &Constant<'_>) -> bool {
    constant.element().is_some() && constant.count() >= SMALLEST
}

/// Why a node that reads a weight stays fp32, whatever else holds.
fn kept<'m>(node: &NodeProto, weight: &Constant<'_>, options: &Options) -> Option<Work<'m>> {
    if is_spectral(node) {
        Some(Work::keep("the range of a spectrum is too wide for 8 bits"))
    } else if weight.count() < SMALLEST {
        Some(Work::keep("it is small"))
    } else if options.keep_fp32.iter().any(|pattern| matches(pattern, label(node))) {
        Some(Work::Keep { why: "it is named to stay fp32".to_owned(), asked: true })
    } else if weight.element().is_none() {
        Some(Work::keep(format!("its weight is {}", dtype_name(weight.dtype as i32))))
    } else {
        None
    }
}

fn key(scopes: &Scopes<'_>, scope: usize, value: &str, held: Held) -> Key {
    // A value that a constant was found behind has a graph.
    let scope = scopes.home(scope, value).unwrap_or(scope);
    Key { scope, value: value.to_owned(), turned: false, times: 1f32.to_bits(), held }
}

fn product<'m>(
    scopes: &Scopes<'m>,
    scope: usize,
    node: &'m NodeProto,
    options: &Options,
) -> Result<Work<'m>, Error> {
    let (Some(x), Some(w)) = (node.input_at(0), node.input_at(1)) else { return Ok(Work::Leave) };
    let mut weight = match (scopes.constant(scope, x), scopes.constant(scope, w)) {
        (None, Some(weight)) => weight,
        (None, None) if scopes.is_open(scope, x) || scopes.is_open(scope, w) => {
            return Ok(Work::keep(
                "its weight is an input of the graph too, which a caller may replace",
            ));
        }
        (None, None) => return Ok(Work::Other("both factors are computed")),
        (Some(left), right) => {
            let why = match right {
                Some(_) => "both factors are constants",
                None => "its weight is on the left",
            };
            return Ok(kept(node, &left, options).unwrap_or_else(|| Work::keep(why)));
        }
    };
    if let Some(kept) = kept(node, &weight, options) {
        return Ok(kept);
    }
    let two = options.two_terms.iter().any(|pattern| matches(pattern, label(node)));
    let terms = if two { Terms::Two } else { options.terms };
    let mut key = key(scopes, scope, w, Held::of(options.form, terms, options.reduce_range));
    let mut gemm = None;
    if node.is("Gemm") {
        if weight.dims.len() != 2 {
            return Ok(Work::keep("its weight is no matrix"));
        }
        key.turned = node.attr_i("transB", 0) != 0;
        if key.turned {
            weight.turn(vec![1, 0]);
        }
        let alpha = node.attr_f("alpha", 1.0);
        if alpha != 1.0 {
            key.times = alpha.to_bits();
            weight.times(alpha);
        }
        let bias = node.input_at(2).map(str::to_owned);
        let turned = node.attr_i("transA", 0) != 0;
        gemm = Some(Gemm { turned, beta: node.attr_f("beta", 1.0), bias });
    }
    let Some([rows, columns]) = matrix(&weight.dims) else {
        let kind = if weight.dims.len() < 2 { "a vector" } else { "a stack of matrices" };
        return Ok(Work::keep(format!("its weight is {kind}")));
    };
    if !options.form.is_blocks() && rows > LONGEST_SUM {
        return Ok(Work::keep(format!("sums of {rows} products of 8 bits don't fit 32 bits")));
    }
    if key.held.bytes([rows, columns]) >= weight.count() * weight.element().unwrap_or(1) {
        return Ok(Work::keep("8 bits with their scales would take no fewer bytes"));
    }
    let rank = scopes.rank(scope, x);
    if options.form.is_blocks()
        && weight.dims.len() > 2
        && rank.is_none_or(|rank| rank < weight.dims.len())
    {
        return Ok(Work::keep("blocks have no other axes, and its result may have"));
    }
    if options.form == Form::Static && !options.seen.contains_key(x) {
        if scope > 0 {
            return Ok(Work::keep("its activation can't be seen from outside its graph"));
        }
        return Err(Error::NotSeen { node: label(node).to_owned(), value: x.to_owned() });
    }
    Ok(Work::Product(Product { key, weight, terms, gemm, vector: rank == Some(1) }))
}

fn table<'m>(scopes: &Scopes<'m>, scope: usize, node: &'m NodeProto, options: &Options) -> Work<'m> {
    let (Some(rows), Some(ids)) = (node.input_at(0), node.input_at(1)) else { return Work::Leave };
    let Some(weight) = scopes.constant(scope, rows).filter(|weight| weight.element().is_some()) else {
        return Work::Leave;
    };
    if let Some(kept) = kept(node, &weight, options) {
        return kept;
    }
    let axis = node.attr_i("axis", 0);
    let Ok(shape) = <[usize; 2]>::try_from(weight.dims.as_slice()) else {
        return Work::keep("its table is no matrix");
    };
    if axis != 0 && axis != -2 {
        return Work::keep("it reads no whole rows");
    }
    // Where the rank of the indices is known, so is the shape that their rows come together in.
    let rank = scopes.rank(scope, ids);
    let held = if rank.is_some() { Held::Groups } else { Held::Rows };
    if held.bytes(shape) >= weight.count() * weight.element().unwrap_or(1) {
        return Work::keep("8 bits with their scales would take no fewer bytes");
    }
    if !weight.is_finite() {
        return Work::keep("it has values that are not finite, as masks have");
    }
    Work::Table(Table { key: key(scopes, scope, rows, held), weight, rank })
}
