//! Bundles that were changed, tampered with, or never good.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use soprano_export::bundle;
use soprano_export::digest::Digest;
use soprano_export::ir::Model;
use soprano_export::tensor::{Tensor, TensorFile};

use crate::harness::{Run, Shared, World, copy_tree, python, replay, tree};
use crate::{shared_or_skip, snapshot};

const MODEL: &str = "onnx/soprano_decoder_fp32.onnx";
const REFERENCES: &str = "reference/decoder.safetensors";

/// Rewrites every digest of a bundle to fit its files, as someone would who hides a change.
pub fn forge(bundle: &Path, edit: impl FnOnce(&mut Value)) {
    let read = |name: &str| std::fs::read(bundle.join(name)).unwrap();
    let mut manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    let mut sums = BTreeMap::new();
    for (name, entry) in manifest["files"].as_object_mut().unwrap() {
        let bytes = read(name);
        *entry = json!({"sha256": Digest::of(&bytes), "bytes": bytes.len()});
        sums.insert(name.clone(), Digest::of(&bytes));
    }
    for artifact in manifest["artifacts"].as_array_mut().unwrap() {
        let bytes = read(artifact["file"].as_str().unwrap());
        artifact["sha256"] = json!(Digest::of(&bytes));
        artifact["bytes"] = json!(bytes.len());
    }
    edit(&mut manifest);
    let text = serde_json::to_string_pretty(&manifest).unwrap() + "\n";
    sums.insert("manifest.json".to_owned(), Digest::of(text.as_bytes()));
    let sums: String = sums.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    std::fs::write(bundle.join("manifest.json"), text).unwrap();
    std::fs::write(bundle.join("SHA256SUMS"), sums).unwrap();
}

/// A whole bundle of a few hundred bytes; its model is none.
pub fn small_bundle(folder: &Path) {
    for (name, text) in [("README.md", "# a card\n"), (MODEL, "weights"), (REFERENCES, "numbers")] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let manifest = json!({
        "format": 2, "name": "small", "key": Digest::of(b""),
        "tool": {"name": "soprano-export", "version": "0"},
        "checkpoint": {"source": "local", "files": []},
        "family": "soprano", "environment": {},
        "graphs": {"decoder": {
            "interface": {"role": "signal", "frames": "hidden_states", "samples": "audio"},
            "architecture": {},
        }},
        "artifacts": [{
            "file": MODEL, "graph": "decoder", "precision": "fp32", "sha256": "", "bytes": 0,
            "inputs": [{"name": "hidden_states", "dtype": "f32", "shape": ["batch", "512", "t"]}],
            "outputs": [{"name": "audio", "dtype": "f32", "shape": ["batch", "samples"]}],
            "references": REFERENCES,
            "tolerance": {"max_abs_of_peak": 1e-5, "snr_db": 90.0, "log_spectral_distance_db": 0.05},
        }],
        "files": {"README.md": {}, MODEL: {}, REFERENCES: {}},
    });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    forge(folder, |_| {});
}

fn small(world: &World) -> PathBuf {
    let folder = world.work("small");
    small_bundle(&folder);
    folder
}

#[test]
fn verify_finds_what_was_done_to_a_bundle() {
    let world = World::new();
    let bundle = small(&world);
    world.run(["verify", "small"]).exits(0).says("small is whole");

    std::fs::write(bundle.join("README.md"), "# a curd\n").unwrap();
    std::fs::remove_file(bundle.join(REFERENCES)).unwrap();
    std::fs::write(bundle.join("onnx/more.onnx"), "").unwrap();
    std::fs::rename(bundle.join(MODEL), world.work("model")).unwrap();
    std::os::unix::fs::symlink(world.work("model"), bundle.join(MODEL)).unwrap();
    let run = world.run(["verify", "small"]).exits(1);
    snapshot!("verify", world, run.show());
    let run = world.run(["verify", "small", "--json"]).exits(1);
    snapshot!("verify-json", world, run.show());
}

#[test]
fn verify_finds_papers_that_do_not_agree() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm, &str); 14] = [
        (
            "manifest changed",
            |b| edit(b, "manifest.json", "small", "smell"),
            "manifest.json: changed\n",
        ),
        (
            "no manifest",
            |b| std::fs::remove_file(b.join("manifest.json")).unwrap(),
            "manifest.json: missing\n",
        ),
        ("no list", |b| std::fs::remove_file(b.join("SHA256SUMS")).unwrap(), "SHA256SUMS: missing\n"),
        ("empty list", |b| std::fs::write(b.join("SHA256SUMS"), "").unwrap(), "manifest.json: added\n"),
        (
            "a list that is none",
            |b| std::fs::write(b.join("SHA256SUMS"), "x").unwrap(),
            "SHA256SUMS: changed\n",
        ),
        (
            "a list of bytes",
            |b| std::fs::write(b.join("SHA256SUMS"), b"\xff").unwrap(),
            "SHA256SUMS: changed\n",
        ),
        ("another case", |b| upper(b), "SHA256SUMS: changed\n"),
        (
            "not in the manifest",
            |b| unlist(b),
            "README.md: the manifest disagrees with the digests, or with itself\n",
        ),
        (
            "a file out of the bundle",
            |b| forge(b, |m| m["files"]["../secret"] = json!({"sha256": Digest::of(b""), "bytes": 0})),
            "../secret: the manifest disagrees with the digests, or with itself\n",
        ),
        (
            "another length",
            |b| forge(b, |m| m["files"]["README.md"]["bytes"] = json!(1)),
            "README.md: the",
        ),
        (
            "an artifact's length",
            |b| forge(b, |m| m["artifacts"][0]["bytes"] = json!(1)),
            "_fp32.onnx: the",
        ),
        (
            "an artifact's digest",
            |b| forge(b, |m| m["artifacts"][0]["sha256"] = json!(Digest::of(b"x"))),
            "_fp32.onnx: the",
        ),
        (
            "an artifact that is not listed",
            |b| forge(b, |m| m["artifacts"][0]["file"] = json!("../x")),
            "../x: the",
        ),
        (
            "references that are not listed",
            |b| forge(b, |m| m["artifacts"][0]["references"] = json!("/etc/x")),
            "/etc/x: the",
        ),
    ];
    fn edit(bundle: &Path, name: &str, from: &str, to: &str) {
        let path = bundle.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
    fn upper(bundle: &Path) {
        let text = std::fs::read_to_string(bundle.join("SHA256SUMS")).unwrap();
        let at = text.find(|c: char| c.is_ascii_lowercase()).unwrap();
        let letter = text[at..=at].to_ascii_uppercase();
        std::fs::write(
            bundle.join("SHA256SUMS"),
            format!("{}{letter}{}", &text[..at], &text[at + 1..]),
        )
        .unwrap();
    }
    fn unlist(bundle: &Path) {
        forge(bundle, |manifest| {
            manifest["files"].as_object_mut().unwrap().remove("README.md");
        });
    }
    for (what, harm, finding) in cases {
        let world = World::new();
        harm(&small(&world));
        let run = world.run(["verify", "small"]).exits(1);
        assert!(run.stdout.contains(finding), "{what}\n{}", run.show());
    }
}

#[test]
fn a_manifest_that_no_build_writes_is_refused() {
    type Harm = fn(&mut Value);
    let graph: Harm = |m| m["graphs"]["a/../b"] = m["graphs"]["decoder"].clone();
    let cases: [(Harm, &str); 7] = [
        (graph, "\"a/../b\" is not a name"),
        (|m| m["name"] = json!("../small"), "\"../small\" is not a name"),
        (|m| m["graphs"]["decoder"]["sample_rate"] = json!(0), "0 samples a second"),
        (|m| m["graphs"]["decoder"]["sample_rate"] = json!(u32::MAX), "4294967295 samples a second"),
        (
            |m| m["graphs"]["decoder"]["framing"] = json!({"per_frame": 0, "lead": 1}),
            "the framing of graph \"decoder\"",
        ),
        (
            |m| m["graphs"]["decoder"]["framing"] = json!({"per_frame": u64::MAX, "lead": 1}),
            "the framing of graph \"decoder\"",
        ),
        (
            |m| m["graphs"]["decoder"]["framing"] = json!({"per_frame": 2048, "lead": 1u64 << 40}),
            "the framing of graph \"decoder\"",
        ),
    ];
    for (harm, why) in cases {
        let world = World::new();
        forge(&small(&world), harm);
        for verb in [&["verify", "small"][..], &["validate", "small"], &["synth", "small", "Hi."]] {
            world.run(verb).exits(2).says(why);
        }
    }
    let world = World::new();
    forge(&small(&world), |m| m["graphs"]["decoder"]["interface"]["samples"] = json!("sound"));
    world.run(["validate", "small"]).exits(2).says("\"sound\" is none of the graph's outputs");
    let world = World::new();
    let path = small(&world).join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (key, twice) in [("name", "\"name\":"), ("README.md", "\"README.md\":")] {
        let at = text.find(twice).unwrap();
        std::fs::write(&path, format!("{}\"{key}\":null,{}", &text[..at], &text[at..])).unwrap();
        let refused = world.run(["validate", "small"]).exits(2);
        refused.says(&format!("the key \"{key}\" stands there twice"));
    }
}

#[test]
fn what_is_no_bundle_is_said_so() {
    let world = World::new();
    std::fs::create_dir(world.work("empty")).unwrap();
    world.write("file", "");
    for verb in ["verify", "validate"] {
        for place in ["empty", "nowhere", "file"] {
            world.run([verb, place]).exits(2).says("error: ").hints();
        }
    }
    let bundle = small(&world);
    forge(&bundle, |manifest| manifest["format"] = json!(3));
    world.run(["validate", "small"]).exits(2).says("format 3; this version reads formats 1 and 2");
    forge(&bundle, |manifest| {
        manifest["format"] = json!(2);
        manifest["surprise"] = json!(1);
    });
    world.run(["validate", "small"]).exits(2).says("unknown field `surprise`");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]
    #[test]
    fn verify_finds_every_changed_byte(file in any::<prop::sample::Index>(), bytes in prop::collection::vec(
        (any::<prop::sample::Index>(), 1u8..), 1..4
    )) {
        let folder = tempfile::tempdir().unwrap();
        small_bundle(folder.path());
        prop_assert_eq!(bundle::verify(folder.path()).unwrap(), vec![]);
        let files: Vec<_> =
            tree(folder.path()).into_iter().filter(|(name, _)| !name.ends_with('/')).collect();
        let (name, before) = file.get(&files);
        let mut after = before.clone();
        for (at, flip) in &bytes {
            after[at.index(before.len())] ^= flip;
        }
        prop_assume!(after != *before);
        std::fs::write(folder.path().join(name), after).unwrap();
        let found = bundle::verify(folder.path()).unwrap();
        // A changed name in the list of digests shows as a file missing and another added.
        prop_assert!(found.iter().any(|f| f.file == *name || *name == "SHA256SUMS"), "{name}: {found:?}");
    }
}

fn copied(shared: &Shared, world: &World) -> PathBuf {
    let bundle = world.work("bundle");
    copy_tree(&shared.bundle, &bundle);
    bundle
}

/// Changes the first quarter of a weight by one percent: all of it might be undone by a norm.
fn spoil(path: &Path, weight: &str) {
    let mut model = Model::open(path).unwrap();
    let graph = model.proto_mut().graph.as_mut().unwrap();
    let tensor = graph.initializer.iter_mut().find(|t| t.name() == weight);
    let tensor = tensor.unwrap_or_else(|| panic!("no weight {weight:?}"));
    let mut data = tensor.raw_data.as_ref().unwrap().to_vec();
    let quarter = data.len() / 16 * 4;
    for value in data[..quarter].chunks_exact_mut(4) {
        let spoiled = f32::from_le_bytes(value.try_into().unwrap()) * 1.01;
        value.copy_from_slice(&spoiled.to_le_bytes());
    }
    tensor.raw_data = Some(Bytes::from(data));
    let bytes = model.to_bytes();
    drop(model);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_bundle_of_the_first_format_is_read() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = copied(shared, &world);
    let verdict = |world: &World| world.run(["validate", "bundle", "--json"]).exits(0).json();
    let now = verdict(&world);
    forge(&bundle, |manifest| {
        let fields = manifest.as_object_mut().unwrap();
        fields.remove("family");
        let graphs = fields.remove("graphs").unwrap();
        fields["format"] = json!(1);
        fields.insert("architecture".to_owned(), graphs["decoder"]["architecture"].clone());
        for artifact in manifest["artifacts"].as_array_mut().unwrap() {
            let artifact = artifact.as_object_mut().unwrap();
            for (from, to) in [("graph", "part"), ("precision", "scheme")] {
                let value = artifact.remove(from).unwrap();
                artifact.insert(to.to_owned(), value);
            }
        }
    });
    assert_eq!(verdict(&world), now);
    world.run(["verify", "bundle"]).exits(0);
    forge(&bundle, |manifest| manifest["artifacts"][0]["part"] = json!("codec"));
    world
        .run(["validate", "bundle"])
        .exits(2)
        .says("is a file of a graph that it doesn't list")
        .hints();
}

#[test]
fn validate_sees_through_a_consistent_forgery() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = copied(shared, &world);
    let weight = "/decoder/convnext.1/dwconv/Conv_output_0/weight_2d";
    spoil(&bundle.join(MODEL), weight);
    let run = world.run(["validate", "bundle"]).exits(2).says("its digest is").hints();
    drop(run);
    forge(&bundle, |_| {});
    world.run(["verify", "bundle"]).exits(0);
    let run = world
        .run(["validate", "bundle"])
        .exits(1)
        .says("FAILED: ")
        .says("  b1_t2: max abs error / peak ");
    assert_eq!(run.stdout, "");
    let verdicts = world.run(["validate", "bundle", "--json"]).exits(1).json();
    assert_eq!(verdicts[0]["passed"], false);
}

#[test]
fn a_manifest_can_lower_no_bar_and_lead_nowhere() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = copied(shared, &world);
    for (threshold, lax) in
        [("max_abs_of_peak", 0.5), ("snr_db", -100.0), ("log_spectral_distance_db", 99.0)]
    {
        let whole = std::fs::read_to_string(bundle.join("manifest.json")).unwrap();
        forge(&bundle, |manifest| manifest["artifacts"][0]["tolerance"][threshold] = json!(lax));
        let run = world.run(["validate", "bundle"]).exits(2).hints();
        run.says(&format!("the tolerance {threshold} = {lax} is looser than the floor"));
        std::fs::write(bundle.join("manifest.json"), whole).unwrap();
    }
    for field in ["file", "references"] {
        for place in ["../model.onnx", "/etc/passwd", "onnx/../../model.onnx", ""] {
            let whole = std::fs::read_to_string(bundle.join("manifest.json")).unwrap();
            forge(&bundle, |manifest| manifest["artifacts"][0][field] = json!(place));
            for verb in ["validate", "sensitivity"] {
                world.run([verb, "bundle"]).exits(2).says("leads out of the bundle").hints();
            }
            std::fs::write(bundle.join("manifest.json"), whole).unwrap();
        }
    }
    forge(&bundle, |manifest| {
        let mut second = manifest["artifacts"][0].clone();
        let name = second["graph"].as_str().unwrap().to_owned();
        manifest["graphs"]["second"] = manifest["graphs"][&name].clone();
        second["graph"] = json!("second");
        manifest["artifacts"].as_array_mut().unwrap().push(second);
    });
    world.run(["sensitivity", "bundle"]).exits(2).says("--graph says which: decoder, second");
    forge(&bundle, |manifest| manifest["artifacts"] = json!([]));
    world.run(["validate", "bundle"]).exits(1).says("FAILED: the manifest names no model");
    world.run(["sensitivity", "bundle"]).exits(2).says("no fp32 file of that graph");
}

#[test]
fn references_of_another_digest_are_not_read() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = copied(shared, &world);
    let mut references = std::fs::read(bundle.join(REFERENCES)).unwrap();
    *references.last_mut().unwrap() ^= 1;
    std::fs::write(bundle.join(REFERENCES), references).unwrap();
    for verb in ["validate", "sensitivity"] {
        let run = world.run([verb, "bundle"]).exits(2);
        run.says(REFERENCES).says("was validated");
    }
}

#[test]
fn a_library_that_is_named_must_be_one() {
    let shared = shared_or_skip!();
    let world = World::new();
    let model = shared.model();
    let [bundle, model] = [&shared.bundle, &model].map(|path| path.to_str().unwrap());
    let verbs: [&[&str]; 9] = [
        &["validate", bundle],
        &["validate", bundle, "--runtime", "tract"],
        &["validate", bundle, "--runtime", "all"],
        &["bench", bundle, "--quick", "--runtime", "tract"],
        &["sensitivity", bundle],
        &["diff", model, model, "--run", "tract"],
        &["plan", "soprano-tiny"],
        &["build", "soprano-tiny", "-o", "out"],
        &["decoder", "-o", "out"],
    ];
    for named in [
        "--onnxruntime=no-such.so",
        "--openvino-library=no-such.so",
        "--library=onnxruntime=no-such.so",
        "--library=openvino=no-such.so",
    ] {
        for verb in verbs {
            world.run(verb.iter().chain([&named])).exits(2).says("no-such.so: no such file").hints();
        }
    }
    for wrong in ["--library=tract=x", "--library=openvino", "--library=openvino=", "--library=x=y"] {
        let run = world.run(["validate", bundle, wrong]).exits(2);
        run.says("it is NAME=FILE, where NAME is one of: onnxruntime, openvino");
    }
}

/// Every verb that reads a bundle's models; the last is what `bench` starts for each of them.
const READERS: [&[&str]; 3] = [
    &["validate", "bundle"],
    &["bench", "bundle", "--quick", "--rounds", "1", "--runtime", "tract"],
    &["bench", "bundle", "--runtime", "tract", "--alone", MODEL],
];

#[test]
fn no_verb_reads_what_lies_outside_a_bundle_or_was_changed() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = copied(shared, &world);
    let elsewhere = world.work("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(bundle.join(MODEL), elsewhere.join("model.onnx")).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("model.onnx"), bundle.join(MODEL)).unwrap();
    for verb in READERS {
        // The very file that the manifest means, but another may write there.
        world.run(verb).exits(2).says("leads out of the bundle").hints();
    }
    std::fs::remove_file(bundle.join(MODEL)).unwrap();
    std::fs::rename(elsewhere.join("model.onnx"), bundle.join(MODEL)).unwrap();
    for place in ["../elsewhere/model.onnx", "/etc/passwd"] {
        let whole = std::fs::read_to_string(bundle.join("manifest.json")).unwrap();
        forge(&bundle, |manifest| manifest["artifacts"][0]["file"] = json!(place));
        for verb in READERS {
            let mut verb = verb.to_vec();
            if let Some(alone) = verb.iter_mut().find(|word| **word == MODEL) {
                *alone = place;
            }
            world.run(verb).exits(2).says("leads out of the bundle").hints();
        }
        std::fs::write(bundle.join("manifest.json"), whole).unwrap();
    }
    spoil(&bundle.join(MODEL), "/decoder/convnext.1/dwconv/Conv_output_0/weight_2d");
    for verb in READERS {
        world.run(verb).exits(2).says("its digest is").hints();
    }
}

#[test]
fn references_that_prove_nothing_are_refused() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = copied(shared, &world);
    let whole = TensorFile::read(&bundle.join(REFERENCES)).unwrap();
    type Harm = fn(&mut TensorFile);
    fn filled(file: &mut TensorFile, name: &str, with: impl Fn(usize) -> f32) {
        let tensor = &file.tensors[name];
        let values: Vec<f32> = (0..tensor.shape().iter().product()).map(with).collect();
        let tensor = Tensor::from_f32(tensor.shape(), &values);
        file.tensors.insert(name.to_owned(), tensor);
    }
    let cases: [(Harm, &str); 8] = [
        (|f| *f = TensorFile::default(), "it names no cases"),
        (|f| drop(f.metadata.insert("cases".into(), "[]".into())), "it holds no case"),
        (|f| drop(f.metadata.insert("cases".into(), "{".into())), "its cases: "),
        (|f| f.tensors.retain(|name, _| !name.ends_with("/audio")), "has no output"),
        (|f| f.tensors.retain(|name, _| !name.ends_with("/hidden_states")), "has no input"),
        (|f| filled(f, "b1_t5/audio", |i| if i == 9 { f32::NAN } else { 0.1 }), "aren't finite"),
        (|f| filled(f, "b1_t5/hidden_states", |_| f32::INFINITY), "aren't finite"),
        (
            |f| filled(f, "b3_t3/audio", |_| 0.0),
            "the module that was recorded is silent on case \"b3_t3\": \"audio\" is all zeros\nhint: check",
        ),
    ];
    for (harm, words) in cases {
        let mut file = whole.clone();
        harm(&mut file);
        std::fs::write(bundle.join(REFERENCES), file.to_bytes().unwrap()).unwrap();
        forge(&bundle, |_| {});
        world.run(["validate", "bundle"]).exits(2).says(words);
    }
    std::fs::write(bundle.join(REFERENCES), "nothing of the kind").unwrap();
    world.run(["validate", "bundle"]).exits(2).says("decoder.safetensors").hints();
    forge(&bundle, |_| {});
    world.run(["validate", "bundle"]).exits(2).says("decoder.safetensors");
}

/// An exporter whose model is subtly wrong, in a folder that `FAKE_EXPORT` takes.
fn spoiled_export(shared: &Shared, world: &World, weight: &str) -> PathBuf {
    let folder = world.path("spoiled");
    copy_tree(&shared.stages["export-decoder"], &folder);
    spoil(&folder.join("model.onnx"), weight);
    folder
}

#[test]
fn a_wrong_model_is_rejected_and_its_first_wrong_node_named() {
    let shared = shared_or_skip!();
    for (weight, layer) in
        [("decoder.convnext.1.dwconv.weight", "convnext.1/dwconv"), ("head.out.bias", "head/out")]
    {
        let world = World::new();
        let folder = spoiled_export(shared, &world, weight);
        let mut build = replay(&world, shared);
        let run = Run::from(build.env("FAKE_EXPORT", folder).output().unwrap()).exits(1);
        let run = run.says("FAILED: ").says("error: the artifact is out of tolerance").hints();
        assert_eq!(run.stdout, "");
        let hint = run.stderr.split("\nhint: it first diverges at ").nth(1);
        let hint = hint.unwrap_or_else(|| panic!("no node is named\n{}", run.show()));
        let node = hint.split('"').nth(1).unwrap();
        assert!(node.contains(layer), "{weight} is wrong, and {hint}");

        world.is_clean();
        let kept = tree(&world.work("out"));
        let names: Vec<&str> = kept.keys().map(|name| name.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["", "", "soprano_decoder_fp32.onnx", "verdict.json"], "{kept:?}");
        let (name, text) = kept.iter().next_back().unwrap();
        assert!(name.starts_with("rejected/decoder-"));
        let verdict: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(verdict["passed"], false);
        assert_eq!(verdict["divergence"]["node"], node);
        // A second run comes to the same end: a failed verdict is no finished stage.
        let folder = world.path("spoiled");
        let again = replay(&world, shared).env("FAKE_EXPORT", folder).output().unwrap();
        Run::from(again).exits(1).says("making: ");
    }
}

/// Without biases PyTorch makes exact zeros of silence in every layer, and sound of the least rounding.
const WITHOUT_BIASES: &str = "
import sys, torch
state = torch.load(sys.argv[1], weights_only=True)
for name in state:
    if name.endswith('.bias'):
        state[name] = torch.zeros_like(state[name])
torch.save(state, sys.argv[2])
";

#[test]
fn a_case_that_a_last_bit_throws_over_is_told_and_hides_nothing() {
    let shared = shared_or_skip!();
    let world = World::new();
    let python = python().unwrap();
    std::fs::create_dir(world.work("checkpoint")).unwrap();
    let output = std::process::Command::new(python.join("bin/python"))
        .args(["-W", "ignore", "-c", WITHOUT_BIASES])
        .arg(shared.stage("checkpoint", "decoder.pth"))
        .arg(world.work("checkpoint/decoder.pth"))
        .status();
    assert!(output.unwrap().success());
    let references = "decoder:\n  references: {lengths: [2, 5], batches: [1, 2]}\n";
    world.write("silent.yaml", format!("name: silent\nsource: ./checkpoint\n{references}"));
    let mut build = world.command(["build", "silent.yaml", "-o", "bundle", "--cache-dir"]);
    build.arg(&shared.cache).arg("--python").arg(&python);
    let run = Run::from(build.output().unwrap()).exits(0);
    let run = run.says("PASSED: 10 of 10 references within tolerance, in tract");
    run.says("  zeros_t3: ill-conditioned: where a last bit changes, the original model's own answer");
    let bundle = world.work("bundle");
    let page = std::fs::read_to_string(bundle.join("report.html")).unwrap();
    assert_eq!(page.matches(">ILL-CONDITIONED<").count(), 1);
    assert!(page.contains("zeros_t3 is ill-conditioned"));
    crate::pages::fits(&bundle.join("report.html"));
    let verdicts = world.run(["validate", "bundle", "--json"]).exits(0).json();
    let cases = verdicts[0]["cases"].as_array().unwrap();
    let thrown: Vec<&Value> = cases.iter().filter(|case| !case["ill_conditioned"].is_null()).collect();
    assert_eq!((thrown.len(), &thrown[0]["name"]), (1, &json!("zeros_t3")));
    assert!(thrown[0]["ill_conditioned"]["max_abs_of_peak"].as_f64().unwrap() > 1.0);

    // A wrong weight fails in the other cases.
    let whole = std::fs::read(bundle.join(MODEL)).unwrap();
    spoil(&bundle.join(MODEL), "/decoder/convnext.1/dwconv/Conv_output_0/weight_2d");
    forge(&bundle, |_| {});
    world.run(["validate", "bundle"]).exits(1).says("FAILED: ").says("  b1_t2: max abs error / peak ");
    std::fs::write(bundle.join(MODEL), whole).unwrap();

    let recorded = TensorFile::read(&bundle.join(REFERENCES)).unwrap();
    let with = |edit: &dyn Fn(&mut TensorFile, &mut Vec<Value>)| -> Run {
        let mut file = recorded.clone();
        let mut cases: Vec<Value> = serde_json::from_str(&file.metadata["cases"]).unwrap();
        edit(&mut file, &mut cases);
        file.metadata.insert("cases".to_owned(), serde_json::to_string(&cases).unwrap());
        std::fs::write(bundle.join(REFERENCES), file.to_bytes().unwrap()).unwrap();
        forge(&bundle, |_| {});
        world.run(["validate", "bundle"])
    };
    with(&|_, _| {}).exits(0);
    // Wrong in that case alone, and by more than a last bit can do.
    let run = with(&|file, _| {
        let tensor = &file.tensors["zeros_t3/audio"];
        let quiet: Vec<f32> = tensor.to_f32().unwrap().iter().map(|v| v * 1e-7).collect();
        let quiet = Tensor::from_f32(tensor.shape(), &quiet);
        file.tensors.insert("zeros_t3/audio".to_owned(), quiet);
    });
    run.exits(1).says("FAILED: 10 of 10").says(", which is more than that explains");
    // A file that says so of every extreme case proves nothing of those that are out of tolerance.
    let all_thrown = |louder: f32| {
        with(&|file, cases| {
            for case in cases.iter_mut().filter(|case| case["kind"] == "extreme") {
                case["last_bit"] = json!({"max_abs_of_peak": 1.0, "snr_db": "-inf"});
                let name = format!("{}/audio", case["name"].as_str().unwrap());
                let tensor = &file.tensors[&name];
                let values: Vec<f32> = tensor.to_f32().unwrap().iter().map(|v| v * louder).collect();
                file.tensors.insert(name, Tensor::from_f32(tensor.shape(), &values));
            }
        })
    };
    all_thrown(1.01).exits(1).says("every extreme reference is ill-conditioned: nothing is proven");
    // What is within the tolerance judges, whatever is said of it.
    all_thrown(1.0).exits(0).says("PASSED: 10 of 10");
    // Without the figures, as they once were recorded, each case judges.
    let run = with(&|_, cases| {
        for case in cases {
            case.as_object_mut().unwrap().remove("last_bit").expect("every case has them");
        }
    });
    run.exits(1).says("FAILED: 10 of 11").says("  zeros_t3: max abs error / peak ");
}

#[test]
fn audio_is_written_for_speech_only_and_over_nothing() {
    let shared = shared_or_skip!();
    let world = World::new();
    copied(shared, &world);
    world
        .run(["validate", "bundle", "--audio", "audio"])
        .exits(2)
        .says("no reference of this bundle is speech")
        .hints();
    assert!(!world.work("audio").exists(), "nothing half-written");
    world.run(["validate", "bundle", "--audio", "bundle"]).exits(2).says("is there already").hints();
}

#[test]
fn audio_is_made_by_the_runtime_that_was_asked() {
    let shared = shared_or_skip!();
    let world = World::new();
    let bundle = copied(shared, &world);
    // One case passes for speech.
    let mut file = TensorFile::read(&bundle.join(REFERENCES)).unwrap();
    let mut cases: Vec<Value> = serde_json::from_str(&file.metadata["cases"]).unwrap();
    let case = cases.iter_mut().find(|case| case["name"] == "b1_t5").unwrap();
    case["kind"] = json!("spoken");
    file.metadata.insert("cases".to_owned(), serde_json::to_string(&cases).unwrap());
    std::fs::write(bundle.join(REFERENCES), file.to_bytes().unwrap()).unwrap();
    forge(&bundle, |_| {});
    for (folder, runtimes, by) in
        [("a", &[][..], "tract"), ("b", &["rten"], "rten"), ("c", &["rten", "tract"], "tract")]
    {
        let mut command = world.command(["validate", "bundle", "--audio", folder]);
        command.args(runtimes.iter().flat_map(|runtime| ["--runtime", runtime]));
        Run::from(command.output().unwrap()).exits(0);
        let files: Vec<String> = tree(&world.work(folder)).into_keys().collect();
        let wanted = [format!("b1_t5.fp32.{by}.wav"), "b1_t5.pytorch.wav".to_owned()];
        assert!(wanted.iter().all(|name| files.contains(name)), "{files:?}");
        assert_eq!(files.iter().filter(|name| name.ends_with(".wav")).count(), 2, "{files:?}");
    }
}
