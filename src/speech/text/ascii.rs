use any_ascii::any_ascii_char;
use unicode_normalization::char::decompose_compatible;

/// The letters that a Hangul syllable is made of, as Unicode spells them in its name: first, middle and last.
const HANGUL: [&str; 3] = [
    "g gg n d dd r m b bb s ss  j jj c k t p h",
    "a ae ya yae eo e yeo ye o wa wae oe yo u weo we wi yu eu yi i",
    " g gg gs n nj nh d l lg lm lb ls lt lp lh m b bs s ss ng j c k t p h",
];

/// Any text in ASCII, code point by code point: as upstream reads Latin, punctuation, currency signs, fractions,
/// digits above and below the line; most other letters as `any_ascii` has them. Pictures are passed over, and
/// beyond U+FFFF all but styled letters and digits, which upstream does not know either.
pub(super) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push(c, &mut out));
    out
}

pub(super) fn ascii_char(c: char) -> String {
    ascii(c.encode_utf8(&mut [0; 4]))
}

/// The compatibility decomposition (NFKD), which is the character itself where it has none.
pub(super) fn decomposition(c: char) -> String {
    let mut out = String::new();
    decompose_compatible(c, |part| out.push(part));
    out
}

fn push(c: char, out: &mut String) {
    if let Some(reading) = reading(c) {
        return out.push_str(reading);
    }
    let spelling = match any_ascii_char(c) {
        // The name of a picture.
        name if name.len() > 1 && name.starts_with(':') => "",
        spelling => spelling,
    };
    match c {
        '\0'..='\x7f' => out.push(c),
        '¼'..='¾' => *out += &format!(" {spelling}"),
        '⅐'..='⅞' | '↉' => *out += &format!(" {spelling} "),
        // Every Chinese character is a word.
        '㐀'..='\u{4dbf}' | '一'..='\u{9fff}' => *out += &format!("{spelling} "),
        '가'..='힣' => {
            let at = (u32::from(c) - u32::from('가')) as usize;
            let letters = HANGUL.iter().zip([at / 588, at % 588 / 28, at % 28]);
            out.extend(letters.filter_map(|(of, nth)| of.split(' ').nth(nth)));
        }
        // Words in squares.
        '🆑'..='\u{1f1ac}' => *out += &format!("[{spelling}]"),
        '\u{2100}'..='\u{214f}' | '豈'..='\u{faff}' | '\u{10000}'.. => {
            let parts = decomposition(c);
            if !parts.starts_with(c) {
                parts.chars().for_each(|part| push(part, out));
            } else if c <= '\u{ffff}' {
                out.push_str(spelling);
            }
        }
        _ => out.push_str(spelling),
    }
}

/// Signs of prose that upstream reads otherwise than `any_ascii`, and those of mathematics and pictures that it
/// reads at all.
fn reading(c: char) -> Option<&'static str> {
    Some(match c {
        '¢' => "C/",
        '£' => "PS",
        '¤' => "$?",
        '¥' => "Y=",
        '§' => "SS",
        '©' => "(c)",
        '®' => "(r)",
        '·' => "*",
        'Æ' => "AE",
        '×' => "x",
        'ĸ' => "k",
        'Ŋ' => "NG",
        'Œ' => "OE",
        '\u{200b}' => " ",
        '—' | '―' | '⁃' => "--",
        '‚' => ",",
        '„' => ",,",
        '‣' => "*>",
        '‧' => ".",
        '\u{2028}' => "\n",
        '\u{2029}' => "\n\n",
        '⁅' => "-[",
        '⁆' => "]-",
        '⁋' => "PP",
        '⁌' => "(]",
        '⁍' => "[)",
        '⁒' => "%",
        '⁏'..='⁑' | '⁔'..='⁖' | '⁘'..='⁞' | 'ₔ' | '\u{20c0}' => "",
        '₠' => "ECU",
        '₡' => "CL",
        '₣' => "FF",
        '₥' => "mil",
        '₪' => "NS",
        '₫' => "D",
        '₴' => "UAH",
        '₵' => "C|",
        '₶' | '₺' => "L",
        '₼' => "m",
        '₽' => "R",
        '₾' => "l",
        '℀' => " a/c ",
        '℁' => " a/s ",
        '℅' => " c/o ",
        '℆' => " c/u ",
        '№' => "No. ",
        '℗' => "(p)",
        '℠' => "(sm)",
        '™' => "(tm)",
        '\u{2126}' => "ohm",
        '⅟' => " 1/",
        '︙' => "",
        '、' => ", ",
        '。' => ". ",
        '♠' | '♤' => "spades",
        '♡' | '♥' => "hearts",
        '♢' | '♦' => "diamonds",
        '♣' | '♧' => "clubs",
        '♯' => "#",
        '←' | '→' | '↔' => "-",
        '↑' | '↓' | '↕' => "|",
        '−' | '∕' | '∖' | '∗' | '∣' | '∶' | '∼' | '≤' | '≥' | '≦' | '≧' => {
            any_ascii_char(c)
        }
        // Accents of their own.
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{20d0}'..='\u{20ff}' => "",
        '\u{2190}'..='\u{22ff}' | '\u{2600}'..='\u{27ff}' | '\u{2900}'..='\u{2bff}' => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_becomes_ascii() {
        assert!(('\0'..=char::MAX).all(|c| ascii_char(c).is_ascii()));
    }

    /// What upstream makes of every assigned character of Latin-1, Latin Extended-A, general punctuation,
    /// super- and subscripts, currency signs and fractions, as recorded.
    #[test]
    fn the_signs_of_prose_read_as_upstream_reads_them() {
        let file = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/text/characters.txt"));
        let recorded = super::super::tests::recorded(file);
        assert_eq!(recorded.len(), 459);
        for (text, expected) in recorded {
            assert_eq!(ascii(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn other_characters_read_by_their_sound_or_their_form() {
        let cases = [
            ("Κνωσός", "Knosos"),
            ("Объект", "Ob'ekt"),
            ("北亰 し 한국어", "Bei Jing  shi hangugeo"),
            ("№ ≤ ℃", "No.  <= degC"),
            ("𝐇𝓮𝕝𝚕𝖔 𝟜𝟚 Ⓦ 🆒 ♥", "Hello 42 W [COOL] hearts"),
            ("\u{85}\u{9b}\u{e000}\u{10ffff}😀☺♫", ""),
            ("a\u{301}\u{34f}\u{487}", "a"),
            ("\0\u{1f}\u{7f}", "\0\u{1f}\u{7f}"),
        ];
        for (text, expected) in cases {
            assert_eq!(ascii(text), expected);
        }
    }
}
