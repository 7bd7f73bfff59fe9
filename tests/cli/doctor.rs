//! What `doctor` finds, and the command that it names where something is missing.

use crate::harness::{World, python};

#[test]
fn without_python_the_answer_is_no_and_says_what_mends_it() {
    let world = World::new();
    let run = world.run(["doctor", "--quick", "--json"]).exits(1).says("make setup");
    let checks = run.json();
    let check =
        |what: &str| checks.as_array().unwrap().iter().find(|c| c["what"] == what).unwrap().clone();
    assert_eq!(check("python")["good"], false);
    assert_eq!(check("runtime tract")["good"], true);
    assert!(!check("processor")["found"].as_str().unwrap().is_empty());
}

#[test]
fn a_package_that_is_missing_is_named() {
    let world = World::new();
    world.write("env/bin/python", "");
    world.write("env/pyvenv.cfg", "version_info = 3.12.0\n");
    for package in ["torch-2.15.0", "onnx-1.23.2", "onnxruntime-1.31.1", "safetensors-0.8.0"] {
        world.write(&format!("env/lib/python3.12/site-packages/{package}.dist-info/METADATA"), "");
    }
    let environment = world.work("env");
    let run = world.run(["doctor", "--quick", "--python", environment.to_str().unwrap()]).exits(1);
    assert!(run.stdout.contains("soprano_tts"), "{}", run.show());
    assert!(run.stderr.contains("soprano_tts: make setup"), "{}", run.show());
    assert!(!run.stderr.contains("torch:"), "{}", run.show());
}

#[test]
fn every_module_really_loads() {
    let Some(environment) = python() else {
        return crate::harness::skipped("every_module_really_loads", "no .venv; run make setup");
    };
    let world = World::new();
    let run = world.run(["doctor", "--json", "--python", environment.to_str().unwrap()]);
    let checks = run.json();
    let imports: Vec<_> = checks
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["what"].as_str().unwrap().starts_with("import "))
        .collect();
    assert!(imports.len() >= 4, "{}", run.show());
    assert!(imports.iter().all(|check| check["good"] == true), "{}", run.show());
}
