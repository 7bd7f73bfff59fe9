//! Graphs that are written directly from their weights are those that exporters and passes end in.

use std::path::Path;

use soprano_export::Model;
use soprano_export::ir::{NodeProto, TensorProto};
use soprano_export::runtime::{Runtime, Tract};
use soprano_export::tensor::Tensor;

use crate::harness::{ROOT, Run, Shared, World, python};
use crate::shared_or_skip;

/// The rewritten decoder of a checkpoint by an exporter, its stages kept in the cache that tests share.
fn decoder(shared: &Shared, source: &str, opset: u32, exporter: &str) -> Model {
    let world = World::new();
    let recipe = format!("name: decoder\nsource: {source}\ndecoder:\n  opset: {opset}\n");
    world.write("recipe.yaml", recipe);
    let (cache, python) = (shared.cache.to_str().unwrap(), python().unwrap());
    let run = world
        .command(["build", "recipe.yaml", "--until", "rewrite-decoder", "--exporter", exporter])
        .args(["--cache-dir", cache, "--python", python.to_str().unwrap()])
        .output()
        .unwrap();
    let run = Run::from(run).exits(0);
    Model::open_checked(Path::new(run.stdout.trim_end()).join("rewritten.onnx")).unwrap()
}

/// What a node is, and what it reads: constants by their values, for exporters call them as they like.
fn parts<'m>(model: &'m Model, node: &'m NodeProto) -> (Vec<String>, Vec<&'m TensorProto>) {
    let graph = model.graph();
    let constant = |name: &&String| graph.initializer(name).is_some();
    let values = node.input.iter().filter(|name| !constant(name)).cloned();
    let called = [node.op_type().to_owned(), node.name().to_owned()];
    let attributes = node.attribute.iter().map(|attribute| format!("{attribute:?}"));
    let all = called.into_iter().chain(values).chain(node.output.iter().cloned()).chain(attributes);
    (all.collect(), node.input.iter().filter_map(|name| graph.initializer(name)).collect())
}

#[track_caller]
fn same_nodes(native: &Model, torch: &Model) {
    let (a, b) = (native.graph_proto(), torch.graph_proto());
    assert_eq!((&a.input, &a.output, &a.name), (&b.input, &b.output, &b.name));
    assert_eq!(native.proto().ir_version, torch.proto().ir_version);
    assert_eq!(native.opset(""), torch.opset(""));
    assert_eq!(native.proto().opset_import.len(), torch.proto().opset_import.len());
    assert_eq!(a.node.len(), b.node.len());
    assert_eq!(a.initializer.len(), b.initializer.len());
    for (a, b) in a.node.iter().zip(&b.node) {
        let ((is, constants), (expected, others)) = (parts(native, a), parts(torch, b));
        assert_eq!(is, expected);
        assert_eq!(constants.len(), others.len(), "{is:?}");
        for (a, b) in constants.iter().zip(others) {
            let name = (a.name(), b.name());
            assert_eq!((&a.dims, a.data_type), (&b.dims, b.data_type), "{is:?}: {name:?}");
            assert!(a.raw_data == b.raw_data, "{is:?}: {name:?}");
        }
    }
}

/// Samples of two sounds of nine frames.
fn audio(model: &Model) -> Vec<f32> {
    let channels: usize = model.graph_proto().input[0].dims()[1].parse().unwrap();
    let frames: Vec<f32> = (0..2 * channels * 9).map(|i| (i as f32 * 0.917).sin()).collect();
    let inputs = [("hidden_states".to_owned(), Tensor::from_f32(&[2, channels, 9], &frames))].into();
    Tract.load_bytes(&model.to_bytes()).unwrap().run(&inputs).unwrap()["audio"].to_f32().unwrap()
}

#[test]
fn a_decoder_is_the_one_that_pytorch_and_the_passes_end_in() {
    let shared = shared_or_skip!();
    let mini = format!("{ROOT}/fixtures/soprano-mini");
    for (source, opset) in [
        (mini.as_str(), 17),
        ("synthetic:tiny-1.0", 17),
        ("synthetic:tiny", 17),
        ("synthetic:tiny", 13),
        ("synthetic:tiny", 18),
        ("synthetic:tiny", 20),
    ] {
        let [native, torch] =
            ["native", "torch"].map(|exporter| decoder(shared, source, opset, exporter));
        same_nodes(&native, &torch);
        assert_eq!(native.proto().producer_name(), "soprano-export");
        let (is, expected) = (audio(&native), audio(&torch));
        let peak = expected.iter().fold(0.0f32, |max, value| max.max(value.abs()));
        let off = is.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(peak > 0.0 && off < 1e-6 * peak, "{source} at {opset}: {off:e} of {peak:e}");
    }
}
