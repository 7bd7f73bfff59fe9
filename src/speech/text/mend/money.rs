//! Amounts of money, their sign or code before or after: "1234 pounds, 50 pence", "5.5 million dollars".

use super::{each, gap, group, guarded, is_digit, next_word, re, require};

/// One, and many.
type Names = [&'static str; 2];
/// Signs, and the names of the whole and of its hundredth.
const CURRENCIES: [(&str, Names, Option<Names>); 24] = [
    ("$", ["dollar", "dollars"], Some(["cent", "cents"])),
    ("£", ["pound", "pounds"], Some(["penny", "pence"])),
    ("€", ["euro", "euros"], Some(["cent", "cents"])),
    ("₹", ["rupee", "rupees"], Some(["paisa", "paise"])),
    ("¥", ["yen", "yen"], None),
    ("₩", ["won", "won"], None),
    ("¢", ["cent", "cents"], None),
    ("₽", ["ruble", "rubles"], Some(["kopeck", "kopecks"])),
    ("₿", ["bitcoin", "bitcoins"], None),
    ("₺", ["lira", "lira"], None),
    ("₴", ["hryvnia", "hryvnias"], None),
    ("₪", ["shekel", "shekels"], None),
    ("₫", ["dong", "dong"], None),
    ("₦", ["naira", "naira"], None),
    ("₱", ["peso", "pesos"], None),
    ("฿", ["baht", "baht"], None),
    ("₡", ["colon", "colones"], None),
    ("₲", ["guarani", "guaranies"], None),
    ("₵", ["cedi", "cedis"], None),
    ("₸", ["tenge", "tenge"], None),
    ("₮", ["tugrik", "tugriks"], None),
    ("₭", ["kip", "kip"], None),
    ("₼", ["manat", "manat"], None),
    ("₾", ["lari", "lari"], None),
];
/// Codes of ISO 4217, and of two more that are written in their way.
const CODES: [(&str, Names, Option<Names>); 24] = [
    ("USD", ["dollar", "dollars"], Some(["cent", "cents"])),
    ("EUR", ["euro", "euros"], Some(["cent", "cents"])),
    ("GBP", ["pound", "pounds"], Some(["penny", "pence"])),
    ("JPY", ["yen", "yen"], None),
    ("CHF", ["swiss franc", "swiss francs"], Some(["centime", "centimes"])),
    ("CAD", ["canadian dollar", "canadian dollars"], Some(["cent", "cents"])),
    ("AUD", ["australian dollar", "australian dollars"], Some(["cent", "cents"])),
    ("NZD", ["new zealand dollar", "new zealand dollars"], Some(["cent", "cents"])),
    ("HKD", ["hong kong dollar", "hong kong dollars"], Some(["cent", "cents"])),
    ("SGD", ["singapore dollar", "singapore dollars"], Some(["cent", "cents"])),
    ("CNY", ["yuan", "yuan"], None),
    ("INR", ["rupee", "rupees"], Some(["paisa", "paise"])),
    ("KRW", ["won", "won"], None),
    ("RUB", ["ruble", "rubles"], Some(["kopeck", "kopecks"])),
    ("SEK", ["swedish krona", "swedish kronor"], None),
    ("NOK", ["norwegian krone", "norwegian kroner"], None),
    ("DKK", ["danish krone", "danish kroner"], None),
    ("PLN", ["zloty", "zlotys"], None),
    ("CZK", ["czech koruna", "czech korunas"], None),
    ("BRL", ["brazilian real", "brazilian reais"], None),
    ("MXN", ["mexican peso", "mexican pesos"], None),
    ("ZAR", ["rand", "rand"], None),
    ("BTC", ["bitcoin", "bitcoins"], None),
    ("ETH", ["ether", "ether"], None),
];
/// Whose dollar it is.
const PREFIXES: [(&str, &str); 8] = [
    ("US", "u s "),
    ("A", "australian "),
    ("AU", "australian "),
    ("C", "canadian "),
    ("CA", "canadian "),
    ("NZ", "new zealand "),
    ("HK", "hong kong "),
    ("S", "singapore "),
];
/// What an amount stands before as an adjective: "the ten dollar bill".
const PRICED: &[&str] = &[
    "a", "an", "another", "any", "each", "every", "her", "his", "its", "my", "new", "one", "our",
    "that", "the", "their", "this", "your",
];
const PRICED_THINGS: &[&str] = &[
    "bet", "bill", "bills", "bond", "bonus", "budget", "card", "charge", "check", "cheque", "chip",
    "coin", "coins", "company", "contract", "cut", "deal", "deposit", "discount", "donation", "fee",
    "fine", "fund", "gift", "grant", "increase", "industry", "investment", "item", "job", "lawsuit",
    "limit", "loan", "loss", "lunch", "meal", "note", "notes", "offer", "order", "payment", "pizza",
    "prize", "profit", "project", "question", "raise", "refund", "reward", "round", "salary", "shirt",
    "stake", "tax", "ticket", "tickets", "tip", "voucher", "wager",
];

pub(super) fn mend(text: &mut String) {
    each(text, re!(r"(?-u:\b)Rs\.? ?([0-9])"), |c, _, _| Some(format!("₹{}", &c[1])));
    let prefixed = re!(concat!(
        r"(?:(?-u:\b)(US|AU|A|CA|C|NZ|HK|S))?([$£€₹¥₩¢₽₿₺₴₪₫₦₱฿₡₲₵₸₮₭₼₾]) ?(-?)([0-9]+(?:[.,][0-9]+)*|\.[0-9]+)",
        r"(?i:\s?(K|M|B|T|bn|mn|mm|mil|cr|crore|lakh|thousand|million|billion|trillion)(?-u:\b))?(-[a-z])?",
        r"(?: ?(USD|EUR|GBP|JPY|CAD|AUD|NZD|HKD|SGD|MXN|INR)(?-u:\b))?"
    ));
    each(text, prefixed, |c, before, after| {
        // "$5 USD": the code says whose it is.
        let amount = Amount {
            sign: c.get(7).map_or(&c[2], |code| code.as_str()),
            number: &c[4],
            power: group(c, 5),
            whose: group(c, 1),
            bound: group(c, 6),
        };
        let minus = if c[3].is_empty() { "" } else { "-" };
        Some(format!("{minus}{}", amount.read(before, after)?))
    });
    let suffixed = re!(concat!(
        r"([0-9]+(?:[.,][0-9]+)*|\.[0-9]+)",
        r"(?i:\s?(K|M|B|T|bn|mn|mm|mil|cr|crore|lakh|thousand|million|billion|trillion))?",
        r"\s?([$£€₹¥₩¢₽₿₺₴₪₫₦₱฿₡₲₵₸₮₭₼₾]|(?:USD|EUR|GBP|JPY|CHF|CAD|AUD|NZD|HKD|SGD|CNY|INR|KRW|RUB|SEK|NOK|DKK|PLN|CZK|BRL|MXN|ZAR|BTC|ETH)(?-u:\b))"
    ));
    each(text, suffixed, |c, before, after| {
        let amount = Amount { sign: &c[3], number: &c[1], power: group(c, 2), whose: "", bound: "" };
        amount.read(before, after)
    });
    let coded = re!(concat!(
        r"(?-u:\b)(USD|EUR|GBP|JPY|CHF|CAD|AUD|NZD|HKD|SGD|CNY|INR|KRW|RUB|SEK|NOK|DKK|PLN|CZK|BRL|MXN|ZAR|BTC|ETH)",
        r" ?([0-9]+(?:[.,][0-9]+)*)(?i:\s?(K|M|B|T|bn|mn|mm|mil|cr|crore|lakh|thousand|million|billion|trillion)(?-u:\b))?"
    ));
    each(text, coded, |c, before, after| {
        let amount = Amount { sign: &c[1], number: &c[2], power: group(c, 3), whose: "", bound: "" };
        amount.read(before, after)
    });
    for (sign, [name, _], _) in &CURRENCIES[1..] {
        if text.contains(sign) {
            *text = text.replace(sign, &format!(" {name} "));
        }
    }
}

struct Amount<'a> {
    sign: &'a str,
    number: &'a str,
    power: &'a str,
    whose: &'a str,
    /// A hyphen and a letter: "$10-a-day".
    bound: &'a str,
}

impl Amount<'_> {
    /// Nothing where it is no amount: more digits around it (`$1.2.3`).
    fn read(&self, before: &str, after: &str) -> Option<String> {
        let more = after.starts_with(is_digit)
            || (self.bound.is_empty() && super::goes_on(after, &['.', ',']));
        let within = before.ends_with(is_digit)
            || (before.ends_with('.') && before[..before.len() - 1].ends_with(is_digit));
        let each = matches!(next_word(after), "a" | "an" | "each" | "per") || after.starts_with('/');
        let (whole, fraction) = match thousands_by_points(self.number) {
            // A litre's price has three decimals.
            true if matches!(self.sign, "€" | "EUR" | "₺" | "₽" | "₫") && !each => {
                (self.number.replace('.', ""), "")
            }
            _ => parts(self.number)?,
        };
        require(!more && !within)?;
        let &(_, names, hundredths) =
            CURRENCIES.iter().chain(&CODES).find(|(of, ..)| *of == self.sign)?;
        let whose = PREFIXES.iter().find(|(of, _)| *of == self.whose).map_or("", |(_, words)| words);
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            some => some,
        };
        let name = |of: Names, count: &str| of[usize::from(count != "1")];
        let adjective = self.is_adjective(before, after);
        let amount = match (power_of_thousand(self.power), hundredths) {
            (Some(power), _) => {
                let fraction = fraction.trim_end_matches('0');
                let point = if fraction.is_empty() { "" } else { "." };
                let name = names[usize::from(!adjective)];
                format!("{}{point}{fraction} {power} {whose}{name}", guarded(whole))
            }
            (None, Some(hundredths)) if fraction.len() <= 2 => {
                let cents = format!("{fraction:0<2}");
                let cents = cents.trim_start_matches('0');
                let unit = if adjective && cents.is_empty() { names[0] } else { name(names, whole) };
                let wholes = format!("{} {whose}{unit}", guarded(whole));
                match (whole, cents) {
                    (_, "") => wholes,
                    ("0", _) => format!("{cents} {}", name(hundredths, cents)),
                    _ => format!("{wholes}, {cents} {}", name(hundredths, cents)),
                }
            }
            _ if fraction.is_empty() => {
                let unit = if adjective { names[0] } else { name(names, whole) };
                format!("{} {whose}{unit}", guarded(whole))
            }
            _ => format!("{}.{fraction} {whose}{}", guarded(whole), names[1]),
        };
        let letter = |c: char| c.is_ascii_alphanumeric();
        let bound = self.bound.replace('-', " ");
        Some(format!(
            "{}{amount}{bound}{}",
            gap(before.ends_with(letter)),
            gap(bound.is_empty() && after.starts_with(letter))
        ))
    }

    fn is_adjective(&self, before: &str, after: &str) -> bool {
        if !self.bound.is_empty() {
            return self.bound != "-a";
        }
        let determined =
            before.ends_with(' ') && PRICED.contains(&super::last_word(before).to_lowercase().as_str());
        determined && after.starts_with(' ') && PRICED_THINGS.contains(&next_word(after))
    }
}

/// "1.000", as thousands are written where the euro is paid.
fn thousands_by_points(number: &str) -> bool {
    re!(r"^[1-9][0-9]{0,2}\.[0-9]{3}$").is_match(number)
}

/// The digits before and behind the decimal mark, which is a comma in "1.234,56" and "29,99".
fn parts(number: &str) -> Option<(String, &str)> {
    let thousands = |whole: &str, mark: char| {
        let mut groups = whole.split(mark).rev();
        let last = groups.next().is_none_or(|group| group.len() == 3);
        // A lakh has groups of two.
        let others: Vec<_> = groups.collect();
        let inner = others.len().saturating_sub(1);
        let inner = others[..inner].iter().all(|group| group.len() == 3)
            || others[..inner].iter().all(|group| group.len() == 2);
        !whole.contains(mark) || (last && inner && others.last().is_none_or(|first| first.len() <= 3))
    };
    let joined = |whole: &str| whole.replace(['.', ','], "");
    let (dots, commas) = (number.matches('.').count(), number.matches(',').count());
    let (whole, fraction, mark) = match (number.rfind('.'), number.rfind(',')) {
        (Some(dot), Some(comma)) if dot < comma => {
            (commas == 1).then(|| (&number[..comma], &number[comma + 1..], '.'))?
        }
        (Some(dot), _) if dots == 1 => (&number[..dot], &number[dot + 1..], ','),
        (Some(_), None) => (number, "", '.'),
        (None, Some(comma)) if commas == 1 && number.len() - comma <= 3 => {
            (&number[..comma], &number[comma + 1..], '.')
        }
        (None, _) => (number, "", ','),
        _ => return None,
    };
    thousands(whole, mark).then(|| (joined(whole), fraction))
}

fn power_of_thousand(word: &str) -> Option<&'static str> {
    match word.chars().next()?.to_ascii_lowercase() {
        'l' => Some("lakh"),
        'c' => Some("crore"),
        'k' => Some("thousand"),
        'm' => Some("million"),
        'b' => Some("billion"),
        _ if word.eq_ignore_ascii_case("thousand") => Some("thousand"),
        _ => Some("trillion"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples() {
        super::super::writes(
            super::mend,
            &[
                (
                    "€29,99, €1.234,56, $1,234.56",
                    "29 euros, 99 cents, 01234 euros, 56 cents, 01234 dollars, 56 cents",
                ),
                ("$ 5, $-5, -$5, 50¢", "5 dollars, -5 dollars, -5 dollars, 50 cents"),
                (
                    "the $10 bill, a $5 million project, the $10 he has",
                    "the 10 dollar bill, a 5 million dollar project, the 10 dollars he has",
                ),
                ("US$5, 5 USD, CHF 1, 100 EUR", "5 u s dollars, 5 dollars, 1 swiss franc, 100 euros"),
                ("$1.5k, $5m, 5₽", "1.5 thousand dollars, 5 million dollars, 5 rubles"),
                (
                    "€1.000, ₹5 crore, $5mm, $5 CAD",
                    "01000 euros, 5 crore rupees, 5 million dollars, 5 canadian dollars",
                ),
                ("$1.2.3 and $1,2,3", "$1.2.3 and $1,2,3"),
            ],
        );
    }
}
