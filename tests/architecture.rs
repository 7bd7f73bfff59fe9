//! The rooms of `src/` stand in a line, and each may use only those to its left. This test reads the
//! sources; it doesn't link the crate.

use std::path::{Path, PathBuf};

const ROOMS: &[&str] = &[
    "files",
    "digest",
    "tensor",
    "audio",
    "hardware",
    "names",
    "recipe",
    "source",
    "export",
    "ir",
    "interface",
    "passes",
    "quantize",
    "convert",
    "runtime",
    "speech",
    "family",
    "validate",
    "bundle",
    "pipeline",
    "cli",
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
            "{file}: {room:?} is not a room: give it a place in tests/architecture.rs"
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

#[test]
fn each_room_uses_only_those_to_its_left() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for path in &files {
        let inside = path.strip_prefix(&root).unwrap();
        if path.file_name().is_some_and(|name| name == "testing.rs" || name == "tests.rs")
            || inside == Path::new("main.rs")
            || inside == Path::new("lib.rs")
        {
            continue;
        }
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let shown = format!("src/{}", inside.display());
        wrong.extend(violations(&shown, room, &std::fs::read_to_string(path).unwrap()));
    }
    assert!(!files.is_empty());
    assert!(wrong.is_empty(), "rooms out of order:\n{}", wrong.join("\n"));
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
    assert_eq!(odd, ["src/misc.rs: \"misc\" is not a room: give it a place in tests/architecture.rs"]);
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
