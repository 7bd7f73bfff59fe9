//! What stands around a colon: times, ratios, verses, ports.

use super::{each, gap, goes_on, group, is_digit, is_word, last_word, next_word, re, require};

/// Books whose chapters and verses have a colon between them.
const BOOKS: &[&str] = &[
    "Acts", "Amos", "Chronicles", "Colossians", "Corinthians", "Daniel", "Deuteronomy", "Ecclesiastes",
    "Ephesians", "Esther", "Exodus", "Ezekiel", "Ezra", "Galatians", "Genesis", "Habakkuk", "Haggai",
    "Hebrews", "Hosea", "Isaiah", "James", "Jeremiah", "Job", "Joel", "John", "Jonah", "Joshua",
    "Jude", "Judges", "Kings", "Lamentations", "Leviticus", "Luke", "Malachi", "Mark", "Matthew",
    "Micah", "Nahum", "Nehemiah", "Numbers", "Obadiah", "Peter", "Philemon", "Philippians", "Proverbs",
    "Psalm", "Psalms", "Quran", "Revelation", "Romans", "Ruth", "Samuel", "Sura", "Surah",
    "Thessalonians", "Timothy", "Titus", "Zechariah", "Zephaniah",
];

/// Books of the Bible as they are written before a chapter and a verse.
#[rustfmt::skip]
const SHORT: &[(&str, &str)] = &[
    ("Chr", "Chronicles"), ("Chron", "Chronicles"), ("Col", "Colossians"), ("Cor", "Corinthians"),
    ("Dan", "Daniel"), ("Deut", "Deuteronomy"), ("Eccl", "Ecclesiastes"), ("Eph", "Ephesians"), ("Ex", "Exodus"),
    ("Exod", "Exodus"), ("Ezek", "Ezekiel"), ("Gal", "Galatians"), ("Gen", "Genesis"), ("Heb", "Hebrews"),
    ("Hos", "Hosea"), ("Isa", "Isaiah"), ("Jas", "James"), ("Jer", "Jeremiah"), ("Jn", "John"), ("Josh", "Joshua"),
    ("Judg", "Judges"), ("Lev", "Leviticus"), ("Lk", "Luke"), ("Matt", "Matthew"), ("Mk", "Mark"), ("Mt", "Matthew"),
    ("Num", "Numbers"), ("Pet", "Peter"), ("Phil", "Philippians"), ("Prov", "Proverbs"), ("Ps", "Psalm"),
    ("Pss", "Psalms"), ("Rev", "Revelation"), ("Rom", "Romans"), ("Sam", "Samuel"), ("Thess", "Thessalonians"),
    ("Tim", "Timothy"), ("Zech", "Zechariah"),
];
/// Names of people too, and short forms of other words: books only with a mark, or a number before.
const NAMES_TOO: [&str; 11] =
    ["Col", "Dan", "Ex", "Matt", "Num", "Phil", "Pet", "Rev", "Sam", "Tim", "Mt"];

/// "Gen. 1:1", "1 Cor 13:4".
pub(super) fn verses(text: &mut String) {
    let verse = re!(r"(?-u:\b)(?:([123]) )?([A-Z][a-z]{1,5})(\.?) ([0-9]{1,3}:[0-9])");
    each(text, verse, |c, before, _| {
        let (name, certain) = (&c[2], c.get(1).is_some() || !c[3].is_empty());
        let (_, book) = SHORT.iter().find(|(of, _)| *of == name)?;
        require(certain || !NAMES_TOO.contains(&name))?;
        let which = match group(c, 1) {
            "1" => "first ",
            "2" => "second ",
            "" => "",
            _ => "third ",
        };
        (!before.ends_with(is_digit)).then(|| format!("{which}{book} {}", &c[4]))
    });
}

pub(super) fn mend(text: &mut String) {
    let port = re!(r"(?i)((?-u:\b)localhost|[0-9a-z-]+(?:\.[0-9a-z-]+)+):([0-9]{2,5})(?-u:\b)");
    each(text, port, |c, _, after| {
        let decimal =
            c[1].matches('.').count() == 1 && c[1].bytes().all(|c| c.is_ascii_digit() || c == b'.');
        (!decimal && !after.starts_with(':')).then(|| format!("{} colon {}", &c[1], &c[2]))
    });
    let parts = re!(r"([0-9]+(?:\.[0-9]+)?)((?::[0-9]+)+)(?:\.([0-9]+))?");
    each(text, parts, |c, before, after| {
        let (first, rest) = (&c[1], &c[2][1..]);
        let fraction = group(c, 3);
        require(!goes_on(after, &['.', ':']))?;
        let clock = match *rest.split(':').collect::<Vec<_>>() {
            [second] => pair(first, second, before, after),
            [minutes, seconds] if [minutes, seconds].map(str::len) == [2, 2] && first.len() <= 2 => {
                match (minutes, seconds) {
                    ("00", "00") => {
                        pair(first, "00", before, after).or_else(|| Some(format!("{first}:00")))
                    }
                    _ => Some(timed(first, minutes, seconds)),
                }
            }
            [_, _] => Some(c[0].replace(':', " to ")),
            _ => Some(c[0].replace(':', " colon ")),
        };
        let clock = clock.unwrap_or_else(|| format!("{first}:{rest}"));
        match fraction {
            "" => Some(clock),
            // The point's digits, one by one, so that a minute keeps its own.
            _ if clock.contains(':') => {
                let digits: Vec<_> = fraction.chars().map(String::from).collect();
                Some(format!("{clock} point {}{}", digits.join(" "), gap(after.starts_with(is_word))))
            }
            _ if clock.ends_with(&format!(".{fraction}")) => Some(clock),
            _ => {
                let digits = super::super::numbers::spelled(fraction);
                Some(format!("{clock} point {digits}{}", gap(after.starts_with(is_word))))
            }
        }
    });
}

/// Nothing where it is a time that upstream reads well.
fn pair(first: &str, second: &str, before: &str, after: &str) -> Option<String> {
    if before.ends_with(' ') && BOOKS.contains(&last_word(before)) {
        return Some(format!("{first} {second}"));
    }
    let before = before.trim_end_matches(' ');
    let cue = last_word(before.strip_suffix(" of").unwrap_or(before));
    let thing = next_word(after);
    let ratio = matches!(cue, "ratio" | "odds" | "scale" | "aspect" | "ratios" | "outnumbered")
        || matches!(thing, "scale" | "ratio" | "odds" | "aspect" | "mix" | "mixture")
        || matches!(thing, "dilution" | "dilutions" | "solution");
    let minutes: u32 = second.parse().unwrap_or(60);
    let time = second.len() == 2 && first.len() <= 2 && minutes < 60;
    if ratio || !time {
        return Some(format!("{first} to {second}"));
    }
    let hour = first.parse().unwrap_or(0);
    // "7:00am", and what a clock has left.
    if minutes == 0 && re!(r"^[AaPp]\.?[Mm](?-u:\b)").is_match(after) {
        return Some(format!("{hour} "));
    }
    if minutes == 0 && hour > 0 && matches!(next_word(after), "left" | "remaining") {
        return Some(format!("{hour} minute{}", if hour == 1 { "" } else { "s" }));
    }
    (minutes == 0 && (13..=24).contains(&hour)).then(|| format!("{hour} hundred"))
}

fn timed(hours: &str, minutes: &str, seconds: &str) -> String {
    let zero = hours.bytes().all(|digit| digit == b'0');
    if zero || minutes.starts_with('0') {
        return format!("{hours}:{minutes}:{seconds}");
    }
    let seconds = match seconds {
        "00" => String::new(),
        _ if seconds.starts_with('0') => format!(" oh {seconds}"),
        _ => format!(" {seconds}"),
    };
    format!("{hours} {minutes}{seconds}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                (
                    "3:2, 16:9, 1:1000, a scale of 1:20",
                    "3 to 2, 16 to 9, 1 to 1000, a scale of 1 to 20",
                ),
                ("Psalm 23:4, John 3:16", "Psalm 23 4, John 3 16"),
                ("localhost:8080, 127.0.0.1:80", "localhost colon 8080, 127.0.0.1 colon 80"),
                ("5:30, 13:00, 1:30:00, 10:30:05", "5:30, 13 hundred, 1 30, 10 30 oh 05"),
                ("1:30.5", "1:30 point 5"),
                (
                    "7:00am, 1:00:00, 3:00 left, a 1:10 dilution",
                    "7 am, 1:00, 3 minutes left, a 1 to 10 dilution",
                ),
            ],
        );
    }
}
