//! What upstream's PyTorch says to a recipe's sentences: planned where the recipe asks for it, made once.

use std::path::Path;

use crate::harness::{ROOT, Run, World, fake_environment, python, skipped};

fn recipe(speech: &str) -> String {
    format!("name: voice\nsource: {ROOT}/fixtures/soprano-mini\ndecoder: {{}}\nlm: {{}}\n{speech}")
}

const SPEECH: &str = "speech:\n  sentences: [Thank you very much.]\n";

/// Names and keys of the stages of a plan.
fn stages(world: &World, recipe: &Path) -> Vec<(String, String)> {
    let run = world.run(["plan".as_ref(), recipe.as_os_str(), "--json".as_ref()]).exits(0);
    let plan = run.json();
    let word = |stage: &serde_json::Value, key: &str| stage[key].as_str().unwrap().to_owned();
    let stages = plan["stages"].as_array().unwrap().iter();
    stages.map(|stage| (word(stage, "stage"), word(stage, "key"))).collect()
}

#[test]
fn a_recipe_with_sentences_has_one_stage_more() {
    let world = World::new();
    let plan = |speech: &str| stages(&world, &world.write("voice.yaml", recipe(speech)));
    let (without, with) = (plan(""), plan(SPEECH));
    assert_eq!(with[..with.len() - 1], without);
    assert_eq!(with.last().unwrap().0, "speak");
    let key = |more: &str| plan(&format!("{SPEECH}{more}")).pop().unwrap().1;
    assert_ne!(key("  repetition_penalty: 1.1\n"), key(""));
    assert_eq!(key("  fp32: {snr_db: 50}\n"), key(""), "bounds are not what is recorded");

    world.write("voice.yaml", recipe(SPEECH));
    let run = world.run(["plan", "voice.yaml", "--format", "snakemake"]).exits(0);
    assert_eq!(run.stdout.matches("rule speak_").count(), 1, "{}", run.show());
    assert!(run.stdout.contains("--until speak"), "{}", run.show());
}

#[test]
fn an_exporter_that_leaves_no_speech() {
    let world = World::new();
    world.write("voice.yaml", recipe(SPEECH));
    let run = world
        .command(["build", "voice.yaml", "--until", "speak", "--python"])
        .arg(fake_environment(&world))
        .env("FAKE", "nothing")
        .output();
    Run::from(run.unwrap()).exits(2).says("the exporter's result has no speech").hints();
}

#[test]
fn upstream_speaks_once() {
    let Some(environment) = python() else {
        return skipped("upstream_speaks_once", "no Python environment; run make setup");
    };
    let world = World::new();
    world.write("voice.yaml", recipe(SPEECH));
    let speak = || -> Run {
        let mut command = world.command(["build", "voice.yaml", "--until", "speak", "--python"]);
        command.arg(&environment).output().unwrap().into()
    };
    let run = speak().exits(0);
    let file = Path::new(run.stdout.trim()).join("speech.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.windows(8).any(|window| window == b"0/tokens"));
    let modified = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let before = modified();
    speak().exits(0);
    assert_eq!(modified(), before, "taken from the cache");
    std::fs::write(&file, b"x").unwrap();
    speak().exits(0);
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "made again, to the same bytes");
}
