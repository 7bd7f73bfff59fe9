//! `diff`: every field in which two models differ.

mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::arguments::Diff;
use super::here::Here;
use super::inspect::open;
use super::terminal::plain;
use super::{Answer, Failure, Outcome, json, say};
use crate::digest::Digest;
use crate::ir::{self, Change, Difference, Model};

/// Differences of one kind that are listed one by one; the rest is counted.
const SHOWN: usize = 12;
/// Longer texts are cut around the place where they part.
const WIDTH: usize = 60;

/// How two models differ.
#[derive(Serialize)]
struct Report {
    equal: bool,
    /// Whether the files are the same byte by byte: equal models may be written in several ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    same_bytes: Option<bool>,
    /// Whether both hold the same values everywhere, written in another form.
    form_only: bool,
    /// Nodes by operator, where their number differs: nested graphs and functions counted in.
    operators: BTreeMap<String, (usize, usize)>,
    differences: Vec<Difference>,
}

pub(super) fn diff(options: &Diff, here: &Here) -> Outcome {
    let new = match &options.new {
        Some(new) if options.run.is_empty() => new,
        _ => return run::run(options, here),
    };
    let (old, new) = (open(&options.old)?, open(new)?);
    let mut report = Report::between(&old, &new);
    if report.equal {
        let same = same_bytes(old.path(), new.path())?;
        report.same_bytes = Some(same);
        // Fields that can't be read may be what the files differ in.
        report.equal = same || [&old, &new].iter().all(|model| model.unknown_fields().is_none());
    }
    let answer = if report.equal { Answer::Yes } else { Answer::No };
    if options.json {
        say(&json(&report))?;
        return Ok(answer);
    }
    say(&plain(&report.text()))?;
    let words = match (report.same_bytes, report.form_only) {
        (Some(true), _) => "the models are equal",
        (Some(false), _) if !report.equal => {
            "the files differ, and some of their fields can't be read: whether the models do is not known"
        }
        (Some(false), _) => {
            "the models are equal; the files are not: they keep data next to them, or write fields, in another way"
        }
        (None, true) => "the models differ in form alone: every value is the same",
        (None, false) => "the models differ",
    };
    tellln!("{words}");
    Ok(answer)
}

impl Report {
    fn between(old: &Model, new: &Model) -> Self {
        let differences = ir::differences(old.proto(), new.proto());
        let mut operators: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        if !differences.is_empty() {
            for node in old.proto().scopes().iter().flat_map(|scope| scope.nodes) {
                operators.entry(node.qualified_op()).or_default().0 += 1;
            }
            for node in new.proto().scopes().iter().flat_map(|scope| scope.nodes) {
                operators.entry(node.qualified_op()).or_default().1 += 1;
            }
            operators.retain(|_, (old, new)| old != new);
        }
        Report {
            equal: differences.is_empty(),
            same_bytes: None,
            form_only: !differences.is_empty()
                && differences.iter().all(|difference| difference.form_only),
            operators,
            differences,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (op, (old, new)) in &self.operators {
            text += &format!("operator {op} {old} -> {new}\n");
        }
        // Kinds in the order in which each first appears.
        let mut kinds: Vec<Vec<&Difference>> = Vec::new();
        let mut places = BTreeMap::new();
        for difference in &self.differences {
            let at = *places.entry((&difference.kind, difference.change)).or_insert(kinds.len());
            if at == kinds.len() {
                kinds.push(Vec::new());
            }
            kinds[at].push(difference);
        }
        for kind in kinds {
            // One more line is no longer than the line that counts it.
            let shown = if kind.len() == SHOWN + 1 { kind.len() } else { kind.len().min(SHOWN) };
            text.extend(kind[..shown].iter().map(|difference| line(difference)));
            if shown < kind.len() {
                let mark = mark(kind[0].change);
                text +=
                    &format!("{mark} … {} more of this kind; --json lists all\n", kind.len() - shown);
            }
        }
        text
    }
}

fn same_bytes(old: &Path, new: &Path) -> Result<bool, Failure> {
    let digest = |path: &Path| {
        Digest::of_file(path).map_err(|source| Unreadable { path: path.to_owned(), source })
    };
    Ok(digest(old)? == digest(new)?)
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{}: {source}", path.display())]
#[diagnostic(code(cli::diff))]
struct Unreadable {
    path: PathBuf,
    source: std::io::Error,
}

fn mark(change: Change) -> char {
    match change {
        Change::Removed => '-',
        Change::Added => '+',
        Change::Changed | Change::Reordered => '~',
    }
}

fn line(difference: &Difference) -> String {
    let Difference { change, place, old, new, note, form_only, .. } = difference;
    let mut text = format!("{} {}", mark(*change), place.join(" > "));
    let [old, new] = cut(old.as_deref(), new.as_deref());
    match (change, old, new) {
        (Change::Reordered, Some(old), Some(new)) => {
            text += &format!(": another order, {new} where {old} was");
        }
        (_, Some(old), Some(new)) => text += &format!(": {old} -> {new}"),
        (_, Some(one), None) | (_, None, Some(one)) => text += &format!(": {one}"),
        (_, None, None) => {}
    }
    if let Some(note) = note {
        text += if text.contains(": ") { "; " } else { ": " };
        text += note;
    }
    if *form_only && note.is_none() {
        text += " (the same in another form)";
    }
    text.push('\n');
    text
}

/// Texts of no more than a line's width: of two long ones the part around the place where they part.
fn cut(old: Option<&str>, new: Option<&str>) -> [Option<String>; 2] {
    let common = match (old, new) {
        (Some(a), Some(b)) => a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count(),
        _ => 0,
    };
    [old, new].map(|text| text.map(|text| window(text, common)))
}

fn window(text: &str, around: usize) -> String {
    let count = text.chars().count();
    if count <= WIDTH {
        return text.to_owned();
    }
    let start = around.saturating_sub(WIDTH / 3).min(count - WIDTH);
    let before = if start > 0 { "…" } else { "" };
    let after = if start + WIDTH < count { "…" } else { "" };
    let middle: String = text.chars().skip(start).take(WIDTH).collect();
    format!("{before}{middle}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_where_they_part() {
        let old = "a".repeat(100) + "b" + &"c".repeat(100);
        let new = "a".repeat(100) + "d" + &"c".repeat(100);
        let [old, new] = cut(Some(&old), Some(&new)).map(Option::unwrap);
        assert!(old.contains("aabcc") && new.contains("aadcc"), "{old}\n{new}");
        assert_eq!(old.chars().count(), WIDTH + 2);
        assert_eq!(window("short", 3), "short");
        // One that ends where the other goes on.
        let [old, new] = cut(Some(&"é".repeat(100)), Some(&"é".repeat(101))).map(Option::unwrap);
        assert_eq!(old.chars().count(), WIDTH + 1);
        assert_eq!(new.chars().count(), WIDTH + 1);
    }
}
