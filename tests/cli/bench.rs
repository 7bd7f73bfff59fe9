//! What `bench` says of a bundle, and what it refuses. Figures differ from run to run: they are left out.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use soprano_export::digest::Digest;

use crate::harness::{Run, Shared, World, copy_tree, onnxruntime, openvino, python, tree};
use crate::{shared_or_skip, snapshot};

const MODEL: &str = "onnx/soprano_decoder_fp32.onnx";
const QUICK: [&str; 3] = ["--quick", "--rounds", "1"];

/// A copy of the tiny decoder's bundle with a gate in its recipe.
fn with_gate(world: &World, shared: &Shared, name: &str, gate: &str) -> PathBuf {
    let bundle = world.work(name);
    copy_tree(&shared.bundle, &bundle);
    let path = bundle.join("recipe.lock.yaml");
    let recipe = std::fs::read_to_string(&path).unwrap() + gate;
    std::fs::write(&path, &recipe).unwrap();
    manifest(&bundle, |manifest| {
        manifest["files"]["recipe.lock.yaml"] =
            json!({"sha256": Digest::of(recipe.as_bytes()), "bytes": recipe.len()});
    });
    bundle
}

fn manifest(bundle: &Path, edit: impl FnOnce(&mut Value)) {
    let path = bundle.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    std::fs::write(path, manifest.to_string()).unwrap();
}

/// A run in tract, one round.
fn quick(world: &World, bundle: &Path, more: &[&str]) -> Run {
    let mut command = world.command(["bench"]);
    command.arg(bundle).args(QUICK).args(["--runtime", "tract"]).args(more);
    command.output().unwrap().into()
}

#[test]
fn half_a_voice_is_timed_and_its_best_variant_named() {
    let shared = shared_or_skip!();
    let world = World::new();
    let run = quick(&world, &shared.bundle, &["--threads", "1"]).exits(0);
    let mut settings = insta::Settings::clone_current();
    // What a machine and a moment decide.
    for (figures, shown) in [
        (r"(?m)^.*, 1 thread$", "[machine]"),
        (r"(?m)^(fp32 +tract) \d\S+ .*$", "$1 [measured]"),
        (r"(?m)^(decoder fp32 in tract) \d\S+  .*$", "$1 [measured]"),
        (r"\d+\.\d+x realtime", "[n]x realtime"),
    ] {
        settings.add_filter(figures, shown);
    }
    settings.bind(|| snapshot!("bench", world, run.show()));
    world.is_clean();
}

#[test]
fn json_and_the_page_hold_every_figure() {
    let shared = shared_or_skip!();
    let world = World::new();
    let page = world.work("bench.html");
    let html = page.to_str().unwrap();
    let run = quick(&world, &shared.bundle, &["--json", "--html", html]).exits(0);
    let report = run.json();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    let decoded: Vec<_> = rows[0]["figures"].as_array().unwrap().iter().collect();
    let lengths: Vec<_> = decoded.iter().map(|figure| figure["tokens"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [8, 32, 128], "without batches");
    for figure in decoded {
        assert!(figure["ms"]["median"].as_f64().unwrap() > 0.0, "{figure}");
    }
    assert!(rows[0]["fresh"]["load_ms"]["median"].as_f64().unwrap() > 0.0);
    if cfg!(target_os = "linux") {
        assert!(rows[0]["fresh"]["peak_bytes"].as_u64().unwrap() > 1_000_000);
    }
    assert_eq!(report["best"], 0);
    let texts = report["whole"][0]["estimates"].as_array().unwrap();
    let texts: Vec<_> = texts.iter().map(|text| text["characters"].as_u64().unwrap()).collect();
    assert_eq!(texts, [50, 100, 200, 500]);
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(written.contains("<svg") && written.contains("frames 128"), "{written}");
    crate::pages::fits(&page);

    quick(&world, &shared.bundle, &["--html", html]).exits(2).says("is there already").hints();
    assert_eq!(std::fs::read_to_string(&page).unwrap(), written);
    quick(&world, &shared.bundle, &["--html", html, "--overwrite"]).exits(0);
    world.is_clean();
}

#[test]
fn a_gate_is_held_or_missed_by_name() {
    let shared = shared_or_skip!();
    let world = World::new();
    let easy =
        with_gate(&world, shared, "easy", "gate:\n  decoder: {size_mb: 1000, second_ms: 900000}\n");
    let run = quick(&world, &easy, &["--gate"]).exits(0);
    let run = run.says("held: decoder.gate.size_mb").says("(<= 1000)");
    run.says("held: decoder.gate.second_ms");
    let hard = with_gate(
        &world,
        shared,
        "hard",
        "gate:\n  decoder: {size_mb: 0.001, faster_than_fp32: 2, memory_mb: 900000}\n",
    );
    let run = quick(&world, &hard, &["--gate"]).exits(1);
    let run = run.says("MISSED: decoder.gate.size_mb").says("held: decoder.gate.memory_mb");
    run.says("MISSED: decoder.gate.faster_than_fp32 not measured (>= 2)");
    quick(&world, &hard, &[]).exits(0);
    let run = quick(&world, &shared.bundle, &["--gate"]).exits(2).hints();
    run.says("its recipe asks for nothing");
}

#[test]
fn a_file_that_was_changed_is_not_timed() {
    let shared = shared_or_skip!();
    let world = World::new();
    for (name, file) in [("model", MODEL), ("recipe", "recipe.lock.yaml")] {
        let bundle = world.work(name);
        copy_tree(&shared.bundle, &bundle);
        let mut bytes = std::fs::read(bundle.join(file)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(bundle.join(file), bytes).unwrap();
        let before = tree(&bundle);
        quick(&world, &bundle, &[]).exits(2).says("its digest is").hints();
        assert!(tree(&bundle) == before);
    }
    let bundle = world.work("outside");
    copy_tree(&shared.bundle, &bundle);
    manifest(&bundle, |manifest| manifest["artifacts"][0]["file"] = json!("../model/x.onnx"));
    quick(&world, &bundle, &[]).exits(2).says("leads out of the bundle").hints();
    std::fs::remove_file(world.work("model").join(MODEL)).unwrap();
    quick(&world, &world.work("model"), &[]).exits(2).says(MODEL);
    quick(&world, &world.work("nowhere"), &[]).exits(2).hints();
}

#[test]
fn a_runtime_that_is_named_must_be_there_and_of_all_a_missing_one_is_a_sentence() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bench = |more: &[&str]| -> Run {
        let mut command = world.command(["bench"]);
        command.arg(&shared.bundle).args(QUICK).args(more);
        command.env_remove("SOPRANO_EXPORT_ONNXRUNTIME").env_remove("SOPRANO_EXPORT_OPENVINO");
        command.output().unwrap().into()
    };
    // This world has no Python environment, and so none of its libraries.
    if bench(&["--runtime", "openvino"]).code == 0 {
        return crate::harness::skipped("bench", "OpenVINO is installed for all programs");
    }
    bench(&["--runtime", "openvino"]).exits(2).says("openvino is not available").hints();
    bench(&["--runtime", "onnxruntime"]).exits(2).says("onnxruntime is not available").hints();
    let named = bench(&["--onnxruntime", "no-such.so"]).exits(2);
    named.says("no-such.so: no such file").hints();
    let named = bench(&["--openvino-library", "no-such.so"]).exits(2);
    named.says("no-such.so: no such file").hints();
    let all = bench(&[]).exits(0).says("onnxruntime is not available").says("it is left out");
    assert!(all.stdout.contains("best on this machine: decoder fp32 in "), "{}", all.show());
    bench(&["--runtime", "torch"]).exits(2);
    bench(&["--threads", "0"]).exits(2);
    bench(&["--alone", "no-such.onnx"]).exits(2).says("no model \"no-such.onnx\"").hints();
}

#[test]
fn a_library_that_is_named_is_handed_to_the_processes_that_load_each_variant() {
    let shared = shared_or_skip!();
    let world = World::new();
    // By a link in the folder that the call is made in: the path is relative.
    for (option, runtime, library) in [
        ("--onnxruntime=near/", "onnxruntime", onnxruntime()),
        ("--openvino-library=near/", "openvino", openvino()),
        ("--library=onnxruntime=near/", "onnxruntime", onnxruntime()),
        ("--library=openvino=near/", "openvino", openvino()),
    ] {
        let Some(library) = library else { continue };
        let _ = std::fs::remove_file(world.work("near"));
        std::os::unix::fs::symlink(library.parent().unwrap(), world.work("near")).unwrap();
        let named = format!("{option}{}", library.file_name().unwrap().to_str().unwrap());
        let mut command = world.command(["bench", "--runtime", runtime, &named]);
        command.arg(&shared.bundle).args(QUICK);
        // Nothing else says where it lies.
        command.env_remove("SOPRANO_EXPORT_ONNXRUNTIME").env_remove("SOPRANO_EXPORT_OPENVINO");
        let run = Run::from(command.output().unwrap()).exits(0);
        assert!(run.stdout.contains(&format!("decoder fp32 in {runtime}")), "{}", run.show());
    }
}

#[test]
fn a_model_that_is_none_is_left_out_and_nothing_is_an_error() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = world.work("empty");
    copy_tree(&shared.bundle, &bundle);
    manifest(&bundle, |manifest| manifest["artifacts"] = json!([]));
    quick(&world, &bundle, &[]).exits(2).says("nothing in it can be timed").hints();

    // Whole by its digest, but its input is not a decoder's.
    let bundle = world.work("other");
    copy_tree(&shared.bundle, &bundle);
    manifest(&bundle, |manifest| {
        manifest["artifacts"][0]["inputs"][0]["shape"] = json!(["batch", "channels", "T"]);
    });
    quick(&world, &bundle, &[]).exits(2).says("channels fixed").hints();

    // The manifest's channels are not the model's.
    let bundle = world.work("lie");
    copy_tree(&shared.bundle, &bundle);
    manifest(&bundle, |manifest| {
        manifest["artifacts"][0]["inputs"][0]["shape"] = json!(["batch", "7", "T"]);
    });
    let run = quick(&world, &bundle, &[]).exits(2);
    run.says("is not measured in tract").says("nothing in it can be timed");
}

#[test]
fn pytorch_stands_beside_a_whole_voice_in_every_runtime() {
    let shared = shared_or_skip!();
    let world = World::new();
    let python = python().unwrap();
    let recipe = "name: whole\nsource: synthetic:tiny\ndecoder:\n  references: {lengths: [2, 5, 16], batches: \
                  [1, 3]}\nlm:\n  int8: {activations: two}\n";
    world.write("whole.yaml", recipe);
    let place = ["--cache-dir", shared.cache.to_str().unwrap(), "--python", python.to_str().unwrap()];
    let build = ["build", "whole.yaml", "-o", "whole", "--no-speed-gate"];
    let built = world.command(build).args(place).output().unwrap();
    Run::from(built).exits(0);
    let plan = world.command(["plan", "whole.yaml", "--json"]).args(place).output().unwrap();
    let plan = Run::from(plan).exits(0).json();
    let stages = plan["stages"].as_array().unwrap();
    let checkpoint = stages.iter().find(|stage| stage["stage"] == "checkpoint").unwrap();
    let mut command = world.command(["bench", "whole", "--json", "--pytorch"]);
    command.arg(checkpoint["folder"].as_str().unwrap());
    let run = Run::from(command.args(QUICK).args(place).output().unwrap()).exits(0);
    let report = run.json();
    let rows = report["rows"].as_array().unwrap();
    let pairs: Vec<String> = rows
        .iter()
        .map(|row| {
            let runtime = row["runtime"].as_str().unwrap().split(' ').next().unwrap();
            format!(
                "{} {} {runtime}",
                row["graph"].as_str().unwrap(),
                row["precision"].as_str().unwrap()
            )
        })
        .collect();
    for half in ["lm", "decoder"] {
        assert!(pairs.contains(&format!("{half} fp32 pytorch")), "{pairs:?}");
    }
    assert!(pairs.contains(&"lm fp32 tract".to_owned()), "{pairs:?}");
    assert!(!pairs.contains(&"lm int8 tract".to_owned()), "{pairs:?}");
    assert!(!pairs.contains(&"lm int8 openvino".to_owned()), "{pairs:?}");
    assert_eq!(pairs.contains(&"lm int8 onnxruntime".to_owned()), onnxruntime().is_some(), "{pairs:?}");
    let whole = &report["whole"][report["best"].as_u64().unwrap() as usize];
    assert!(whole["rows"].as_array().is_some_and(|rows| rows.len() == 2), "{whole}");
    let text = &whole["estimates"][2];
    let sum: f64 = ["prefill_seconds", "steps_seconds", "decode_seconds"]
        .iter()
        .map(|key| text[key].as_f64().unwrap())
        .sum();
    let factor = text["audio_seconds"].as_f64().unwrap() / sum;
    let stated = text["realtime_factor"].as_f64().unwrap();
    approx::assert_relative_eq!(factor, stated, max_relative = 1e-9);
}
