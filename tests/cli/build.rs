//! Builds of the tiny checkpoint, by the real exporter and by one that replays it.

use std::ffi::OsStr;
use std::path::Path;

use crate::harness::{Run, World, assert_same, python, replay, tree};
use crate::{shared_or_skip, snapshot};

#[test]
fn a_bundle_has_its_layout_and_its_table() {
    let shared = shared_or_skip!();
    let world = World::new();
    let run = Run::from(replay(&world, shared).output().unwrap()).exits(0);
    assert_eq!(run.stdout, "out/bundle\n");
    let layout: Vec<String> = tree(&world.work("out")).into_keys().collect();
    snapshot!("build", world, format!("{}--- files\n{}\n", run.show(), layout.join("\n")));
    world.is_clean();

    // The environment's digest is part of the key, and another environment replayed the export.
    let parts = |bundle: &Path| {
        let mut files = tree(bundle);
        let manifest = files.remove("manifest.json").unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        manifest["key"].take();
        files.remove("SHA256SUMS");
        (files, manifest)
    };
    assert!(parts(&world.work("out/bundle")) == parts(&shared.bundle));
    let verified = world.run(["verify", "out/bundle"]).exits(0).says("out/bundle is whole");
    assert_eq!(verified.stdout, "");
    let sums = std::process::Command::new("sha256sum")
        .args(["--quiet", "--strict", "-c", "SHA256SUMS"])
        .current_dir(world.work("out/bundle"))
        .output();
    if let Ok(sums) = sums {
        assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stdout));
    }
    let validated = world.run(["validate", "out/bundle"]).exits(0);
    snapshot!("validate", world, validated.show());
    let verdicts = world.run(["validate", "out/bundle", "--json"]).exits(0).json();
    assert_eq!(verdicts[0]["cases"].as_array().unwrap().len(), 15);
}

/// An environment with the packages of another, whose interpreter only fails.
fn trap(world: &World, environment: &Path) {
    let home = crate::harness::fake_environment(world);
    std::fs::remove_dir_all(home.join("lib")).unwrap();
    std::fs::copy(environment.join("pyvenv.cfg"), home.join("pyvenv.cfg")).unwrap();
    for lib in std::fs::read_dir(environment.join("lib")).unwrap().map(Result::unwrap) {
        let Ok(packages) = std::fs::read_dir(lib.path().join("site-packages")) else { continue };
        for package in packages.map(|p| p.unwrap().file_name()) {
            if Path::new(&package).extension() == Some(OsStr::new("dist-info")) {
                let place = home.join("lib").join(lib.file_name()).join("site-packages");
                std::fs::create_dir_all(place.join(package)).unwrap();
            }
        }
    }
}

#[test]
fn a_second_run_is_up_to_date_and_starts_no_python() {
    let shared = shared_or_skip!();
    let world = World::new();
    trap(&world, &python().unwrap());
    let (cache, venv) = (shared.cache.to_str().unwrap(), world.path("venv"));
    let place = ["--cache-dir", cache, "--python", venv.to_str().unwrap()];
    let with = |arguments: &[&str]| {
        world.command(arguments).args(place).env("FAKE", "exit").output().map(Run::from).unwrap()
    };

    let bundle = shared.bundle.to_str().unwrap();
    let before = tree(&shared.bundle);
    let run = with(&["decoder", "--model", "synthetic:tiny", "-o", bundle]).exits(0);
    run.says("bundle soprano-tiny up to date: 10 files");
    assert!(tree(&shared.bundle) == before);

    let run = with(&["decoder", "--model", "synthetic:tiny", "-o", "fresh", "--json"]).exits(0);
    assert_eq!(run.json()["bundle"], "fresh");
    assert_eq!(run.json()["up_to_date"], false);
    for stage in
        ["checkpoint", "export-decoder", "record-decoder", "rewrite-decoder", "validate-decoder"]
    {
        assert!(run.stderr.contains(&format!("{stage:<24} cached\n")), "{}", run.show());
    }
    assert_same(&world.work("fresh"), &shared.bundle);

    let plan = with(&["plan", "soprano-tiny"]).exits(0);
    snapshot!("plan-hit", world, plan.show());
    // That the trap would have snapped.
    let output =
        world.command(["build", "soprano-tiny"]).args(&place[2..]).env("FAKE", "exit").output();
    Run::from(output.unwrap()).exits(2).says("exit code 3");
}

#[test]
fn a_plan_says_what_must_be_made_and_why() {
    let shared = shared_or_skip!();
    let world = World::new();
    snapshot!("plan-without-python", world, world.run(["plan", "soprano-tiny"]).exits(0).show());
    Run::from(replay(&world, shared).output().unwrap()).exits(0);
    let venv = world.path("venv");
    let plan = |recipe: &str, more: &[&str]| {
        let arguments = ["plan", recipe, "--python", venv.to_str().unwrap()];
        world.run(arguments.iter().chain(more)).exits(0)
    };

    let recipe = world.run(["recipe", "show", "soprano-tiny"]).exits(0).stdout;
    let other = |from: &str, to: &str| {
        assert!(recipe.contains(from), "{recipe}");
        world.write("other.yaml", recipe.replace(from, to));
        plan("other.yaml", &[])
    };
    let changed = other("opset: 17", "opset: 18");
    assert!(changed.stdout.contains("opset 17 -> 18\n"), "{}", changed.show());
    snapshot!("plan-opset", world, changed.show());
    snapshot!("plan-tolerance", world, other("snr_db: 90.0", "snr_db: 95.0").show());
    snapshot!("plan-references", world, other("seed: 0", "seed: 1").show());
    snapshot!("plan-rebuild", world, plan("soprano-tiny", &["--rebuild"]).show());

    let stages = plan("soprano-tiny", &["--json"]).json();
    let states: Vec<_> = stages["stages"].as_array().unwrap().iter().map(|s| &s["state"]).collect();
    assert_eq!(states, ["hit"; 5]);
    let key = stages["stages"][3]["key"].as_str().unwrap();
    let rewritten = world.path(&format!("cache/stages/rewrite-decoder-{}/rewritten.onnx", &key[..16]));

    // The plan trusts lengths; the run hashes, and makes a damaged stage anew.
    let mut bytes = std::fs::read(&rewritten).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&rewritten, &bytes).unwrap();
    assert!(!plan("soprano-tiny", &[]).stdout.contains("miss"));
    let mut again = replay(&world, shared);
    let run = Run::from(again.args(["--overwrite"]).output().unwrap()).exits(0);
    assert!(run.stderr.contains("up to date"), "{}", run.show());
    std::fs::remove_dir_all(world.work("out")).unwrap();
    let run = Run::from(replay(&world, shared).output().unwrap()).exits(0);
    run.says("making: its files are damaged");
    std::fs::write(&rewritten, &bytes[..1000]).unwrap();
    snapshot!("plan-damaged", world, plan("soprano-tiny", &[]).show());
}

/// One checkpoint in two folders, by two runs of the real exporter with a cache each: equal bytes.
#[test]
fn two_builds_of_one_checkpoint_are_equal_wherever_it_lies() {
    let shared = shared_or_skip!();
    let world = World::new();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
    let weights = shared.stage("checkpoint", "decoder.pth");
    for (place, cache) in [("here", "cache-a"), ("some/where else", "cache-b")] {
        let folder = world.work(place);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(&weights, folder.join("decoder.pth")).unwrap();
        std::fs::write(folder.join("config.json"), "{\"hidden_size\": 512}\n").unwrap();
        let run = world
            .command(["decoder", "--recipe", "soprano-tiny", "--model"])
            .arg(&folder)
            .arg("--cache-dir")
            .arg(home.join(cache))
            .arg("--python")
            .arg(python().unwrap())
            .arg("-o")
            .arg(world.work(&format!("out-{cache}")))
            .output();
        Run::from(run.unwrap()).exits(0);
    }
    let (a, b) = (world.work("out-cache-a"), world.work("out-cache-b"));
    assert_same(&a, &b);
    assert_eq!(std::fs::read_to_string(a.join("config.json")).unwrap(), "{\"hidden_size\": 512}\n");

    // From the synthetic source come the same models and references; the papers name another source.
    let files = tree(&a);
    for (name, bytes) in tree(&shared.bundle) {
        if name.starts_with("onnx/") || name.starts_with("reference/") || name == "recipe.lock.yaml" {
            assert!(files[&name] == bytes, "{name} differs");
        }
    }
    let text = files.iter().filter(|(name, _)| !name.ends_with(".onnx"));
    for (name, bytes) in text.filter(|(name, _)| !name.ends_with(".safetensors")) {
        let text = String::from_utf8_lossy(bytes);
        for place in [world.root.path().to_str().unwrap(), env!("CARGO_TARGET_TMPDIR")] {
            assert!(!text.contains(place), "{name} knows {place}");
        }
    }
}
