use super::{Pass, Skip, matched, require};
use crate::ir::{Graph, NodeId, NodeProto, Patch, same_attributes};

/// Two nodes that compute the same become one.
pub(super) struct CommonSubexpressionElimination;

impl Pass for CommonSubexpressionElimination {
    fn name(&self) -> &'static str {
        "common-subexpression-elimination"
    }

    fn rules(&self) -> &'static str {
        "a = f(x…), b = f(x…), same operator, inputs and attributes bit by bit, a before b  =>  b is a\n\
         f of ONNX's own domain, or a function of the model\n\
         not: random operators, functions that use one, operators of other domains, nodes with nested graphs,\n\
         outputs of the graph"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let node = graph.node(id);
        let first = matched(node.input.iter().find(|input| !input.is_empty()))?;
        require(node.nested().next().is_none())?;
        let twin = graph
            .users(first)
            .iter()
            .take_while(|&&other| other < id)
            .find(|&&other| same(graph.node(other), node));
        let twin = graph.node(*matched(twin)?);
        require(graph.is_pure(node))?;
        if node.output.iter().any(|output| graph.is_pinned(output)) {
            return Err(Skip::NoEffect);
        }
        let pairs = node.output.iter().zip(&twin.output).filter(|(mine, _)| !mine.is_empty());
        Ok(pairs.fold(Patch::at(id).remove(id), |patch, (mine, theirs)| patch.redirect(mine, theirs)))
    }
}

fn same(a: &NodeProto, b: &NodeProto) -> bool {
    let present = |n: &NodeProto| n.output.iter().map(|o| o.is_empty()).collect::<Vec<_>>();
    a.op_type == b.op_type
        && a.domain() == b.domain()
        && a.overload() == b.overload()
        && a.input == b.input
        && same_attributes(&a.attribute, &b.attribute)
        && present(a) == present(b)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn twins_become_one() {
        let mut model = TestGraph::new()
            .input("x", &["2"])
            .node(node("Neg", ["x"], "a"))
            .node(node("Neg", ["x"], "b"))
            .node(node("Mul", ["a", "b"], "y"))
            .output("y", &["2"])
            .model();
        let before = run(&model, &[("x", &[2], &[3.0, -1.0])]);
        assert_eq!(apply(&mut model, "common-subexpression-elimination"), 1);
        assert_eq!(ops(&model), ["Neg", "Mul"]);
        assert_eq!(run(&model, &[("x", &[2], &[3.0, -1.0])]), before);
    }

    #[test]
    fn other_attributes_or_chance_keep_both() {
        let mut model = TestGraph::new()
            .input("x", &["2"])
            .node(node("Softmax", ["x"], "a").int("axis", 0))
            .node(node("Softmax", ["x"], "b").int("axis", -1))
            .node(node("RandomNormalLike", ["x"], "c"))
            .node(node("RandomNormalLike", ["x"], "d"))
            .node(node("Sum", ["a", "b", "c", "d"], "y"))
            .output("y", &["2"])
            .model();
        assert_eq!(apply(&mut model, "common-subexpression-elimination"), 0);
    }

    #[test]
    fn attributes_are_compared_by_their_bits() {
        let twins = |op: &str, a: Attr, b: Attr| {
            let with = |value: Attr, output: &str| match op {
                "LeakyRelu" => node(op, ["x"], output).attr("alpha", value),
                _ => node(op, ["n"], output).attr("value", value),
            };
            let mut model = TestGraph::new()
                .input("x", &["2"])
                .input_i64("n", &["1"])
                .node(with(a, "a"))
                .node(with(b, "b"))
                .node(node("Concat", ["a", "b"], "y").int("axis", 0))
                .output("y", &["4"])
                .model();
            apply(&mut model, "common-subexpression-elimination")
        };
        let typed = |value: f32| {
            let mut tensor = f32s("", &[1], &[value]);
            tensor.raw_data = None;
            tensor.float_data = vec![value];
            Attr::Tensor(tensor)
        };
        let raw = |value: f32| Attr::Tensor(f32s("", &[1], &[value]));
        assert_eq!(twins("LeakyRelu", Attr::Float(0.0), Attr::Float(-0.0)), 0);
        assert_eq!(twins("LeakyRelu", Attr::Float(f32::NAN), Attr::Float(f32::NAN)), 1);
        for of in [&typed as &dyn Fn(f32) -> Attr, &raw] {
            assert_eq!(twins("ConstantOfShape", of(0.0), of(-0.0)), 0);
            assert_eq!(twins("ConstantOfShape", of(-0.0), of(-0.0)), 1);
            assert_eq!(twins("ConstantOfShape", of(f32::NAN), of(f32::NAN)), 1);
        }
    }

    /// The difference of two calls of one function, or operator, of a domain.
    fn difference(op: &str, domain: &str, functions: Vec<crate::ir::FunctionProto>) -> Model {
        let call = |output: &str| node(op, ["x"], output).domain(domain);
        let graph = functions.into_iter().fold(TestGraph::new(), TestGraph::function);
        let graph = graph.input("x", &["2"]).node(call("a")).node(call("b"));
        graph.node(node("Sub", ["a", "b"], "y")).output("y", &["2"]).model()
    }

    #[test]
    fn functions_are_merged_where_they_are_pure() {
        let merged = |model: &mut Model| apply(model, "common-subexpression-elimination");
        let noise = || {
            let sum = node("Add", ["x", "n"], "y");
            function("Noise", [node("RandomNormalLike", ["x"], "n"), sum])
        };
        let twice = || function("Twice", [node("Add", ["x", "x"], "y")]);
        let calls = || function("Calls", [node("Noise", ["x"], "y").domain("local")]);
        assert_eq!(merged(&mut difference("Twice", "local", vec![noise(), twice()])), 1);
        assert_eq!(merged(&mut difference("Noise", "local", vec![noise(), twice()])), 0);
        assert_eq!(merged(&mut difference("Calls", "local", vec![noise(), calls()])), 0);
    }

    #[test]
    fn operators_of_other_domains_or_meanings_are_not_merged() {
        let merged = |model: &mut Model| apply(model, "common-subexpression-elimination");
        assert_eq!(merged(&mut difference("Neg", "", vec![])), 1);
        assert_eq!(merged(&mut difference("Neg", "other", vec![])), 0);
        let mut own = function("Neg", [node("RandomNormalLike", ["x"], "y")]);
        own.domain = None;
        assert_eq!(merged(&mut difference("Neg", "", vec![own])), 0);
    }
}
