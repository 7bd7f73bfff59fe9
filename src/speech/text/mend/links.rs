//! Addresses of the web and of mail, sign by sign: no mark in them ends a sentence.

use super::super::numbers::{spelled, year_or_cardinal};
use super::{each, re, require};

/// What the signs of an address are called.
#[rustfmt::skip]
const SIGNS: [(char, &str); 23] = [
    ('.', "dot"), ('/', "slash"), (':', "colon"), ('?', "question mark"), ('&', "and"),
    ('=', "equals"), ('#', "hash"), ('%', "percent"), ('-', "dash"), ('_', "underscore"),
    ('~', "tilde"), ('+', "plus"), ('@', "at"), (',', "comma"), (';', "semicolon"),
    ('!', "exclamation mark"), ('$', "dollar"), ('*', "star"), ('(', "open parenthesis"),
    (')', "close parenthesis"), ('\'', "apostrophe"), ('[', "open bracket"), (']', "close bracket"),
];

pub(super) fn mend(text: &mut String) {
    let link = re!(concat!(
        r#"(?i)(?-u:\b)(?:(?:(?:https?|ftp)://|mailto:|www\.[a-z0-9])[^\s<>"{}|\\^`“”]*"#,
        r"|[a-z0-9][a-z0-9._%+-]*@[a-z0-9-]+(?:\.[a-z0-9-]+)+",
        r"|(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|io|dev|app|info|co|ai|tv|me|uk|de|fr|eu|us)",
        r#"(?::[0-9]+)?[/?#][^\s<>"{}|\\^`“”]*)"#
    ));
    each(text, link, |c, before, _| {
        require(!before.ends_with(|c: char| c.is_alphanumeric() || c == '.'))?;
        let whole = &c[0];
        let mut address = whole.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '*', '_']);
        while let Some(shorter) = address.strip_suffix([')', ']'])
            && !shorter.contains(['(', '['])
        {
            address = shorter.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'']);
        }
        Some(format!("{}{}", spoken(address), &whole[address.len()..]))
    });
}

fn spoken(address: &str) -> String {
    let lower = address.to_ascii_lowercase();
    let (scheme, rest) = match lower.split_once("://") {
        Some((scheme, rest)) if scheme.len() <= 5 => (scheme, rest),
        _ => ("", lower.as_str()),
    };
    let mut words: Vec<String> = scheme.chars().map(String::from).collect();
    if !scheme.is_empty() {
        words.push("colon slash slash".to_owned());
    }
    let rest = match rest.strip_prefix("www.") {
        Some(rest) => {
            words.push("w w w dot".to_owned());
            rest
        }
        None => rest,
    };
    let kind = |c: char| match c {
        c if c.is_ascii_digit() => 0,
        c if SIGNS.iter().any(|(of, _)| *of == c) => 1,
        _ => 2,
    };
    let mut chars = rest.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        if kind(c) == 1 {
            words.extend(SIGNS.iter().find(|(of, _)| *of == c).map(|(_, word)| (*word).to_owned()));
            continue;
        }
        while chars.next_if(|&(_, next)| kind(next) == kind(c)).is_some() {}
        let part = &rest[start..chars.peek().map_or(rest.len(), |&(at, _)| at)];
        words.push(match kind(c) {
            0 if part.starts_with('0') => spelled(part),
            0 => year_or_cardinal(part),
            _ => part.to_owned(),
        });
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                (
                    "See (http://x.y/a_b).",
                    "See (h t t p colon slash slash x dot y slash a underscore b).",
                ),
                (
                    "https://a.com/?q=1&r=07!",
                    "h t t p s colon slash slash a dot com slash question mark q equals one and r equals zero \
                     seven!",
                ),
                ("Go to www.a-b.org, now", "Go to w w w dot a dash b dot org, now"),
                ("j.doe+5@x.co.uk", "j dot doe plus five at x dot co dot uk"),
                ("a.b.c and 3.5", "a.b.c and 3.5"),
                ("e.g. this", "e.g. this"),
            ],
        );
    }
}
