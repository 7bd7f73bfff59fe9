//! Runs the program in a world of its own, and shows what came of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A home, a cache and a current folder that no other test knows.
pub struct World {
    pub root: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// The exit code, or the negated signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let status = output.status;
        Run {
            code: status.code().unwrap_or_else(|| -status.signal().expect("ended")),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Run {
    /// Exit code and both streams, for a snapshot.
    pub fn show(&self) -> String {
        let Run { code, stdout, stderr } = self;
        format!("exit {code}\n--- stdout\n{stdout}--- stderr\n{stderr}")
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.show());
        assert!(!self.stderr.contains("panicked"), "{}", self.show());
        self
    }

    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "stderr lacks {words:?}\n{}", self.show());
        self
    }

    #[track_caller]
    pub fn hints(self) -> Self {
        self.says("\nhint: ")
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\n{}", self.show()))
    }
}

impl World {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("world-").tempdir().unwrap();
        for folder in ["home", "cache", "work", "tmp"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        World { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The current folder of every run.
    pub fn work(&self, name: &str) -> PathBuf {
        self.root.path().join("work").join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_soprano-export"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("SOPRANO_EXPORT_CACHE", self.path("cache"))
            .env("NO_COLOR", "1")
            .env("COLUMNS", "100")
            .current_dir(self.path("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // The same runtimes everywhere, whatever a test's own environment holds: they are part of a stage's key.
        if let Some(library) = onnxruntime() {
            command.env("SOPRANO_EXPORT_ONNXRUNTIME", library);
        }
        if let Some(library) = openvino() {
            command.env("SOPRANO_EXPORT_OPENVINO", library);
        }
        command
    }

    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        self.command(arguments).output().unwrap().into()
    }

    /// Asserts that nothing half-written lies anywhere, whatever has happened.
    #[track_caller]
    pub fn is_clean(&self) {
        let half = |name: &str| {
            name.starts_with(".soprano-export-")
                || name.starts_with(".partial-")
                || name.starts_with(".unpack-")
        };
        let left: Vec<_> = tree(self.root.path())
            .into_keys()
            .filter(|path| path.split('/').any(half) || (path.starts_with("tmp/") && path != "tmp/"))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Every file below a folder, by its relative path; links are not followed.
pub fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                into.insert(format!("{name}/"), Vec::new());
                walk(&entry.path(), &format!("{name}/"), into);
            } else if kind.is_file() {
                into.insert(name, std::fs::read(entry.path()).unwrap());
            } else {
                into.insert(name, b"special".to_vec());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(folder, "", &mut files);
    files
}

#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (tree(a), tree(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{name} differs");
    }
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (name, bytes) in tree(from) {
        match name.strip_suffix('/') {
            Some(folder) => std::fs::create_dir_all(to.join(folder)).unwrap(),
            None => {
                let path = to.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// Says on the real stderr, which libtest doesn't capture, that a test proved nothing.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// The interpreter with the exporters' packages, where `make setup` has run.
pub fn python() -> Option<PathBuf> {
    let link = Path::new(ROOT).join(".venv");
    link.join("bin/python").is_file().then_some(link)
}

/// ONNX Runtime's library in that environment.
pub fn onnxruntime() -> Option<PathBuf> {
    library("onnxruntime/capi", "libonnxruntime.so")
}

/// OpenVINO's library in that environment.
pub fn openvino() -> Option<PathBuf> {
    library("openvino/libs", "libopenvino_c.so")
}

/// A library of that environment, by a package's folder and the start of its name.
fn library(folder: &str, name: &str) -> Option<PathBuf> {
    let lib = std::fs::read_dir(python()?.join("lib")).ok()?.flatten();
    let folders = lib.map(|entry| entry.path().join("site-packages").join(folder));
    let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(name));
    files.map(|entry| entry.path()).find(named)
}

/// What one real export of the tiny checkpoint left.
pub struct Shared {
    pub cache: PathBuf,
    pub bundle: PathBuf,
    /// The folders of its stages.
    pub stages: BTreeMap<String, PathBuf>,
}

impl Shared {
    pub fn stage(&self, stage: &str, file: &str) -> PathBuf {
        self.stages[stage].join(file)
    }

    pub fn model(&self) -> PathBuf {
        self.bundle.join("onnx/soprano_decoder_fp32.onnx")
    }
}

/// The real thing, made once; what changed is made anew by the stages' own keys. Its cache stays from
/// one test run to the next.
pub fn shared() -> Option<&'static Shared> {
    static SHARED: OnceLock<Option<Shared>> = OnceLock::new();
    let make = || {
        let python = python()?;
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
        std::fs::create_dir_all(&home).unwrap();
        // Other processes of the same run wait here, where each test is a process of its own.
        let lock = std::fs::File::create(home.join("lock")).unwrap();
        lock.lock().unwrap();
        let (cache, bundle) = (home.join("cache"), home.join("soprano-tiny"));
        let world = World::new();
        let place =
            [OsStr::new("--cache-dir"), cache.as_ref(), OsStr::new("--python"), python.as_ref()];
        let run = world
            .command(["decoder", "--model", "synthetic:tiny", "--overwrite", "-o"])
            .arg(&bundle)
            .args(place)
            .output()
            .unwrap();
        Run::from(run).exits(0);
        let plan = world.command(["plan", "--model", "synthetic:tiny", "--json"]).args(place).output();
        let plan = Run::from(plan.unwrap()).exits(0).json();
        let folder = |stage: &serde_json::Value| {
            let (name, key) = (stage["stage"].as_str()?, stage["key"].as_str()?);
            assert_eq!(stage["state"], "hit", "{name}");
            Some((name.to_owned(), cache.join(format!("stages/{name}-{}", &key[..16]))))
        };
        let stages = plan["stages"].as_array().unwrap().iter().map(|s| folder(s).unwrap()).collect();
        Some(Shared { stages, cache, bundle })
    };
    SHARED.get_or_init(make).as_ref()
}

/// `let shared = shared_or_skip!();`
#[macro_export]
macro_rules! shared_or_skip {
    () => {
        match $crate::harness::shared() {
            Some(shared) => shared,
            None => {
                let test = std::thread::current().name().unwrap_or("?").to_owned();
                return $crate::harness::skipped(&test, "no .venv; run make setup");
            }
        }
    };
}

/// An environment whose interpreter is `fake_python.py`, which behaves as `FAKE` says.
pub fn fake_environment(world: &World) -> PathBuf {
    let home = world.path("venv");
    if !home.exists() {
        std::fs::create_dir_all(home.join("bin")).unwrap();
        std::fs::create_dir_all(home.join("lib/python3.11/site-packages/x-1.dist-info")).unwrap();
        std::fs::write(home.join("pyvenv.cfg"), "version = 3.11.0\n").unwrap();
        // A link: starting a script that another thread's child may still hold open for writing fails.
        let script = Path::new(ROOT).join("tests/cli/fake_python.py");
        std::os::unix::fs::symlink(script, home.join("bin/python")).unwrap();
    }
    home
}

/// A build that starts the fake interpreter, from a folder with arbitrary bytes as its checkpoint.
pub fn fake_build(world: &World, mode: &str) -> Command {
    world.write("checkpoint/decoder.pth", "weights");
    let mut command = world.command(["decoder", "--model", "./checkpoint", "-o", "out/bundle"]);
    command.arg("--python").arg(fake_environment(world)).env("FAKE", mode);
    command
}

/// A build of the tiny recipe whose fake interpreter replays the real export.
pub fn replay(world: &World, shared: &Shared) -> Command {
    let mut command = world.command(["build", "soprano-tiny", "-o", "out/bundle"]);
    command
        .arg("--python")
        .arg(fake_environment(world))
        .env("FAKE", "replay")
        .env("FAKE_CHECKPOINT", &shared.stages["checkpoint"])
        .env("FAKE_EXPORT", &shared.stages["export-decoder"])
        .env("FAKE_RECORD", &shared.stages["record-decoder"]);
    command
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn signal(child: &Child, signal: i32) {
    // SAFETY: a signal to a child that has not been waited for; no pointers.
    unsafe {
        libc::kill(child.id() as i32, signal);
    }
}

/// Whether a process is there and not a zombie that its new parent has yet to reap.
pub fn lives(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'),
        // SAFETY: signal 0 only asks; where there is no /proc, this is all that can be known.
        Err(_) => !Path::new("/proc/self").exists() && unsafe { libc::kill(pid, 0) } == 0,
    }
}

/// Compares a run with its snapshot, without what differs from machine to machine.
#[macro_export]
macro_rules! snapshot {
    ($name:expr, $world:expr, $text:expr) => {{
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let root = $world.root.path().to_str().unwrap().replace('.', r"\.");
        settings.add_filter(&root, "[world]");
        settings.add_filter(r"\[world\]/work", "[here]");
        settings.add_filter(&$crate::harness::ROOT.replace('.', r"\."), "[repository]");
        settings.add_filter(r"done in \d+\.\d s", "done in [time]");
        settings.add_filter(r"\b[0-9a-f]{64}\b", "[digest]");
        settings.add_filter(r"(\b|_)[0-9a-f]{16}\b", "${1}[digest]");
        settings.add_filter(r"tract \d+\.\d+\.\d+", "tract [version]");
        settings.add_filter(r"pytorch \d+\.\d+\.\d+", "pytorch [version]");
        // Figures that a faster machine, another pass or another report may change.
        settings.add_filter(
            r"(?m)^(max abs error / peak|signal to noise|log-spectral distance) .*$",
            "$1 [measured]",
        );
        settings.add_filter(r"agree to \d+\.\d dB", "agree to [measured]");
        settings.add_filter(r"\d+ -> \d+", "[n] -> [n]");
        settings.add_filter(r"\d+(\.\d+)? [kM]?B\b", "[size]");
        settings.add_filter(r"  +", "  ");
        settings.bind(|| insta::assert_snapshot!($name, $text));
    }};
}
