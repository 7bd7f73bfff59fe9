//! Values, optional fields and lists, and how entries of two lists are matched.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Change, Walk};
use crate::ir::dtype_name;
use crate::ir::proto::{attribute_proto::AttributeType, tensor_proto::DataLocation};

/// Longer lists of values are told by their beginning.
const LISTED: usize = 16;

/// A part of a message: a value, a message, or a field of either.
pub(super) trait Part {
    /// Whether it is a plain value: a list of such is compared as a whole.
    const PLAIN: bool = false;

    /// Whether both are equal, bit by bit.
    fn same(&self, other: &Self) -> bool;

    /// Tells how two that are not the same differ.
    fn compare(&self, other: &Self, walk: &mut Walk);

    /// The part in a line; `field` is where it stands.
    fn show(&self, field: &str) -> String;

    /// Whether it holds what the format takes for granted where the field is left out.
    fn is_default(&self) -> bool {
        false
    }

    /// What tells it from others in its list; none where only its place does.
    fn key(&self) -> Option<String> {
        None
    }

    /// A second name, for entries whose keys have no match.
    fn alias(&self) -> Option<String> {
        None
    }

    /// What it is called in its list.
    fn label(&self, at: usize) -> String {
        self.key().filter(|key| !key.is_empty()).unwrap_or_else(|| format!("#{at}"))
    }
}

macro_rules! plain {
    ($($type:ty, |$a:ident, $b:ident| $same:expr, |$value:ident, $field:ident| $show:expr;)*) => {$(
        impl Part for $type {
            const PLAIN: bool = true;
            fn same(&self, other: &Self) -> bool {
                let ($a, $b) = (self, other);
                $same
            }
            fn compare(&self, other: &Self, walk: &mut Walk) {
                let form = walk.name() == "domain" && is_own(&self.show("")) && is_own(&other.show(""));
                walk.changed(self.show(walk.name()), other.show(walk.name()), form);
            }
            fn show(&self, $field: &str) -> String {
                let $value = self;
                $show
            }
            fn is_default(&self) -> bool {
                self.same(&<$type>::default())
            }
        }
    )*};
}

plain! {
    String, |a, b| a == b, |text, _field| format!("{text:?}");
    Bytes, |a, b| a == b, |bytes, _field| match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("b\"{}\"", bytes.escape_ascii()),
    };
    i64, |a, b| a == b, |n, _field| n.to_string();
    u64, |a, b| a == b, |n, _field| n.to_string();
    i32, |a, b| a == b, |n, field| code(*n, field);
    f32, |a, b| a.to_bits() == b.to_bits(), |x, _field| match x.is_nan() {
        true => format!("NaN (0x{:08x})", x.to_bits()),
        false => format!("{x:?}"),
    };
    f64, |a, b| a.to_bits() == b.to_bits(), |x, _field| match x.is_nan() {
        true => format!("NaN (0x{:016x})", x.to_bits()),
        false => format!("{x:?}"),
    };
}

/// The two names of ONNX's own domain.
fn is_own(shown: &str) -> bool {
    matches!(shown, "\"\"" | "\"ai.onnx\"")
}

/// A number that stands for a name, in the fields that hold such.
fn code(n: i32, field: &str) -> String {
    match field {
        "data_type" | "elem_type" | "key_type" => dtype_name(n),
        "type" => AttributeType::try_from(n).map_or(n.to_string(), |t| t.as_str_name().to_owned()),
        "data_location" => {
            DataLocation::try_from(n).map_or(n.to_string(), |t| t.as_str_name().to_owned())
        }
        _ => n.to_string(),
    }
}

impl<P: Part> Part for Option<P> {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Some(a), Some(b)) => a.same(b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    fn compare(&self, other: &Self, walk: &mut Walk) {
        match (self, other) {
            (Some(a), Some(b)) => a.compare(b, walk),
            (a, b) => {
                let form = a.iter().chain(b).all(P::is_default);
                walk.changed(a.show(walk.name()), b.show(walk.name()), form);
            }
        }
    }

    fn show(&self, field: &str) -> String {
        self.as_ref().map_or_else(|| "absent".to_owned(), |part| part.show(field))
    }
}

impl<P: Part> Part for Box<P> {
    fn same(&self, other: &Self) -> bool {
        (**self).same(other)
    }

    fn compare(&self, other: &Self, walk: &mut Walk) {
        (**self).compare(other, walk);
    }

    fn show(&self, field: &str) -> String {
        (**self).show(field)
    }
}

impl<P: Part> Part for Vec<P> {
    fn same(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(a, b)| a.same(b))
    }

    fn compare(&self, other: &Self, walk: &mut Walk) {
        if P::PLAIN { values(self, other, walk) } else { entries(self, other, walk) }
    }

    fn show(&self, field: &str) -> String {
        let shown: Vec<String> = self.iter().take(LISTED).map(|part| part.show(field)).collect();
        match self.len() > LISTED {
            true => format!("[{}, …] ({} entries)", shown.join(", "), self.len()),
            false => format!("[{}]", shown.join(", ")),
        }
    }
}

fn values<P: Part>(old: &Vec<P>, new: &Vec<P>, walk: &mut Walk) {
    let field = walk.name();
    let note = (old.len().max(new.len()) > LISTED).then(|| {
        let apart = || old.iter().zip(new).enumerate().filter(|(_, (a, b))| !a.same(b));
        match apart().next() {
            Some((at, (a, b))) => {
                let count = apart().count() + old.len().abs_diff(new.len());
                format!("{count} differ, the first is {at}: {} -> {}", a.show(field), b.show(field))
            }
            None => format!("{} more at the end of one", old.len().abs_diff(new.len())),
        }
    });
    walk.add(Change::Changed, [Some(old.show(field)), Some(new.show(field))], note, false);
}

/// Matches the entries of two lists by key, those of the same key by their order, and what is left by alias.
fn entries<P: Part>(old: &[P], new: &[P], walk: &mut Walk) {
    let keys = [old, new].map(|list| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let keys = list.iter().enumerate().map(|(at, part)| {
            let key = part.key().unwrap_or_else(|| at.to_string());
            let nth = counts.entry(key.clone()).and_modify(|nth| *nth += 1).or_insert(0);
            (key, *nth)
        });
        keys.collect::<Vec<_>>()
    });
    let places: HashMap<_, usize> = keys[1].iter().enumerate().map(|(at, key)| (key, at)).collect();
    let mut partner: Vec<Option<usize>> = keys[0].iter().map(|key| places.get(key).copied()).collect();
    let mut matched = vec![false; new.len()];
    partner.iter().flatten().for_each(|&at| matched[at] = true);
    let others = new.iter().enumerate().filter(|(at, _)| !matched[*at]);
    let mut aliases: HashMap<String, usize> =
        others.filter_map(|(at, part)| Some((part.alias()?, at))).collect();
    for (at, partner) in partner.iter_mut().enumerate().filter(|(_, partner)| partner.is_none()) {
        *partner = old[at].alias().and_then(|alias| aliases.remove(&alias));
        partner.iter().for_each(|&at| matched[at] = true);
    }
    let field = walk.name();
    for (at, (part, partner)) in old.iter().zip(&partner).enumerate() {
        match partner {
            Some(other) if part.same(&new[*other]) => {}
            Some(other) => {
                walk.entry(Some(part.label(at)));
                part.compare(&new[*other], walk);
            }
            None => {
                walk.entry(Some(part.label(at)));
                walk.add(Change::Removed, [Some(part.show(field)), None], None, false);
            }
        }
    }
    for (at, part) in new.iter().enumerate().filter(|(at, _)| !matched[*at]) {
        walk.entry(Some(part.label(at)));
        walk.add(Change::Added, [None, Some(part.show(field))], None, false);
    }
    walk.entry(None);
    let order: Vec<usize> = partner.into_iter().flatten().collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if let Some(at) = (0..order.len()).find(|&at| order[at] != sorted[at]) {
        let count = order.iter().zip(&sorted).filter(|(a, b)| a != b).count();
        let [was, is] = [order[at], sorted[at]].map(|at| new[at].label(at));
        let note = format!("{count} of {} stand elsewhere", order.len());
        walk.add(Change::Reordered, [Some(was), Some(is)], Some(note), false);
    }
}
