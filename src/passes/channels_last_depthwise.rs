use super::{Pass, Skip, matched, only, replaceable, require};
use crate::ir::{Graph, NodeId, NodeProto, Patch, initializer_f32, node};

/// A depthwise convolution between two transposes becomes a two-dimensional one of height 1, whose
/// transposes ONNX Runtime merges into its blocked kernel: less than half the time of the three nodes.
pub(super) struct ChannelsLastDepthwise;

impl Pass for ChannelsLastDepthwise {
    fn name(&self) -> &'static str {
        "channels-last-depthwise"
    }

    fn rules(&self) -> &'static str {
        "Transpose<0, 2, 1>(Conv<group C>(Transpose<0, 2, 1>(x [B, T, C]), W [C, 1, k], b))  =>\n\
         \u{20} Squeeze<1>(Transpose<0, 2, 3, 1>(Conv<group C>(Transpose<0, 3, 1, 2>(Unsqueeze<1>(x)), W [C, 1, 1, k], b)))\n\
         not: where a value between them is used elsewhere, convolutions with automatic padding,\n\
         weights of more than 64 KiB that serve another node too"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let conv = matched(graph.node_of(id, "Conv"))?;
        let (input, w) = (matched(conv.input_at(0))?, matched(conv.input_at(1))?);
        let dims = &matched(graph.initializer(w))?.dims;
        let [channels, 1, kernel] = dims[..] else { return Err(Skip::NoMatch) };
        require(conv.attr_i("group", 1) == channels && channels >= 2)?;
        let swaps = |node: &NodeProto| {
            graph.is(node, "Transpose") && node.attr_ints("perm") == Some(&[0, 2, 1])
        };
        let (before_id, before) =
            matched(graph.maker_of(input, "Transpose").filter(|(_, n)| swaps(n)))?;
        let middle = matched(conv.output.first())?;
        let after_id = matched(graph.sole_user(middle))?;
        let after = graph.node(after_id);
        let ([output], Some(x)) = (after.output.as_slice(), before.input_at(0)) else {
            return Err(Skip::NoMatch);
        };
        require(swaps(after) && graph.sole_user(input).is_some())?;
        if conv.attr("auto_pad").is_some_and(|a| !matches!(a.s(), b"NOTSET" | b"")) {
            return Err(Skip::Refused("a depthwise convolution with automatic padding"));
        }
        let one = |name: &str, default: i64| match conv.attr_ints(name) {
            None => Some(default),
            Some([n]) => Some(*n),
            Some(_) => None,
        };
        let (stride, dilation) = (matched(one("strides", 1))?, matched(one("dilations", 1))?);
        let pads = conv.attr_ints("pads").unwrap_or(&[0, 0]);
        let [left, right] = *pads else { return Err(Skip::NoMatch) };
        only(conv, super::CONV)?;
        replaceable(graph, w)?;
        let (_, weight) = matched(graph.constant_f32(w))?;

        let mut patch = Patch::at(after_id).remove(before_id).remove(id).remove(after_id);
        let axis = patch.list(graph, "Unsqueeze", &format!("{middle}/axis"), &[1]);
        let [matrix, tall, first, convolved, last] =
            ["weight_2d", "unsqueezed", "channels_first", "Conv", "channels_last"]
                .map(|what| patch.fresh(graph, &format!("{middle}/{what}")));
        let shape = [channels as usize, 1, 1, kernel as usize];
        patch.initializer(initializer_f32(&matrix, &shape, &weight));
        let inputs: Vec<&str> =
            [Some(first.as_str()), Some(&matrix), conv.input_at(2)].into_iter().flatten().collect();
        patch.insert(axis.of("Unsqueeze", x, &tall));
        patch.insert(node("Transpose", [&tall], &first).ints("perm", [0, 3, 1, 2]));
        patch.insert(
            node("Conv", inputs, &convolved)
                .named(conv.name())
                .int("group", channels)
                .ints("kernel_shape", [1, kernel])
                .ints("pads", [0, left, 0, right])
                .ints("strides", [1, stride])
                .ints("dilations", [1, dilation]),
        );
        patch.insert(node("Transpose", [&convolved], &last).ints("perm", [0, 2, 3, 1]));
        patch.insert(axis.of("Squeeze", &last, output));
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn model(group: i64, reuse: bool) -> Model {
        model_at(17, group, reuse)
    }

    fn model_at(opset: i64, group: i64, reuse: bool) -> Model {
        let inner = 4 / group as usize;
        let weights: Vec<f32> = (0..4 * inner * 3).map(|i| (i as f32 * 0.7).sin()).collect();
        let graph = TestGraph::new()
            .versions(8, opset)
            .input("x", &["b", "t", "4"])
            .initializer(f32s("w", &[4, inner, 3], &weights))
            .initializer(f32s("bias", &[4], &[0.1, 0.2, 0.3, 0.4]))
            .node(node("Transpose", ["x"], "c").ints("perm", [0, 2, 1]))
            .node(node("Conv", ["c", "w", "bias"], "d").ints("pads", [1, 1]).int("group", group))
            .node(node("Transpose", ["d"], "y").ints("perm", [0, 2, 1]))
            .output("y", &["b", "t", "4"]);
        if reuse { graph.output("d", &["b", "4", "t"]).model() } else { graph.model() }
    }

    #[test]
    fn same_numbers_in_two_dimensions() {
        let mut model = model(4, false);
        let x: Vec<f32> = (0..2 * 7 * 4).map(|i| (i as f32).cos()).collect();
        let feed: Feed<'_> = &[("x", &[2, 7, 4], &x)];
        let before = run(&model, feed);
        assert_eq!(apply(&mut model, "channels-last-depthwise"), 1);
        assert_eq!(ops(&model), ["Unsqueeze", "Transpose", "Conv", "Transpose", "Squeeze"]);
        assert!(max_diff(&before, &run(&model, feed)) < 1e-6);
    }

    #[test]
    fn other_convolutions_and_values_in_use_stay() {
        assert_eq!(apply(&mut model(1, false), "channels-last-depthwise"), 0);
        assert_eq!(apply(&mut model(4, true), "channels-last-depthwise"), 0);
    }

    #[test]
    fn axes_stand_where_the_opset_wants_them() {
        let x: Vec<f32> = (0..2 * 7 * 4).map(|i| (i as f32).cos()).collect();
        let feed: Feed<'_> = &[("x", &[2, 7, 4], &x)];
        for opset in OPSETS {
            let mut model = model_at(opset, 4, false);
            let before = run(&model, feed);
            assert_eq!(apply(&mut model, "channels-last-depthwise"), 1);
            let nodes = &model.graph_proto().node;
            for node in [&nodes[0], &nodes[4]] {
                let attribute = (opset < 13).then_some([1].as_slice());
                assert_eq!(node.attr_ints("axes"), attribute, "opset {opset}");
                assert_eq!(node.input.len(), if opset < 13 { 1 } else { 2 }, "opset {opset}");
            }
            assert!(max_diff(&before, &run(&model, feed)) < 1e-6, "opset {opset}");
        }
    }

    #[test]
    fn a_convolution_with_other_attributes_stays() {
        let mut model = model(4, false);
        let mut proto = model.proto().clone();
        let conv = &mut proto.graph.as_mut().unwrap().node[1];
        conv.attribute.push(node("Conv", ["c"], "d").int("scaled", 1).build().attribute.remove(0));
        model = Model::from_proto(proto, "test.onnx").unwrap();
        let why = "an attribute that its operator does not have";
        assert_eq!(refusals(&mut model, "channels-last-depthwise"), [why]);
    }
}
