//! Feet and inches, degrees of an arc, by their primes.

use super::{each, is_digit, is_word, next_word, re, tail};

pub(super) fn mend(text: &mut String) {
    let arc = re!(concat!(
        r#"([0-9]+(?:\.[0-9]+)?) ?° ?([0-9]{1,2}(?:\.[0-9]+)?) ?'(?: ?([0-9]{1,2}(?:\.[0-9]+)?) ?(?:"|''))?"#,
        r"(?: ?([NSEW])(?-u:\b))?"
    ));
    each(text, arc, |c, _, after| {
        let mut out =
            format!("{}, {}", count(&c[1], "degree", "degrees"), count(&c[2], "minute", "minutes"));
        if let Some(seconds) = c.get(3) {
            out += &format!(", {}", count(seconds.as_str(), "second", "seconds"));
        }
        out += match c.get(4).map(|m| m.as_str()) {
            Some("N") => " north",
            Some("S") => " south",
            Some("E") => " east",
            Some(_) => " west",
            None => "",
        };
        Some(out + super::gap(after.starts_with(is_word)))
    });
    let feet = re!(r#"([0-9]+) ?'[ -]?([0-9]{1,2}(?:\.[0-9]+)?(?: 1/[248]| 3/[48])?)(?: ?"|'')?"#);
    each(text, feet, |c, before, after| {
        let inches: u32 = c[2].split(['.', ' ']).next()?.parse().ok()?;
        let apart = !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '\'' | '.' | ','));
        let whole = inches < 12 && !after.starts_with(|c: char| c.is_alphanumeric() || c == '\'');
        (apart && whole && !super::goes_on(after, &['.', ',']))
            .then(|| format!("{} {}", count(&c[1], "foot", "feet"), count(&c[2], "inch", "inches")))
    });
    each(text, re!(r"([0-9]{1,3})'[-–]([0-9]{1,3})'"), |c, before, after| {
        let apart = !before.ends_with(is_word) && !after.starts_with(|c| is_word(c) || c == '\'');
        apart.then(|| format!("{} to {} feet", &c[1], &c[2]))
    });
    each(text, re!(r"([0-9]+)' ?[x×] ?([0-9]+)'"), |c, _, after| {
        let apart = !after.starts_with(|c: char| c.is_alphanumeric() || c == '\'');
        apart.then(|| format!("{} by {}", count(&c[1], "foot", "feet"), count(&c[2], "foot", "feet")))
    });
    let alone = re!(
        r"([0-9]+(?:\.[0-9]+)?)'( ?(?:x|×|by|tall|wide|long|deep|high|ladder|ceiling|fence|wall)(?-u:\b))"
    );
    each(text, alone, |c, _, _| {
        let one = matches!(c[2].trim(), "ladder" | "ceiling" | "fence" | "wall");
        Some(format!("{} {}", count(&c[1], "foot", if one { "foot" } else { "feet" }), c[2].trim()))
    });
    // "He is 6'.", where no quotation ends.
    each(text, re!(r"([0-9]{1,3})'([.,;)]|$|\n| (?:and|but|or) )"), |c, before, _| {
        let line = tail(before);
        let line = &line[line.rfind('\n').map_or(0, |at| at + 1)..];
        let apart =
            !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '\'' | '.' | ',' | '-'));
        let open = line.starts_with('\'') || line.contains(" '");
        (apart && !open).then(|| format!("{}{}", count(&c[1], "foot", "feet"), &c[2]))
    });
    inches(text);
}

/// Words behind inches that are not a thing of so many: "12 inches wide", not "a 12 inch pipe".
const NO_THINGS: [&str; 25] = [
    "and", "above", "across", "apart", "at", "below", "by", "deep", "for", "from", "high", "in", "is",
    "long", "of", "on", "or", "over", "per", "tall", "thick", "to", "was", "wide", "x",
];

/// A quotation mark behind a number is an inch's, unless a quotation is open in its line.
fn inches(text: &mut String) {
    let inch = re!(r#"([0-9]+(?:\.[0-9]+)?(?: [0-9]/[0-9]{1,2})?)"(-?)"#);
    // As far as quotations are counted, and whether one is open there.
    let (mut counted, mut open) = (0, false);
    each(text, inch, |c, before, after| {
        let at = before.len();
        for (_, mark) in before[counted..].char_indices().filter(|&(_, c)| matches!(c, '"' | '\n')) {
            open = mark == '"' && !open;
        }
        counted = at + c[0].len();
        if open {
            open = false;
            return None;
        }
        if after.starts_with(is_digit) {
            open = true;
            return None;
        }
        let next = next_word(after);
        let thing = next.starts_with(|c: char| c.is_lowercase()) && !NO_THINGS.contains(&next);
        let adjective = !c[2].is_empty() || (after.starts_with(' ') && thing);
        let inches = count(&c[1], "inch", if adjective { "inch" } else { "inches" });
        Some(format!("{inches}{}", super::gap(after.starts_with(is_word) || !c[2].is_empty())))
    });
}

fn count(number: &str, one: &str, many: &str) -> String {
    format!("{number} {}", if number == "1" { one } else { many })
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                (
                    "5'10\" and 6' 2\", 5'10 or 1'1\"",
                    "5 feet 10 inches and 6 feet 2 inches, 5 feet 10 inches or 1 foot 1 inch",
                ),
                ("a 12\" pipe is 12\" wide", "a 12 inch pipe is 12 inches wide"),
                ("\"I am 12\" and 12\".", "\"I am 12\" and 12 inches."),
                ("40° 26' 46\" N", "40 degrees, 26 minutes, 46 seconds north"),
                ("10'000 and '90s", "10'000 and '90s"),
                ("5'-10\", he is 6'. 'I am 6'.", "5 feet 10 inches, he is 6 feet. 'I am 6'."),
            ],
        );
    }
}
