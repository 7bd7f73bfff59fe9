use super::{Pass, Skip};
use crate::ir::{Graph, NodeId, Patch};

/// Equal constants become one.
pub(super) struct DeduplicateInitializers;

impl Pass for DeduplicateInitializers {
    fn name(&self) -> &'static str {
        "deduplicate-initializers"
    }

    fn rules(&self) -> &'static str {
        "f(x, a), initializers a = b bit for bit, b before a  =>  f(x, b)\n\
         bits, not values: -0 and 0 differ, and so does one NaN from another\n\
         not: strings, and data that the file keeps in typed fields instead of raw bytes"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        for input in graph.node(id).input.iter().filter(|input| !graph.is_pinned(input)) {
            if let Some(first) = graph.earliest_equal(input) {
                return Ok(Patch::at(id).redirect(input, first));
            }
        }
        Err(Skip::NoMatch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn equal_bits_become_one() {
        let mut model = TestGraph::new()
            .input("x", &["1"])
            .initializer(f32s("a", &[1], &[0.5]))
            .initializer(f32s("b", &[1], &[0.5]))
            .initializer(f32s("zero", &[1], &[0.0]))
            .initializer(f32s("minus_zero", &[1], &[-0.0]))
            .node(node("Mul", ["x", "a"], "p"))
            .node(node("Mul", ["p", "b"], "q"))
            .node(node("Add", ["q", "zero"], "r"))
            .node(node("Add", ["r", "minus_zero"], "y"))
            .output("y", &["1"])
            .model();
        let before = run(&model, &[("x", &[1], &[3.0])]);
        assert_eq!(apply(&mut model, "deduplicate-initializers"), 1);
        assert_eq!(model.graph_proto().initializer.len(), 3);
        assert_eq!(run(&model, &[("x", &[1], &[3.0])]), before);
    }

    #[test]
    fn typed_data_beside_an_empty_field_of_raw_data_is_not_taken_for_none() {
        let typed = |name: &str, value: f32| crate::ir::TensorProto {
            float_data: vec![value],
            raw_data: Some(Default::default()),
            ..crate::ir::TensorProto {
                dims: vec![1],
                data_type: Some(1),
                name: Some(name.into()),
                ..Default::default()
            }
        };
        let mut model = TestGraph::new()
            .input("x", &["1"])
            .initializer(typed("a", 0.5))
            .initializer(typed("b", 2.0))
            .node(node("Mul", ["x", "a"], "p"))
            .node(node("Mul", ["p", "b"], "y"))
            .output("y", &["1"])
            .model();
        assert_eq!(apply(&mut model, "deduplicate-initializers"), 0);
        assert_eq!(model.graph().constant_f32("b").unwrap().1, [2.0]);
    }

    #[test]
    fn what_a_caller_may_override_is_no_constant() {
        let mut model = TestGraph::new()
            .input("x", &["1"])
            .input("b", &["1"])
            .initializer(f32s("a", &[1], &[0.5]))
            .initializer(f32s("b", &[1], &[0.5]))
            .node(node("Mul", ["x", "a"], "p"))
            .node(node("Mul", ["p", "b"], "y"))
            .output("y", &["1"])
            .model();
        assert_eq!(apply(&mut model, "deduplicate-initializers"), 0);
    }
}
