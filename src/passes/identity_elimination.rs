use super::{Pass, Skip};
use crate::ir::{Graph, NodeId, NodeProto, Patch};

/// Nodes whose output is their input.
pub(super) struct IdentityElimination;

impl Pass for IdentityElimination {
    fn name(&self) -> &'static str {
        "identity-elimination"
    }

    fn rules(&self) -> &'static str {
        "Identity(x) => x\n\
         Dropout(x) in inference => x\n\
         Transpose<perm = 0, 1, 2, …>(x) => x\n\
         Concat(x) => x\n\
         Pad(x, zeros) => x\n\
         not: where the output is a graph output"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let node = graph.node(id);
        if !is_identity(graph, node) {
            return Err(Skip::NoMatch);
        }
        let (Some(input), Some(output)) = (node.input_at(0), node.output_at(0)) else {
            return Err(Skip::NoMatch);
        };
        if graph.is_pinned(output) {
            return Err(Skip::NoEffect);
        }
        Ok(Patch::at(id).remove(id).redirect(output, input))
    }
}

fn is_identity(graph: &Graph<'_>, node: &NodeProto) -> bool {
    let unused = |at: usize| {
        node.output
            .get(at)
            .is_none_or(|o| o.is_empty() || graph.users(o).is_empty() && !graph.is_pinned(o))
    };
    match node.op_type() {
        _ if !node.is(node.op_type()) => false,
        "Identity" => true,
        // The third input, training_mode, is off where it is absent.
        "Dropout" => node.input_at(2).is_none() && unused(1),
        "Transpose" => node
            .attr_ints("perm")
            .is_some_and(|p| !p.is_empty() && p.iter().enumerate().all(|(i, &p)| i as i64 == p)),
        "Concat" => node.input.len() == 1,
        "Pad" => node
            .input_at(1)
            .and_then(|pads| graph.constant_i64(pads))
            .is_some_and(|pads| pads.iter().all(|&p| p == 0)),
        _ => false,
    }
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
