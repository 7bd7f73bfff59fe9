//! Reads attention off a graph as exporters write it.

use std::collections::HashSet;

use super::surgery::Refused;
use crate::ir::{Graph, List, NodeId, NodeProto};

/// The length of a call's tokens, as `transformers` names it.
pub(super) const LENGTH: &str = "sequence_length";
/// The length of what is cached.
pub(super) const PAST_LENGTH: &str = "past_sequence_length";
/// That of both.
pub(super) const TOTAL: &str = "past_sequence_length + sequence_length";

/// One attention: `softmax(Q · Kᵀ + mask) · V`, scales anywhere before the mask.
pub(super) struct Attention<'g> {
    pub(super) softmax: NodeId,
    /// The addition of the mask, and the mask.
    pub(super) add: NodeId,
    pub(super) mask: &'g str,
    /// The queries, as their product with the keys reads them.
    pub(super) queries: &'g str,
    /// The product of the scale factors after the queries and keys.
    pub(super) scale: f32,
    pub(super) transpose: NodeId,
    /// Whether the keys are [batch, heads, sequence, size]; otherwise [batch, sequence, heads, size], and one
    /// transpose does what two would.
    pub(super) heads_second: bool,
    pub(super) keys: Heads<'g>,
    /// Probabilities that are not a number are replaced by zeros after the softmax: what they become.
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

impl Attention<'_> {
    /// Whether the rows of the queries are those of several heads: the product with the values is cut into heads
    /// before these are moved.
    pub(super) fn is_grouped(&self, graph: &Graph<'_>) -> bool {
        let output = graph.node(self.context).output_at(0).unwrap_or_default();
        graph.users(output).iter().any(|&user| graph.is(graph.node(user), "Reshape"))
    }
}

/// Every attention of a graph, in its order.
///
/// # Errors
/// [`Refused::Attention`] names the softmax of one that is not understood.
pub(super) fn attentions<'g>(graph: &Graph<'g>) -> Result<Vec<Attention<'g>>, Refused> {
    let softmaxes = graph.nodes().filter(|(_, node)| graph.is(node, "Softmax"));
    let read = |(id, node)| read(graph, id).map_err(|why| Refused::attention(node, why));
    let attentions = softmaxes.map(read).collect::<Result<Vec<_>, _>>()?;
    if attentions.is_empty() {
        let why = "the graph has no softmax, so no attention".to_owned();
        return Err(Refused::Attention { at: None, why });
    }
    Ok(attentions)
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
    let (scores, from, after) = operands
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
        _ => return Err("the transpose of the keys doesn't keep an axis of heads"),
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
        scale: after * before,
        transpose,
        heads_second,
        keys: heads(graph, turned.input_at(0).unwrap_or_default()),
        guarded,
        context,
        values: heads(graph, graph.node(context).input_at(1).unwrap_or_default()),
    })
}

/// The product that a value comes from, through constant scales; the value itself, and the factor.
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

/// `Where(IsNaN(p), 0, p)`: what probabilities become after a guard.
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

/// The concatenation that makes a shape, before the choice that replaces -1 and before reshapes.
fn dimensions<'g>(graph: &Graph<'g>, shape: &str) -> Option<&'g NodeProto> {
    let mut node = graph.node(graph.maker(shape)?);
    loop {
        let from = match node.op_type() {
            op if !graph.is(node, op) => return None,
            "Concat" => return Some(node),
            "Reshape" => node.input_at(0)?,
            "Where" => node.input_at(2)?,
            _ => return None,
        };
        node = graph.node(graph.maker(from)?);
    }
}

impl Heads<'_> {
    /// The input that they are concatenated to, if a cache is.
    pub(super) fn cache<'g>(&self, graph: &Graph<'g>) -> Option<&'g str> {
        let (_, concat) = graph.maker_of(self.whole, "Concat")?;
        concat.input.iter().map(String::as_str).find(|input| graph.is_input(input))
    }

    /// Their number and size, as far as a noted shape or the nodes that make them say.
    pub(super) fn shape(&self, graph: &Graph<'_>, heads_second: bool) -> [Option<usize>; 2] {
        let mut extents = [None; 2];
        let (mut at, mut axes) = (self.whole, if heads_second { [1, 3] } else { [2, 3] });
        // Exporters write three or four nodes between a projection and its heads.
        for _ in 0..16 {
            let noted = graph.noted(at).map(|info| info.dims());
            for (extent, axis) in extents.iter_mut().zip(axes) {
                let noted = noted.as_ref().and_then(|dims| dims.get(axis)?.parse().ok());
                *extent = extent.or(noted);
            }
            let Some(from) = before(graph, at, &mut axes, &mut extents) else { break };
            at = from;
        }
        extents
    }
}

/// The value of four axes that a node moves or cuts to make this one. The axes become those that they were, and the
/// extents what the node says of them.
fn before<'g>(
    graph: &Graph<'g>,
    value: &str,
    axes: &mut [usize; 2],
    extents: &mut [Option<usize>; 2],
) -> Option<&'g str> {
    let node = graph.node(graph.maker(value).filter(|_| extents.contains(&None))?);
    let mut says = |at: usize, extent: Option<&i64>| {
        let extent = extent.and_then(|&n| usize::try_from(n).ok()).filter(|&n| n > 0);
        extents[at] = extents[at].or(extent);
    };
    match node.op_type() {
        op if !graph.is(node, op) => return None,
        "Identity" | "Cast" => {}
        "Transpose" => {
            let perm = node.attr_ints("perm").filter(|perm| perm.len() == 4)?;
            *axes = axes.map(|axis| usize::try_from(perm[axis]).unwrap_or(usize::MAX));
            axes.iter().all(|&axis| axis < 4).then_some(())?;
        }
        "Split" => {
            let axis = node.attr_i("axis", 0);
            let axis = if axis < 0 { axis + 4 } else { axis };
            if let Some(at) = axes.iter().position(|&own| own as i64 == axis) {
                let List::Given(sizes) = graph.list(node) else { return None };
                says(at, sizes.get(node.output.iter().position(|output| output == value)?));
            }
        }
        "Reshape" => {
            for (at, &axis) in axes.iter().enumerate() {
                match (graph.list(node), node.input_at(1)) {
                    (List::Given(dims), _) if dims.len() == 4 => says(at, dims.get(axis)),
                    (List::Unknown, Some(shape)) => {
                        let parts = dimensions(graph, shape).filter(|parts| parts.input.len() == 4)?;
                        says(at, graph.constant_i64(parts.input_at(axis)?).unwrap_or_default().first());
                    }
                    _ => return None,
                }
            }
            return None;
        }
        _ => return None,
    }
    node.input_at(0)
}

/// Every value that depends on `from`.
pub(super) fn descendants<'g>(graph: &Graph<'g>, from: &'g str) -> HashSet<&'g str> {
    let mut reached = HashSet::from([from]);
    let mut open = vec![from];
    while let Some(value) = open.pop() {
        for &user in graph.users(value) {
            for output in &graph.node(user).output {
                if reached.insert(output) {
                    open.push(output);
                }
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Model, TestGraph, initializer_i64, node};

    /// Heads as `torch.onnx` writes those of one product for queries, keys and values: a shape that is put
    /// together, a split along the heads, a transpose.
    fn split(perm: [i64; 4]) -> Model {
        let number = |name: &str, n: i64| initializer_i64(name, &[1], &[n]);
        TestGraph::new()
            .input("x", &["batch", "sequence", "48"])
            .initializer(number("batch", 1))
            .initializer(number("open", -1))
            .initializer(number("heads", 6))
            .initializer(number("size", 8))
            .initializer(initializer_i64("sizes", &[2], &[4, 2]))
            .node(node("Concat", ["batch", "open", "heads", "size"], "shape").int("axis", 0))
            .node(node("Reshape", ["x", "shape"], "third"))
            .node(node("Split", ["third", "sizes"], "queries").output("keys").int("axis", -2))
            .node(node("Transpose", ["keys"], "second").ints("perm", perm))
            .output("queries", &["batch", "sequence", "4", "8"])
            .output("second", &["batch", "a", "b", "c"])
            .model()
    }

    #[test]
    fn heads_are_read_off_the_nodes_that_make_them() {
        let shape = |model: &Model, value: &str, heads_second| {
            let heads = Heads { read: value, whole: value, repeats: 1 };
            heads.shape(&model.graph(), heads_second)
        };
        let model = split([0, 2, 1, 3]);
        assert_eq!(shape(&model, "second", true), [Some(2), Some(8)]);
        assert_eq!(shape(&model, "keys", false), [Some(2), Some(8)]);
        // An output, of which the file notes the shape.
        assert_eq!(shape(&model, "queries", false), [Some(4), Some(8)]);
        // Axes that don't mean what they should are numbers all the same, and not those that were meant.
        assert_eq!(shape(&model, "second", false), [None, Some(8)]);
        for perm in [[0, 2, 1, 9], [0, -1, 1, 3]] {
            assert_eq!(shape(&split(perm), "second", true), [None, None]);
        }
        assert_eq!(shape(&model, "x", true), [None, None]);
    }
}
