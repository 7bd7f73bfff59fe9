//! What is done with each node: which products and tables are held in 8 bits, and why others are not.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::layout::{Key, Layout};
use super::scopes::{Constant, Reader, Scopes, Value, is_link};
use super::{Error, Options, Other, Report, is_quantized, is_spectral, matches};
use crate::ir::{Model, NodeId, NodeProto, dtype_name};
use crate::recipe::{Form, Granularity, Terms};

/// Below this many weights a product gains nothing.
const SMALLEST: usize = 4096;
/// Products of 8 bits that a sum of 32 bits holds: `(2^31 − 1) / (255 · 127)`.
const LONGEST_SUM: usize = 66_311;

/// Why a weight of very small numbers stays.
const TINY: &str = "its values are below 1e-30, and their scales would vanish";

/// What a `Gemm` has besides its product.
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
    /// What its scales are multiplied with.
    pub(super) factor: f32,
    pub(super) terms: Terms,
    pub(super) gemm: Option<Gemm>,
    /// How many axes the activation has, where that is known.
    pub(super) rank: Option<usize>,
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
    pub(super) granularity: Granularity,
    pub(super) scopes: Scopes<'m>,
    pub(super) work: Vec<Vec<Work<'m>>>,
}

impl<'m> Plan<'m> {
    /// # Errors
    /// [`Error::Twice`], [`Error::Keep`], [`Error::NoProduct`], [`Error::NotSeen`].
    pub(super) fn of(model: &'m Model, options: &Options) -> Result<Self, Error> {
        let scopes = Scopes::new(model.proto());
        for pattern in options.keep_fp32.iter().chain(&options.two_terms) {
            if !scopes.nodes().any(|(_, _, node)| matches(pattern, node.called())) {
                return Err(Error::Keep { pattern: pattern.clone() });
            }
        }
        for pattern in &options.two_terms {
            let fits = |(at, _, node): (usize, NodeId, &NodeProto)| {
                matches(pattern, node.called())
                    && ["MatMul", "Gemm", "Gather"].iter().any(|op| scopes.is(at, node, op))
            };
            if !scopes.nodes().any(fits) {
                return Err(Error::NoProduct { pattern: pattern.clone() });
            }
        }
        let mut work = Vec::new();
        for (at, graph) in scopes.graphs() {
            let sorted = graph.nodes().map(|(_, node)| sort(model, &scopes, at, node, options));
            work.push(sorted.collect::<Result<Vec<_>, Error>>()?);
        }
        let mut plan = Self { form: options.form, granularity: options.granularity, scopes, work };
        plan.settle();
        Ok(plan)
    }

    /// Every node's work.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&'m NodeProto, &Work<'m>)> {
        self.scopes.nodes().map(|(at, id, node)| (node, &self.work[at][id.0]))
    }

    /// The data of weights that are to be held in 8 bits, with the nodes that read it.
    fn roots(&self) -> BTreeMap<Value<'m>, Vec<(usize, NodeId)>> {
        let mut roots: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (at, id, _) in self.scopes.nodes() {
            if let Some((_, weight, _)) = self.work[at][id.0].weight() {
                roots.entry(weight.root).or_default().push((at, id));
            }
        }
        roots
    }

    /// In how many forms nodes hold their weight in 8 bits, and the bytes of all together.
    fn forms(&self, nodes: &[(usize, NodeId)]) -> (usize, usize) {
        let (mut values, mut scales) = (BTreeSet::new(), BTreeSet::new());
        let mut bytes = 0;
        for &(at, id) in nodes {
            let work = &self.work[at][id.0];
            let Some((key, weight, _)) = work.weight() else { continue };
            let factor = match work {
                Work::Product(product) => product.factor,
                _ => 1.0,
            };
            let [of_values, of_scales] = key.layout.bytes(matrix(&weight.dims).unwrap_or_default());
            bytes += if values.insert(key) { of_values } else { 0 };
            bytes += if scales.insert((key, factor.to_bits())) { of_scales } else { 0 };
        }
        (values.len(), bytes)
    }

    /// Keeps fp32 what would be there twice, for something else needs the same weight as it is, and what would
    /// take more bytes than it does in the forms of all nodes that read it.
    fn settle(&mut self) {
        loop {
            let mut kept = Vec::new();
            for (root, nodes) in self.roots() {
                let stored = nodes.first().and_then(|&(at, id)| self.work[at][id.0].weight());
                let stored = stored.map_or(0, |(_, weight, _)| weight.stored());
                let why = match (self.holder(root), self.forms(&nodes)) {
                    (Some(Holder::Node(by)), _) => {
                        format!("its weight {:?} stays as it is for {by}", root.1)
                    }
                    (None, (forms, bytes)) if bytes >= stored => format!(
                        "in the {forms} forms that its readers need, its weight {:?} would take no fewer bytes",
                        root.1
                    ),
                    _ => continue,
                };
                kept.extend(nodes.into_iter().map(|(at, id)| (at, id, why.clone())));
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
        // Readers of it, and those after links; the next one last.
        let mut left: Vec<Reader> = self.scopes.readers(value).iter().rev().copied().collect();
        while let Some(reader) = left.pop() {
            let (at, id, place) = match reader {
                Reader::Node(at, id, place) => (at, id, place),
                Reader::Output => return Some(Holder::Node("the graph's output".to_owned())),
                Reader::Training => {
                    return Some(Holder::Node("the training that the file describes".to_owned()));
                }
            };
            let node = self.scopes.node(at, id);
            match &self.work[at][id.0] {
                work if work.weight().is_some_and(|(_, _, slot)| slot == place) => {}
                Work::Keep { asked: true, .. } => asked = Some(Holder::Asked),
                _ if is_link(node) && place == 0 => {
                    let behind = node.output_at(0).map(|output| self.scopes.readers((at, output)));
                    left.extend(behind.unwrap_or_default().iter().rev());
                }
                _ => {
                    return Some(Holder::Node(format!(
                        "{:?} ({})",
                        node.called(),
                        node.qualified_op()
                    )));
                }
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
                let Some(output) = self.scopes.node(at, id).output_at(0) else { continue };
                if !unused.nodes.contains(&(at, id)) && self.holder((at, output)).is_none() {
                    unused.nodes.insert((at, id));
                    unused.values.insert((at, output.to_owned()));
                }
            }
            let (at, name) = weight.root;
            if self.holder(weight.root).is_none() {
                unused.values.insert((at, name.to_owned()));
            }
        }
        unused
    }

    /// Fills in what a report says of nodes that stay fp32, of weights that are there twice, and of patterns
    /// that changed nothing.
    pub(super) fn report(&self, model: &Model, options: &Options, report: &mut Report) {
        let mut others: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
        for (node, work) in self.nodes() {
            match work {
                Work::Keep { why, .. } => report.kept.push((node.called().to_owned(), why.clone())),
                Work::Other(why) => *others.entry((node.qualified_op(), why)).or_default() += 1,
                _ => {}
            }
        }
        let functions = model.proto().functions.iter().flat_map(|function| &function.node);
        for node in functions.filter(|node| node.is("MatMul") || node.is("Gemm")) {
            let why = "it stands in a function: inline that first";
            *others.entry((node.qualified_op(), why)).or_default() += 1;
        }
        report.others = others.into_iter().map(|((op, why), count)| Other { op, count, why }).collect();
        let roots = self.roots().into_iter().filter(|(root, _)| self.holder(*root).is_some());
        report.twice =
            roots.map(|(root, nodes)| (root.1.to_owned(), self.forms(&nodes).1 as u64)).collect();
        let is_idle = |pattern: &str, changed: fn(&Work<'_>) -> bool| {
            !self.nodes().any(|(node, work)| matches(pattern, node.called()) && changed(work))
        };
        let kept = |work: &Work<'_>| matches!(work, Work::Keep { asked: true, .. });
        for pattern in options.keep_fp32.iter().filter(|pattern| is_idle(pattern, kept)) {
            report.idle.push((pattern.clone(), "no node of that name would be held in 8 bits"));
        }
        let product = |work: &Work<'_>| matches!(work, Work::Product(_));
        for pattern in options.two_terms.iter().filter(|pattern| is_idle(pattern, product)) {
            report.idle.push((pattern.clone(), "no product of that name is held in 8 bits"));
        }
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
        return Err(Error::Twice { node: node.called().to_owned(), op: node.qualified_op() });
    }
    if scopes.is(scope, node, "MatMul") || scopes.is(scope, node, "Gemm") {
        return product(scopes, scope, node, options);
    }
    if scopes.is(scope, node, "Gather") {
        return Ok(table(scopes, scope, node, options));
    }
    let weighty = |input: &&String| scopes.constant(scope, input).is_some_and(|c| is_weight(&c));
    if node.nested().next().is_some() || is_link(node) || !node.input.iter().any(|i| weighty(&i)) {
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
fn obstacle<'m>(node: &NodeProto, weight: &Constant<'_>) -> Option<Work<'m>> {
    match weight {
        _ if is_spectral(node) => Some(Work::keep("the range of a spectrum is too wide for 8 bits")),
        weight if weight.count() < SMALLEST => Some(Work::keep("it is small")),
        weight if weight.element().is_some() => None,
        weight => Some(Work::keep(format!("its weight is {}", dtype_name(weight.dtype as i32)))),
    }
}

/// Why a node stays fp32 that could be held in 8 bits: its name was given.
fn fp32_by_name<'m>(node: &NodeProto, options: &Options) -> Option<Work<'m>> {
    let named = options.keep_fp32.iter().any(|pattern| matches(pattern, node.called()));
    named.then(|| Work::Keep { why: "it is named to stay fp32".to_owned(), asked: true })
}

/// What a `Gemm` adds to a product, and the factor that its scales take in; its weight is turned and signed. Why it
/// stays as it is, otherwise.
fn gemm_of(node: &NodeProto, weight: &mut Constant<'_>) -> Result<(Option<Gemm>, f32), String> {
    if weight.dims.len() != 2 {
        return Err("its weight is not a matrix".to_owned());
    }
    if node.attr_i("transB", 0) != 0 {
        weight.turn(vec![1, 0]);
    }
    // Scales are positive.
    let alpha = node.attr_f("alpha", 1.0);
    if alpha < 0.0 {
        weight.negate();
    }
    if !alpha.is_finite() {
        return Err(format!("its alpha is {alpha}"));
    }
    let bias = node.input_at(2).map(str::to_owned);
    let turned = node.attr_i("transA", 0) != 0;
    Ok((Some(Gemm { turned, beta: node.attr_f("beta", 1.0), bias }), alpha.abs()))
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
            return Ok(obstacle(node, &left).unwrap_or_else(|| Work::keep(why)));
        }
    };
    if let Some(kept) = obstacle(node, &weight) {
        return Ok(kept);
    }
    let two = options.two_terms.iter().any(|pattern| matches(pattern, node.called()));
    let terms = if two { Terms::Two } else { options.terms };
    let layout = Layout::of(options.form, terms, options.reduce_range);
    let (mut gemm, mut factor) = (None, 1.0);
    if node.is("Gemm") {
        match gemm_of(node, &mut weight) {
            Ok(product) => (gemm, factor) = product,
            Err(why) => return Ok(Work::keep(why)),
        }
    }
    let Some([rows, columns]) = matrix(&weight.dims) else {
        let kind = if weight.dims.len() < 2 { "a vector" } else { "a stack of matrices" };
        return Ok(Work::keep(format!("its weight is {kind}")));
    };
    if !options.form.is_blocks() && rows > LONGEST_SUM {
        return Ok(Work::keep(format!("sums of {rows} products of 8 bits don't fit 32 bits")));
    }
    if layout.bytes([rows, columns]).iter().sum::<usize>() >= weight.stored() {
        return Ok(Work::keep("8 bits with their scales would take no fewer bytes"));
    }
    if weight.is_tiny(factor) {
        return Ok(Work::keep(TINY));
    }
    let rank = scopes.rank(scope, x);
    if options.form.is_blocks()
        && weight.dims.len() > 2
        && rank.is_none_or(|rank| rank < weight.dims.len())
    {
        return Ok(Work::keep("blocks have no other axes, and its result may have"));
    }
    if let Some(fp32) = fp32_by_name(node, options) {
        return Ok(fp32);
    }
    if options.form == Form::Static && !options.seen.contains_key(x) {
        if scope > 0 {
            return Ok(Work::keep("its activation can't be seen from outside its graph"));
        }
        return Err(Error::NotSeen { node: node.called().to_owned(), value: x.to_owned() });
    }
    let key = Key::of(&weight, layout);
    let rank = if gemm.is_some() { Some(2) } else { rank };
    Ok(Work::Product(Product { key, weight, factor, terms, gemm, rank }))
}

fn table<'m>(scopes: &Scopes<'m>, scope: usize, node: &'m NodeProto, options: &Options) -> Work<'m> {
    let (Some(rows), Some(ids)) = (node.input_at(0), node.input_at(1)) else { return Work::Leave };
    let Some(weight) = scopes.constant(scope, rows).filter(|weight| weight.element().is_some()) else {
        return Work::Leave;
    };
    if let Some(kept) = obstacle(node, &weight) {
        return kept;
    }
    let axis = node.attr_i("axis", 0);
    let Ok(shape) = <[usize; 2]>::try_from(weight.dims.as_slice()) else {
        return Work::keep("its table is not a matrix");
    };
    if axis != 0 && axis != -2 {
        return Work::keep("it doesn't read whole rows");
    }
    // Where the rank of the indices is known, so is the shape that their rows come together in.
    let rank = scopes.rank(scope, ids);
    let layout = if rank.is_some() { Layout::Groups } else { Layout::Rows };
    if layout.bytes(shape).iter().sum::<usize>() >= weight.stored() {
        return Work::keep("8 bits with their scales would take no fewer bytes");
    }
    if !weight.is_finite() {
        return Work::keep("it has values that are not finite, as masks have");
    }
    if weight.is_tiny(1.0) {
        return Work::keep(TINY);
    }
    fp32_by_name(node, options)
        .unwrap_or_else(|| Work::Table(Table { key: Key::of(&weight, layout), weight, rank }))
}
