//! OCI registries: a real one, and fake ones that do what real ones do at their worst.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use soprano_export::digest::Digest;

use crate::bundles::forge;
use crate::fake_registry::{Mode, Registry};
use crate::harness::{ROOT, Run, World, assert_same, copy_tree, signal, skipped, tree, until};
use crate::publish::{large, small};

/// Debian's `docker-registry`, installed or as `make test` unpacks it, or the `registry` of others.
fn program() -> Option<PathBuf> {
    let unpacked = Path::new(ROOT).join("target/docker-registry/usr/bin");
    let folders = [Path::new("/usr/bin"), Path::new("/usr/local/bin"), &unpacked];
    let names = ["docker-registry", "registry"];
    folders.iter().flat_map(|folder| names.map(|name| folder.join(name))).find(|path| path.is_file())
}

/// A real registry, ended when dropped.
pub struct Real {
    child: Child,
    pub host: String,
    store: PathBuf,
}

impl Real {
    pub fn start(world: &World) -> Option<Self> {
        let program = program()?;
        // A port that was free a moment ago; another process may have it now, and then another is tried.
        for _ in 0..5 {
            let host =
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let store = world.path("registry");
            let config = json!({
                "version": "0.1", "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": store}},
                "http": {"addr": host, "secret": "s"},
            });
            let file = world.path("registry.yml");
            std::fs::write(&file, config.to_string()).unwrap();
            let mut command = Command::new(&program);
            command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            for _ in 0..500 {
                if std::net::TcpStream::connect(&host).is_ok() {
                    return Some(Real { child, host, store });
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("{} doesn't start", program.display());
    }

    /// Bytes of finished blobs of at least a megabyte.
    fn holds(&self) -> u64 {
        let blobs = self.store.join("docker/registry/v2/blobs");
        match blobs.exists() {
            true => tree(&blobs).values().map(|b| b.len() as u64).filter(|n| *n >= 1 << 20).sum(),
            false => 0,
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `let real = real_or_skip!(world);`
macro_rules! real_or_skip {
    ($world:expr) => {
        match Real::start($world) {
            Some(real) => real,
            None => {
                let test = std::thread::current().name().unwrap_or("?").to_owned();
                return skipped(
                    &test,
                    "no docker-registry; make test unpacks it where apt-get is, or install it",
                );
            }
        }
    };
}

/// A run's largest resident set, in bytes, beside what came of it. What `wait4` tells would count this
/// process too, from before the other program was started in its copy.
fn measured(command: &mut Command) -> (u64, i32) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    loop {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        if let Some(ended) = child.try_wait().unwrap() {
            return (peak, ended.code().unwrap_or(-1));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_real_registry_takes_a_bundle_and_gives_it_back() {
    let world = World::new();
    let real = real_or_skip!(&world);
    // Longer than a part, by one and a half; and as long as one exactly.
    let bundle =
        large(&world, &[("onnx/a.onnx", 48 << 20), ("onnx/b.onnx", 32 << 20), ("onnx/none", 0)]);
    world.run(["sign", "--generate", "key", "--no-password"]).exits(0);
    world.run(["sign", "small", "--key", "key"]).exits(0);
    let place = format!("oci://{}/voices/small", real.host);
    let (peak, code) = measured(&mut world.command(["publish", "small", &place, "--key", "key.pub"]));
    assert_eq!(code, 0);
    assert!(peak > 1_000_000 && peak < 100_000_000, "publishing took {peak} bytes");
    let run = world.run(["publish", "small", &place]).exits(0).says("is there already, the same");
    let pinned = run.stdout.trim().to_owned();
    assert!(pinned.contains("@sha256:"), "{pinned}");

    let (peak, code) = measured(&mut world.command(["fetch", &place, "-o", "a", "--key", "key.pub"]));
    assert_eq!(code, 0);
    assert!(peak > 1_000_000 && peak < 100_000_000, "fetching took {peak} bytes");
    assert_same(&bundle, &world.work("a"));
    world.run(["fetch", &pinned, "-o", "b"]).exits(0);
    assert_same(&bundle, &world.work("b"));

    // A version is never overwritten; another one sends what is new alone.
    world.run(["publish", "small", &format!("{place}:v1")]).exits(0);
    std::fs::write(bundle.join("README.md"), "# another card\n").unwrap();
    forge(&bundle, |_| {});
    std::fs::remove_file(bundle.join("manifest.json.minisig")).unwrap();
    let run = world.run(["publish", "small", &format!("{place}:v1")]).exits(2).hints();
    run.says(":v1 exists already, and holds another bundle");
    let sent = world.run(["publish", "small", &place, "--version", "v2", "--json"]).exits(0).json();
    assert!(sent["sent"].as_u64().unwrap() < 10_000, "{sent}");
    assert!(sent["kept"].as_u64().unwrap() >= 80 << 20, "{sent}");
    world.run(["fetch", &place]).exits(2).says("name one of its tags: ").hints();
    world.run(["fetch", &format!("{place}:v9")]).exits(2).says("there is no such bundle").hints();
    world.run(["fetch", &format!("oci://{}/nothing", real.host)]).exits(2).hints();
    let other = format!("{place}@sha256:{}", Digest::of(b"another"));
    world.run(["fetch", &other]).exits(2).says("there is no such bundle");
    world.is_clean();
}

#[test]
fn a_killed_upload_to_a_real_registry_resumes() {
    let world = World::new();
    let real = real_or_skip!(&world);
    let names = ["a", "b", "c", "d", "e", "f"].map(|name| format!("onnx/{name}.onnx"));
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 24 << 20)).collect();
    let bundle = large(&world, &files);
    let place = format!("oci://{}/voices/small:v1", real.host);
    let mut child = world.command(["publish", "small", &place]).spawn().unwrap();
    until("two files are there", || real.holds() >= 40 << 20);
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    let sent = world.run(["publish", "small", &place, "--json"]).exits(0).json();
    assert!(sent["kept"].as_u64().unwrap() >= 40 << 20, "{sent}");
    world.run(["fetch", &place, "-o", "got"]).exits(0);
    assert_same(&bundle, &world.work("got"));
}

#[test]
fn a_real_registry_that_was_tampered_with() {
    let world = World::new();
    let real = real_or_skip!(&world);
    large(&world, &[("onnx/a.onnx", 2 << 20)]);
    let place = format!("oci://{}/voices/small:v1", real.host);
    world.run(["publish", "small", &place]).exits(0);
    let blobs = real.store.join("docker/registry/v2/blobs");
    let (name, mut bytes) = tree(&blobs).into_iter().find(|(_, bytes)| bytes.len() == 2 << 20).unwrap();
    bytes[12345] ^= 1;
    std::fs::write(blobs.join(name), bytes).unwrap();
    world.run(["fetch", &place, "-o", "got"]).exits(2).says("the digest of what came").hints();
    assert!(!world.work("got").exists());
    world.is_clean();
}

#[test]
fn two_publishers_of_one_tag_in_a_real_registry() {
    let world = World::new();
    let real = real_or_skip!(&world);
    let bundle = large(&world, &[("onnx/a.onnx", 4 << 20)]);
    let other = world.work("other");
    copy_tree(&bundle, &other);
    std::fs::write(other.join("README.md"), "# another card\n").unwrap();
    forge(&other, |_| {});
    let place = format!("oci://{}/voices/small:v1", real.host);
    let spawn = |bundle: &str| world.command(["publish", bundle, &place]).spawn().unwrap();
    let children = [spawn("small"), spawn("small"), spawn("other"), spawn("other")];
    let runs: Vec<Run> =
        children.into_iter().map(|child| Run::from(child.wait_with_output().unwrap())).collect();
    let codes: Vec<i32> = runs.iter().map(|run| run.code).collect();
    assert!(codes == [0, 0, 2, 2] || codes == [2, 2, 0, 0], "{runs:?}");
    world.run(["fetch", &place, "-o", "got"]).exits(0);
    assert_same(&world.work(if codes[0] == 0 { "small" } else { "other" }), &world.work("got"));
}

#[test]
fn registries_that_refuse_drop_or_lie() {
    let wrong = format!("sha256:{}", Digest::of(b"wrong"));
    let cases = [
        (Mode::Refuses(403), "answers 403: not [31mtoday"),
        (Mode::Refuses(401), "answers 401"),
        (Mode::Refuses(413), "answers 413"),
        (Mode::Refuses(503), "answers 503"),
        (Mode::DropsUploads(10), ": "),
        (Mode::ClaimsDigest(wrong), "the digest of what was sent is sha256:"),
        (Mode::HasOtherLengths, "the length of a blob is"),
        (Mode::Forgets, "what stands under the tag is nothing"),
        (Mode::Overtaken, "exists already, and holds another bundle"),
        (Mode::Misleads("file:///etc".into()), "the registry wants the upload at \"file:///etc\""),
        (Mode::Misleads("//elsewhere/x".into()), "the registry wants the upload at"),
        (Mode::Babbles, ": "),
    ];
    for (mode, words) in cases {
        let world = World::new();
        small(&world);
        let registry = Registry::start(mode.clone());
        if mode == Mode::HasOtherLengths {
            registry.becomes(Mode::Sound);
            world.run(["publish", "small", &registry.at("a:other")]).exits(0);
            registry.becomes(mode.clone());
        }
        let run = world.run(["publish", "small", &registry.at("a:v1")]).exits(2).hints();
        assert_eq!(run.stdout, "", "{mode:?}");
        assert!(!run.stderr.contains('\u{1b}'), "{mode:?}");
        run.says(words);
        world.is_clean();
    }
    let world = World::new();
    small(&world);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = format!("oci://{gone}/a:v1");
    world.run(["publish", "small", &place]).exits(2).says("the connection was refused").hints();
    world.run(["fetch", &place]).exits(2).says("the connection was refused").hints();
    let place = "oci://host.invalid/a:v1";
    world.run(["fetch", place]).exits(2).says("https://host.invalid/v2/a/manifests/v1").hints();
    world.is_clean();
}

#[test]
fn registries_that_give_back_something_else() {
    let wrong = format!("sha256:{}", Digest::of(b"wrong"));
    let cases = [
        (Mode::Refuses(500), "answers 500"),
        (Mode::Spoils, "the digest of what came is another"),
        (Mode::Overlong, "the digest of what came is another"),
        (Mode::ClaimsDigest(wrong), "the digest of the manifest that came is sha256:"),
        (Mode::Babbles, ": "),
    ];
    for (mode, words) in cases {
        let world = World::new();
        small(&world);
        let registry = Registry::start(Mode::Sound);
        world.run(["publish", "small", &registry.at("a:v1")]).exits(0);
        registry.becomes(mode.clone());
        let run = world.run(["fetch", &registry.at("a:v1"), "-o", "got"]).exits(2).hints();
        assert_eq!(run.stdout, "", "{mode:?}");
        run.says(words);
        assert!(!world.work("got").exists(), "{mode:?}");
    }
}

/// Changes what stands under a tag.
fn tamper(registry: &Registry, tag: &str, change: impl FnOnce(&mut Value)) {
    let mut state = registry.state.lock().unwrap();
    let mut manifest: Value = serde_json::from_slice(&state.manifests[tag]).unwrap();
    change(&mut manifest);
    state.manifests.insert(tag.to_owned(), manifest.to_string().into_bytes());
}

#[test]
fn artifacts_that_are_no_bundle() {
    type Harm = fn(&mut Value);
    let cases: [(&str, Harm, i32, &str); 7] = [
        ("no layers", |m| m["layers"] = json!([]), 2, "it has no manifest.json"),
        ("another type", |m| m["mediaType"] = json!("application/x"), 2, "it is of the type"),
        ("not an artifact", |m| *m = json!([1, 2]), 2, "no OCI manifest"),
        (
            "a layer that leads out",
            |m| {
                let layer = m["layers"].as_array_mut().unwrap().last_mut().unwrap();
                layer["annotations"]["org.opencontainers.image.title"] = json!("../../secret");
            },
            1,
            "missing",
        ),
        (
            "a gap",
            |m| {
                let layer = m["layers"].as_array_mut().unwrap().last_mut().unwrap();
                layer["annotations"]["soprano-export.part-of"] = json!("reference/decoder.safetensors");
                layer["annotations"]["soprano-export.part-at"] = json!("7");
            },
            2,
            "leave a gap",
        ),
        (
            "no digest",
            |m| m["layers"][3]["digest"] = json!("md5:12"),
            2,
            "leave a gap, overlap, or have no digest",
        ),
        (
            "a huge paper",
            |m| m["layers"][0]["size"] = json!(1u64 << 40),
            2,
            "is not a paper of a bundle",
        ),
    ];
    for (what, harm, code, words) in cases {
        let world = World::new();
        small(&world);
        let registry = Registry::start(Mode::Sound);
        world.run(["publish", "small", &registry.at("a:v1")]).exits(0);
        tamper(&registry, "v1", harm);
        let run = world.run(["fetch", &registry.at("a:v1"), "-o", "got/it"]).exits(code).hints();
        assert!(run.stderr.contains(words), "{what}: {}", run.show());
        assert!(!world.work("got/it").exists() && !world.work("secret").exists(), "{what}");
        world.is_clean();
    }
}

#[test]
fn a_killed_upload_sends_only_the_rest() {
    let world = World::new();
    large(&world, &[("onnx/a.onnx", 1000), ("onnx/b.onnx", 2000), ("onnx/c.onnx", 3000)]);
    let registry = Registry::start(Mode::SlowUploads(Duration::from_millis(150)));
    let mut child = world.command(["publish", "small", &registry.at("a:v1")]).spawn().unwrap();
    until("some blobs are there", || registry.state.lock().unwrap().blobs.len() >= 5);
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    // What was on its way may arrive yet.
    std::thread::sleep(Duration::from_millis(400));
    registry.becomes(Mode::Sound);
    let there = registry.state.lock().unwrap().blobs.len();
    registry.forget_requests();
    world.run(["publish", "small", &registry.at("a:v1")]).exits(0);
    let all = registry.state.lock().unwrap().blobs.len();
    assert_eq!(registry.asked("PUT /v2/x/blobs/uploads/"), all - there);
    assert!(there < all);
    world.run(["fetch", &registry.at("a:v1"), "-o", "got"]).exits(0);
    assert_same(&world.work("small"), &world.work("got"));
    world.is_clean();
}

#[test]
fn a_killed_download_asks_only_for_the_rest() {
    let world = World::new();
    large(&world, &[("onnx/a.onnx", 400_000)]);
    let registry = Registry::start(Mode::Sound);
    world.run(["publish", "small", &registry.at("a:v1")]).exits(0);
    registry.becomes(Mode::Slow(20_000, Duration::from_millis(50)));
    let fetch = ["fetch", &registry.at("a:v1"), "-o", "got"];
    let mut child = world.command(fetch).spawn().unwrap();
    let come = || {
        let files = tree(&world.path("work"));
        files.iter().any(|(name, b)| name.starts_with(".soprano") && b.len() >= 100_000)
    };
    until("a part of the file is there", come);
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    assert!(!world.work("got").exists());
    registry.becomes(Mode::Sound);
    registry.forget_requests();
    world.run(fetch).exits(0);
    assert_eq!(registry.asked("bytes="), 1, "{:?}", registry.state.lock().unwrap().asked);
    assert_eq!(registry.asked("bytes=0-"), 0);
    assert_same(&world.work("small"), &world.work("got"));
    world.is_clean();
}

#[test]
fn a_connection_that_breaks_off_is_taken_up_again() {
    let modes = [Mode::BreaksOff(30_000), Mode::WrongRange(30_000), Mode::NoRanges(30_000)];
    for mode in modes {
        let world = World::new();
        large(&world, &[("onnx/a.onnx", 100_000)]);
        let registry = Registry::start(Mode::Sound);
        world.run(["publish", "small", &registry.at("a:v1")]).exits(0);
        registry.becomes(mode.clone());
        world.run(["fetch", &registry.at("a:v1"), "-o", "got"]).exits(0);
        assert!(registry.asked("bytes=") >= 1, "{mode:?}");
        assert_same(&world.work("small"), &world.work("got"));
        world.is_clean();
    }
    // Without a byte it comes to an end, and says so; what has come is kept for the next attempt.
    let world = World::new();
    small(&world);
    let registry = Registry::start(Mode::Sound);
    world.run(["publish", "small", &registry.at("a:v1")]).exits(0);
    registry.becomes(Mode::BreaksOff(0));
    world.run(["fetch", &registry.at("a:v1"), "-o", "got"]).exits(2).says("goes on from here");
    assert!(!world.work("got").exists());
    registry.becomes(Mode::Sound);
    world.run(["fetch", &registry.at("a:v1"), "-o", "got"]).exits(0);
    world.is_clean();
}

#[test]
fn registries_that_ask_who_we_are() {
    // user:pass
    let right = "Basic dXNlcjpwYXNz";
    for mode in [Mode::Basic(right), Mode::Token(right)] {
        let world = World::new();
        small(&world);
        let registry = Registry::start(mode.clone());
        let place = registry.at("a:v1");
        let run = world.run(["publish", "small", &place]).exits(2).hints();
        run.says("answers 401").says("docker login");
        let mut command = world.command(["publish", "small", &place]);
        command.env("SOPRANO_EXPORT_REGISTRY_USER", "user");
        command.env("SOPRANO_EXPORT_REGISTRY_PASSWORD", "wrong");
        let run = Run::from(command.output().unwrap()).exits(2).hints();
        assert!(!run.stderr.contains("wrong"), "{}", run.show());
        command.env("SOPRANO_EXPORT_REGISTRY_PASSWORD", "pass");
        Run::from(command.output().unwrap()).exits(0);
        // As docker login leaves it.
        let config = json!({"auths": {&registry.host: {"auth": "dXNlcjpwYXNz"}}}).to_string();
        std::fs::create_dir_all(world.path("home/.docker")).unwrap();
        std::fs::write(world.path("home/.docker/config.json"), config).unwrap();
        world.run(["fetch", &place, "-o", "got"]).exits(0);
        assert_same(&world.work("small"), &world.work("got"));
    }
}
