use proptest::prelude::*;

use super::*;

const BOTH: [Faults; 2] = [Faults::Kept, Faults::Mended];

/// Upstream's own answers, a line each: a Python string, what its normalizer makes of it.
pub(super) fn recorded(file: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (text, normalized) = line.split_once(" -> ")?;
        Some((python_string(text)?, python_string(normalized)?))
    };
    file.lines().map(|l| line(l).unwrap_or_else(|| panic!("not two Python strings: {l}"))).collect()
}

fn python_string(literal: &str) -> Option<String> {
    let quote = literal.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = literal.strip_prefix(quote)?.strip_suffix(quote)?;
    let (mut out, mut chars) = (String::new(), inner.chars());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let digits = match chars.next()? {
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            c @ ('\\' | '\'' | '"') => Ok(c),
            'x' => Err(2),
            'u' => Err(4),
            'U' => Err(8),
            _ => return None,
        };
        out.push(match digits {
            Ok(c) => c,
            Err(count) => {
                let code: String = chars.by_ref().take(count).collect();
                char::from_u32(u32::from_str_radix(&code, 16).ok()?)?
            }
        });
    }
    Some(out)
}

fn reads_as_upstream(file: &str, count: usize) {
    let recorded = recorded(file);
    assert_eq!(recorded.len(), count);
    for (text, normalized) in recorded {
        assert_eq!(normalize(&text, Faults::Kept), normalized, "{text:?}");
    }
}

#[test]
fn golden_pairs() {
    reads_as_upstream(
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/text/pairs.txt")),
        124,
    );
}

#[test]
fn generated_pairs() {
    reads_as_upstream(
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/text/oracle.txt")),
        600,
    );
}

#[test]
fn each_fault_is_kept_or_mended() {
    let faults = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/text/faults.txt"));
    let lines = faults.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 164);
    let mut wrong = String::new();
    for line in lines {
        let [id, text, upstream, mended] = line[..] else { panic!("not four fields: {line:?}") };
        let text = &text.replace("\\t", "\t").replace("\\r", "\r");
        for (faults, expected) in [(Faults::Kept, upstream), (Faults::Mended, mended)] {
            let read = normalize(text, faults);
            if read != expected {
                wrong += &format!("{id}, {faults:?}: {text:?}\n  {read:?}\n  {expected:?} expected\n");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn what_is_debatable_reads_as_upstream_reads_it() {
    let cases = [
        "",
        "!!!",
        "x-5",
        "45:00",
        "0:05",
        "3:05 PM",
        "McDonald",
        "USA",
        "3 <3",
        "x <3.5",
        "a<3",
        "$.50",
        "$1,000,000",
        "-$5",
        "zzz",
        "HMMMM",
        "end.5",
        "1e-5",
        "123,456th",
        "word¹",
        "one – two",
        "555.123.4567",
        "user@host.com",
        "Dr. Smith",
        "St. Paul",
        "1.17.1.1",
        "1990",
        "2005",
        "C++",
        "It's 5 o'clock.",
        "state-of-the-art",
        "😀 hi",
        "日本語",
        "http",
        "wait..",
        "65m years ago",
        "5m Americans",
        "10m registered voters",
        "In 2005 W won",
        "In 2020, MP Jones",
        "Route 5 N",
        "10 in high school",
        "modern Art. A new show",
        "The answer is no. 5 people left.",
        "He said no. 3 of them agreed.",
        "COOOL",
    ];
    let read = |text: &&&str| normalize(text, Faults::Mended) != normalize(text, Faults::Kept);
    let other: Vec<_> = cases.iter().filter(read).collect();
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn a_title_that_ends_a_line_ends_its_sentence() {
    for (short, long) in rules::TITLES {
        let read = |title: &str| normalize(&format!("We saw the {title}\nNext"), Faults::Mended);
        assert_eq!(read(short), format!("we saw the {short}. next."));
        let capital = format!("{}{}", short[..1].to_ascii_uppercase(), &short[1..]);
        assert_eq!(read(&capital), format!("we saw the {long}. next."));
        assert_eq!(read(&format!("{capital}.")), format!("we saw the {long}. next."));
    }
}

/// The small voice was taught, and its references were recorded, with upstream's readings.
#[test]
fn what_the_small_voice_says_reads_as_upstream_reads_it() {
    let taught = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/python/training/sentences.py"));
    let recipe = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/soprano-mini.yaml"));
    let quoted =
        |line: &'static str| line.trim().strip_prefix('"')?.trim_end_matches(',').strip_suffix('"');
    let taught: Vec<_> =
        taught.lines().filter_map(quoted).filter(|line| !line.starts_with('"')).collect();
    let spoken: Vec<_> = recipe.lines().filter_map(|line| line.strip_prefix("    - ")).collect();
    assert!(taught.len() > 44 && spoken.len() >= 20, "{} and {}", taught.len(), spoken.len());
    for text in taught.into_iter().chain(spoken) {
        assert_eq!(normalize(text, Faults::Mended), normalize(text, Faults::Kept));
    }
}

/// Texts and readings by kind, a line each: `text -> reading`; `\n` in a text ends a line.
#[test]
fn readings() {
    let file = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/text/readings.txt"));
    let (mut wrong, mut count, mut kinds) = (String::new(), 0, Vec::new());
    for line in file.lines().filter(|line| !line.is_empty()) {
        if let Some(kind) = line.strip_prefix("# ") {
            kinds.push(kind);
            continue;
        }
        let (text, expected) = line.rsplit_once(" -> ").unwrap_or_else(|| panic!("no reading: {line}"));
        let read = normalize(&text.replace("\\n", "\n"), Faults::Mended);
        count += 1;
        if read != expected {
            wrong += &format!("{text}\n  {read}\n  {expected} expected\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count >= 200, "{count}");
    let missing: Vec<_> = mend::KINDS.iter().filter(|(kind, _)| !kinds.contains(kind)).collect();
    assert!(missing.is_empty(), "no readings of {missing:?}");
}

#[test]
fn where_upstream_raises_digits_are_read() {
    for faults in BOTH {
        assert_eq!(normalize("$,5", faults), "five dollars.");
        assert_eq!(normalize(&"9".repeat(37), faults), format!("{}.", ["nine"; 37].join(" ")));
        assert_eq!(normalize(&format!("{:0>5000}", 7), faults), "seven.");
    }
}

#[test]
fn from_text_to_prompts() {
    let text = normalize(
        "Dr. Smith paid £20 at 8:05. Nobody, though, gave him a receipt for it!",
        Faults::Mended,
    );
    let prompts: Vec<String> = sentences(&text, Faults::Mended).iter().map(|s| prompt(s)).collect();
    assert_eq!(
        prompts,
        [
            "[STOP][TEXT]doctor smith paid twenty pounds at eight oh five.[START]",
            "[STOP][TEXT]nobody, though, gave him a receipt for it![START]",
        ]
    );
}

#[test]
fn a_megabyte_of_anything_is_read() {
    let parts = [
        "The quick brown fox, at 3:05, paid $1,234.56. ",
        "a",
        "5",
        "1,",
        "e\u{301}",
        "\0",
        "日本",
        "-1",
        "$",
        ")(",
        "£",
    ];
    // What is looked at around a match must not grow with the text.
    const MENDED: [&str; 25] = [
        "5m ", "10-20 ", "10-", "J. ", "1:2:", "1/2 ", "1 ", "100 ", "100'", "5\" ", "\"",
        "Louis XIV. ", "II ", "www.a.", "a@b.c/", "&amp;", "→", "α", "no. ", "- 5\n", "|", " of 3:1",
        "$5-", "° ", "Mon-",
    ];
    let sized = parts.map(|part| (part, 1 << 20)).into_iter().chain(MENDED.map(|part| (part, 1 << 16)));
    for (part, size) in sized {
        let text = part.repeat(size / part.len());
        for faults in BOTH {
            let normalized = normalize(&text, faults);
            assert!(!normalized.bytes().any(|c| c.is_ascii_digit()));
            // Upstream's way without spaces goes over 300 characters for each.
            let most = if faults == Faults::Kept { 1 << 16 } else { normalized.len() };
            sentences(&normalized[..most.min(normalized.len())], faults);
        }
    }
}

/// What the rules are about, in any order.
const SPOKEN: &str = concat!(
    r"([0-9]{1,4}|[.,:;!?'$£€¥₹°^²⁻–/*+()<>=&%@#_\[\]{}~-]|[ \n\t\r]|[A-Z]{1,3}|[a-z]{1,3}|<3|www\.|St\.",
    r"|Co\.|e\.g\.|Ph\.D\.|KB|GHz|th|s|million|III|1990s|10:30:15|http://|[éπ→≠½″′—²Ⅳ٣]|[\x22]| of |Prof\.|vs\.|XIV",
    r"|Henry |am|ft|km|p\.m\.|ratio of |&amp;|a@b\.c|Mon-Fri|\|){0,24}",
);

/// A number in any form.
const NUMBER: &str = concat!(
    r"[0-9]{1,4}|[0-9]{1,2}:[0-9]{1,2}(:[0-9]{2})?(\.[0-9])?|[0-9]{1,2}[/.-][0-9]{1,2}[/.-]([0-9]{2}){1,2}",
    r"|[0-9]{4}-[0-9]{1,2}(-[0-9]{1,2})?|-?[$€£] ?[0-9]{1,4}([.,][0-9]{1,3}){0,2}( million|k|m)?|[0-9]{3}-[0-9]{4}",
    r"|[0-9]{1,3}([ ',][0-9]{3}){1,2}|[0-9]{1,2}'[0-9]{1,2}\x22?|([0-9] )?[0-9]/[0-9]{1,2}|0[0-9]{2} [0-9]{4} [0-9]{4}",
    r"|\+[0-9]{2} [0-9]{2} [0-9]{4} [0-9]{4}|[0-9]{1,3}(-[0-9]{1,4}){2,4}|[0-9]{1,4}[-–][0-9]{1,4}|[0-9]{1,3}(\.[0-9]{1,3}){1,3}",
    r"|[0-9]{1,3}(st|nd|rd|th|s|m|k|K|M|b|t|kg|km/h|%|°C|am|x)|[0-9]{3}0'?s|[A-Z]{1,2}-?[0-9]{1,3}|[0-9]{1,2} - [0-9]{1,2}",
    r"|[0-9]{1,3}° [0-9]{1,2}' [0-9]{1,2}\x22 N|[0-9]{1,2}h[0-9]{1,2}m?|[0-9]{1,4}\^[0-9]|https?://a\.b/[0-9]{1,3}\?x=[0-9]",
);

/// Words, numbers and the marks of prose.
const USUAL: &str = concat!(
    r"([0-9]{1,4}|[0-9]{1,2}|[a-z]{1,6}|[A-Z][a-z]{0,5}|[A-Z]{1,4}|[.,:;!?'()$%&/+–-]| |",
    r"\. |, | - |£|€|½|°|km|kg|am|pm|st|th|s){0,8}",
);

fn check(text: &str) -> Result<(), TestCaseError> {
    for faults in BOTH {
        let once = normalize(text, faults);
        let known = |c: char| c.is_ascii_lowercase() || " !$',-.?".contains(c);
        prop_assert!(once.chars().all(known), "{once:?}");
        prop_assert!(!once.contains("  ") && once.trim() == once, "{once:?}");
        let twice = normalize(&once, faults);
        prop_assert!(twice.chars().all(known), "{twice:?}");
        for sentence in sentences(&once, faults) {
            let most = if faults == Faults::Mended { 330 } else { usize::MAX };
            prop_assert!(!sentence.is_empty() && sentence.len() <= most);
        }
        sentences(text, faults);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_becomes_what_the_model_knows(text: String) {
        check(&text)?;
    }

    #[test]
    fn any_mix_of_what_the_rules_know_does_too(text in SPOKEN) {
        check(&text)?;
    }

    #[test]
    fn no_digit_changes_unheard(
        [before, after] in [USUAL, USUAL],
        number in NUMBER,
        at: prop::sample::Index,
        by in 1..10u8,
    ) {
        let text = format!("{before}{number}{after}");
        let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
        let at = digits[at.index(digits.len())];
        let digit = (text.as_bytes()[at] - b'0' + by) % 10;
        let other = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
        let [one, two] = [&text, &other].map(|text| normalize(text, Faults::Mended));
        prop_assert_ne!(one, two, "{:?}", other);
    }

    #[test]
    fn mended_words_read_as_kept_ones(words in "[a-z]{6,9}( [a-z]{6,9}){0,9}[.!?]") {
        prop_assume!(!words.contains("www"));
        prop_assert_eq!(normalize(&words, Faults::Mended), normalize(&words, Faults::Kept));
    }

    #[test]
    fn nothing_is_lost_in_splitting(text in "[a-z]{1,12}([.!?,]? [a-z]{1,12}){0,90}") {
        for faults in BOTH {
            prop_assert_eq!(sentences(&text, faults).join(" "), text.as_str());
        }
    }
}
