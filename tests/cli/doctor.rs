//! What `doctor` finds, and the command that it names where something is missing.

use std::path::Path;

use crate::harness::{Run, World, onnxruntime, openvino, python};

#[test]
fn builds_do_without_python_and_what_brings_it_is_said() {
    let world = World::new();
    let run = world.run(["doctor", "--quick", "--json"]).exits(0).says("python: make setup");
    let checks = run.json();
    let check =
        |what: &str| checks.as_array().unwrap().iter().find(|c| c["what"] == what).unwrap().clone();
    assert_eq!((&check("python")["good"], &check("python")["optional"]), (&false.into(), &true.into()));
    // One that is named is meant.
    let named = world.run(["doctor", "--quick", "--json", "--python", "/nowhere"]).exits(1).json();
    let python = named.as_array().unwrap().iter().find(|c| c["what"] == "python").unwrap().clone();
    assert_eq!((&python["good"], python.get("optional")), (&false.into(), None));
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
    // The child runs in another folder: what is relative here must be found there.
    std::os::unix::fs::symlink(environment, world.work("environment")).unwrap();
    let run = world.run(["doctor", "--json", "--python", "environment", "--cache-dir", "a/cache"]);
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

#[test]
fn runtimes_are_named_with_their_versions_and_places() {
    let (Some(onnxruntime), Some(openvino)) = (onnxruntime(), openvino()) else {
        return crate::harness::skipped(
            "runtimes_are_named_with_their_versions_and_places",
            "no .venv; run make setup",
        );
    };
    let world = World::new();
    // Named, and found in the environment.
    let environment = python().unwrap();
    let mut found = world.command(["doctor", "--quick", "--json", "--python"]);
    found
        .arg(environment)
        .env_remove("SOPRANO_EXPORT_ONNXRUNTIME")
        .env_remove("SOPRANO_EXPORT_OPENVINO");
    let found: Run = found.output().unwrap().into();
    for run in [world.run(["doctor", "--quick", "--json"]), found] {
        let checks = run.json();
        for (name, library) in [("onnxruntime", &onnxruntime), ("openvino", &openvino)] {
            let what = format!("runtime {name}");
            let check = checks.as_array().unwrap().iter().find(|check| check["what"] == what.as_str());
            let check = check.unwrap();
            assert_eq!(check["good"], true, "{}", run.show());
            let text = check["found"].as_str().unwrap();
            assert!(text.starts_with(&format!("{name} ")), "{text}");
            let place = text.split_once(" at ").unwrap().1;
            let same = std::fs::canonicalize(place).unwrap() == std::fs::canonicalize(library).unwrap();
            assert!(same, "{text}");
        }
    }
}

#[test]
fn a_runtime_that_is_missing_or_is_none_is_a_sentence() {
    let world = World::new();
    let letter = world.write("libletter.so.1.2", "a letter to the editor");
    for library in [letter.as_path(), Path::new("libnowhere.so"), Path::new("/")] {
        let mut command = world.command(["doctor", "--quick"]);
        command.arg("--onnxruntime").arg(library).arg("--openvino-library").arg(library);
        let run = Run::from(command.output().unwrap()).exits(1);
        for (name, option) in [("onnxruntime", "--onnxruntime"), ("openvino", "--openvino-library")] {
            let place = world.work(library.to_str().unwrap());
            assert!(run.stdout.contains(&format!("{name} is not available: {}", place.display())));
            let mend = format!("runtime {name}: make setup   (or name its library with {option} FILE)");
            assert!(run.stderr.contains(&mend), "{}", run.show());
        }
    }
    // Nothing named, nothing there.
    let mut command = world.command(["doctor", "--quick"]);
    command.env("SOPRANO_EXPORT_ONNXRUNTIME", "").env("SOPRANO_EXPORT_OPENVINO", "");
    let run = Run::from(command.output().unwrap()).exits(0);
    assert!(run.stdout.contains("openvino is not available: "), "{}", run.show());
    assert!(run.stderr.contains("runtime openvino: make setup"), "{}", run.show());
}
