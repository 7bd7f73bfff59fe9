use super::{Pass, Skip, matched, require};
use crate::ir::{Graph, NodeBuilder, NodeId, Patch, node};

/// Two transposed values are combined first and transposed afterwards: a residual stream moves, layer
/// by layer, into the layout of what is added to it.
pub(super) struct SinkTransposes;

impl Pass for SinkTransposes {
    fn name(&self) -> &'static str {
        "sink-transposes"
    }

    fn rules(&self) -> &'static str {
        "f(Transpose<p>(a), Transpose<p>(b))  =>  Transpose<p>(f(a, b)),  f: Add, Div, Mul, Pow, Sub\n\
         at least one of the transposes serves nothing else, so that there are never more of them\n\
         not: where the sum itself is a graph output"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let both = graph.node(id);
        require(["Add", "Div", "Mul", "Pow", "Sub"].iter().any(|op| graph.is(both, op)))?;
        let ([a, b], [output]) = (both.input.as_slice(), both.output.as_slice()) else {
            return Err(Skip::NoMatch);
        };
        let (a_id, first) = matched(graph.maker_of(a, "Transpose"))?;
        let (b_id, second) = matched(graph.maker_of(b, "Transpose"))?;
        let perm = matched(first.attr_ints("perm"))?;
        let (Some(x), Some(y)) = (first.input_at(0), second.input_at(0)) else {
            return Err(Skip::NoMatch);
        };
        require(second.attr_ints("perm") == Some(perm))?;
        if graph.is_pinned(output) {
            return Err(Skip::NoEffect);
        }
        let alone: Vec<NodeId> = [(a_id, a), (b_id, b)]
            .into_iter()
            .filter(|(_, value)| graph.sole_user(value).is_some())
            .map(|(transpose, _)| transpose)
            .collect();
        // f(t, t) has one transpose, which serves f alone.
        if alone.is_empty() {
            return Err(Skip::NoEffect);
        }
        let mut patch = Patch::at(id).remove(id);
        for &transpose in if a_id == b_id { &alone[..1] } else { &alone[..] } {
            patch = patch.remove(transpose);
        }
        let combined = patch.fresh(graph, &format!("{output}/untransposed"));
        let new = node(both.op_type(), [x, y], &combined).named(both.name());
        patch.insert(both.attribute.iter().cloned().fold(new, NodeBuilder::attribute));
        let name = format!("{output}/transposed");
        patch.insert(node("Transpose", [combined], output).ints("perm", perm).named(name));
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn model(second: [i64; 3], reuse: bool) -> Model {
        let graph = TestGraph::new()
            .input("x", &["2", "3", "3"])
            .input("y", &["2", "3", "3"])
            .node(node("Transpose", ["x"], "a").ints("perm", [0, 2, 1]))
            .node(node("Transpose", ["y"], "b").ints("perm", second))
            .node(node("Sub", ["a", "b"], "c"))
            .node(node("Neg", ["c"], "z"))
            .output("z", &["2", "3", "3"]);
        if reuse {
            graph.output("a", &["2", "3", "3"]).output("b", &["2", "3", "3"]).model()
        } else {
            graph.model()
        }
    }

    #[test]
    fn one_transpose_serves_both() {
        let mut model = model([0, 2, 1], false);
        let (x, y): (Vec<f32>, Vec<f32>) = (0..18).map(|i| (i as f32, (i as f32).sqrt())).unzip();
        let feed: Feed<'_> = &[("x", &[2, 3, 3], &x), ("y", &[2, 3, 3], &y)];
        let before = run(&model, feed);
        assert_eq!(apply(&mut model, "sink-transposes"), 1);
        assert_eq!(ops(&model), ["Sub", "Transpose", "Neg"]);
        assert_eq!(run(&model, feed), before);
    }

    #[test]
    fn other_layouts_and_values_in_use_stay() {
        assert_eq!(apply(&mut model([2, 0, 1], false), "sink-transposes"), 0);
        assert_eq!(apply(&mut model([0, 2, 1], true), "sink-transposes"), 0);
    }

    #[test]
    fn operators_of_another_domain_stay() {
        let mut model = TestGraph::new()
            .input("x", &["2", "3"])
            .node(node("Transpose", ["x"], "a").ints("perm", [1, 0]))
            .node(node("Transpose", ["x"], "b").ints("perm", [1, 0]))
            .node(node("Sub", ["a", "b"], "c").domain("other"))
            .node(node("Neg", ["c"], "z"))
            .output("z", &["3", "2"])
            .model();
        assert_eq!(apply(&mut model, "sink-transposes"), 0);
    }
}
