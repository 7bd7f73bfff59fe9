//! Sizes of open dimensions: given, or assumed by their names; `2*n` and `past + n` by arithmetic.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::super::Error;
use crate::ir::Model;

/// A longer dimension is a name, whatever it looks like.
const LONGEST: usize = 256;

/// What open dimensions are to be.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The size of every dimension that is not named below; a batch is 1, a past 0.
    pub length: usize,
    /// Sizes by the name of the dimension; one without a name is `INPUT:AXIS`.
    pub given: BTreeMap<String, usize>,
}

/// Sizes of the open dimensions of some models, and which of them were assumed.
pub(super) struct Resolver<'a> {
    sizes: &'a Sizes,
    assumed: RefCell<BTreeMap<String, usize>>,
}

impl<'a> Resolver<'a> {
    /// # Errors
    /// [`Error::Dimension`] where a size is given for what no input has.
    pub fn new(sizes: &'a Sizes, models: &[&Model]) -> Result<Self, Error> {
        let mut known = BTreeSet::new();
        for input in models.iter().flat_map(|model| super::required(model)) {
            for (axis, dim) in input.shape().unwrap_or_default().iter().enumerate() {
                term(input.name(), axis, dim).names(&mut known);
            }
        }
        if let Some(name) = sizes.given.keys().find(|name| !known.contains(*name)) {
            let close = known.iter().map(|known| (strsim::jaro(known, name), known));
            let close = close.filter(|(how, _)| *how > 0.7).max_by(|a, b| a.0.total_cmp(&b.0));
            let advice = match close {
                Some((_, close)) => format!("did you mean {close:?}?"),
                None if known.is_empty() => "every dimension of every input is fixed".to_owned(),
                None => format!("there are: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
            };
            return Err(Error::Dimension { name: name.clone(), advice });
        }
        Ok(Self { sizes, assumed: RefCell::default() })
    }

    /// The size of a dimension of an input.
    ///
    /// # Errors
    /// A sentence, where arithmetic doesn't come to a size.
    pub fn size(&self, input: &str, axis: usize, dim: &str) -> Result<usize, String> {
        // Exact, however large.
        if let Ok(size) = dim.trim().parse() {
            return Ok(size);
        }
        let term = term(input, axis, dim);
        let value = term.value(&|name| self.look_up(name) as f64);
        if is_size(value) {
            return Ok(value as usize);
        }
        let mut names = BTreeSet::new();
        term.names(&mut names);
        let used = names.into_iter().map(|name| format!("{name} = {}", self.look_up(&name)));
        let used = used.collect::<Vec<_>>().join(", ");
        Err(format!("has the dimension {dim:?}, which is {value} where {used}"))
    }

    fn look_up(&self, name: &str) -> usize {
        if let Some(&size) = self.sizes.given.get(name) {
            return size;
        }
        let size = match name {
            _ if name.to_lowercase().contains("batch") => 1,
            _ if name.starts_with("past") => 0,
            _ => self.sizes.length,
        };
        self.assumed.borrow_mut().insert(name.to_owned(), size);
        size
    }

    /// The size of what has no other.
    pub fn length(&self) -> u64 {
        self.sizes.length as u64
    }

    /// What was looked up and not given.
    pub fn assumed(self) -> BTreeMap<String, usize> {
        self.assumed.into_inner()
    }
}

/// A dimension of an input as a term; one that has neither a name nor a size is called by its place.
fn term(input: &str, axis: usize, dim: &str) -> Term {
    let is_number =
        |term: &Term| dim.trim().parse::<usize>().is_ok() || is_size(term.value(&|_| f64::NAN));
    let term = parse(dim).filter(|term| term.is_named() || is_number(term));
    term.unwrap_or_else(|| Term::Name(format!("{input}:{axis}")))
}

/// Whether a number is whole and so small that arithmetic on it was exact.
fn is_size(value: f64) -> bool {
    value >= 0.0 && value.fract() == 0.0 && value < 2f64.powi(53)
}

/// Arithmetic of numbers and names, as PyTorch's and ONNX Runtime's exporters write it (sympy's notation).
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    Number(f64),
    Name(String),
    Of(Operation, Vec<Term>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
    Floor,
    Ceiling,
    Least,
    Greatest,
}

impl Term {
    fn is_named(&self) -> bool {
        match self {
            Term::Number(_) => false,
            Term::Name(_) => true,
            Term::Of(_, terms) => terms.iter().any(Term::is_named),
        }
    }

    pub fn names(&self, into: &mut BTreeSet<String>) {
        match self {
            Term::Number(_) => {}
            Term::Name(name) => {
                into.insert(name.clone());
            }
            Term::Of(_, terms) => terms.iter().for_each(|term| term.names(into)),
        }
    }

    pub fn value(&self, size: &dyn Fn(&str) -> f64) -> f64 {
        let terms = match self {
            Term::Number(n) => return *n,
            Term::Name(name) => return size(name),
            Term::Of(_, terms) => terms.iter().map(|term| term.value(size)).collect::<Vec<_>>(),
        };
        let Term::Of(operation, _) = self else { unreachable!("the others have returned") };
        match (operation, terms.as_slice()) {
            (Operation::Add, [a, b]) => a + b,
            (Operation::Subtract, [a, b]) => a - b,
            (Operation::Multiply, [a, b]) => a * b,
            (Operation::Divide, [a, b]) => a / b,
            (Operation::FloorDivide, [a, b]) => (a / b).floor(),
            (Operation::Remainder, [a, b]) => a - b * (a / b).floor(),
            (Operation::Power, [a, b]) => a.powf(*b),
            (Operation::Floor, [a]) => a.floor(),
            (Operation::Ceiling, [a]) => a.ceil(),
            (Operation::Least, terms) => terms.iter().copied().fold(f64::INFINITY, f64::min),
            (Operation::Greatest, terms) => terms.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            _ => f64::NAN,
        }
    }
}

/// A dimension as a term; none where it is not text at all. What is not arithmetic is a name as a whole.
pub(super) fn parse(dim: &str) -> Option<Term> {
    let dim = dim.trim();
    if dim.is_empty() || dim == "?" {
        return None;
    }
    let mut parser = Parser { rest: dim };
    let term = if dim.len() <= LONGEST { parser.sum() } else { None };
    Some(match term.filter(|_| parser.rest.trim().is_empty()) {
        Some(term) => term,
        None => Term::Name(dim.to_owned()),
    })
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.strip_prefix(text);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn sum(&mut self) -> Option<Term> {
        let mut left = self.product()?;
        loop {
            let operation = match () {
                () if self.take("+") => Operation::Add,
                () if self.take("-") => Operation::Subtract,
                () => return Some(left),
            };
            left = Term::Of(operation, vec![left, self.product()?]);
        }
    }

    fn product(&mut self) -> Option<Term> {
        let mut left = self.signed()?;
        loop {
            let operation = match () {
                () if self.take("//") => Operation::FloorDivide,
                () if self.take("/") => Operation::Divide,
                () if self.take("*") => Operation::Multiply,
                () if self.take("%") => Operation::Remainder,
                () => return Some(left),
            };
            left = Term::Of(operation, vec![left, self.signed()?]);
        }
    }

    fn signed(&mut self) -> Option<Term> {
        if self.take("-") {
            return Some(match self.signed()? {
                Term::Number(n) => Term::Number(-n),
                term => Term::Of(Operation::Subtract, vec![Term::Number(0.0), term]),
            });
        }
        let base = self.atom()?;
        if self.take("**") || self.take("^") {
            return Some(Term::Of(Operation::Power, vec![base, self.signed()?]));
        }
        Some(base)
    }

    fn atom(&mut self) -> Option<Term> {
        if self.take("(") {
            let inner = self.sum()?;
            return self.take(")").then_some(inner);
        }
        self.rest = self.rest.trim_start();
        let text = self.word();
        let (word, rest) = (&self.rest[..text], &self.rest[text..]);
        if word.is_empty() {
            return None;
        }
        self.rest = rest;
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.parse().ok().map(Term::Number);
        }
        let name = word.to_owned();
        if !self.take("(") {
            return Some(Term::Name(name));
        }
        let mut terms = vec![self.sum()?];
        while self.take(",") {
            terms.push(self.sum()?);
        }
        let operation = match (name.to_lowercase().as_str(), terms.len()) {
            ("floor", 1) => Operation::Floor,
            ("ceiling" | "ceil", 1) => Operation::Ceiling,
            ("min", _) => Operation::Least,
            ("max", _) => Operation::Greatest,
            ("floordiv", 2) => Operation::FloorDivide,
            ("mod", 2) => Operation::Remainder,
            _ => return None,
        };
        self.take(")").then_some(Term::Of(operation, terms))
    }

    /// Bytes of the next number or name. A hyphen between two letters is part of a name: `sequence-length`.
    fn word(&self) -> usize {
        let mut before = None;
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let after = chars.peek().map(|(_, c)| *c);
            let hyphen = c == '-'
                && before.is_some_and(|c: char| c.is_alphabetic())
                && after.is_some_and(char::is_alphabetic);
            if !(c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '@' | '$') || hyphen) {
                return at;
            }
            before = Some(c);
        }
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(dim: &str) -> Option<f64> {
        let sizes = |name: &str| match name {
            "n" => 7.0,
            "past" => 3.0,
            "sequence-length" => 11.0,
            _ => 100.0,
        };
        parse(dim).map(|term| term.value(&sizes))
    }

    #[test]
    fn arithmetic_of_exporters_is_evaluated() {
        let known = [
            ("8", 8.0),
            ("n", 7.0),
            ("2*n", 14.0),
            ("past + n", 10.0),
            ("n - 1", 6.0),
            ("n-1", 6.0),
            ("1 + 2*n", 15.0),
            ("(1 + 2)*n", 21.0),
            ("n//2", 3.0),
            ("n/2", 3.5),
            ("n % 4", 3.0),
            ("floor(n/2 - 1/2) + 1", 4.0),
            ("ceiling(n/2)", 4.0),
            ("Max(1, n, past)", 7.0),
            ("Min(1, n)", 1.0),
            ("FloorDiv(n, 2)", 3.0),
            ("Mod(n, 4)", 3.0),
            ("2**past", 8.0),
            ("-n + 10", 3.0),
            ("n - 2 - 1", 4.0),
            ("n*2//4", 3.0),
            ("sequence-length", 11.0),
            ("2*sequence-length", 22.0),
        ];
        for (dim, wanted) in known {
            assert_eq!(value(dim), Some(wanted), "{dim}");
        }
    }

    #[test]
    fn what_is_no_arithmetic_is_a_name() {
        for name in
            ["a b", "2n", "f(x)", "n +", "(n", "é", "unk__12", "model.layer:0", &"(".repeat(300)]
        {
            assert_eq!(parse(name), Some(Term::Name(name.to_owned())), "{name}");
        }
        assert_eq!(parse("?"), None);
        assert_eq!(parse(" "), None);
        assert_eq!(parse("-1"), Some(Term::Number(-1.0)));
    }

    proptest! {
        #[test]
        fn no_dimension_panics(dim in "[-n0-9+*/%() ,.a-cM]{0,64}") {
            value(&dim);
        }

        #[test]
        fn no_text_panics(dim in "\\PC{0,300}") {
            value(&dim);
        }
    }
}
