//! Checkpoints of seeded weights: drawn without Python, and what upstream's own classes make of them.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{ROOT, Run, World, python, skipped};
use crate::snapshot;

/// The folder that a recipe's checkpoint is drawn into, in a world without Python.
fn drawn(world: &World, recipe: &str) -> PathBuf {
    let path = world.write("recipe.yaml", recipe);
    let path = path.to_str().unwrap();
    // One of the recipes names code, which a build up to the checkpoint doesn't run.
    world.run(["build", path, "--until", "checkpoint", "--trust-code"]).exits(0);
    let plan = world.run(["plan", path, "--json", "--trust-code"]).exits(0).json();
    let stage = plan["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "checkpoint");
    PathBuf::from(stage.unwrap()["folder"].as_str().unwrap())
}

fn soprano(source: &str) -> String {
    format!("name: drawn\nsource: {source}\nlm: {{}}\ndecoder: {{}}\n")
}

fn plain(source: &str) -> String {
    format!("name: drawn\nfamily: plain\nsource: {source}\ngraphs: {{words: {{role: causal}}}}\n")
}

#[test]
fn weights_are_drawn_without_python() {
    let world = World::new();
    let [first, again, other] =
        ["seeded:tiny", "seeded:tiny#0", "seeded:tiny#1"].map(|source| drawn(&world, &soprano(source)));
    let weights = |folder: &PathBuf| std::fs::read(folder.join("decoder.pth")).unwrap();
    assert!(weights(&first) == weights(&again) && weights(&first) != weights(&other));
    let recipes = [soprano("seeded:tinny"), plain("seeded:soprano-1.1"), soprano("seeded:tiny#x")];
    let recipe = |recipe: &String| {
        world.write("recipe.yaml", recipe);
        world.run(["build", "recipe.yaml", "--until", "checkpoint"])
    };
    // A recipe's may be drawn here instead; what the call names is what it means.
    let named = world.run(["decoder", "--model", "synthetic:tiny#7", "--output", "bundle"]);
    let runs = recipes.iter().map(recipe).chain([named]);
    let shown: Vec<String> = runs.map(|run| run.exits(2).hints().stderr).collect();
    snapshot!("seeded-refused", world, shown.join("\n"));
    world.is_clean();
}

/// Every preset of the Python package, drawn here, against what the package says of it.
#[test]
fn upstreams_own_classes_load_what_is_drawn() {
    let Some(python) = python() else {
        return skipped("upstreams_own_classes_load_what_is_drawn", "no .venv; run make setup");
    };
    let check = |arguments: &[&str]| -> Run {
        let mut check = Command::new(python.join("bin/python"));
        check.arg(format!("{ROOT}/tests/cli/seeded.py")).args(arguments);
        check.env("PYTHONPATH", format!("{ROOT}/python")).output().unwrap().into()
    };
    let world = World::new();
    let presets = check(&[]).exits(0).json();
    let mut folders = Vec::new();
    for (family, presets) in presets.as_object().unwrap() {
        for preset in presets.as_array().unwrap().iter().map(|preset| preset.as_str().unwrap()) {
            let source = format!("seeded:{preset}");
            let recipe = match (family.as_str(), preset) {
                ("soprano", _) => soprano(&source),
                (_, "istft-head") => {
                    std::fs::read_to_string(format!("{ROOT}/recipes/plain-vocoder.yaml"))
                        .unwrap()
                        .replace("synthetic:istft-head", &source)
                }
                _ => plain(&source),
            };
            folders.push(format!("{family}:{preset}:{}", drawn(&world, &recipe).display()));
        }
    }
    assert_eq!(folders.len(), 9);
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let run = check(&folders).exits(0);
    assert_eq!(run.stdout.lines().count(), 9, "{}", run.show());
}
