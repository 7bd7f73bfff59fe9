use super::{Pass, Skip, matched, only, require};
use crate::front::fold::{BIAS, Normed};
use crate::ir::{Graph, NodeBuilder, NodeId, Patch, initializer_f32, node};

/// Scale and bias of a layer normalization, and the bias of the linear layer behind it, move into that
/// layer's [weights](Normed): the addition goes.
pub(super) struct FoldLayerNorm;

impl Pass for FoldLayerNorm {
    fn name(&self) -> &'static str {
        "fold-layer-norm"
    }

    fn rules(&self) -> &'static str {
        "Add(MatMul(LayerNormalization<last axis>(x, g, h), W), b)  =>  MatMul(LayerNormalization(x, 1, 1/4), W')\n\
         W'[k, j] = g[k] W[k, j] - mean_k(g[k] W[k, j]) + 4/n (b[j] + sum_k h[k] W[k, j])\n\
         exact, for a normalized vector sums to zero; g, h [n], W [n, m], b [m] constant, each value used once\n\
         not: where the normalization feeds anything else, a number is not finite or a bias exceeds 3.36 times\n\
         the largest norm of a column of g W less its mean, which it would round by more than 1e-6"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let add = matched(graph.node_of(id, "Add"))?;
        let (b, product) = matched(graph.constant_operand(id))?;
        let (matmul_id, matmul) = matched(graph.maker_of(product, "MatMul"))?;
        let (normed, w) = (matched(matmul.input_at(0))?, matched(matmul.input_at(1))?);
        let (norm_id, norm) = matched(graph.maker_of(normed, "LayerNormalization"))?;
        let (x, g) = (matched(norm.input_at(0))?, matched(norm.input_at(1))?);
        // Without the rank of x, a positive axis can't be told to be the last.
        require(norm.attr_i("axis", -1) == -1 && norm.output.len() == 1)?;
        let ([output], Some(_), Some(_)) =
            (add.output.as_slice(), graph.sole_user(product), graph.sole_user(w))
        else {
            return Err(Skip::NoMatch);
        };
        if graph.sole_user(normed).is_none() {
            return Err(Skip::Refused("the normalization feeds another node too"));
        }
        let (shape, mut weight) = matched(graph.constant_f32(w))?;
        let [rows, columns] = shape[..] else { return Err(Skip::NoMatch) };
        let (g_shape, g) = matched(graph.constant_f32(g))?;
        let (b_shape, b_values) = matched(graph.constant_f32(b))?;
        let h = match norm.input_at(2) {
            Some(h) => matched(graph.constant_f32(h))?,
            None => (vec![rows], vec![0.0; rows]),
        };
        require(rows > 0 && g_shape == [rows] && h.0 == [rows] && b_shape == [columns])?;
        only(norm, &["axis", "epsilon", "stash_type"])?;
        [add, matmul].into_iter().try_for_each(|node| only(node, &[]))?;
        let fold = Normed::of(&weight, g, &h.1, &b_values).map_err(Skip::Refused)?;
        for (k, row) in weight.chunks_exact_mut(columns.max(1)).enumerate() {
            row.iter_mut().zip(fold.row(k)).for_each(|(w, fold)| *w = fold(*w));
        }

        let mut patch = Patch::at(id).remove(norm_id).remove(matmul_id).remove(id);
        let [ones, bias, matrix, unscaled] = [
            format!("{normed}/ones"),
            format!("{normed}/bias"),
            format!("{w}/folded"),
            format!("{normed}/normalized"),
        ]
        .map(|name| patch.fresh(graph, &name));
        patch.initializer(initializer_f32(&ones, &[rows], &vec![1.0; rows]));
        patch.initializer(initializer_f32(&bias, &[rows], &vec![BIAS; rows]));
        patch.initializer(initializer_f32(&matrix, &shape, &weight));
        let attributes = ["epsilon", "stash_type"].iter().filter_map(|name| norm.attr(name).cloned());
        let plain = node("LayerNormalization", [x, &ones, &bias], &unscaled);
        let plain = plain.named(norm.name()).int("axis", -1);
        patch.insert(attributes.fold(plain, NodeBuilder::attribute));
        patch.insert(node("MatMul", [&unscaled, &matrix], output).named(matmul.name()));
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn model(axis: i64, reuse: bool) -> Model {
        let values =
            |n: usize, seed: f32| (0..n).map(|i| (i as f32 * seed + 0.3).sin()).collect::<Vec<_>>();
        let graph = TestGraph::new()
            .input("x", &["b", "t", "6"])
            .initializer(f32s("g", &[6], &values(6, 1.3)))
            .initializer(f32s("h", &[6], &values(6, 2.1)))
            .initializer(f32s("w", &[6, 4], &values(24, 0.7)))
            .initializer(f32s("c", &[4], &values(4, 3.7)))
            .node(node("LayerNormalization", ["x", "g", "h"], "z").int("axis", axis))
            .node(node("MatMul", ["z", "w"], "p"))
            .node(node("Add", ["c", "p"], "y"))
            .output("y", &["b", "t", "4"]);
        if reuse { graph.output("z", &["b", "t", "6"]).model() } else { graph.model() }
    }

    #[test]
    fn the_sum_moves_into_the_weights() {
        let mut model = model(-1, false);
        let x: Vec<f32> = (0..2 * 5 * 6).map(|i| (i as f32 * 0.91).cos() * 3.0).collect();
        let feed: Feed<'_> = &[("x", &[2, 5, 6], &x)];
        let before = run(&model, feed);
        assert_eq!(apply(&mut model, "fold-layer-norm"), 1);
        assert_eq!(ops(&model), ["LayerNormalization", "MatMul"]);
        assert!(max_diff(&before, &run(&model, feed)) < 2e-6);
    }

    /// Add(MatMul(LayerNormalization(x, g), w), c) of width n.
    fn plain(n: usize, g: &[f32], w: &[f32], c: &[f32]) -> Model {
        TestGraph::new()
            .input("x", &["t", &n.to_string()])
            .initializer(f32s("g", &[n], g))
            .initializer(f32s("w", &[n, c.len()], w))
            .initializer(f32s("c", &[c.len()], c))
            .node(node("LayerNormalization", ["x", "g"], "z"))
            .node(node("MatMul", ["z", "w"], "p"))
            .node(node("Add", ["p", "c"], "y"))
            .output("y", &["t", &c.len().to_string()])
            .model()
    }

    #[test]
    fn what_is_not_finite_stays() {
        let eye = [1.0, 0.0, 0.0, 1.0];
        let why = ["a weight, scale or bias is not finite, or would not be"];
        let refused = |g: &[f32], w: &[f32], c: &[f32]| {
            assert_eq!(refusals(&mut plain(2, g, w, c), "fold-layer-norm"), why, "{g:?} {w:?} {c:?}");
        };
        assert_eq!(apply(&mut plain(2, &[1.0, 1.0], &eye, &[0.5, 0.0]), "fold-layer-norm"), 1);
        for bad in [f32::NEG_INFINITY, f32::INFINITY, f32::NAN] {
            refused(&[1.0, 1.0], &eye, &[0.0, bad]);
            refused(&[1.0, 1.0], &[1.0, 0.0, bad, 1.0], &[0.0, 0.0]);
            refused(&[bad, 1.0], &eye, &[0.0, 0.0]);
        }
        // Finite, each of them, and their product is beyond f32.
        refused(&[1e20, 1.0], &[1e20, 0.0, 0.0, 1.0], &[0.0, 0.0]);
        refused(&[0.0, 0.0], &[0.0; 4], &[f32::INFINITY, 0.0]);
    }

    #[test]
    fn a_bias_that_the_weights_would_round_stays() {
        let values: Vec<f32> = (0..8 * 4).map(|i| (i as f32 * 0.7).sin()).collect();
        let columns = |j: usize| (0..8).map(move |k| f64::from((((k * 4 + j) as f32) * 0.7).sin()));
        let norm = |j: usize| {
            let mean = columns(j).sum::<f64>() / 8.0;
            columns(j).map(|w| (w - mean).powi(2)).sum::<f64>().sqrt()
        };
        let norm = (0..4).map(norm).fold(0.0, f64::max);
        let model = |ratio: f64| plain(8, &[1.0; 8], &values, &[0.0, (norm * ratio) as f32, 0.0, 0.0]);
        let why = "a bias so large that folded weights would round it too much";
        assert_eq!(refusals(&mut model(3.36), "fold-layer-norm"), [why]);
        // The largest that is folded costs 1e-6 of what the weights contribute, and the sums their own.
        let mut folded = model(3.35);
        let x: Vec<f32> = (0..200 * 8).map(|i| (i as f32 * 0.91).cos() * 3.0).collect();
        let feed: Feed<'_> = &[("x", &[200, 8], &x)];
        let before = run(&folded, feed);
        assert_eq!(apply(&mut folded, "fold-layer-norm"), 1);
        let off = f64::from(max_diff(&before, &run(&folded, feed)));
        assert!(off < 2e-6 * norm, "{:.1e} of the norm", off / norm);
        assert_eq!(apply(&mut plain(8, &[1.0; 8], &[0.0; 32], &[0.0; 4]), "fold-layer-norm"), 1);
    }

    #[test]
    fn what_is_used_elsewhere_or_normalized_otherwise_stays() {
        assert_eq!(apply(&mut model(2, false), "fold-layer-norm"), 0);
        assert_eq!(
            refusals(&mut model(-1, true), "fold-layer-norm"),
            ["the normalization feeds another node too"]
        );
    }
}
