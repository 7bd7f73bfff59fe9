//! Surgeries: a language model's cache, mask, heads and hidden states, by `pass run`.

use soprano_export::ir::{Attr, Model, TestGraph, initializer_f32, initializer_i64, node};

use crate::harness::World;
use crate::snapshot;

/// One attention without a cache, the scale a node as exporters write it; its mask an input of this name. It hides
/// later positions, or padding alone.
fn attention(mask: &str, is_causal: bool) -> Model {
    let weight = |name: &str, [rows, columns]: [usize; 2]| {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32).sin()).collect();
        initializer_f32(name, &[rows, columns], &values)
    };
    let scale = Attr::Tensor(initializer_f32("", &[], &[0.5]));
    let mut graph = TestGraph::new()
        .input_i64("input_ids", &["batch", "sequence_length"])
        // A length of its own: tract takes two equal ranges for one axis.
        .input_i64(mask, &["batch", "mask_length"])
        .initializer(weight("table", [9, 8]))
        .initializer(weight("output", [8, 8]))
        .initializer(weight("head", [8, 9]))
        .initializer(initializer_i64("heads", &[4], &[0, 0, 2, 4]))
        .initializer(initializer_i64("flat", &[3], &[0, 0, 8]))
        .initializer(initializer_i64("first", &[1], &[1]))
        .initializer(initializer_i64("n_zero", &[], &[0]))
        .initializer(initializer_i64("n_one", &[], &[1]))
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
        .node(node("Cast", [mask], "given").int("to", 1))
        .node(node("Unsqueeze", ["given", "first"], "padding"))
        .node(node("Shape", [mask], "mask_shape"))
        .node(node("Gather", ["mask_shape", "n_one"], "total"))
        .node(node("Shape", ["input_ids"], "ids_shape"))
        .node(node("Gather", ["ids_shape", "n_one"], "length"))
        .node(node("Sub", ["total", "length"], "past"))
        .node(node("Range", ["past", "total", "n_one"], "places"))
        .node(node("Unsqueeze", ["places", "first"], "rows"))
        .node(node("Range", ["n_zero", "total", "n_one"], "columns"))
        .node(node("LessOrEqual", ["columns", "rows"], "causal"))
        .node(node("Cast", ["causal"], "earlier").int("to", 1))
        .node(node("Mul", ["padding", "earlier"], "both"))
        .node(node("Sub", [if is_causal { "both" } else { "padding" }, "one"], "unseen"))
        .node(node("Mul", ["unseen", "far"], "bias_flat"))
        .node(node("Unsqueeze", ["bias_flat", "first"], "bias"))
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
    world.write("lm.onnx", attention("attention_mask", true).to_bytes());
    let cached = ["pass", "run", "lm.onnx", "-o", "cached.onnx", "--pass", "add-kv-cache"];
    snapshot!("surgery-cache", world, world.run(cached).exits(0).show());
    let diff = ["diff", "lm.onnx", "cached.onnx", "--run", "tract"];
    world.run(diff).exits(0).says("the models agree in all that the first gives");
    assert_eq!(world.run(diff.iter().chain(&["--json"])).exits(0).json()["agree"], true);
    world.run(["diff", "cached.onnx", "lm.onnx", "--run", "tract"]).exits(1).says("the models differ");
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
    world.write("lm.onnx", attention("attention_mask", true).to_bytes());
    world.write("seen.onnx", attention("attention_mask", false).to_bytes());
    world.write("other.onnx", attention("seen_tokens", true).to_bytes());
    world.run(["pass", "run", "lm.onnx", "-o", "cached.onnx", "--pass", "add-kv-cache"]).exits(0);
    let calls: [&[&str]; 18] = [
        &["other.onnx", "--pass", "add-kv-cache"],
        &["cached.onnx", "--pass", "add-kv-cache"],
        &["lm.onnx", "--pass", "expose-hidden-states", "--hidden-states", "1"],
        &["lm.onnx", "--pass", "expose-hidden-states", "--name", "logits=scores"],
        &["lm.onnx", "--pass", "add-kv-cache", "--kv-heads", "4", "--head-size", "4"],
        &["lm.onnx", "--pass", "group-query-head"],
        &["lm.onnx", "--pass", "add-kv-cache", "--kv-heads", "4"],
        &["lm.onnx", "--pass", "add-kv-cache", "--name", "masc=seen"],
        &["seen.onnx", "--pass", "add-kv-cache"],
        &["lm.onnx", "--pass", "add-kv-cache", "--name", "mask=input_ids"],
        &["lm.onnx", "--pass", "add-kv-cache", "--name", "past=present"],
        &["lm.onnx", "--pass", "expose-hidden-states", "--name", "layers="],
        &["lm.onnx", "--pass", "add-kv-cache", "--name", "mask=a", "--name", "mask=b"],
        &["lm.onnx", "--hidden-states", "0"],
        &["lm.onnx", "--pass", "add-kv-cache", "--last-logits"],
        &["lm.onnx", "--pass", "canonical-mask", "--kv-heads", "2", "--head-size", "4"],
        &["lm.onnx", "--pass", "fold-scale", "--name", "mask=input_ids"],
        &["lm.onnx", "--pass", "nope"],
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
