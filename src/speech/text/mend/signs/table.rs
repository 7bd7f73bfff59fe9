//! Signs and their words; what is passed over, and why: tables in files beside this one.

use std::sync::LazyLock;

use super::super::rows;

type Table<T> = LazyLock<Vec<T>>;

fn named(table: &'static str) -> Vec<(char, &'static str)> {
    rows(table).map(|[sign, words]| (sign.parse().expect("a sign"), words)).collect()
}

/// In the order of their code points.
pub(super) static SIGNS: Table<(char, &str)> = LazyLock::new(|| named(include_str!("signs.txt")));
/// Names of Greek letters, for those that stand for themselves.
pub(super) static GREEK: Table<(char, &str)> = LazyLock::new(|| named(include_str!("greek.txt")));
/// What no words are said for: from, to, why.
pub(super) static SILENT: Table<(char, char, &str)> = LazyLock::new(|| {
    let sign =
        |code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32).expect("a code point");
    rows(include_str!("silent.txt")).map(|[from, to, why]| (sign(from), sign(to), why)).collect()
});
