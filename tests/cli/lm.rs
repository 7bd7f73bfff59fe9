//! Language models and 8 bits, as a user meets them.

use soprano_export::runtime::{Runtime, Tensors, Tract};
use soprano_export::tensor::Tensor;

use crate::harness::{Shared, World, python, tree};
use crate::shared_or_skip;

/// Builds the tiny language model by a route, its stages kept in the cache that tests share.
fn built(world: &World, shared: &Shared, route: &str, more: &str) -> std::path::PathBuf {
    let recipe = format!(
        "name: tiny-{route}\nsource: synthetic:tiny\nlm:\n  route: {route}\n  int8: {{snr_db: 12}}\n{more}"
    );
    world.write(&format!("{route}.yaml"), recipe);
    let (cache, python) = (shared.cache.to_str().unwrap(), python().unwrap());
    let place = ["--cache-dir", cache, "--python", python.to_str().unwrap(), "--no-speed-gate"];
    let file = format!("{route}.yaml");
    let run = world.command(["build", &file, "-o", route]).args(place).output().unwrap();
    let run = crate::harness::Run::from(run).exits(0).says("error growth over steps");
    assert_eq!(run.stdout, format!("{route}\n"));
    world.work(route)
}

fn manifest(bundle: &std::path::Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(bundle.join("manifest.json")).unwrap()).unwrap()
}

/// A padded prompt and a step behind it, in tract.
fn hidden(bundle: &std::path::Path) -> Vec<f32> {
    let model = Tract.load(&bundle.join("onnx/soprano_backbone_kv_fp32.onnx")).unwrap();
    let empty = || Tensor::from_f32(&[2, 2, 0, 16], &[]);
    let ints = |shape: &[usize], values: &[i64]| Tensor::from_i64(shape, values);
    let mut inputs = Tensors::from([
        ("input_ids".to_owned(), ints(&[2, 4], &[5, 6, 7, 8, 3, 3, 9, 4])),
        ("attention_mask".to_owned(), ints(&[2, 4], &[1, 1, 1, 1, 0, 0, 1, 1])),
        ("position_ids".to_owned(), ints(&[2, 4], &[0, 1, 2, 3, 0, 0, 0, 1])),
    ]);
    for layer in 0..2 {
        for kind in ["key", "value"] {
            inputs.insert(format!("past_key_values.{layer}.{kind}"), empty());
        }
    }
    let first = model.run(&inputs).unwrap();
    let mut step = Tensors::from([
        ("input_ids".to_owned(), ints(&[2, 1], &[11, 12])),
        ("attention_mask".to_owned(), ints(&[2, 5], &[1, 1, 1, 1, 1, 0, 0, 1, 1, 1])),
        ("position_ids".to_owned(), ints(&[2, 1], &[4, 2])),
    ]);
    for (name, tensor) in first.iter().filter(|(name, _)| name.starts_with("present.")) {
        step.insert(name.replace("present.", "past_key_values."), tensor.clone());
    }
    let second = model.run(&step).unwrap();
    let mut values = first["last_hidden_state"].to_f32().unwrap();
    // Rows of padding are anything.
    values.drain(4 * 64..6 * 64);
    values.extend(second["last_hidden_state"].to_f32().unwrap());
    values
}

#[test]
fn both_routes_lead_to_the_same_interface_and_the_same_numbers() {
    let shared = shared_or_skip!();
    let world = World::new();
    let torch = built(&world, shared, "torch", "");
    let optimum = built(&world, shared, "optimum", "");
    let ports = |bundle: &std::path::Path, kind: &str| -> Vec<(String, serde_json::Value)> {
        let list = manifest(bundle)["artifacts"][0][kind].as_array().unwrap().clone();
        let fixed = |port: &serde_json::Value| {
            // Exporters call the batch by names of their own.
            let mut shape = port["shape"].clone();
            shape[0] = "batch".into();
            (port["name"].as_str().unwrap().to_owned(), shape)
        };
        list.iter().map(fixed).collect()
    };
    for kind in ["inputs", "outputs"] {
        assert_eq!(ports(&torch, kind), ports(&optimum, kind));
    }
    let names: Vec<String> = ports(&torch, "outputs").into_iter().map(|port| port.0).collect();
    assert_eq!(names[..3], ["logits", "present.0.key", "present.0.value"]);
    assert_eq!(names.last().unwrap(), "last_hidden_state");
    let cache = &ports(&torch, "inputs")[3];
    assert_eq!(cache.1, serde_json::json!(["batch", "2", "past_sequence_length", "16"]));

    let (a, b) = (hidden(&torch), hidden(&optimum));
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(a.len() == b.len() && worst < 2e-5, "{worst:e}");
    for bundle in [&torch, &optimum] {
        let artifacts = manifest(bundle)["artifacts"].clone();
        assert_eq!(artifacts[1]["precision"], "int8");
        assert_eq!(artifacts[1]["speed_gate"], "skipped");
        assert!(artifacts[0].get("speed_gate").is_none());
    }
    world.run(["validate", "torch"]).exits(0);
    world.run(["verify", "optimum"]).exits(0);
}

#[test]
fn inner_layers_and_the_last_logits_alone_are_outputs_where_asked_and_held_to_pytorch() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = built(&world, shared, "torch", "  hidden_states: [0, 1]\n  last_logits: true\n");
    let outputs = manifest(&bundle)["artifacts"][0]["outputs"].as_array().unwrap().clone();
    let names: Vec<&str> = outputs.iter().map(|port| port["name"].as_str().unwrap()).collect();
    assert_eq!(names[names.len() - 3..], ["hidden_states.0", "hidden_states.1", "last_hidden_state"]);
    assert_eq!(outputs[0]["shape"][1], "1");
    let missing = "name: far\nsource: synthetic:tiny\nlm: {hidden_states: [7]}\n";
    world.write("far.yaml", missing);
    let python = python().unwrap();
    let run = world.run(["build", "far.yaml", "--python", python.to_str().unwrap()]).exits(2);
    run.says("`hidden_states`: [7] of 2 layers");
}

#[test]
fn quantize_refuses_what_it_can_not_do_and_overwrites_nothing() {
    let shared = shared_or_skip!();
    let world = World::new();
    let model = shared.model();
    let model = model.to_str().unwrap();
    let run = world.run(["quantize", model, "-o", "int8.onnx", "--json"]).exits(0);
    assert!(!run.json()["products"].as_array().unwrap().is_empty());
    world.run(["quantize", model, "-o", "int8.onnx"]).exits(2).says("--overwrite");
    let twice = world.run(["quantize", "int8.onnx", "-o", "twice.onnx"]).exits(2);
    twice.says("the model is quantized already").hints();
    let unknown = world.run(["quantize", model, "-o", "b.onnx", "--keep-fp32", "/no/*"]).exits(2);
    unknown.says("no node is named \"/no/*\"").hints();
    let all = world.run(["quantize", model, "-o", "b.onnx", "--keep-fp32", "*"]).exits(2);
    all.says("no product with a constant weight is left");
    world.write("text.onnx", "not a model");
    world.run(["quantize", "text.onnx", "-o", "b.onnx"]).exits(2);
    assert_eq!(tree(&world.work("")).keys().collect::<Vec<_>>(), ["int8.onnx", "text.onnx"]);
}

#[test]
fn sensitivity_lists_every_node_and_writes_what_reaches_a_ratio() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = shared.bundle.to_str().unwrap();
    let run = world
        .run(["sensitivity", bundle, "--snr", "30", "-o", "fragment.yaml", "--plot", "p.svg", "--json"])
        .exits(0);
    let nodes = run.json()["nodes"].as_array().unwrap().clone();
    assert!(nodes.iter().all(|node| node["one"]["snr_db"].as_f64().unwrap() > 0.0));
    assert!(run.json()["choice"]["snr_db"].as_f64().unwrap() >= 30.0);
    assert!(run.json()["choice"]["products"].as_u64().unwrap() > 0);
    let fragment = std::fs::read_to_string(world.work("fragment.yaml")).unwrap();
    world.write("r.yaml", format!("name: r\nsource: synthetic:tiny\n{fragment}"));
    world.run(["recipe", "check", "r.yaml"]).exits(0);
    assert!(std::fs::read_to_string(world.work("p.svg")).unwrap().ends_with("</svg>\n"));

    // Nothing in 8 bits is as near as that; and what is no recipe is not written.
    let far = world.run(["sensitivity", bundle, "--snr", "95", "-o", "far.yaml", "--json"]).exits(1);
    assert!(far.json()["choice"].is_null());
    far.says("no fragment is written");
    assert!(!world.work("far.yaml").exists());

    let again = world.run(["sensitivity", bundle, "--snr", "30", "-o", "fragment.yaml"]).exits(2);
    again.says("fragment.yaml: it is there already").hints();
    for snr in ["nan", "11.9", "100.1"] {
        world.run(["sensitivity", bundle, "--snr", snr]).exits(2).says("not a signal-to-noise ratio");
    }
    world.run(["sensitivity", bundle, "--part", "lm"]).exits(2).says("no fp32 file of that graph");
    world.run(["sensitivity", "nowhere"]).exits(2);
}

#[test]
fn a_runtime_that_is_named_must_be_there() {
    let world = World::new();
    let run = world.run(["plan", "soprano-tiny", "--onnxruntime", "nowhere.so"]).exits(2);
    run.says("onnxruntime is not available: ").says("nowhere.so: no such file").hints();
}
