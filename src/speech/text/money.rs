use regex::Captures;

use super::mend::guarded;
use super::{each, re};

/// One, and many.
type Names = [&'static str; 2];
/// Signs, and the names of the whole and of its hundredth.
const CURRENCIES: [(&str, Names, Option<Names>); 6] = [
    ("$", ["dollar", "dollars"], Some(["cent", "cents"])),
    ("£", ["pound", "pounds"], Some(["penny", "pence"])),
    ("€", ["euro", "euros"], Some(["cent", "cents"])),
    ("₹", ["rupee", "rupees"], Some(["paisa", "paise"])),
    ("¥", ["yen", "yen"], None),
    ("₩", ["won", "won"], None),
];

/// Amounts with their sign before or after: "1234 pounds, 50 pence", "5.5 million dollars".
pub(super) fn amounts(text: &mut String) {
    let prefixed = re!(concat!(
        r"([$£€₹¥₩])([0-9]+(?:,[0-9]{3})*)?(?:\.([0-9]+))?",
        r"(?i:\s?(K|M|B|T|bn|thousand|million|billion|trillion)(?-u:\b))?"
    ));
    each(text, prefixed, |c, before, after| read(c, [1, 2, 3, 4], before, after));
    let suffixed = re!(concat!(
        r"([0-9]+(?:,[0-9]{3})*)(?:\.([0-9]+))?",
        r"(?i:\s?(K|M|B|T|bn|thousand|million|billion|trillion))?\s?([$£€₹¥₩])"
    ));
    each(text, suffixed, |c, before, after| read(c, [4, 1, 2, 3], before, after));
    for (sign, [name, _], _) in &CURRENCIES[1..] {
        if text.contains(sign) {
            *text = text.replace(sign, &format!(" {name} "));
        }
    }
}

/// Nothing where it is no amount: no digits, or more of them around it (`$1.2.3`).
fn read(c: &Captures, groups: [usize; 4], before: &str, after: &str) -> Option<String> {
    let [sign, whole, fraction, power] = groups.map(|group| c.get(group).map_or("", |m| m.as_str()));
    let digit = |c: char| c.is_ascii_digit();
    let more =
        after.starts_with(digit) || (after.starts_with(['.', ',']) && after[1..].starts_with(digit));
    let within = before.ends_with('.') && before[..before.len() - 1].ends_with(digit);
    if more || within || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let &(_, names, hundredths) = CURRENCIES.iter().find(|(of, ..)| *of == sign)?;
    let whole = whole.replace(',', "");
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        some => some,
    };
    let name = |of: Names, count: &str| of[usize::from(count != "1")];
    let amount = match (power_of_thousand(power), hundredths) {
        (Some(power), _) => {
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            format!("{}{point}{fraction} {power} {}", guarded(whole), names[1])
        }
        (None, Some(hundredths)) if fraction.len() <= 2 => {
            let cents = format!("{fraction:0<2}");
            let cents = cents.trim_start_matches('0');
            let wholes = format!("{} {}", guarded(whole), name(names, whole));
            match (whole, cents) {
                (_, "") => wholes,
                ("0", _) => format!("{cents} {}", name(hundredths, cents)),
                _ => format!("{wholes}, {cents} {}", name(hundredths, cents)),
            }
        }
        _ if fraction.is_empty() => format!("{} {}", guarded(whole), name(names, whole)),
        _ => format!("{}.{fraction} {}", guarded(whole), names[1]),
    };
    let gap = |touches: bool| if touches { " " } else { "" };
    let letter = |c: char| c.is_ascii_alphanumeric();
    Some(format!("{}{amount}{}", gap(before.ends_with(letter)), gap(after.starts_with(letter))))
}

fn power_of_thousand(word: &str) -> Option<&'static str> {
    match word.chars().next()?.to_ascii_lowercase() {
        'k' => Some("thousand"),
        'm' => Some("million"),
        'b' => Some("billion"),
        _ if word.eq_ignore_ascii_case("thousand") => Some("thousand"),
        _ => Some("trillion"),
    }
}
