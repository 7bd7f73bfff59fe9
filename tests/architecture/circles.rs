//! No file uses another that, by whatever way, uses it: each can be read after those that it uses. A module may list
//! those within it, which speak its words (its error, its trait), so what a file takes from a module around it is not
//! counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::{code, rooms};

/// Where a file stands: `["pipeline", "run"]`; a `mod.rs`, and a file with a folder, are the folder.
type Module = Vec<String>;

/// The files of a tree, and what each takes from others.
#[derive(Default)]
struct House {
    /// The names that a module gives on from modules within it, and whence.
    given_on: BTreeMap<Module, Vec<Vec<String>>>,
    uses: BTreeMap<Module, Vec<Vec<String>>>,
}

fn module_of(file: &str) -> Module {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The paths of a `use` without its groups: `a::{b, c::d}` is `a::b` and `a::c::d`; renamings are undone.
fn paths(tree: &str, before: &[String], into: &mut Vec<Vec<String>>) {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        let (head, group) =
            part.split_once('{').map_or((part, None), |(head, rest)| (head, Some(rest)));
        let head = head.split(" as ").next().unwrap_or_default();
        let names = head.split("::").map(|name| name.trim().to_owned());
        let path =
            before.iter().cloned().chain(names.filter(|name| !name.is_empty())).collect::<Vec<_>>();
        match group {
            Some(group) => paths(group.trim_end().trim_end_matches('}'), &path, into),
            None => into.push(path),
        }
    }
}

impl House {
    fn add(&mut self, file: &str, source: &str) {
        let module = module_of(file);
        let text: String = code(source).into_iter().map(|(_, line)| format!("{line}\n")).collect();
        let (mut uses, mut given_on) = (Vec::new(), Vec::new());
        let mut rest = String::new();
        for statement in text.split_inclusive(';') {
            let trimmed = statement.trim();
            // Attributes stand before what they are of.
            let from = trimmed.rfind("use ").filter(|&at| {
                let before = &trimmed[..at];
                before.is_empty() || before.ends_with(['\n', ' ']) && !before.contains('{')
            });
            match from {
                Some(at) if !trimmed[at..].contains('=') => {
                    let public = trimmed[..at].lines().last().unwrap_or_default().starts_with("pub");
                    let into = if public { &mut given_on } else { &mut uses };
                    paths(trimmed[at + 4..].trim_end_matches(';'), &[], into);
                }
                _ => rest += statement,
            }
        }
        // Paths within the code itself: `super::a::f()`, `child::f()`.
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for path in rest.split(|c: char| !word(c)).filter(|path| path.contains("::")) {
            uses.push(path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect());
        }
        self.uses.insert(module.clone(), uses);
        self.given_on.insert(module, given_on);
    }

    /// The module that a path of a module leads to; none outside of the house.
    fn resolve(&self, from: &Module, path: &[String], deep: usize) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => at.clear(),
            "self" | "super" => {}
            child => {
                at.push(child.to_owned());
                if !self.uses.contains_key(&at) {
                    return None;
                }
            }
        }
        if rest[0] == "super" {
            while rest.first().is_some_and(|name| name == "super") {
                at.pop();
                rest = &rest[1..];
            }
        } else {
            rest = &rest[1..];
        }
        while let Some(name) = rest.first() {
            at.push(name.clone());
            if !self.uses.contains_key(&at) {
                at.pop();
                break;
            }
            rest = &rest[1..];
        }
        // What a module gives on is used where it comes from.
        let given = rest.first().and_then(|name| {
            let whole = self.given_on.get(&at)?.iter().find(|path| path.last() == Some(name))?;
            self.resolve(&at, whole, deep.checked_sub(1)?)
        });
        given.or_else(|| self.uses.contains_key(&at).then_some(at))
    }

    /// A circle of modules, if there is one.
    fn circle(&self) -> Option<Vec<String>> {
        let arrows: BTreeMap<&Module, BTreeSet<Module>> = self
            .uses
            .iter()
            .map(|(from, paths)| {
                let to = paths.iter().filter_map(|path| self.resolve(from, path, 8));
                (from, to.filter(|to| !from.starts_with(to)).collect())
            })
            .collect();
        let mut open: BTreeSet<&Module> = arrows.keys().copied().collect();
        // Whoever uses none that is still open is in no circle.
        while let Some(&done) =
            open.iter().find(|module| arrows[**module].iter().all(|to| !open.contains(to)))
        {
            open.remove(done);
        }
        let mut way = vec![(*open.first()?).clone()];
        loop {
            let next = arrows[way.last()?].iter().find(|to| open.contains(to))?.clone();
            if let Some(at) = way.iter().position(|module| *module == next) {
                let names = way[at..].iter().chain([&next]);
                return Some(names.map(|module| module.join("/")).collect());
            }
            way.push(next);
        }
    }
}

#[test]
fn no_files_use_each_other() {
    let mut house = House::default();
    rooms().iter().for_each(|(file, _, text)| house.add(file, text));
    assert!(house.uses.values().map(Vec::len).sum::<usize>() > 1000, "the sources are not read");
    let circle = house.circle();
    assert!(circle.is_none(), "these use each other: {}", circle.unwrap().join(" -> "));
}

#[test]
fn a_circle_is_found_by_whatever_way() {
    let of = |files: &[(&str, &str)]| {
        let mut house = House::default();
        files.iter().for_each(|(file, text)| house.add(file, text));
        house.circle().map(|names| names.join(" "))
    };
    let shared =
        ("src/a/mod.rs", "mod b;\nmod c;\npub(super) use c::{self, C as D};\npub enum Error {}\n");
    let c = |text| ("src/a/c.rs", text);
    let uses = ("src/a/b.rs", "use super::{D, Error};\npub fn f() {}\n");
    assert_eq!(of(&[shared, uses, c("use super::Error;\npub struct C;\n")]), None);
    for back in
        ["use crate::a::b::f;", "#[cfg(x)]\nuse super::{Error, b::{f, g}};", "fn g() { super::b::f() }"]
    {
        let uses = ("src/a/b.rs", "use super::c::C;\n");
        assert_eq!(of(&[shared, uses, c(back)]).as_deref(), Some("a/b a/c a/b"), "{back}");
    }
    let list = ("src/a/mod.rs", "mod b;\npub const ALL: &[B] = &[b::B];\npub struct Error;\n");
    assert_eq!(of(&[list, ("src/a/b.rs", "use super::Error;\n")]), None);
    let out = ("src/c.rs", "use crate::a::ALL;\n");
    assert_eq!(of(&[list, out, ("src/a/b.rs", "// use crate::c::f;\n")]), None);
    assert_eq!(of(&[list, out, ("src/a/b.rs", "use crate::c::f;\n")]).as_deref(), Some("a a/b c a"));
}
