//! The rooms of `src/` stand in a line, and each may use only those to its left. This test reads the
//! sources; it doesn't link the crate.

mod circles;

use std::path::{Path, PathBuf};

const ROOMS: &[&str] = &[
    "files", "digest", "tensor", "audio", "hardware", "names", "recipe", "source", "export", "ir",
    "interface", "front", "passes", "quantize", "convert", "runtime", "speech", "family", "validate",
    "bundle", "pipeline", "cli",
];

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|known| *known == room)
}

/// The source without comments and tests: everything after `#[cfg(test)]`, or the one line that it
/// stands over where that is a declaration.
fn code(source: &str) -> Vec<(usize, &str)> {
    let mut lines = source.lines().enumerate().map(|(at, line)| (at + 1, line.trim_start()));
    let mut kept = Vec::new();
    while let Some((at, line)) = lines.next() {
        if line.starts_with("#[cfg(test)]") {
            match lines.next() {
                Some((_, next)) if next.trim_end().ends_with(';') => continue,
                _ => break,
            }
        }
        kept.push((at, line.split("//").next().unwrap_or_default()));
    }
    kept
}

/// What follows each `crate::` of a file: line and first name, those of a `{…}` group one by one.
fn uses(source: &str) -> Vec<(usize, String)> {
    let mut text = String::new();
    let mut line_at = Vec::new();
    for (at, line) in code(source) {
        text.push_str(line);
        text.push('\n');
        line_at.resize(text.len(), at);
    }
    let name = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let start = at + "crate::".len();
        let Some(group) = text[start..].strip_prefix('{') else {
            found.push((line_at[at], name(&text[start..])));
            continue;
        };
        let (mut depth, mut expects) = (1, true);
        for (offset, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => expects = true,
                c if expects && !c.is_whitespace() => {
                    found.push((line_at[start + 1 + offset], name(&group[offset..])));
                    expects = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// What is wrong with one file of a room.
fn violations(file: &str, room: &str, source: &str) -> Vec<String> {
    let Some(own) = rank(room) else {
        return vec![format!(
            "{file}: {room:?} is not a room: give it a place in tests/architecture/main.rs"
        )];
    };
    uses(source)
        .into_iter()
        .filter_map(|(line, used)| match rank(&used) {
            Some(other) if other <= own => None,
            Some(_) => Some(format!("{file}:{line}: {room} uses {used}, which stands to its right")),
            None => Some(format!("{file}:{line}: {room} uses {used:?}, which is not a room")),
        })
        .collect()
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        match path.is_dir() {
            true => sources(&path, into),
            false if path.extension().is_some_and(|e| e == "rs") => into.push(path),
            false => {}
        }
    }
}

/// Every file of a room: its path, the room, its text. Tests in files of their own are not among them.
fn rooms() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let own = |path: PathBuf| {
        let inside = path.strip_prefix(&root).unwrap();
        let tests = inside
            .iter()
            .any(|part| ["tests", "tests.rs", "testing", "testing.rs"].iter().any(|t| part == *t));
        if tests || inside == Path::new("main.rs") || inside == Path::new("lib.rs") {
            return None;
        }
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        Some((format!("src/{}", inside.display()), room, std::fs::read_to_string(&path).unwrap()))
    };
    files.into_iter().filter_map(own).collect()
}

#[test]
fn each_room_uses_only_those_to_its_left() {
    let rooms = rooms();
    let wrong = rooms.iter().flat_map(|(file, room, text)| violations(file, room, text));
    let wrong: Vec<String> = wrong.collect();
    assert!(!rooms.is_empty());
    assert!(wrong.is_empty(), "rooms out of order:\n{}", wrong.join("\n"));
}

/// Rooms in which a runtime's name may be written: its own, and that of the words, where it is a format's.
const NAMING: &[&str] = &["runtime", "names"];

/// Lines of a file on which the name of a runtime is a string of its own.
fn runtimes_named(file: &str, source: &str) -> Vec<String> {
    let names = ["tract", "onnxruntime", "openvino", "rten"];
    let names = names.map(|name| format!("\"{name}\""));
    let lines =
        code(source).into_iter().filter(|(_, line)| names.iter().any(|name| line.contains(name)));
    lines.map(|(at, line)| format!("{file}:{at}: {}", line.trim())).collect()
}

#[test]
fn a_runtime_is_named_in_its_own_room_alone() {
    let others = rooms().into_iter().filter(|(_, room, _)| !NAMING.contains(&room.as_str()));
    let named: Vec<String> = others.flat_map(|(file, _, text)| runtimes_named(&file, &text)).collect();
    assert!(named.is_empty(), "ask runtime::ALL instead:\n{}", named.join("\n"));
    let found = runtimes_named("a.rs", "fn f() {\n    if name == \"tract\" {}\n}\n// \"tract\"\n");
    assert_eq!(found, ["a.rs:2: if name == \"tract\" {}"]);
}

/// Lines of a file on which the name of some family's graph is a string of its own.
fn graphs_named(file: &str, source: &str) -> Vec<String> {
    let names = ["decoder", "lm", "backbone", "codec"].map(|name| format!("\"{name}\""));
    let lines =
        code(source).into_iter().filter(|(_, line)| names.iter().any(|name| line.contains(name)));
    lines.map(|(at, line)| format!("{file}:{at}: {}", line.trim())).collect()
}

#[test]
fn a_graph_is_named_by_its_family_alone() {
    // The units of a text have an `lm` too: lumens.
    let elsewhere = |file: &str, room: &str| room != "family" && !file.starts_with("src/speech/text/");
    let others = rooms().into_iter().filter(|(file, room, _)| elsewhere(file, room));
    let named: Vec<String> = others.flat_map(|(file, _, text)| graphs_named(&file, &text)).collect();
    assert!(named.is_empty(), "a graph's name is data, its role is what to ask:\n{}", named.join("\n"));
    let found = graphs_named("a.rs", "if graph.name == \"lm\" {\n}\n// \"lm\"\n\"lm_head\"\n");
    assert_eq!(found, ["a.rs:1: if graph.name == \"lm\" {"]);
}

/// Rooms that speak to a person or a client; none uses another.
const SURFACES: &[&str] = &["cli", "serve", "python"];

/// Lines of a surface on which another one is used.
fn surfaces_used(file: &str, room: &str, source: &str) -> Vec<String> {
    let other = |used: &String| SURFACES.contains(&used.as_str()) && used != room;
    let uses = uses(source).into_iter().filter(|(_, used)| SURFACES.contains(&room) && other(used));
    uses.map(|(line, used)| format!("{file}:{line}: {room} uses {used}")).collect()
}

#[test]
fn surfaces_do_not_use_each_other() {
    let rooms = rooms();
    let used = rooms.iter().flat_map(|(file, room, text)| surfaces_used(file, room, text));
    let used: Vec<String> = used.collect();
    assert!(used.is_empty(), "what two surfaces need stands to the left of both:\n{}", used.join("\n"));
    let bad = "use crate::ir::Model;\nuse crate::cli::say;\n";
    assert_eq!(surfaces_used("src/serve/a.rs", "serve", bad), ["src/serve/a.rs:2: serve uses cli"]);
    assert!(surfaces_used("src/cli/a.rs", "cli", bad).is_empty());
}

#[test]
fn a_bad_line_is_found() {
    let bad = "use crate::ir::Model;\n\nfn f() { crate::cli::main() }\n";
    assert_eq!(
        violations("src/passes/a.rs", "passes", bad),
        ["src/passes/a.rs:3: passes uses cli, which stands to its right"]
    );
    let group = "use crate::{\n    ir::{Graph, Model},\n    validate::Verdict,\n};\n";
    assert_eq!(
        violations("src/passes/a.rs", "passes", group),
        ["src/passes/a.rs:3: passes uses validate, which stands to its right"]
    );
    let odd = violations("src/misc.rs", "misc", "");
    assert_eq!(
        odd,
        ["src/misc.rs: \"misc\" is not a room: give it a place in tests/architecture/main.rs"]
    );
    let after = "#[cfg(test)]\nmod testing;\nuse crate::bundle::Bundle;\n";
    assert_eq!(violations("src/ir/a.rs", "ir", after).len(), 1);
}

#[test]
fn good_lines_are_not() {
    for good in [
        "use crate::ir::Model;\nuse crate::tensor::{DType, Tensor};\npub(crate) struct S;",
        "// use crate::cli::x;\n/// as `crate::cli` does\n",
        "#[cfg(test)]\nmod tests {\n    use crate::cli::x;\n}\n",
    ] {
        assert_eq!(violations("src/passes/a.rs", "passes", good), [""; 0]);
    }
}

/// Who opens files by other means: the system's own, and a folder, to lock it.
const OPENING: &[&str] = &["src/files.rs", "src/hardware/memory.rs", "src/bundle/publish/staging.rs"];

/// Lines of a file on which a file is opened to be read, whatever it is, or stderr is written to as it comes.
fn unguarded(file: &str, source: &str) -> Vec<String> {
    let reading = [" File::open(", "fs::File::open(", "fs::read(", "fs::read_to_string("];
    let reading = reading.iter().chain(&["fs_err::read(", "fs_err::File::open(", "from_file("]);
    let looks_first = ["files::plain(", "files::open("].iter().any(|look| source.contains(look));
    let stderr = |line: &str| line.contains("eprint") || line.contains("std::io::stderr()");
    let system = |line: &str| line.contains("\"/proc/");
    let bad = |line: &str| {
        (reading.clone().any(|way| line.contains(way)) && !looks_first && !system(line))
            || (!file.ends_with("cli/terminal.rs") && stderr(line))
    };
    let lines = code(source).into_iter().filter(|(_, line)| bad(line));
    lines.map(|(at, line)| format!("{file}:{at}: {}", line.trim())).collect()
}

#[test]
fn files_are_opened_and_people_spoken_to_in_one_place() {
    let others = rooms().into_iter().filter(|(file, ..)| !OPENING.contains(&file.as_str()));
    let found: Vec<String> = others.flat_map(|(file, _, text)| unguarded(&file, &text)).collect();
    assert!(found.is_empty(), "use files::open, tell! and tellln!:\n{}", found.join("\n"));
    let bad = "let a = std::fs::read(path);\neprintln!(\"x\");\nlet b = files::read(path);\n";
    assert_eq!(unguarded("a.rs", bad).len(), 2);
    assert_eq!(unguarded("a.rs", &format!("files::plain(path)?;\n{bad}")).len(), 1);
}
