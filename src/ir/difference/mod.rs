//! How two models differ: every field of the format, by its place and what it holds on either side.

mod messages;
mod parts;
mod tensor;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::proto::{AttributeProto, ModelProto};
use parts::Part;

/// What became of a part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the old model has it.
    Removed,
    /// Only the new model has it.
    Added,
    /// Both have it, with other contents.
    Changed,
    /// Both have the same entries of a list, in another order.
    Reordered,
}

/// One way in which two models differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What became of the part.
    pub change: Change,
    /// The part, from the outside in, by the format's own field names and the part's own name:
    /// `["node conv1 (Conv)", "attribute group"]`. A part of the main graph is named without the graph.
    pub place: Vec<String>,
    /// What the old model has there, where that can be said in a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What the new model has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
    /// What else is to be said, as how many numbers of a tensor differ and by how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Whether both say the same in another form: numbers in raw or typed data, a default that is written or
    /// left out, the two names of ONNX's own domain.
    pub form_only: bool,
    /// The fields on the way without the names of parts: differences of one kind have the same.
    #[serde(skip)]
    pub kind: String,
}

/// Every difference between two models, in the order of the format's fields and, in a list, of the old model.
/// None exactly where the two messages are equal field by field; floats are compared by their bits.
pub fn differences(old: &ModelProto, new: &ModelProto) -> Vec<Difference> {
    let mut walk = Walk::default();
    if !old.same(new) {
        old.compare(new, &mut walk);
    }
    walk.differences
}

/// Whether two models are equal field by field, floats by their bits.
pub(super) fn same_model(old: &ModelProto, new: &ModelProto) -> bool {
    old.same(new)
}

/// Whether two lists of attributes are equal field by field and in order, floats by their bits: 0 is not -0,
/// which a reciprocal tells apart, and a NaN is itself.
pub(crate) fn same_attributes(old: &[AttributeProto], new: &[AttributeProto]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.same(new))
}

/// A step inwards: a field, and which entry of it.
struct Step {
    field: &'static str,
    entry: Option<String>,
}

/// The way to the parts that are being compared, and what was found.
#[derive(Default)]
struct Walk {
    steps: Vec<Step>,
    differences: Vec<Difference>,
}

impl Walk {
    /// Compares a field of two messages.
    fn field<P: Part>(&mut self, field: &'static str, old: &P, new: &P) {
        if !old.same(new) {
            self.within(field, |walk| old.compare(new, walk));
        }
    }

    fn within(&mut self, field: &'static str, work: impl FnOnce(&mut Self)) {
        self.steps.push(Step { field: field.trim_start_matches("r#"), entry: None });
        work(self);
        self.steps.pop();
    }

    /// Names the entry of a list that is being looked at.
    fn entry(&mut self, label: Option<String>) {
        self.steps.last_mut().expect("inside a field").entry = label;
    }

    /// The field that is being looked at.
    fn name(&self) -> &'static str {
        self.steps.last().map_or("", |step| step.field)
    }

    fn add(
        &mut self,
        change: Change,
        sides: [Option<String>; 2],
        note: Option<String>,
        form_only: bool,
    ) {
        let [old, new] = sides;
        // The main graph, and a graph or tensor of an attribute, go without saying before a named part.
        let named = self.steps.iter().rposition(|step| step.entry.is_some());
        let shown = |(at, step): &(usize, &Step)| {
            step.entry.is_some()
                || named.is_none_or(|named| *at > named)
                || !matches!(step.field, "graph" | "g" | "t")
        };
        let steps = self.steps.iter().enumerate().filter(shown);
        let place = steps.map(|(_, step)| match &step.entry {
            Some(entry) => format!("{} {entry}", step.field),
            None => step.field.to_owned(),
        });
        let fields: Vec<&str> = self.steps.iter().map(|step| step.field).collect();
        let kind = fields.join("/");
        self.differences.push(Difference {
            change,
            place: place.collect(),
            old,
            new,
            note,
            form_only,
            kind,
        });
    }

    fn changed(&mut self, old: String, new: String, form_only: bool) {
        self.add(Change::Changed, [Some(old), Some(new)], None, form_only);
    }
}
