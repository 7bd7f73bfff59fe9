use super::{Pass, Skip, matched};
use crate::ir::{Graph, NodeId, Patch, constant_of};

/// `y = Constant()` becomes the initializer `y`.
pub(super) struct LiftConstants;

impl Pass for LiftConstants {
    fn name(&self) -> &'static str {
        "lift-constants"
    }

    fn rules(&self) -> &'static str {
        "y = Constant<value | value_float(s) | value_int(s)>()  =>  initializer y\n\
         an initializer needs no input from IR version 4 on: older files become version 4\n\
         not: a constant that is itself a graph output, strings, sparse tensors"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let node = graph.node(id);
        let name = matched(node.output_at(0).filter(|_| graph.is(node, "Constant")))?;
        if node.attribute.len() != 1 {
            return Err(Skip::Refused("it doesn't have exactly one value"));
        }
        let Some(tensor) = constant_of(node) else {
            return Err(Skip::Refused("a constant of a kind that initializers can't hold"));
        };
        let mut tensor = tensor.into_owned();
        tensor.name = Some(name.to_owned());
        if graph.is_output(name) {
            return Err(Skip::NoEffect);
        }
        let mut patch = Patch::at(id).remove(id);
        patch.initializer(tensor);
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn a_constant_becomes_an_initializer() {
        let constant =
            || node("Constant", NONE, "c").attr("value", Attr::Tensor(f32s("", &[1], &[2.0])));
        let mut model = TestGraph::new()
            .input("x", &["n"])
            .node(constant())
            .node(node("Mul", ["x", "c"], "y"))
            .output("y", &["n"])
            .model();
        let before = run(&model, &[("x", &[3], &[1.0, 2.0, 3.0])]);
        assert_eq!(apply(&mut model, "lift-constants"), 1);
        assert_eq!(ops(&model), ["Mul"]);
        assert_eq!(run(&model, &[("x", &[3], &[1.0, 2.0, 3.0])]), before);
    }

    #[test]
    fn a_constant_that_leaves_the_graph_stays() {
        let constant = node("Constant", NONE, "c").attr("value", Attr::Tensor(f32s("", &[1], &[2.0])));
        let mut model = TestGraph::new().node(constant).output("c", &["1"]).model();
        assert_eq!(apply(&mut model, "lift-constants"), 0);
    }

    #[test]
    fn a_file_in_which_constants_must_be_inputs_becomes_one_in_which_they_need_not() {
        let constant = node("Constant", NONE, "c").attr("value", Attr::Tensor(f32s("", &[1], &[2.0])));
        let mut model = TestGraph::new()
            .versions(3, 8)
            .input("x", &["n"])
            .input("w", &["1"])
            .initializer(f32s("w", &[1], &[5.0]))
            .node(constant)
            .node(node("Mul", ["x", "c"], "p"))
            .node(node("Add", ["p", "w"], "y"))
            .output("y", &["n"])
            .model();
        let feed: Feed<'_> = &[("x", &[2], &[1.0, 3.0])];
        let before = run(&model, feed);
        assert_eq!(apply(&mut model, "lift-constants"), 1);
        assert_eq!(model.proto().ir_version(), 4);
        let inputs: Vec<_> = model.graph_proto().input.iter().map(|input| input.name()).collect();
        assert_eq!(inputs, ["x"]);
        assert!(model.graph().initializer("w").is_some());
        assert_eq!(run(&model, feed), before);
    }

    #[test]
    fn from_version_4_an_input_with_an_initializer_is_open_to_callers() {
        let model = |ir_version: i64| {
            let graph = TestGraph::new().versions(ir_version, 8).input("w", &["1"]);
            let graph = graph.initializer(f32s("w", &[1], &[5.0])).node(node("Neg", ["w"], "y"));
            graph.output("y", &["1"]).model()
        };
        assert!(model(3).graph().initializer("w").is_some() && !model(3).graph().is_input("w"));
        assert!(model(4).graph().initializer("w").is_none() && model(4).graph().is_input("w"));
    }

    #[test]
    fn every_value_that_an_initializer_can_hold_is_lifted_whatever_its_size() {
        let lifted = |constant: crate::ir::NodeBuilder| {
            let graph = TestGraph::new().node(constant).node(node("Identity", ["c"], "y"));
            let mut model = graph.output("y", &["n"]).model();
            assert_eq!(apply(&mut model, "lift-constants"), 1);
            model.graph_proto().initializer[0].clone()
        };
        let constant = || node("Constant", NONE, "c");
        let large = vec![7; 1 << 15];
        assert_eq!(lifted(constant().ints("value_ints", large.clone())), i64s("c", &[1 << 15], &large));
        assert_eq!(lifted(constant().int("value_int", 3)), i64s("c", &[], &[3]));
        assert_eq!(lifted(constant().attr("value_float", Attr::Float(0.5))), f32s("c", &[], &[0.5]));
    }

    #[test]
    fn a_constant_of_two_values_is_refused() {
        let value = || Attr::Tensor(f32s("", &[1], &[2.0]));
        let two =
            node("Constant", NONE, "c").attr("value", value()).attr("value_float", Attr::Float(1.0));
        let graph = TestGraph::new().node(two).node(node("Neg", ["c"], "y"));
        let mut model = graph.output("y", &["1"]).model();
        assert_eq!(refusals(&mut model, "lift-constants"), ["it doesn't have exactly one value"]);
    }
}
