//! Pipes and devices where a file is meant, and names that would steer a terminal.

use std::path::Path;
use std::process::{Command, Stdio};

use soprano_export::ir::{Model, TestGraph, initializer_f32, node};

use crate::bundles::{forge, small_bundle};
use crate::harness::{Run, World, lives, signal, until};

/// A run that has to end by itself.
#[track_caller]
fn ends(world: &World, arguments: &[&str]) -> Run {
    let child = world.command(arguments).spawn().unwrap();
    let pid = child.id() as i32;
    until(&format!("{arguments:?} ends"), || !lives(pid));
    child.wait_with_output().unwrap().into()
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    path.metadata().unwrap().file_type().is_fifo()
}

/// A product of which some names are a file's own.
fn model(operator: &str, dim: &str) -> Model {
    TestGraph::new()
        .input("x", &[dim, "128"])
        .initializer(initializer_f32("w", &[128, 128], &[0.5; 1 << 14]))
        .node(node("Identity", ["x"], "same"))
        .node(node(operator, ["same", "w"], "y").named("product"))
        .output("y", &[dim, "128"])
        .model()
}

const KEY: &str = "untrusted comment: minisign public key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n";

#[test]
fn no_pipe_is_waited_for() {
    let world = World::new();
    world.write("m.onnx", model("MatMul", "n").to_bytes());
    world.write("key.pub", KEY);
    small_bundle(&world.work("small"));
    for name in ["pipe", "pipe.yaml", "folder/config.json", "folder/model.safetensors"] {
        std::fs::create_dir_all(world.work(name).parent().unwrap()).unwrap();
        pipe(&world.work(name));
    }
    std::os::unix::fs::symlink("pipe", world.work("link")).unwrap();
    world.write("r.yaml", "name: r\nfamily: plain\nsource: ./folder\ngraphs: {g: {role: causal}}\n");
    for arguments in [
        &["inspect", "pipe"][..],
        &["inspect", "link"],
        &["diff", "m.onnx", "pipe"],
        &["diff", "m.onnx", "--run", "tract,rten", "--inputs", "pipe"],
        &["diff", "m.onnx", "--run", "tract,rten", "--references", "pipe", "--case", "a"],
        &["pass", "run", "pipe", "-o", "out.onnx"],
        &["quantize", "pipe", "-o", "out.onnx"],
        &["recipe", "check", "pipe.yaml"],
        &["plan", "r.yaml"],
        &["build", "r.yaml", "-o", "out"],
        &["verify", "small", "--key", "pipe"],
        &["sign", "small", "--key", "pipe"],
        &["sign", "small", "--key", "key.pub", "--password-file", "pipe"],
        &["synth", "small", "--file", "pipe", "-o", "out.wav"],
        &["synth", "small", "--batch", "pipe", "-o", "out"],
        &["doctor", "--library", "onnxruntime=pipe"],
    ] {
        let run = ends(&world, arguments);
        let printed = format!("{}{}", run.stdout, run.stderr);
        let refused = printed.contains("not a plain file") || printed.contains("not a minisign");
        assert!(refused, "{arguments:?}\n{}", run.show());
        run.exits(if ["recipe", "doctor"].contains(&arguments[0]) { 1 } else { 2 });
    }
    for name in ["out.onnx", "out", "out.wav"] {
        assert!(!world.work(name).exists(), "{name}");
    }
}

#[test]
fn no_file_of_a_bundle_is_waited_for() {
    let world = World::new();
    for name in ["manifest.json", "SHA256SUMS", "README.md", "onnx/soprano_decoder_fp32.onnx"] {
        let bundle = world.work("small");
        small_bundle(&bundle);
        std::fs::remove_file(bundle.join(name)).unwrap();
        pipe(&bundle.join(name));
        for verb in ["verify", "validate", "bench"] {
            let run = ends(&world, &[verb, "small"]);
            let expected = if verb == "verify" { 1 } else { 2 };
            assert!(run.code == expected, "{name}\n{}", run.show());
        }
        ends(&world, &["publish", "small", "shelf"]).exits(1);
        std::fs::remove_dir_all(bundle).unwrap();
    }
}

#[test]
fn text_may_come_from_a_stream_that_is_open() {
    let world = World::new();
    small_bundle(&world.work("small"));
    forge(&world.work("small"), |manifest| manifest["graphs"]["decoder"]["sample_rate"] = 32000.into());
    world.write("text", "Hello.");
    let from = |file: &str, stdin: Stdio| -> Run {
        let mut command = world.command(["synth", "small", "-o", "out.wav", "--file", file]);
        command.stdin(stdin).output().unwrap().into()
    };
    // What was read is not in the way: the bundle has no voice.
    let text = || std::fs::File::open(world.work("text")).unwrap().into();
    from("/dev/stdin", text()).exits(2).says("tokenizer");
    from("/dev/fd/0", text()).exits(2).says("tokenizer");
    from("/dev/null", text()).exits(2).says("/dev/null: not a plain file").hints();

    // While nothing comes, a second request ends it at once.
    let mut command = world.command(["synth", "small", "-o", "out.wav", "--file", "/dev/stdin"]);
    let child = command.stdin(Stdio::piped()).spawn().unwrap();
    let pid = child.id() as i32;
    let caught = |status: String| {
        let line =
            status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        u64::from_str_radix(&line, 16).unwrap() & (1 << (libc::SIGTERM - 1)) != 0
    };
    let status = format!("/proc/{pid}/status");
    until("the signal is caught", || std::fs::read_to_string(&status).is_ok_and(caught));
    until("it ends", || {
        signal(&child, libc::SIGTERM);
        !lives(pid)
    });
    Run::from(child.wait_with_output().unwrap()).exits(130);
}

#[test]
fn no_pipe_is_replaced() {
    let world = World::new();
    world.write("m.onnx", model("MatMul", "n").to_bytes());
    small_bundle(&world.work("small"));
    forge(&world.work("small"), |manifest| manifest["graphs"]["decoder"]["sample_rate"] = 32000.into());
    for name in ["pipe", "data.onnx.data"] {
        pipe(&world.work(name));
    }
    std::os::unix::fs::symlink("pipe", world.work("link")).unwrap();
    world.write("plain", "old");
    std::os::unix::fs::symlink("plain", world.work("to-plain")).unwrap();
    for place in ["pipe", "link"] {
        for arguments in [
            &["pass", "run", "m.onnx", "-o", place][..],
            &["quantize", "m.onnx", "-o", place],
            &["synth", "small", "hello", "-o", place],
            &["synth", "small", "--batch", "plain", "-o", place],
            &["bench", "small", "--html", place],
            &["sensitivity", "small", "--plot", place],
            &["build", "soprano-tiny", "-o", place],
        ] {
            let run = world.run(arguments.iter().chain(&["--overwrite"])).exits(2).hints();
            let why = if arguments[0] == "build" { "is not a bundle" } else { "not a plain file" };
            run.says(why);
            assert!(is_pipe(&world.work(place)));
        }
    }
    let beside = ["pass", "run", "m.onnx", "-o", "data.onnx", "--external-data", "--overwrite"];
    world.run(beside).exits(2).says("data.onnx.data: not a plain file").hints();
    assert!(is_pipe(&world.work("data.onnx.data")) && !world.work("data.onnx").exists());
    // A plain file is, and a link to one.
    for place in ["plain", "to-plain"] {
        world.run(["pass", "run", "m.onnx", "-o", place, "--overwrite"]).exits(0);
        Model::open(world.work(place)).unwrap();
    }
    world.is_clean();
}

#[test]
fn no_name_steers_the_terminal() {
    let world = World::new();
    let evil = "\u{1b}[31mevil\u{1b}]0;pwn\u{7}\u{202e}";
    let shown = r"\u{1b}[31mevil\u{1b}]0;pwn\u{7}\u{202e}";
    let steers = |text: &str| text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
    let harmless = |run: Run| {
        assert!(!steers(&run.stdout) && !steers(&run.stderr), "{:?}", run.show());
        assert!(run.stdout.contains(shown) || run.stderr.contains(shown), "{:?}", run.show());
        run
    };
    let save = |name: &str, model: &Model| {
        let mut proto = model.proto().clone();
        proto.producer_name = Some(evil.to_owned());
        world.write(name, prost::Message::encode_to_vec(&proto))
    };
    save("dim.onnx", &model("MatMul", evil));
    save("operator.onnx", &model(evil, "n"));
    save("plain.onnx", &model("MatMul", "n"));
    harmless(world.run(["inspect", "dim.onnx"]).exits(0));
    harmless(world.run(["inspect", "operator.onnx", "--nodes"]).exits(0));
    harmless(world.run(["diff", "dim.onnx", "operator.onnx"]).exits(1));
    for verb in [&["pass", "run"][..], &["quantize"]] {
        let arguments = verb.iter().chain(&["operator.onnx", "-o", "out.onnx"]);
        harmless(world.run(arguments).exits(2).hints());
    }
    world.write(&format!("folder/{evil}.pth"), "");
    world.write("r.yaml", "name: r\nfamily: plain\nsource: ./folder\ngraphs: {g: {role: causal}}\n");
    harmless(world.run(["plan", "r.yaml"]).exits(2).hints());
    small_bundle(&world.work("small"));
    world.write(&format!("small/{evil}"), "");
    harmless(world.run(["verify", "small"]).exits(1));
    // A recipe, with its lines shown.
    world.write("evil.yaml", format!("name: r\nsource: ./folder\ngraphs: {{{evil}: {{}}}}\n"));
    let run = world.run(["recipe", "check", "evil.yaml"]).exits(1);
    assert!(!steers(&run.stderr) && run.stderr.contains(r"\u{202e}"), "{}", run.show());
    // Data is what it is.
    let found = world.run(["inspect", "plain.onnx", "--json"]).exits(0).json();
    assert_eq!(found["producer"].as_str().unwrap(), evil);
}
