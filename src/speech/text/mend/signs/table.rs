//! Signs and their words; what is passed over, and why: tables in files beside this one.

use std::sync::LazyLock;

use super::super::lines;

type Table<T> = LazyLock<Vec<T>>;

fn columns(line: &'static str) -> (&'static str, &'static str) {
    line.split_once('\t').expect("two columns or more")
}

fn named(table: &'static str) -> Vec<(char, &'static str)> {
    let named = |line| columns(line).0.parse().map(|sign| (sign, columns(line).1));
    lines(table).map(named).collect::<Result<_, _>>().expect("a sign, and its words")
}

/// In the order of their code points.
pub(super) static SIGNS: Table<(char, &str)> = LazyLock::new(|| named(include_str!("signs.txt")));
/// Names of Greek letters, for those that stand for themselves.
pub(super) static GREEK: Table<(char, &str)> = LazyLock::new(|| named(include_str!("greek.txt")));
/// What no words are said for: from, to, why.
pub(super) static SILENT: Table<(char, char, &str)> = LazyLock::new(|| {
    let sign = |code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
    let range = |line: &'static str| {
        let ((from, rest), sign) = (columns(line), |code| sign(code).expect("a code point"));
        (sign(from), sign(columns(rest).0), columns(rest).1)
    };
    lines(include_str!("silent.txt")).map(range).collect()
});
