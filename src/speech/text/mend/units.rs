//! Units behind numbers.

mod letters;
mod table;

use super::{each, gap, group, guarded, is_capitalised, is_word, last_word, next_word, re, require};
use letters::{Context, Letter};
use table::{AFTER_MEASURE, ALONE, UNITS};

/// The name of a unit: of one, and of many. A square's and a cube's are made of the length's.
fn unit(symbol: &str) -> Option<[String; 2]> {
    if let Some((_, one, many)) = UNITS.iter().find(|(of, ..)| *of == symbol) {
        return Some([(*one).to_owned(), (*many).to_owned()]);
    }
    let (base, power) = match symbol.strip_suffix(['²', '2']) {
        Some(base) => (base, "square"),
        None => (symbol.strip_suffix(['³', '3'])?, "cubic"),
    };
    let length = ["m", "km", "cm", "mm", "ft", "in", "mi", "yd", "μm", "nm", "dm"].contains(&base);
    // A second, squared, comes after "per".
    let squared = (base == "s" && power == "square").then_some("second squared");
    let [one, many] = unit(base).filter(|_| length || squared.is_some())?;
    match squared {
        Some(words) => Some([words.to_owned(), words.to_owned()]),
        None => Some([format!("{power} {one}"), format!("{power} {many}")]),
    }
}

pub(super) fn mend(text: &mut String) {
    degrees(text);
    products(text);
    clocked(text);
    measures(text);
    rates(text);
    sides(text);
    alone(text);
}

/// The unit's words in "per hour": a symbol's, or the word that is there.
fn each_one(symbol: &str) -> String {
    unit(symbol).map_or_else(|| symbol.to_owned(), |[one, _]| one)
}

/// "5 N·m", "10st 5lb", "401k": what is written in a way of its own.
fn products(text: &mut String) {
    let product = re!(r"([0-9] ?)(N|A|mA|W|kW|MW)[·⋅](m|h)(?-u:\b)");
    each(text, product, |c, _, _| Some(format!("{}{}{}", &c[1], &c[2], &c[3])));
    let stone = re!(r"(?-u:\b)([0-9]{1,2}) ?st,? ([0-9]{1,2}) ?lbs?(?-u:\b)");
    each(text, stone, |c, _, _| Some(format!("{} stone {} lb", &c[1], &c[2])));
    each(text, re!(r"(?-u:\b)40([13]) ?(?:\(([kb])\)|([kb])(?-u:\b))"), |c, before, after| {
        let letter = c.get(2).or(c.get(3))?.as_str();
        let plan = (&c[1] == "1") == (letter == "k");
        let apart = !before.ends_with(['$', '£', '€', '.', ',']) && !after.starts_with(is_word);
        (plan && apart).then(|| format!("4 oh {} {letter}", &c[1]))
    });
}

/// A number, and a unit behind it.
fn measures(text: &mut String) {
    let measured = re!(concat!(
        r"((?:[0-9]{1,3} )?[0-9]{1,3}/[0-9]{1,3}|[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)([ -]?)",
        r"((?:sq|cu|fl)\.? ?[a-z]+|[A-Za-zμΩ]+[²³23]?)",
        r"(?:/([A-Za-zμ]+[²³23]?))?(?:(\.)([ \n,;:)-]|$))?"
    ));
    // Where the last number of feet ends.
    let mut feet_end = None;
    each(text, measured, |c, before, after| {
        let (number, between, symbol) = (&c[1], &c[2], &c[3]);
        let (divided, dot) = (c.get(4), c.get(5).is_some());
        let behind = group(c, 6);
        let goes_on =
            |c: char| c.is_alphanumeric() || matches!(c, '_' | '²' | '³' | '\'' | '+' | '#' | '/');
        if before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '/' | '#'))
            || (!dot && after.starts_with(goes_on))
        {
            return None;
        }
        let feet = feet_end.is_some_and(|end: usize| before.len() == end + 1);
        let context = Context {
            number,
            joined: between.is_empty(),
            bound: between == "-",
            before,
            after,
            dot,
            feet,
            divided: divided.is_some(),
        };
        let [one, many] = match context.letter(symbol) {
            Letter::Leave => return None,
            Letter::Word(word) => {
                return Some(format!("{number} {word}{}{behind}", if dot { "." } else { "" }));
            }
            Letter::Unit(symbol) => unit(&symbol.replace('.', ""))?,
        };
        let per = divided.map_or(String::new(), |m| format!(" per {}", each_one(m.as_str())));
        let part = number.split_once('/').is_some_and(|(over, under)| {
            over.len() < under.len() || (over.len() == under.len() && over < under)
        });
        let thing = per.is_empty() && !dot && after.starts_with(' ');
        let adjective =
            between == "-" || behind == "-" || (thing && AFTER_MEASURE.contains(&next_word(after)));
        let name = if number == "1" || part || adjective { one } else { many };
        let plain = number.replace(',', "");
        let written = if plain.contains(['.', '/']) { plain } else { guarded(&plain).into_owned() };
        if matches!(name.as_str(), "foot" | "feet") {
            feet_end = Some(before.len() + c[0].len());
        }
        // The mark of an abbreviation, unless a sentence ends in it.
        let ends = dot
            && match behind {
                " " => is_capitalised(next_word(after)),
                behind => matches!(behind, "" | "\n"),
            };
        Some(format!("{written} {name}{per}{}{behind}", if ends { "." } else { "" }))
    });
}

/// Symbols without a number: "a few km", "per kWh".
fn alone(text: &mut String) {
    each(text, re!(r"(?-u:\b)([A-Za-zμ]+)(?:/([A-Za-z]+))?(?-u:\b)"), |c, before, after| {
        let [one, many] = ALONE.contains(&&c[1]).then(|| unit(&c[1]))??;
        let inside = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '\'' | '@' | '/');
        require(!(before.ends_with(inside) || after.starts_with(|c: char| inside(c) && c != '.')))?;
        let single = matches!(
            last_word(before),
            "per" | "a" | "one" | "each" | "every" | "the" | "A" | "The" | "Per" | "half"
        );
        Some(match c.get(2) {
            Some(divided) => format!("{many} per {}", unit(divided.as_str())?[0]),
            None if single => one,
            None => many,
        })
    });
}

/// "2h30m", "5m30s".
fn clocked(text: &mut String) {
    let joined = re!(r"(?-u:\b)([0-9]+)(h|m)([0-9]{1,2})(m|min|s)?(?-u:\b)");
    each(text, joined, |c, before, _| {
        let behind = match (&c[2], c.get(4).map(|m| m.as_str())) {
            ("h", Some("m" | "min") | None) => "min",
            ("m", Some("s")) => "s",
            _ => return None,
        };
        (!before.ends_with(['.', '-']))
            .then(|| format!("{} {} {} {behind}", &c[1], if &c[2] == "h" { "h" } else { "min" }, &c[3]))
    });
}

fn degrees(text: &mut String) {
    each(text, re!(r"([0-9][0-9.,]*)? ?° ?([CFK](?-u:\b))?"), |c, _, after| {
        let number = group(c, 1);
        let scale = match c.get(2).map(|m| m.as_str()) {
            Some("C") => " celsius",
            Some("F") => " fahrenheit",
            Some(_) => " kelvin",
            None => "",
        };
        let adjective = matches!(next_word(after), "angle" | "turn" | "view");
        let plural = if number == "1" || adjective { "" } else { "s" };
        Some(format!("{number} degree{plural}{scale}{}", gap(after.starts_with(is_word))))
    });
}

/// "5 dollars/hr", "3/day".
fn rates(text: &mut String) {
    let money = re!(concat!(
        "(dollars?|cents?|euros?|pounds?|pence|rupees?|yen|won|francs?|thousand|million|billion)",
        " ?/ ?([A-Za-zμ]+[²³23]?)"
    ));
    each(text, money, |c, _, _| Some(format!("{} per {}", &c[1], each_one(&c[2]))));
    let often = re!(
        r"([0-9]%?|percent) ?/ ?(sec|min|hr|hour|day|week|wk|month|mo|year|yr|night|person|user|seat|unit|lb|kg|gal|mile|km)(?-u:\b)"
    );
    each(text, often, |c, _, _| Some(format!("{} per {}", &c[1], each_one(&c[2]))));
}

/// "20 feet x 30 feet", "5 x 3 meters".
fn sides(text: &mut String) {
    let first =
        re!(r"((?:feet|foot|inch|inches|meters?|centimeters?|millimeters?|yards?)) ?[x×] ?([0-9])");
    each(text, first, |c, _, _| Some(format!("{} by {}", &c[1], &c[2])));
    let last = re!(concat!(
        r"([0-9]) ?[x×] ?([0-9]+(?:\.[0-9]+)?(?: (?:by|x) [0-9]+(?:\.[0-9]+)?)? ",
        r"(?:feet|foot|inch|inches|meters?|centimeters?|millimeters?|yards?)(?-u:\b))"
    ));
    each(text, last, |c, _, _| Some(format!("{} by {}", &c[1], c[2].replace(" x ", " by "))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples() {
        super::super::writes(
            mend,
            &[
                (
                    "5 ms, 10 ft, 1 kg, 80kg, 1,500 m",
                    "5 milliseconds, 10 feet, 1 kilogram, 80 kilograms, 01500 meters",
                ),
                (
                    "100 km/h, 5 m/s, 10 mg/ml, 9.8 m/s²",
                    "100 kilometers per hour, 5 meters per second, 10 milligrams per milliliter, 9.8 meters per second squared",
                ),
                ("5m rope, 100m sprint, 10t truck", "5 meter rope, 100 meter sprint, 10 ton truck"),
                ("5m people, 5M users, 5k run", "5 million people, 5M users, 5 k run"),
                ("in 5m, 2m new jobs, it is 5m", "in 5 minutes, 2 million new jobs, it is 5 million"),
                ("In 2019 MP Ito, July 4, W. spoke", "In 2019 MP Ito, July 4, W. spoke"),
                ("Gate 5B, page 7s, 221B Baker Street", "Gate 5 B, page 7 s, 221 B Baker Street"),
                ("5 N·m, 10st 5lb, a 401(k)", "5 newton meters, 10 stone 5 pounds, a 4 oh 1 k"),
                ("10 in high school, 10 in high", "10 in high school, 10 inches high"),
                ("5 ft 10 in, 5 in the", "5 feet 10 inches, 5 in the"),
                ("6 lbs. of, 6 lbs. The", "6 pounds of, 6 pounds. The"),
                ("5 m², 20 sq ft, a 5-km race", "5 square meters, 20 square feet, a 5 kilometer race"),
                ("5 dollars/hr, 3/day", "5 dollars per hour, 3 per day"),
                ("a few km, per kWh", "a few kilometers, per kilowatt hour"),
                ("5s2, 5s3", "5 second squared, 5s3"),
                ("5 apples, 3 mice, 4K, 5G", "5 apples, 3 mice, 4K, 5G"),
                ("1/2 mi, 1 1/2 mi", "1/2 mile, 1 1/2 miles"),
            ],
        );
    }

    #[test]
    fn every_unit_as_a_last_word() {
        for (symbol, _, many) in UNITS.iter() {
            if matches!(*symbol, "A" | "in" | "b") {
                continue;
            }
            let mut text = format!("It is 7 {symbol}");
            mend(&mut text);
            // Of few, a rate's hundredths.
            let plural = match *symbol {
                "pt" => "pints",
                "bps" => "basis points",
                _ => many,
            };
            assert_eq!(text, format!("It is 7 {plural}"), "{symbol}");
        }
    }

    #[test]
    fn a_symbol_is_listed_once() {
        for (at, (symbol, ..)) in UNITS.iter().enumerate() {
            assert!(UNITS[..at].iter().all(|(other, ..)| other != symbol), "{symbol}");
        }
    }
}
