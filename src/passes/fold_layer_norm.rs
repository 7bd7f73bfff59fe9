use super::{Pass, Skip, matched, only};
use crate::ir::{Graph, NodeId, Patch, initializer_f32, node};

/// Scale and bias of a layer normalization, and the bias of the linear layer behind it, move into that
/// layer's weights: the addition goes.
///
/// A normalized vector z of n elements sums to zero, so a matrix may gain the same row u any number of
/// times unseen: zᵀ(W + 1uᵀ) = zᵀW. Fed z + s1 instead, that row comes out as the bias:
///
/// ```text
/// (γz + β)ᵀW + b  =  zᵀW″ + b″              W″ = diag(γ)W,  b″ = βᵀW + b
///                 =  (z + s1)ᵀW′            W′[k, j] = W″[k, j] − mean_k W″[k, j] + b″[j] / (n s)
/// ```
pub(super) struct FoldLayerNorm;

/// The bias s that the normalization keeps. It divides b″ and multiplies the rounding of W′: at 1/4 the
/// decoder's error is least in ONNX Runtime and in OpenVINO alike (1 and 1/16 are worse in both).
const BIAS: f32 = 0.25;

impl Pass for FoldLayerNorm {
    fn name(&self) -> &'static str {
        "fold-layer-norm"
    }

    fn rules(&self) -> &'static str {
        "Add(MatMul(LayerNormalization<last axis>(x, g, h), W), b)  =>  MatMul(LayerNormalization(x, 1, 1/4), W')\n\
         W'[k, j] = g[k] W[k, j] - mean_k(g[k] W[k, j]) + 4/n (b[j] + sum_k h[k] W[k, j])\n\
         exact, for a normalized vector sums to zero; g, h [n], W [n, m], b [m] constant, each value used once\n\
         not: where the normalization feeds anything else"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let add = graph.node(id);
        if !graph.is(add, "Add") {
            return Err(Skip::NoMatch);
        }
        let (b, product) = matched(graph.constant_operand(id))?;
        let (matmul_id, matmul) = matched(graph.maker_of(product, "MatMul"))?;
        let (normed, w) = (matched(matmul.input_at(0))?, matched(matmul.input_at(1))?);
        let (norm_id, norm) = matched(graph.maker_of(normed, "LayerNormalization"))?;
        let (x, g) = (matched(norm.input_at(0))?, matched(norm.input_at(1))?);
        // Without the rank of x, a positive axis can't be told to be the last.
        if norm.attr_i("axis", -1) != -1 || norm.output.len() != 1 {
            return Err(Skip::NoMatch);
        }
        let ([output], Some(_), Some(_)) =
            (add.output.as_slice(), graph.sole_user(product), graph.sole_user(w))
        else {
            return Err(Skip::NoMatch);
        };
        if graph.sole_user(normed).is_none() {
            return Err(Skip::Refused("the normalization feeds another node too"));
        }
        let (shape, weight) = matched(graph.constant_f32(w))?;
        let [rows, columns] = shape[..] else { return Err(Skip::NoMatch) };
        let (g_shape, g) = matched(graph.constant_f32(g))?;
        let (b_shape, b_values) = matched(graph.constant_f32(b))?;
        let h = match norm.input_at(2) {
            Some(h) => matched(graph.constant_f32(h))?,
            None => (vec![rows], vec![0.0; rows]),
        };
        if rows == 0 || g_shape != [rows] || h.0 != [rows] || b_shape != [columns] {
            return Err(Skip::NoMatch);
        }
        only(norm, &["axis", "epsilon", "stash_type"])?;
        [add, matmul].into_iter().try_for_each(|node| only(node, &[]))?;
        let folded = fold(&weight, &g, &h.1, &b_values);

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
        patch.initializer(initializer_f32(&matrix, &shape, &folded));
        let kept = ["epsilon", "stash_type"].iter().filter_map(|name| norm.attr(name).cloned());
        let norm_inputs = [x, &ones, &bias];
        let made =
            node("LayerNormalization", norm_inputs, &unscaled).named(norm.name()).int("axis", -1);
        patch.insert(kept.fold(made, crate::ir::NodeBuilder::attribute));
        patch.insert(node("MatMul", [&unscaled, &matrix], output).named(matmul.name()));
        Ok(patch)
    }
}

fn fold(weight: &[f32], g: &[f32], h: &[f32], b: &[f32]) -> Vec<f32> {
    let (rows, columns) = (g.len(), b.len());
    let mut mean = vec![0.0f64; columns];
    let mut bias: Vec<f64> = b.iter().map(|&b| f64::from(b)).collect();
    for (k, row) in weight.chunks_exact(columns).enumerate() {
        for (j, &w) in row.iter().enumerate() {
            mean[j] += f64::from(g[k]) * f64::from(w) / rows as f64;
            bias[j] += f64::from(h[k]) * f64::from(w);
        }
    }
    let share = 1.0 / (rows as f64 * f64::from(BIAS));
    let mut folded = Vec::with_capacity(weight.len());
    for (k, row) in weight.chunks_exact(columns).enumerate() {
        folded.extend(
            row.iter()
                .enumerate()
                .map(|(j, &w)| (f64::from(g[k]) * f64::from(w) - mean[j] + bias[j] * share) as f32),
        );
    }
    folded
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

    #[test]
    fn what_is_used_elsewhere_or_normalized_otherwise_stays() {
        assert_eq!(apply(&mut model(2, false), "fold-layer-norm"), 0);
        assert_eq!(
            refusals(&mut model(-1, true), "fold-layer-norm"),
            ["the normalization feeds another node too"]
        );
    }
}
