//! Roman numerals, where what stands around them says that they are numbers.

use super::{each, ends_line, is_capitalised, last_word, next_word, re, require};

/// Names of those who are counted: "Henry the eighth".
const RULERS: &[&str] = &[
    "Albert", "Alexander", "Alfonso", "Amenhotep", "Anne", "Artaxerxes", "Baldwin", "Basil",
    "Benedict", "Boniface", "Carl", "Carlos", "Catherine", "Charles", "Christian", "Clement",
    "Cleopatra", "Constantine", "Cyrus", "Darius", "David", "Edward", "Elizabeth", "Emmanuel",
    "Eugene", "Felipe", "Ferdinand", "Francis", "Franz", "Frederick", "Friedrich", "George", "Gregory",
    "Gustav", "Haakon", "Harald", "Harold", "Heinrich", "Henri", "Henry", "Hussein", "Innocent",
    "Isabella", "Ivan", "James", "Joan", "John", "Joseph", "Julius", "Justinian", "Karl", "Kamehameha",
    "Leo", "Leopold", "Louis", "Ludwig", "Manuel", "Margaret", "Margrethe", "Maria", "Martin", "Mary",
    "Maximilian", "Mehmed", "Michael", "Mohammed", "Murad", "Napoleon", "Nicholas", "Olav", "Otto",
    "Paul", "Pedro", "Peter", "Philip", "Philippe", "Pius", "Ptolemy", "Rama", "Ramesses", "Ramses",
    "Richard", "Robert", "Rudolf", "Selim", "Sigismund", "Sixtus", "Stephen", "Suleiman", "Sylvester",
    "Theodosius", "Thutmose", "Umberto", "Urban", "Victor", "Wilhelm", "William", "Willem", "Xerxes",
];
/// What makes "Charles I" a king, and not two words.
const RANKS: &[&str] = &[
    "Czar", "Elector", "Emperor", "Empress", "Kaiser", "King", "Pharaoh", "Pope", "Prince", "Queen",
    "Sultan", "Tsar", "Tsarina",
];
/// What is numbered, in small letters.
const NUMBERED: &[&str] = &[
    "act", "annex", "apollo", "appendix", "article", "book", "bowl", "canto", "category", "chapter",
    "class", "division", "episode", "factor", "figure", "gemini", "grade", "group", "level", "mark",
    "mk", "movement", "number", "page", "pages", "part", "parts", "phase", "quarter", "saturn",
    "scene", "schedule", "section", "stage", "symphony", "table", "tier", "title", "type", "unit",
    "verse", "volume", "volumes", "war", "wars",
];
/// What of it has a tenth as often as a letter.
const HAS_TENTH: &[&str] =
    &["act", "apollo", "article", "book", "bowl", "canto", "chapter", "title", "volume"];
const VALUES: [(char, u32); 7] =
    [('I', 1), ('V', 5), ('X', 10), ('L', 50), ('C', 100), ('D', 500), ('M', 1000)];
const PARTS: [(u32, &str); 13] = [
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
];

/// What a numeral of capitals stands for, where it is written as it ought to be; 1 to 3999.
pub(super) fn value(numeral: &str) -> Option<u32> {
    let digit = |c: char| VALUES.iter().find(|(of, _)| *of == c).map(|(_, value)| *value);
    let digits: Vec<u32> = numeral.chars().take(16).map(digit).collect::<Option<_>>()?;
    let signed = digits.iter().enumerate().map(|(at, &value)| {
        let value = i64::from(value);
        if digits.get(at + 1).is_some_and(|&next| i64::from(next) > value) { -value } else { value }
    });
    let sum = u32::try_from(signed.sum::<i64>()).ok().filter(|sum| (1..4000).contains(sum))?;
    let (mut rest, mut written) = (sum, String::new());
    for (value, letters) in PARTS {
        while rest >= value {
            written += letters;
            rest -= value;
        }
    }
    (written == numeral).then_some(sum)
}

fn ending(n: u32) -> &'static str {
    match (n % 100, n % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    }
}

fn ordinal(n: u32) -> String {
    format!("{n}{}", ending(n))
}

pub(super) fn mend(text: &mut String) {
    staged(text);
    lists(text);
    let numeral = re!(r"(?-u:\b)([IVXLCDM]{1,15})(st|nd|rd|th)?(?-u:\b)");
    each(text, numeral, |c, before, after| {
        let n = value(&c[1])?;
        // In a word with an accent or an apostrophe: "I'm", "l'XI".
        let ruler = after.starts_with("'s") && RULERS.contains(&last_word(before));
        let apostrophe = after.starts_with('\'') && &c[1] == "I" && !ruler;
        require(!(apostrophe || before.ends_with('\'') || before.ends_with(char::is_alphanumeric)))?;
        match c.get(2) {
            Some(_) => (c[1].len() > 1).then(|| ordinal(n)),
            None => read(&c[1], n, before, after),
        }
    });
    each(text, re!(r"(?-u:\b)WW(II?)(?-u:\b)"), |c, _, _| Some(format!("World War {}", c[1].len())));
    // No words, in small letters too.
    each(text, re!(r"(?-u:\b)(x{0,2}v?ii{1,2})(?-u:\b)"), |c, before, after| {
        let within = before
            .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '\'' | '-' | '/'))
            || after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '\'' | '-' | '/'));
        (!within).then(|| value(&c[1].to_ascii_uppercase()).map(|n| n.to_string()))?
    });
    let small = re!(
        r"(?i)(?-u:\b)(act|book|chapter|page|pages|part|phase|scene|section|stage|title|type|volume) ([ivxl]{2,6})(?-u:\b)"
    );
    each(text, small, |c, _, _| {
        let n = value(&c[2].to_ascii_uppercase())?;
        Some(format!("{} {n}", &c[1]))
    });
}

/// "Stage IIIB".
fn staged(text: &mut String) {
    let stage =
        re!(r"(?-u:\b)((?i:class|grade|group|level|phase|stage|type) )([IVX]{1,4})([A-C])(?-u:\b)");
    each(text, stage, |c, _, _| Some(format!("{}{} {}", &c[1], value(&c[2])?, &c[3])));
}

fn is_numbered(lower: &str) -> bool {
    NUMBERED.contains(&lower) || lower.strip_suffix('s').is_some_and(|one| NUMBERED.contains(&one))
}

/// "Chapters I-IV", "Books I and IV", "pp. iv-xii": a list's members tell what the others are.
fn lists(text: &mut String) {
    let list = re!(
        r"(?-u:\b)[IVXL]{1,7}(?:(?:[-–]|, (?:and |or )?| (?:and|or|to|through|&) )[IVXL]{1,7})+(?-u:\b)"
    );
    each(text, list, |c, before, after| {
        let numerals: Vec<&str> = re!("[IVXL]+").find_iter(&c[0]).map(|m| m.as_str()).collect();
        let values: Vec<u32> = numerals.iter().map(|of| value(of)).collect::<Option<_>>()?;
        let word = if before.ends_with(' ') { last_word(before) } else { "" };
        let labelled = is_numbered(&word.to_lowercase());
        let long = numerals.iter().any(|of| of.len() > 1) && !c[0].contains('L');
        let joined = c[0].contains(['-', '–']);
        let clear = joined || re!("and|or|to|through|&").is_match(&c[0]);
        let first = numerals[0] != "I" || joined;
        let inside = before
            .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '\'' | '.' | '/'))
            || after.starts_with(['-', '–', '\'', '/']);
        let rising = values.is_sorted_by(|a, b| a < b);
        let written = |write: fn(u32) -> String| {
            let numeral = |c: &regex::Captures| value(&c[0]).map_or_else(String::new, write);
            re!("[IVXL]+").replace_all(&c[0], numeral).into_owned()
        };
        // "Charles I, II and III".
        if RULERS.contains(&word) && rising && clear && !inside && !joined {
            return Some(written(|n| format!("the {}", ordinal(n))));
        }
        let numbers = rising && !inside && (labelled || (long && clear && first));
        numbers.then(|| written(|n| n.to_string()).replace(['-', '–'], " to "))
    });
    let small = re!(
        r"(?i)(?-u:\b)((?:act|book|chapter|page|part|section|volume)s?) ([ivxl]{1,6})[-–]([ivxl]{1,6})(?-u:\b)"
    );
    each(text, small, |c, _, _| {
        let [from, to] = [2, 3].map(|at| value(&c[at].to_ascii_uppercase()));
        (from? < to?).then(|| format!("{} {} to {}", &c[1], from.unwrap_or(0), to.unwrap_or(0)))
    });
}

fn read(numeral: &str, n: u32, before: &str, after: &str) -> Option<String> {
    let small = numeral.chars().all(|c| "IVX".contains(c));
    if small && matches!(next_word(after), "century" | "centuries") && after.starts_with(' ') {
        return Some(ordinal(n));
    }
    let word = if before.ends_with([' ', '-']) { last_word(before) } else { "" };
    let lower = word.to_lowercase();
    let capital = is_capitalised(word);
    if small && RULERS.contains(&word) {
        let rank = last_word(&before[..before.len() - 1 - word.len()]);
        let ends = ends_line(after) || after.starts_with([',', '.', ';', ':', ')', '?', '!', '\'']);
        let first = RANKS.contains(&rank)
            || after.starts_with(" of ")
            || (ends && before.strip_suffix(' ').is_some_and(|before| before.ends_with(word)));
        return (n > 1 || first).then(|| format!("the {}", ordinal(n)));
    }
    let long = numeral.len() > 1;
    if is_numbered(&lower) && numeral.chars().all(|c| "IVXL".contains(c)) {
        // "the part I like"; "Section L" and "Type C" are letters.
        let number = match numeral {
            "I" => {
                // "Vol. I" has its word by now.
                let written =
                    matches!(lower.as_str(), "appendix" | "chapter" | "figure" | "section" | "volume");
                (capital || (written && is_about(after)))
                    && (ends_line(after)
                        || !next_word(after).starts_with(|c: char| c.is_lowercase())
                        || is_about(after))
            }
            "L" => false,
            // "Factor X", "Type X".
            "X" => capital && HAS_TENTH.contains(&lower.as_str()),
            _ => long || capital,
        };
        return number.then(|| n.to_string());
    }
    match numeral {
        // A drip, an editor, a name; elsewhere the fourth of something, the sixth, the eleventh.
        "IV" | "VI" if capital && is_name(word) => Some(n.to_string()),
        "IV" => Some("i v".to_owned()),
        "VI" | "XI" | "XX" => None,
        _ if long && small => Some(n.to_string()),
        // 2024, at the end of a film.
        _ if numeral.len() > 3 && numeral.starts_with('M') => Some(n.to_string()),
        _ if numeral.contains("III") || numeral.contains("XXX") => Some(n.to_string()),
        _ => None,
    }
}

fn is_name(word: &str) -> bool {
    word.len() > 1
        && !matches!(word, "An" | "The" | "His" | "Her" | "Its" | "This" | "That" | "No" | "Start")
}

/// Whether a sentence goes on about a first part: "Part I of", not "Part I like".
fn is_about(after: &str) -> bool {
    let words = [
        "and", "athletics", "baseball", "basketball", "begins", "clinical", "college", "covers",
        "deals", "describes", "diabetes", "ended", "ends", "error", "errors", "football", "for",
        "hockey", "in", "is", "of", "on", "or", "program", "railroad", "school", "schools", "shows",
        "starts", "studies", "study", "team", "teams", "through", "to", "trauma", "trial", "trials",
        "was", "began", "broke", "veterans", "survivors",
    ];
    words.contains(&next_word(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let cases = [("I", 1), ("IV", 4), ("XIV", 14), ("LVIII", 58), ("XCIX", 99), ("MCMXCIV", 1994)];
        for (numeral, n) in cases {
            assert_eq!(value(numeral), Some(n));
        }
        for word in ["", "IIII", "VX", "IC", "CIVIL", "DID", "MIXX", "A", "MMMM"] {
            assert_eq!(value(word), None, "{word}");
        }
    }

    #[test]
    fn examples() {
        super::super::writes(
            mend,
            &[
                ("Henry VIII, Henry V's, Louis XIV", "Henry the 8th, Henry the 5th's, Louis the 14th"),
                (
                    "World War I, World War II, Act III, act iv",
                    "World War 1, World War 2, Act 3, act 4",
                ),
                ("King Charles I and Charles I know", "King Charles the 1st and Charles I know"),
                ("Chapter I", "Chapter 1"),
                ("the Part I like, and I", "the Part I like, and I"),
                (
                    "a MIX of CIVIL, DID, MD, DC, CD, LI, XL, D, C, L, M, X",
                    "a MIX of CIVIL, DID, MD, DC, CD, LI, XL, D, C, L, M, X",
                ),
                ("the XIX century, the XIXth", "the 19th century, the 19th"),
                ("an IV drip, Rocky IV", "an i v drip, Rocky 4"),
                (
                    "Chapters I-IV; IV, V and VI; III-V; an I-V",
                    "Chapters 1 to 4; 4, 5 and 6; 3 to 5; an I-V",
                ),
                (
                    "James I's, Henry I, who, James I know",
                    "James the 1st's, Henry the 1st, who, James I know",
                ),
                ("Level I trauma, Factor X, Chapter X", "Level 1 trauma, Factor X, Chapter 10"),
                ("MMXXIV, Super Bowl LVIII", "2024, Super Bowl 58"),
                ("Malcolm X, Mac OS X, Vitamin C, Type C", "Malcolm X, Mac OS X, Vitamin C, Type C"),
            ],
        );
    }
}
