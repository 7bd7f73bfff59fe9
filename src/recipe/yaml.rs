//! YAML as a tree whose every key and value can be found again in the text.
//!
//! `yaml_serde` gives places only in errors. So a text is walked once to build the tree, its values numbered; to find
//! a place, the walk is repeated and fails on purpose at that number.

mod de;
mod edit;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

pub(super) use de::Fault;
pub(super) use edit::Entries;

use super::bounds::MOST_VALUES;
use super::checks::Step;
use super::error::{Misfit, Problem, short};
use super::text::{line_of, printable};

/// libyaml looks at every open bracket at every token: 64 KB of `{a: [` take it seconds. Closing brackets don't count,
/// since they may be in comments and quotes.
const MOST_BRACKETS: usize = 512;
/// A recipe nests four deep.
const DEEPEST: u32 = 16;

/// The place of a key or a value: its number in the walk.
pub(super) type Id = u32;

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub id: Id,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Entries),
}

#[derive(Debug)]
struct Key {
    id: Id,
    text: String,
}

impl Node {
    /// The value at a path, or the innermost one around it that the text has.
    pub fn nearest(&self, path: &[Step]) -> Id {
        let inner = match (path.first(), &self.kind) {
            (Some(Step::Key(key)), Kind::Map(entries)) => entries.get(key),
            (Some(Step::Index(index)), Kind::List(items)) => items.get(*index),
            _ => None,
        };
        inner.map_or(self.id, |node| node.nearest(&path[1..]))
    }

    fn words(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".into(),
            Kind::Bool(v) => format!("`{v}`"),
            Kind::Unsigned(v) => format!("the number {v}"),
            Kind::Signed(v) => format!("the number {v}"),
            Kind::Float(v) => format!("the number {v}"),
            Kind::Text(v) => format!("the text `{}`", short(v)),
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a mapping".into(),
        }
    }
}

/// Reads the one document of a text.
pub(super) fn tree(name: &str, text: &str) -> Result<Node, Box<Misfit>> {
    let misfit = |offset, problem| Box::new(Misfit::new(name, text, offset, problem));
    if let Some((offset, c)) = text.char_indices().find(|&(_, c)| !printable(c)) {
        let why = format!("character U+{:04X} is not allowed in YAML", c as u32);
        return Err(misfit(offset, Problem::Syntax { why }));
    }
    if let Some((offset, _)) = text.match_indices(['[', '{']).nth(MOST_BRACKETS) {
        return Err(misfit(offset, Problem::Brackets { most: MOST_BRACKETS }));
    }
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(document) = documents.next() else {
        return Err(misfit(0, Problem::Empty));
    };
    let mut walk = Walk::default();
    let node = match (ValueSeed { walk: &mut walk, depth: 0 }).deserialize(document) {
        Ok(node) => node,
        Err(error) => {
            let offset = match error.location() {
                Some(location) => location.index(),
                // Only the alias limit has no place: the last value reached is inside the bomb.
                None => locate_in(text, 0, walk.next.saturating_sub(1)).unwrap_or(0),
            };
            let problem = match walk.problem {
                Some(Problem::Duplicate { key, first }) => {
                    let line = locate_in(text, 0, first as Id).map_or(1, |at| line_of(text, at));
                    Problem::Duplicate { key, first: line }
                }
                Some(problem) => problem,
                None => Problem::from_yaml(&error),
            };
            return Err(misfit(offset, problem));
        }
    };
    if matches!(node.kind, Kind::Null) {
        return Err(misfit(0, Problem::Empty));
    }
    if documents.next().is_some() {
        return Err(misfit(locate_in(text, 1, 0).unwrap_or(0), Problem::Documents));
    }
    Ok(node)
}

/// The byte at which a key or value of the first document stands.
pub(super) fn locate(text: &str, id: Id) -> usize {
    locate_in(text, 0, id).unwrap_or(0)
}

fn locate_in(text: &str, document: usize, id: Id) -> Option<usize> {
    let document = serde_yaml::Deserializer::from_str(text).nth(document)?;
    let mut walk = Walk { target: Some(id), ..Walk::default() };
    let error = (ValueSeed { walk: &mut walk, depth: 0 }).deserialize(document).err()?;
    error.location().map(|location| location.index())
}

#[derive(Default)]
struct Walk {
    next: Id,
    /// Where to fail on purpose.
    target: Option<Id>,
    /// Why the walk was given up, where that is not the parser's own error.
    problem: Option<Problem>,
}

impl Walk {
    fn enter<E: Error>(&mut self) -> Result<Id, E> {
        let id = self.next;
        self.next += 1;
        if self.target == Some(id) {
            return Err(E::custom("here"));
        }
        if id >= MOST_VALUES {
            return Err(self.refuse(Problem::TooMuch { most: MOST_VALUES }));
        }
        Ok(id)
    }

    fn refuse<E: Error>(&mut self, problem: Problem) -> E {
        self.problem = Some(problem);
        E::custom("refused")
    }
}

struct ValueSeed<'a> {
    walk: &'a mut Walk,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Node;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ValueSeed<'_> {
    fn scalar<E: Error>(self, kind: Kind) -> Result<Node, E> {
        Ok(Node { id: self.walk.enter()?, kind })
    }

    fn enter<E: Error>(&mut self) -> Result<Id, E> {
        let id = self.walk.enter()?;
        if self.depth >= DEEPEST {
            return Err(self.walk.refuse(Problem::TooDeep { deepest: DEEPEST }));
        }
        Ok(id)
    }
}

macro_rules! scalars {
    ($($visit:ident($value:ident: $of:ty) => $kind:expr;)*) => {
        $(fn $visit<E: Error>(self, $value: $of) -> Result<Node, E> {
            self.scalar($kind)
        })*
    };
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.scalar(Kind::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.scalar(Kind::Null)
    }

    scalars! {
        visit_bool(v: bool) => Kind::Bool(v);
        visit_u64(v: u64) => Kind::Unsigned(v);
        visit_i64(v: i64) => Kind::Signed(v);
        visit_u128(v: u128) => Kind::Float(v as f64);
        visit_i128(v: i128) => Kind::Float(v as f64);
        visit_f64(v: f64) => Kind::Float(v);
        visit_str(v: &str) => Kind::Text(v.to_owned());
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Node, A::Error> {
        let id = self.enter()?;
        let mut items = Vec::new();
        while let Some(item) =
            seq.next_element_seed(ValueSeed { walk: self.walk, depth: self.depth + 1 })?
        {
            items.push(item);
        }
        Ok(Node { id, kind: Kind::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Node, A::Error> {
        let id = self.enter()?;
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = map.next_key_seed(KeySeed { walk: self.walk, before: &entries })? {
            let value = map.next_value_seed(ValueSeed { walk: self.walk, depth: self.depth + 1 })?;
            entries.push((key, value));
        }
        Ok(Node { id, kind: Kind::Map(Entries(entries)) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Node, A::Error> {
        let _: Id = self.walk.enter()?;
        let (tag, _) = data.variant::<String>()?;
        Err(self.walk.refuse(Problem::Tag { tag: short(&tag) }))
    }
}

/// A key is refused inside its own visit, so that the error stands at the key.
struct KeySeed<'a> {
    walk: &'a mut Walk,
    before: &'a [(Key, Node)],
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl KeySeed<'_> {
    fn not_text<E: Error>(self) -> Result<Key, E> {
        self.walk.enter()?;
        Err(self.walk.refuse(Problem::KeyType))
    }
}

macro_rules! not_text {
    ($($visit:ident: $of:ty),*) => {
        $(fn $visit<E: Error>(self, _: $of) -> Result<Key, E> {
            self.not_text()
        })*
    };
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
        let id = self.walk.enter()?;
        if let Some((first, _)) = self.before.iter().find(|(key, _)| key.text == text) {
            let (key, first) = (short(text), first.id as usize);
            return Err(self.walk.refuse(Problem::Duplicate { key, first }));
        }
        Ok(Key { id, text: text.to_owned() })
    }

    fn visit_unit<E: Error>(self) -> Result<Key, E> {
        self.not_text()
    }

    not_text! {
        visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_u128: u128, visit_i128: i128, visit_f64: f64
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Key, A::Error> {
        self.not_text()
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Key, A::Error> {
        self.not_text()
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Key, A::Error> {
        self.walk.enter()?;
        let (tag, _) = data.variant::<String>()?;
        Err(self.walk.refuse(Problem::Tag { tag: short(&tag) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misfit(text: &str) -> String {
        tree("t.yaml", text).expect_err("refused").to_string()
    }

    #[test]
    fn every_value_is_found_again() {
        let text = "a: 1\nbé: {c: [x, 'y z'], d: }\ne:\n  - 2\n";
        let node = tree("t.yaml", text).unwrap();
        let key = |key: &str| Step::Key(key.to_owned());
        let at = |path: &[Step]| &text[locate(text, node.nearest(path))..];
        assert!(at(&[key("a")]).starts_with("1\n"));
        assert!(at(&[key("bé"), key("c"), Step::Index(1)]).starts_with("'y z'"));
        assert!(at(&[key("e"), Step::Index(0)]).starts_with("2\n"));
        assert!(at(&[key("e"), Step::Index(7)]).starts_with("- 2"), "the list around it");
        assert!(at(&[key("nothing")]).starts_with("a: 1"), "the mapping around it");
    }

    #[test]
    fn a_key_may_be_quoted_or_contain_anything_but_not_repeat() {
        assert_eq!(misfit("x: 1\n'x': 2\n"), "t.yaml:2:1: key `x` stands here again, after line 1");
        assert_eq!(
            misfit("x: {y: 1,\n\n  y: 2}"),
            "t.yaml:3:3: key `y` stands here again, after line 1"
        );
        assert!(tree("t.yaml", "x: {y: 1}\ny: 2").is_ok(), "the same key at another level");
    }

    #[test]
    fn aliases_are_followed_and_bombs_are_not() {
        assert!(tree("t.yaml", "a: &x [1, 2]\nb: *x\n").is_ok());
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let before = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![before; 9].join(", "));
        }
        assert!(misfit(&bomb).contains("more than 4096 keys and values"), "{}", misfit(&bomb));
        assert!(misfit("a: &a [*a, *a]").contains("nests deeper than 16"));
        let quiet = format!("a: &a [x]\nb: [{}]", vec!["*a"; 3000].join(","));
        assert!(misfit(&quiet).contains("more than 4096"), "{}", misfit(&quiet));
    }

    #[test]
    fn repetition_reaches_neither_the_stack_nor_the_clock() {
        for unit in [
            "[", "{", "a: {", "{a: ", "{a: [", "{a: #}\n", "- ", "? ", ":", "- a\n", "- - a\n",
            "a: b\n", "&a a: \n", "*a ", "!a ", "[a,", "[[]]", "[]: ", "\"", "# a\n", "---\n",
            "%a b\n", "'a': ",
        ] {
            let text = unit.repeat(crate::recipe::MOST_BYTES / unit.len());
            assert!(tree("t.yaml", &text).is_err(), "{unit:?}");
        }
    }

    #[test]
    fn brackets_are_counted_before_they_cost() {
        let many = |n| format!("a: '{}'", "[".repeat(n));
        assert!(tree("t.yaml", &many(MOST_BRACKETS)).is_ok());
        assert_eq!(misfit(&many(MOST_BRACKETS + 1)), "t.yaml:1:517: more than 512 opening brackets");
    }
}
