//! Many recipes at once: what a workflow engine is given, and one that really runs it.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{ROOT, Run, World, python, skipped};
use crate::snapshot;

/// A small decoder at an operator set.
fn recipe(name: &str, opset: u32, more: &str) -> String {
    format!(
        "name: {name}\nsource: synthetic:tiny\ndecoder:\n  opset: {opset}\n  references:\n    \
         lengths: [2, 5]\n    batches: [1]\n{more}"
    )
}

/// Snakemake, where `make test` or `setup_env.py workflow` has made its environment beside the exporters'.
fn snakemake() -> Option<PathBuf> {
    let exporters = std::fs::canonicalize(python()?).ok()?;
    let environments = std::fs::read_dir(exporters.parent()?).ok()?.flatten();
    let ours = environments.filter(|e| e.file_name().to_string_lossy().starts_with("workflow-"));
    let whole = ours.map(|e| e.path()).filter(|home| home.join(".complete").is_file());
    whole.map(|home| home.join("bin/snakemake")).find(|tool| tool.is_file())
}

#[test]
fn a_matrix_for_github() {
    let world = World::new();
    world.write("mine.yaml", recipe("mine", 18, ""));
    let run = world.run(["plan", "soprano-1.1", "mine.yaml", "--format", "github-matrix"]).exits(0);
    snapshot!("plan-github-matrix", world, run.show());
    world.write("other.yaml", recipe("mine", 17, ""));
    let calls: [&[&str]; 6] = [
        &["mine.yaml", "other.yaml", "--format", "github-matrix"],
        &["mine.yaml", "other.yaml", "--format", "snakemake"],
        &["mine.yaml", "nowhere.yaml", "--format", "github-matrix"],
        &["mine.yaml", "other.yaml"],
        &["--format", "snakemake"],
        &["mine.yaml", "--format", "airflow"],
    ];
    let shown: String = calls
        .iter()
        .map(|call| {
            let run = world.run(["plan"].iter().chain(*call)).exits(2);
            format!("$ plan {}\n{}\n", call.join(" "), run.show())
        })
        .collect();
    snapshot!("plan-formats-refused", world, shown);
}

#[test]
fn a_snakefile_has_a_rule_for_each_stage_once() {
    let world = World::new();
    world.write("a b/one's {recipe}.yaml", recipe("one", 17, "  int8: {}\n"));
    world.write("two.yaml", recipe("two", 18, ""));
    let paths = ["plan", "a b/one's {recipe}.yaml", "two.yaml", "--format", "snakemake"];
    // Without Python or ONNX Runtime: a plan runs nothing.
    let mut command = world.command(paths);
    command.env_remove("SOPRANO_EXPORT_ONNXRUNTIME").env_remove("SOPRANO_EXPORT_OPENVINO");
    let run = Run::from(command.output().unwrap()).exits(0);
    assert_eq!(run.stdout.matches("rule checkpoint_").count(), 1, "{}", run.show());
    assert_eq!(run.stdout.matches("rule export_decoder_").count(), 2, "{}", run.show());
    snapshot!("plan-snakemake", world, run.show());
    let run = world.run(paths.iter().chain(&["--no-speed-gate"])).exits(0);
    assert!(!run.stdout.contains("rule time_"), "{}", run.show());
    assert!(run.stdout.contains("--no-speed-gate"), "{}", run.show());
}

#[test]
fn a_stage_that_is_none() {
    let world = World::new();
    let run = world.run(["build", "soprano-tiny", "--until", "exprot"]).exits(2).hints();
    snapshot!("build-until-unknown", world, run.show());
    world.run(["build", "soprano-tiny", "--until", "export-decoder", "-o", "x"]).exits(2);
    world.is_clean();
}

#[test]
fn snakemake_builds_two_recipes() {
    let (Some(environment), Some(snakemake)) = (python(), snakemake()) else {
        return skipped("snakemake_builds_two_recipes", "no Snakemake; run make test");
    };
    let world = World::new();
    world.write("one.yaml", recipe("one", 17, ""));
    world.write("two.yaml", recipe("two", 18, ""));
    let tool = env!("CARGO_BIN_EXE_soprano-export");
    let plan = |recipes: &[&str]| {
        let mut command = world.command(["plan"]);
        command.args(recipes).args(["--format", "snakemake", "--python"]).arg(&environment);
        let run = Run::from(command.output().unwrap()).exits(0);
        world.write("Snakefile", run.stdout);
    };
    let runs = || -> Run {
        let command: Command = world.command([""; 0]);
        let mut engine = Command::new(&snakemake);
        engine.args(["--cores", "2", "--nocolor", "--config"]).arg(format!("tool={tool}"));
        engine.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        engine.current_dir(world.path("work")).stdin(std::process::Stdio::null());
        engine.output().unwrap().into()
    };
    plan(&["one.yaml", "two.yaml"]);
    let run = runs().exits(0);
    for name in ["one", "two"] {
        world.run(["verify", &format!("bundles/{name}")]).exits(0);
    }
    // One checkpoint and its recording, two of everything else, and nothing made twice.
    let stages = std::fs::read_dir(world.path("cache/stages")).unwrap();
    let mut names: Vec<String> = stages
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .map(|name| name.rsplit_once('-').unwrap().0.to_owned())
        .collect();
    names.sort();
    let wanted = [
        "checkpoint",
        "export-decoder",
        "export-decoder",
        "record-decoder",
        "rewrite-decoder",
        "rewrite-decoder",
        "validate-decoder",
        "validate-decoder",
    ];
    assert_eq!(names, wanted, "{}", run.show());
    assert_eq!(run.stderr.matches("\nlocalrule export_decoder_").count(), 2, "{}", run.show());
    runs().exits(0).says("Nothing to be done");

    // A bundle that may not be is none here either; what it shares with the others is not made again.
    let strict = "  tolerance:\n    fp32:\n      snr_db: 200.0\n";
    world.write("strict.yaml", recipe("strict", 17, strict));
    plan(&["one.yaml", "strict.yaml"]);
    let run = runs().exits(1);
    assert!(run.stderr.contains("out of tolerance"), "{}", run.show());
    assert!(!world.work("bundles/strict").exists());
    world.run(["verify", "bundles/one"]).exits(0);
    assert!(std::path::Path::new(ROOT).join("python/env/workflow.lock").is_file());
}
