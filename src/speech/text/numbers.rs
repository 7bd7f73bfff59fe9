//! English number words as inflect 7 writes them, without its "and".

const UNITS: [&str; 20] = [
    "", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
];
const TENS: [&str; 10] =
    ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const DIGITS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const POWERS: [&str; 12] = [
    "", " thousand", " million", " billion", " trillion", " quadrillion", " quintillion",
    " sextillion", " septillion", " octillion", " nonillion", " decillion",
];
/// What an ordinal's last word ends in, and what that becomes; anything else gets "th".
const ORDINALS: [(&str, &str); 8] = [
    ("ty", "tieth"),
    ("one", "first"),
    ("two", "second"),
    ("three", "third"),
    ("five", "fifth"),
    ("eight", "eighth"),
    ("nine", "ninth"),
    ("twelve", "twelfth"),
];

/// `digits` in words: "one million, two hundred thirty-four". inflect ends with decillions and raises
/// beyond 36 digits; those are read digit by digit.
pub(super) fn cardinal(digits: &str) -> String {
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return "zero".to_owned();
    }
    if significant.len() > 3 * POWERS.len() {
        return spelled(digits);
    }
    let mut out = String::new();
    let groups = significant.len().div_ceil(3);
    let mut rest = significant;
    for power in (0..groups).rev() {
        let (group, after) = rest.split_at(rest.len() - 3 * power);
        rest = after;
        let value = group.bytes().fold(0, |n, digit| 10 * n + usize::from(digit - b'0'));
        if value == 0 {
            continue;
        }
        if !out.is_empty() {
            out.push_str(if power == 0 && value < 100 { " " } else { ", " });
        }
        if value >= 100 {
            out.push_str(UNITS[value / 100]);
            out.push_str(if value % 100 == 0 { " hundred" } else { " hundred " });
        }
        out.push_str(&below_hundred(value % 100));
        out.push_str(POWERS[power]);
    }
    out
}

/// [`cardinal`], its last word an ordinal.
pub(super) fn ordinal(digits: &str) -> String {
    let mut words = cardinal(digits);
    match ORDINALS.iter().find(|(ending, _)| words.ends_with(ending)) {
        Some((ending, ordinal)) => words.replace_range(words.len() - ending.len().., ordinal),
        None => words.push_str("th"),
    }
    words
}

/// A number that stands alone: 1001 … 2999 as a year ("ten oh one", "nineteen hundred"), but for 2000
/// to 2009; any other as [`cardinal`].
pub(super) fn year_or_cardinal(digits: &str) -> String {
    let significant = digits.trim_start_matches('0');
    let year = match significant.parse() {
        Ok(year @ (1001..2000 | 2010..3000)) if significant.len() == 4 => year,
        _ => return cardinal(digits),
    };
    let (century, rest): (usize, usize) = (year / 100, year % 100);
    let century = below_hundred(century);
    match rest {
        0 => format!("{century} hundred"),
        1..10 => format!("{century} oh {}", UNITS[rest]),
        _ => format!("{century} {}", below_hundred(rest)),
    }
}

/// 1 to 99; nothing for 0.
pub(super) fn below_hundred(n: usize) -> String {
    match (n / 10, n % 10) {
        (0 | 1, _) => UNITS[n].to_owned(),
        (tens, 0) => TENS[tens].to_owned(),
        (tens, units) => format!("{}-{}", TENS[tens], UNITS[units]),
    }
}

pub(super) fn spelled(digits: &str) -> String {
    let words = digits.bytes().map(|digit| DIGITS[usize::from(digit - b'0')]);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cardinals() {
        let cases = [
            ("0", "zero"),
            ("000", "zero"),
            ("007", "seven"),
            ("13", "thirteen"),
            ("40", "forty"),
            ("100", "one hundred"),
            ("110", "one hundred ten"),
            ("3000", "three thousand"),
            ("10005", "ten thousand five"),
            ("120021", "one hundred twenty thousand twenty-one"),
            ("10100", "ten thousand, one hundred"),
            ("1001001", "one million, one thousand one"),
            ("1001000", "one million, one thousand"),
            ("1234567", "one million, two hundred thirty-four thousand, five hundred sixty-seven"),
        ];
        for (digits, words) in cases {
            assert_eq!(cardinal(digits), words);
        }
    }

    #[test]
    fn what_has_no_name_is_read_digit_by_digit() {
        let nines = |n| "9".repeat(n);
        assert!(cardinal(&nines(36)).starts_with("nine hundred ninety-nine decillion, "));
        assert_eq!(cardinal(&nines(37)), ["nine"; 37].join(" "));
        assert_eq!(ordinal(&nines(37)), format!("{} ninth", ["nine"; 36].join(" ")));
        assert_eq!(cardinal(&format!("{:0>5000}", 12)), "twelve");
    }

    #[test]
    fn ordinals() {
        let cases = [
            ("0", "zeroth"),
            ("1", "first"),
            ("12", "twelfth"),
            ("18", "eighteenth"),
            ("20", "twentieth"),
            ("21", "twenty-first"),
            ("103", "one hundred third"),
            ("2005", "two thousand fifth"),
            ("1000000", "one millionth"),
        ];
        for (digits, words) in cases {
            assert_eq!(ordinal(digits), words);
        }
    }

    #[test]
    fn years() {
        let cases = [
            ("1000", "one thousand"),
            ("1001", "ten oh one"),
            ("1024", "ten twenty-four"),
            ("01900", "nineteen hundred"),
            ("2000", "two thousand"),
            ("2005", "two thousand five"),
            ("2010", "twenty ten"),
            ("2999", "twenty-nine ninety-nine"),
            ("3001", "three thousand one"),
        ];
        for (digits, words) in cases {
            assert_eq!(year_or_cardinal(digits), words);
        }
    }
}
