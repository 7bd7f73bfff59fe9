//! Surgeries: a language model's cache, mask, heads and hidden states, by `pass run`.

use soprano_export::ir::{Attr, Model, TestGraph, initializer_f32, initializer_i64, node};

use crate::harness::World;
use crate::snapshot;

/// One attention without a cache, the scale a node as exporters write it; its mask an input of this name.
fn attention(mask: &str) -> Model {
    let weight = |name: &str, [rows, columns]: [usize; 2]| {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32).sin()).collect();
        initializer_f32(name, &[rows, columns], &values)
    };
    let scale = Attr::Tensor(initializer_f32("", &[], &[0.5]));
    let mut graph = TestGraph::new()
        .input_i64("input_ids", &["batch", "sequence_length"])
        .input_i64(mask, &["batch", "sequence_length"])
        .initializer(weight("table", [9, 8]))
        .initializer(weight("output", [8, 8]))
        .initializer(weight("head", [8, 9]))
        .initializer(initializer_i64("heads", &[4], &[0, 0, 2, 4]))
        .initializer(initializer_i64("flat", &[3], &[0, 0, 8]))
        .initializer(initializer_i64("axes", &[2], &[1, 2]))
        .initializer(initializer_f32("one", &[], &[1.0]))
        .initializer(initializer_f32("far", &[], &[1e9]))
        .node(node("Constant", [""; 0], "scale").attr("value", scale))
        .node(node("Gather", ["table", "input_ids"], "x"));
    for name in ["q", "k", "v"] {
        let value = |part: &str| format!("{name}_{part}");
        graph = graph
            .initializer(weight(&value("weight"), [8, 8]))
            .node(node("MatMul", ["x", &value("weight")], value("flat")))
            .node(node("Reshape", [&value("flat"), "heads"], value("third")))
            .node(node("Transpose", [value("third")], value("second")).ints("perm", [0, 2, 1, 3]));
    }
    graph
        .node(node("Cast", [mask], "seen").int("to", 1))
        .node(node("Sub", ["seen", "one"], "unseen"))
        .node(node("Mul", ["unseen", "far"], "bias_flat"))
        .node(node("Unsqueeze", ["bias_flat", "axes"], "bias"))
        .node(node("Transpose", ["k_second"], "turned").ints("perm", [0, 1, 3, 2]))
        .node(node("MatMul", ["q_second", "turned"], "raw"))
        .node(node("Mul", ["raw", "scale"], "scores"))
        .node(node("Add", ["scores", "bias"], "masked"))
        .node(node("Softmax", ["masked"], "p").int("axis", -1).named("/layers.0/softmax"))
        .node(node("MatMul", ["p", "v_second"], "context"))
        .node(node("Transpose", ["context"], "context_third").ints("perm", [0, 2, 1, 3]))
        .node(node("Reshape", ["context_third", "flat"], "context_flat"))
        .node(node("MatMul", ["context_flat", "output"], "projected"))
        .node(node("Add", ["x", "projected"], "h"))
        .node(node("MatMul", ["h", "head"], "logits"))
        .output("logits", &["batch", "sequence_length", "9"])
        .model()
}

#[test]
fn a_plain_export_gains_a_cache_by_itself() {
    let world = World::new();
    world.write("lm.onnx", attention("attention_mask").to_bytes());
    let cached = ["pass", "run", "lm.onnx", "-o", "cached.onnx", "--pass", "add-kv-cache"];
    snapshot!("surgery-cache", world, world.run(cached).exits(0).show());
    snapshot!("surgery-inspect", world, world.run(["inspect", "cached.onnx"]).exits(0).show());
    let both = ["pass", "run", "lm.onnx", "-o", "both.onnx", "--last-logits", "--json"];
    let both = both.iter().chain(&["--hidden-states", "0", "--pass", "expose-hidden-states"]);
    let report = world.run(both).exits(0).json();
    let passes = serde_json::json!([
        {"pass": "expose-hidden-states", "applied": 2, "refused": []},
        {"pass": "lift-constants", "applied": 1, "refused": []},
    ]);
    assert_eq!(report["passes"], passes);
    // A constant is lifted first.
    let outputs = |fuel: &str| {
        world.run(cached.iter().chain(&["--overwrite", "--fuel", fuel])).exits(0);
        world.run(["inspect", "cached.onnx", "--json"]).exits(0).json()["outputs"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!([outputs("0"), outputs("1"), outputs("2")], [1, 1, 3]);
}

#[test]
fn what_a_surgery_does_not_find_is_named() {
    let world = World::new();
    world.write("lm.onnx", attention("attention_mask").to_bytes());
    world.write("other.onnx", attention("seen_tokens").to_bytes());
    world.run(["pass", "run", "lm.onnx", "-o", "cached.onnx", "--pass", "add-kv-cache"]).exits(0);
    let calls: [&[&str]; 8] = [
        &["other.onnx", "--pass", "add-kv-cache"],
        &["cached.onnx", "--pass", "add-kv-cache"],
        &["lm.onnx", "--pass", "expose-hidden-states", "--hidden-states", "1"],
        &["lm.onnx", "--pass", "expose-hidden-states", "--name", "logits=scores"],
        &["lm.onnx", "--pass", "add-kv-cache", "--kv-heads", "4", "--head-size", "4"],
        &["lm.onnx", "--pass", "group-query-head"],
        &["lm.onnx", "--pass", "add-kv-cache", "--kv-heads", "4"],
        &["lm.onnx", "--pass", "add-kv-cache", "--name", "masc=seen"],
    ];
    let shown = calls.map(|call| {
        let run =
            world.run(["pass", "run", "-o", "new.onnx"].iter().chain(call)).exits(2).says("error: ");
        format!("$ pass run -o new.onnx {}\n{}\n", call.join(" "), run.show())
    });
    snapshot!("surgery-refuses", world, shown.concat());
    assert!(!world.work("new.onnx").exists());
    let named = ["--pass", "add-kv-cache", "--name", "mask=seen_tokens"];
    world.run(["pass", "run", "other.onnx", "-o", "new.onnx"].iter().chain(&named)).exits(0);
    let inputs = world.run(["inspect", "new.onnx", "--json"]).exits(0).json()["inputs"].clone();
    assert_eq!(inputs[1]["shape"][1], "past_sequence_length + sequence_length");
}
