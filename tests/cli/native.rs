//! Builds without Python: graphs written from weights, answers that a checkpoint carries or the model in double precision.

use crate::harness::{ROOT, World, assert_same, copy_tree, python, skipped};
use crate::snapshot;

/// Nothing outside of the program: no Python environment, no library of a runtime.
fn alone(world: &World, arguments: &[&str]) -> std::process::Command {
    let mut command = world.command(arguments);
    command.env_remove("SOPRANO_EXPORT_ONNXRUNTIME").env_remove("SOPRANO_EXPORT_OPENVINO");
    command
}

#[test]
fn the_small_voice_is_built_and_speaks_in_an_empty_folder() {
    let world = World::new();
    let build = ["build", "soprano-mini", "--no-speed-gate"];
    let run = crate::harness::Run::from(alone(&world, &build).output().unwrap()).exits(0);
    assert_eq!(run.stdout, "soprano-mini\n");
    let said = "exporter native, for no Python environment of the family \"soprano\" was found\n\
                references pytorch, whose recorded answers the checkpoint carries\n";
    assert!(run.stderr.starts_with(said), "{}", run.show());
    world.run(["verify", "soprano-mini"]).exits(0);
    let synth = ["synth", "soprano-mini", "Hello there, my friend."];
    crate::harness::Run::from(alone(&world, &synth).output().unwrap()).exits(0);
    let sound = std::fs::metadata(world.work("speech.wav")).unwrap();
    assert!(sound.len() > 32_000, "{} bytes of sound", sound.len());
    let manifest = std::fs::read(world.work("soprano-mini/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["checkpoint"]["source"], "builtin:soprano-mini");
    assert!(manifest.get("references").is_none(), "PyTorch's go without saying");
    assert!(manifest["environment"]["torch"].is_string(), "{}", manifest["environment"]);
    // Another program's voice, with other answers beside the same weights, is another stage.
    let mut plan = alone(&world, &["plan", "soprano-mini", "--json"]);
    let plan = crate::harness::Run::from(plan.output().unwrap()).exits(0).json();
    let stages = plan["stages"].as_array().unwrap();
    let unpacked = stages.iter().find(|stage| stage["stage"] == "checkpoint").unwrap();
    let record = std::path::Path::new(unpacked["folder"].as_str().unwrap()).join("stage.json");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let key = record["fields"]["files"].as_str().unwrap();
    for file in record["files"].as_object().unwrap().keys() {
        assert!(key.contains(&format!("{file:?}")), "{file} is in the stage and not in its key");
    }
    world.is_clean();
}

#[test]
fn two_native_builds_are_byte_identical() {
    let build = |world: &World| {
        let words = ["build", "soprano-mini", "--no-speed-gate", "--only", "lm"];
        crate::harness::Run::from(alone(world, &words).output().unwrap()).exits(0);
        world.work("soprano-mini-lm")
    };
    let (one, other) = (World::new(), World::new());
    assert_same(&build(&one), &build(&other));
}

#[test]
fn what_is_asked_for_and_is_not_here_is_refused() {
    let world = World::new();
    let run = |words: &[&str]| crate::harness::Run::from(alone(&world, words).output().unwrap());
    let torch = run(&["build", "soprano-mini", "--exporter", "torch"]).exits(2).hints();
    snapshot!("torch_without_python", world, torch.show());
    let optimum = run(&["build", "soprano-mini", "--exporter", "optimum"]).exits(2).hints();
    snapshot!("optimum_of_a_decoder", world, optimum.show());
    run(&["build", "soprano-mini", "--exporter", "natif"]).exits(2).says("'native'");
    run(&["build", "soprano-mini", "--python", "/nowhere"]).exits(2).hints();
    let unknown = "name: a\nsource: builtin:soprano-maxi\nlm: {}\n";
    world.write("unknown.yaml", unknown);
    run(&["build", "unknown.yaml"]).exits(2).says("no checkpoint \"soprano-maxi\"").hints();
    world.is_clean();
}

#[test]
fn answers_of_other_weights_are_not_taken() {
    let world = World::new();
    let voice = world.work("voice");
    copy_tree(&std::path::Path::new(ROOT).join("fixtures/soprano-mini"), &voice);
    let recipe = std::fs::read_to_string(format!("{ROOT}/recipes/soprano-mini.yaml")).unwrap();
    world.write("voice.yaml", recipe.replace("builtin:soprano-mini", "./voice"));
    let plan = || {
        let plan = alone(&world, &["plan", "voice.yaml", "--no-speed-gate"]);
        crate::harness::Run::from({ plan }.output().unwrap()).exits(0).stderr
    };
    assert!(plan().contains("references pytorch, whose recorded answers the checkpoint carries"));
    let config = voice.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + "\n").unwrap();
    assert!(plan().contains("references float64, for PyTorch is not here"), "{}", plan());
    // An answer that was changed is not what the list says.
    copy_tree(&std::path::Path::new(ROOT).join("fixtures/soprano-mini"), &voice);
    std::fs::write(voice.join("references-lm.safetensors"), "other").unwrap();
    let build = ["build", "voice.yaml", "--no-speed-gate", "--until", "record-lm"];
    let run = crate::harness::Run::from(alone(&world, &build).output().unwrap()).exits(2);
    run.says("it is not the file that references.json lists");
}

#[test]
fn a_native_bundle_is_held_to_pytorch_itself() {
    let Some(environment) = python() else {
        return skipped(
            "a_native_bundle_is_held_to_pytorch_itself",
            "no Python environment: make setup",
        );
    };
    let world = World::new();
    let build = ["build", "soprano-mini", "--references", "float64", "--no-speed-gate", "--only", "lm"];
    crate::harness::Run::from(alone(&world, &build).output().unwrap()).exits(0);
    // Without the answers that it carries.
    let voice = world.work("voice");
    copy_tree(&std::path::Path::new(ROOT).join("fixtures/soprano-mini"), &voice);
    std::fs::remove_file(voice.join("references.json")).unwrap();
    let python = environment.to_string_lossy().into_owned();
    let against = ["--python", &python, "validate", "soprano-mini-lm", "--against", "voice"];
    world.run(against).exits(0);
    std::fs::write(voice.join("config.json"), "{}").unwrap();
    let other = world.run(against).exits(2).hints();
    other.says("config.json is not the file that the bundle was built from");
}

/// How often each operator stands in a graph, and what it takes and gives.
fn described(file: &std::path::Path) -> (std::collections::BTreeMap<String, usize>, String) {
    let model = soprano_export::Model::open_checked(file).unwrap();
    let mut operators = std::collections::BTreeMap::new();
    for node in &model.graph_proto().node {
        *operators.entry(node.qualified_op()).or_default() += 1;
    }
    let signature = soprano_export::Signature::from(&model);
    (operators, format!("{:?} -> {:?}", signature.inputs, signature.outputs))
}

#[test]
fn both_roads_end_in_one_graph() {
    let Some(environment) = python() else {
        return skipped("both_roads_end_in_one_graph", "no Python environment: make setup");
    };
    let world = World::new();
    let python = environment.to_string_lossy().into_owned();
    for source in ["seeded:tiny", "seeded:tiny-1.0", "builtin:soprano-mini"] {
        world.write("both.yaml", format!("name: both\nsource: {source}\ndecoder: {{}}\nlm: {{}}\n"));
        for graph in ["decoder", "lm"] {
            let stage = format!("rewrite-{graph}");
            let [native, torch] = ["native", "torch"].map(|exporter| {
                let words = [
                    "--python", &python, "build", "both.yaml", "--exporter", exporter, "--until",
                    &stage,
                ];
                let folder = world.run(words).exits(0).stdout;
                std::path::Path::new(folder.trim()).join("rewritten.onnx")
            });
            let (mut ours, mut theirs) = (described(&native), described(&torch));
            // PyTorch casts two lengths to the type that they have.
            if graph == "lm" {
                let casts = [&mut ours, &mut theirs].map(|of| of.0.remove("Cast").unwrap_or_default());
                assert_eq!(casts[0] + 2, casts[1], "{source}");
            }
            assert_eq!(ours, theirs, "{source}: {graph}");
            let [native, torch] = [native, torch].map(|path| path.to_string_lossy().into_owned());
            let compared = world.run(["diff", &torch, &native, "--run", "tract"]).exits(0);
            let said = compared.show();
            assert!(
                said.contains("0.0e0 of the peak, equal") && said.contains("the models agree"),
                "{said}"
            );
        }
    }
}
