//! A bundle that speaks, and all that can keep it from speaking.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::json;
use soprano_export::audio::{Wav, snr_db};

use crate::bundles::forge;
use crate::harness::{ROOT, Run, World, copy_tree, python, shared, skipped};
use crate::snapshot;

/// The trained voice of this repository, built once.
pub fn voice() -> Option<&'static Path> {
    static VOICE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = || {
        let shared = shared()?;
        let python = python()?;
        let world = World::new();
        let bundle = shared.cache.parent().unwrap().join("voice");
        let recipe = format!(
            "name: voice\nsource: {ROOT}/fixtures/soprano-mini\n\
             decoder:\n  references: {{lengths: [2, 16], batches: [1]}}\n  int8: {{activations: two}}\n\
             lm:\n  int8: {{activations: two}}\n\
             speech:\n  sentences:\n    - Hello there, my friend.\n    - Thank you very much.\n"
        );
        world.write("voice.yaml", recipe);
        let mut command =
            world.command(["build", "voice.yaml", "--overwrite", "--no-speed-gate", "-o"]);
        command.arg(&bundle).arg("--cache-dir").arg(&shared.cache).arg("--python").arg(python);
        Run::from(command.output().unwrap()).exits(0);
        Some(bundle)
    };
    VOICE.get_or_init(make).as_deref()
}

macro_rules! voice_or_skip {
    () => {
        match voice() {
            Some(voice) => voice,
            None => {
                let test = std::thread::current().name().unwrap_or("?").to_owned();
                return skipped(&test, "no .venv; run make setup");
            }
        }
    };
}

fn synth(world: &World, bundle: &Path, more: &[&str]) -> Run {
    world.command(["synth"]).arg(bundle).args(more).output().unwrap().into()
}

const TEXT: &str =
    "Could you tell me where the nearest station is? In 1969, people walked on the moon.";

fn wav(world: &World, name: &str) -> Wav {
    Wav::read(&world.work(name)).unwrap()
}

#[test]
fn a_text_becomes_sound_and_the_streamed_one_is_the_same() {
    let bundle = voice_or_skip!();
    let world = World::new();
    let fp32 = ["--scheme", "fp32", "--float"];
    let run = synth(&world, bundle, &[&[TEXT, "-o", "a.wav"], &fp32[..]].concat()).exits(0);
    assert_eq!(run.stdout, "a.wav\n");
    run.says("first audio").says("lm fp32 in onnxruntime");
    let whole = wav(&world, "a.wav");
    assert_eq!((whole.sample_rate, whole.samples.len() % 2048), (32000, 0));
    assert!(whole.samples.iter().any(|s| s.abs() > 0.05));
    for chunk in ["1", "8", "500"] {
        let stream = ["--stream", "--chunk", chunk, "--overwrite", "-o", "b.wav", TEXT];
        synth(&world, bundle, &[&stream[..], &fp32].concat()).exits(0);
        let streamed = wav(&world, "b.wav");
        assert_eq!(streamed.samples.len(), whole.samples.len());
        let apart = streamed.samples.iter().zip(&whole.samples).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0, f32::max);
        assert!(apart < 1e-5, "{chunk}: {apart}");
    }
    // Another runtime for each half, side by side, in 16 bits, to stdout.
    let mut command = world.command(["synth"]);
    let mixed =
        ["-o", "-", "--lm-runtime", "tract", "--decoder-runtime", "onnxruntime", "--at-once", "4"];
    let piped = command.arg(bundle).arg(TEXT).args(mixed).args(["--scheme", "fp32"]).output().unwrap();
    assert!(piped.status.success());
    world.write("c.wav", &piped.stdout);
    let data = piped.stdout.len() - 44;
    assert_eq!(data, whole.samples.len() * 2, "a header whose lengths are open, and 16 bits each");
    let samples: Vec<f32> = piped.stdout[44..]
        .chunks_exact(2)
        .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
        .collect();
    assert!(snr_db(&whole.samples, &samples).unwrap() > 50.0);
    // 8 bits is the default; it says as much.
    let run = synth(&world, bundle, &[TEXT, "-o", "d.wav", "--json"]).exits(0).json();
    assert_eq!(run["samples"], whole.samples.len());
    assert!(run["runtimes"][0].as_str().unwrap().contains("int8"), "{run}");
    world.is_clean();
}

#[test]
fn in_8_bits_a_sentence_is_the_same_samples_streamed_and_beside_others() {
    let bundle = voice_or_skip!();
    let world = World::new();
    let how = ["--scheme", "int8", "--float", "--overwrite"];
    for runtime in ["onnxruntime", "tract"] {
        let say = |more: &[&str]| {
            let more = [&how[..], &["--runtime", runtime, "-o", "a.wav", TEXT], more].concat();
            synth(&world, bundle, &more).exits(0);
            wav(&world, "a.wav").samples
        };
        let whole = say(&["--threads", "2"]);
        for way in
            [&["--threads", "1"][..], &["--stream", "--chunk", "1"], &["--stream", "--chunk", "7"]]
        {
            assert!(say(way) == whole, "{runtime} {way:?}");
        }
    }
    // The longest prompt has no padding. Behind padding a sum of attention, in fp32, is rounded otherwise, and tract's
    // fp32 products are where there are more rows.
    world.write("lines.txt", "Hello there, my friend.\nNo!\nYes!\nGood!\n");
    let say = |at_once: &str| {
        let more =
            ["--batch", "lines.txt", "--runtime", "onnxruntime", "-o", "out", "--at-once", at_once];
        synth(&world, bundle, &[&how[..], &more].concat()).exits(0);
        [1, 2, 3, 4].map(|line| wav(&world, &format!("out/{line}.wav")).samples)
    };
    let (alone, beside) = (say("1"), say("4"));
    assert!(alone[0] == beside[0]);
    for (alone, beside) in alone.iter().zip(&beside).skip(1) {
        assert!(snr_db(alone, beside).unwrap() > 50.0);
    }
}

#[test]
fn a_seed_decides_what_is_said() {
    let bundle = voice_or_skip!();
    let world = World::new();
    let say = |name: &str, seed: &str| {
        let more = [TEXT, "-o", name, "--temperature", "1.5", "--top-p", "1", "--seed", seed];
        synth(&world, bundle, &[&more[..], &["--retries", "2"]].concat()).exits(0);
        std::fs::read(world.work(name)).unwrap()
    };
    let first = say("a.wav", "1");
    assert!(first == say("b.wav", "1"));
    assert!(first != say("c.wav", "2"));
}

#[test]
fn every_line_of_a_file_gets_a_file() {
    let bundle = voice_or_skip!();
    let world = World::new();
    world.write("lines.txt", format!("Hello there, my friend.\n\n{TEXT}\n"));
    let batch = ["--batch", "lines.txt", "-o", "out", "--at-once", "16"];
    assert_eq!(synth(&world, bundle, &batch).exits(0).stdout, "out\n");
    let names: Vec<_> = crate::harness::tree(&world.work("out")).into_keys().collect();
    assert_eq!(names, ["1.wav", "3.wav"]);
    synth(&world, bundle, &["Hello there, my friend.", "-o", "one.wav"]).exits(0);
    let seconds = |name: &str| wav(&world, name).seconds();
    assert_eq!(seconds("out/1.wav"), seconds("one.wav"));
    synth(&world, bundle, &batch).exits(2).says("out: it is there already").hints();
    let again = [&batch[..], &["--overwrite"]].concat();
    world.write("lines.txt", "...\n***\n");
    synth(&world, bundle, &again).exits(2).says("line 1 has nothing to say").hints();
    assert!(world.work("out/3.wav").is_file(), "what was there stays");
    // A line without a word is passed over; the others keep their numbers.
    world.write("lines.txt", format!("***\n{TEXT}\n\n--\nHello there, my friend.\n"));
    let run = synth(&world, bundle, &[&again[..], &["--json"]].concat()).exits(0);
    let run = run.says("warning: nothing to say in line 1, line 4; passed over, without a file");
    assert_eq!(run.json()["unsaid"], serde_json::json!(["line 1", "line 4"]));
    let names: Vec<_> = crate::harness::tree(&world.work("out")).into_keys().collect();
    assert_eq!(names, ["2.wav", "5.wav"]);
    world.is_clean();
}

#[test]
fn texts_that_can_not_be_said_and_those_that_can() {
    let bundle = voice_or_skip!();
    let world = World::new();
    world.write("latin1.txt", b"caf\xe9");
    world.write("blank.txt", "\n \n");
    std::os::unix::fs::symlink("/dev/zero", world.work("zero")).unwrap();
    let calls: [&[&str]; 11] = [
        &[""],
        &["?!... --"],
        &["\u{1F600}\u{200d}\u{7}"],
        &[],
        &["a", "--file", "latin1.txt"],
        &["--file", "latin1.txt"],
        &["--file", "nowhere.txt"],
        &["--batch", "blank.txt", "-o", "out"],
        &["a", "--temperature", "nan"],
        &["a", "--stream", "--at-once", "2"],
        &["a", "-o", "-", "--json"],
    ];
    let shown: String = calls
        .iter()
        .map(|call| {
            format!("$ synth VOICE {call:?}\n{}\n", synth(&world, bundle, call).exits(2).show())
        })
        .collect();
    snapshot!("synth-refused", world, shown);
    synth(&world, bundle, &["--file", "zero"]).exits(2).says("not a plain file").hints();
    std::fs::File::create(world.work("large")).unwrap().set_len(65 << 20).unwrap();
    synth(&world, bundle, &["--file", "large"]).exits(2).says("more than 64 MB").hints();
    // Every script, control characters, and no spaces: something is said, or nothing can be.
    let scripts = "Здравствуй Γειά 你好 こんにちは 안녕 שלום سلام नमस्ते สวัสดี ñandú ß ﬁ \u{301}a";
    let long = "a".repeat(2000);
    for text in [scripts, "a\u{0}b\u{1b}[31mc", &long, "no.spaces.at.all,1,2,3;x=y"] {
        world.write("text.txt", text);
        let more = ["--file", "text.txt", "-o", "a.wav", "--overwrite", "--max-tokens", "20"];
        synth(&world, bundle, &more).exits(0);
    }
    assert!(wav(&world, "a.wav").samples.iter().all(|s| s.is_finite()));
    world.is_clean();
}

#[test]
fn a_closed_pipe_a_full_disk_and_an_end_by_hand() {
    let bundle = voice_or_skip!();
    let world = World::new();
    let long = format!("{TEXT} ").repeat(20);
    world.write("long.txt", &long);
    // The reader leaves after the first bytes.
    let mut command = world.command(["synth"]);
    command.arg(bundle).args(["--file", "long.txt", "--stream", "-o", "-"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0; 4096];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0), "as a pipe's writer ends");
    if Path::new("/dev/full").exists() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = world.command(["synth"]);
        command.arg(bundle).args([TEXT, "-o", "-"]).stdout(full);
        Run::from(command.output().unwrap()).exits(2).says("No space left");
    }
    std::fs::create_dir(world.work("folder")).unwrap();
    synth(&world, bundle, &[TEXT, "-o", "folder", "--overwrite"])
        .exits(2)
        .says("folder: a folder, not a plain file");
    synth(&world, bundle, &[TEXT, "-o", "no/such/a.wav"]).exits(2).says("no/such/a.wav");
    let mut command = world.command(["synth"]);
    command.arg(bundle).args(["--file", "long.txt", "-o", "long.wav", "--runtime", "tract"]);
    let child = command.spawn().unwrap();
    let half = || {
        let names = std::fs::read_dir(world.path("work")).unwrap();
        names.flatten().any(|e| e.file_name().to_string_lossy().starts_with(".soprano-export-"))
    };
    crate::harness::until("the file is begun", half);
    crate::harness::signal(&child, libc::SIGINT);
    let ended = Run::from(child.wait_with_output().unwrap()).exits(130);
    ended.says("no file is left of what was said so far");
    assert!(!world.work("long.wav").exists());
    world.is_clean();
}

#[test]
fn bundles_that_can_not_speak() {
    let bundle = voice_or_skip!();
    let shared = shared().unwrap();
    let world = World::new();
    let without = |name: &str, edit: &dyn Fn(&Path), manifest: &dyn Fn(&mut serde_json::Value)| {
        let folder = world.work(name);
        copy_tree(bundle, &folder);
        edit(&folder);
        forge(&folder, manifest);
        synth(&world, Path::new(name), &[TEXT]).exits(2).hints()
    };
    let nothing = |_: &Path| {};
    let leave = |_: &mut serde_json::Value| {};
    let shown = [
        ("half a voice", synth(&world, &shared.bundle, &[TEXT]).exits(2)),
        ("no tokenizer", {
            let drop_it = |manifest: &mut serde_json::Value| {
                manifest["files"].as_object_mut().unwrap().remove("tokenizer.json");
            };
            without("a", &nothing, &drop_it)
        }),
        ("another model's tokenizer", {
            let other = |folder: &Path| {
                let path = folder.join("tokenizer.json");
                let text = std::fs::read_to_string(&path).unwrap().replace("[START]", "[BEGIN]");
                std::fs::write(&path, text).unwrap();
            };
            without("b", &other, &leave)
        }),
        ("halves of two models", {
            let wide = |manifest: &mut serde_json::Value| {
                for artifact in manifest["artifacts"].as_array_mut().unwrap() {
                    if artifact["graph"] == "decoder" {
                        artifact["inputs"][0]["shape"][1] = json!("512");
                    }
                }
            };
            without("c", &nothing, &wide)
        }),
        ("no sample rate", {
            let silent = |manifest: &mut serde_json::Value| {
                manifest["graphs"]["decoder"].as_object_mut().unwrap().remove("sample_rate");
            };
            without("d", &nothing, &silent)
        }),
        ("a precision that it lacks", synth(&world, bundle, &[TEXT, "--precision", "fp16"]).exits(2)),
    ];
    let shown: String = shown.iter().map(|(what, run)| format!("{what}:\n{}\n", run.show())).collect();
    snapshot!("synth-bundles", world, shown);
    let changed = world.work("changed");
    copy_tree(bundle, &changed);
    let mut text = std::fs::read_to_string(changed.join("tokenizer.json")).unwrap();
    text.push(' ');
    std::fs::write(changed.join("tokenizer.json"), text).unwrap();
    synth(&world, &changed, &[TEXT]).exits(2).says("its digest is").hints();
    assert!(!world.work("speech.wav").exists());
    world.is_clean();
}

/// An environment that has what `.venv` has, and room for more.
fn environment(world: &World) -> PathBuf {
    let python = python().unwrap().join("bin/python");
    let home = world.path("environment");
    let venv = Command::new(&python).args(["-m", "venv"]).arg(&home).output().unwrap();
    assert!(venv.status.success(), "{}", String::from_utf8_lossy(&venv.stderr));
    let packages = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let packages = Command::new(&python).args(["-c", packages]).output().unwrap().stdout;
    std::fs::write(site(&home).join("base.pth"), packages).unwrap();
    home
}

fn site(environment: &Path) -> PathBuf {
    let lib = std::fs::read_dir(environment.join("lib")).unwrap().next().unwrap().unwrap();
    lib.path().join("site-packages")
}

#[test]
fn without_pesq_it_is_said_why_and_what_is_not_held() {
    let bundle = voice_or_skip!();
    let world = World::new();
    let validate = |bundle: &Path, more: &[&str]| -> Run {
        let mut command = world.command(["validate", "--speech", "--runtime", "tract", "--json"]);
        command.arg(bundle).args(more).output().unwrap().into()
    };
    let run = validate(bundle, &["--html", "page.html"]).exits(0);
    assert_eq!(run.json()[0]["pesq_missing"], "no Python environment");
    assert_eq!(run.json()[0]["pieces"][0]["pesq"], json!(null));
    run.says("PESQ is not measured: no Python environment\n");
    let page = std::fs::read_to_string(world.work("page.html")).unwrap();
    assert!(page.contains("PESQ is not measured: no Python environment."));

    // As recipes were written before.
    let old = world.work("old");
    copy_tree(bundle, &old);
    let path = old.join("recipe.lock.yaml");
    let recipe = std::fs::read_to_string(&path).unwrap();
    let distortion = "mel_cepstral_distortion_db: 1.5";
    assert!(recipe.contains(distortion));
    std::fs::write(&path, recipe.replace(distortion, "pesq: 4.0")).unwrap();
    forge(&old, |_| {});
    let python = python().unwrap();
    validate(&old, &["--python", python.to_str().unwrap()]).exits(0).says(
        "PESQ is not measured: the Python environment has no package `pesq`; `speech.int8.pesq` (>= 4) is not held",
    );

    let broken = environment(&world);
    std::fs::create_dir(site(&broken).join("pesq-0.0.4.dist-info")).unwrap();
    std::fs::write(site(&broken).join("pesq.py"), "raise ImportError('no compiler')").unwrap();
    validate(&old, &["--python", broken.to_str().unwrap()]).exits(0).says(
        "the package pesq cannot be imported: no compiler; `speech.int8.pesq` (>= 4) is not held",
    );
    validate(&old, &["--python", "no-such-place"]).exits(2).says("no-such-place").hints();
    world.is_clean();
}

#[test]
fn pesq_is_measured_where_its_package_is_installed() {
    let bundle = voice_or_skip!();
    let world = World::new();
    let environment = environment(&world);
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "pesq==0.0.4"];
    let pip = Command::new(environment.join("bin/python")).args(pip).output().unwrap();
    if !pip.status.success() {
        let why = String::from_utf8_lossy(&pip.stderr).trim().replace('\n', " ");
        return skipped("pesq_is_measured_where_its_package_is_installed", &why);
    }
    let mut command = world.command(["validate", "--speech", "--runtime", "tract", "--json"]);
    let run: Run = command.arg(bundle).arg("--python").arg(environment).output().unwrap().into();
    let variants = run.exits(0).json();
    assert_eq!(variants[0]["pesq_missing"], json!(null));
    for piece in variants[0]["pieces"].as_array().unwrap() {
        let score = piece["pesq"].as_f64().unwrap();
        assert!((4.64..4.65).contains(&score), "fp32 is upstream's: {score}");
    }
    world.is_clean();
}

#[test]
fn every_file_in_every_runtime_says_what_upstream_says() {
    let bundle = voice_or_skip!();
    let world = World::new();
    let place = ["--python", python().unwrap().to_str().unwrap()].map(str::to_owned);
    let validate = |bundle: &Path, more: &[&str]| -> Run {
        let mut command = world.command(["validate", "--speech"]);
        command.arg(bundle).args(more).args(&place).output().unwrap().into()
    };
    let run = validate(bundle, &["--html", "page.html", "--json"]).exits(0);
    let found = run.json();
    let variants = found.as_array().unwrap();
    assert_eq!(variants.len(), 6, "fp32 in four runtimes, int8 in two: {found}");
    for variant in variants {
        for piece in variant["pieces"].as_array().unwrap() {
            assert_eq!(piece["faults"], json!([]), "{variant}");
            assert_eq!(piece["drift"], 0);
            let figure = |name: &str| piece[name].as_f64().unwrap();
            assert!(figure("stoi") > 0.999 && figure("estoi") > 0.999, "{piece}");
            assert!(
                figure("si_sdr_db") > 25.0 && figure("mel_cepstral_distortion_db") < 0.3,
                "{piece}"
            );
        }
    }
    let page = std::fs::read_to_string(world.work("page.html")).unwrap();
    assert_eq!(page.matches("<audio").count(), 2 * 7, "upstream and six variants, two sentences");
    crate::pages::fits(&world.work("page.html"));
    // Both halves: a language model's dimensions too.
    crate::pages::fits(&bundle.join("report.html"));
    validate(bundle, &["--html", "page.html"]).exits(2).says("is there already").hints();
    validate(&shared().unwrap().bundle, &[])
        .exits(2)
        .says("no speech of upstream's is recorded")
        .hints();

    for option in ["--onnxruntime", "--openvino-library"] {
        let run = validate(bundle, &[option, "no-such.so"]).exits(2);
        run.says("no-such.so: no such file").hints();
    }

    // A recording that says something else: the answer is no.
    let lie = world.work("lie");
    copy_tree(bundle, &lie);
    let path = lie.join("reference/speech.safetensors");
    let mut file = soprano_export::tensor::TensorFile::read(&path).unwrap();
    let mut tokens = file.tensors["0/tokens"].to_i64().unwrap();
    tokens[3] += 1;
    let shape = [tokens.len()];
    file.tensors.insert("0/tokens".into(), soprano_export::tensor::Tensor::from_i64(&shape, &tokens));
    std::fs::write(&path, file.to_bytes().unwrap()).unwrap();
    forge(&lie, |_| {});
    let run = validate(&lie, &["--runtime", "tract"]).exits(1);
    run.says("3 of").says("FAILED");
    std::fs::write(&path, "no tensors").unwrap();
    forge(&lie, |_| {});
    validate(&lie, &["--runtime", "tract"]).exits(2).says("speech.safetensors");
    world.is_clean();
}
