use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::arguments::Doctor;
use super::here::Here;
use super::terminal::{bytes, row, table};
use super::{Answer, INTERRUPTED, Outcome, json, say};
use crate::export::{self, Child, Python, Request};
use crate::family;
use crate::hardware::{Machine, disk_free_bytes};
use crate::runtime::{ALL, Engine, Options};

/// A full-size export keeps a checkpoint, an exported and a rewritten model, references, and a bundle.
const DISK_NEEDED: u64 = 2_000_000_000;
/// Exporting and recording a full-size decoder took 1.65 GB at its peak.
const MEMORY_NEEDED: u64 = 3_000_000_000;

/// One thing looked at.
#[derive(Serialize)]
struct Check {
    what: String,
    good: bool,
    /// Whether builds do without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Check {
    fn new(what: &str, good: bool, found: impl Into<String>, mend: &str) -> Self {
        let mend = (!good).then(|| mend.to_owned());
        Self { what: what.to_owned(), good, optional: false, found: found.into(), mend }
    }

    /// What is not here, and that builds do without.
    fn absent(what: &str, found: impl Into<String>, mend: &str) -> Self {
        Self { optional: true, ..Self::new(what, false, found, mend) }
    }

    fn word(&self) -> &'static str {
        match (self.good, self.optional) {
            (true, _) => "good",
            (false, true) => "none",
            (false, false) => "BAD",
        }
    }
}

pub(super) fn doctor(options: &Doctor, here: &Here) -> Outcome {
    let mut checks = machine(here.cache().root());
    checks.extend(runtimes(here));
    checks.extend(python(options, here));

    if options.json {
        say(&json(&checks))?;
    } else {
        let mut rows = vec![row!["", "what", "found"]];
        rows.extend(checks.iter().map(|c| row![c.word(), c.what, c.found]));
        say(&table(&rows))?;
    }
    for check in checks.iter().filter(|check| !check.good) {
        tellln!("{}: {}", check.what, check.mend.as_deref().unwrap_or_default());
    }
    let fits = |check: &Check| check.good || check.optional;
    Ok(if checks.iter().all(fits) { Answer::Yes } else { Answer::No })
}

fn machine(cache: &Path) -> Vec<Check> {
    let machine = Machine::detect();
    let memory = machine.memory_available_bytes;
    // The cache's folder may not exist yet: its nearest ancestor lies on the same disk.
    let existing = cache.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let disk = disk_free_bytes(existing).unwrap_or(0);
    let cores =
        format!("{}; {} cores, {} threads", machine.cpu, machine.physical_cores, machine.logical_cores);
    vec![
        Check::new("processor", true, cores, ""),
        Check::new("instructions", true, machine.features.join(" "), ""),
        Check::new(
            "memory",
            memory >= MEMORY_NEEDED,
            format!("{} of {} available", bytes(memory), bytes(machine.memory_bytes)),
            "a full-size export needs 3 GB: close something, or use a larger machine",
        ),
        Check::new(
            "disk",
            disk >= DISK_NEEDED,
            format!("{} free for {}", bytes(disk), cache.display()),
            "soprano-export cache prune   (or --cache-dir on another disk)",
        ),
    ]
}

/// Every runtime that is compiled in; each is really loaded.
fn runtimes(here: &Here) -> Vec<Check> {
    let check = |engine: &&'static dyn Engine| {
        let runtime = here.runtime(*engine, Options::EXACT).and_then(|runtime| {
            runtime.check()?;
            let place = runtime.library().map(|library| format!(" at {}", library.display()));
            Ok(runtime.name_and_version() + &place.unwrap_or_default())
        });
        let what = format!("runtime {}", engine.name());
        let option = engine.library().map_or("", |library| library.option);
        match runtime {
            Ok(runtime) => Check::new(&what, true, runtime, ""),
            Err(error) => {
                let mend = format!("make setup   (or name its library with --{option} FILE)");
                match here.is_named(engine.name()) {
                    true => Check::new(&what, false, error.to_string(), &mend),
                    false => Check::absent(&what, error.to_string(), &mend),
                }
            }
        }
    };
    ALL.iter().map(check).collect()
}

fn python(options: &Doctor, here: &Here) -> Vec<Check> {
    let mend = "make setup   (or name an interpreter with --python PATH)";
    let python = match here.python() {
        Ok(python) => python,
        Err(error) if here.named_python().is_some() => {
            return vec![Check::new("python", false, error.to_string(), mend)];
        }
        Err(_) => {
            let found = "none: graphs are written from the weights, and float64 answers";
            return vec![Check::absent("python", found, mend)];
        }
    };
    let found = format!("{} at {}", python.version(), python.interpreter().display());
    let mut checks = vec![Check::new("python", true, found, "")];
    let libraries = ALL.iter().filter_map(|engine| Some(engine.library()?.package));
    let before = ["torch", "soprano_tts", "onnx"].into_iter();
    for name in before.chain(libraries).chain(["nncf", "safetensors", "huggingface_hub"]) {
        let prefix = format!("{name}-");
        let version = python.packages().iter().find_map(|package| package.strip_prefix(&prefix));
        checks.push(Check::new(name, version.is_some(), version.unwrap_or("not installed"), mend));
    }
    if !options.quick {
        checks.extend(imports(&python, here.cache().root(), mend));
    }
    checks
}

/// Really imports every module: a package may be there and yet not load.
fn imports(python: &Python, cache: &Path, mend: &str) -> Vec<Check> {
    let failed = |why: String| vec![Check::new("imports", false, why, mend)];
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(error) => return failed(error.to_string()),
    };
    let child = Child {
        python,
        cache,
        log: &scratch.path().join("log"),
        time_limit: Duration::from_secs(300),
        interrupted: &INTERRUPTED,
        progress: &|_| {},
    };
    let outcome: Result<export::Outcome, export::Error> =
        child.run(&Request::Environment { family: family::ALL[0].shape.family }, scratch.path());
    let result = match outcome {
        Ok(outcome) => outcome.result,
        Err(error) => return failed(error.to_string()),
    };
    let modules = result.get("modules").and_then(|m| m.as_object()).cloned().unwrap_or_default();
    let check = |(name, fault): (&String, &serde_json::Value)| {
        let found = fault.as_str().unwrap_or("loads");
        Check::new(&format!("import {name}"), fault.is_null(), found, mend)
    };
    modules.iter().map(check).collect()
}
