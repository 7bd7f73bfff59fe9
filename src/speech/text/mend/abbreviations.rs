//! Short forms: their words, and their mark where it was the sentence's too.

use std::sync::LazyLock;

use super::dates::is_month;
use super::{
    STARTERS, begins_anew, each, ends_line, ends_sentence, gap, goes_on, is_capitalised, is_digit,
    last_word, next_word, re, require, rows, tail,
};
use super::{rewrite, roman, stop, times};

type Forms = LazyLock<Vec<(&'static str, &'static str)>>;

/// The short forms of a kind, with their long forms.
fn forms(kind: &str) -> Vec<(&'static str, &'static str)> {
    let all = rows(include_str!("abbreviations/forms.txt"));
    all.filter(|[of, _, _]| *of == kind).map(|[_, short, long]| (short, long)).collect()
}

static TITLES: Forms = LazyLock::new(|| forms("title"));
static NUMBERED: Forms = LazyLock::new(|| forms("numbered"));
static RUNNING: Forms = LazyLock::new(|| forms("running"));
static TRAILING: Forms = LazyLock::new(|| forms("trailing"));

fn long(table: &[(&'static str, &'static str)], short: &str) -> Option<&'static str> {
    table.iter().find(|(of, _)| *of == short).map(|(_, long)| *long)
}

pub(super) fn mend(text: &mut String) {
    streets(text);
    times::verses(text);
    each(text, re!(r"(?-u:\b)([A-Za-z]{1,7})\."), |c, before, after| {
        let short = &c[1];
        // A part of a word, or of something with dots in it.
        if before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '\'' | '@' | '/'))
            || after.starts_with(char::is_alphanumeric) && !matches!(short, "p" | "pp" | "No" | "no")
        {
            return None;
        }
        expanded(short, before, after)
    });
    rewrite(text, re!(r"(?-u:\b)vs(?-u:\b)"), |_, out| *out += "versus");
    each(text, re!(r"(?-u:\b)[Ww]/(o(?-u:\b))?"), |c, before, after| {
        let word = if c.get(1).is_some() { "without" } else { "with" };
        let apart = !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '\''));
        (apart && after.starts_with(' ')).then(|| word.to_owned())
    });
    // As the British write them.
    each(text, re!(r"(?-u:\b)(Dr|Mrs|Mr|Ms|Prof|St|Sgt|Capt|Lt|Mt) "), |c, before, after| {
        let mut name = after.chars();
        let named =
            name.next().is_some_and(char::is_uppercase) && name.next().is_some_and(char::is_lowercase);
        require(named && !before.ends_with(char::is_alphanumeric))?;
        let long = long(&TITLES, &c[1]).or_else(|| long(&UPSTREAM, &c[1]))?;
        Some(format!("{long} "))
    });
    each(text, re!(r"([A-Z][a-z]+) v\. "), |c, _, after| {
        is_capitalised(next_word(after)).then(|| format!("{} versus ", &c[1]))
    });
    initials(text);
    months(text);
    let dates = re!(concat!(
        r"(?-u:\b)(etc|Ave|Mon|Tues|Wed|Thurs|Fri|Sat|Jan|Feb|Mar|Apr|Aug|Sept|Oct|Nov|Dec)",
        r"\.(,| +[0-9a-z])"
    ));
    each(text, dates, |c, _, _| Some(format!("{}{}", &c[1], &c[2])));
}

/// A short form's words, with a mark where a sentence ends in it.
fn expanded(short: &str, before: &str, after: &str) -> Option<String> {
    let line = if ends_line(after) { "." } else { "" };
    let number = after.starts_with(' ') && goes_on(after, &[' ']);
    let last = if before.ends_with(' ') { last_word(before) } else { "" };
    let article = matches!(last, "a" | "an" | "the" | "my" | "his" | "her" | "our" | "your" | "their");
    if short == "Dr" && is_drive(before, after) {
        return Some(format!("drive{}", stop(".", after)));
    }
    if let Some(long) = long(&TITLES, short) {
        // "I spoke to the Dr. He was kind."
        let stop = if article && ends_sentence(after) { "." } else { line };
        return Some(format!("{long}{stop}"));
    }
    if let Some(long) = long(&RUNNING, short) {
        // "She is a temp. He is not."
        let word =
            matches!(short, "temp" | "Temp") && ends_sentence(after) && (article || !ends_line(after));
        return (!word).then(|| format!("{long}{line}"));
    }
    if NUMBERED.iter().any(|(of, _)| *of == short) {
        let word = article && matches!(short, "App" | "Art" | "Ex" | "Sec");
        let answer = short == "no"
            && (matches!(last, "answered" | "replied" | "said" | "say" | "says")
                || before.ends_with("answer is ")
                || before.ends_with("answer was "));
        return (!word && !answer).then(|| numbered(short, after))?;
    }
    let named = is_capitalised(next_word(after)) && after.starts_with(' ');
    let of_name = is_capitalised(last) || before.ends_with(", ");
    match short {
        "Co" if !of_name && COUNTIES.contains(&next_word(after)) => Some("county".to_owned()),
        "Sr" if named && !of_name && !STARTERS.contains(&next_word(after)) => Some("sister".to_owned()),
        "Sr" => Some(format!("senior{}", stop(".", after))),
        "Ste" if named => Some("saint".to_owned()),
        "Ste" => Some(format!("suite{}", stop(".", after))),
        "ft" | "feat" if named && !before.trim_end_matches(' ').ends_with(is_digit) => {
            Some("featuring".to_owned())
        }
        "ft" | "feat" => None,
        // A year's, or a guess.
        "Est" | "est" if re!("^ (?:in )?[12][0-9]{3}(?:[^0-9,.]|[,.]?$|[,.] )").is_match(after) => {
            Some("established".to_owned())
        }
        "est" if number => Some("estimated".to_owned()),
        "c" | "ca" => number.then(|| "circa".to_owned()),
        "Ed" | "ed" | "Eds" | "eds" => Some(edition(short, before, after)),
        "al" if last_word(before) != "et" => None,
        _ => {
            let stop = if begins_anew(after) { "." } else { "" };
            Some(format!("{}{stop}", long(&TRAILING, short)?))
        }
    }
}

/// "No. 5", but "No. I won't"; a figure and a volume without a number too.
fn numbered(short: &str, after: &str) -> Option<String> {
    let next = after.strip_prefix(' ').unwrap_or(after);
    let word = next_word(next);
    let digit = next.starts_with(|c: char| c.is_ascii_digit() || c == '#');
    let strong = matches!(
        short,
        "App" | "Ch" | "Fig" | "fig" | "Figs" | "figs" | "Sec" | "Vol" | "vol" | "Vols" | "vols"
    );
    // "modern Art. A new show"; "Fig. A shows", "Vol. I of it".
    let clear = !ends_sentence(after);
    let letter = match word {
        "A" => short.starts_with(['F', 'f', 'V', 'v']) || clear,
        "I" => strong && clear,
        _ => word.len() == 1 || roman::value(word).is_some(),
    };
    let lettered = is_capitalised(word) && letter && !matches!(short, "p" | "P" | "no" | "No");
    let small = word.len() > 1 && word.chars().all(|c| "ivxl".contains(c));
    let preface = matches!(short, "p" | "pp") && small;
    let long = long(&NUMBERED, short)?;
    if digit || lettered || preface {
        return Some(format!("{long}{}", gap(after.starts_with(is_digit))));
    }
    let always =
        matches!(short, "Fig" | "fig" | "Figs" | "figs" | "Vol" | "vol" | "Vols" | "vols" | "pp");
    // "I ate a fig."
    let word = short.starts_with(['f', 'v']) && ends_sentence(after);
    (always && !word).then(|| format!("{long}{}", stop(".", after)))
}

/// "2nd ed." is an edition, "(ed.)" an editor, "Ed." a man.
fn edition(short: &str, before: &str, after: &str) -> String {
    let at = before.ceil_char_boundary(before.len().saturating_sub(16));
    let edition = re!("(?:[0-9](?:st|nd|rd|th)|revised|rev) $").is_match(&before[at..]);
    let word = match (edition, before.ends_with('(')) {
        (true, _) => "edition",
        (_, true) if short.ends_with('s') => "editors",
        (_, true) => "editor",
        _ => short,
    };
    let within = before.ends_with('(') && after.starts_with(')');
    format!("{word}{}", if within { "" } else { stop(".", after) })
}

/// "12 Oak Dr.", "on Oak Dr. near it".
fn is_drive(before: &str, after: &str) -> bool {
    let near = tail(before);
    let house = re!("(?:^|[^0-9.,])[0-9]{1,5} (?:[A-Z][a-z']+ ){1,3}$").is_match(near);
    let along = re!("(?:along|at|down|on) [A-Z][a-z']+ $").is_match(near) && ends_line(after);
    let word = last_word(near);
    let street = is_capitalised(word)
        && word.len() > 2
        && !STARTERS.contains(&word)
        && !matches!(word, "Dear" | "Hello" | "Prof" | "Thanks" | "professor")
        && after.strip_prefix(' ').is_some_and(|next| next.starts_with(char::is_lowercase))
        && near.ends_with(' ');
    // "At 5 Call Dr. Lee".
    let next = next_word(after);
    let named = is_capitalised(next)
        && !STARTERS.contains(&next)
        && !matches!(next, "Apt" | "Apartment" | "Suite" | "Ste" | "Unit");
    (house && !named) || along || street
}

/// Counties whose names follow theirs: "Co. Durham".
const COUNTIES: &[&str] = &[
    "Antrim", "Armagh", "Carlow", "Cavan", "Clare", "Cork", "Derry", "Donegal", "Down", "Dublin",
    "Durham", "Fermanagh", "Galway", "Kerry", "Kildare", "Kilkenny", "Laois", "Leitrim", "Limerick",
    "Londonderry", "Longford", "Louth", "Mayo", "Meath", "Monaghan", "Offaly", "Roscommon", "Sligo",
    "Tipperary", "Tyrone", "Waterford", "Westmeath", "Wexford", "Wicklow",
];

/// Titles of upstream's that are mended where they have no mark.
const UPSTREAM: [(&str, &str); 4] =
    [("Mrs", "misess"), ("Mr", "mister"), ("Ms", "miss"), ("St", "saint")];

fn streets(text: &mut String) {
    let street = re!(r"([A-Z][A-Za-z']*|[0-9](?:st|nd|rd|th)) +St\.( +[a-z]|[ ]*[,;:!?)\n]|[ ]*$)");
    each(text, street, |c, _, after| {
        let ends = c[2].ends_with('\n') || (c[2].trim().is_empty() && after.is_empty());
        Some(format!("{} street{}{}", &c[1], if ends { "." } else { "" }, &c[2]))
    });
    let numbered = re!(r"([0-9](?:st|nd|rd|th)) +St\.");
    each(text, numbered, |c, _, after| Some(format!("{} street{}", &c[1], stop(".", after))));
    let within = re!(
        r"([A-Z][A-Za-z']*) +St\.( +(?:Apt|Apartment|Station|Ste|Suite|Unit|NW|NE|SW|SE|[NSEW])(?-u:\b)| +#)"
    );
    each(text, within, |c, _, _| Some(format!("{} street{}", &c[1], &c[2])));
    // "E. 5th street".
    each(text, re!(r"(?-u:\b)([NSEW])\. ([0-9]{1,3}(?:st|nd|rd|th) )"), |c, before, _| {
        let side = match &c[1] {
            "N" => "north",
            "S" => "south",
            "E" => "east",
            _ => "west",
        };
        (!before.ends_with('.')).then(|| format!("{side} {}", &c[2]))
    });
    let last = re!(r"([A-Z][a-z']+|[0-9](?:st|nd|rd|th)) St\.");
    each(text, last, |c, _, after| ends_sentence(after).then(|| format!("{} street.", &c[1])));
    let bare = re!(r"([A-Z][a-z']+|[0-9](?:st|nd|rd|th)) St(?-u:\b)");
    each(text, bare, |c, _, after| {
        let street = !after.starts_with('.') && !is_capitalised(next_word(after)) && &c[1] != "The";
        street.then(|| format!("{} street", &c[1]))
    });
}

/// Words whose letter is no one's initial: "Vitamin C. Bananas have it."
const LETTERED: &[&str] = &[
    "Appendix", "Block", "Class", "Exhibit", "Figure", "Gate", "Grade", "Group", "Hepatitis", "Item",
    "Option", "Part", "Plan", "Point", "Schedule", "Section", "Step", "Table", "Team", "Type", "Unit",
    "Vitamin", "vitamin", "plan", "option", "letter", "hepatitis", "grade", "class", "degree",
    "degrees", "type", "group", "section",
];

/// "J. R. R. Tolkien", "George W. Bush".
fn initials(text: &mut String) {
    each(text, re!(r"(?-u:\b)([A-Z])\. "), |c, before, after| {
        let apart = before.is_empty() || before.ends_with([' ', '\n', '(', '"', '“', '-']);
        let word = if before.ends_with(' ') { last_word(before) } else { "" };
        // "She got a B. Mary", "What? A. Nothing."
        let grade = matches!(word, "a" | "an") || (&c[1] == "A" && before.trim_end().ends_with('?'));
        let pronoun = &c[1] == "I" && !word.is_empty() && !is_capitalised(word);
        let name = is_capitalised(next_word(after)) && !after.starts_with(' ');
        let sentence =
            ends_sentence(&format!(" {}", &after[..after.ceil_char_boundary(32.min(after.len()))]));
        let initial = apart && name && !grade && !pronoun && !LETTERED.contains(&word) && !sentence;
        // No fifth and no tenth: "John V. Lindsay".
        let numeral = matches!(&c[1], "I" | "V" | "X");
        initial
            .then(|| format!("{} ", if numeral { c[1].to_ascii_lowercase() } else { c[1].to_owned() }))
    });
}

/// "Jan" and "Mar" are months next to a number or another month, and where a time is told; else names.
fn months(text: &mut String) {
    const TIMES: [&str; 19] = [
        "after", "before", "by", "during", "each", "early", "every", "from", "in", "In", "last",
        "late", "mid", "next", "of", "since", "this", "to", "until",
    ];
    each(text, re!(r"(?-u:\b)(?:Jan|Mar)(?-u:\b)"), |c, before, after| {
        let before = tail(before);
        let joined = before.ends_with(['-', '–', '/']) || after.starts_with(['-', '–', '/', '.']);
        let number = re!("[0-9](?:st|nd|rd|th)?,? (?:of )?$").is_match(before)
            || re!("^,? '?[0-9]").is_match(after);
        let last = last_word(before);
        let list = re!("^(?:,? (?:and|or|to|through)|,|:)? ?([A-Z][a-z]+)").captures(after);
        let month = list.is_some_and(|list| is_month(&list[1]))
            || is_month(last)
            || re!("(?:and|or|to|,) $").is_match(before)
                && is_month(last_word(before.rsplitn(2, [' ', ',']).last().unwrap_or_default()));
        (!joined && !number && !month && !TIMES.contains(&last)).then(|| c[0].to_ascii_lowercase())
    });
}

/// A line's last word is no title for the mark that the line is given; one with a mark, or a capital, is
/// one and keeps the line's.
pub(super) fn line_ends(text: &mut String) {
    let titles = re!(
        r"(?im)(?-u:\b)(mrs|ms|mr|dr|st|co|jr|maj|gen|drs|rev|lt|hon|sgt|capt|esq|ltd|col|ft)(\.?) *$"
    );
    each(text, titles, |c, before, _| {
        let one_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '\'');
        let title = !c[2].is_empty() || is_capitalised(&c[1]);
        (!one_word).then(|| format!("{}{}", &c[1], if title { ".." } else { " ." }))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sentence_ends_in_a_short_form_that_goes_on() {
        let read = |text: String| {
            let mut text = text;
            mend(&mut text);
            text
        };
        for (short, long) in TITLES.iter().chain(RUNNING.iter()).chain(TRAILING.iter()) {
            let before = if *short == "al" { "et" } else { "by" };
            let text = format!("Seen {before} {short}. Ito and others");
            assert_eq!(read(text), format!("Seen {before} {long} Ito and others"));
        }
        for (short, long) in NUMBERED.iter() {
            assert_eq!(read(format!("Seen in {short}. 5 of it")), format!("Seen in {long} 5 of it"));
        }
        for (short, long) in TRAILING.iter() {
            let before = if *short == "al" { "et" } else { "by" };
            let text = format!("Seen {before} {short}. The others");
            assert_eq!(read(text), format!("Seen {before} {long}. The others"));
        }
    }

    #[test]
    fn examples() {
        super::super::writes(
            mend,
            &[
                ("Prof. Ito climbed Mt. Fuji.", "professor Ito climbed mount Fuji."),
                ("Acme Inc. The firm", "Acme incorporated. The firm"),
                ("Acme Inc. said so", "Acme incorporated said so"),
                ("No. 5, Fig. 3, pp. 5-7. No. I won't.", "number 5, figure 3, pages 5-7. No. I won't."),
                ("et al. The, vs. them, cf. it", "et al. The, versus them, compare it"),
                ("J. R. R. Tolkien and George W. Bush", "J R R Tolkien and George W Bush"),
                ("It was I. He left. Plan B. Bananas.", "It was I. He left. Plan B. Bananas."),
                ("the 2nd ed. of it, Ed. He, (ed.)", "the 2nd edition of it, Ed. He, (editor)"),
                ("Mr Smith of St Ives", "mister Smith of saint Ives"),
                ("Main St. The bus", "Main street. The bus"),
                (
                    "I ate a fig. She is a temp. He said no. 3 left",
                    "I ate a fig. She is a temp. He said no. 3 left",
                ),
                (
                    "modern Art. A show, Art. A of, Fig. A shows",
                    "modern Art. A show, article A of, figure A shows",
                ),
                (
                    "12 Oak Dr. The, on Oak Dr. near, Dr. Oak",
                    "12 Oak drive. The, on Oak drive near, doctor Oak",
                ),
                (
                    "Sr. Mary, Sam Sr. said, Sault Ste. Marie",
                    "sister Mary, Sam senior said, Sault saint Marie",
                ),
                ("Jan left in Jan, on 5 Jan, Jan-Mar", "jan left in Jan, on 5 Jan, Jan-Mar"),
                ("Acme Corp. Sales fell. a B. Mary", "Acme corporation. Sales fell. a B. Mary"),
                ("Gen. 1:1, 1 Cor 13:4, Dan 5:30", "Genesis 1:1, first Corinthians 13:4, Dan 5:30"),
            ],
        );
        super::super::writes(
            line_ends,
            &[("the ms\nthe Dr\nthe Co.\nit", "the ms .\nthe Dr..\nthe Co..\nit")],
        );
    }
}
