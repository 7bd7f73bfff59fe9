//! What the verbs that rewrite a model refuse, and what the files that they write are like.

use std::os::unix::fs::PermissionsExt as _;

use soprano_export::ir::{Model, TestGraph, initializer_f32, node};
use soprano_export::runtime::{Runtime as _, Tract};
use soprano_export::tensor::Tensor;

use crate::harness::{World, python, skipped};
use crate::snapshot;

/// A product with a weight of 64 KiB, and a node to remove.
fn product() -> Model {
    let values: Vec<f32> = (0..1 << 14).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    TestGraph::new()
        .input("x", &["n", "128"])
        .initializer(initializer_f32("w", &[128, 128], &values))
        .node(node("Identity", ["x"], "same"))
        .node(node("MatMul", ["same", "w"], "y").named("product"))
        .output("y", &["n", "128"])
        .model()
}

#[test]
fn an_unusable_model_is_told_and_not_written() {
    let world = World::new();
    let split = node("Split", ["x", "sizes"], "y").output("z").named("halves");
    let model = TestGraph::new()
        .input("x", &["2"])
        .input_i64("sizes", &["2"])
        .node(split)
        .output("y", &["n"])
        .model();
    let mut proto = model.proto().clone();
    proto.opset_import[0].version = Some(11);
    world.write("new.onnx", prost::Message::encode_to_vec(&proto));
    for verb in [["pass", "run"].as_slice(), &["quantize"]] {
        let arguments = verb.iter().chain(&["new.onnx", "-o", "out.onnx"]);
        let run = world.run(arguments).exits(2).hints();
        let says = "new.onnx: node 0 \"halves\" (Split): it has 2; Split takes 1 input; this form needs \
                    opset 13; the model has opset 11";
        let words = run.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(says), "{}", run.show());
        assert!(!world.work("out.onnx").exists());
    }
    // It can still be looked at.
    world.run(["inspect", "new.onnx"]).exits(0);
    world.run(["diff", "new.onnx", "new.onnx"]).exits(0);
}

#[test]
fn unknown_fields_are_warned_of_and_not_rewritten() {
    let world = World::new();
    let mut bytes = product().to_bytes();
    bytes.extend(b"\xfa\x3f\x05hello");
    world.write("later.onnx", bytes);
    let says = "later.onnx: the model has field 1023";
    world.run(["inspect", "later.onnx"]).exits(0).says("warning: ").says(says);
    world.run(["diff", "later.onnx", "later.onnx"]).exits(0).says("warning: ");
    let run = world.run(["pass", "run", "later.onnx", "-o", "out.onnx"]).exits(2).hints();
    run.says("field 1023");
    assert!(!world.work("out.onnx").exists());
}

#[test]
fn written_models_have_the_rights_of_any_other_file() {
    let world = World::new();
    let plain = world.write("m.onnx", product().to_bytes());
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let rewrite = ["pass", "run", "m.onnx", "--external-data", "-o", "rewritten.onnx"];
    world.run(rewrite).exits(0);
    world.run(["quantize", "m.onnx", "-o", "int8.onnx"]).exits(0);
    for name in ["rewritten.onnx", "rewritten.onnx.data", "int8.onnx"] {
        assert_eq!(mode(&world.work(name)), mode(&plain), "{name}");
    }
    std::fs::set_permissions(world.work("int8.onnx"), std::fs::Permissions::from_mode(0o640)).unwrap();
    world.run(["quantize", "m.onnx", "-o", "int8.onnx", "--overwrite"]).exits(0);
    assert_eq!(mode(&world.work("int8.onnx")), 0o640);
}

/// ONNX's checker takes both files, and ONNX Runtime makes the same numbers of them.
fn others_read_both(world: &World) {
    let Some(python) = python() else { return skipped("others_read_both", "no .venv; run make setup") };
    let script = "import numpy, onnx, onnxruntime\n\
        x = numpy.arange(256, dtype=numpy.float32).reshape(2, 128)\n\
        def run(name):\n    onnx.checker.check_model(name, full_check=True)\n    \
        return onnxruntime.InferenceSession(name).run(None, {'x': x})[0]\n\
        assert (run('out.onnx') == run('one.onnx')).all()\n";
    let done = std::process::Command::new(python.join("bin/python"))
        .args(["-c", script])
        .env("ORT_DISABLE_TELEMETRY", "1")
        .current_dir(world.work(""))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn weights_go_beside_the_model_where_that_is_asked() {
    let world = World::new();
    world.write("m.onnx", product().to_bytes());
    let call = ["pass", "run", "m.onnx", "-o", "out.onnx", "--external-data"];
    world.run(call).exits(0).says("weights in out.onnx.data");
    world.run(["pass", "run", "m.onnx", "-o", "one.onnx"]).exits(0);
    assert!(world.work("out.onnx").metadata().unwrap().len() < 1 << 10);
    assert_eq!(world.work("out.onnx.data").metadata().unwrap().len(), 1 << 16);
    let values: Vec<f32> = (0..256).map(|i| i as f32 / 16.0).collect();
    let inputs = [("x".to_owned(), Tensor::from_f32(&[2, 128], &values))].into();
    let run = |name: &str| {
        let model = Model::open(world.work(name)).unwrap();
        Tract.load_bytes(&model.to_bytes()).unwrap().run(&inputs).unwrap()
    };
    assert_eq!(run("out.onnx"), run("one.onnx"));
    others_read_both(&world);
    // Nothing that is in the way is replaced unasked, neither file.
    std::fs::remove_file(world.work("out.onnx")).unwrap();
    world.run(call).exits(2).hints().says("out.onnx.data exists already");
    assert!(!world.work("out.onnx").exists());
    world.run(call.iter().chain(&["--overwrite"])).exits(0);
    world.run(["inspect", "out.onnx"]).exits(0);
    world.is_clean();
}

#[test]
fn weights_that_the_input_reads_are_not_replaced() {
    let world = World::new();
    world.write("m.onnx", product().to_bytes());
    world.run(["pass", "run", "m.onnx", "-o", "ext.onnx", "--external-data"]).exits(0);
    std::fs::copy(world.work("ext.onnx"), world.work("orig.onnx")).unwrap();
    let mut shown = String::new();
    for (verb, more) in [
        (&["quantize"][..], &["-o", "ext.onnx", "--overwrite", "--external-data"][..]),
        (&["pass", "run"], &["-o", "ext.onnx", "--overwrite", "--external-data"]),
        (&["pass", "run"], &["-o", "ext.onnx.data", "--overwrite"]),
    ] {
        let call = [verb, &["orig.onnx"][..], more].concat();
        let run = world.run(&call).exits(2).hints();
        shown += &format!("$ {}\n{}\n", call.join(" "), run.show());
        world.run(["inspect", "orig.onnx"]).exits(0);
    }
    // In its own place, and then inside: the file beside it is told.
    let own = ["pass", "run", "ext.onnx", "-o", "ext.onnx", "--overwrite"];
    world.run(own.iter().chain(&["--external-data"])).exits(0);
    world.run(["inspect", "ext.onnx"]).exits(0);
    world.run(own).exits(0).says("ext.onnx.data is left: it held the weights of the model");
    snapshot!("models-weights-in-use", world, shown);
    world.is_clean();
}
