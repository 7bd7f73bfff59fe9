//! Text rewritten so that upstream's rules read it as it is meant: one kind of thing in a file.

use std::borrow::Cow;

use regex::Captures;

use super::{each, re, rewrite};

mod abbreviations;
mod characters;
mod dates;
mod digits;
mod fractions;
mod lengths;
mod letters;
mod links;
mod money;
mod phones;
mod ranges;
mod roman;
mod signs;
mod sums;
mod times;
mod units;

/// Rewrites what is of one kind.
type Mend = fn(&mut String);

/// Every kind. The order counts: what is told by a mark goes before what takes the mark away, and what is
/// written in several parts before what would take a part for the whole.
pub(super) const KINDS: &[(&str, Mend)] = &[
    // The dots, hyphens and digits of an address are no sentence ends, ranges and numbers.
    ("links", links::mend),
    // "8 a.m." and "U.S." before titles, that would find "m." and "s." in them.
    ("letters", letters::mend),
    // "Vol. II" is a volume before it is the second, "pp. 5-7" pages before a range.
    ("abbreviations", abbreviations::mend),
    ("roman numerals", roman::mend),
    // Before digits: 5'10" has an apostrophe between digits as 10'000 has.
    ("lengths", lengths::mend),
    // Before ranges and fractions, which have hyphens and slashes too.
    ("dates", dates::mend),
    // Before what joins groups of digits, and before ranges.
    ("phone numbers", phones::mend),
    // Before anything writes a zero of its own before a number (`guarded`).
    ("leading zeros", digits::zeros),
    ("thousands", digits::groups),
    // A hyphen that is a minus is no range's.
    ("sums", sums::mend),
    // While "$5-$10" and "5-10kg" have both their ends in figures.
    ("ranges", ranges::mend),
    // Behind ranges: "1990-2000s" ends in a decade.
    ("decades", dates::decades),
    ("times", times::mend),
    // Before commas: "€29,99" is no list.
    ("money", money::mend),
    ("commas", digits::commas),
    // Before fractions: "1/2 mi" is one half mile, and 1 tells one mile from miles.
    ("units", units::mend),
    ("fractions", fractions::mend),
    // What is left of signs, when none tells one thing from another any more.
    ("signs", signs::mend),
    ("line ends", abbreviations::line_ends),
];

/// All of it.
pub(super) fn mend(text: &str) -> String {
    let mut text = characters::plain(text);
    for (_, mend) in KINDS {
        mend(&mut text);
    }
    text
}

/// A number that is no year: upstream's reading of 1001 to 2999 wants four digits.
fn guarded(digits: &str) -> Cow<'_, str> {
    match digits.len() {
        4 => Cow::Owned(format!("0{digits}")),
        _ => Cow::Borrowed(digits),
    }
}

/// The rows of a table whose columns are parted by tabs.
fn rows<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    let columns = |line: &'static str| Vec::from_iter(line.split('\t')).try_into();
    lines(table).map(move |line| columns(line).unwrap_or_else(|_| panic!("not {N} columns: {line}")))
}

/// The lines of a table that are not its remarks.
fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.starts_with('#'))
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// Whether a digit follows, at once or behind one of `marks`.
fn goes_on(after: &str, marks: &[char]) -> bool {
    after.strip_prefix(marks).unwrap_or(after).starts_with(is_digit)
}

/// Whether a digit stands before, at once or before one of `marks`.
fn comes_from(before: &str, marks: &[char]) -> bool {
    before.strip_suffix(marks).unwrap_or(before).ends_with(is_digit)
}

/// The word that ends `before`, but for one space or hyphen; empty where there is none.
fn last_word(before: &str) -> &str {
    let before = before.strip_suffix([' ', '-']).unwrap_or(before);
    let before = before.strip_suffix('.').unwrap_or(before);
    let start = before.rfind(|c: char| !c.is_alphabetic()).map_or(0, |at| at + 1);
    before.get(start..).unwrap_or_else(|| &before[before.len()..])
}

/// The word that begins `after`, but for spaces.
fn next_word(after: &str) -> &str {
    let after = after.trim_start_matches(' ');
    &after[..after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len())]
}

/// The end of `before`, as much as a word or two take: what is searched must not grow with the text.
fn tail(before: &str) -> &str {
    &before[before.ceil_char_boundary(before.len().saturating_sub(48))..]
}

/// The words that begin `after`, with one space before each; empty behind a mark.
fn next_words<const N: usize>(after: &str) -> [&str; N] {
    let (mut words, mut rest) = ([""; N], after);
    for word in &mut words {
        let Some(next) = rest.strip_prefix(' ') else { break };
        *word = next_word(next);
        rest = &next.trim_start_matches(' ')[word.len()..];
    }
    words
}

fn is_capitalised(word: &str) -> bool {
    word.starts_with(|c: char| c.is_uppercase())
}

/// Whether a sum stands around a hyphen's two numbers, which makes it a minus.
fn in_a_sum(before: &str, after: &str) -> bool {
    let sign = ['=', '+', '*', '/', '×', '÷', '≠', '≤', '≥', '≈', '<', '>', '^', '√'];
    before.trim_end_matches(' ').ends_with(sign) || after.trim_start_matches(' ').starts_with(sign)
}

fn ends_line(after: &str) -> bool {
    matches!(after.trim_start_matches(' ').chars().next(), None | Some('\n'))
}

/// Words that begin a sentence more often than they follow an abbreviation with a capital.
const STARTERS: &[&str] = &[
    "A", "After", "All", "Although", "An", "And", "As", "At", "Because", "Before", "Both", "But", "By",
    "Each", "Everyone", "Finally", "For", "From", "He", "Her", "Here", "His", "How", "However", "I",
    "If", "In", "It", "Its", "Later", "Many", "Meanwhile", "Most", "My", "Next", "No", "Nobody", "Not",
    "Now", "On", "One", "Or", "Our", "She", "Since", "So", "Some", "Soon", "That", "The", "Their",
    "Then", "There", "These", "They", "This", "Those", "Though", "Today", "Tomorrow", "We", "What",
    "When", "Where", "While", "Who", "Why", "With", "Without", "Yes", "Yesterday", "You", "Your",
];

/// Whether a sentence ends before `after`: the line does, or a word follows that begins sentences.
fn ends_sentence(after: &str) -> bool {
    if ends_line(after) {
        return true;
    }
    let after = after.trim_start_matches(['"', '”', '\'', ')']);
    let Some(next) = after.strip_prefix(' ') else { return ends_line(after) };
    let next = next.trim_start_matches([' ', '"', '“', '\'', '(']);
    let word = next_word(next);
    let rest = &next[word.len()..];
    // "A. Smith", "A-10", "A of" and "No. 5" are no sentences.
    let letter = word.len() == 1 && rest.starts_with(['.', '-']);
    let about = matches!(word, "A" | "I")
        && matches!(
            next_words(rest),
            ["and" | "at" | "for" | "from" | "in" | "is" | "of" | "on" | "or" | "shows" | "to"]
        );
    let about =
        about || (word == "A" && (ends_line(rest) || rest.starts_with([',', ';', ':', ')', '?', '!'])));
    let number = word == "No" && rest.strip_prefix(". ").is_some_and(|rest| rest.starts_with(is_digit));
    STARTERS.contains(&word) && !letter && !about && !number
}

/// [`ends_sentence`], or many of something do what a sentence tells: "Fifth Ave. Shops closed."
fn begins_anew(after: &str) -> bool {
    const NAMES: [&str; 8] =
        ["Enterprises", "Holdings", "Industries", "Labs", "Partners", "Records", "Services", "Systems"];
    let [first, second] = next_words(after);
    let many =
        is_capitalised(first) && first.len() > 4 && first.ends_with('s') && !NAMES.contains(&first);
    let goes_on = matches!(second, "and" | "at" | "in" | "of" | "on" | "or");
    ends_sentence(after) || (many && second.starts_with(char::is_lowercase) && !goes_on)
}

/// A mark of its own, where an abbreviation's was the sentence's.
fn stop(dot: &str, after: &str) -> &'static str {
    if dot.ends_with('.') && ends_sentence(after) { "." } else { "" }
}

/// A space where `text` would touch a word.
fn gap(touches: bool) -> &'static str {
    if touches { " " } else { "" }
}

/// A group of a match; empty where it takes no part.
fn group<'a>(c: &'a Captures, at: usize) -> &'a str {
    c.get(at).map_or("", |m| m.as_str())
}

/// Ends a rule where a condition does not hold.
fn require(condition: bool) -> Option<()> {
    condition.then_some(())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric()
}

/// What a step writes.
#[cfg(test)]
fn writes(mend: Mend, examples: &[(&str, &str)]) {
    let mut wrong = String::new();
    for (text, expected) in examples {
        let mut written = (*text).to_owned();
        mend(&mut written);
        if written != *expected {
            wrong += &format!("{text:?}\n  {written:?}\n  {expected:?} expected\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
