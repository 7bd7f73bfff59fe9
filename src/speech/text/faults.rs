/// A fault of upstream's, by an example.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name.
    pub id: &'static str,
    /// A text that shows it.
    pub text: &'static str,
    /// What upstream says.
    pub upstream: &'static str,
    /// What is said in its place.
    pub mended: &'static str,
}

const fn fault(
    id: &'static str,
    text: &'static str,
    upstream: &'static str,
    mended: &'static str,
) -> Fault {
    Fault { id, text, upstream, mended }
}

/// Every fault that [`Faults::Mended`](super::Faults::Mended) mends, one example or more of each.
pub const FAULTS: &[Fault] = &[
    fault("pound", "£1.50", "ps one point five zero.", "one pound, fifty pence."),
    fault("euro", "50€", "fifty eur.", "fifty euros."),
    fault("yen", "¥100", "y equals one hundred.", "one hundred yen."),
    fault("sign-alone", "a £ sign", "a ps sign.", "a pound sign."),
    fault("rupee", "₹250", "rs two hundred fifty.", "two hundred fifty rupees."),
    fault("dollar-after", "5$ each", "five$ each.", "five dollars each."),
    fault(
        "comma-year",
        "$1,234.56",
        "twelve thirty-four dollars, fifty-six cents.",
        "one thousand, two hundred thirty-four dollars, fifty-six cents.",
    ),
    fault("comma-year", "2,025 days", "twenty twenty-five days.", "two thousand twenty-five days."),
    fault("money-year", "$2025", "twenty twenty-five dollars.", "two thousand twenty-five dollars."),
    fault("tenths-of-a-dollar", "$5.5", "five dollars, five cents.", "five dollars, fifty cents."),
    fault(
        "thousandths-of-a-dollar",
        "$1.234",
        "one dollar, two hundred thirty-four cents.",
        "one point two three four dollars.",
    ),
    fault(
        "millions-of-dollars",
        "$5.5 million",
        "five dollars, five cents million.",
        "five point five million dollars.",
    ),
    fault("millions-of-dollars", "$1M", "one dollar million.", "one million dollars."),
    fault("comma-list", "pages 1,2,3", "pages one hundred twenty-three.", "pages one, two, three."),
    fault("python-set", "10:30:15", "ten, 'thirty', fifteen.", "ten thirty fifteen."),
    fault("hour-as-minutes", "13:00", "thirteen minutes.", "thirteen hundred."),
    fault("heart", "I <3 you", "i less than three you.", "i heart you."),
    fault("www", "www.example.com", "ww dot example dot com.", "w w w dot example dot com."),
    fault(
        "http",
        "http://x.y",
        "h t t p s colon slash slash x dot y.",
        "h t t p colon slash slash x dot y.",
    ),
    fault("power", "10^2", "tentwo.", "ten to the power of two."),
    fault("superscript", "5 m²", "five m two.", "five m squared."),
    fault("superscript", "10⁻⁶", "ten minus six.", "ten to the power of minus six."),
    fault("degrees", "100°C", "one hundred degc.", "one hundred degrees celsius."),
    fault("degrees", "1 °F", "one degf.", "one degree fahrenheit."),
    fault("initials", "the U.S.A.", "the u dot s.a.", "the u s a."),
    fault("initials", "8 a.m. sharp", "eight a dot m. sharp.", "eight a m sharp."),
    fault("latin", "e.g. pears", "e dot g. pears.", "for example pears."),
    fault("phd", "Ph.D.", "ph dot d.", "p h d."),
    fault("dotted-letters", "a.b.c", "a dot b.c.", "a dot b dot c."),
    fault("street", "Main St. is shut", "main saint is shut.", "main street is shut."),
    fault("last-mark", "Acme Co.", "acme company", "acme company."),
    fault("last-mark", "St. John's St.", "saint john's saint", "saint john's street."),
    fault("inner-mark", "Jan. 5", "january. five.", "january five."),
    fault("feet", "6 ft. tall", "six fort tall.", "six feet tall."),
    fault("three-capitals", "World War III", "world war ii.", "world war three."),
    fault("three-capitals", "Henry VIII", "henry vii.", "henry eight."),
    fault("three-capitals", "AAA battery", "aa battery.", "a a a battery."),
    fault("hyphen-as-minus", "covid-19", "covid minus nineteen.", "covid nineteen."),
    fault("range-as-minus", "pages 10–20", "pages ten minus twenty.", "pages ten to twenty."),
    fault(
        "range-as-minus",
        "$5-$10",
        "five dollars minus ten dollars.",
        "five dollars to ten dollars.",
    ),
    fault(
        "country-code",
        "1-800-555-1234",
        "one minus eight zero zero, five five five, one two three four.",
        "one, eight zero zero, five five five, one two three four.",
    ),
    fault("decade", "the 1990s", "the nineteen ninety s.", "the nineteen nineties."),
    fault("decade", "the '90s", "the 'ninety s.", "the nineties."),
    fault("decade", "the 80s", "the eighty s.", "the eighties."),
    fault("leading-point", ".5 litres", ".five litres.", "zero point five litres."),
    fault("bytes", "10KB", "ten kilobyte.", "ten kilobytes."),
    fault("bytes", "5 MB/s", "five megabyte slash s.", "five megabytes per second."),
    fault("hertz", "2.5 GHz", "two point five g hz.", "two point five gigahertz."),
    fault("tab", "a\tb", "ab.", "a b."),
    fault("line-end", "a\rb", "ab.", "a. b."),
];
