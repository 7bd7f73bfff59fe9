use super::{Pass, Skip, matched, only, part_of, require};
use crate::ir::{Graph, NodeId, Patch, initializer_f32, node};

/// Products of one activation with several weights, as one.
pub(super) struct MergeParallelMatmuls;

impl Pass for MergeParallelMatmuls {
    fn name(&self) -> &'static str {
        "merge-parallel-matmuls"
    }

    fn rules(&self) -> &'static str {
        "MatMul(x, A), MatMul(x, B), …  =>  Split(MatMul(x, [A B …]), [columns of A, of B, …]; axis -1)\n\
         A, B, … [K, N_i] constant f32, each used once; queries, keys and values, or gate and up, read x once\n\
         not: before opset 11, where Split counts no axis from the back"
    }

    fn opset(&self) -> i64 {
        11
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let first = matched(graph.node_of(id, "MatMul"))?;
        let x = matched(first.input_at(0))?;
        let mut parts = Vec::new();
        for &user in graph.users(x) {
            let product = graph.node(user);
            let weight = product
                .input_at(1)
                .filter(|_| graph.is(product, "MatMul") && product.input_at(0) == Some(x));
            let Some(weight) = weight.filter(|w| *w != x && graph.sole_user(w).is_some()) else {
                continue;
            };
            let Some(tensor) = graph.initializer(weight) else { continue };
            if let ([_, columns], Some(output)) = (&tensor.dims[..], product.output_at(0)) {
                parts.push((user, weight, *columns, output));
            }
        }
        require(parts.len() > 1 && parts[0].0 == id)?;
        parts.iter().try_for_each(|part| only(graph.node(part.0), &[]))?;
        let mut weights = Vec::with_capacity(parts.len());
        for (_, weight, _, _) in &parts {
            let (shape, values) = matched(graph.constant_f32(weight))?;
            let [rows, columns] = shape[..] else { return Err(Skip::NoMatch) };
            if rows == 0 || columns == 0 {
                return Err(Skip::NoEffect);
            }
            weights.push((rows, columns, values));
        }
        let rows = weights[0].0;
        if weights.iter().any(|part| part.0 != rows) {
            return Err(Skip::Refused("the weights have different numbers of rows"));
        }
        let total: usize = weights.iter().map(|part| part.1).sum();
        let mut merged = Vec::with_capacity(rows * total);
        for row in 0..rows {
            for (_, columns, values) in &weights {
                merged.extend_from_slice(&values[row * columns..(row + 1) * columns]);
            }
        }

        let mut patch = parts.iter().fold(Patch::at(id), |patch, part| patch.remove(part.0));
        let weight = patch.fresh(graph, &format!("{}/merged", parts[0].1));
        let product = patch.fresh(graph, &format!("{}/merged", parts[0].3));
        let columns: Vec<i64> = parts.iter().map(|part| part.2).collect();
        patch.initializer(initializer_f32(&weight, &[rows, total], &merged));
        let sizes = patch.list(graph, "Split", &format!("{}/columns", parts[0].3), &columns);
        patch.insert(node("MatMul", [x, &weight], &product).named(first.name()));
        let split = sizes.of("Split", &product, parts[0].3);
        let split = split.named(part_of(first, "split"));
        let split = parts[1..].iter().fold(split, |split, part| split.output(part.3));
        patch.insert(split.int("axis", -1));
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn graph(second: &[usize], values: &[f32]) -> TestGraph {
        TestGraph::new()
            .input("x", &["t", "2"])
            .initializer(f32s("a", &[2, 3], &[1., 2., 3., 4., 5., 6.]))
            .initializer(f32s("b", second, values))
            .node(node("MatMul", ["x", "a"], "p"))
            .node(node("MatMul", ["x", "b"], "q"))
            .output("p", &["t", "3"])
            .output("q", &["t", "1"])
    }

    #[test]
    fn products_of_one_activation_become_one() {
        let mut model = graph(&[2, 1], &[0.5, -7.0]).model();
        let feed: Feed<'_> = &[("x", &[2, 2], &[1.0, -1.0, 0.3, 0.7])];
        let before = run(&model, feed);
        assert_eq!(apply(&mut model, "merge-parallel-matmuls"), 1);
        assert_eq!(ops(&model), ["MatMul", "Split"]);
        assert!(max_diff(&before, &run(&model, feed)) < 1e-6);
        assert_eq!(apply(&mut model, "merge-parallel-matmuls"), 0);
    }

    #[test]
    fn a_weight_that_serves_twice_or_an_activation_that_differs_stays() {
        let twice = graph(&[2, 1], &[0.5, -7.0])
            .input("z", &["t", "2"])
            .node(node("MatMul", ["z", "b"], "r"))
            .output("r", &["t", "1"]);
        assert_eq!(apply(&mut twice.model(), "merge-parallel-matmuls"), 0);
        let other = TestGraph::new()
            .input("x", &["t", "2"])
            .input("z", &["t", "2"])
            .initializer(f32s("a", &[2, 1], &[1., 2.]))
            .initializer(f32s("b", &[2, 1], &[3., 4.]))
            .node(node("MatMul", ["x", "a"], "p"))
            .node(node("MatMul", ["z", "b"], "q"))
            .output("p", &["t", "1"])
            .output("q", &["t", "1"]);
        assert_eq!(apply(&mut other.model(), "merge-parallel-matmuls"), 0);
    }

    #[test]
    fn the_lengths_of_the_parts_stand_where_the_opset_wants_them() {
        let feed: Feed<'_> = &[("x", &[2, 2], &[1.0, -1.0, 0.3, 0.7])];
        for opset in OPSETS.into_iter().filter(|&opset| opset >= 11) {
            let mut model = graph(&[2, 1], &[0.5, -7.0]).versions(8, opset).model();
            let before = run(&model, feed);
            assert_eq!(apply(&mut model, "merge-parallel-matmuls"), 1);
            let split = &model.graph_proto().node[1];
            let lengths = [3, 1].as_slice();
            assert_eq!(split.attr_ints("split"), (opset < 13).then_some(lengths), "opset {opset}");
            assert_eq!(split.input.len(), if opset < 13 { 1 } else { 2 }, "opset {opset}");
            assert!(max_diff(&before, &run(&model, feed)) < 1e-6);
        }
        let mut old = graph(&[2, 1], &[0.5, -7.0]).versions(8, 10).model();
        let why = "it needs opset 11, and the model has 10";
        assert_eq!(refusals(&mut old, "merge-parallel-matmuls"), [why]);
    }

    /// Two pairs of products, all of one node name or of none.
    fn pairs(name: &str) -> Model {
        let product = |x: &str, w: &str, y: &str| node("MatMul", [x, w], y).named(name);
        let weight = |name: &str| f32s(name, &[2, 2], &[1., 2., 3., 4.]);
        let graph = ["a", "b", "c", "d"].map(weight).into_iter();
        graph
            .fold(TestGraph::new(), TestGraph::initializer)
            .input("x", &["t", "2"])
            .input("z", &["t", "2"])
            .node(product("x", "a", "p"))
            .node(product("x", "b", "q"))
            .node(product("z", "c", "r"))
            .node(product("z", "d", "s"))
            .node(node("Sum", ["p", "q", "r", "s"], "y").named("sum"))
            .output("y", &["t", "2"])
            .model()
    }

    #[test]
    fn nodes_without_a_name_or_with_the_same_get_one_each() {
        for name in ["", "sum", "p"] {
            let mut model = pairs(name);
            assert_eq!(apply(&mut model, "merge-parallel-matmuls"), 2);
            assert!(names_are_unique(&model), "{name:?}");
        }
        let mut model = pairs("");
        apply(&mut model, "merge-parallel-matmuls");
        let names: Vec<_> = model.graph_proto().node.iter().map(|node| node.name()).collect();
        assert_eq!(names, ["p/merged", "p", "r/merged", "r", "sum"]);
    }

    #[test]
    fn products_of_another_domain_or_meaning_stay() {
        let foreign = |domain: &str| {
            let product = |w: &str, y: &str| node("MatMul", ["x", w], y).domain(domain);
            TestGraph::new()
                .input("x", &["t", "2"])
                .initializer(f32s("a", &[2, 2], &[1., 2., 3., 4.]))
                .initializer(f32s("b", &[2, 2], &[1., 2., 3., 4.]))
                .node(product("a", "p"))
                .node(product("b", "q"))
                .output("p", &["t", "2"])
                .output("q", &["t", "2"])
        };
        assert_eq!(apply(&mut foreign("other").model(), "merge-parallel-matmuls"), 0);
        let mut own = function("MatMul", [node("Neg", ["x"], "y")]);
        own.domain = None;
        assert_eq!(apply(&mut foreign("ai.onnx").function(own).model(), "merge-parallel-matmuls"), 0);
        assert_eq!(apply(&mut foreign("ai.onnx").model(), "merge-parallel-matmuls"), 1);
    }

    #[test]
    fn an_attribute_that_no_product_has_is_not_lost() {
        let mut model = graph(&[2, 1], &[0.5, -7.0])
            .node(node("MatMul", ["x", "c"], "r").int("accuracy", 4))
            .initializer(f32s("c", &[2, 1], &[0.5, -7.0]))
            .output("r", &["t", "1"])
            .model();
        let why = "an attribute that its operator does not have";
        assert_eq!(refusals(&mut model, "merge-parallel-matmuls"), [why]);
    }
}
