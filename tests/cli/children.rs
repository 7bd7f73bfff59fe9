//! Interpreters that crash, hang, lie or leave things behind: a clear error, a hint, and nothing else.

use std::time::{Duration, Instant};

use crate::harness::{Run, World, fake_build, fake_environment, lives, tree, until};

/// What a failed build must leave: nothing but its log.
#[track_caller]
fn left_nothing(world: &World) {
    world.is_clean();
    assert!(!world.work("out/bundle").exists());
    let stages = world.path("cache/stages");
    let stages: Vec<_> = if stages.exists() { tree(&stages).into_keys().collect() } else { vec![] };
    assert!(stages.is_empty(), "{stages:?}");
}

#[track_caller]
fn misbehaves(mode: &str, words: &[&str]) {
    let world = World::new();
    let mut run = Run::from(fake_build(&world, mode).output().unwrap()).exits(2).hints();
    assert_eq!(run.stdout, "");
    for words in words {
        run = run.says(words);
    }
    left_nothing(&world);
}

#[test]
fn ends_at_once() {
    misbehaves(
        "exit",
        &["ended without a result (exit code 3)", "| (nothing)", "hint: the whole log: "],
    );
}

#[test]
fn prints_what_is_no_protocol() {
    misbehaves("rubbish", &["broke the protocol", r#""Loading model... 100%""#]);
    misbehaves("binary", &["broke the protocol", r"\u{1b}[31m"]);
    misbehaves("unknown-event", &["broke the protocol", "applause"]);
}

#[test]
fn prints_megabytes_without_a_newline() {
    misbehaves("flood", &["broke the protocol", "xxxx"]);
}

#[test]
fn lies_about_a_file() {
    let zeros = "0".repeat(64);
    misbehaves("wrong-digest", &[&format!(r#"reports "model" with the digest {zeros}"#)]);
    misbehaves("no-digest", &[r#"not a SHA-256 digest: "abc""#]);
    misbehaves("wrong-length", &["with the length 2, and the file has 1"]);
    misbehaves("missing", &["with the path model.onnx", "No such file"]);
    misbehaves("twice", &[r#"reports "model" twice"#]);
}

#[test]
fn reports_what_is_no_file_of_its_folder() {
    misbehaves("absolute", &["with the path /", "to lie in the output folder"]);
    misbehaves("symlink", &["with the path model.onnx", "no plain file there"]);
    misbehaves("folder", &["no plain file there"]);
    misbehaves("fifo", &["no plain file there"]);

    let world = World::new();
    let run = Run::from(fake_build(&world, "outside").output().unwrap()).exits(2).hints();
    run.says("with the path ../outside.onnx");
    assert!(!world.work("out/bundle").exists());
}

#[test]
fn leaves_out_what_was_asked_for() {
    misbehaves("nothing", &["the exporter's result has no model"]);
    misbehaves("half", &["the exporter's result has no architecture"]);
    misbehaves("other-names", &["the exporter's result has no model"]);
    misbehaves("no-result", &["ended without a result (exit code 0)"]);
    misbehaves("result-but-fails", &["ended without a result (exit code 2)"]);
    misbehaves("after-result", &["it went on after its result"]);
}

/// A checkpoint stage without a checkpoint must not be kept: later runs would trip over it.
#[test]
fn synthesizes_nothing() {
    let world = World::new();
    let run = world
        .command(["build", "soprano-tiny", "-o", "out/bundle", "--python"])
        .arg(fake_environment(&world))
        .env("FAKE", "nothing")
        .output();
    Run::from(run.unwrap()).exits(2).says("the exporter's result has no checkpoint").hints();
    left_nothing(&world);
}

#[test]
fn exports_what_is_no_model() {
    let world = World::new();
    let run = Run::from(fake_build(&world, "no-model").output().unwrap()).exits(2);
    run.says("model.onnx: ").hints();
}

#[test]
fn says_itself_what_is_wrong() {
    misbehaves(
        "error",
        &[
            "error: the exporter refuses (checkpoint-shape): decoder.pth: tensor `head.out.bias` is missing\n",
            "hint: fetch it again\n",
        ],
    );
    misbehaves("error-without-hint", &["refuses (internal): KeyError: 'x'", "hint: the whole log: "]);
}

#[test]
fn dies_by_a_signal() {
    misbehaves("signal", &["ended without a result (signal 11)", "  | about to fall\n"]);
}

#[test]
fn complains_on_stderr() {
    let world = World::new();
    let run = Run::from(fake_build(&world, "stderr").output().unwrap()).exits(2);
    let run = run.says("  | line 999\n").says("RuntimeError: the last word");
    assert!(!run.stderr.contains("line 500"), "only the last lines:\n{}", run.show());
    let log = run.stderr.split("hint: the whole log: ").nth(1).unwrap().trim();
    assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 1001);
}

/// `fake_build` with a time limit of a second.
fn hurried(world: &World, mode: &str) -> Run {
    let recipe = "name: hurried\nsource: synthetic:tiny\ndecoder:\n  time_limit_seconds: 1\n";
    world.write("hurried.yaml", recipe);
    let marks = world.path("home");
    let mut build = fake_build(world, mode);
    let build = build.args(["--recipe", "hurried.yaml"]).env("FAKE_MARKS", marks);
    Run::from(build.output().unwrap())
}

#[test]
fn hangs() {
    let world = World::new();
    let start = Instant::now();
    let run = hurried(&world, "hang").exits(2).hints();
    run.says("time limit of 1 s during \"brooding\"")
        .says("  | still at it\n")
        .says("time_limit_seconds");
    assert!(start.elapsed() < Duration::from_secs(20));
    left_nothing(&world);

    let world = World::new();
    hurried(&world, "hang-after-result").exits(2).says("during \"exit\"");
    left_nothing(&world);
}

#[test]
fn is_slow_but_speaks() {
    let world = World::new();
    hurried(&world, "slow").exits(2).says("it took its time and was not cut off");
}

#[test]
fn leaves_a_child_of_its_own() {
    for (mode, words) in [
        ("grandchild-quiet", "its own child lives on"),
        ("grandchild-after-success", "result has no model"),
        ("grandchild-holds-pipe", "exit code 1"),
        ("grandchild-hang", "time limit"),
    ] {
        let world = World::new();
        let start = Instant::now();
        hurried(&world, mode).exits(2).says(words);
        assert!(start.elapsed() < Duration::from_secs(20), "{mode} held the build up");
        let pid = std::fs::read_to_string(world.path("home/grandchild")).unwrap().parse().unwrap();
        until(&format!("{mode}: process {pid} is gone"), || !lives(pid));
        left_nothing(&world);
    }
}

#[test]
fn there_is_no_python() {
    let world = World::new();
    let run = world.run(["build", "soprano-tiny", "-o", "out/bundle", "--exporter", "torch"]).exits(2);
    run.says("no Python environment of the family \"soprano\" was found").says("hint: make setup");
    left_nothing(&world);
}

#[test]
fn what_is_named_is_no_interpreter() {
    for named in ["nowhere", "file", "folder"] {
        let world = World::new();
        world.write("file", "#!/bin/sh\n");
        std::fs::create_dir(world.work("folder")).unwrap();
        let run = world.run(["build", "soprano-tiny", "-o", "out/bundle", "--python", named]).exits(2);
        run.says(&format!("/{named}: ")).says("hint: make setup");
        left_nothing(&world);
    }
    // A file at the right place that can't be started.
    let world = World::new();
    let python = fake_environment(&world).join("bin/python");
    std::fs::remove_file(&python).unwrap();
    std::fs::write(&python, "no program").unwrap();
    Run::from(fake_build(&world, "exit").output().unwrap()).exits(2).says("can't be started").hints();
    left_nothing(&world);
}
