//! Quantizing any graph, as a user meets it.

use soprano_export::ir::{Model, TestGraph, initializer_f32, node};

use crate::harness::{World, tree};
use crate::snapshot;

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * 0.618).fract() - 0.5).collect()
}

/// Two products without names, one on the wrong side, and one whose weight is an output.
fn mixed() -> Model {
    let weight = |name: &str| initializer_f32(name, &[64, 64], &values(4096));
    TestGraph::new()
        .input("x", &["64", "64"])
        .initializer(weight("w"))
        .initializer(weight("v"))
        .initializer(weight("u"))
        .initializer(weight("t"))
        .node(node("MatMul", ["x", "w"], "a").named(""))
        .node(node("Gemm", ["a", "v"], "b").named("").int("transB", 1))
        .node(node("MatMul", ["u", "b"], "c").named("left"))
        .node(node("MatMul", ["c", "t"], "d").named("shared"))
        .node(node("MatMul", ["d", "b"], "y").named("attention"))
        .output("y", &["64", "64"])
        .output("t", &["64", "64"])
        .model()
}

#[test]
fn quantize_says_what_stays_fp32_and_why() {
    let world = World::new();
    world.write("m.onnx", mixed().to_bytes());
    let run = world.run(["quantize", "m.onnx", "-o", "q.onnx", "--two-terms"]).exits(0);
    snapshot!("quantize", world, run.show());
    let run = world.run(["quantize", "m.onnx", "-o", "k.onnx", "--keep-fp32", "a", "--json"]).exits(0);
    assert_eq!(run.json()["products"], serde_json::json!(["b"]));
    let run = world.run(["quantize", "m.onnx", "-o", "n.onnx", "--keep-fp32", "?", "--keep-fp32", "a"]);
    run.exits(2).says("no node is named \"?\"");
    let none = ["quantize", "m.onnx", "-o", "n.onnx", "--keep-fp32", "a", "--keep-fp32", "b"];
    snapshot!("quantize-nothing", world, world.run(none).exits(2).hints().show());
}

#[test]
fn quantize_names_the_opset_that_it_needs() {
    let world = World::new();
    let model = TestGraph::new()
        .versions(5, 10)
        .input("x", &["n", "64"])
        .initializer(initializer_f32("w", &[64, 128], &values(64 * 128)))
        .node(node("MatMul", ["x", "w"], "y"))
        .output("y", &["n", "128"])
        .model();
    world.write("old.onnx", model.to_bytes());
    let run = world.run(["quantize", "old.onnx", "-o", "q.onnx"]).exits(2);
    snapshot!("quantize-opset", world, run.hints().show());
    assert_eq!(tree(&world.work("")).keys().collect::<Vec<_>>(), ["old.onnx"]);
}

#[test]
fn quantize_ignores_no_option_silently() {
    let world = World::new();
    world.write("m.onnx", mixed().to_bytes());
    let quantize = ["quantize", "m.onnx", "-o", "q.onnx"];
    for option in [&["--two-terms"][..], &["--two-terms-at", "a"], &["--reduce-range"]] {
        for form in ["blocks-8", "blocks-4"] {
            let run = world.run([&quantize[..], &["--form", form], option].concat()).exits(2).hints();
            run.says(&format!("--form {form} knows no {}", option[0]));
        }
    }
    let run = world.run([&quantize[..], &["--form", "blocks-8", "--reduce-range"]].concat());
    snapshot!("quantize-form", world, run.show());
    let run =
        world.run([&quantize[..], &["--keep-fp32", "left", "--two-terms-at", "attention"]].concat());
    snapshot!("quantize-idle", world, run.exits(0).show());
    std::fs::remove_file(world.work("q.onnx")).unwrap();
    world.write("relu.onnx", mixed_with_relu().to_bytes());
    let run = world.run(["quantize", "relu.onnx", "-o", "q.onnx", "--two-terms-at", "relu"]).exits(2);
    snapshot!("quantize-two-terms", world, run.hints().show());
    assert!(!tree(&world.work("")).contains_key("q.onnx"));
}

/// The same, with a node that is no product.
fn mixed_with_relu() -> Model {
    let mut model = mixed();
    let graph = model.proto_mut().graph.as_mut().unwrap();
    graph.node.push(node("Relu", ["y"], "z").named("relu").build());
    model
}
