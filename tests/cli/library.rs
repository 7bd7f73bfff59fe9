//! The library through its examples, which `cargo test` builds beside the program.

use std::path::{Path, PathBuf};

use crate::harness::{Run, World, skipped};
use crate::synth;

fn example(name: &str, test: &str) -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_BIN_EXE_soprano-export")).with_file_name("examples").join(name);
    if !built.is_file() {
        skipped(test, "the examples aren't built; run cargo build --release --examples");
        return None;
    }
    Some(built)
}

/// An example is run as the program is: in a world of its own, without an environment.
fn run(world: &World, example: &Path, arguments: &[&str]) -> Run {
    let mut command = std::process::Command::new(example);
    command.args(arguments).env_clear().current_dir(world.path("work"));
    command.output().unwrap().into()
}

#[test]
fn a_bundle_is_opened_and_speaks_as_synth_does() {
    let test = "a_bundle_is_opened_and_speaks_as_synth_does";
    let Some(speak) = example("speak", test) else { return };
    let Some(voice) = synth::voice() else { return skipped(test, "no .venv; run make setup") };
    let world = World::new();
    let bundle = voice.to_str().unwrap();
    let spoken = run(&world, &speak, &[bundle, "Hello there, my friend.", "library.wav"]).exits(0);
    assert!(spoken.stdout.starts_with("1 sentences, ") && spoken.stdout.contains("in tract "));
    let arguments =
        ["synth", bundle, "Hello there, my friend.", "--runtime", "tract", "-o", "synth.wav"];
    world.run(arguments).exits(0);
    let bytes = |name: &str| std::fs::read(world.work(name)).unwrap();
    assert!(bytes("library.wav") == bytes("synth.wav"), "the library says something else than synth");
    let refused = run(&world, &speak, &["nowhere", "Hello.", "nothing.wav"]).exits(1);
    refused.says("manifest.json");
    assert!(!world.work("nothing.wav").exists());
}

#[test]
fn a_graph_is_rewritten_and_a_pass_added() {
    let world = World::new();
    for (name, line) in
        [("rewrite_a_graph", "nodes 6 -> 2\n"), ("add_a_pass", "cancel-negations leaves \"z\"")]
    {
        let Some(example) = example(name, "a_graph_is_rewritten_and_a_pass_added") else { return };
        let run = run(&world, &example, &[]).exits(0);
        assert!(run.stdout.contains(line), "{}", run.show());
    }
}
