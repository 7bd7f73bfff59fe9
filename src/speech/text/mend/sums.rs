//! Operators of arithmetic and of programs: what is a minus, and what stands next to a bracket.
//!
//! Upstream's pause for a bracket takes the character behind it too: `(a+b)/(c+d)` would lose its slash,
//! `(a)b` its letter.

use super::{each, group, in_a_sum, is_word, re, require, tail};

/// Functions, whose names may stand in a sum.
const FUNCTIONS: [&str; 8] = ["cos", "exp", "ln", "log", "pi", "sin", "sqrt", "tan"];
/// Signs that make of letters a sum.
const OPERATORS: [char; 9] = ['+', '-', '−', '*', '/', '^', '=', '×', '÷'];

pub(super) fn mend(text: &mut String) {
    written(text);
    brackets(text);
    minus(text);
    each(text, re!(r"([)\]}])([A-Za-z0-9])"), |c, _, _| Some(format!("{} {}", &c[1], &c[2])));
}

/// Operators of two signs.
fn written(text: &mut String) {
    let operator = re!(r" ?(!=|={2,3}|-{1,2}>|=>) ?");
    each(text, operator, |c, before, after| {
        let term = |c: char| c.is_alphanumeric() || "()[]'\"".contains(c);
        require(before.ends_with(term) && after.starts_with(term))?;
        let words = match &c[1] {
            "!=" => "not equal to",
            "=>" => "implies",
            sign if sign.starts_with('=') => "equals",
            _ => "to",
        };
        Some(format!(" {words} "))
    });
    each(text, re!(r"([0-9A-Za-z)]) (\|\||&&) ([0-9A-Za-z(!])"), |c, _, _| {
        Some(format!("{} {} {}", &c[1], if &c[2] == "||" { "or" } else { "and" }, &c[3]))
    });
    let power = re!(r"([0-9)]|(?-u:\b)[A-Za-z])\*\*([0-9]+|[A-Za-z](?-u:\b)|\()");
    each(text, power, |c, before, after| {
        let bold = before.ends_with('*') || after.starts_with("**");
        (!bold).then(|| format!("{}^{}", &c[1], &c[2]))
    });
    each(text, re!("([0-9]) % ([0-9]+)"), |c, _, after| {
        ends_term(after).then(|| format!("{} mod {}", &c[1], &c[2]))
    });
}

/// What is behind a closing bracket, and a minus before an opening one.
fn brackets(text: &mut String) {
    let operator = re!(r"\) ?(<=|>=|[-+*/=<>×÷%−]) ?");
    each(text, operator, |c, before, after| {
        let within = tail(before).rsplit('(').next().unwrap_or_default();
        let next = after.strip_prefix('(').and_then(|after| head(after).split(')').next());
        let sum = is_sum(within) && (after.starts_with(is_word) || next.is_some_and(is_sum));
        let word = match &c[1] {
            "+" => "plus",
            "=" => "equals",
            "<" => "less than",
            ">" => "greater than",
            "<=" => "less than or equal to",
            ">=" => "greater than or equal to",
            "−" => "minus",
            "÷" => "divided by",
            "%" => "percent",
            "*" | "×" if sum => "times",
            "/" if sum => "over",
            "/" => "slash",
            "-" if sum && (within.contains(OPERATORS) || in_a_sum("", after)) && is_term(after) => {
                "minus"
            }
            _ => return None,
        };
        Some(format!(") {word} "))
    });
    each(text, re!(r"([0-9]|(?-u:\b)[A-Za-z]) ?- ?\("), |c, _, after| {
        let within = head(after).split(')').next().unwrap_or_default();
        let sum = within.contains(OPERATORS) && is_sum(within);
        sum.then(|| format!("{} minus (", &c[1]))
    });
}

/// A minus sign is one; a hyphen is in "what is 5-3", "5-3 is 2", "x - y".
fn minus(text: &mut String) {
    each(text, re!(r"([$£€₹¥₩]) ?− ?([0-9])"), |c, _, _| {
        Some(format!("-{}{}", &c[1], &c[2]))
    });
    each(text, re!(r"(\^ ?)−"), |c, _, _| Some(format!("{}-", &c[1])));
    each(text, re!(" ?− ?"), |_, before, _| {
        let apart = before.is_empty() || before.ends_with(['\n', '(', '[']);
        Some(if apart { "minus " } else { " minus " }.to_owned())
    });
    let less = re!(
        r"(?i)((?-u:\b)(?:what is|what's|calculate|compute) )?(?-u:\b)([0-9]{1,9}) ?- ?([0-9]{1,9})( (?:is|equals|makes|leaves) [0-9])?"
    );
    each(text, less, |c, before, after| {
        let question = group(c, 1);
        let result = group(c, 4);
        let number = |at: usize| c[at].parse::<u32>().ok();
        let inside = before.ends_with(['.', ',', '-', ':', '/', '$', '#']);
        let longer =
            result.is_empty() && after.starts_with(|c: char| c.is_alphanumeric() || "-:/".contains(c));
        let cue = !question.is_empty() || !result.is_empty();
        (cue && number(2)? > number(3)? && !inside && !longer)
            .then(|| format!("{question}{} minus {}{result}", &c[2], &c[3]))
    });
    each(text, re!(r"(?-u:\b)([A-Za-z]) - ([A-Za-z])(?-u:\b)"), |c, before, after| {
        let plain = |name: &str| name.starts_with(|c: char| c.is_ascii_lowercase()) && name != "a";
        let inside = before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '\'' | '.' | '-'));
        let sum = in_a_sum(before, after) || (plain(&c[1]) && plain(&c[2]) && ends_term(after));
        (sum && !inside).then(|| format!("{} minus {}", &c[1], &c[2]))
    });
}

/// The beginning of `after`, as much as a bracket's sum takes.
fn head(after: &str) -> &str {
    &after[..after.floor_char_boundary(48)]
}

/// Letters one by one, numbers, functions and what stands between them; something of it.
fn is_sum(within: &str) -> bool {
    let mut words = within.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let known = |word: &str| word.chars().count() == 1 || FUNCTIONS.contains(&word);
    within.contains(is_word) && words.all(known)
}

/// A number, a letter or a bracket.
fn is_term(after: &str) -> bool {
    let mut chars = after.chars();
    let first = chars.next();
    let longer = chars.next().is_some_and(char::is_alphabetic);
    first.is_some_and(|c| c == '(' || c.is_ascii_digit() || (c.is_alphabetic() && !longer))
}

fn ends_term(after: &str) -> bool {
    let after = after.trim_start_matches(' ');
    after.is_empty() || after.starts_with(['\n', '.', ',', ';', '?', '!', ')']) || in_a_sum("", after)
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                ("5−3, $5 − $3, −5, $−5, e^−x", "5 minus 3, $5 minus $3, minus 5, -$5, e^-x"),
                ("What is 5-3? 5-3 is 2; won 5-3", "What is 5 minus 3? 5 minus 3 is 2; won 5-3"),
                ("(3+2) - 1, 10 - (3 + 2)", "(3+2) minus 1, 10 minus (3 + 2)"),
                ("(2019) - 5, (UK)-based, 5 - (see it)", "(2019) - 5, (UK)-based, 5 - (see it)"),
                ("(a+b)/(c+d), (he)/(she), (a)b", "(a+b) over (c+d), (he) slash (she), (a) b"),
                ("x - y, plan b - good, a - b = c", "x minus y, plan b - good, a minus b = c"),
                (
                    "a != b, a == b, a -> b, a || b, 10 % 3",
                    "a not equal to b, a equals b, a to b, a or b, 10 mod 3",
                ),
                ("x**2, **b** or 5**, 10 % 3 of it", "x^2, **b** or 5**, 10 % 3 of it"),
            ],
        );
    }
}
