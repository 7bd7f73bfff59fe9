//! Fractions of small and of round parts; others stay one number over another.

use super::super::numbers::{below_hundred, ordinal};
use super::{each, gap, group, in_a_sum, is_word, next_word, re, require};

/// The parts that have names in speech.
const NAMED: [u32; 14] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 32, 64, 100];

pub(super) fn mend(text: &mut String) {
    let fraction = re!(r"(?:([0-9]{1,3}) )?([0-9]{1,2})/([0-9]{1,3})(-[A-Za-z])?");
    each(text, fraction, |c, before, after| {
        let whole = c.get(1).map(|m| m.as_str());
        let bound = group(c, 4);
        let outside = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | ',' | ':' | '$');
        let more = after.starts_with('/')
            || super::goes_on(after, &['.', ',', ':'])
            || (bound.is_empty() && after.starts_with(is_word));
        require(!(before.ends_with(outside) || more || in_a_sum(before, after)))?;
        let front = whole.map_or(String::new(), |whole| format!("{whole} "));
        let (over, under): (u32, u32) = (c[2].parse().ok()?, c[3].parse().ok()?);
        let behind = bound.replace('-', " ");
        // Open all week; a day in September; good eyes; halves.
        if let (24, 7) | (9, 11) | (20, 20) | (50, 50) = (over, under) {
            return Some(format!("{front}{over} {under}{behind}"));
        }
        if matches!(next_word(after), "star" | "stars") && over <= under && whole.is_none() {
            return Some(format!("{front}{over} out of {under}{behind}"));
        }
        let named = NAMED.contains(&under) && (1..under).contains(&over) && !c[3].starts_with('0');
        require(named)?;
        let parts = parts(over, under);
        Some(
            match whole {
                Some(whole) if over == 1 => {
                    format!("{whole} and a{} {parts}{behind}", if under == 8 { "n" } else { "" })
                }
                Some(whole) => format!("{whole} and {} {parts}{behind}", below_hundred(over as usize)),
                None => format!("{} {parts}{behind}", below_hundred(over as usize)),
            } + gap(bound.is_empty() && after.starts_with(is_word)),
        )
    });
}

fn parts(over: u32, under: u32) -> String {
    match (over, under) {
        (1, 2) => "half".to_owned(),
        (_, 2) => "halves".to_owned(),
        (1, 4) => "quarter".to_owned(),
        (_, 4) => "quarters".to_owned(),
        (1, _) => ordinal(&under.to_string()),
        _ => format!("{}s", ordinal(&under.to_string())),
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
                    "1/2 cup, 2 1/2 cups, 3/4-inch",
                    "one half cup, 2 and a half cups, three quarters inch",
                ),
                ("1/3 of, 1 7/8, 1 1/8", "one third of, 1 and seven eighths, 1 and an eighth"),
                ("24/7, 9/11, 4/5 stars", "24 7, 9 11, 4 out of 5 stars"),
                ("10/10, 1/1/10, 4/2=2, 1/23", "10/10, 1/1/10, 4/2=2, 1/23"),
            ],
        );
    }
}
