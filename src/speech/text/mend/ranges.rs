//! Hyphens next to numbers: from one to another, or of a name; a minus only where it is one.

use super::{comes_from, each, group, in_a_sum, is_digit, last_word, next_word, re, require};
use super::{dates, phones};

const DAYS: [(&str, &str); 10] = [
    ("Mon", "monday"),
    ("Tues", "tuesday"),
    ("Tue", "tuesday"),
    ("Wed", "wednesday"),
    ("Thurs", "thursday"),
    ("Thur", "thursday"),
    ("Thu", "thursday"),
    ("Fri", "friday"),
    ("Sat", "saturday"),
    ("Sun", "sunday"),
];

pub(super) fn mend(text: &mut String) {
    each(text, re!("([0-9])—([0-9])"), |c, _, _| Some(format!("{}–{}", &c[1], &c[2])));
    each(text, re!("([A-Za-z)])—([$£€₹¥₩]?[0-9])"), |c, _, _| {
        Some(format!("{}, {}", &c[1], &c[2]))
    });
    names(text);
    let apart = re!(concat!(
        r"([$£€₹¥₩]?[0-9]+(?:[.,:][0-9]+)*)( ?[AaPp][. ]?[Mm]\.?| ?%)? - ",
        r"([$£€₹¥₩]?[0-9]+(?:[.,:][0-9]+)*)"
    ));
    // With spaces it is a range that rises, of times, or of what has a unit; else one number less another.
    each(text, apart, |c, before, after| {
        let unit = group(c, 2);
        let inside = before.ends_with(|c: char| c.is_alphanumeric() || c == '.');
        require(!inside && !in_a_sum(before, after))?;
        let number =
            |text: &str| text.replace(['$', '£', '€', '₹', '¥', '₩', ','], "").parse::<f64>().ok();
        let rising = matches!((number(&c[1]), number(&c[3])), (Some(from), Some(to)) if from < to);
        let range = !unit.is_empty() || c[1].contains(':') || rising;
        let to = format!("{}{unit} to {}", &c[1], &c[3]);
        range.then_some(to)
    });
    let chain = re!(concat!(
        r"[$£€₹¥₩]?[0-9]+(?:[.,:/][0-9]+)*(?: [0-9]/[0-9])?(?: ?(?:%|°[CF]?)|[A-Za-z]{1,4}| [ap] ?m| [AP]M)?",
        r"(?:(?:-| ?– ?)[$£€₹¥₩]?[0-9]+(?:[.,:/][0-9]+)*(?: [0-9]/[0-9])?(?: ?(?:%|°[CF]?)|[A-Za-z]{1,4}| [ap] ?m| [AP]M)?)+"
    ));
    each(text, chain, |c, before, after| linked(&c[0], before, after));
    // Not a minus: a name's number, of which there may be many, and a dash.
    each(text, re!(r"([A-Za-z]{2}|(?-u:\b)[A-Z])[-–]([0-9])([0-9]{0,2}s(?-u:\b))?"), |c, _, _| {
        let many = c.get(3).map_or(String::new(), |m| m.as_str().replace('s', "'s"));
        Some(format!("{} {}{many}", &c[1], &c[2]))
    });
    each(text, re!(r"([A-Za-z]{2}|[)!?.,;:]) ?[-–] +([$£€₹¥₩]?[0-9])"), |c, _, _| {
        Some(format!("{}, {}", &c[1], &c[2]))
    });
    each(text, re!(r"([0-9A-Za-z)]) ?– ?([$£€₹¥₩]?[0-9])"), |c, _, _| {
        Some(format!("{}, {}", &c[1], &c[2]))
    });
    // "5 dollars - $10": an amount behind another number is never taken from it.
    each(text, re!(r" ?- ?([$£€₹¥₩][0-9])"), |c, before, _| {
        before.ends_with(is_digit).then(|| format!(" to {}", &c[1]))
    });
}

/// "Mon-Fri", "January–March", "A4-A5".
fn names(text: &mut String) {
    let days = re!(concat!(
        r"(?-u:\b)(Mon|Tues?|Wed|Thurs?|Thu|Fri|Sat|Sun)\.? ?[-–] ?",
        r"(Mon|Tues?|Wed|Thurs?|Thu|Fri|Sat|Sun)(?-u:\b)"
    ));
    let day = |short: &str| DAYS.iter().find(|(of, _)| *of == short).map(|(_, long)| *long);
    each(text, days, |c, _, _| Some(format!("{} to {}", day(&c[1])?, day(&c[2])?)));
    let whole = re!(concat!(
        r"(?-u:\b)((?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May|June|July|August",
        r"|September|October|November|December|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)\.?[-–]",
        r"((?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May|June|July|August",
        r"|September|October|November|December|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)(?-u:\b)"
    ));
    each(text, whole, |c, _, _| Some(format!("{} to {}", &c[1], &c[2])));
    let days = re!(concat!(
        r"(?-u:\b)((?:Jan|Febr)uary|March|April|May|June|July|August|(?:Sept|Nov|Dec)ember|October",
        r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)(\.? [0-9]{1,2}(?:st|nd|rd|th)?)(?: ?– ?| - |-)",
        r"((?:Jan|Febr)uary|March|April|May|June|July|August|(?:Sept|Nov|Dec)ember|October",
        r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)(?-u:\b)"
    ));
    each(text, days, |c, _, after| {
        super::goes_on(after.strip_prefix('.').unwrap_or(after), &[' '])
            .then(|| format!("{}{} to {}", &c[1], &c[2], &c[3]))
    });
    let alike = re!(r"(?-u:\b)([A-Za-z]{1,2})([0-9]{1,4})[-–]([A-Za-z]{1,2})([0-9]{1,4})(?-u:\b)");
    each(text, alike, |c, _, after| {
        let more = after.starts_with(['-', '–']);
        (c[1] == c[3] && !more).then(|| format!("{}{} to {}{}", &c[1], &c[2], &c[3], &c[4]))
    });
}

/// Numbers with hyphens between them.
fn linked(chain: &str, before: &str, after: &str) -> Option<String> {
    let spaced = |part: &str| part.trim_matches(' ').to_owned();
    let parts: Vec<String> = chain.split(['-', '–']).map(spaced).collect();
    if in_a_sum(before, after) {
        return chain.contains('–').then(|| chain.replace('–', "-"));
    }
    let named = before.strip_suffix('-').unwrap_or(before);
    if named.ends_with(char::is_alphabetic) {
        // "B2-3", "alpha-1.1-80": a name's, and "i7-9700K" is no number of thousands.
        let lettered = re!("([0-9])([KMBTkmbt])$");
        let parts = parts.iter().map(|part| lettered.replace(part, "$1 $2"));
        return Some(parts.collect::<Vec<_>>().join(" "));
    }
    require(!comes_from(before, &['-', '.', ',', ':', '/']))?;
    let digits = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    let all_digits = parts.iter().all(|part| digits(part));
    match &parts[..] {
        // An aeroplane.
        [from, to] if matches!(last_word(before), "Boeing" | "Airbus") || is_boeing(from, to) => {
            Some(format!("{from} {to}"))
        }
        [from, to] => pair(from, to, chain, after),
        _ if all_digits
            && parts.iter().any(|part| part.len() > 2 || (part.len() > 1 && part.starts_with('0'))) =>
        {
            Some(phones::groups(chain))
        }
        _ => Some(parts.join(", ")),
    }
}

/// "737-800".
fn is_boeing(from: &str, to: &str) -> bool {
    matches!(from.as_bytes(), [b'7', b'0'..=b'8', b'7']) && to.len() == 3 && to.ends_with("00")
}

fn pair(from: &str, to: &str, chain: &str, after: &str) -> Option<String> {
    let digits = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    let letters = |part: &str| part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).to_owned();
    let unit = letters(from);
    // 1e-5, and 2x-5 of algebra.
    let exponent = matches!(unit.as_str(), "e" | "E");
    let unknown = unit.len() == 1 && "abcijknpqruvwxyz".contains(unit.as_str());
    require(!(chain.contains('-') && (exponent || (unknown && letters(to).is_empty()))))?;
    let years = |from: &str, to: &str| -> Option<(u32, u32)> {
        let apart = digits(from) && digits(to) && from.len() == 4 && to.len() == 2;
        Some((from.parse().ok()?, to.parse().ok()?))
            .filter(|(from, _)| apart && (1000..3000).contains(from))
    };
    if let Some((year, end)) = years(from, to) {
        if (end, year % 100) == (0, 99) {
            return Some(format!("{from} to {}", year + 1));
        }
        if end > year % 100 {
            return Some(format!("{from} to {}{to}", &from[..2]));
        }
        if let Some(month) = dates::year_and_month(from, to) {
            return Some(month);
        }
    }
    // Day and night.
    if (from, to) == ("24", "7") {
        return Some("24 7".to_owned());
    }
    // 1-1/2 is a number.
    if digits(from) && from.len() <= 2 && chain.contains('-') {
        let proper = to.split_once('/').filter(|(n, d)| digits(n) && digits(d));
        if proper.is_some_and(|(n, d)| n.len() < d.len() || (n.len() == d.len() && n < d)) {
            return Some(format!("{from} {to}"));
        }
    }
    let sign = |part: &str| part.chars().next().filter(|c| !c.is_ascii_digit());
    match (sign(from), sign(to)) {
        // "$5-$10 million" are both millions.
        (Some(one), Some(other))
            if one == other
                && after.starts_with(' ')
                && matches!(next_word(after), "thousand" | "million" | "billion" | "trillion")
                || one == other && unit.is_empty() && !letters(to).is_empty() =>
        {
            Some(format!("{} to {to}", &from[one.len_utf8()..]))
        }
        (Some(sign), None) => Some(format!("{} to {sign}{to}", &from[sign.len_utf8()..])),
        _ => Some(format!("{from} to {to}")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                (
                    "1914-1918, 2019-20, 2024-10, 3-2",
                    "1914 to 1918, 2019 to 2020, october 2024, 3 to 2",
                ),
                (
                    "2-3 days, 10-15 %, 10am-5pm, 5-10kg",
                    "2 to 3 days, 10 to 15 %, 10am to 5pm, 5 to 10kg",
                ),
                ("$5-10, $5-$10, pages 10 – 20", "5 to $10, $5 to $10, pages 10 to 20"),
                ("1999-00, May 5-June 3, 3—5", "1999 to 2000, May 5 to June 3, 3 to 5"),
                ("A4-A5, Mon-Fri, Jan-Mar", "A4 to A5, monday to friday, Jan to Mar"),
                ("10 - 5 = 5, 3-2=1, x-5, -5, 1e-5, 2x-5", "10 - 5 = 5, 3-2=1, x-5, -5, 1e-5, 2x-5"),
                (
                    "COVID-19, F-16, 978-3-16-1, 1-2-3",
                    "COVID 19, F 16, nine seven eight, three, one six, one, 1, 2, 3",
                ),
                ("the list - 5 of them", "the list, 5 of them"),
                ("9:00 - 17:00, pages 10 - 20, 1-1/2", "9:00 to 17:00, pages 10 to 20, 1 1/2"),
            ],
        );
    }
}
