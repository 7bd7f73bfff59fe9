use super::{Pass, Skip, matched};
use crate::ir::{Graph, NodeId, Patch, initializer_f32, initializer_i64};

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
        let [attribute] = node.attribute.as_slice() else {
            return Err(Skip::Refused("not one value, but none or several"));
        };
        let tensor = match attribute.name() {
            "value" => {
                let mut tensor = matched(attribute.t.clone())?;
                tensor.name = Some(name.to_owned());
                tensor
            }
            "value_float" => initializer_f32(name, &[], &[attribute.f()]),
            "value_floats" => initializer_f32(name, &[attribute.floats.len()], &attribute.floats),
            "value_int" => initializer_i64(name, &[], &[attribute.i()]),
            "value_ints" => initializer_i64(name, &[attribute.ints.len()], &attribute.ints),
            _ => return Err(Skip::Refused("a constant of a kind that initializers can't hold")),
        };
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
}
