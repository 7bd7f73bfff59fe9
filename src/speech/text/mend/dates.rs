//! Days, and decades.
//!
//! Year, month, day (ISO 8601) and day.month.year are what they are. Of two numbers with slashes or hyphens
//! before a year, the one above 12 is the day; where neither is, the month is first, as in American English,
//! which upstream's voice speaks.

use super::super::numbers::{below_hundred, ordinal};
use super::{comes_from, each, goes_on, last_word, next_word, re, require, tail};

const MONTHS: [&str; 12] = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
];

pub(super) fn mend(text: &mut String) {
    let marks = ['-', '/', '.'];
    each(text, re!(r"(/[0-9]{4}|/[0-9]{2})[-–]([0-9]{1,2}/[0-9]{1,2}/)"), |c, _, _| {
        Some(format!("{} to {}", &c[1], &c[2]))
    });
    each(text, re!(r"(-[0-9]{2})–([0-9]{4}-)"), |c, _, _| Some(format!("{} to {}", &c[1], &c[2])));
    let seasons = re!(r"([12][0-9])([0-9]{2})/([12][0-9])?([0-9]{2})");
    each(text, seasons, |c, before, after| {
        let year = |at: usize| c[at].parse::<u32>().ok();
        let century = c.get(3).map_or(&c[1], |m| m.as_str());
        require(century == &c[1] && year(4)? == year(2)? + 1)?;
        let apart = !comes_from(before, &marks) && !goes_on(after, &marks);
        require(apart && !before.ends_with(char::is_alphanumeric))?;
        Some(format!("{}{} to {century}{}", &c[1], &c[2], &c[4]))
    });
    let iso = re!(r"([0-9]{4})([-/])([0-9]{1,2})([-/])([0-9]{1,2})(T[0-9])?");
    each(text, iso, |c, before, after| {
        let clock = c.get(6).map_or("", |m| &m.as_str()[1..]);
        let ends = !clock.is_empty() || !goes_on(after, &marks);
        require(c[2] == c[4] && ends && !comes_from(before, &marks))?;
        let gap = if clock.is_empty() { "" } else { ", " };
        Some(format!("{}{gap}{clock}", written(&c[5], &c[3], &c[1])?))
    });
    each(text, re!(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})"), |c, before, after| {
        let apart = !goes_on(after, &marks) && !comes_from(before, &marks);
        apart.then(|| written(&c[1], &c[2], &c[3]).or_else(|| written(&c[2], &c[1], &c[3])))?
    });
    each(text, re!(r"([0-9]{1,2})([-/])([0-9]{1,2})([-/])([0-9]{4}|[0-9]{2})"), |c, before, after| {
        let apart = !goes_on(after, &marks) && !comes_from(before, &marks);
        // 10-12-14 may be anything.
        require(apart && c[2] == c[4] && (&c[2] == "/" || c[5].len() == 4))?;
        require(!before.ends_with(char::is_alphanumeric))?;
        written(&c[3], &c[1], &c[5]).or_else(|| written(&c[1], &c[3], &c[5]))
    });
}

/// "march 14th, 2022", where there is such a day.
fn written(day: &str, month: &str, year: &str) -> Option<String> {
    let number: usize = month.parse().ok()?;
    let most = match number {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let full: Option<u32> = if year.len() == 4 { year.parse().ok() } else { None };
    let leap = full.is_none_or(|y| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0));
    let days: usize = day.parse().ok()?;
    let fits = (1..=most).contains(&days) && (number != 2 || days < 29 || leap);
    let month = MONTHS.get(number.checked_sub(1)?).filter(|_| fits)?;
    let year = match year.as_bytes() {
        [b'0', b'0'] => "oh oh".to_owned(),
        [b'0', unit] => format!("oh {}", below_hundred(usize::from(unit - b'0'))),
        _ if year.starts_with('0') => return None,
        _ => year.to_owned(),
    };
    Some(format!("{month} {}, {year}", ordinal(day)))
}

/// "2024-10", a month.
pub(super) fn year_and_month(year: &str, month: &str) -> Option<String> {
    let number: usize = month.parse().ok()?;
    Some(format!("{} {year}", MONTHS.get(number.checked_sub(1)?)?))
}

/// Whether a word is a month's name, or is short for one.
pub(super) fn is_month(word: &str) -> bool {
    let word = word.to_lowercase();
    word.len() >= 3 && MONTHS.iter().any(|month| month.starts_with(&word))
}

/// "the 1990s", "her 30s", "'80s".
pub(super) fn decades(text: &mut String) {
    each(text, re!(r"(?-u:\b)([12])([0-9])([0-9])0'?s(?-u:\b)"), |c, _, _| {
        let [thousand, hundred, ten] = [1, 2, 3].map(|i| c[i].parse().unwrap_or(0));
        Some(match (thousand, hundred, ten) {
            (1, 0, 0) => "thousands".to_owned(),
            (_, 0, 0) => "two thousands".to_owned(),
            (_, _, 0) => format!("{} hundreds", below_hundred(10 * thousand + hundred)),
            _ => format!("{} {}", below_hundred(10 * thousand + hundred), tens(ten)),
        })
    });
    let ages = re!(
        r"(?i)(?-u:\b)((?:the|early|late|mid|his|her|their|my|your|our|its)[ -])'?([1-9])0'?s(?-u:\b)"
    );
    each(text, ages, |c, _, after| {
        let ten = c[2].parse().unwrap_or(0);
        (!TIMED.contains(&next_word(after))).then(|| format!("{}{}", &c[1], tens(ten)))
    });
    each(text, re!(r"(ies (?:to|and|or) )'?([1-9])0's(?-u:\b)"), |c, _, _| {
        Some(format!("{}{}", &c[1], tens(c[2].parse().unwrap_or(0))))
    });
    each(text, re!(r"'([1-9])0s(?-u:\b)"), |c, _, _| Some(tens(c[1].parse().unwrap_or(0))));
    plurals(text);
}

/// What lasts for seconds: "a 30s timer".
const TIMED: &[&str] = &[
    "ago", "break", "burst", "bursts", "clip", "clips", "cooldown", "countdown", "delay", "delays",
    "earlier", "exposure", "faster", "interval", "intervals", "lap", "later", "left", "limit", "pause",
    "penalty", "per", "read", "remaining", "shot", "slower", "sprint", "timeout", "timeouts", "timer",
    "timers", "video", "videos", "wait", "window",
];
/// What goes before seconds.
const LASTING: &[&str] = &[
    "after", "delay", "every", "first", "for", "In", "in", "interval", "last", "lasted", "lasts",
    "minute", "minutes", "pause", "paused", "sleep", "take", "takes", "timeout", "took", "under",
    "Wait", "wait", "waited", "waiting", "within",
];
/// What stands between those and the number, and tells nothing.
const VAGUE: &[&str] = &[
    "about", "almost", "and", "another", "around", "exactly", "is", "just", "least", "most", "nearly",
    "of", "only", "than", "the", "to", "was",
];
/// Whose numbers have an s in their name.
const MODELS: &[&str] = &["Galaxy", "iPhone", "Page", "page", "Room", "room", "Version", "version"];

/// "20s and 30s", "Boeing 737s", "1s and 0s"; seconds are left for the units to read, lists of them too.
fn plurals(text: &mut String) {
    let list = re!(concat!(
        r"(?-u:\b)[0-9]+(?:,[0-9]{3})*s(?:(?:, ?|,? (?:and|or|to|through|not|then) |[-–])",
        r"(?:the |early |mid-|late )?'?[0-9]+(?:,[0-9]{3})*s)*(?-u:\b)"
    ));
    each(text, list, |c, before, after| {
        let inside =
            before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | ',' | '-' | '/'));
        let range = re!("(?:[0-9]+(?:,? (?:and|or|to)|,) )+$");
        let mut front = range.replace(tail(before), "").into_owned();
        let mut word = last_word(&front).to_owned();
        for _ in 0..3 {
            if VAGUE.contains(&word.as_str()) && front.ends_with(' ') && front.len() > word.len() {
                front.truncate(front.len() - 1 - word.len());
                word = last_word(&front).to_owned();
            }
        }
        let determined = matches!(last_word(before), "the" | "The");
        let seconds = LASTING.contains(&word.as_str()) && !determined
            || TIMED.contains(&next_word(after)) && after.starts_with(' ')
            || re!("^ of (?:audio|exposure|footage|rest|silence|sunlight|video)").is_match(after)
            || front.ends_with("m ")
            || front.ends_with("min ")
            || front.ends_with(": ");
        let model = MODELS.contains(&last_word(before));
        require(!(inside || seconds || model || after.starts_with(['\'', '/'])))?;
        let number = re!("'?([0-9]+(?:,[0-9]{3})*)s");
        Some(number.replace_all(&c[0], |c: &regex::Captures| plural(&c[1])).replace(['-', '–'], " to "))
    });
}

/// "forties", "tens", "hundreds"; of another number, its name with an s.
fn plural(number: &str) -> String {
    match number.as_bytes() {
        b"100" => "hundreds".to_owned(),
        [hundred @ b'2'..=b'9', b'0', b'0'] => {
            format!("{} hundreds", below_hundred(usize::from(hundred - b'0')))
        }
        [ten @ b'1'..=b'9', b'0'] => tens(usize::from(ten - b'0')),
        _ => format!("{number}'s"),
    }
}

fn tens(ten: usize) -> String {
    match ten {
        1 => "tens".to_owned(),
        _ => format!("{}ies", below_hundred(10 * ten).trim_end_matches('y')),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                ("2024-10-01T12:30:00Z", "october first, 2024, 12:30:00Z"),
                (
                    "24.12.2024 is 12/24/2024 and 24/12/2024",
                    "december twenty-fourth, 2024 is december twenty-fourth, 2024 and december twenty-fourth, 2024",
                ),
                (
                    "2/29/24, 2/29/2023, 1/2/05",
                    "february twenty-ninth, 24, 2/29/2023, january second, oh five",
                ),
                ("1.17.1.1, 10-12-14, 13/13/2022", "1.17.1.1, 10-12-14, 13/13/2022"),
            ],
        );
        super::super::writes(
            super::decades,
            &[
                (
                    "her 30s, the 1990s, '80s, 90s music",
                    "her thirties, the nineteen nineties, eighties, nineties music",
                ),
                ("the 1980s to 90s, a 30s timer", "the nineteen eighties to nineties, a 30s timer"),
            ],
        );
    }
}
