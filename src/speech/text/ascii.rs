use unidecode::unidecode_char;

use super::overrides::OVERRIDES;

/// Places in the run of mathematical letters that Unidecode has nothing for.
const HOLES: [u32; 24] = [
    0x1d455, 0x1d49d, 0x1d4a0, 0x1d4a1, 0x1d4a3, 0x1d4a4, 0x1d4a7, 0x1d4a8, 0x1d4ad, 0x1d4ba, 0x1d4bc,
    0x1d4c4, 0x1d506, 0x1d50b, 0x1d50c, 0x1d515, 0x1d51d, 0x1d53a, 0x1d53f, 0x1d545, 0x1d547, 0x1d548,
    0x1d549, 0x1d551,
];
const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const DIGITS: &str = "0123456789";

/// Any text in ASCII, as Unidecode 1.4 has it, code point by code point.
pub(super) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.push_str(ascii_char(c));
        }
    }
    out
}

/// The crate's tables are those of Text::Unidecode 1.23, which differ in what `OVERRIDES` and the
/// ranges here hold.
pub(super) fn ascii_char(c: char) -> &'static str {
    let nth = |of: &'static str, n: u32| {
        let at = n as usize % of.len();
        &of[at..=at]
    };
    let code = u32::from(c);
    match code {
        0x80..0xa0 => "",
        0x1d400..=0x1d6a3 if HOLES.contains(&code) => "",
        0x1d400..=0x1d6a3 => nth(LETTERS, code - 0x1d400),
        0x1d7ce..=0x1d7ff => nth(DIGITS, code - 0x1d7ce),
        _ => overridden(code).unwrap_or_else(|| match unidecode_char(c) {
            "[?]" | "[?] " => "",
            known => known,
        }),
    }
}

fn overridden(code: u32) -> Option<&'static str> {
    let run = OVERRIDES.partition_point(|&(first, _)| first <= code).checked_sub(1)?;
    let (first, list) = OVERRIDES[run];
    list.split('\t').nth((code - first) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_becomes_ascii() {
        assert!(('\0'..=char::MAX).all(|c| ascii_char(c).is_ascii() || c.is_ascii()));
    }

    #[test]
    fn overrides_are_in_order_and_apart() {
        for pair in OVERRIDES.windows(2) {
            let end = pair[0].0 + pair[0].1.split('\t').count() as u32;
            assert!(end <= pair[1].0, "{:#x}", pair[1].0);
        }
    }

    #[test]
    fn characters_read_as_unidecode_has_them() {
        let cases = [
            ("Æneid Straße Ŋ", "AEneid Strasse NG"),
            ("Κνωσός", "Knosos"),
            ("Объект Є", "Ob'ekt Ie"),
            ("北亰 し", "Bei Jing  shi"),
            ("½ ™ № ≤ ℃", " 1/2 (tm) No.  <= degC"),
            ("𝐇𝓮𝕝𝚕𝖔 𝟜𝟚 Ⓦ 🆒", "Hello 42 W [COOL]"),
            ("£20 50€ ¥100 ₹5 ₿1", "PS20 50EUR Y=100 Rs5 BTC1"),
            ("\u{85}\u{9b}\u{e000}\u{10ffff}😀", ""),
            ("a\u{301}\u{34f}\u{487}", "a"),
            ("\0\u{1f}\u{7f}", "\0\u{1f}\u{7f}"),
        ];
        for (text, expected) in cases {
            assert_eq!(ascii(text), expected);
        }
    }
}
