//! The forms of ONNX's operators, by operator set: what `operators.txt` says, which
//! `python/tools/operator_table.py` makes from the schemas of the `onnx` package and of ONNX Runtime.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::proto::{attribute_proto::AttributeType, tensor_proto::DataType};

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(include_str!("operators.txt")));

/// A set of element types, each a bit by its number in `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Types(u64);

impl Types {
    fn of(name: &str) -> Option<Self> {
        DataType::from_str_name(&name.to_ascii_uppercase()).map(|dtype| Self(1 << dtype as u32))
    }

    pub(super) fn contains(self, dtype: i32) -> bool {
        u32::try_from(dtype).is_ok_and(|bit| bit < 64 && self.0 >> bit & 1 == 1)
    }

    /// The one type of a set that has no other.
    pub(super) fn only(self) -> Option<i32> {
        (self.0.count_ones() == 1).then(|| self.0.trailing_zeros() as i32)
    }

    /// The types by their short names, in the order of their numbers.
    pub(super) fn names(self) -> String {
        let names: Vec<String> =
            (0..64).filter(|&dtype| self.contains(dtype)).map(super::dtype_name).collect();
        if names.is_empty() { "no tensor".to_owned() } else { names.join(", ") }
    }
}

/// How often a parameter may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arity {
    Required,
    Optional,
    /// The last one: so many or more, which share their type or don't.
    Variadic {
        least: usize,
        alike: bool,
    },
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A variable of the operator, by its place in [`Form::variables`].
    Variable(usize),
    /// One type; the empty set where it isn't a tensor.
    Of(Types),
}

/// An input or output of an operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) arity: Arity,
}

/// An attribute of an operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute {
    pub(super) name: &'static str,
    pub(super) kind: AttributeType,
    pub(super) required: bool,
}

/// What an operator takes and gives from one operator set on.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) since: i64,
    pub(super) deprecated: bool,
    /// A runtime's own, which it may widen without a new number: what is unknown is not judged.
    pub(super) open: bool,
    pub(super) inputs: Vec<Parameter>,
    pub(super) outputs: Vec<Parameter>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) variables: Vec<(&'static str, Types)>,
}

impl Form {
    /// The types that a parameter may have.
    pub(super) fn types(&self, parameter: &Parameter) -> Types {
        match parameter.kind {
            Kind::Variable(at) => self.variables[at].1,
            Kind::Of(types) => types,
        }
    }

    /// The parameter of a place in a list: the last one stands for all from it on, if it is variadic.
    pub(super) fn at(parameters: &[Parameter], place: usize) -> Option<&Parameter> {
        let variadic = |p: &&Parameter| matches!(p.arity, Arity::Variadic { .. });
        parameters.get(place).or_else(|| parameters.last().filter(variadic))
    }

    /// How many of a list there must be, and may be.
    pub(super) fn count(parameters: &[Parameter]) -> (usize, usize) {
        let least = parameters.iter().enumerate().fold(0, |least, (at, p)| match p.arity {
            Arity::Required => at + 1,
            Arity::Optional => least,
            Arity::Variadic { least: more, .. } if more > 0 => at + more,
            Arity::Variadic { .. } => least,
        });
        let endless = parameters.last().is_some_and(|p| matches!(p.arity, Arity::Variadic { .. }));
        (least, if endless { usize::MAX } else { parameters.len() })
    }
}

/// What is known of an operator at an operator set.
pub(super) enum Known {
    /// It has this form.
    Form(&'static Form),
    /// It came with a later operator set.
    Later(i64),
    /// The domain has no such operator; the nearest name that it has.
    Never(&'static str),
    /// The operator set is newer than this, the newest of its domain in the table.
    Newer(i64),
    /// The domain is not in the table.
    Unjudged,
}

#[derive(Default)]
struct Domain {
    /// The newest operator set that the table has; none of a domain of which it has a few operators.
    newest: Option<i64>,
    forms: HashMap<&'static str, Vec<Form>>,
}

struct Table(BTreeMap<&'static str, Domain>);

/// ONNX's own domain has two names.
pub(super) fn domain_name(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// What is known of an operator of a domain at an operator set of it.
pub(super) fn find(domain: &str, op: &str, version: i64) -> Known {
    let Some(domain) = TABLE.0.get(domain_name(domain)) else { return Known::Unjudged };
    if let Some(newest) = domain.newest.filter(|newest| version > *newest) {
        return Known::Newer(newest);
    }
    let Some(forms) = domain.forms.get(op) else {
        let near = |name: &&&str| strsim::jaro(name, op).to_bits();
        return match domain.forms.keys().max_by_key(|name| (near(name), **name)) {
            Some(near) if domain.newest.is_some() => Known::Never(near),
            _ => Known::Unjudged,
        };
    };
    match forms.iter().rev().find(|form| form.since <= version) {
        Some(form) => Known::Form(form),
        None => Known::Later(forms[0].since),
    }
}

/// Every form that an operator ever had, oldest first.
pub(super) fn history(domain: &str, op: &str) -> &'static [Form] {
    let domain = TABLE.0.get(domain_name(domain));
    domain.and_then(|domain| domain.forms.get(op)).map_or(&[], Vec::as_slice)
}

impl Table {
    fn read(text: &'static str) -> Self {
        let mut sets: Vec<Types> = Vec::new();
        let mut table: BTreeMap<&'static str, Domain> = BTreeMap::new();
        let mut section = ("", false);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(types) = line.strip_prefix("set ") {
                let types = types.split(' ').skip(1).filter_map(Types::of);
                sets.push(types.fold(Types::default(), |all, one| Types(all.0 | one.0)));
            } else if let Some(head) = line.strip_prefix('[') {
                let mut words = head.trim_end_matches(']').split(' ');
                let name = domain_name(words.next().expect("a domain"));
                let newest = words.next().expect("an operator set").parse().expect("a number");
                section = (name, words.next().is_some());
                let domain = table.entry(name).or_default();
                domain.newest = domain.newest.or((!section.1).then_some(newest));
            } else {
                let (name, form) = Form::read(line, &sets, section.1);
                let domain = table.get_mut(section.0).expect("a section before its lines");
                domain.forms.entry(name).or_default().push(form);
            }
        }
        for forms in table.values_mut().flat_map(|domain| domain.forms.values_mut()) {
            forms.sort_by_key(|form| form.since);
        }
        Self(table)
    }
}

impl Form {
    fn read(line: &'static str, sets: &[Types], open: bool) -> (&'static str, Self) {
        let (head, variables) = line.split_once(" ;").expect("variables");
        let (head, attributes) = head.split_once(" :").expect("attributes");
        let (head, outputs) = head.split_once(" >").expect("outputs");
        let variables: Vec<(&str, Types)> = variables
            .split_ascii_whitespace()
            .map(|word| {
                let (name, set) = word.split_once('=').expect("a variable");
                (name, sets[set.parse::<usize>().expect("a set")])
            })
            .collect();
        let mut words = head.split_ascii_whitespace().peekable();
        let name = words.next().expect("a name");
        let since = words.next().expect("an operator set").parse().expect("a number");
        let deprecated = words.next_if_eq(&"deprecated").is_some();
        let parameter = |word| Parameter::read(word, &variables);
        let form = Self {
            since,
            deprecated,
            open,
            inputs: words.map(parameter).collect(),
            outputs: outputs.split_ascii_whitespace().map(parameter).collect(),
            attributes: attributes.split_ascii_whitespace().map(Attribute::read).collect(),
            variables,
        };
        (name, form)
    }
}

impl Parameter {
    fn read(word: &'static str, variables: &[(&str, Types)]) -> Self {
        let (name, kind) = word.split_once(':').expect("a type");
        let (kind, arity) = match kind.find(['?', '*', '~']) {
            None => (kind, Arity::Required),
            Some(at) => match (&kind[at..=at], &kind[at + 1..]) {
                ("?", _) => (&kind[..at], Arity::Optional),
                (mark, least) => {
                    let least = least.parse().expect("a number");
                    (&kind[..at], Arity::Variadic { least, alike: mark == "*" })
                }
            },
        };
        let kind = match variables.iter().position(|(name, _)| *name == kind) {
            Some(at) => Kind::Variable(at),
            None => Kind::Of(Types::of(kind).unwrap_or_default()),
        };
        Self { name, kind, arity }
    }
}

impl Attribute {
    fn read(word: &'static str) -> Self {
        let (name, kind) = word.split_once('=').expect("a type");
        let required = kind.ends_with('!');
        let kind = kind.trim_end_matches('!').to_ascii_uppercase();
        let kind = AttributeType::from_str_name(&kind).expect("a type of attributes");
        Self { name, kind, required }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(op: &str, version: i64) -> &'static Form {
        match find("", op, version) {
            Known::Form(form) => form,
            _ => panic!("{op} at {version}"),
        }
    }

    #[test]
    fn a_form_is_that_of_the_operator_set() {
        assert_eq!([6, 7, 12, 13, 17, 28].map(|v| form("Add", v).since), [6, 7, 7, 13, 14, 14]);
        assert_eq!(form("Split", 11).inputs.len(), 1);
        let split = form("Split", 18);
        assert_eq!(Form::count(&split.inputs), (1, 2));
        assert_eq!(Form::count(&split.outputs), (1, usize::MAX));
        assert_eq!(split.inputs[1].kind, Kind::Of(Types(1 << 7)));
        assert!(split.attributes.iter().any(|a| a.name == "num_outputs" && !a.required));
        assert!(form("Cast", 13).attributes[0].required);
        assert!(form("Upsample", 10).deprecated && !form("Upsample", 9).deprecated);
        assert!(form("Concat", 13).outputs.len() == 1 && form("If", 13).outputs.len() == 1);
        let alike = |op, version| match form(op, version).inputs.last().unwrap().arity {
            Arity::Variadic { alike, .. } => alike,
            _ => panic!("{op} takes any number"),
        };
        assert!(alike("Concat", 13) && !alike("Loop", 13));
    }

    #[test]
    fn an_operator_is_later_unknown_or_not_judged() {
        assert!(matches!(find("", "DynamicQuantizeLinear", 10), Known::Later(11)));
        assert!(matches!(find("ai.onnx", "DynamicQuantizeLinear", 11), Known::Form(_)));
        assert!(matches!(find("", "MatMull", 17), Known::Never("MatMul")));
        assert!(matches!(find("", "MatMull", 1000), Known::Newer(_)));
        assert!(matches!(find("ai.onnx.ml", "Scaler", 1), Known::Form(_)));
        assert!(matches!(find("com.microsoft", "Gelu", 1), Known::Unjudged));
        assert!(matches!(find("com.microsoft", "MatMulNBits", 1), Known::Form(form) if form.open));
        assert!(matches!(find("elsewhere", "MatMul", 1), Known::Unjudged));
        // ONNX Runtime has these in ONNX's domain, and its own optimizer writes them.
        assert!(matches!(find("", "SimplifiedLayerNormalization", 17), Known::Form(form) if form.open));
        assert!(matches!(find("", "LayerNormalization", 11), Known::Form(form) if form.open));
        assert!(matches!(find("", "LayerNormalization", 17), Known::Form(form) if !form.open));
    }

    #[test]
    fn types_are_told_by_name() {
        let types = form("Sqrt", 13).variables[0].1;
        assert!(types.contains(DataType::Float as i32) && !types.contains(DataType::Int64 as i32));
        assert_eq!(types.names(), "f32, f16, f64, bf16");
        assert_eq!((types.only(), Types(1 << 7).only()), (None, Some(7)));
    }
}
