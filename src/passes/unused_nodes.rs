use super::{Pass, Skip, require};
use crate::ir::{Graph, NodeId, Patch};

/// Nodes without a use go.
pub(super) struct UnusedNodes;

impl Pass for UnusedNodes {
    fn name(&self) -> &'static str {
        "unused-nodes"
    }

    fn rules(&self) -> &'static str {
        "y = f(x), y neither used nor an output  =>  nothing\n\
         w, an initializer that nothing uses  =>  nothing\n\
         not: an operator of another domain without outputs, which is there for what else it does"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let used = |output: &String| !graph.users(output).is_empty() || graph.is_pinned(output);
        let node = graph.node(id);
        let acts = !graph.is(node, node.op_type()) && node.output.iter().all(String::is_empty);
        if !(acts || node.output.iter().any(used)) {
            return Ok(Patch::at(id).remove(id));
        }
        // Constants stand at no node: they go with the first one.
        require(id == NodeId(0))?;
        let unused: Vec<String> = graph.unused_constants().map(str::to_owned).collect();
        require(!unused.is_empty())?;
        Ok(Patch::at(id).release(unused))
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

    #[test]
    fn constants_that_nothing_uses_go_too() {
        let model = || {
            TestGraph::new()
                .input("x", &["1"])
                .input("given", &["1"])
                .initializer(f32s("w", &[1], &[1.0]))
                .initializer(f32s("given", &[1], &[1.0]))
                .node(node("Neg", ["x"], "y"))
                .output("y", &["1"])
                .model()
        };
        let left = |model: &Model| {
            model.graph_proto().initializer.iter().map(|t| t.name().to_owned()).collect::<Vec<_>>()
        };
        let mut swept = model();
        assert_eq!(apply(&mut swept, "unused-nodes"), 1);
        assert_eq!(left(&swept), ["given"]);
        let mut other = model();
        assert_eq!(apply(&mut other, "fold-scale"), 0);
        assert_eq!(left(&other), ["w", "given"]);
    }

    #[test]
    fn an_operator_of_another_domain_without_outputs_stays() {
        let print = |domain: &str| {
            let mut print = node("Print", ["x"], "").domain(domain).build();
            print.output.clear();
            let graph = TestGraph::new().input("x", &["1"]).node(node("Neg", ["x"], "y"));
            let mut proto = graph.output("y", &["1"]).model().proto().clone();
            proto.graph.as_mut().unwrap().node.push(print);
            apply(&mut Model::from_proto(proto, "test.onnx").unwrap(), "unused-nodes")
        };
        assert_eq!((print("other"), print("")), (0, 1));
    }
}
