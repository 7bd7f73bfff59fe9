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
        let attributes = matched(is_identity(graph, node))?;
        let (Some(input), Some(output)) = (node.input_at(0), node.output_at(0)) else {
            return Err(Skip::NoMatch);
        };
        if graph.is_pinned(output) {
            return Err(Skip::NoEffect);
        }
        only(node, attributes)?;
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
    let (holds, attributes): (bool, &[&str]) = match node.op_type() {
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
    holds.then_some(attributes)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::ir::initializer_raw;
    use crate::ir::proto::tensor_proto::DataType;

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

    fn gone(opset: i64, with: impl FnOnce(TestGraph) -> TestGraph) -> usize {
        let graph = with(TestGraph::new().versions(8, opset).input("x", &["2"]));
        let mut model = graph.node(node("Neg", ["i"], "y")).output("y", &["2"]).model();
        apply(&mut model, "identity-elimination")
    }

    #[test]
    fn dropout_goes_unless_it_trains() {
        let plain = |n: crate::ir::NodeBuilder| move |graph: TestGraph| graph.node(n);
        let mode = |value: u8| {
            move |graph: TestGraph| {
                let bits = vec![value].into();
                let mode = initializer_raw("mode", DataType::Bool, &[], bits);
                let half = f32s("half", &[], &[0.5]);
                let dropout = node("Dropout", ["x", "half", "mode"], "i");
                graph.initializer(mode).initializer(half).node(dropout)
            }
        };
        let ratio = || node("Dropout", ["x"], "i").attr("ratio", Attr::Float(0.5));
        assert_eq!(gone(7, plain(ratio())), 1);
        assert_eq!(gone(10, plain(ratio().output("mask"))), 1);
        assert_eq!((gone(12, mode(0)), gone(12, mode(1))), (1, 0));
        // Before opset 7 it trains unless an attribute says otherwise.
        assert_eq!(gone(6, plain(ratio())), 0);
    }

    #[test]
    fn zeros_around_a_value_are_read_by_the_opset() {
        let attribute = |graph: TestGraph| graph.node(node("Pad", ["x"], "i").ints("pads", [0, 0]));
        let input = |graph: TestGraph| {
            graph.initializer(i64s("pads", &[2], &[0, 0])).node(node("Pad", ["x", "pads"], "i"))
        };
        assert_eq!((gone(10, attribute), gone(11, attribute)), (1, 0));
        assert_eq!((gone(10, input), gone(11, input)), (0, 1));
    }

    #[test]
    fn an_identity_of_another_domain_or_with_more_to_say_stays() {
        let identity = || node("Identity", ["x"], "i");
        assert_eq!(gone(17, |graph| graph.node(identity().domain("other"))), 0);
        assert_eq!(gone(17, |graph| graph.node(identity().int("trace", 1))), 0);
        assert_eq!(gone(17, |graph| graph.node(identity())), 1);
    }
}
