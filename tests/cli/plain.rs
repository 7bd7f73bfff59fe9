//! Models that no family knows, by recipes alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{ROOT, Run, World, python, skipped};

/// A verb in a cache that stays from one test run to the next: exports are made once.
fn command(world: &World, words: &[&str]) -> Option<Command> {
    let mut command = world.command(words);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli/cache");
    command.arg("--cache-dir").arg(cache).arg("--python").arg(python()?);
    Some(command)
}

fn recipe(name: &str) -> String {
    let path = PathBuf::from(ROOT).join("recipes").join(name);
    path.to_str().unwrap().to_owned()
}

fn run(command: &mut Command) -> Run {
    command.output().unwrap().into()
}

fn manifest(world: &World, bundle: &str) -> Value {
    let text = std::fs::read_to_string(world.work(bundle).join("manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn names(ports: &Value) -> Vec<&str> {
    ports.as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap()).collect()
}

#[test]
fn a_llama_with_a_tied_head_and_scaled_rotary_embedding() {
    let world = World::new();
    let recipe = recipe("plain-llama.yaml");
    let build = ["build", &recipe, "--no-speed-gate", "-o", "llama"];
    let Some(mut build) = command(&world, &build) else {
        return skipped(
            "a_llama_with_a_tied_head_and_scaled_rotary_embedding",
            "no .venv; run make setup",
        );
    };
    run(&mut build).exits(0);
    let manifest = manifest(&world, "llama");
    assert_eq!((&manifest["family"], &manifest["format"]), (&json!("plain"), &json!(2)));
    let graph = &manifest["graphs"]["backbone"];
    assert_eq!(graph["interface"]["hidden"], "states");
    assert_eq!(graph["architecture"]["tied"], true);
    assert!(manifest.get("trusted_code").is_none(), "no code but transformers' own was run");
    let artifacts = manifest["artifacts"].as_array().unwrap();
    let files: Vec<_> = artifacts.iter().map(|artifact| &artifact["file"]).collect();
    assert_eq!(files, ["onnx/backbone_fp32.onnx", "onnx/backbone_int8.onnx"]);
    for artifact in artifacts {
        let outputs = names(&artifact["outputs"]);
        assert_eq!((outputs[0], outputs[1]), ("logits", "present.0.key"));
        assert_eq!(*outputs.last().unwrap(), "states", "clients count: hidden states come last");
        assert!(outputs.contains(&"hidden_states.1"));
        assert!(names(&artifact["inputs"]).contains(&"past_key_values.1.value"));
    }
    run(&mut command(&world, &["validate", "llama", "--runtime", "all"]).unwrap()).exits(0);
    let quick = ["bench", "llama", "--quick", "--rounds", "1", "--runtime", "tract", "--json"];
    let report = run(&mut command(&world, &quick).unwrap()).exits(0).json();
    assert_eq!(report["rows"][0]["graph"], "backbone");
    let refused = run(&mut command(&world, &["synth", "llama", "Hello."]).unwrap()).exits(2);
    refused.hints();
}

#[test]
fn a_vocoder_by_its_import_path() {
    let world = World::new();
    let recipe = recipe("plain-vocoder.yaml");
    let build = ["build", &recipe, "-o", "vocoder"];
    let Some(mut refused) = command(&world, &build) else {
        return skipped("a_vocoder_by_its_import_path", "no .venv; run make setup");
    };
    let untrusted = run(&mut refused).exits(2).hints();
    untrusted.says("none of it was run").says("--trust-code");
    assert!(!world.work("vocoder").exists());
    let workflow = ["plan", &recipe, "--format", "snakemake"];
    run(&mut command(&world, &workflow).unwrap()).exits(2).says("--trust-code");
    let rules = run(command(&world, &workflow).unwrap().arg("--trust-code")).exits(0);
    assert!(rules.stdout.lines().filter(|line| line.contains(" build ")).count() > 3);
    let builds = |line: &&str| line.contains(" build ") && !line.contains("--trust-code");
    assert_eq!(rules.stdout.lines().find(builds), None);
    run(command(&world, &build).unwrap().arg("--trust-code")).exits(0);
    let manifest = manifest(&world, "vocoder");
    assert_eq!(manifest["trusted_code"], json!(["soprano.vocos.heads:ISTFTHead"]));
    let graph = &manifest["graphs"]["head"];
    assert_eq!(graph["framing"], json!({"per_frame": 160, "lead": 1}));
    assert_eq!(graph["sample_rate"], 24000);
    let artifact = &manifest["artifacts"][0];
    assert_eq!(
        (names(&artifact["inputs"]), names(&artifact["outputs"])),
        (vec!["features"], vec!["waveform"])
    );
    run(&mut command(&world, &["validate", "vocoder", "--runtime", "all"]).unwrap()).exits(0);
}

#[test]
fn what_a_recipe_may_not_say_is_refused_at_its_place() {
    let world = World::new();
    let check = |graph: &str| {
        world.write(
            "r.yaml",
            format!("name: a\nfamily: plain\nsource: ./b\ngraphs:\n  head: {graph}\n"),
        );
        world.run(["recipe", "check", "r.yaml"]).exits(1)
    };
    check("{}").says("key `role` is missing");
    check("{role: chorus}").says("unknown value `chorus`");
    check("{role: signal}").says("`head.module` is missing");
    let module = |import: &str, weights: &str| {
        check(&format!("{{role: signal, module: {{import: '{import}', weights: '{weights}'}}}}"))
    };
    module("os.system", "w.pth").says("`head.module.import` is not an import path");
    module("a:B", "../w.pth").says("`head.module.weights` is not the name of a file of weights");
    module("a:B", "w.exe").says("`head.module.weights` is not the name of a file of weights");
    check("{role: causal, interface: {ids: logits}}").says("is `logits` again");
    let timed = "{role: signal, module: {import: 'a:B', weights: w.pth}, gate: {second_ms: 9}}";
    check(timed).says("`head.sample_rate` is missing");
    check("{role: signal, module: {import: 'a:B', weights: w.pth}, sample_rate: 0}").says("outside of");
    for key in ["activations: two", "two_terms: [a]", "reduce_range: false"] {
        let blocks = format!("{{role: causal, int8: {{form: blocks-4, {key}}}}}");
        check(&blocks).says("is given, and blocks have activations");
    }
    check("{role: causal, passes: [nope]}").says("r.yaml:\n").says("there is no pass \"nope\"");
    check("{role: causal, passes: [fold-scale, fold-scale]}").says("is fold-scale again");
    let surgery = "{role: signal, module: {import: 'a:B', weights: w.pth}, passes: [add-kv-cache]}";
    check(surgery).says("graph `head`: `passes` has add-kv-cache");
    check("{role: causal, exporter: optimum}").says("unknown value `optimum`");
    check("{role: causal, references: {sentences: [Hello.]}}").says("asks for sentences");
    world.write("r.yaml", "name: a\nsource: ./b\ngraphs:\n  decoder: {interface: {frames: x}}\n");
    world.run(["recipe", "check", "r.yaml"]).exits(1).says("the family has names of its own");
    world.write("r.yaml", "name: a\nsource: ./b\ngraphs:\n  vocoder: {}\n");
    world.run(["recipe", "check", "r.yaml"]).exits(1).says("unknown key `vocoder`");
}
