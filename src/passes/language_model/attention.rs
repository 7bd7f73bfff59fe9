//! Reads attention off a graph as exporters write it.

use std::collections::HashSet;

use super::{PAST, Refused};
use crate::ir::{Graph, List, NodeId, NodeProto};

/// One attention: `softmax(Q · Kᵀ + mask) · V`, scales anywhere before the mask.
pub(super) struct Attention<'g> {
    pub(super) softmax: NodeId,
    /// The addition of the mask, and the mask.
    pub(super) add: NodeId,
    pub(super) mask: &'g str,
    /// The queries, as their product with the keys reads them.
    pub(super) queries: &'g str,
    /// The product of the scale factors behind the queries and keys.
    pub(super) scale: f32,
    pub(super) transpose: NodeId,
    /// Whether the keys are [batch, heads, sequence, size]; otherwise [batch, sequence, heads, size], and one
    /// transpose does what two would.
    pub(super) heads_second: bool,
    pub(super) keys: Heads<'g>,
    /// Probabilities that are not a number are replaced by zeros behind the softmax: what they become.
    pub(super) guarded: Option<&'g str>,
    /// The product with the values.
    pub(super) context: NodeId,
    pub(super) values: Heads<'g>,
}

/// Keys or values, [batch, heads, sequence, size].
#[derive(Clone, Copy)]
pub(super) struct Heads<'g> {
    /// What the attention reads.
    pub(super) read: &'g str,
    /// The same before heads are repeated, with the number of repetitions: `read` itself and 1 where they
    /// are not.
    pub(super) whole: &'g str,
    pub(super) repeats: usize,
}

/// Every attention of a graph, in its order.
///
/// # Errors
/// [`Refused::Attention`] names the pass that asks, and the softmax of one that is not understood.
pub(super) fn attentions<'g>(
    graph: &Graph<'g>,
    pass: &'static str,
) -> Result<Vec<Attention<'g>>, Refused> {
    let softmaxes = graph.nodes().filter(|(_, n)| graph.is(n, "Softmax"));
    let found = softmaxes
        .map(|(id, softmax)| {
            read(graph, id).map_err(|why| Refused::Attention {
                pass,
                at: Some(softmax.name().to_owned()),
                why: why.to_owned(),
            })
        })
        .collect::<Result<Vec<_>, Refused>>()?;
    if found.is_empty() {
        let why = "the graph has no softmax, so no attention".to_owned();
        return Err(Refused::Attention { pass, at: None, why });
    }
    Ok(found)
}

fn read<'g>(graph: &Graph<'g>, softmax: NodeId) -> Result<Attention<'g>, &'static str> {
    let node = graph.node(softmax);
    if !graph.is_along_last_axis(node, 4) {
        return Err("the softmax is not along the keys");
    }
    let masked = node.input_at(0).ok_or("the softmax has no input")?;
    let probabilities = node.output_at(0).ok_or("the softmax has no output")?;

    let (add, sum) = graph.maker_of(masked, "Add").ok_or("no mask is added before the softmax")?;
    let operands = [sum.input_at(0), sum.input_at(1)];
    let (scores, from, behind) = operands
        .into_iter()
        .flatten()
        .find_map(|value| scores(graph, value))
        .ok_or("no product of queries and keys is before the mask")?;
    let mask = operands.into_iter().flatten().find(|value| *value != from);
    let mask = mask.ok_or("no mask is added before the softmax")?;
    let product = graph.node(scores);
    let (turned, before) = scaled(graph, product.input_at(1).unwrap_or_default());
    let (transpose, turned) = graph
        .maker_of(turned, "Transpose")
        .ok_or("the keys are not transposed before their product")?;
    let heads_second = match turned.attr_ints("perm") {
        Some([0, 1, 3, 2]) => true,
        Some([0, 2, 3, 1]) => false,
        _ => return Err("the keys' transpose keeps no axis of heads"),
    };

    let (probabilities, guarded) = match guard(graph, probabilities) {
        Some(guarded) => (guarded, Some(guarded)),
        None => (probabilities, None),
    };
    let context = graph
        .sole_user(probabilities)
        .filter(|user| graph.is(graph.node(*user), "MatMul"))
        .ok_or("the softmax feeds no single product with the values")?;
    Ok(Attention {
        softmax,
        add,
        mask,

        queries: product.input_at(0).unwrap_or_default(),
        scale: behind * before,
        transpose,
        heads_second,
        keys: heads(graph, turned.input_at(0).unwrap_or_default()),
        guarded,
        context,
        values: heads(graph, graph.node(context).input_at(1).unwrap_or_default()),
    })
}

/// The product behind a value, through constant scales; the value itself, and the factor.
fn scores<'g>(graph: &Graph<'g>, value: &'g str) -> Option<(NodeId, &'g str, f32)> {
    let (at, factor) = scaled(graph, value);
    let (id, _) = graph.maker_of(at, "MatMul")?;
    Some((id, value, factor))
}

/// What a value is before it is multiplied with or divided by single constants, and their factor.
fn scaled<'g>(graph: &Graph<'g>, value: &'g str) -> (&'g str, f32) {
    let (mut at, mut factor) = (value, 1.0);
    while let Some((next, by)) = unscaled(graph, at) {
        (at, factor) = (next, factor * by);
    }
    (at, factor)
}

fn unscaled<'g>(graph: &Graph<'g>, value: &'g str) -> Option<(&'g str, f32)> {
    let id = graph.maker(value)?;
    let node = graph.node(id);
    let single = |name: &str| match graph.constant_f32(name)? {
        (_, values) if values.len() == 1 => Some(values[0]),
        _ => None,
    };
    match node.op_type() {
        op if !graph.is(node, op) => None,
        "Mul" => {
            let (factor, from) = graph.constant_operand(id)?;
            Some((from, single(factor)?))
        }
        "Div" => Some((node.input_at(0)?, 1.0 / single(node.input_at(1)?)?)),
        _ => None,
    }
}

/// `Where(IsNaN(p), 0, p)`: what probabilities become behind a guard.
fn guard<'g>(graph: &Graph<'g>, probabilities: &str) -> Option<&'g str> {
    let find = |op: &str| {
        let mut users = graph.users(probabilities).iter().map(|&id| graph.node(id));
        users.find(|node| graph.is(node, op))
    };
    let (is_nan, choice) = (find("IsNaN")?, find("Where")?);
    let zero = graph.constant_f32(choice.input_at(1)?)?.1;
    let fits = choice.input_at(0) == is_nan.output_at(0)
        && choice.input_at(2) == Some(probabilities)
        && zero == [0.0]
        && graph.users(probabilities).len() == 2
        && graph.sole_user(is_nan.output_at(0)?).is_some()
        && !graph.is_pinned(choice.output_at(0)?);
    if fits { choice.output_at(0) } else { None }
}

/// Keys or values, with what they are before `Reshape(Expand(Unsqueeze(x, 2)))` repeats their heads.
fn heads<'g>(graph: &Graph<'g>, read: &'g str) -> Heads<'g> {
    let (whole, repeats) = repeated(graph, read).unwrap_or((read, 1));
    Heads { read, whole, repeats }
}

fn repeated<'g>(graph: &Graph<'g>, value: &str) -> Option<(&'g str, usize)> {
    let (_, merged) = graph.maker_of(value, "Reshape")?;
    let (_, expanded) = graph.maker_of(merged.input_at(0)?, "Expand")?;
    let (_, opened) = graph.maker_of(expanded.input_at(0)?, "Unsqueeze")?;
    if graph.list(opened) != List::Given(vec![2]) {
        return None;
    }
    let shape = expanded.input_at(1)?;
    let repeats = match graph.constant_i64(shape) {
        Some(dims) => *dims.get(2)?,
        None => {
            let parts = dimensions(graph, shape)?;
            *graph.constant_i64(parts.input_at(2).filter(|_| parts.input.len() == 5)?)?.first()?
        }
    };
    Some((opened.input_at(0)?, usize::try_from(repeats).ok().filter(|&n| n > 0)?))
}

/// The concatenation that makes a shape, behind the choice that replaces -1 and behind reshapes.
fn dimensions<'g>(graph: &Graph<'g>, shape: &str) -> Option<&'g NodeProto> {
    let node = graph.node(graph.maker(shape)?);
    match node.op_type() {
        op if !graph.is(node, op) => None,
        "Concat" => Some(node),
        "Reshape" => dimensions(graph, node.input_at(0)?),
        "Where" => dimensions(graph, node.input_at(2)?),
        _ => None,
    }
}

impl Heads<'_> {
    /// Whether a cache is concatenated to them.
    pub(super) fn has_cache(&self, graph: &Graph<'_>) -> bool {
        let made = graph.maker(self.whole).map(|id| graph.node(id));
        made.is_some_and(|node| {
            graph.is(node, "Concat") && node.input.iter().any(|input| graph.is_input(input))
        })
    }

    /// Number and size of the heads of a cache, as its input declares them.
    pub(super) fn declared(&self, graph: &Graph<'_>) -> Option<(usize, usize)> {
        let node = graph.node(graph.maker(self.whole)?);
        let past = node.input.iter().find(|input| input.starts_with(PAST))?;
        let dims = graph.proto().input.iter().find(|input| input.name() == past)?.dims();
        Some((dims.get(1)?.parse().ok()?, dims.get(3)?.parse().ok()?))
    }
}

/// Every value that depends on `from`.
pub(super) fn descendants<'g>(graph: &Graph<'g>, from: &'g str) -> HashSet<&'g str> {
    let mut found = HashSet::from([from]);
    let mut open = vec![from];
    while let Some(value) = open.pop() {
        for &user in graph.users(value) {
            for output in &graph.node(user).output {
                if found.insert(output) {
                    open.push(output);
                }
            }
        }
    }
    found
}
