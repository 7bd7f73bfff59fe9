//! The publishing job: the commands of `.github/workflows/bundles.yml` itself, in its order, as its runner
//! would give them to a shell.

use std::path::Path;
use std::process::Command;

use serde_yaml::Value;

use crate::harness::{ROOT, Run, World, assert_same, python, skipped};
use crate::registry::Real;
use crate::shared_or_skip;

/// The shell commands of a job that are the tool's, by their steps' names.
fn steps(workflow: &Value, job: &str) -> Vec<(String, String)> {
    let steps = workflow["jobs"][job]["steps"].as_sequence().unwrap();
    let scripts = steps.iter().filter_map(|step| {
        let run = step["run"].as_str()?.replace("target/release/", "");
        let name = step["name"].as_str().or_else(|| run.split_whitespace().nth(1)).unwrap().to_owned();
        let ours = run.contains("soprano-export ") || run.contains("$BUNDLE");
        ours.then_some((name, run))
    });
    scripts.collect()
}

/// One step, as GitHub's runner starts it.
fn step(world: &World, script: &str, environment: &[(&str, &str)]) -> Run {
    assert!(!script.contains("${{"), "an expression that only the runner knows: {script}");
    let tool = Path::new(env!("CARGO_BIN_EXE_soprano-export"));
    let ours: Command = world.command([""; 0]);
    let mut shell = Command::new("bash");
    shell.args(["--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]).env_clear();
    shell.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", tool.parent().unwrap().display()));
    shell.envs(environment.iter().copied()).current_dir(world.path("work"));
    shell.stdin(std::process::Stdio::null()).output().unwrap().into()
}

#[test]
fn the_workflow_builds_gates_signs_and_publishes() {
    let shared = shared_or_skip!();
    let world = World::new();
    let Some(registry) = Real::start(&world) else {
        return skipped("the_workflow_builds_gates_signs_and_publishes", "no docker-registry");
    };
    let text = std::fs::read_to_string(format!("{ROOT}/.github/workflows/bundles.yml")).unwrap();
    let workflow: Value = serde_yaml::from_str(&text).unwrap();
    let decoder =
        "decoder:\n  references: {lengths: [2, 5], batches: [1]}\n  targets: {openvino: {}}\n";
    let gate = "gate:\n  decoder: {size_mb: 1000}\n";
    world.write("a.yaml", format!("name: a\nsource: synthetic:tiny\n{decoder}{gate}"));
    world.write("b.yaml", format!("name: b\nsource: synthetic:tiny\n{decoder}"));
    world.run(["sign", "--generate", "key", "--no-password"]).exits(0);
    let key = std::fs::read_to_string(world.work("key")).unwrap();
    let [output, summary] = ["output", "summary"].map(|name| world.path(name).display().to_string());
    let common = [
        ("SOPRANO_EXPORT_PYTHON", python().unwrap().display().to_string()),
        ("SOPRANO_EXPORT_CACHE", shared.cache.display().to_string()),
        ("RUNNER_TEMP", world.path("tmp").display().to_string()),
        ("GITHUB_OUTPUT", output.clone()),
        ("GITHUB_STEP_SUMMARY", summary.clone()),
        ("RECIPES", "a.yaml b.yaml".to_owned()),
        ("SIGNING_KEY", key.trim_end().to_owned()),
        ("REGISTRY", format!("{}/voices", registry.host)),
    ];
    let common: Vec<(&str, &str)> =
        common.iter().map(|(name, value)| (*name, value.as_str())).collect();

    for (_, script) in steps(&workflow, "plan") {
        step(&world, &script, &common).exits(0);
    }
    let written = std::fs::read_to_string(output).unwrap();
    let matrix: serde_json::Value =
        serde_json::from_str(written.trim().strip_prefix("matrix=").unwrap()).unwrap();
    let jobs = matrix["include"].as_array().unwrap();
    assert_eq!(jobs.len(), 2, "{matrix}");

    let run = steps(&workflow, "bundle");
    let names: Vec<&str> = run.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = ["doctor", "plan", "build", "sign", "verify", "validate", "gate", "report", "publish"];
    assert_eq!(names, [&wanted[..], &["publish to the registry"]].concat());
    for job in jobs {
        let (name, recipe) = (job["name"].as_str().unwrap(), job["recipe"].as_str().unwrap());
        let bundle = format!("build/{name}");
        let own = [("NAME", name), ("RECIPE", recipe), ("BUNDLE", bundle.as_str())];
        let environment = [&common[..], &own].concat();
        let mut published = Vec::new();
        for (step_name, script) in &run {
            let ran = step(&world, script, &environment).exits(0);
            if step_name == "gate" {
                let passed = ran.stderr.contains("decoder.gate.size_mb");
                assert_eq!(passed, name == "a", "{}", ran.show());
            }
            if step_name.starts_with("publish") {
                published.push(ran.stdout.trim().to_owned());
            }
        }
        assert!(!world.path("tmp/bundle.key").exists(), "the key stays on no disk");
        assert!(published[0].starts_with("published/"), "{published:?}");
        assert!(published[1].starts_with("oci://"), "{published:?}");
        for (at, place) in published.iter().enumerate() {
            let got = format!("got-{name}-{at}");
            let fetched = world.run(["fetch", place, "-o", &got, "--key", "key.pub"]).exits(0);
            assert_same(&world.work(&bundle), &world.work(&got));
            fetched.says("signed by");
        }
    }
    let summary = std::fs::read_to_string(summary).unwrap();
    assert_eq!(summary.matches("## Files").count(), 2, "{summary}");

    // A gate that isn't held, or a file that changed, ends the job before anything is published.
    world.write(
        "c.yaml",
        format!("name: c\nsource: synthetic:tiny\n{decoder}{}", gate.replace("1000", "0.001")),
    );
    let environment =
        [&common[..], &[("NAME", "c"), ("RECIPE", "c.yaml"), ("BUNDLE", "build/c")]].concat();
    let mut codes = run.iter().map(|(name, script)| (name, step(&world, script, &environment)));
    let (stopped, ended) = codes.find(|(_, run)| run.code != 0).unwrap();
    assert_eq!((stopped.as_str(), ended.code), ("gate", 1), "{}", ended.show());
    assert!(!world.work("published/c").exists());
}
