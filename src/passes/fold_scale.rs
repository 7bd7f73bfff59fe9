use super::{Pass, Skip, matched, only, require};
use crate::front::fold::scaled;
use crate::ir::{Graph, NodeId, Patch, initializer_f32, node};

/// A per-column scale after a linear layer moves into its weights.
pub(super) struct FoldScale;

impl Pass for FoldScale {
    fn name(&self) -> &'static str {
        "fold-scale"
    }

    fn rules(&self) -> &'static str {
        "Mul(g, Add(b, MatMul(x, W)))  =>  Add(MatMul(x, W'), b'),  W'[:, n] = W[:, n] g[n],  b' = b g\n\
         g [N] or a single element, b [N], W [K, N] constant; each value used once\n\
         rounds differently from the original by one unit in the last place of W and b\n\
         not: where a product in W' or b' is not finite, or too small for a normal number"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let scale = matched(graph.node_of(id, "Mul"))?;
        let (g, sum) = matched(graph.constant_operand(id))?;
        let (add_id, add) = matched(graph.maker_of(sum, "Add"))?;
        let (b, product) = matched(graph.constant_operand(add_id))?;
        let (matmul_id, matmul) = matched(graph.maker_of(product, "MatMul"))?;
        let (x, w) = (matched(matmul.input_at(0))?, matched(matmul.input_at(1))?);
        require(graph.sole_user(sum).is_some() && graph.sole_user(product).is_some())?;
        let (shape, mut weight) = matched(graph.constant_f32(w))?;
        let output = matched(scale.output_at(0))?;
        [scale, add, matmul].into_iter().try_for_each(|node| only(node, &[]))?;
        let [_, columns] = shape[..] else { return Err(Skip::NoMatch) };
        if columns == 0 {
            return Err(Skip::NoEffect);
        }
        if graph.sole_user(w).is_none() {
            return Err(Skip::Refused("the weights serve another node too"));
        }
        let (g_shape, g) = matched(graph.constant_f32(g))?;
        let (b_shape, mut bias) = matched(graph.constant_f32(b))?;
        let single = g.len() == 1 && g_shape.len() <= 1;
        require(b_shape == [columns] && (single || g_shape == [columns]))?;
        for row in weight.chunks_exact_mut(columns).chain([&mut bias[..]]) {
            for (n, value) in row.iter_mut().enumerate() {
                *value = scaled(*value, g[if single { 0 } else { n }]).map_err(Skip::Refused)?;
            }
        }

        let mut patch = Patch::at(id).remove(matmul_id).remove(add_id).remove(id);
        let [scaled_w, scaled_b, product] =
            [w, b, product].map(|name| patch.fresh(graph, &format!("{name}/scaled")));
        patch.initializer(initializer_f32(&scaled_w, &shape, &weight));
        patch.initializer(initializer_f32(&scaled_b, &b_shape, &bias));
        patch.insert(node("MatMul", [x, &scaled_w], &product).named(matmul.name()));
        patch.insert(node("Add", [&product, &scaled_b], output).named(add.name()));
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn model(scale: &[f32], reuse: bool) -> Model {
        let graph = TestGraph::new()
            .input("x", &["t", "2"])
            .initializer(f32s("w", &[2, 3], &[1., 2., 3., 4., 5., 6.]))
            .initializer(f32s("b", &[3], &[0.5, -0.5, 0.25]))
            .initializer(f32s("g", &[scale.len()], scale))
            .node(node("MatMul", ["x", "w"], "p"))
            .node(node("Add", ["b", "p"], "s"))
            .node(node("Mul", ["g", "s"], "y"))
            .output("y", &["t", "3"]);
        if reuse { graph.output("s", &["t", "3"]).model() } else { graph.model() }
    }

    #[test]
    fn the_scale_moves_into_the_weights() {
        for scale in [&[0.5f32, -2.0, 0.0][..], &[0.1]] {
            let mut model = model(scale, false);
            let feed: Feed<'_> = &[("x", &[2, 2], &[1.0, -1.0, 0.3, 0.7])];
            let before = run(&model, feed);
            assert_eq!(apply(&mut model, "fold-scale"), 1);
            assert_eq!(ops(&model), ["MatMul", "Add"]);
            assert!(max_diff(&before, &run(&model, feed)) < 1e-6);
        }
    }

    #[test]
    fn what_f32_does_not_hold_stays() {
        let model = |w: f32, b: f32, g: f32| {
            TestGraph::new()
                .input("x", &["t", "1"])
                .initializer(f32s("w", &[1, 1], &[w]))
                .initializer(f32s("b", &[1], &[b]))
                .initializer(f32s("g", &[1], &[g]))
                .node(node("MatMul", ["x", "w"], "p"))
                .node(node("Add", ["p", "b"], "s"))
                .node(node("Mul", ["s", "g"], "y"))
                .output("y", &["t", "1"])
                .model()
        };
        let infinite = "a scaled weight or bias would not be finite";
        let small = "a scaled weight or bias would be too small for a normal number";
        for (w, b, g, why) in [
            (1e25, -1e25, 1e20, infinite),
            (1.0, 1e25, 1e20, infinite),
            (0.0, 0.0, f32::INFINITY, infinite),
            (1.0, f32::NEG_INFINITY, 1.0, infinite),
            (f32::NAN, 0.0, 1.0, infinite),
            (1e-25, 1.0, 1e-25, small),
            (1.0, 1e-25, 1e-25, small),
            (1.0, 1e-20, 1e-20, small),
        ] {
            assert_eq!(refusals(&mut model(w, b, g), "fold-scale"), [why], "{w} {b} {g}");
        }
        for (w, b, g) in [(1e-25, 1e25, 1e-12), (1e25, 0.0, 0.0), (0.0, 0.0, 1e-30)] {
            assert_eq!(apply(&mut model(w, b, g), "fold-scale"), 1, "{w} {b} {g}");
        }
    }

    #[test]
    fn a_sum_that_is_used_elsewhere_stays() {
        assert_eq!(apply(&mut model(&[0.5, -2.0, 0.0], true), "fold-scale"), 0);
    }

    #[test]
    fn old_opsets_and_nodes_without_names() {
        for opset in OPSETS {
            let mut model = TestGraph::new()
                .versions(8, opset)
                .input("x", &["t", "2"])
                .initializer(f32s("w", &[2, 3], &[1., 2., 3., 4., 5., 6.]))
                .initializer(f32s("b", &[3], &[0.5, -0.5, 0.25]))
                .initializer(f32s("g", &[3], &[0.5, -2.0, 0.1]))
                .node(node("MatMul", ["x", "w"], "p").named(""))
                .node(node("Add", ["b", "p"], "s").named(""))
                .node(node("Mul", ["g", "s"], "y").named(""))
                .output("y", &["t", "3"])
                .model();
            let feed: Feed<'_> = &[("x", &[2, 2], &[1.0, -1.0, 0.3, 0.7])];
            let before = run(&model, feed);
            assert_eq!(apply(&mut model, "fold-scale"), 1);
            assert!(names_are_unique(&model));
            assert!(max_diff(&before, &run(&model, feed)) < 1e-6, "opset {opset}");
        }
    }

    #[test]
    fn before_opset_7_a_scale_broadcasts_otherwise() {
        let proto = model(&[0.1], false).proto().clone();
        let mut old = proto.clone();
        old.opset_import[0].version = Some(6);
        let mut model = Model::from_proto(old, "test.onnx").unwrap();
        let why = "it needs opset 7, and the model has 6";
        assert_eq!(refusals(&mut model, "fold-scale"), [why]);
    }
}
