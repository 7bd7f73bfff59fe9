//! What a letter or word behind a number is: a unit, a power of a thousand, or itself.

use super::super::{goes_on, is_capitalised, last_word, next_word, next_words, re, tail};
use super::table::{AFTER_MEASURE, COUNTED};

/// What is run, and what is watched, in "5k" and "4K".
const IN_K: &[&str] = &[
    "display", "marathon", "monitor", "race", "races", "resolution", "run", "runs", "screen", "TV",
    "video", "walk",
];
/// What makes "in" an inch.
const SIDES: &[&str] = &["deep", "diameter", "high", "long", "square", "tall", "thick", "wide"];
/// What makes "A" an ampere.
const ELECTRIC: &[&str] =
    &["breaker", "charger", "circuit", "current", "fuse", "plug", "socket", "supply"];
/// What has a number, and a letter behind it that is a part of its name.
const LABELS: &[&str] = &[
    "apartment", "apt", "block", "box", "building", "bus", "chapter", "class", "door", "exhibit",
    "exit", "figure", "flat", "flight", "floor", "form", "galaxy", "gate", "grade", "group", "highway",
    "iphone", "item", "lane", "level", "line", "locker", "lot", "model", "number", "page", "part",
    "phase", "platform", "problem", "question", "road", "room", "route", "row", "seat", "section",
    "size", "stage", "step", "suite", "table", "terminal", "track", "type", "unit", "version", "zone",
];
/// What metres are of, and what is told of them; before the number or behind it.
const METRIC: &[&str] = &[
    "above", "ahead", "altitude", "apart", "away", "backstroke", "below", "breaststroke", "butterfly",
    "cable", "ceiling", "climbed", "cliff", "cloth", "deep", "depth", "distance", "dived",
    "downstream", "fabric", "fencing", "high", "height", "hose", "jumped", "length", "long", "metre",
    "meter", "pipe", "pool", "radius", "ran", "ribbon", "rope", "run", "runs", "sank", "snow",
    "sprinted", "square", "string", "swam", "swim", "tall", "thick", "threw", "tower", "tree",
    "tubing", "upstream", "walked", "wall", "water", "wave", "waves", "wide", "width", "wire",
];
/// How far is run and swum: "the 100m".
const EVENTS: &[&str] = &[
    "50", "60", "100", "110", "200", "400", "800", "1500", "01500", "3000", "03000", "5000", "05000",
    "10000",
];
/// What goes before a time that something takes.
const TAKES: &[&str] =
    &["in", "last", "lasted", "lasts", "take", "takes", "took", "wait", "waited", "waiting"];
/// What goes behind one.
const PASSES: &[&str] = &["ago", "earlier", "later", "left", "remaining"];

/// What a letter or word behind a number is.
pub(super) enum Letter<'a> {
    /// No unit.
    Leave,
    /// A unit, by its symbol.
    Unit(&'a str),
    /// A power of a thousand, or the letter itself.
    Word(&'a str),
}

pub(super) struct Context<'a> {
    pub(super) number: &'a str,
    /// The letter touches the number.
    pub(super) joined: bool,
    /// A hyphen is between them.
    pub(super) bound: bool,
    pub(super) before: &'a str,
    pub(super) after: &'a str,
    /// A point follows.
    pub(super) dot: bool,
    /// The number stands behind one of feet.
    pub(super) feet: bool,
    /// Another unit follows behind a slash.
    pub(super) divided: bool,
}

impl Context<'_> {
    /// People and things, of which there are millions: next, or behind a word or two about them.
    fn counts(&self) -> bool {
        const OTHERS: [&str; 12] =
            ["and", "at", "by", "for", "from", "in", "is", "of", "on", "to", "was", "with"];
        let counted = |word: &str| COUNTED.contains(&word.to_lowercase().as_str());
        if !self.after.starts_with(' ') || counted(next_word(self.after)) {
            return self.after.starts_with(' ');
        }
        let words = next_words::<3>(self.after);
        let at = words.iter().position(|word| counted(word));
        self.joined && at.is_some_and(|at| !words[..at].iter().any(|word| OTHERS.contains(word)))
    }

    /// Of "5m": millions, unless lengths or times are about.
    fn meters(&self) -> Letter<'static> {
        let (next, near) = (next_word(self.after), tail(self.before));
        let thing = self.after.starts_with(' ') && AFTER_MEASURE.contains(&next);
        let last = last_word(self.before);
        let people = is_capitalised(next) && next.ends_with('s') && self.after.starts_with(' ');
        if people
            || matches!(last, "sold" | "cost" | "costs")
            || self.before.ends_with("population of ")
        {
            return Letter::Word("million");
        }
        let times = re!(r"^ (?:and )?[0-9]{1,2} ?s(?:ec)?(?-u:\b)").is_match(self.after);
        if PASSES.contains(&next)
            || times
            || self.before.ends_with("h ")
            || self.before.ends_with("hours ")
        {
            return Letter::Unit("min");
        }
        let clause = near.rsplit(['.', '!', '?', '\n', ',']).next().unwrap_or(near);
        let about = clause.rsplit(' ').take(6).any(|word| METRIC.contains(&word))
            || next_words::<3>(self.after).iter().any(|word| METRIC.contains(word));
        let by = re!(r"^ ?(?:[x×]|by) ?[0-9]").is_match(self.after)
            || re!(r"(?:[0-9x×]|by|meters?) ?$").is_match(near) && last != "and";
        let event = EVENTS.contains(&self.number)
            && (matches!(last, "the" | "The")
                || self.before.ends_with("men's ")
                || re!("[0-9]m,? (?:and |or )?$").is_match(near));
        if thing || about || by || event {
            return Letter::Unit("m");
        }
        if TAKES.contains(&last) {
            return Letter::Unit("min");
        }
        Letter::Word("million")
    }

    /// "Gate 5B", "221B Baker Street": the number's own letter.
    fn is_labelled(&self, symbol: &str) -> bool {
        let label = last_word(self.before);
        let next = next_word(self.after);
        let long = SIDES.contains(&next) || METRIC.contains(&next);
        let one = symbol.chars().count() == 1;
        if one && !long && !self.bound && LABELS.contains(&label.to_lowercase().as_str()) {
            return true;
        }
        let street = re!(
            r"^ (?:[A-Z][a-z']+ ){1,3}(?i:st|street|ave|avenue|rd|road|lane|drive|court|place|square|way)(?-u:\b)"
        );
        one && self.joined && self.number.len() < 5 && street.is_match(self.after)
    }

    /// "In 2019 MP Jones": the number is a year, and the letters are no unit.
    fn is_dated(&self, symbol: &str) -> bool {
        let number: Option<u32> = self.number.parse().ok();
        let year = self.number.len() == 4 && number.is_some_and(|n| (1000..2200).contains(&n));
        let clear = matches!(last_word(self.before), "in" | "In" | "by" | "By" | "since" | "Since");
        year && !self.joined && clear && is_capitalised(symbol) && symbol.len() <= 2
    }

    pub(super) fn letter<'a>(&self, symbol: &'a str) -> Letter<'a> {
        let next = next_word(self.after);
        let many = self.joined && self.counts();
        if self.divided {
            return Letter::Unit(symbol);
        }
        if self.is_labelled(symbol) {
            return if self.joined { Letter::Word(symbol) } else { Letter::Leave };
        }
        if self.is_dated(symbol) || self.number.starts_with("802.11") {
            return Letter::Leave;
        }
        match symbol {
            "m" if self.counts() => Letter::Word("million"),
            "m" if self.joined => self.meters(),
            "b" if many => Letter::Word("billion"),
            "b" => Letter::Word("b"),
            "mn" => Letter::Word("million"),
            "bn" => Letter::Word("billion"),
            "tn" => Letter::Word("trillion"),
            "t" if many => Letter::Word("trillion"),
            "T" if self.joined && matches!(next, "MRI" | "magnet" | "scanner" | "field") => {
                Letter::Word("tesla")
            }
            "M" if self.number == "3"
                && matches!(next, "Company" | "Co" | "company" | "Corporation") =>
            {
                Letter::Word("m")
            }
            "k" | "K" if self.joined && IN_K.contains(&next) => Letter::Word("k"),
            "k" | "K" | "M" | "B" | "T" => Letter::Leave,
            "g" | "G" if self.joined && is_network(next) => Letter::Leave,
            "d" if matches!(next, "printer" | "printers" | "printing" | "model" | "models") => {
                Letter::Leave
            }
            "d" | "N" | "J" if self.joined => Letter::Leave,
            "bps" if self.number.parse().is_ok_and(|rate: f64| rate < 300.0) => {
                Letter::Word(if self.number == "1" { "basis point" } else { "basis points" })
            }
            // "the 5 in the room": an inch behind feet, or as a measure.
            "in" if self.feet || self.joined || self.is_inch() => Letter::Unit("in"),
            "in" => Letter::Leave,
            "A" if ELECTRIC.contains(&next)
                || ["V, ", "V and ", "V at ", "V "].iter().any(|end| self.before.ends_with(end)) =>
            {
                Letter::Unit("A")
            }
            "A" => Letter::Leave,
            // "123 N Main St", "5 W 34th".
            "N" | "W" | "V" | "J" | "L" if next_starts_name(self.after) => Letter::Leave,
            "ha" if next == "ha" => Letter::Leave,
            "pt" if matches!(next, "font" | "type" | "text" | "size") => Letter::Unit("pts"),
            // Decades and other plurals are read before; a year's is not.
            "s" if self.joined && self.number.len() > 3 && !self.number.contains('.') => Letter::Leave,
            _ => Letter::Unit(symbol),
        }
    }

    /// "5 in.", "5 in wide"; not "Let 5 in.", nor "10 in high school".
    fn is_inch(&self) -> bool {
        const LET: [&str; 10] =
            ["brought", "came", "got", "let", "Let", "put", "sent", "those", "took", "turned"];
        let words = next_words::<2>(self.after);
        let ends = [
            "", "and", "at", "but", "by", "for", "from", "in", "is", "of", "on", "or", "to", "with",
            "x",
        ];
        let wide = SIDES.contains(&words[0])
            && (ends.contains(&words[1]) || AFTER_MEASURE.contains(&words[1]));
        let wide = wide || (self.bound && SIDES.contains(&words[0]));
        let clear = next_word(self.after).starts_with(char::is_lowercase);
        wide || (self.dot && (clear || !LET.contains(&last_word(self.before))))
    }
}

fn is_network(next: &str) -> bool {
    const NETWORKS: [&str; 12] = [
        "coverage", "connection", "internet", "modem", "network", "networks", "phone", "phones",
        "signal", "technology", "tower", "towers",
    ];
    NETWORKS.contains(&next)
}

fn next_starts_name(after: &str) -> bool {
    let word = next_word(after);
    let name = is_capitalised(word) && word.chars().any(char::is_lowercase);
    after.starts_with(' ') && (name || goes_on(after, &[' ']))
}
