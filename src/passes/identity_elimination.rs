use super::{Pass, Skip, matched, only};
use crate::ir::{Graph, List, NodeId, NodeProto, Patch};
use crate::tensor::DType;

/// Nodes whose output is their input.
pub(super) struct IdentityElimination;

impl Pass for IdentityElimination {
    fn name(&self) -> &'static str {
        "identity-elimination"
    }

    fn rules(&self) -> &'static str {
        "Identity(x) => x\n\
         Dropout(x) without training_mode, or with a constant false, and without a mask in use => x\n\
         Transpose<perm = 0, 1, 2, …>(x) => x\n\
         Concat(x) => x\n\
         Pad(x, zeros) => x\n\
         not: where the output is a graph output, nodes with attributes that their operator does not have"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let node = graph.node(id);
        let known = matched(is_identity(graph, node))?;
        let (Some(input), Some(output)) = (node.input_at(0), node.output_at(0)) else {
            return Err(Skip::NoMatch);
        };
        if graph.is_pinned(output) {
            return Err(Skip::NoEffect);
        }
        only(node, known)?;
        Ok(Patch::at(id).remove(id).redirect(output, input))
    }
}

/// The attributes of the operator, where the node's first output is its first input.
fn is_identity(graph: &Graph<'_>, node: &NodeProto) -> Option<&'static [&'static str]> {
    let unused = |at: usize| {
        node.output
            .get(at)
            .is_none_or(|o| o.is_empty() || graph.users(o).is_empty() && !graph.is_pinned(o))
    };
    let is_false = |input: &str| {
        let mode = graph.constant(input).filter(|mode| mode.dtype() == DType::Bool);
        mode.is_some_and(|mode| mode.bytes()[..] == [0])
    };
    let known: (bool, &[&str]) = match node.op_type() {
        op if !graph.is(node, op) => return None,
        "Identity" => (true, &[]),
        // `ratio` is an attribute before opset 12 and an input since; training_mode is there since.
        "Dropout" => (node.input_at(2).is_none_or(is_false) && unused(1), &["ratio", "seed"]),
        "Transpose" => {
            let perm = node.attr_ints("perm").unwrap_or_default();
            let in_order = perm.iter().enumerate().all(|(i, &p)| i as i64 == p);
            (in_order && !perm.is_empty(), &["perm"])
        }
        "Concat" => (node.input.len() == 1, &["axis"]),
        "Pad" => {
            let zeros = |pads: &[i64]| pads.iter().all(|&p| p == 0);
            let none = matches!(graph.list(node), List::Given(pads) if zeros(&pads));
            (none, &["mode", "value", "pads"])
        }
        _ => return None,
    };
    known.0.then_some(known.1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn identities_go() {
        let mut model = TestGraph::new()
            .input("x", &["2", "3"])
            .node(node("Identity", ["x"], "a"))
            .node(node("Transpose", ["a"], "b").ints("perm", [0, 1]))
            .node(node("Concat", ["b"], "c").int("axis", 0))
            .node(node("Neg", ["c"], "y"))
            .output("y", &["2", "3"])
            .model();
        let feed: Feed<'_> = &[("x", &[2, 3], &[1., 2., 3., 4., 5., 6.])];
        let before = run(&model, feed);
        assert_eq!(apply(&mut model, "identity-elimination"), 3);
        assert_eq!(ops(&model), ["Neg"]);
        assert_eq!(run(&model, feed), before);
    }

    #[test]
    fn what_changes_something_stays() {
        let mut model = TestGraph::new()
            .input("x", &["2", "3"])
            .node(node("Transpose", ["x"], "a").ints("perm", [1, 0]))
            .node(node("Concat", ["a", "a"], "b").int("axis", 0))
            .node(node("Identity", ["b"], "y"))
            .output("y", &["6", "2"])
            .model();
        assert_eq!(apply(&mut model, "identity-elimination"), 0);
    }
}
