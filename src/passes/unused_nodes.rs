use super::{Pass, Skip};
use crate::ir::{Graph, NodeId, Patch};

/// Nodes without a use go.
pub(super) struct UnusedNodes;

impl Pass for UnusedNodes {
    fn name(&self) -> &'static str {
        "unused-nodes"
    }

    fn rules(&self) -> &'static str {
        "y = f(x), y neither used nor an output  =>  nothing"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let used = |output: &String| !graph.users(output).is_empty() || graph.is_pinned(output);
        if graph.node(id).output.iter().any(used) {
            return Err(Skip::NoMatch);
        }
        Ok(Patch::at(id).remove(id))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn a_chain_without_a_use_goes_whole() {
        let mut model = TestGraph::new()
            .input("x", &["2"])
            .initializer(f32s("w", &[2], &[1.0, 2.0]))
            .node(node("Mul", ["x", "w"], "a"))
            .node(node("Neg", ["a"], "b"))
            .node(node("Abs", ["x"], "y"))
            .output("y", &["2"])
            .model();
        assert_eq!(apply(&mut model, "unused-nodes"), 2);
        assert_eq!(ops(&model), ["Abs"]);
        assert!(model.graph_proto().initializer.is_empty());
    }
}
