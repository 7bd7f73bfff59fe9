//! Publishing to a folder, and what holds for every place.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use soprano_export::digest::Digest;

use crate::bundles::{forge, small_bundle};
use crate::harness::{
    Run, World, assert_same, copy_tree, fake_environment, replay, signal, skipped, tree, until,
};
use crate::output::Disk;
use crate::{shared_or_skip, snapshot};

pub fn small(world: &World) -> PathBuf {
    let folder = world.work("small");
    small_bundle(&folder);
    folder
}

/// A bundle with these files beside its own, of bytes that can't be guessed from their names.
pub fn large(world: &World, files: &[(&str, usize)]) -> PathBuf {
    let folder = small(world);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for (name, length) in files {
        let mut bytes = vec![0; *length];
        for chunk in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    // Twice: the list of files is edited after the digests are taken.
    let add = |manifest: &mut Value| {
        for (name, _) in files {
            manifest["files"][name] = json!({"sha256": Digest::of(b""), "bytes": 0});
        }
    };
    forge(&folder, add);
    forge(&folder, |_| {});
    folder
}

fn index(world: &World, place: &str) -> Value {
    let text = std::fs::read(world.work(place).join("index.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn a_folder_of_bundles() {
    let world = World::new();
    let bundle = small(&world);
    let run = world.run(["publish", "small", "shelf"]).exits(0);
    let place = run.stdout.trim().to_owned();
    let version = place.rsplit('/').next().unwrap().to_owned();
    assert_eq!(place, format!("shelf/small/{version}"));
    let digest = Digest::of(&std::fs::read(bundle.join("manifest.json")).unwrap());
    assert_eq!(version, digest.short());
    assert_same(&bundle, &world.work(&place));
    world.run(["verify", &place]).exits(0);

    // The same once more changes nothing.
    let before = tree(&world.work("shelf"));
    world.run(["publish", "small", "shelf"]).exits(0).says("is there already, the same");
    assert_eq!(before, tree(&world.work("shelf")));

    // Another bundle needs another version.
    world.run(["publish", "small", "shelf", "--version", "v1"]).exits(0);
    std::fs::write(bundle.join("README.md"), "# another card\n").unwrap();
    forge(&bundle, |_| {});
    let run = world.run(["publish", "small", "shelf", "--version", "v1"]).exits(2).hints();
    run.says("shelf/small/v1 exists already, and holds another bundle");
    world.run(["publish", "small", "shelf", "--version", "v2"]).exits(0);
    let index = index(&world, "shelf");
    let versions: Vec<&str> =
        index["versions"].as_array().unwrap().iter().map(|e| e["version"].as_str().unwrap()).collect();
    assert_eq!(versions, [&version, "v1", "v2"]);

    world.run(["fetch", "shelf", "-o", "last"]).exits(0);
    assert_same(&bundle, &world.work("last"));
    world.run(["fetch", "shelf", "--version", "v1", "-o", "first"]).exits(0);
    assert_same(&world.work(&place), &world.work("first"));
    world.run(["fetch", &place, "-o", "exact"]).exits(0);
    world.run(["fetch", "shelf", "--version", "v9"]).exits(2).says("it holds: shelf/small/").hints();
    world.run(["fetch", "shelf", "-o", "last"]).exits(2).says("last exists already").hints();
    world.run(["fetch", "shelf", "--version", "v1", "-o", "last", "--overwrite"]).exits(0);
    assert_same(&world.work("first"), &world.work("last"));
    small_bundle(&world.work("other"));
    forge(&world.work("other"), |manifest| manifest["name"] = json!("other"));
    world.run(["publish", "other", "shelf", "--version", "v1"]).exits(0);
    let run = world.run(["fetch", "shelf"]).exits(2).says("shelf holds several bundles: shelf/small/");
    run.says("shelf/other/v1\nhint: name one: soprano-export fetch shelf/NAME/VERSION");
    world.is_clean();
}

#[test]
fn a_version_differs_by_more_than_its_case() {
    let world = World::new();
    let bundle = small(&world);
    world.run(["publish", "small", "shelf", "--version", "v1-rc"]).exits(0);
    let before = tree(&world.work("shelf"));
    let run = world.run(["publish", "small", "shelf", "--version", "V1-RC"]).exits(2).hints();
    run.says("shelf/small/V1-RC differs from shelf/small/v1-rc, which is there");
    for (name, other) in [("Small", "shelf/small"), ("INDEX.json", "shelf/index.json")] {
        forge(&bundle, |manifest| manifest["name"] = json!(name));
        let run = world.run(["publish", "small", "shelf", "--version", "v1-rc"]).exits(2).hints();
        run.says(&format!("shelf/{name}/v1-rc differs from {other}, which is there"));
    }
    assert_eq!(tree(&world.work("shelf")), before, "nothing of them is left");
    forge(&bundle, |manifest| manifest["name"] = json!("small"));
    world.run(["publish", "small", "shelf", "--version", "v1-rc"]).exits(0).says("the same");
    world.run(["publish", "small", "shelf", "--version", "v1-rc2"]).exits(0);
    world.is_clean();
}

#[test]
fn a_dry_run_lists_and_sends_nothing() {
    let world = World::new();
    small(&world);
    // Nobody listens there, and there is no Python.
    for place in ["shelf", "oci://127.0.0.1:9/a/b:v1", "hf://owner/name@v1"] {
        let run = world.run(["publish", "small", place, "--dry-run"]).exits(0);
        if place == "shelf" {
            snapshot!("publish-dry-run", world, run.show());
        }
        let listed = world.run(["publish", "small", place, "--dry-run", "--json"]).exits(0).json();
        let files = listed["files"].as_array().unwrap();
        let sum: u64 = files.iter().map(|file| file["bytes"].as_u64().unwrap()).sum();
        assert_eq!((files.len(), json!(sum)), (5, listed["bytes"].clone()));
        assert!(listed["place"].as_str().unwrap().starts_with(place));
    }
    assert!(!world.work("shelf").exists());
    world.is_clean();
}

#[test]
fn places_that_are_none() {
    let world = World::new();
    small(&world);
    let places = [
        "s3://bucket/x",
        "oci://host",
        "oci://host/UPPER",
        "oci://host/a:b c",
        "oci://host/a@sha256:12",
        "oci://",
        "hf://name",
        "hf://a/b/c",
        "hf://a/b@",
        "hf://a/..",
        "",
    ];
    let shown: String = places
        .iter()
        .map(|place| {
            let run = world.run(["publish", "small", place]).exits(2);
            format!("$ publish small {place:?}\n{}\n", run.show())
        })
        .collect();
    snapshot!("publish-places", world, shown);
    for version in ["..", "a/b", "", ".x", "v 1"] {
        for verb in [&["publish", "small", "shelf"][..], &["fetch", "shelf"]] {
            let run = world.run([verb, &["--version", version]].concat()).exits(2);
            run.says("can't be a version\nhint: 1 to 128 letters");
        }
    }
    for place in ["oci://host/a:v1", "hf://a/b@v1"] {
        let run = world.run(["publish", "small", place, "--version", "v2"]).exits(2);
        run.says("names \"v1\", and --version \"v2\"\nhint: name the version once");
    }
    for place in ["small", "small/shelf", "small/a/b"] {
        world.run(["publish", "small", place]).exits(2).says("is, or lies in, a bundle").hints();
    }
    world.run(["verify", "small"]).exits(0);
    world.write("file", "");
    world.run(["publish", "small", "file"]).exits(2).hints();
    world.run(["fetch", "nowhere"]).exits(2).says("nowhere: there is no such bundle").hints();
    world.run(["fetch", "file"]).exits(2).hints();
    world.is_clean();
}

#[test]
fn only_what_verifies_is_published() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm, i32, &str); 6] = [
        (
            "a changed file",
            |b| std::fs::write(b.join("README.md"), "# a curd\n").unwrap(),
            1,
            "README.md: changed",
        ),
        ("an added file", |b| std::fs::write(b.join("more"), "").unwrap(), 1, "more: added"),
        (
            "a later schema",
            |b| {
                forge(b, |m| {
                    m["format"] = json!(3);
                    m["shards"] = json!([]);
                });
            },
            2,
            "format 3; this version reads formats 1 and 2",
        ),
        (
            "a path outside",
            |b| forge(b, |m| m["files"]["../secret"] = json!({"sha256": Digest::of(b""), "bytes": 0})),
            1,
            "../secret: ",
        ),
        (
            "a name that leads elsewhere",
            |b| forge(b, |m| m["name"] = json!("../../etc")),
            2,
            "\"../../etc\" is not a name of a bundle",
        ),
        ("no manifest", |b| std::fs::remove_file(b.join("manifest.json")).unwrap(), 1, "missing"),
    ];
    for (what, harm, code, words) in cases {
        let world = World::new();
        harm(&small(&world));
        let run = world.run(["publish", "small", "shelf"]).exits(code).hints();
        assert_eq!(run.stdout, "", "{what}");
        run.says(words);
        assert!(!world.work("shelf").exists(), "{what}");
    }
    let world = World::new();
    small(&world);
    world.run(["sign", "--generate", "key", "--no-password"]).exits(0);
    let run = world.run(["publish", "small", "shelf", "--key", "key.pub"]).exits(1).hints();
    run.says("it is not signed");
    world.run(["sign", "small", "--key", "key"]).exits(0);
    world.run(["publish", "small", "shelf", "--key", "key.pub"]).exits(0);
    world.run(["fetch", "shelf", "-o", "a", "--key", "key.pub"]).exits(0).says("signed by");
    world.run(["sign", "--generate", "other", "--no-password"]).exits(0);
    world.run(["fetch", "shelf", "-o", "b", "--key", "other.pub"]).exits(1).says("not by");
    assert!(!world.work("b").exists());
    world.is_clean();
}

#[test]
fn only_what_verifies_is_kept() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm, i32, &str); 5] = [
        (
            "a changed file",
            |b| std::fs::write(b.join("README.md"), "# a curd\n").unwrap(),
            1,
            "README.md: changed",
        ),
        (
            "a missing file",
            |b| std::fs::remove_file(b.join("README.md")).unwrap(),
            1,
            "README.md: missing",
        ),
        (
            "a path outside, with every digest in order",
            |b| {
                std::fs::write(b.parent().unwrap().join("secret"), "").unwrap();
                forge(b, |m| m["files"]["../secret"] = json!({"sha256": Digest::of(b""), "bytes": 0}));
            },
            2,
            "the manifest names \"../secret\", which leads out of the bundle",
        ),
        (
            "an absolute path",
            |b| {
                forge(b, |m| m["files"]["/etc/passwd"] = json!({"sha256": Digest::of(b""), "bytes": 0}))
            },
            2,
            "which leads out of the bundle",
        ),
        ("a later schema", |b| forge(b, |m| m["format"] = json!(3)), 2, "format 3; this version reads"),
    ];
    for (what, harm, code, words) in cases {
        let world = World::new();
        let bundle = small(&world);
        harm(&bundle);
        let run = world.run(["fetch", "small", "-o", "got/it"]).exits(code).hints();
        assert_eq!(run.stdout, "", "{what}");
        run.says(words);
        assert!(!world.work("got/it").exists(), "{what}");
        world.is_clean();
    }
}

#[test]
fn two_publishers_at_once() {
    let world = World::new();
    let bundle = large(&world, &[("onnx/big.onnx", 3 << 20)]);
    let other = world.work("other");
    copy_tree(&bundle, &other);
    std::fs::write(other.join("README.md"), "# another card\n").unwrap();
    forge(&other, |_| {});
    // The same bundle four times under its own version, and two bundles for one version.
    let spawn = |bundle: &str, version: Option<&str>| {
        let mut command = world.command(["publish", bundle, "shelf"]);
        command.args(version.map(|version| format!("--version={version}")));
        command.spawn().unwrap()
    };
    let same: Vec<_> = (0..4).map(|_| spawn("small", None)).collect();
    let rivals = [spawn("small", Some("v1")), spawn("other", Some("v1"))];
    for child in same {
        Run::from(child.wait_with_output().unwrap()).exits(0);
    }
    let mut codes: Vec<i32> = rivals
        .into_iter()
        .map(|child| {
            let run = Run::from(child.wait_with_output().unwrap());
            if run.code != 0 {
                assert!(run.stderr.contains("exists already, and holds another"), "{}", run.show());
            }
            run.code
        })
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 2]);
    assert_eq!(index(&world, "shelf")["versions"].as_array().unwrap().len(), 2);
    for version in std::fs::read_dir(world.work("shelf/small")).unwrap() {
        let path = version.unwrap().path();
        world.run(["verify", path.to_str().unwrap()]).exits(0);
    }
    world.is_clean();
}

#[test]
fn an_index_that_is_none_is_not_overwritten() {
    let world = World::new();
    small(&world);
    let later = r#"{"format": 2, "versions": []}"#;
    for text in ["{", "[]", later] {
        world.write("shelf/index.json", text);
        let run = world.run(["publish", "small", "shelf"]).exits(2).hints();
        run.says("shelf/index.json: ");
        assert_eq!(std::fs::read_to_string(world.work("shelf/index.json")).unwrap(), text);
        assert!(!world.work("shelf/small").exists());
    }
    // A forged index leads nowhere.
    let entry = json!({
        "name": "..", "version": "small", "manifest": Digest::of(b""), "files": 1, "bytes": 1,
        "signed": false,
    });
    world.write("shelf/index.json", json!({"format": 1, "versions": [entry]}).to_string());
    world.run(["fetch", "shelf", "-o", "got"]).exits(2).hints();
    world.is_clean();
}

#[test]
fn a_killed_publisher_leaves_a_whole_version_or_none() {
    let world = World::new();
    let bundle = large(&world, &[("onnx/a.onnx", 24 << 20), ("onnx/b.onnx", 24 << 20)]);
    let mut child = world.command(["publish", "small", "shelf", "--version", "v1"]).spawn().unwrap();
    let begun =
        || tree(&world.work("shelf")).iter().any(|(name, b)| name.ends_with("a.onnx") && !b.is_empty());
    until("a file is being copied", || world.work("shelf").exists() && begun());
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    let there = world.work("shelf/small/v1");
    assert!(!there.exists() || world.run(["verify", "shelf/small/v1"]).code == 0);
    world.run(["publish", "small", "shelf", "--version", "v1"]).exits(0);
    assert_same(&bundle, &there);
    assert_eq!(index(&world, "shelf")["versions"].as_array().unwrap().len(), 1);
    world.is_clean();
}

#[test]
fn a_full_disk_leaves_nothing_published_and_nothing_fetched() {
    let world = World::new();
    large(&world, &[("onnx/big.onnx", 2 << 20)]);
    let test = "a_full_disk_leaves_nothing_published_and_nothing_fetched";
    let Some(disk) = Disk::mount(&world.work("full"), "1m") else {
        return skipped(test, "no tmpfs can be mounted");
    };
    let run = world.run(["publish", "small", "full/shelf"]).exits(2);
    run.says("No space left on device").says("hint: make room on this disk");
    let run = world.run(["fetch", "small", "-o", "full/got"]).exits(2);
    run.says("No space left on device").says("hint: make room on this disk");
    let left = tree(&world.work("full"));
    assert_eq!(left.keys().collect::<Vec<_>>(), ["shelf/"]);
    drop(disk);
}

/// The hub's own client is looked at in the Python tests; here is what lies on this side of it.
#[test]
fn the_hub_through_its_client() {
    let world = World::new();
    let bundle = small(&world);
    let run = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.arg("--python").arg(fake_environment(&world)).env("FAKE", "hub");
        Run::from(command.env("FAKE_HUB", world.path("hub")).output().unwrap())
    };
    let place = run(&["publish", "small", "hf://someone/voice"]).exits(0).stdout;
    let place = place.trim();
    assert!(place.starts_with("hf://someone/voice@"), "{place}");
    run(&["publish", "small", "hf://someone/voice"]).exits(0).says("is there already, the same");
    run(&["fetch", place, "-o", "got"]).exits(0);
    assert_same(&bundle, &world.work("got"));
    let run_v1 = run(&["publish", "small", "hf://someone/voice@v1"]).exits(0);
    assert_eq!(run_v1.stdout, "hf://someone/voice@v1\n");
    std::fs::write(bundle.join("README.md"), "# another card\n").unwrap();
    forge(&bundle, |_| {});
    let refused = run(&["publish", "small", "hf://someone/voice", "--version", "v1"]).exits(2).hints();
    refused.says("hub-version-exists");
    run(&["fetch", "hf://someone/voice@v9", "-o", "b"]).exits(2).says("hub-file-not-found").hints();
    // What comes from there is verified like everything else.
    std::fs::write(world.path("hub/v1/README.md"), "# a curd\n").unwrap();
    run(&["fetch", "hf://someone/voice@v1", "-o", "c"]).exits(1).says("README.md: changed");
    assert!(!world.work("b").exists() && !world.work("c").exists());
    let mut without = world.command(["publish", "small", "hf://someone/voice"]);
    Run::from(without.output().unwrap()).exits(2).says("no Python environment").hints();
}

#[test]
fn provenance_and_bill_of_materials() {
    let shared = shared_or_skip!();
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(shared.bundle.join(name)).unwrap()).unwrap()
    };
    let has = |value: &Value, fields: &[&str]| {
        for field in fields {
            assert!(!value.pointer(field).unwrap_or(&Value::Null).is_null(), "{field} of {value:#}");
        }
    };
    let manifest = read("manifest.json");
    let digest = |file: &str| manifest["files"][file]["sha256"].clone();
    let statement = read("provenance.intoto.json");
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    has(
        &statement["predicate"],
        &[
            "/buildDefinition/buildType",
            "/buildDefinition/externalParameters/source",
            "/buildDefinition/resolvedDependencies/0/digest/sha256",
            "/runDetails/builder/id",
            "/runDetails/builder/version/soprano-export",
            "/runDetails/builder/version/torch",
        ],
    );
    let subjects = statement["subject"].as_array().unwrap();
    assert_eq!(subjects.len(), 2);
    for subject in subjects {
        assert_eq!(subject["digest"]["sha256"], digest(subject["name"].as_str().unwrap()));
    }
    let materials =
        statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let material = |name: &str| materials.iter().find(|m| m["name"] == name).unwrap();
    assert_eq!(material("recipe.lock.yaml")["digest"]["sha256"], digest("recipe.lock.yaml"));
    let weights = &manifest["checkpoint"]["files"][0];
    assert_eq!(material("decoder.pth")["digest"]["sha256"], weights["sha256"]);
    assert!(material("torch")["uri"].as_str().unwrap().starts_with("pkg:pypi/torch@"));
    has(material("soprano_export"), &["/digest/sha256"]);

    let bill = read("bom.cdx.json");
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&json!("CycloneDX"), &json!("1.6")));
    assert!(bill["serialNumber"].as_str().unwrap().starts_with("urn:uuid:"));
    assert_eq!(bill["metadata"]["timestamp"], Value::Null);
    has(&bill, &["/version", "/metadata/component/name", "/metadata/tools/components/0/version"]);
    let components = bill["components"].as_array().unwrap();
    let kinds = ["machine-learning-model", "data", "library", "platform"];
    let mut references = std::collections::BTreeSet::new();
    for component in components {
        has(component, &["/type", "/name", "/bom-ref"]);
        assert!(kinds.contains(&component["type"].as_str().unwrap()));
        assert!(references.insert(component["bom-ref"].to_string()), "bom-refs are unique");
    }
    for kind in kinds {
        assert!(components.iter().any(|component| component["type"] == kind), "{kind}");
    }
    // A time is written where somebody sets one, and nowhere else.
    let world = World::new();
    let dated = replay(&world, shared).env("SOURCE_DATE_EPOCH", "86400").output().unwrap();
    Run::from(dated).exits(0);
    let dated = std::fs::read(world.work("out/bundle/bom.cdx.json")).unwrap();
    let dated: Value = serde_json::from_slice(&dated).unwrap();
    assert_eq!(dated["metadata"]["timestamp"], "1970-01-02T00:00:00Z");
    assert_eq!(dated["serialNumber"], bill["serialNumber"]);
    let statement = "provenance.intoto.json";
    let replayed = std::fs::read(world.work("out/bundle").join(statement)).unwrap();
    assert_eq!(replayed, std::fs::read(shared.bundle.join(statement)).unwrap());

    let text = std::fs::read_to_string(shared.bundle.join("provenance.intoto.json")).unwrap();
    for word in [crate::harness::ROOT, "/tmp", "timestamp"] {
        assert!(!text.contains(word), "{word}");
    }
}
