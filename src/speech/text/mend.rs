//! Text rewritten so that upstream's rules read it as it is meant.

use std::borrow::Cow;

use super::money;
use super::numbers::below_hundred;
use super::{each, re, rewrite};

/// All of it. The order counts: what is told apart by a sign goes before what that sign becomes.
pub(super) fn mend(text: &str) -> String {
    let mut text = plain(text);
    letters(&mut text);
    signs(&mut text);
    money::amounts(&mut text);
    numbers(&mut text);
    abbreviations(&mut text);
    text
}

/// A number that is no year: upstream's reading of 1001 to 2999 wants four digits.
pub(super) fn guarded(digits: &str) -> Cow<'_, str> {
    match digits.len() {
        4 => Cow::Owned(format!("0{digits}")),
        _ => Cow::Borrowed(digits),
    }
}

/// One form of what Unicode has several of, and no control characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' | '\u{85}' => out.push('\n'),
            '\t' | '\x0b' | '\x0c' | '\x1c'..='\x1f' => out.push(' '),
            c if c.is_control() => {}
            '！'..='～' => out.extend(char::from_u32(u32::from(c) - 0xfee0)),
            '￡' => out.push('£'),
            '￥' => out.push('¥'),
            '￦' => out.push('₩'),
            '˚' => out.push('°'),
            '℃' => out.push_str("°C"),
            '℉' => out.push_str("°F"),
            '‘' | '’' => out.push('\''),
            '−' => out.push('-'),
            c => out.push(c),
        }
    }
    out
}

fn ends_line(after: &str) -> bool {
    matches!(after.trim_start_matches(' ').chars().next(), None | Some('\n'))
}

/// A mark of its own, where an abbreviation's was the line's.
fn stop(dot: &str, after: &str) -> &'static str {
    if dot.ends_with('.') && ends_line(after) { "." } else { "" }
}

fn apart(letters: &str, by: &str) -> String {
    let letters = letters.chars().filter(|&c| c != '.').map(|c| c.to_ascii_lowercase().to_string());
    letters.collect::<Vec<_>>().join(by)
}

/// Links, initials, and capitals that a run of three would be cut from.
fn letters(text: &mut String) {
    rewrite(text, re!("http://"), |_, out| *out += "h t t p colon slash slash ");
    each(text, re!(r"(?i)(?-u:\b)www(?:\.([0-9a-z]))?"), |c, _, after| match c.get(1) {
        Some(next) => Some(format!("w w w dot {}", next.as_str())),
        None if after.starts_with(|c: char| c.is_alphanumeric() || c == '_') => None,
        None => Some("w w w".to_owned()),
    });
    each(text, re!(r"(?-u:\b)Ph\. ?D(?-u:\b)(\.?)"), |c, _, after| {
        Some(format!("p h d{}", stop(&c[1], after)))
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
        let gap = if before.ends_with(|c: char| c.is_ascii_digit()) { " " } else { "" };
        Some(format!("{before}{gap}{spoken}{}", stop(dot, after)))
    });
    rewrite(text, re!(r"(?-u:\b)[A-Z]{3,}(?-u:\b)"), |word, out| {
        let roman = word.strip_suffix("III").and_then(|tens| match tens {
            "" => Some("3"),
            "V" => Some("8"),
            "X" => Some("13"),
            "XV" => Some("18"),
            "XX" => Some("23"),
            "XXV" => Some("28"),
            _ => None,
        });
        let alike = word.len() == 3 && word.bytes().all(|c| c == word.as_bytes()[0]);
        match roman {
            Some(number) => *out += number,
            None if alike => *out += &apart(word, " "),
            None => *out += word,
        }
    });
}

/// Hearts, powers, degrees and dashes.
fn signs(text: &mut String) {
    each(text, re!("<3"), |_, before, after| {
        let digit = |c: char| c.is_ascii_digit();
        let alone = before.is_empty() || before.ends_with([' ', '\n']);
        let compared = before.trim_end_matches(' ').ends_with(digit);
        let longer = after.starts_with(|c: char| c.is_ascii_alphanumeric())
            || (after.starts_with(['.', ',']) && after[1..].starts_with(digit));
        (alone && !compared && !longer).then(|| " heart ".to_owned())
    });
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
            let gap = if after.starts_with(char::is_alphanumeric) { " " } else { "" };
            Some(format!("{}{spoken}{gap}", &c[1]))
        },
    );
    each(text, re!(r" ?\^ ?"), |_, before, after| {
        let base = before.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, ')' | ']'));
        let power = after.strip_prefix(['-', '+']).unwrap_or(after);
        let power = power.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '(');
        (base && power).then(|| " to the power of ".to_owned())
    });
    each(text, re!(r"([0-9][0-9.,]*)? ?° ?([CF](?-u:\b))?"), |c, _, after| {
        let number = c.get(1).map_or("", |m| m.as_str());
        let scale = match c.get(2).map(|m| m.as_str()) {
            Some("C") => " celsius",
            Some(_) => " fahrenheit",
            None => "",
        };
        let plural = if number == "1" { "" } else { "s" };
        let gap = if after.starts_with(char::is_alphanumeric) { " " } else { "" };
        Some(format!("{number} degree{plural}{scale}{gap}"))
    });
    let range = re!(r"[0-9][0-9.,:]*(?: ?– ?[$£€₹¥₩]?[0-9][0-9.,:]*)+");
    rewrite(text, range, |m, out| match m.split_once('–') {
        Some((from, to)) if !to.contains('–') => *out += &format!("{} to {}", from.trim(), to.trim()),
        _ => *out += m,
    });
    each(text, re!(r" ?- ?([$£€₹¥₩][0-9])"), |c, before, _| {
        before.ends_with(|c: char| c.is_ascii_digit()).then(|| format!(" to {}", &c[1]))
    });
    each(text, re!(r"([A-Za-z]{2}|(?-u:\b)[A-Z])-([0-9])"), |c, _, _| {
        Some(format!("{} {}", &c[1], &c[2]))
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

/// What upstream takes for years, sums and sets.
fn numbers(text: &mut String) {
    rewrite(text, re!("[0-9]+(?:,+[0-9]+)+"), |m, out| {
        let mut groups = m.split(',');
        let first = groups.next().unwrap_or_default();
        let thousands = first.len() <= 3 && groups.clone().all(|group| group.len() == 3);
        let lakhs = first.len() <= 2
            && groups
                .clone()
                .rev()
                .enumerate()
                .all(|(i, group)| group.len() == 2 + usize::from(i == 0));
        if thousands || lakhs {
            *out += &guarded(&m.replace(',', ""));
        } else {
            *out += first;
            for group in groups.filter(|group| !group.is_empty()) {
                *out += ", ";
                *out += group;
            }
        }
    });
    each(
        text,
        re!(r"(?:\+1[-. ]|1[-.])(\(?[0-9]{3}\)?[-. ][0-9]{3}[-. ]?[0-9]{4})"),
        |c, before, _| {
            let inside =
                before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | ',' | '-'));
            (!inside).then(|| format!("1, {}", &c[1]))
        },
    );
    rewrite(text, re!(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"), |time, out| {
        let mut parts = time.split(':');
        let hours = parts.next().unwrap_or_default();
        let (minutes, seconds) = (parts.next().unwrap_or_default(), parts.next());
        let hour = hours.parse().unwrap_or(0);
        match seconds {
            None if minutes == "00" && (13..=24).contains(&hour) => *out += &format!("{hour} hundred"),
            Some(seconds) if hour > 0 && !minutes.starts_with('0') => {
                *out += &format!("{hour} {minutes}");
                *out += match seconds {
                    "00" => "",
                    _ if seconds.starts_with('0') => " oh ",
                    _ => " ",
                };
                *out += if seconds == "00" { "" } else { seconds };
            }
            _ => *out += time,
        }
    });
    each(text, re!(r"(?-u:\b)([12])([0-9])([0-9])0'?s(?-u:\b)"), |c, _, _| {
        let [thousand, hundred, ten] = [1, 2, 3].map(|i| c[i].parse().unwrap_or(0));
        Some(match (thousand, hundred, ten) {
            (1, 0, 0) => "thousands".to_owned(),
            (_, 0, 0) => "two thousands".to_owned(),
            (_, _, 0) => format!("{} hundreds", below_hundred(10 * thousand + hundred)),
            _ => format!("{} {}", below_hundred(10 * thousand + hundred), tens(ten)),
        })
    });
    each(text, re!(r"(?i)(?-u:\b)((?:the|early|late|mid)[ -])'?([2-9])0'?s(?-u:\b)"), |c, _, _| {
        Some(format!("{}{}", &c[1], tens(c[2].parse().unwrap_or(0))))
    });
    each(text, re!(r"'([1-9])0s(?-u:\b)"), |c, _, _| Some(tens(c[1].parse().unwrap_or(0))));
    each(text, re!(r"\.[0-9]+"), |c, before, after| {
        let alone =
            before.chars().next_back().is_none_or(|c| c.is_whitespace() || "(+-*/=<>".contains(c));
        (alone && !after.starts_with('.')).then(|| format!("0{}", &c[0]))
    });
    each(text, re!(r"([0-9](?:[0-9.,]*[0-9])?) ?([KkMGT])B(/s)?(?-u:\b)"), |c, _, _| {
        let unit = ["kilo", "mega", "giga", "tera"]["kmgt".find(&c[2].to_ascii_lowercase())?];
        let plural = if &c[1] == "1" { "" } else { "s" };
        let rate = if c.get(3).is_some() { " per second" } else { "" };
        Some(format!("{} {unit}byte{plural}{rate}", &c[1]))
    });
    each(text, re!(r"([MGT])Hz(?-u:\b)"), |c, before, _| {
        let unit = ["mega", "giga", "tera"]["MGT".find(&c[1])?];
        (!before.ends_with(|c: char| c.is_alphabetic())).then(|| format!(" {unit}hertz"))
    });
}

fn tens(ten: usize) -> String {
    match ten {
        1 => "tens".to_owned(),
        _ => format!("{}ies", below_hundred(10 * ten).trim_end_matches('y')),
    }
}

/// Streets, feet, and the mark of an abbreviation where it ends a line and where it ends nothing.
fn abbreviations(text: &mut String) {
    let street = re!(r"([A-Z][A-Za-z']*|[0-9](?:st|nd|rd|th)) +St\.( +[a-z]|[ ]*[,;:!?)\n]|[ ]*$)");
    each(text, street, |c, _, after| {
        let ends = c[2].ends_with('\n') || (c[2].trim().is_empty() && after.is_empty());
        Some(format!("{} street{}{}", &c[1], if ends { "." } else { "" }, &c[2]))
    });
    each(text, re!(r"([0-9]) ?ft\."), |c, _, after| {
        Some(format!("{} feet{}", &c[1], stop(".", after)))
    });
    let dates = re!(concat!(
        r"(?-u:\b)(etc|Ave|Mon|Tues|Wed|Thurs|Fri|Sat|Jan|Feb|Mar|Apr|Aug|Sept|Oct|Nov|Dec)",
        r"\.( +[0-9a-z])"
    ));
    each(text, dates, |c, _, _| Some(format!("{}{}", &c[1], &c[2])));
    let titles =
        re!(r"(?i)(?-u:\b)(?:mrs|ms|mr|dr|st|co|jr|maj|gen|drs|rev|lt|hon|sgt|capt|esq|ltd|col|ft)\.");
    each(text, titles, |c, _, after| ends_line(after).then(|| format!("{}.", &c[0])));
}
