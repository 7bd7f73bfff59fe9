//! Text as the model reads it: the normalizer and the sentence splitter of Soprano 0.2, with their
//! faults or without.
//!
//! ```text
//! let text = normalize("Dr. Smith paid £20 at 8:05.", Faults::Mended);
//! assert_eq!(text, "doctor smith paid twenty pounds at eight oh five.");
//! let prompts: Vec<String> =
//!     sentences(&text, Faults::Mended).iter().map(|sentence| prompt(sentence)).collect();
//! ```
//!
//! What is mended is rewritten before the rules are applied, so that there is one set of them.
//!
//! Upstream raises an error for a number of more than 36 digits and for an amount such as `$,5`; neither
//! is one here: the digits are read one by one, the comma is passed over.

mod ascii;
mod mend;
mod numbers;
mod rules;
mod split;

pub use split::{prompt, sentences};

use std::borrow::Cow;

use regex::{Captures, Regex};

/// What becomes of upstream's faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// Read as they are meant.
    #[default]
    Mended,
    /// Read as upstream reads them, to the letter, in the characters that English is written with: letters of
    /// other scripts may have another spelling, or one where upstream has none.
    Kept,
}

/// Any text as what the model was trained on: words in `a-z !$',-.?`, without digits, a mark at the end
/// of every line. `fixtures/text/faults.txt` has what the two ways of reading differ in.
pub fn normalize(text: &str, faults: Faults) -> String {
    let text = match faults {
        Faults::Mended => Cow::Owned(mend::mend(text)),
        Faults::Kept => Cow::Borrowed(text),
    };
    let ascii = ascii::ascii(&text.replace('—', " - "));
    let mut text = rules::join_lines(&ascii);
    rules::numbers(&mut text, faults);
    rules::patterns(&mut text);
    rules::abbreviations(&mut text);
    rules::symbols(&mut text);
    rules::tidy(&mut text);
    text
}

/// Every match in `text`, written anew.
fn rewrite(text: &mut String, re: &Regex, mut write: impl FnMut(&str, &mut String)) {
    let mut matches = re.find_iter(text).peekable();
    if matches.peek().is_none() {
        return;
    }
    let (mut out, mut copied) = (String::with_capacity(text.len() + 64), 0);
    for one in matches {
        out.push_str(&text[copied..one.start()]);
        write(one.as_str(), &mut out);
        copied = one.end();
    }
    out.push_str(&text[copied..]);
    *text = out;
}

/// As [`rewrite`], of groups and with the text before and after, where there is something to write.
fn each(text: &mut String, re: &Regex, mut write: impl FnMut(&Captures, &str, &str) -> Option<String>) {
    let (mut out, mut copied) = (String::new(), 0);
    for captures in re.captures_iter(text) {
        let found = captures.get_match();
        let (before, after) = (&text[..found.start()], &text[found.end()..]);
        if let Some(new) = write(&captures, before, after) {
            out.push_str(&text[copied..found.start()]);
            out.push_str(&new);
            copied = found.end();
        }
    }
    if copied > 0 {
        out.push_str(&text[copied..]);
        *text = out;
    }
}

/// A pattern, compiled at its first use.
macro_rules! re {
    ($pattern:expr) => {{
        static RE: std::sync::LazyLock<regex::Regex> =
            std::sync::LazyLock::new(|| regex::Regex::new($pattern).expect("a pattern that compiles"));
        &*RE
    }};
}
use re;

#[cfg(test)]
mod tests;
