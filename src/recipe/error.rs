use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use super::bounds::MOST_VALUES;
use super::text::{line_of, printable};

/// Each way in which a recipe can't be had.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(recipe::io), help("is the path right, and may you read it?"))]
    Io { path: PathBuf, source: std::io::Error },

    /// No built-in recipe has the name, and no file.
    #[error("no recipe named `{name}`{}", guess.as_ref().map(|g| format!("; did you mean `{g}`?")).unwrap_or_default())]
    #[diagnostic(code(recipe::unknown), help("built in: {builtin}; or give the path of a .yaml file"))]
    Unknown { name: String, guess: Option<String>, builtin: String },

    /// The text is longer than any recipe.
    #[error("{name}: more than {most} bytes: no recipe is that large")]
    #[diagnostic(
        code(recipe::too_large),
        help("give a recipe's .yaml file, not a checkpoint or a log")
    )]
    TooLarge { name: String, most: usize },

    /// The file is not UTF-8.
    #[error("{name}:{line}:{column}: not UTF-8 from here on")]
    #[diagnostic(code(recipe::not_utf8), help("save the file as UTF-8; a recipe is plain text"))]
    NotUtf8 { name: String, line: usize, column: usize },

    /// The text is not a recipe; says where.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Text(#[from] Box<Misfit>),
}

/// What is wrong with a recipe's text, and where.
#[derive(Debug)]
pub struct Misfit {
    source: NamedSource<Arc<str>>,
    span: SourceSpan,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl Misfit {
    pub(super) fn new(name: &str, text: &str, offset: usize, problem: Problem) -> Self {
        let offset = text.floor_char_boundary(offset);
        let start = text[..offset].rfind('\n').map_or(0, |i| i + 1);
        let length = if matches!(problem, Problem::Empty) { 0 } else { token(&text[offset..]) };
        Misfit {
            source: NamedSource::new(name, Arc::from(without_controls(text))),
            span: (offset, length).into(),
            line: line_of(text, offset),
            column: text[start..offset].chars().count() + 1,
            problem,
        }
    }
}

/// The text with a stand-in as long for each character that a terminal might obey.
fn without_controls(text: &str) -> String {
    let stand_in = |c: char| match c.len_utf8() {
        _ if printable(c) => c,
        1 => '?',
        2 => '\u{bf}',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(stand_in).collect()
}

/// Bytes of the key or plain value that a text begins with, for the underline.
fn token(text: &str) -> usize {
    let line = text.lines().next().unwrap_or_default();
    let end = match line.chars().next() {
        Some(quote @ ('"' | '\'')) => line[1..].find(quote).map_or(line.len(), |i| i + 2),
        Some('[' | '{' | ']' | '}' | ',') => 1,
        Some(_) => [": ", " #", ",", "]", "}"]
            .iter()
            .filter_map(|stop| line.find(stop))
            .min()
            .unwrap_or(line.len()),
        None => 0,
    };
    let word = line[..end].trim_end();
    word.strip_suffix(':').unwrap_or(word).len()
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.source.name(), self.line, self.column, self.problem)
    }
}

impl std::error::Error for Misfit {}

impl Diagnostic for Misfit {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(Some(self.problem.label().into()), self.span);
        Some(Box::new(std::iter::once(label)))
    }
}

/// What to write where a key is missing.
fn complete(key: &str) -> String {
    match key {
        "name" | "source" => format!("the shortest recipe is\n{SHORTEST}"),
        "role" => "write `role: causal` for a language model, `role: signal` for a vocoder".to_owned(),
        "graphs" => "add `graphs:`, and under it each graph by its name".to_owned(),
        _ => format!("add `{key}: ...`; docs/recipes.md says what it takes"),
    }
}

/// Each way in which a recipe's text is not a recipe.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Problem {
    /// There is nothing in the text.
    #[error("the recipe is empty")]
    #[diagnostic(code(recipe::empty), help("the shortest recipe is\n{SHORTEST}"))]
    Empty,

    /// The text is not YAML.
    #[error("not YAML: {why}")]
    #[diagnostic(
        code(recipe::syntax),
        help("indent with spaces, and quote values that hold `: `, ` #` or begin with a sign")
    )]
    Syntax { why: String },

    /// There is more than one document.
    #[error("a second document begins here")]
    #[diagnostic(code(recipe::documents), help("one recipe per file: split the file at the `---`"))]
    Documents,

    /// More keys and values than any recipe has.
    #[error("more than {most} keys and values, aliases written out")]
    #[diagnostic(
        code(recipe::too_much),
        help("a recipe has some dozens; aliases of aliases multiply: write the values out")
    )]
    TooMuch { most: u32 },

    /// More open brackets than any recipe has.
    #[error("more than {most} opening brackets")]
    #[diagnostic(code(recipe::too_much), help("a recipe has some dozens; write lists line by line"))]
    Brackets { most: usize },

    /// Deeper nesting than any recipe has.
    #[error("nests deeper than {deepest} levels")]
    #[diagnostic(
        code(recipe::too_deep),
        help(
            "a recipe nests four deep; look for a stray bracket, or an alias inside what it stands for"
        )
    )]
    TooDeep { deepest: u32 },

    /// A YAML tag.
    #[error("the tag `!{tag}` has no meaning in a recipe")]
    #[diagnostic(code(recipe::tag), help("remove the tag, or put the value in quotes"))]
    Tag { tag: String },

    /// A key that is not text.
    #[error("a key must be text")]
    #[diagnostic(code(recipe::key_type), help("write `key: value`"))]
    KeyType,

    /// A key that is not known where it stands.
    #[error("unknown key `{key}`{}", guess.map(|g| format!("; did you mean `{g}`?")).unwrap_or_default())]
    #[diagnostic(code(recipe::unknown_key), help("keys known here: {known}"))]
    UnknownKey { key: String, guess: Option<&'static str>, known: String },

    /// A key that stands there twice.
    #[error("key `{key}` stands here again, after line {first}")]
    #[diagnostic(code(recipe::duplicate_key), help("keep one of the two"))]
    Duplicate { key: String, first: usize },

    /// A key that is needed.
    #[error("key `{key}` is missing")]
    #[diagnostic(code(recipe::missing_key), help("{}", complete(key)))]
    Missing { key: &'static str },

    /// A value of another type.
    #[error("expected {expected}, found {found}")]
    #[diagnostic(code(recipe::wrong_type))]
    Type {
        found: String,
        expected: String,
        #[help]
        help: Option<String>,
    },

    /// A word that is not one of a closed set.
    #[error("unknown value `{value}`{}", guess.map(|g| format!("; did you mean `{g}`?")).unwrap_or_default())]
    #[diagnostic(code(recipe::unknown_value), help("known here: {known}"))]
    Choice { value: String, guess: Option<&'static str>, known: String },

    /// A gate of a graph that the recipe does not export.
    #[error("the gate of `{graph}`, which this recipe doesn't export")]
    #[diagnostic(
        code(recipe::bad_value),
        help("add `{graph}: {{}}` to the recipe's graphs, or take this out")
    )]
    GateOfNothing { graph: &'static str },

    /// A value that no recipe may have.
    #[error("{invalid}")]
    #[diagnostic(code(recipe::bad_value), help("{}", invalid.help))]
    Value { invalid: super::Invalid },

    /// Anything else that a type refuses.
    #[error("{why}")]
    #[diagnostic(code(recipe::wrong_type))]
    Other { why: String },
}

const SHORTEST: &str = "  name: my-model\n  source: ./checkpoint\n  graphs: {decoder: {}}";

impl Problem {
    pub(super) fn from_yaml(error: &serde_yaml::Error) -> Self {
        let mut why = error.to_string();
        if why.contains("repetition limit") {
            return Problem::TooMuch { most: MOST_VALUES };
        }
        if let Some(at) = error.location() {
            // The place stands before the message already.
            why = why.replacen(&format!(" at line {} column {}", at.line(), at.column()), "", 1);
        }
        Problem::Syntax { why }
    }

    fn label(&self) -> &'static str {
        match self {
            Problem::Empty => "nothing here",
            Problem::Syntax { .. } => "here",
            Problem::Documents => "the second document",
            Problem::TooMuch { .. } | Problem::Brackets { .. } | Problem::TooDeep { .. } => {
                "given up here"
            }
            Problem::Tag { .. } => "tagged",
            Problem::KeyType => "not text",
            Problem::UnknownKey { .. } => "unknown",
            Problem::Duplicate { .. } => "again",
            Problem::Missing { .. } => "missing in this mapping",
            Problem::Type { .. } | Problem::Other { .. } => "of another type",
            Problem::Choice { .. } => "unknown",
            Problem::Value { .. } | Problem::GateOfNothing { .. } => "this value",
        }
    }
}

/// A foreign word for a message: short, and nothing in it that a terminal would obey.
pub(super) fn short(word: &str) -> String {
    let mut shown: String = word.chars().take(60).flat_map(char::escape_debug).collect();
    if word.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

/// The known word that a misspelt one most likely means.
pub(crate) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A word of a megabyte is nobody's typo, and the distance takes memory by its square.
    if word.len() > 64 {
        return None;
    }
    let plain = word.to_lowercase().replace(['-', ' '], "_");
    known
        .map(|candidate| (strsim::damerau_levenshtein(&plain, &candidate.replace('-', "_")), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_guessed_and_other_words_are_not() {
        let known = ["opset", "file", "tolerance", "time_limit_seconds"];
        let guess = |word| closest(word, known.into_iter());
        assert_eq!(guess("tolerence"), Some("tolerance"));
        assert_eq!(guess("Time-Limit-Seconds"), Some("time_limit_seconds"));
        assert_eq!(guess("opest"), Some("opset"));
        assert_eq!(guess("quantize"), None);
        assert_eq!(guess(""), None);
        assert_eq!(guess(&"o".repeat(1 << 20)), None);
    }

    #[test]
    fn the_underline_covers_one_key_or_value() {
        for (text, underlined) in [
            ("opset: 17", "opset"),
            ("opset:\n  x", "opset"),
            ("12 # too low", "12"),
            ("'a # b' x", "'a # b'"),
            ("12, 13]", "12"),
            ("[1, 2]", "["),
            ("\nnext", ""),
            ("", ""),
            ("\"open", "\"open"),
        ] {
            assert_eq!(&text[..token(text)], underlined, "{text:?}");
        }
    }
}
