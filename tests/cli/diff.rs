//! `diff --run`: runtimes held against each other, and the node that is named where they differ.

use soprano_export::ir::{Attr, Model, TestGraph, initializer_f32, initializer_i64, node};

use crate::harness::{World, onnxruntime, openvino, skipped};
use crate::{shared_or_skip, snapshot};

/// `x (n / 4 n)`, with `n` read off the input's shape. Where `n` is open, tract divides shapes as integers: the
/// quotient is 0 for what uses it, and yet a quarter for who looks at it.
fn shape_in_floats() -> Model {
    TestGraph::new()
        .input("x", &["n"])
        .initializer(initializer_i64("four", &[1], &[4]))
        .node(node("Relu", ["x"], "r").named("rectify"))
        .node(node("Shape", ["r"], "shape").named("shape"))
        .node(node("Mul", ["shape", "four"], "more").named("times"))
        .node(node("Cast", ["shape"], "n").named("cast").attr("to", Attr::Int(1)))
        .node(node("Cast", ["more"], "m").named("cast_more").attr("to", Attr::Int(1)))
        .node(node("Div", ["n", "m"], "quarter").named("divide"))
        .node(node("Mul", ["r", "quarter"], "y").named("scale"))
        .output("y", &["n"])
        .model()
}

fn rows(bias: f32) -> Model {
    TestGraph::new()
        .input("x", &["batch", "n"])
        .initializer(initializer_f32("bias", &[1], &[bias]))
        .node(node("Relu", ["x"], "r").named("rectify"))
        .node(node("Add", ["r", "bias"], "a").named("shift"))
        .node(node("Exp", ["a"], "y").named("exponential"))
        .output("y", &["batch", "n"])
        .model()
}

#[test]
fn the_node_that_tract_gets_wrong_is_named() {
    let world = World::new();
    world.write("shape.onnx", shape_in_floats().to_bytes());
    for (library, name) in [(onnxruntime(), "onnxruntime"), (openvino(), "openvino")] {
        if library.is_none() {
            skipped("the_node_that_tract_gets_wrong_is_named", "no .venv; run make setup");
            continue;
        }
        let runtimes = format!("{name},tract");
        let run = world.run(["diff", "shape.onnx", "--run", &runtimes]).exits(1);
        let first = run.stdout.lines().last().unwrap();
        assert!(first.starts_with("first that differs: node \"scale\" (Mul)"), "{}", run.show());
        assert!(run.stderr.ends_with("the runtimes differ\n"), "{}", run.show());
        let found = world.run(["diff", "shape.onnx", "--run", &runtimes, "--json"]).exits(1).json();
        assert_eq!(found["first"]["node"], "scale");
        assert_eq!(found["first"]["value"], "y");
        assert_eq!(found["first"]["last_agreeing"], "divide");
    }
    if onnxruntime().is_some() && openvino().is_some() {
        world.run(["diff", "shape.onnx", "--run", "openvino,onnxruntime"]).exits(0);
    }
    world.is_clean();
}

#[test]
fn two_models_in_one_runtime() {
    let world = World::new();
    world.write("old.onnx", rows(1.0).to_bytes());
    world.write("same.onnx", rows(1.0).to_bytes());
    world.write("new.onnx", rows(1.5).to_bytes());
    snapshot!(
        "diff-run-equal",
        world,
        world.run(["diff", "old.onnx", "same.onnx", "--run", "tract"]).show()
    );
    let run = world.run(["diff", "old.onnx", "new.onnx", "--run", "tract"]).exits(1);
    snapshot!("diff-run-differs", world, run.show());
    // Limits are the caller's to widen.
    let wide = ["--snr", "-1", "--max-abs-of-peak", "10"];
    world.run(["diff", "old.onnx", "new.onnx", "--run", "tract"].into_iter().chain(wide)).exits(0);
    // The files themselves are still compared as they were.
    world.run(["diff", "old.onnx", "new.onnx"]).exits(1).says("the models differ");
    world.run(["diff", "old.onnx", "same.onnx"]).exits(0).says("the models are equal");
}

#[test]
fn calls_that_cannot_be_obeyed() {
    let world = World::new();
    world.write("m.onnx", rows(1.0).to_bytes());
    world.write("letter.onnx", "a letter");
    world.write("letter.so", "a letter");
    let calls: [&[&str]; 9] = [
        &["m.onnx"],
        &["m.onnx", "--run", "tract"],
        &["m.onnx", "--run", "tract,tract"],
        &["m.onnx", "--run", "tract,tensorrt"],
        &["m.onnx", "m.onnx", "--run", "tract,onnxruntime,openvino"],
        &["m.onnx", "--run", "tract,openvino", "--case", "b1_t2"],
        &["letter.onnx", "m.onnx", "--run", "tract"],
        &["m.onnx", "--run", "tract,onnxruntime", "--onnxruntime", "letter.so"],
        &["m.onnx", "--run", "tract,openvino", "--openvino-library", "letter.so"],
    ];
    let shown: String = calls
        .iter()
        .map(|call| {
            let run = world.run(["diff"].iter().chain(*call)).exits(2);
            assert_eq!(run.stdout, "");
            format!("$ diff {}\n{}\n", call.join(" "), run.show())
        })
        .collect();
    snapshot!("diff-run-usage", world, shown);
}

#[test]
fn a_real_model_agrees_in_every_runtime_on_recorded_inputs() {
    let shared = shared_or_skip!();
    let world = World::new();
    let model = shared.model();
    let references = shared.bundle.join("reference/decoder.safetensors");
    let call = |runtimes: &str, case: &str| {
        let mut command = world.command(["diff", "--run", runtimes, "--case", case, "--json"]);
        command.arg(&model).arg("--references").arg(&references);
        crate::harness::Run::from(command.output().unwrap())
    };
    for runtimes in ["tract,onnxruntime", "tract,openvino", "openvino,onnxruntime"] {
        let found = call(runtimes, "b1_t5").exits(0).json();
        assert!(found["compared"].as_u64().unwrap() > 50, "{runtimes}: {found}");
        // tract has no number for a shape that it only computes with.
        let hidden = found["not_shown"].as_array().unwrap().len();
        assert!(hidden == 0 || runtimes.contains("tract") && hidden < 5, "{runtimes}: {found}");
    }
    call("tract,onnxruntime", "b1_t6").exits(2).says("it has no case \"b1_t6\"; it has: ");
}
