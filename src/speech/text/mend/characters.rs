//! One form of what Unicode and HTML have several of, and no control characters.

use std::borrow::Cow;

use super::super::ascii::{ascii_char, decomposition};
use super::{gap, group, is_digit, is_word, re};

/// HTML's names of characters, as far as they are met in prose.
#[rustfmt::skip]
const ENTITIES: [(&str, &str); 38] = [
    ("amp", "&"), ("lt", "<"), ("gt", ">"), ("quot", "\""), ("apos", "'"), ("nbsp", " "),
    ("ensp", " "), ("emsp", " "), ("thinsp", " "), ("shy", ""), ("hellip", "…"), ("ndash", "–"),
    ("mdash", "—"), ("minus", "−"), ("lsquo", "'"), ("rsquo", "'"), ("ldquo", "“"), ("rdquo", "”"),
    ("laquo", "«"), ("raquo", "»"), ("bull", "•"), ("middot", "·"), ("copy", "©"), ("reg", "®"),
    ("trade", "™"), ("sect", "§"), ("para", "¶"), ("deg", "°"), ("plusmn", "±"), ("times", "×"),
    ("divide", "÷"), ("frac12", "½"), ("frac14", "¼"), ("frac34", "¾"), ("cent", "¢"), ("pound", "£"),
    ("euro", "€"), ("yen", "¥"),
];
/// Fractions in one character.
#[rustfmt::skip]
const FRACTIONS: [(char, &str); 19] = [
    ('¼', "1/4"), ('½', "1/2"), ('¾', "3/4"), ('⅐', "1/7"), ('⅑', "1/9"), ('⅒', "1/10"), ('⅓', "1/3"),
    ('⅔', "2/3"), ('⅕', "1/5"), ('⅖', "2/5"), ('⅗', "3/5"), ('⅘', "4/5"), ('⅙', "1/6"), ('⅚', "5/6"),
    ('⅛', "1/8"), ('⅜', "3/8"), ('⅝', "5/8"), ('⅞', "7/8"), ('↉', "0/3"),
];

pub(super) fn plain(text: &str) -> String {
    let text = entities(text);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    // Whether a quotation is open in the line: "”" behind a number is an inch's else.
    let mut open = false;
    while let Some(c) = chars.next() {
        let before_open = open;
        open = match c {
            '“' | '„' => true,
            '”' | '\n' => false,
            _ => open,
        };
        match c {
            ' '..='~' => out.push(c),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\t' | '\x0b' | '\x0c' | '\x1c'..='\x1f' => out.push(' '),
            c if c.is_whitespace() => out.push(' '),
            // They open what their like closes.
            '¿' | '¡' => {}
            // Soft hyphens, joiners and marks of direction have no sound, nor has what is private.
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}' => {}
            c if c.is_control() => {}
            '！'..='～' => out.extend(char::from_u32(u32::from(c) - 0xfee0)),
            '￠' => out.push('¢'),
            '￡' => out.push('£'),
            '￥' => out.push('¥'),
            '￦' => out.push('₩'),
            '˚' | 'º' if out.ends_with(is_digit) => out.push('°'),
            '˚' => out.push('°'),
            '℃' => out.push_str("°C"),
            '℉' => out.push_str("°F"),
            'µ' => out.push('μ'),
            'Ω' => out.push('Ω'),
            '”' if !before_open && out.ends_with(is_digit) => out.push('"'),
            '«' | '»' | '‹' | '›' => out.push('"'),
            '①'..='⓿' if ascii_char(c).chars().all(is_digit) => {
                apart(&ascii_char(c), &mut out, chars.peek());
            }
            // Units in one character; their only digits are exponents.
            '㍱'..='㏟' => {
                out += &decomposition(c).replace('2', "²").replace('3', "³").replace('∕', "/")
            }
            '‘' | '’' | 'ʼ' => out.push('\''),
            '″' => out.push('"'),
            '′' => out.push('\''),
            '‐' | '‑' | '‒' | '﹣' => out.push('-'),
            '∕' | '⁄' => out.push('/'),
            '∶' => out.push(':'),
            // Roman numerals, and the digits of every script; not those above and below a line.
            'Ⅰ'..='ⅿ' => out.push_str(&ascii_char(c)),
            '²' | '³' | '¹' | '⁰'..='⁹' | '₀'..='₉' => out.push(c),
            c if c.is_numeric() && is_one_digit(&ascii_char(c)) => out.push_str(&ascii_char(c)),
            c => match FRACTIONS.iter().find(|(of, _)| *of == c) {
                Some((_, fraction)) => apart(fraction, &mut out, chars.peek()),
                None => out.push(c),
            },
        }
    }
    bullets(out)
}

/// Writes a number with a space before and behind it where it would touch a word.
fn apart(number: &str, out: &mut String, next: Option<&char>) {
    out.push_str(gap(out.ends_with(is_word)));
    out.push_str(number);
    out.push_str(gap(next.copied().is_some_and(is_word)));
}

fn is_one_digit(text: &str) -> bool {
    text.len() == 1 && text.starts_with(is_digit)
}

fn entities(text: &str) -> Cow<'_, str> {
    let entity = re!("&(?:#([0-9]{1,7})|#[xX]([0-9A-Fa-f]{1,6})|([a-z]+[0-9]*));");
    entity.replace_all(text, |c: &regex::Captures| {
        let number =
            |at: usize, radix| u32::from_str_radix(group(c, at), radix).ok().and_then(char::from_u32);
        if let Some(c) = number(1, 10).or_else(|| number(2, 16)) {
            return c.to_string();
        }
        let entity = ENTITIES.iter().find(|(of, _)| *of == group(c, 3));
        entity.map_or_else(|| c[0].to_owned(), |(_, text)| (*text).to_owned())
    })
}

/// Without the marks before the items of a list. Before a number a hyphen is one of them only where the
/// line before or the line after begins with a hyphen too.
fn bullets(text: String) -> String {
    let bullet = re!(r"^ *(?:[-*+•‣◦▪●○·–—] +)(\P{Nd})?");
    if !text.lines().any(|line| bullet.is_match(line)) {
        return text;
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let is_item =
        |at: Option<usize>| at.and_then(|at| lines.get(at)).is_some_and(|l| bullet.is_match(l));
    let items = lines.iter().enumerate().map(|(at, line)| {
        let Some(captures) = bullet.captures(line) else { return *line };
        let bare = line.trim_start_matches(' ');
        let sign = bare.chars().next().map_or(0, char::len_utf8);
        let among = is_item(at.checked_sub(1)) || is_item(Some(at + 1));
        let certain = captures.get(1).is_some() || !bare.starts_with(['-', '+', '–']);
        if certain || among { bare[sign..].trim_start_matches(' ') } else { *line }
    });
    items.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_of_each() {
        let cases = [
            ("AT&amp;T &lt;3 &#39;x&#x27; &nbsp;&unknown; &copy", "AT&T <3 'x'  &unknown; &copy"),
            ("10\u{202f}000\u{a0}km", "10 000 km"),
            ("2½ cups, ½cup", "2 1/2 cups, 1/2 cup"),
            ("ⅣⅫ ٣۴ ४ 𝟜 ５ x² H₂O", "IVXII 34 4 4 5 x² H₂O"),
            ("so\u{ad}ft\u{200b}ly", "softly"),
            ("- one\n- 2 three\n* four", "one\n2 three\nfour"),
            ("①②③, ⑩ 50㎡ ㎞ 5㎍", "1 2 3, 10 50m² km 5μg"),
            ("a 15” tv, “I am 15” «oui»", "a 15\" tv, “I am 15” \"oui\""),
            ("- 5", "- 5"),
            ("-5", "-5"),
            ("• 5 apples", "5 apples"),
        ];
        for (text, expected) in cases {
            assert_eq!(plain(text), expected);
        }
    }
}
