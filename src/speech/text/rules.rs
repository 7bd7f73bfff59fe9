//! Upstream's rules, in upstream's order, on ASCII text without line ends. `\t` stands for every space
//! but `' '`: none is told from another, and all are dropped in the end.

use std::borrow::Cow;

use regex::{Captures, Regex};

use super::numbers::{cardinal, ordinal, year_or_cardinal};
use super::{Faults, re, rewrite};

#[rustfmt::skip]
pub(super) const TITLES: [(&str, &str); 19] = [
    ("mrs", "misess"), ("ms", "miss"), ("mr", "mister"), ("dr", "doctor"), ("st", "saint"),
    ("co", "company"), ("jr", "junior"), ("maj", "major"), ("gen", "general"), ("drs", "doctors"),
    ("rev", "reverend"), ("lt", "lieutenant"), ("hon", "honorable"), ("sgt", "sergeant"),
    ("capt", "captain"), ("esq", "esquire"), ("ltd", "limited"), ("col", "colonel"), ("ft", "fort"),
];
#[rustfmt::skip]
const WORDS: [(&str, &str); 36] = [
    ("Hz", "hertz"), ("kHz", "kilohertz"), ("KBs", "kilobytes"), ("KB", "kilobyte"),
    ("MBs", "megabytes"), ("MB", "megabyte"), ("GBs", "gigabytes"), ("GB", "gigabyte"),
    ("TBs", "terabytes"), ("TB", "terabyte"), ("APIs", "a p i's"), ("API", "a p i"),
    ("CLIs", "c l i's"), ("CLI", "c l i"), ("CPUs", "c p u's"), ("CPU", "c p u"), ("GPUs", "g p u's"),
    ("GPU", "g p u"), ("Ave", "avenue"), ("etc", "et cetera"), ("Mon", "monday"), ("Tues", "tuesday"),
    ("Wed", "wednesday"), ("Thurs", "thursday"), ("Fri", "friday"), ("Sat", "saturday"),
    ("Jan", "january"), ("Feb", "february"), ("Mar", "march"), ("Apr", "april"), ("Aug", "august"),
    ("Sept", "september"), ("Oct", "october"), ("Nov", "november"), ("Dec", "december"),
    ("and/or", "and or"),
];
const SYMBOLS: [(&str, &str); 16] = [
    ("@", " at "),
    ("&", " and "),
    ("%", " percent "),
    (":", "."),
    (";", ","),
    ("+", " plus "),
    ("\\", " backslash "),
    ("~", " about "),
    ("<=", " less than or equal to "),
    (">=", " greater than or equal to "),
    ("<", " less than "),
    (">", " greater than "),
    ("=", " equals "),
    ("/", " slash "),
    ("_", " "),
    ("*", " "),
];
/// The heart `<3` stands between these of `SYMBOLS`.
const BEFORE_HEART: usize = 8;

/// Every line a sentence, all in one line.
pub(super) fn join_lines(text: &str) -> String {
    let space = |c| matches!(c, '\t'..='\r' | '\x1c'..=' ');
    let mut out = String::with_capacity(text.len() + 1);
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        let line = line.trim_matches(space);
        out.extend(line.chars().map(|c| if c != ' ' && space(c) { '\t' } else { c }));
        if !line.is_empty() && !line.ends_with(['.', '!', '?']) {
            out.push('.');
        }
    }
    out
}

pub(super) fn numbers(text: &mut String, faults: Faults) {
    rewrite(text, re!(r"#\d"), |m, out| *out += &format!("number {}", &m[1..]));
    rewrite(text, re!(r"(?i)\b\d+[KMBT]\b"), |m, out| {
        let (digits, letter) = m.split_at(m.len() - 1);
        *out += digits;
        *out += match letter {
            "k" | "K" => " thousand",
            "m" | "M" => " million",
            "b" | "B" => " billion",
            _ => " trillion",
        };
    });
    rewrite(text, re!(r"\d[\d,]+\d"), |m, out| out.extend(m.chars().filter(|&c| c != ',')));
    capture(text, re!(r"(^|[^/])(\d\d?[/-]\d\d?[/-]\d\d(?:\d\d)?)($|[^/])"), |c| {
        format!("{}{}{}", &c[1], c[2].replace(['/', '-'], " dash "), &c[3])
    });
    rewrite(text, re!(r"\(?\d{3}\)?[-.\s]\d{3}[-.\s]?\d{4}"), phone);
    rewrite(text, re!(r"\d\d?:\d\d(?::\d\d)?"), time);
    rewrite(text, re!(r"\$[\d.,]*\d+"), dollars);
    rewrite(text, re!(r"\d+(?:\.\d+)+"), |m, out| {
        let mut parts = m.split('.');
        *out += parts.next().unwrap_or_default();
        for part in parts {
            *out += " point ";
            apart(part, out);
        }
    });
    for (operation, sign, word) in [
        (re!(r"\d\s?\*\s?\d"), '*', " times "),
        (re!(r"\d\s?/\s?\d"), '/', " over "),
        (re!(r"\d\s?\+\s?\d"), '+', " plus "),
        (re!(r"\d?\s?-\s?\d"), '-', " minus "),
    ] {
        rewrite(text, operation, |m, out| *out += &m.replace(sign, word));
    }
    // What the division above leaves: it takes every other slash of 1/2/3.
    rewrite(text, re!(r"\d+(?:/\d+)+"), |m, out| {
        let word = if m.matches('/').count() == 1 { " over " } else { " slash " };
        *out += &m.replace('/', word);
    });
    rewrite(text, re!(r"\d+(?:st|nd|rd|th)"), |m, out| *out += &ordinal(&m[..m.len() - 2]));
    // The second pass finds what overlapped in the first.
    for _ in 0..2 {
        rewrite(text, re!(r"(?i)\d[a-z]|[a-z]\d"), |m, out| {
            *out += &format!("{} {}", &m[..1], &m[1..]);
        });
    }
    rewrite(text, re!(r"\d+"), |m, out| {
        let year = faults == Faults::Kept || m.len() == 4;
        *out += &if year { year_or_cardinal(m) } else { cardinal(m) };
    });
}

fn apart(digits: &str, out: &mut String) {
    *out += &digits.chars().map(String::from).collect::<Vec<_>>().join(" ");
}

fn phone(number: &str, out: &mut String) {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    for (i, part) in [&digits[..3], &digits[3..6], &digits[6..]].into_iter().enumerate() {
        *out += if i > 0 { ", " } else { "" };
        apart(part, out);
    }
}

fn time(time: &str, out: &mut String) {
    let zero = |part: &str| part.bytes().all(|digit| digit == b'0');
    // The leading zero of `05` goes when the number is read.
    let minute = |part: &str, hour: &str| match part {
        "00" => hour.to_owned(),
        _ if part.starts_with('0') => format!("oh {part}"),
        _ => part.to_owned(),
    };
    let parts: Vec<&str> = time.split(':').collect();
    *out += &match parts[..] {
        [hours, "00"] if zero(hours) => "0".to_owned(),
        [hours, "00"] if hours.len() == 2 && hours > "12" => format!("{hours} minutes"),
        [hours, "00"] => format!("{hours} o'clock"),
        [hours, minutes] => format!("{hours} {}", minute(minutes, "")),
        [hours, minutes, seconds] if !zero(hours) => {
            let spoken = minute(minutes, "oh oh");
            // Upstream formats a Python set here, whose braces then count as parentheses.
            let spoken = if spoken == minutes { format!("{{'{spoken}'}}") } else { spoken };
            format!("{hours} {spoken} {}", minute(seconds, ""))
        }
        [_, "00", seconds] => seconds.to_owned(),
        [_, minutes, seconds] => format!("{minutes} {}", minute(seconds, "oh oh")),
        _ => time.to_owned(),
    };
}

/// Commas that group nothing, at which upstream raises, are ignored.
fn dollars(amount: &str, out: &mut String) {
    let amount = &amount[1..];
    let mut parts = amount.split('.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if parts.next().is_some() {
        *out += amount;
        *out += " dollars";
        return;
    }
    let counted = |part: &str, unit: &str| {
        let digits: String = part.chars().filter(char::is_ascii_digit).collect();
        let digits = digits.trim_start_matches('0');
        let plural = if digits == "1" { "" } else { "s" };
        (!digits.is_empty()).then(|| format!("{digits} {unit}{plural}"))
    };
    *out += &match (counted(whole, "dollar"), counted(fraction, "cent")) {
        (Some(dollars), Some(cents)) => format!("{dollars}, {cents}"),
        (Some(amount), None) | (None, Some(amount)) => amount,
        (None, None) => "zero dollars".to_owned(),
    };
}

pub(super) fn patterns(text: &mut String) {
    rewrite(text, re!("https?://"), |_, out| *out += "h t t p s colon slash slash ");
    rewrite(text, re!(". - ."), |m, out| *out += &format!("{}, {}", &m[..1], &m[4..]));
    rewrite(text, re!(r"(?i)[A-Z]\.[A-Z]"), |m, out| *out += &format!("{} dot {}", &m[..1], &m[2..]));
    rewrite(text, re!(r"[(\[{].*[)\]}](?:.|$)"), |m, out| {
        let mut inner = m.replace(['(', '[', '{'], ", ");
        rewrite(&mut inner, re!(r"[)\]}][^$.!?,]"), |_, out| *out += ", ");
        out.extend(inner.chars().filter(|c| !matches!(c, ')' | ']' | '}')));
    });
}

pub(super) fn abbreviations(text: &mut String) {
    static TABLES: std::sync::LazyLock<Vec<(Regex, &str)>> = std::sync::LazyLock::new(|| {
        let titles = TITLES.iter().map(|&(short, long)| (format!(r"(?i)\b{short}\."), long));
        let words = WORDS.iter().map(|&(short, long)| (format!(r"\b{short}\b"), long));
        let table = titles.chain(words);
        table.map(|(pattern, long)| (Regex::new(&pattern).expect("letters only"), long)).collect()
    });
    for (pattern, long) in TABLES.iter() {
        rewrite(text, pattern, |_, out| *out += long);
    }
    rewrite(text, re!(r"\b(?:[A-Z][a-z]*)+\b"), mixed_case);
}

fn mixed_case(word: &str, out: &mut String) {
    let capitals = word.bytes().filter(u8::is_ascii_uppercase).count();
    if capitals == 1 || capitals == word.len() {
        *out += word;
    } else if capitals == word.len() - 1 && word.ends_with('s') {
        *out += &format!("{}'s", &word[..word.len() - 1]);
    } else {
        for (i, c) in word.char_indices() {
            if i > 0 && c.is_ascii_uppercase() {
                out.push(' ');
            }
            out.push(c);
        }
    }
}

pub(super) fn symbols(text: &mut String) {
    for (i, (symbol, words)) in SYMBOLS.into_iter().enumerate() {
        if i == BEFORE_HEART {
            rewrite(text, re!("(?:^| )<3"), |_, out| *out += " heart ");
        }
        if text.contains(symbol) {
            *text = text.replace(symbol, words);
        }
    }
}

/// Lower case, what the model knows, one space, one mark, no letter three times.
pub(super) fn tidy(text: &mut String) {
    text.make_ascii_lowercase();
    text.retain(|c| {
        c.is_ascii_alphanumeric()
            || matches!(c, ' ' | '!' | '$' | '%' | '&' | '\'' | '*' | ',' | '-' | '.' | '?')
    });
    rewrite(text, re!(" +"), |_, out| out.push(' '));
    rewrite(text, re!(" [.?!,]"), |m, out| *out += &m[1..]);
    *text = text.trim_matches(' ').to_owned();
    const ELLIPSIS: char = '[';
    rewrite(text, re!(r"\.{3,}"), |_, out| out.push(ELLIPSIS));
    rewrite(text, re!(",+"), |_, out| out.push(','));
    rewrite(text, re!(r"[.,]*\.[.,]*"), |_, out| out.push('.'));
    rewrite(text, re!("[.,!]*![.,!]*"), |_, out| out.push('!'));
    rewrite(text, re!(r"[.,!?]*\?[.,!?]*"), |_, out| out.push('?'));
    let (mut out, mut last, mut times) = (String::with_capacity(text.len()), ' ', 0);
    for c in text.chars() {
        times = if c == last { times + 1 } else { 1 };
        last = c;
        match c {
            ELLIPSIS => out.push_str("..."),
            c if times > 2 && c.is_ascii_alphanumeric() => {}
            c => out.push(c),
        }
    }
    *text = out;
}

fn capture(text: &mut String, re: &Regex, mut write: impl FnMut(&Captures) -> String) {
    if let Cow::Owned(new) = re.replace_all(text, |c: &Captures| write(c)) {
        *text = new;
    }
}
