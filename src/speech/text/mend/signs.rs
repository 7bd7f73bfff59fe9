//! Signs: each has words, or is passed over for a reason.

mod table;

use super::{each, gap, group, is_digit, is_word, re};
use table::{GREEK, SIGNS, SILENT};

pub(super) fn mend(text: &mut String) {
    each(text, re!("<3"), |_, before, after| {
        let alone = before.is_empty() || before.ends_with([' ', '\n']);
        let compared = before.trim_end_matches(' ').ends_with(is_digit);
        let longer = after.starts_with(|c: char| c.is_ascii_alphanumeric())
            || (after.starts_with(['.', ',']) && after[1..].starts_with(is_digit));
        (alone && !compared && !longer).then(|| " heart ".to_owned())
    });
    powers(text);
    each(text, re!(r"(?-u:\b)([A-G])(#|♯|♭)"), |c, before, after| {
        let name = if &c[2] == "♭" { "flat" } else { "sharp" };
        let note = !before.ends_with(char::is_alphanumeric) && !after.starts_with(is_digit);
        note.then(|| format!("{} {name}{}", c[1].to_lowercase(), gap(after.starts_with(is_word))))
    });
    each(text, re!("#([A-Za-z])"), |c, before, _| {
        (!before.ends_with(is_word)).then(|| format!("hashtag {}", &c[1]))
    });
    // A product of numbers, letters or both; elsewhere a star is emphasis or a note.
    each(
        text,
        re!(r"([1-7])\* (hotel|hotels|resort|restaurant|restaurants|review|reviews|rating)(?-u:\b)"),
        |c, _, _| Some(format!("{} star {}", &c[1], &c[2])),
    );
    // Letters of a name, unless they go up as a product's do.
    each(text, re!(r"(?-u:\b)[A-Z](?:\*[A-Z]){3,}(?-u:\b)"), |c, _, _| {
        (!c[0].split('*').is_sorted()).then(|| c[0].replace('*', ""))
    });
    // The second pass finds what overlapped in the first.
    for _ in 0..2 {
        each(text, re!(r"([0-9A-Za-z)])(?: \* |\*)([0-9A-Za-z(])"), |c, before, after| {
            let spaced = c[0].contains(" * ");
            let short =
                !before.ends_with(char::is_alphabetic) && !after.starts_with(char::is_alphabetic);
            let (left, right) = (&c[1], &c[2]);
            let numbers = left.starts_with(is_digit) || right.starts_with(is_digit);
            (spaced || short || numbers).then(|| format!("{left} times {right}"))
        });
    }
    each(text, re!(r"([0-9]+(?:\.[0-9]+)?) ?× ?([0-9]+)"), |c, _, after| {
        // A screen's size; not "6.022×10²³".
        let long = |side: &str| side.len() > 2 && !side.contains('.');
        let size = long(&c[1]) && long(&c[2]) && !after.starts_with(['.', '^']);
        Some(format!("{} {} {}", &c[1], if size { "by" } else { "times" }, &c[2]))
    });
    // Between columns a pause; at the edge of a table nothing; next to a letter its name.
    each(text, re!(r" ?\|+ ?"), |c, before, after| {
        let [left, right] = [c[0].starts_with(' '), c[0].ends_with(' ')];
        let edge = before.is_empty() || before.ends_with('\n') || super::ends_line(after);
        let touches = (!left && before.ends_with(is_word)) || (!right && after.starts_with(is_word));
        let words = match (touches, edge) {
            (true, _) => " vertical bar ",
            (false, true) => " ",
            (false, false) => ", ",
        };
        Some(words.to_owned())
    });
    table(text);
}

fn powers(text: &mut String) {
    each(
        text,
        re!(r"([0-9)]|(?-u:\b)[A-Za-z]{1,3})([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)"),
        |c, _, after| {
            let power: String =
                c[2].chars().map(|c| if c == '⁻' { '-' } else { superscript(c) }).collect();
            let spoken = match power.as_str() {
                "2" => " squared".to_owned(),
                "3" => " cubed".to_owned(),
                // A footnote's mark.
                "1" | "-" => return None,
                _ => format!(" to the power of {power}"),
            };
            Some(format!("{}{spoken}{}", &c[1], gap(after.starts_with(char::is_alphanumeric))))
        },
    );
    each(text, re!(r" ?\^ ?(-[A-Za-z(])?"), |c, before, after| {
        let base = before.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, ')' | ']'));
        if let Some(less) = c.get(1).filter(|_| base) {
            return Some(format!(" to the power of minus {}", &less.as_str()[1..]));
        }
        let after = c.get(1).map_or(after, |m| m.as_str());
        let power = after.strip_prefix(['-', '+']).unwrap_or(after);
        let power = power.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '(');
        let words = if base && power { " to the power of " } else { " caret " };
        Some(format!("{words}{}", group(c, 1)))
    });
}

fn superscript(c: char) -> char {
    match c {
        '¹' => '1',
        '²' => '2',
        '³' => '3',
        _ => char::from_digit(u32::from(c) - 0x2070, 10).unwrap_or(c),
    }
}

/// What a sign is called, for a sign that no step before has taken: nothing for what stays as it is.
pub(super) fn words(c: char) -> Option<&'static str> {
    if let Ok(at) = SIGNS.binary_search_by_key(&c, |&(of, _)| of) {
        return Some(SIGNS[at].1);
    }
    let within = |&&(first, last, _): &&(char, char, &str)| (first..=last).contains(&c);
    if SILENT.iter().find(within).is_some() {
        return None;
    }
    match c {
        '\u{20a0}'..='\u{20cf}' => Some("currency"),
        '\u{2190}'..='\u{21ff}' | '\u{27f0}'..='\u{27ff}' | '\u{2900}'..='\u{297f}' => Some("arrow"),
        '\u{2200}'..='\u{22ff}' | '\u{27c0}'..='\u{27ef}' | '\u{2980}'..='\u{2aff}' => Some("operator"),
        '\u{2300}'..='\u{23ff}' => Some("symbol"),
        _ => None,
    }
}

/// Every sign's words, and the names of Greek letters that are no part of a Greek word.
fn table(text: &mut String) {
    if text.is_ascii() {
        return;
    }
    let mut out = String::with_capacity(text.len() + 64);
    let mut chars = text.chars().peekable();
    let mut last = ' ';
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        let greek = GREEK.iter().find(|(of, _)| *of == c).map(|(_, name)| *name);
        let alone = !is_greek(last) && !next.is_some_and(is_greek);
        match greek.filter(|_| alone).or_else(|| words(c)) {
            Some(words) => {
                out.push_str(gap(!out.ends_with([' ', '\n', '(', '-']) && !out.is_empty()));
                out.push_str(words);
                // "✓." keeps its mark.
                out.push_str(gap(next.is_some_and(|next| {
                    !matches!(next, '.' | ',' | '!' | '?' | ';' | ':' | ' ' | ')' | '\n' | '-' | '\'')
                })));
            }
            None => out.push(c),
        }
        last = c;
    }
    *text = out;
}

fn is_greek(c: char) -> bool {
    matches!(c, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}') && c.is_alphabetic()
}

#[cfg(test)]
mod tests {
    use super::super::super::{Faults, normalize};
    use super::*;

    #[test]
    fn examples() {
        super::super::writes(
            mend,
            &[
                ("a ≠ b, √2, ±5", "a not equal to b, square root of 2, plus or minus 5"),
                ("5 × 3, 1920×1080, 6 ÷ 2", "5 times 3, 1920 by 1080, 6 divided by 2"),
                ("C#, #tag, B♭, x*y, **bold**", "c sharp, hashtag tag, b flat, x times y, **bold**"),
                ("M*A*S*H, x*y*z, 10×50, TNF-α", "MASH, x times y times z, 10 times 50, TNF-alpha"),
                ("π ≈ 3.14, Δx, Κνωσός", "pi approximately equal to 3.14, delta x, Κνωσός"),
                ("Home | News", "Home, News"),
                ("| a | b |\n|---|\n|x|", " a, b \n --- \n vertical bar x vertical bar "),
            ],
        );
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(SIGNS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn no_sign_vanishes_without_a_reason() {
        let blocks = ['\u{a1}'..='\u{bf}', '\u{2000}'..='\u{27ff}', '\u{2900}'..='\u{2bff}'];
        let reason = |c: char| SILENT.iter().find(|(first, last, _)| (*first..=*last).contains(&c));
        for c in blocks.into_iter().flatten() {
            if c.is_whitespace() || c.is_control() {
                continue;
            }
            let reading = normalize(&format!("x {c} y"), Faults::Mended);
            let silent =
                reading == "x y." || reading.chars().filter(|c| c.is_alphanumeric()).count() < 3;
            match reason(c) {
                Some((.., why)) => assert!(!why.is_empty()),
                None => assert!(!silent, "{c} {:x} {reading}", u32::from(c)),
            }
        }
    }
}
