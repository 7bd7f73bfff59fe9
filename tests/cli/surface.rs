//! What each verb says, in snapshots.

use std::io::Read as _;
use std::process::Stdio;

use soprano_export::ir::{Attr, TestGraph, initializer_f32, node};

use crate::harness::{Run, World};
use crate::{shared_or_skip, snapshot};

#[test]
fn help() {
    let world = World::new();
    let verbs = [
        "", "decoder", "build", "plan", "inspect", "diff", "validate", "bench", "verify", "sign",
        "publish", "fetch", "doctor", "recipe", "recipe list", "recipe show", "recipe schema",
        "recipe check", "pass", "pass list", "pass explain", "pass run", "cache", "cache dir",
        "cache size", "cache prune", "completions",
    ];
    for verb in verbs {
        let run = world.run(verb.split_whitespace().chain(["--help"])).exits(0);
        assert_eq!(run.stderr, "");
        snapshot!(format!("help-{verb}").trim_end_matches('-').replace(' ', "-"), world, run.stdout);
    }
    assert!(world.run(["--version"]).exits(0).stdout.starts_with("soprano-export "));
}

#[test]
fn usage_errors() {
    let world = World::new();
    let calls: [&[&str]; 7] = [
        &[],
        &["biuld"],
        &["decoder", "--modle", "x"],
        &["build"],
        &["completions", "cobol"],
        &["pass", "run", "x.onnx", "-o", "y.onnx", "--fuel", "-1"],
        &["verify", "a", "b"],
    ];
    let shown: String = calls
        .iter()
        .map(|call| format!("$ {}\n{}\n", call.join(" "), world.run(*call).exits(2).show()))
        .collect();
    snapshot!("usage", world, shown);
}

#[test]
fn sources_that_are_none() {
    let world = World::new();
    std::fs::create_dir(world.work("empty")).unwrap();
    world.write("other/model.safetensors", "");
    std::fs::create_dir(world.path("home/empty")).unwrap();
    world.write("tilde.yaml", "name: tilde\nsource: ~/empty\ndecoder: {}\n");
    let run = world.run(["build", "tilde.yaml"]).exits(2).hints();
    run.says("/home/empty: no decoder.pth in this folder");
    let sources = [
        "nonsense",
        "./nowhere",
        "./empty",
        "./other",
        "~/empty",
        "~someone/empty",
        "synthetic:tiny#x",
        "a/b/c",
    ];
    let shown: String = sources
        .iter()
        .map(|model| {
            let run = world.run(["decoder", "--model", model]).exits(2).hints();
            format!("$ decoder --model {model}\n{}\n", run.show())
        })
        .collect();
    snapshot!("sources", world, shown);
}

#[test]
fn recipes() {
    let world = World::new();
    snapshot!("recipe-list", world, world.run(["recipe", "list"]).exits(0).show());
    snapshot!("recipe-show", world, world.run(["recipe", "show", "soprano-tiny"]).exits(0).show());
    world.run(["recipe", "schema"]).exits(0).json();

    let good = world.run(["recipe", "show", "soprano-1.1"]).exits(0).stdout;
    world.write("good.yaml", &good);
    assert_eq!(world.run(["recipe", "show", "good.yaml"]).exits(0).stdout, good);
    world.write("typo.yaml", good.replace("opset", "opsett"));
    world.write("lax.yaml", good.replace("snr_db: 90.0", "snr_db: 3.0"));
    world.write("type.yaml", good.replace("opset: 17", "opset: seventeen"));
    world.write("twice.yaml", format!("{good}name: again\n"));
    world.write("broken.yaml", "name: [\n");
    world.write("bytes.yaml", b"name: \xff\n");
    let run = world.run([
        "recipe", "check", "good.yaml", "soprano-tiny", "typo.yaml", "lax.yaml", "type.yaml",
        "twice.yaml", "broken.yaml", "bytes.yaml", "nowhere.yaml", "sopprano-1.1",
    ]);
    snapshot!("recipe-check", world, run.exits(1).show());
    world.run(["recipe", "check", "good.yaml", "soprano-1.0"]).exits(0);
    world.run(["build", "typo.yaml"]).exits(2);
    world.run(["recipe", "show", "nowhere.yaml"]).exits(2);
}

/// Two identities and a node without a use: four patches in all.
fn tiny_model(world: &World) {
    let model = TestGraph::new()
        .input("x", &["n", "2"])
        .output("y", &["n", "2"])
        .initializer(initializer_f32("w", &[2], &[1.0, 2.0]))
        .node(node("Identity", ["x"], "a"))
        .node(node("Identity", ["a"], "b"))
        .node(node("Mul", ["b", "w"], "y"))
        .node(node("Add", ["b", "w"], "unused"))
        .model();
    world.write("tiny.onnx", model.to_bytes());
}

#[test]
fn passes() {
    let world = World::new();
    let list = world.run(["pass", "list"]).exits(0);
    assert_eq!(list.stderr, "");
    for name in list.stdout.lines() {
        let rules = world.run(["pass", "explain", name]).exits(0).stdout;
        assert!(rules.starts_with(&format!("{name}\n\n")) && rules.lines().count() > 2, "{rules}");
    }
    assert!(list.stdout.ends_with("unused-nodes\n"));
    let run = world.run(["pass", "explain", "identity-elimination"]).exits(0);
    snapshot!("pass-explain", world, run.show());
    let run = world.run(["pass", "explain", "identity-eliminaton"]).exits(2);
    snapshot!("pass-unknown", world, run.show());
}

#[test]
fn pass_run_spends_its_fuel() {
    let world = World::new();
    tiny_model(&world);
    let nodes = |file: &str| {
        let summary = world.run(["inspect", file, "--json"]).exits(0).json();
        summary["nodes"].as_u64().unwrap()
    };
    assert_eq!(nodes("tiny.onnx"), 4);
    let mut left = Vec::new();
    for fuel in ["0", "1", "2", "3", "100"] {
        let output = format!("fuel-{fuel}.onnx");
        let run = world.run(["pass", "run", "tiny.onnx", "-o", &output, "--fuel", fuel]).exits(0);
        assert_eq!(run.stdout, format!("{output}\n"));
        left.push(nodes(&output));
    }
    assert_eq!(left, [4, 3, 2, 1, 1]);
    let run = world.run(["pass", "run", "tiny.onnx", "-o", "full.onnx"]).exits(0);
    snapshot!("pass-run", world, run.show());
    assert_eq!(
        std::fs::read(world.work("full.onnx")).unwrap(),
        std::fs::read(world.work("fuel-100.onnx")).unwrap()
    );
    let bytes = |file: &str| std::fs::read(world.work(file)).unwrap();
    assert_eq!(bytes("tiny.onnx"), bytes("fuel-0.onnx"));
    world.run(["pass", "run", "tiny.onnx", "-o", "none.onnx", "--pass", "fold-scale"]).exits(0);
    assert_eq!(bytes("tiny.onnx"), bytes("none.onnx"));

    let arguments =
        ["pass", "run", "tiny.onnx", "-o", "one.onnx", "--pass", "identity-elimination", "--json"];
    let report = world.run(arguments).exits(0).json();
    assert_eq!(report["passes"][0]["applied"], 2);
    assert_eq!(report["nodes"], serde_json::json!([4, 2]));
    world.is_clean();
}

#[test]
fn pass_run_says_when_it_raises_the_version() {
    let world = World::new();
    let two = |name: &str| initializer_f32(name, &[2, 1], &[1.0, 2.0]);
    let old = TestGraph::new()
        .versions(3, 10)
        .input("x", &["n", "2"])
        .input("a", &["2", "1"])
        .input("b", &["2", "1"])
        .initializer(two("a"))
        .initializer(initializer_f32("b", &[2, 1], &[3.0, 4.0]))
        .node(node("Constant", [""; 0], "c").attr("value", Attr::Tensor(two(""))))
        .node(node("MatMul", ["x", "a"], "p").named("one"))
        .node(node("MatMul", ["x", "b"], "q").named("two"))
        .node(node("MatMul", ["q", "d"], "r"))
        .initializer(initializer_f32("d", &[1, 2], &[1.0, 1.0]))
        .input("d", &["1", "2"])
        .node(node("MatMul", ["r", "c"], "s"))
        .node(node("Add", ["p", "s"], "y"))
        .output("y", &["n", "1"])
        .model();
    world.write("old.onnx", old.to_bytes());
    let run = world.run(["pass", "run", "old.onnx", "-o", "new.onnx"]).exits(0);
    snapshot!("pass-run-old", world, run.show());
}

#[test]
fn pass_run_refuses() {
    let world = World::new();
    tiny_model(&world);
    world.write("there.onnx", "mine");
    world.write("garbage.onnx", "\u{8}\u{8} no model");
    world.write("empty.onnx", "");
    let calls: [&[&str]; 6] = [
        &["tiny.onnx", "-o", "there.onnx"],
        &["tiny.onnx", "-o", "new.onnx", "--pass", "unused-node"],
        &["tiny.onnx", "-o", "."],
        &["nowhere.onnx", "-o", "new.onnx"],
        &["garbage.onnx", "-o", "new.onnx"],
        &["empty.onnx", "-o", "new.onnx"],
    ];
    let shown: String = calls
        .iter()
        .map(|call| {
            let run = world.run(["pass", "run"].iter().chain(*call)).exits(2).says("error: ");
            format!("$ pass run {}\n{}\n", call.join(" "), run.show())
        })
        .collect();
    snapshot!("pass-run-refuses", world, shown);
    world
        .run(["pass", "run", "tiny.onnx", "-o", "no/such/folder/new.onnx"])
        .exits(2)
        .says("No such file");
    assert_eq!(std::fs::read(world.work("there.onnx")).unwrap(), b"mine");
    assert!(!world.work("new.onnx").exists());
    world.is_clean();
    world.run(["pass", "run", "tiny.onnx", "-o", "there.onnx", "--overwrite"]).exits(0);
    // Onto itself: what is written is not what is being read.
    world.run(["pass", "run", "there.onnx", "-o", "there.onnx", "--overwrite"]).exits(0);
    world.run(["inspect", "there.onnx"]).exits(0);
}

#[test]
fn inspect_and_diff() {
    let world = World::new();
    tiny_model(&world);
    world.run(["pass", "run", "tiny.onnx", "-o", "less.onnx"]).exits(0);
    snapshot!("inspect", world, world.run(["inspect", "tiny.onnx"]).exits(0).show());
    snapshot!("inspect-json", world, world.run(["inspect", "tiny.onnx", "--json"]).exits(0).show());
    snapshot!("diff", world, world.run(["diff", "tiny.onnx", "less.onnx"]).exits(1).show());
    let run = world.run(["diff", "tiny.onnx", "less.onnx", "--json"]).exits(1);
    snapshot!("diff-json", world, run.show());
    let same = world.run(["diff", "less.onnx", "less.onnx"]).exits(0);
    assert_eq!(same.stdout, "");
    world.run(["inspect", "nowhere.onnx"]).exits(2).says("error: nowhere.onnx");
    world.run(["diff", "tiny.onnx", "."]).exits(2).says("error: .");
}

#[test]
fn the_exported_model_can_be_looked_at() {
    let shared = shared_or_skip!();
    let world = World::new();
    let (before, after) = (shared.stage("export-decoder", "model.onnx"), shared.model());
    let (before, after) = (before.to_str().unwrap(), after.to_str().unwrap());
    let summary = world.run(["inspect", before, "--json"]).exits(0).json();
    assert_eq!(summary["operators"]["soprano_export.ISTFT"], 1);
    assert_eq!(summary["inputs"][0]["shape"], serde_json::json!(["batch", "512", "sequence"]));
    let summary = world.run(["inspect", after, "--json"]).exits(0).json();
    assert_eq!(summary["operators"]["soprano_export.ISTFT"], serde_json::Value::Null);
    assert_eq!(summary["opsets"], serde_json::json!({"ai.onnx": 17}));

    world.run(["pass", "run", before, "-o", "half.onnx", "--fuel", "5"]).exits(0);
    world.run(["pass", "run", before, "-o", "whole.onnx"]).exits(0);
    world.run(["pass", "run", "whole.onnx", "-o", "again.onnx"]).exits(0);
    world.run(["diff", "whole.onnx", "again.onnx"]).exits(0);
    let differences = world.run(["diff", "whole.onnx", after, "--json"]).exits(1).json();
    let found = differences["differences"].as_array().unwrap();
    let opset = serde_json::json!({
        "change": "removed", "place": ["opset_import soprano_export"], "old": "version 1", "form_only": false
    });
    assert!(found.contains(&opset), "{differences}");
    let changed = |d: &&serde_json::Value| {
        d["change"] == "changed" && d["place"][0].as_str().unwrap().starts_with("node ")
    };
    assert!(!found.iter().any(|d| changed(&d)), "{differences}");
}

#[test]
fn cache() {
    let world = World::new();
    let root = world.path("cache");
    let run = world.run(["cache", "dir"]).exits(0);
    assert_eq!(run.stdout, format!("{}\n", root.display()));
    let whole = format!("{}\n", world.work("x").display());
    assert_eq!(world.run(["cache", "dir", "--cache-dir", "x"]).exits(0).stdout, whole);
    let unset = world.command(["cache", "dir"]).env("SOPRANO_EXPORT_CACHE", "").output().unwrap();
    let home = world.path("home").join(".cache/soprano-export");
    assert_eq!(Run::from(unset).exits(0).stdout, format!("{}\n", home.display()));

    for (stage, bytes) in [("export-0123456789abcdef", 20_000), ("rewrite-0123456789abcdef", 5)] {
        std::fs::create_dir_all(root.join("stages").join(stage)).unwrap();
        std::fs::write(root.join("stages").join(stage).join("file"), vec![0; bytes]).unwrap();
    }
    std::fs::create_dir_all(root.join("python/soprano-x")).unwrap();
    snapshot!("cache-size", world, world.run(["cache", "size"]).exits(0).show());
    snapshot!("cache-prune", world, world.run(["cache", "prune"]).exits(0).show());
    assert!(root.join("python/soprano-x").exists() && !root.join("stages").exists());
    world.run(["cache", "prune"]).exits(0).says("0 stages removed");
    snapshot!("cache-empty", world, world.run(["cache", "size"]).exits(0).show());
}

#[test]
fn completions() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = world.run(["completions", shell]).exits(0);
        assert!(run.stdout.contains("soprano-export") && run.stderr.is_empty());
    }
    let script = world.run(["completions", "bash"]).exits(0).stdout;
    world.write("completions.bash", script);
    let bash =
        std::process::Command::new("bash").arg("-n").arg(world.work("completions.bash")).output();
    if let Ok(bash) = bash {
        assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
    }
}

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let world = World::new();
    tiny_model(&world);
    let calls: [(&[&str], i32); 8] = [
        (&["inspect", "tiny.onnx"], 0),
        (&["inspect", "tiny.onnx", "--json"], 0),
        (&["completions", "bash"], 0),
        (&["recipe", "schema"], 0),
        (&["--help"], 0),
        (&["recipe", "check", "nowhere.yaml"], 1),
        (&["verify", "nowhere"], 2),
        (&["unknown"], 2),
    ];
    for (call, code) in calls {
        let run = Run::from(world.command(call).stdout(closed()).output().unwrap());
        assert!(!run.stderr.contains("panicked"), "{}", run.show());
        assert_eq!(run.code, code, "stdout closed: {call:?}");
        let run = Run::from(world.command(call).stderr(closed()).output().unwrap());
        assert_eq!(run.code, code, "stderr closed: {call:?}");
    }

    // A reader that takes the first bytes only, as `head` does, of more than a pipe holds.
    let mut child = world.command(["recipe", "schema"]).spawn().unwrap();
    let mut first = [0; 16];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(Run::from(child.wait_with_output().unwrap()).code, 0);
}
