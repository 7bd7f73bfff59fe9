//! OpenVINO's format, as a user meets it.

use crate::harness::{Run, Shared, World, python};
use crate::shared_or_skip;

/// Builds a recipe, its stages kept in the cache that tests share.
fn built(world: &World, shared: &Shared, name: &str, recipe: &str) -> Run {
    world.write(&format!("{name}.yaml"), format!("name: {name}\nsource: synthetic:tiny\n{recipe}"));
    let (cache, python) = (shared.cache.to_str().unwrap(), python().unwrap());
    let place = ["--cache-dir", cache, "--python", python.to_str().unwrap(), "--no-speed-gate"];
    let file = format!("{name}.yaml");
    Run::from(world.command(["build", &file, "-o", name]).args(place).output().unwrap())
}

fn manifest(world: &World, name: &str) -> serde_json::Value {
    let text = std::fs::read(world.work(name).join("manifest.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

const SHORT: &str = "  references: {lengths: [2, 5], batches: [1, 3]}\n";

#[test]
fn every_scheme_is_validated_bundled_and_checked_again_in_every_runtime() {
    let shared = shared_or_skip!();
    let world = World::new();
    let targets = "  targets: {openvino: {schemes: [fp32, fp16, int8]}}\n";
    let run = built(&world, shared, "ir", &format!("decoder:\n{SHORT}{targets}")).exits(0);
    run.says("in openvino");
    let artifacts = manifest(&world, "ir")["artifacts"].as_array().unwrap().clone();
    let files: Vec<_> = artifacts.iter().map(|a| a["file"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        files,
        [
            "onnx/soprano_decoder_fp32.onnx",
            "openvino/soprano_decoder_fp32.xml",
            "openvino/soprano_decoder_fp16.xml",
            "openvino/soprano_decoder_int8.xml"
        ]
    );
    for converted in &artifacts[1..] {
        assert_eq!(converted["format"], "openvino");
        for ports in ["inputs", "outputs"] {
            assert_eq!(
                converted[ports], artifacts[0][ports],
                "names, order and layouts are the ONNX file's"
            );
        }
        assert!(world.work("ir").join(converted["weights"]["file"].as_str().unwrap()).is_file());
    }
    world.run(["verify", "ir"]).exits(0);
    let sizes = |file: &str| std::fs::metadata(world.work("ir").join(file)).unwrap().len();
    let whole = sizes("openvino/soprano_decoder_fp32.xml") + sizes("openvino/soprano_decoder_fp32.bin");
    let page = std::fs::read_to_string(world.work("ir/report.html")).unwrap();
    let page: String = page.chars().filter(|&sign| sign != ',').collect();
    assert!(page.contains(&format!("({whole} bytes)")), "an IR's size is that of both its files");
    crate::pages::fits(&world.work("ir/report.html"));
    let python = python().unwrap();
    let place = ["--python", python.to_str().unwrap()];
    let all = ["validate", "ir", "--runtime", "all"];
    let run = world.run(all.iter().chain(&place)).exits(0);
    let rows = run.stderr.lines().filter(|line| line.ends_with(" passed")).count();
    // Seven references, one file in four runtimes and three files in one.
    let cases = artifacts.len() + 3;
    assert!(rows > 0 && rows % cases == 0, "{rows} rows of {cases}");
    let run = world.run(["validate", "ir", "--runtime", "tract"]).exits(0);
    run.says(
        "openvino/soprano_decoder_int8.xml: not validated, for no runtime that was asked takes it",
    );

    let weights = world.work("ir/openvino/soprano_decoder_fp32.bin");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::remove_file(&weights).unwrap();
    let only = ["validate", "ir", "--runtime", "openvino"];
    world.run(only.iter().chain(&place)).exits(2).says("soprano_decoder_fp32.bin");
    std::fs::copy(world.work("ir/openvino/soprano_decoder_fp16.bin"), &weights).unwrap();
    world.run(only.iter().chain(&place)).exits(2).says("and").says("was validated");
    std::fs::write(&weights, whole).unwrap();
    world.run(["verify", "ir"]).exits(0);
}

#[test]
fn a_language_model_is_the_same_by_both_ways_and_with_its_cache_inside() {
    let shared = shared_or_skip!();
    let world = World::new();
    for (name, target) in [
        ("onnx", "{schemes: [fp32, int8], int8_snr_db: 12}"),
        ("torch", "{schemes: [fp32], via: torch}"),
        ("stateful", "{schemes: [fp32], stateful: true}"),
    ] {
        let recipe = format!("lm:\n  targets: {{openvino: {target}}}\n");
        built(&world, shared, name, &recipe).exits(0).says("in openvino");
    }
    let ports = |name: &str, kind: &str| -> Vec<String> {
        let list = manifest(&world, name)["artifacts"][1][kind].as_array().unwrap().clone();
        list.iter().map(|port| port["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ports("onnx", "outputs"), ports("torch", "outputs"));
    assert_eq!(ports("stateful", "inputs"), ["input_ids", "attention_mask", "position_ids"]);
    assert_eq!(ports("stateful", "outputs"), ["logits", "last_hidden_state"]);
    let python = python().unwrap();
    let only = ["validate", "stateful", "--runtime", "openvino", "--python", python.to_str().unwrap()];
    world.run(only).exits(0).says("error growth over steps");
}

#[test]
fn shapes_that_the_model_can_not_have_are_refused_and_bounded_ones_held_to_what_fits() {
    let shared = shared_or_skip!();
    let world = World::new();
    let target = |shapes: &str| {
        format!("decoder:\n{SHORT}  targets: {{openvino: {{schemes: [fp32], shapes: {shapes}}}}}\n")
    };
    let bounded = target("{hidden_states: ['1', '?', '2..4']}");
    built(&world, shared, "bounded", &bounded).exits(0);
    let shape = manifest(&world, "bounded")["artifacts"][1]["inputs"][0]["shape"].clone();
    assert_eq!((&shape[0], &shape[2]), (&"1".into(), &"2..4".into()));
    let run = built(&world, shared, "unknown", &target("{hidden: ['1']}")).exits(2);
    run.says("the model has no input 'hidden'").hints();
    let run = built(&world, shared, "rank", &target("{hidden_states: ['1', '2']}")).exits(2);
    run.says("hidden_states cannot be");
    let none = target("{hidden_states: ['7', '?', '?']}");
    let run = built(&world, shared, "none", &none).exits(1);
    run.says("the artifact is out of tolerance");
}

#[test]
fn a_calibrated_decoder_computes_in_8_bits_and_is_held_to_its_references() {
    let shared = shared_or_skip!();
    let world = World::new();
    let recipe = |calibrated: bool, snr: f64| {
        // A range that holds a loud input holds a quiet one badly: what stands before the first norm stays.
        let keep = "[/decoder/embed/Conv/MatMul, /head/out/MatMul]";
        let target = format!(
            "{{schemes: [fp32, int8], calibrated: {calibrated}, keep_fp32: {keep}, int8_snr_db: {snr}}}"
        );
        format!(
            "decoder:\n  references: {{lengths: [5, 16], batches: [1]}}\n  targets: {{openvino: {target}}}\n"
        )
    };
    let graph = |name: &str| {
        let path = world.work(name).join("openvino/soprano_decoder_int8.xml");
        std::fs::read_to_string(path).unwrap()
    };
    built(&world, shared, "weights", &recipe(false, 20.0)).exits(0);
    built(&world, shared, "calibrated", &recipe(true, 12.0)).exits(0).says("in openvino");
    assert!(!graph("weights").contains("FakeQuantize"));
    assert!(graph("calibrated").contains("FakeQuantize"));
    let run = built(&world, shared, "strict", &recipe(true, 200.0)).exits(1);
    run.says("the artifact is out of tolerance");
}
