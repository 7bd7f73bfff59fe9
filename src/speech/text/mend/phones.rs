//! Phone numbers, digit by digit: every zero counts.

use super::super::numbers::spelled;
use super::{comes_from, each, goes_on, last_word, re};

/// What stands before a number that is called, where its digits don't say so.
const CALLED: &[&str] = &[
    "call", "called", "cell", "dial", "fax", "line", "mobile", "number", "phone", "ring", "tel",
    "telephone", "text",
];

pub(super) fn mend(text: &mut String) {
    let marks = ['-', '.', ',', '/', ':'];
    let national = re!(r"(?:\+1[-. ]|1[-.])(\(?[0-9]{3}\)?[-. ][0-9]{3}[-. ]?[0-9]{4})");
    each(text, national, |c, before, after| {
        let inside = before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | ',' | '-'));
        (!inside && !goes_on(after, &[])).then(|| format!("1, {}", &c[1]))
    });
    let abroad = re!(r"\+([0-9]{1,3})((?:[ .-]?\(?[0-9]{1,5}\)?){1,6})");
    each(text, abroad, |c, before, after| {
        let digits = c[0].bytes().filter(u8::is_ascii_digit).count();
        let one = c[2].bytes().all(|c| c.is_ascii_digit());
        let long = digits >= if one { 10 } else { 7 } && digits <= 15;
        let apart = !before.ends_with(char::is_alphanumeric) && !goes_on(after, &marks);
        let digits = if one { spelled(&c[0][1..]) } else { groups(&c[0]) };
        (long && apart).then(|| format!("plus {digits}"))
    });
    each(text, re!(r"\(?0[0-9]{1,4}\)?(?:[ -][0-9]{2,5}){1,4}"), |c, before, after| {
        let digits = c[0].bytes().filter(u8::is_ascii_digit).count();
        let apart = !comes_from(before, &marks) && !goes_on(after, &marks);
        ((9..=12).contains(&digits) && apart).then(|| groups(&c[0]))
    });
    each(text, re!(r"\(?[0-9]{3}\)?[-. ][0-9]{3}[-. ]?[0-9]{4}"), |c, before, after| {
        let apart = !comes_from(before, &['-', '.', ',', '/', ':', '$']) && !before.ends_with('$');
        (apart && !goes_on(after, &[])).then(|| groups(&ten(&c[0])))
    });
    each(text, re!(r"([0-9]{3})-([0-9]{4})"), |c, before, after| {
        let apart = !comes_from(before, &marks) && !goes_on(after, &['-', '.', ':', '/']);
        let before = before.strip_suffix(": ").unwrap_or(before);
        let word = last_word(before).to_lowercase();
        let known = &c[1] == "555" || c[2].starts_with('0') || CALLED.contains(&word.as_str());
        (apart && known).then(|| groups(&c[0]))
    });
}

/// Ten digits as they are grouped: three, three, four.
fn ten(number: &str) -> String {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    format!("{}-{}-{}", &digits[..3], &digits[3..6], &digits[6..])
}

/// The digits of every group, one by one.
pub(super) fn groups(number: &str) -> String {
    let parts = number.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    parts.map(spelled).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                ("555-0142", "five five five, zero one four two"),
                ("020 7946 0018", "zero two zero, seven nine four six, zero zero one eight"),
                (
                    "+44 20 7946 0018",
                    "plus four four, two zero, seven nine four six, zero zero one eight",
                ),
                ("(555) 010-0123", "five five five, zero one zero, zero one two three"),
                (
                    "800-1200 people, call 800-1200",
                    "800-1200 people, call eight zero zero, one two zero zero",
                ),
            ],
        );
    }
}
