//! A tree as what a type is read from, each fault with its place.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Id, Key, Kind, Node};
use crate::recipe::error::{Problem, closest, short};

/// How a tree is not of the shape that a type asks for.
#[derive(Debug)]
pub(in crate::recipe) struct Fault {
    pub problem: Problem,
    pub at: Option<Id>,
}

impl Fault {
    /// The same fault at a place, unless it has one.
    pub fn at(mut self, id: Id) -> Self {
        self.at.get_or_insert(id);
        self
    }

    /// A value of another type than the one that is expected.
    pub fn expected(what: &str, node: &Node) -> Self {
        let (found, expected) = (String::new(), what.to_owned());
        Fault::from(Problem::Type { found, expected, help: None }).of(node)
    }

    /// The place of a value; a wrong type also gets words for what the value is.
    fn of(mut self, node: &Node) -> Self {
        if self.at.is_none()
            && let Problem::Type { found, expected, help } = &mut self.problem
        {
            *found = node.words();
            if expected == "text" && !matches!(node.kind, Kind::Null | Kind::List(_) | Kind::Map(_)) {
                *help = Some("YAML reads this as a number or a switch: put it in quotes".into());
            }
        }
        self.at(node.id)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Fault { problem, at: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Fault {}

fn words(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of 0 or more".into(),
        "f32" | "f64" => "a number".into(),
        "a string" => "text".into(),
        "a boolean" => "`true` or `false`".into(),
        "a sequence" => "a list".into(),
        other if other.starts_with("struct ") => "a mapping".into(),
        other => other.to_owned(),
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Problem::Other { why: message.to_string() }.into()
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Problem::Type { found: found.to_string(), expected: words(expected), help: None }.into()
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Problem::UnknownKey {
            key: short(key),
            guess: closest(key, known.iter().copied()),
            known: known.join(", "),
        }
        .into()
    }

    fn unknown_variant(value: &str, known: &'static [&'static str]) -> Self {
        Problem::Choice {
            value: short(value),
            guess: closest(value, known.iter().copied()),
            known: known.join(", "),
        }
        .into()
    }

    fn missing_field(key: &'static str) -> Self {
        Problem::Missing { key }.into()
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(v) => visitor.visit_bool(*v),
            Kind::Unsigned(v) => visitor.visit_u64(*v),
            Kind::Signed(v) => visitor.visit_i64(*v),
            Kind::Float(v) => visitor.visit_f64(*v),
            Kind::Text(v) => visitor.visit_borrowed_str(v),
            Kind::List(items) => visitor.visit_seq(Items(items.iter())),
            Kind::Map(entries) => visitor.visit_map(Rest { rest: entries.0.iter(), value: None }),
        }
        .map_err(|fault| fault.of(self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|fault| fault.of(self))
    }

    /// A key without a value is an empty mapping, as when all lines below it are commented out. A list would fill the
    /// keys by position, and is refused.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.kind {
            Kind::Null => visitor.visit_map(Rest { rest: [].iter(), value: None }),
            Kind::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &"a mapping")),
            _ => return self.deserialize_any(visitor),
        }
        .map_err(|fault| fault.of(self))
    }

    /// As a struct: a graph without keys, a mapping of graphs.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.kind {
            Kind::Text(v) => visitor.visit_enum(v.as_str().into_deserializer()),
            _ => Err(de::Error::invalid_type(Unexpected::Unit, &"a name")),
        }
        .map_err(|fault: Fault| fault.of(self))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Rest<'de> {
    rest: std::slice::Iter<'de, (Key, Node)>,
    value: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Rest<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(key.text.as_str().into_deserializer())
            .map(Some)
            .map_err(|fault: Fault| fault.at(key.id))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.value.take() {
            Some(node) => seed.deserialize(node),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}
