//! Initials, and capitals that a run of three would be cut from.

use super::dates::is_month;
use super::{begins_anew, each, is_capitalised, is_digit, next_word, next_words, re, rewrite, stop};

fn apart(letters: &str, by: &str) -> String {
    let letters = letters.chars().filter(|&c| c != '.').map(|c| c.to_ascii_lowercase().to_string());
    letters.collect::<Vec<_>>().join(by)
}

pub(super) fn mend(text: &mut String) {
    each(text, re!(r"(?i)(?-u:\b)www(?:\.([0-9a-z]))?"), |c, _, after| match c.get(1) {
        Some(next) => Some(format!("w w w dot {}", next.as_str())),
        None if after.starts_with(|c: char| c.is_alphanumeric() || c == '_') => None,
        None => Some("w w w".to_owned()),
    });
    let many = re!(r"(?-u:\b)(Ph\.D\.?|(?:[A-Z]\.){2,}|(?:[A-Z]\.)+[A-Z])s(?-u:\b)");
    each(text, many, |c, _, _| Some(format!("{}'s", apart(&c[1].to_uppercase(), " "))));
    each(text, re!(r"(?-u:\b)Ph\. ?D(?-u:\b)(\.?)"), |c, _, after| {
        Some(format!("p h d{}", stop(&c[1], after)))
    });
    each(text, re!(r"(?-u:\b)([BM])\. ?Sc(?-u:\b)(\.?)"), |c, _, after| {
        Some(format!("{} s c{}", c[1].to_lowercase(), stop(&c[2], after)))
    });
    let initials = re!(r"(^|[^A-Za-z._])([A-Za-z](?:\.[A-Za-z])+)(?-u:\b)(\.?)");
    each(text, initials, |c, _, after| {
        let (before, letters, dot) = (&c[1], &c[2], &c[3]);
        let host = matches!(before, "/" | "@");
        let spoken = match letters.to_ascii_lowercase().as_str() {
            _ if host => return None,
            "e.g" => "for example".to_owned(),
            "i.e" => "that is".to_owned(),
            upper if !dot.is_empty() || upper.to_ascii_uppercase() == letters => apart(letters, " "),
            _ => apart(letters, " dot "),
        };
        let gap = if before.ends_with(is_digit) { " " } else { "" };
        let half = matches!(spoken.as_str(), "a m" | "p m") && !dot.is_empty() && begins(after);
        let city = spoken == "d c" && !dot.is_empty() && begins_anew(after);
        let stop = if half || city { "." } else { stop(dot, after) };
        Some(format!("{before}{gap}{spoken}{stop}"))
    });
    rewrite(text, re!(r"(?-u:\b)[A-Z]{3,5}(?-u:\b)"), |word, out| {
        if is_acronym(word) { *out += &apart(word, " ") } else { *out += word }
    });
}

/// Whether a name begins a sentence after the time of a day: no day, month or zone follows it.
fn begins(after: &str) -> bool {
    let word = next_word(after);
    let zone = matches!(
        word,
        "Atlantic" | "Central" | "Eastern" | "Greenwich" | "Mountain" | "Pacific" | "Standard"
    );
    let name = is_capitalised(word) && word.chars().any(char::is_lowercase);
    let of_place = next_words::<3>(after)[1..].contains(&"time");
    after.starts_with(' ') && name && !zone && !of_place && !is_month(word) && !word.ends_with("day")
}

/// A letter three times, and not because it is drawn out; `III` is a number.
fn is_acronym(word: &str) -> bool {
    let letters = word.as_bytes();
    let alike = letters.iter().all(|letter| *letter == letters[0]);
    let runs = |length: usize| {
        letters.windows(length).filter(|run| run.iter().all(|letter| *letter == run[0]))
    };
    let drawn_out = re!(concat!(
        "^(?:A+[HW]+|A+RG+H*|BO+|B+R+|E+[EKW]+|G+R+|HA+|H+M+|HM+|M+|N+O+|O+[HW]+|P+S+T+|S+H+|S+O+|U+[GHM]+",
        "|W+A+H*|WO+W*|WHO+A*|Y+A+Y+|Y+E+S+|Z+)$"
    ));
    if word.len() == 3 && alike {
        return word != "III";
    }
    // "COOOL": a vowel is held, but for those that are known.
    let drawn_vowel = runs(3).any(|run| b"AEOU".contains(&run[0]));
    if drawn_vowel && !matches!(word, "AAAI" | "AAAL" | "AAAS" | "IEEE") {
        return false;
    }
    // "Stage IIIB".
    let stage = word.len() == 4 && word.starts_with("III") && word.ends_with(['A', 'B', 'C']);
    let thrice = runs(3).next().is_some() && runs(4).next().is_none();
    thrice && !stage && super::roman::value(word).is_none() && !drawn_out.is_match(word)
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                ("8 a.m. sharp, at 8 a.m. The", "8 a m sharp, at 8 a m. The"),
                ("IEEE AAAS XXXL CCCP AAA", "i e e e a a a s x x x l c c c p a a a"),
                ("NOOO HMMMM LVIII USA", "NOOO HMMMM LVIII USA"),
            ],
        );
    }
}
