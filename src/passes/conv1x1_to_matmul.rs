use super::{Pass, Skip, matched, only, part_of, replaceable, require};
use crate::ir::{Graph, NodeId, Patch, initializer_f32, node};

/// Pointwise convolutions become products, which quantize and run better.
pub(super) struct Conv1x1ToMatmul;

impl Pass for Conv1x1ToMatmul {
    fn name(&self) -> &'static str {
        "conv1x1-to-matmul"
    }

    fn rules(&self) -> &'static str {
        "Conv<kernel 1, stride 1, group 1>(x [B, C, T], W [D, C, 1], b)\n\
         \u{20} =>  Transpose<0, 2, 1>(Add(MatMul(Transpose<0, 2, 1>(x), W'), b)),  W' [C, D] = W[:, :, 0] transposed\n\
         not: padding, strides, groups, two-dimensional convolutions, weights that aren't\n\
         constant, or that serve another node too and are larger than 64 KiB"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let conv = matched(graph.node_of(id, "Conv"))?;
        let (x, w) = (matched(conv.input_at(0))?, matched(conv.input_at(1))?);
        let [out, channels, 1] = matched(graph.initializer(w))?.dims[..] else {
            return Err(Skip::NoMatch);
        };
        let all =
            |name: &str, value| conv.attr_ints(name).is_none_or(|v| v.iter().all(|&i| i == value));
        let auto_pad =
            conv.attr("auto_pad").map_or("NOTSET", |a| std::str::from_utf8(a.s()).unwrap_or(""));
        require(conv.attr_i("group", 1) == 1)?;
        if !all("pads", 0) || !all("strides", 1) || !matches!(auto_pad, "NOTSET" | "VALID") {
            return Err(Skip::Refused("a pointwise convolution with padding or strides"));
        }
        only(conv, super::CONV)?;
        replaceable(graph, w)?;
        let (_, weight) = matched(graph.constant_f32(w))?;
        let (rows, columns) = (channels as usize, out as usize);
        let transposed: Vec<f32> =
            (0..rows * columns).map(|at| weight[at % columns * rows + at / columns]).collect();

        let output = matched(conv.output_at(0))?;
        let mut patch = Patch::at(id).remove(id);
        let [rows_first, product, matrix] = ["transposed", "MatMul", "weight"]
            .map(|what| patch.fresh(graph, &format!("{output}/{what}")));
        patch.initializer(initializer_f32(&matrix, &[rows, columns], &transposed));
        patch.insert(node("Transpose", [x], &rows_first).ints("perm", [0, 2, 1]));
        patch.insert(node("MatMul", [&rows_first, &matrix], &product).named(part_of(conv, "MatMul")));
        let mut last = product;
        if let Some(bias) = conv.input_at(2) {
            let sum = patch.fresh(graph, &format!("{output}/Add"));
            patch.insert(node("Add", [&last, bias], &sum));
            last = sum;
        }
        patch.insert(node("Transpose", [last], output).ints("perm", [0, 2, 1]).named(conv.name()));
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn model(kernel: usize, group: i64, pads: [i64; 2]) -> Model {
        let inner = 4 / group as usize;
        let weights: Vec<f32> = (0..6 * inner * kernel).map(|i| (i as f32 * 0.7).sin()).collect();
        TestGraph::new()
            .input("x", &["b", "4", "t"])
            .initializer(f32s("w", &[6, inner, kernel], &weights))
            .initializer(f32s("bias", &[6], &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
            .node(node("Conv", ["x", "w", "bias"], "y").ints("pads", pads).int("group", group))
            .output("y", &["b", "6", "t"])
            .model()
    }

    #[test]
    fn same_numbers_as_the_convolution() {
        let mut model = model(1, 1, [0, 0]);
        let x: Vec<f32> = (0..2 * 4 * 5).map(|i| (i as f32).cos()).collect();
        let before = run(&model, &[("x", &[2, 4, 5], &x)]);
        assert_eq!(apply(&mut model, "conv1x1-to-matmul"), 1);
        assert_eq!(ops(&model), ["Transpose", "MatMul", "Add", "Transpose"]);
        let after = run(&model, &[("x", &[2, 4, 5], &x)]);
        assert!(max_diff(&before, &after) < 1e-6);
    }

    #[test]
    fn other_convolutions_stay() {
        assert_eq!(apply(&mut model(3, 1, [1, 1]), "conv1x1-to-matmul"), 0);
        assert_eq!(apply(&mut model(1, 2, [0, 0]), "conv1x1-to-matmul"), 0);
        let padded = refusals(&mut model(1, 1, [1, 1]), "conv1x1-to-matmul");
        assert_eq!(padded, ["a pointwise convolution with padding or strides"]);
    }

    #[test]
    fn every_opset_and_convolutions_without_names() {
        let x: Vec<f32> = (0..2 * 4 * 5).map(|i| (i as f32).cos()).collect();
        let feed: Feed<'_> = &[("x", &[2, 4, 5], &x)];
        for opset in OPSETS {
            let weights: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin()).collect();
            let mut model = TestGraph::new()
                .versions(8, opset)
                .input("x", &["b", "4", "t"])
                .initializer(f32s("w", &[4, 4, 1], &weights))
                .initializer(f32s("v", &[4, 4, 1], &weights))
                .node(node("Conv", ["x", "w"], "c").named(""))
                .node(node("Conv", ["c", "v"], "y").named(""))
                .output("y", &["b", "4", "t"])
                .model();
            let before = run(&model, feed);
            assert_eq!(apply(&mut model, "conv1x1-to-matmul"), 2);
            assert!(names_are_unique(&model), "opset {opset}");
            assert!(max_diff(&before, &run(&model, feed)) < 1e-6, "opset {opset}");
        }
    }

    #[test]
    fn weights_that_serve_two_convolutions_are_not_copied_unless_small() {
        let shared = |channels: usize| {
            let text = channels.to_string();
            TestGraph::new()
                .input("x", &["b", &text, "t"])
                .initializer(f32s("w", &[channels, channels, 1], &vec![0.5; channels * channels]))
                .node(node("Conv", ["x", "w"], "c"))
                .node(node("Conv", ["c", "w"], "y"))
                .output("y", &["b", &text, "t"])
                .model()
        };
        assert_eq!(apply(&mut shared(4), "conv1x1-to-matmul"), 2);
        let why = "its constant serves another node too, and would be there twice";
        assert_eq!(refusals(&mut shared(256), "conv1x1-to-matmul"), [why, why]);
    }

    #[test]
    fn convolutions_of_another_domain_or_with_other_attributes_stay() {
        let with = |conv: crate::ir::NodeBuilder| {
            let graph = TestGraph::new().input("x", &["b", "1", "t"]).initializer(f32s(
                "w",
                &[1, 1, 1],
                &[2.0],
            ));
            graph.node(conv).output("y", &["b", "1", "t"]).model()
        };
        let conv = || node("Conv", ["x", "w"], "y");
        assert_eq!(apply(&mut with(conv().domain("other")), "conv1x1-to-matmul"), 0);
        let why = "an attribute that its operator does not have";
        assert_eq!(refusals(&mut with(conv().int("scaled", 1)), "conv1x1-to-matmul"), [why]);
        assert_eq!(apply(&mut with(conv()), "conv1x1-to-matmul"), 1);
    }
}
