//! How a number's digits are grouped, and the zeros before it.

use super::super::numbers::{below_hundred, spelled};
use super::dates::is_month;
use super::{
    comes_from, each, gap, goes_on, guarded, is_digit, last_word, next_word, re, require, rewrite,
};

/// The most digits that are read one by one for the zero before them.
const CODE: usize = 16;

/// What has a number of its own, so that the digits behind it are another's: "page 5 200 words".
const BEFORE_ANOTHER: &[&str] = &[
    "apartment", "at", "bus", "chapter", "class", "exit", "figure", "flight", "floor", "gate", "grade",
    "group", "highway", "lane", "level", "line", "number", "page", "part", "phase", "platform", "room",
    "route", "row", "seat", "section", "stage", "step", "table", "top", "unit", "version", "zone",
];

/// "007", and a ZIP code: digit by digit.
pub(super) fn zeros(text: &mut String) {
    let marks = [':', '.', ',', '/', '-', '–'];
    each(text, re!("[0-9]{2,}"), |c, before, after| {
        // A group of thousands is no code.
        let thousands = c[0].len() == 3 && comes_from(before, &[' ', '\'']);
        let code = c[0].starts_with('0') && c[0].len() <= CODE && !thousands;
        let apart = !comes_from(before, &marks) && !goes_on(after, &[':', '.', ',', '/']);
        let money = before.trim_end_matches(' ').ends_with(['$', '£', '€', '₹', '¥', '₩']);
        let ordinal = ["st", "nd", "rd", "th"].iter().any(|end| after.starts_with(end));
        let day = is_month(last_word(before)) || is_month(next_word(after));
        require(code && apart && !(money || ordinal || day || before.ends_with('.')))?;
        // A year's last digits: "class of '05".
        if let (true, [b'0', unit @ b'1'..=b'9']) = (before.ends_with('\''), c[0].as_bytes()) {
            return Some(format!("oh {}", below_hundred(usize::from(unit - b'0'))));
        }
        let letter = |c: char| c.is_ascii_alphabetic();
        let (left, right) = (gap(before.ends_with(letter)), gap(after.starts_with(letter)));
        Some(format!("{left}{}{right}", spelled(&c[0])))
    });
}

/// Thousands in groups by a space or an apostrophe: "10 000", "10'000".
pub(super) fn groups(text: &mut String) {
    each(text, re!(r"[1-9][0-9]{0,2}(?: [0-9]{3})+(?:,([0-9]{1,2}))?"), |c, before, after| {
        let whole = c[0].split(',').next()?;
        let alone = !comes_from(before, &[' ', '.', ',', ':', '/'])
            && !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '#' | '.'))
            && !goes_on(after, &[' ', ':', '/', ',']);
        // "2 100-watt bulbs".
        let compound =
            after.strip_prefix('-').is_some_and(|after| after.starts_with(char::is_alphabetic));
        let percent = after.starts_with('%');
        let apart = whole.matches(' ').count() == 1 && !whole.ends_with("000") && {
            let last = last_word(before).to_lowercase();
            let dose = matches!(next_word(after), "g" | "mcg" | "mg" | "ml" | "mL");
            let one = whole.as_bytes()[1] == b' ';
            is_month(&last) || BEFORE_ANOTHER.contains(&last.as_str()) || (one && dose)
        };
        let decimals = c.get(1).map_or(String::new(), |m| format!(".{}", m.as_str()));
        let digits = whole.replace(' ', "");
        require(alone && !compound && !percent && !apart)?;
        Some(if decimals.is_empty() { guarded(&digits).into_owned() } else { digits + &decimals })
    });
    each(text, re!(r"[1-9][0-9]{0,2}(?:'[0-9]{3})+"), |c, before, after| {
        let alone = !comes_from(before, &['\'', '.', ',']) && !after.starts_with(is_digit);
        alone.then(|| guarded(&c[0].replace('\'', "")).into_owned())
    });
}

/// Thousands in groups by commas are no years; other commas make a list. A point before digits has a zero.
pub(super) fn commas(text: &mut String) {
    rewrite(text, re!("[0-9]+(?:,+[0-9]+)+"), |m, out| {
        let mut groups = m.split(',');
        let first = groups.next().unwrap_or_default();
        let thousands = first.len() <= 3 && groups.clone().all(|group| group.len() == 3);
        let in_lakhs = |(i, group): (usize, &str)| group.len() == 2 + usize::from(i == 0);
        let lakhs = first.len() <= 2 && groups.clone().rev().enumerate().all(in_lakhs);
        if thousands || lakhs {
            *out += &guarded(&m.replace(',', ""));
        } else {
            *out += first;
            for group in groups.filter(|group| !group.is_empty()) {
                *out += ", ";
                // Decimals as they are written abroad.
                let decimals = if group.starts_with('0') { &spelled(group) } else { group };
                *out += decimals;
            }
        }
    });
    each(text, re!(r"\.[0-9]+"), |c, before, after| {
        let alone =
            before.chars().next_back().is_none_or(|c| c.is_whitespace() || "(+-*/=<>".contains(c));
        (alone && !after.starts_with('.')).then(|| format!("0{}", &c[0]))
    });
}

#[cfg(test)]
mod tests {
    use super::super::writes;
    use super::*;

    #[test]
    fn examples() {
        writes(
            zeros,
            &[(
                "007, A07, 05:30, 0.05, 08 May, 0",
                "zero zero seven, A zero seven, 05:30, 0.05, 08 May, 0",
            )],
        );
        writes(
            groups,
            &[
                ("10 000 people, 1'234'567, 1 234 567", "10000 people, 1234567, 1234567"),
                ("take 2 200 mg pills, May 5 300 people", "take 2 200 mg pills, May 5 300 people"),
                ("1 000 and 10 000,50", "01000 and 10000.50"),
                (
                    "555 123 4567, in 2010 100, 2 100-watt bulbs",
                    "555 123 4567, in 2010 100, 2 100-watt bulbs",
                ),
            ],
        );
        writes(commas, &[("1,2,3 and 2,025 and .5", "1, 2, 3 and 02025 and 0.5")]);
    }
}
