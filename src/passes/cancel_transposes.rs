use std::collections::{HashMap, HashSet, VecDeque};

use super::{Pass, Skip, from_front, matched, only};
use crate::ir::{Graph, NodeBuilder, NodeId, NodeProto, Patch, node};

/// A transpose that a later one undoes goes, with every elementwise node between them done in the
/// original layout.
pub(super) struct CancelTransposes;

/// Elementwise operators of one input (further inputs of `Clip` are scalars).
const UNARY: &[&str] = &[
    "Abs", "Ceil", "Clip", "Cos", "Erf", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Relu", "Round",
    "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Tanh", "Cast", "Identity",
];
/// Elementwise operators of two inputs.
const BINARY: &[&str] = &["Add", "Div", "Mul", "Pow", "Sub"];

/// Attributes of Split, in all its versions.
const SPLIT: &[&str] = &["axis", "split", "num_outputs"];

impl Pass for CancelTransposes {
    fn name(&self) -> &'static str {
        "cancel-transposes"
    }

    fn rules(&self) -> &'static str {
        "Transpose<q>(f(Transpose<p>(x)…))  =>  f(x…)   where q undoes p\n\
         f: any tree of elementwise operators and Split, whose every way out is such a Transpose<q> and\n\
         whose other inputs are single-element constants or Transpose<p>(…) themselves\n\
         not: where a value between them is a graph output"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let perm = matched(perm(graph, graph.node(id)))?;
        let region = matched(Region::grow(graph, id, &perm))?;
        Ok(region.patch(graph, &perm))
    }
}

fn perm(graph: &Graph<'_>, node: &NodeProto) -> Option<Vec<i64>> {
    let plain = graph.is(node, "Transpose") && node.input.len() == 1 && node.output.len() == 1;
    let named = node.input_at(0).is_some() && node.output_at(0).is_some();
    node.attr_ints("perm").filter(|perm| plain && named && !perm.is_empty()).map(<[i64]>::to_vec)
}

fn undoes(q: &[i64], p: &[i64]) -> bool {
    q.len() == p.len() && q.iter().enumerate().all(|(i, &at)| p.get(at as usize) == Some(&(i as i64)))
}

/// What lies between transposes in and transposes out.
struct Region {
    entries: HashSet<NodeId>,
    inner: Vec<NodeId>,
    exits: Vec<NodeId>,
}

impl Region {
    fn grow(graph: &Graph<'_>, start: NodeId, p: &[i64]) -> Option<Self> {
        let mut entries = HashSet::from([start]);
        let mut inner = HashSet::new();
        let mut exits = HashSet::new();
        let mut open: VecDeque<&str> = VecDeque::from([graph.node(start).output[0].as_str()]);
        while let Some(value) = open.pop_front() {
            if graph.is_pinned(value) {
                return None;
            }
            for &user in graph.users(value) {
                let node = graph.node(user);
                if perm(graph, node).is_some_and(|q| undoes(&q, p)) {
                    exits.insert(user);
                    continue;
                }
                if !inner.insert(user) {
                    continue;
                }
                let data = elementwise(graph, node)?;
                if node.op_type() == "Split" {
                    only(node, SPLIT).ok()?;
                    split_axis(node, p.len())?;
                }
                for (at, input) in node.input.iter().enumerate().filter(|(_, input)| !input.is_empty())
                {
                    if at >= data {
                        // Bounds of Clip, lengths of Split: they don't depend on the layout.
                        graph.initializer(input)?;
                        continue;
                    }
                    let single = |dims: &[i64]| dims.iter().all(|&d| d == 1) && dims.len() <= p.len();
                    if graph.initializer(input).is_some_and(|t| single(&t.dims)) {
                        continue;
                    }
                    let maker = graph.maker(input)?;
                    if perm(graph, graph.node(maker)).is_some_and(|other| other == p) {
                        if entries.insert(maker) {
                            open.push_back(input);
                        }
                    } else if !inner.contains(&maker) {
                        // Its maker must turn out to be inside; checked below.
                        elementwise(graph, graph.node(maker))?;
                    }
                }
                open.extend(node.output.iter().filter(|o| !o.is_empty()).map(String::as_str));
            }
        }
        let inside = |input: &&String| {
            graph.initializer(input).is_some()
                || graph.maker(input).is_some_and(|m| inner.contains(&m) || entries.contains(&m))
        };
        let closed = inner
            .iter()
            .all(|&id| graph.node(id).input.iter().filter(|i| !i.is_empty()).all(|i| inside(&i)));
        if !closed || exits.is_empty() {
            return None;
        }
        let sorted = |set: HashSet<NodeId>| {
            let mut list: Vec<NodeId> = set.into_iter().collect();
            list.sort_unstable();
            list
        };
        Some(Self { entries, inner: sorted(inner), exits: sorted(exits) })
    }

    fn patch(self, graph: &Graph<'_>, p: &[i64]) -> Patch {
        let mut gone: Vec<NodeId> = Vec::new();
        gone.extend(self.entries.iter().chain(&self.inner).chain(&self.exits));
        gone.sort_unstable();
        let mut patch = Patch::at(*gone.last().expect("has an entry"));
        let mut renamed: HashMap<&str, String> = HashMap::new();
        for &id in &self.entries {
            let node = graph.node(id);
            renamed.insert(&node.output[0], node.input[0].clone());
        }
        for &id in &self.inner {
            let old = graph.node(id);
            let input = |name: &String| renamed.get(name.as_str()).unwrap_or(name).clone();
            let inputs = old.input.iter().map(input).collect();
            let output = |name: &String| match name.is_empty() {
                true => String::new(),
                false => patch.fresh(graph, &format!("{name}/untransposed")),
            };
            let outputs: Vec<String> = old.output.iter().map(output).collect();
            patch.insert(in_layout(old, inputs, &outputs, p));
            let names = old.output.iter().map(String::as_str).zip(outputs);
            renamed.extend(names.filter(|(name, _)| !name.is_empty()));
        }
        let mut redirected = Vec::new();
        for &id in &self.exits {
            let exit = graph.node(id);
            let source = renamed[exit.input[0].as_str()].clone();
            if graph.is_pinned(&exit.output[0]) {
                patch.insert(node("Identity", [source], &exit.output[0]));
            } else {
                redirected.push((exit.output[0].clone(), source));
            }
        }
        patch = gone.into_iter().fold(patch, Patch::remove);
        redirected.into_iter().fold(patch, |patch, (old, new)| patch.redirect(old, new))
    }
}

/// How many leading inputs of an elementwise node are data.
fn elementwise(graph: &Graph<'_>, node: &NodeProto) -> Option<usize> {
    match node.op_type() {
        op if !graph.is(node, op) || node.output.is_empty() => None,
        // Of any number of inputs, all of them data.
        "Max" | "Min" => Some(node.input.len()),
        op if UNARY.contains(&op) => Some(1),
        op if BINARY.contains(&op) => Some(2),
        "Split" => Some(1),
        _ => None,
    }
}

/// The axis of a Split, counted from the front; none where the rank has no such axis.
fn split_axis(node: &NodeProto, rank: usize) -> Option<usize> {
    from_front(node.attr_i("axis", 0), rank)
}

/// The node, computing on the untransposed layout.
fn in_layout(old: &NodeProto, inputs: Vec<String>, outputs: &[String], p: &[i64]) -> NodeBuilder {
    let new = node(old.op_type(), inputs, &outputs[0]).named(old.name());
    let new = outputs[1..].iter().fold(new, NodeBuilder::output);
    if old.op_type() != "Split" {
        return old.attribute.iter().cloned().fold(new, NodeBuilder::attribute);
    }
    let axis = split_axis(old, p.len()).expect("checked when the region grew");
    let lengths = old.attr_ints("split").into_iter();
    let new = lengths.fold(new.int("axis", p[axis]), |new, lengths| new.ints("split", lengths));
    let count = old.attr("num_outputs").into_iter();
    count.fold(new, |new, count| new.int("num_outputs", count.i()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn a_pair_cancels() {
        let mut model = TestGraph::new()
            .input("x", &["2", "3", "4"])
            .node(node("Transpose", ["x"], "a").ints("perm", [1, 2, 0]))
            .node(node("Transpose", ["a"], "b").ints("perm", [2, 0, 1]))
            .node(node("Neg", ["b"], "y"))
            .output("y", &["2", "3", "4"])
            .model();
        let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let before = run(&model, &[("x", &[2, 3, 4], &x)]);
        assert_eq!(apply(&mut model, "cancel-transposes"), 1);
        assert_eq!(ops(&model), ["Neg"]);
        assert_eq!(run(&model, &[("x", &[2, 3, 4], &x)]), before);
    }

    /// The polar-to-rectangular head of a vocoder: two ways out of one transpose.
    fn head(second_exit: &[i64]) -> Model {
        TestGraph::new()
            .input("x", &["b", "t", "6"])
            .initializer(f32s("top", &[], &[1.5]))
            .node(node("Transpose", ["x"], "c").ints("perm", [0, 2, 1]))
            .node(node("Split", ["c"], "m").output("p").int("axis", 1))
            .node(node("Exp", ["m"], "e"))
            .node(node("Clip", ["e", "", "top"], "k"))
            .node(node("Cos", ["p"], "cos"))
            .node(node("Sin", ["p"], "sin"))
            .node(node("Mul", ["k", "cos"], "re"))
            .node(node("Mul", ["k", "sin"], "im"))
            .node(node("Transpose", ["re"], "r").ints("perm", [0, 2, 1]))
            .node(node("Transpose", ["im"], "i").ints("perm", second_exit.to_vec()))
            .output("r", &["b", "t", "3"])
            .output("i", &["b", "t", "3"])
            .model()
    }

    #[test]
    fn a_region_moves_into_the_original_layout() {
        let mut model = head(&[0, 2, 1]);
        let x: Vec<f32> = (0..2 * 5 * 6).map(|i| (i as f32 * 0.37).sin()).collect();
        let before = run(&model, &[("x", &[2, 5, 6], &x)]);
        assert_eq!(apply(&mut model, "cancel-transposes"), 1);
        assert!(!ops(&model).contains(&"Transpose"));
        assert_eq!(run(&model, &[("x", &[2, 5, 6], &x)]), before);
    }

    #[test]
    fn a_way_out_in_another_layout_keeps_all() {
        let mut model = TestGraph::new()
            .input("x", &["2", "3"])
            .node(node("Transpose", ["x"], "a").ints("perm", [1, 0]))
            .node(node("Exp", ["a"], "b"))
            .node(node("Transpose", ["b"], "r").ints("perm", [1, 0]))
            .node(node("Neg", ["b"], "n"))
            .output("r", &["2", "3"])
            .output("n", &["3", "2"])
            .model();
        assert_eq!(apply(&mut model, "cancel-transposes"), 0);
        assert_eq!(apply(&mut head(&[2, 0, 1]), "cancel-transposes"), 0);
    }

    #[test]
    fn a_vector_along_one_axis_keeps_all() {
        let mut model = TestGraph::new()
            .input("x", &["2", "3"])
            .initializer(f32s("v", &[2], &[1.0, 2.0]))
            .node(node("Transpose", ["x"], "a").ints("perm", [1, 0]))
            .node(node("Mul", ["a", "v"], "b"))
            .node(node("Transpose", ["b"], "c").ints("perm", [1, 0]))
            .node(node("Neg", ["c"], "y"))
            .output("y", &["2", "3"])
            .model();
        assert_eq!(apply(&mut model, "cancel-transposes"), 0);
    }

    #[test]
    fn attributes_of_old_opsets_move_with_their_nodes() {
        for opset in OPSETS {
            let graph = TestGraph::new()
                .versions(8, opset)
                .input("x", &["b", "t", "6"])
                .node(node("Transpose", ["x"], "c").ints("perm", [0, 2, 1]));
            let split = node("Split", ["c"], "m").output("p").int("axis", 1);
            let graph = match opset {
                ..11 => {
                    let bounds = node("Clip", ["m"], "k").attr("max", Attr::Float(0.5));
                    graph.node(split.ints("split", [3, 3])).node(bounds)
                }
                11..13 => {
                    let graph =
                        graph.initializer(f32s("top", &[], &[0.5])).node(split.ints("split", [3, 3]));
                    graph.node(node("Clip", ["m", "", "top"], "k"))
                }
                _ => {
                    let split = node("Split", ["c", "sizes"], "m").output("p").int("axis", 1);
                    let graph = graph.initializer(i64s("sizes", &[2], &[3, 3])).node(split);
                    let graph = graph.initializer(f32s("top", &[], &[0.5]));
                    graph.node(node("Clip", ["m", "", "top"], "k"))
                }
            };
            let mut model = graph
                .node(node("Mul", ["k", "p"], "s"))
                .node(node("Transpose", ["s"], "y").ints("perm", [0, 2, 1]))
                .output("y", &["b", "t", "3"])
                .model();
            let x: Vec<f32> = (0..2 * 5 * 6).map(|i| (i as f32 * 0.37).sin()).collect();
            let before = run(&model, &[("x", &[2, 5, 6], &x)]);
            assert_eq!(apply(&mut model, "cancel-transposes"), 1, "opset {opset}");
            assert!(!ops(&model).contains(&"Transpose"));
            assert_eq!(run(&model, &[("x", &[2, 5, 6], &x)]), before, "opset {opset}");
        }
    }

    #[test]
    fn operators_of_another_domain_keep_all() {
        let between = |domain: &str| {
            let graph = TestGraph::new().input("x", &["2", "3"]);
            let graph = graph.node(node("Transpose", ["x"], "a").ints("perm", [1, 0]));
            let graph = graph.node(node("Exp", ["a"], "b").domain(domain));
            let graph = graph.node(node("Transpose", ["b"], "c").ints("perm", [1, 0]));
            graph.node(node("Neg", ["c"], "y")).output("y", &["2", "3"]).model()
        };
        assert_eq!(apply(&mut between("other"), "cancel-transposes"), 0);
        assert_eq!(apply(&mut between(""), "cancel-transposes"), 1);
    }
}
