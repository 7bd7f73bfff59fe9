//! Two runtimes, or two models, compared at every inner value.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use half::{bf16, f16};
use serde::Serialize;

use super::divergence::{inner_values, showing};
use super::{Divergence, Error};
use crate::ir::{Graph, Model, NodeId, ValueInfoProto};
use crate::runtime::{Runtime, Tensors};
use crate::tensor::{DType, Tensor};

/// A model in a runtime.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What is run.
    pub model: &'a Model,
    /// What runs it.
    pub runtime: &'a dyn Runtime,
}

/// How far two values may be from each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Their signal-to-noise ratio must be above this, in decibels.
    pub snr_db: f64,
    /// Their largest difference must be below this share of the peak.
    pub max_abs_of_peak: f64,
}

/// How far two values are from each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distance {
    /// Largest difference over the peak of the first; infinite where only one is infinite or NaN.
    pub max_abs_of_peak: f64,
    /// Signal-to-noise ratio in decibels, none where every value is equal.
    pub snr_db: Option<f64>,
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// How many values were compared.
    pub compared: usize,
    /// Values that one side can't show: an operator was there that has no such output, or a type.
    pub not_shown: Vec<String>,
    /// Quantized values: integers that a rounding moves by a whole step.
    pub left_out: Vec<String>,
    /// Outputs that the first of the two models has alone: they differ by that.
    pub only_old: Vec<String>,
    /// Outputs that the second has alone, as a surgery adds them: no difference.
    pub only_new: Vec<String>,
    /// The value that is furthest apart among those that agree, and how far.
    pub furthest: Option<(String, Distance)>,
    /// The first that differs, in the graph's order.
    pub first: Option<Disagreement>,
}

/// The first value that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Disagreement {
    /// The node that makes it, and the last before it whose value agrees.
    #[serde(flatten)]
    pub place: Divergence,
    /// Signal-to-noise ratio in decibels, where the shapes are the same.
    pub snr_db: Option<f64>,
    /// The two shapes, where they differ.
    pub shapes: Option<(Vec<usize>, Vec<usize>)>,
    /// The two element types, where they differ.
    pub types: Option<(String, String)>,
    /// Whether it differs only in the unchanged graph: where inner values are outputs, a runtime no longer fuses them.
    pub only_when_whole: bool,
}

/// Bytes of values that are asked for at once, about.
const AT_ONCE: usize = 64 << 20;

/// Runs both sides on the same inputs and compares every value that both have, in the order of `new`'s
/// graph, up to the first that differs: floats within limits, whole numbers exactly, and of two models' outputs
/// shapes and element types too. Quantized values, and the integer sums of their products, are left
/// out: a rounding moves them by a whole step, which shows in the floats that they become.
///
/// # Errors
/// [`Error::Runtime`] where one side can't run its model at all; [`Error::NothingToMeasure`] where no value is
/// in both, or none that could be compared; [`Error::Interrupted`].
pub fn first_disagreement(
    [old, new]: [Side<'_>; 2],
    inputs: &Tensors,
    limits: Limits,
    interrupted: &AtomicBool,
    progress: &dyn Fn(usize, usize),
) -> Result<Comparison, Error> {
    let sides = [old, new];
    let [old_inputs, new_inputs] = sides.map(|side| of(side.model, inputs));
    let whole = [old.outputs(&old_inputs)?, new.outputs(&new_inputs)?];
    let feeds = [&old_inputs, &new_inputs];
    let shared: HashSet<String> = inner_values(old.model).collect();
    let names: Vec<String> = inner_values(new.model).filter(|name| shared.contains(name)).collect();
    if names.is_empty() && whole[1].keys().all(|name| !whole[0].contains_key(name)) {
        return Err(Error::NothingToMeasure("the two models have no value of the same name"));
    }
    let same_model = std::ptr::eq(old.model, new.model);
    let mut judge = Judge {
        old: old.model,
        model: new.model,
        same_model,
        limits,
        last: None,
        judged: 0,
        comparison: Comparison::default(),
    };
    judge.comparison.only_old = only(old.model, new.model);
    judge.comparison.only_new = only(new.model, old.model);
    let (mut at, mut count) = (0, 32);
    while at < names.len() {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        progress(at, names.len());
        let chunk = &names[at..names.len().min(at + count)];
        let bytes = judge.chunk(sides, feeds, chunk);
        if judge.comparison.first.is_some() {
            return Ok(judge.comparison);
        }
        at += chunk.len();
        count = (AT_ONCE / (bytes / chunk.len()).max(1)).clamp(1, 256);
    }
    progress(names.len(), names.len());
    let outputs = new.model.graph_proto().output.iter().map(|output| output.name());
    for name in outputs {
        if let [Some(want), Some(got)] = [&whole[0], &whole[1]].map(|of| of.get(name)) {
            judge.value(name, want, got, true);
        }
        if judge.comparison.first.is_some() {
            break;
        }
    }
    if judge.judged == 0 && judge.comparison.first.is_none() {
        return Err(Error::NothingToMeasure(
            "none of the values that both models have can be compared",
        ));
    }
    Ok(judge.comparison)
}

impl Side<'_> {
    fn outputs(&self, inputs: &Tensors) -> Result<Tensors, Error> {
        Ok(self.runtime.load_bytes(&self.model.to_bytes())?.run(inputs)?)
    }

    /// The named values; those that the runtime can't show are left out.
    fn values(&self, names: &[String], inputs: &Tensors) -> Tensors {
        let part = showing(self.model, names);
        let used = of(&part, inputs);
        let run = || self.runtime.load_bytes(&part.to_bytes())?.run(&used);
        match (run(), names) {
            (Ok(values), _) => values,
            (Err(_), [_]) => Tensors::new(),
            (Err(_), _) => {
                let (left, right) = names.split_at(names.len() / 2);
                let mut values = self.values(left, inputs);
                values.extend(self.values(right, inputs));
                values
            }
        }
    }
}

/// Those of the tensors that are inputs of a model.
fn of(model: &Model, tensors: &Tensors) -> Tensors {
    let names = model.graph_proto().input.iter().map(|input| input.name());
    names.filter_map(|name| Some((name.to_owned(), tensors.get(name)?.clone()))).collect()
}

/// Outputs of one model that the other has not.
fn only(one: &Model, other: &Model) -> Vec<String> {
    let other = other.graph();
    let names = one.graph_proto().output.iter().map(|output| output.name());
    names.filter(|name| !other.is_output(name)).map(str::to_owned).collect()
}

impl Comparison {
    /// Whether nothing differs of what the first gives.
    pub fn agrees(&self) -> bool {
        self.first.is_none() && self.only_old.is_empty()
    }
}

/// How two values differ in form.
#[derive(Default)]
struct Apart {
    shapes: Option<(Vec<usize>, Vec<usize>)>,
    types: Option<(String, String)>,
}

struct Judge<'a> {
    old: &'a Model,
    model: &'a Model,
    same_model: bool,
    limits: Limits,
    last: Option<usize>,
    /// How many values were compared, those of the untouched graph too.
    judged: usize,
    comparison: Comparison,
}

impl Judge<'_> {
    /// Compares some values, and gives the bytes that they took.
    fn chunk(&mut self, sides: [Side<'_>; 2], feeds: [&Tensors; 2], names: &[String]) -> usize {
        let [want, got] = [0, 1].map(|at| sides[at].values(names, feeds[at]));
        for name in names {
            match (want.get(name), got.get(name)) {
                (Some(want), Some(got)) => self.value(name, want, got, false),
                _ => self.comparison.not_shown.push(name.clone()),
            }
            if self.comparison.first.is_some() {
                break;
            }
        }
        want.values().map(|tensor| tensor.bytes().len()).sum()
    }

    fn value(&mut self, name: &str, want: &Tensor, got: &Tensor, whole: bool) {
        let graph = self.model.graph();
        let at = graph.maker(name).map(|id| id.0);
        if self.is_quantized(&graph, at, want.dtype()) || self.is_quantized(&graph, at, got.dtype()) {
            if !whole {
                self.comparison.left_out.push(name.to_owned());
            }
            return;
        }
        self.judged += 1;
        if let Some(types) = self.types_apart(name, [want, got]) {
            let apart = Apart { types: Some(types), ..Apart::default() };
            return self.differs(name, at, None, apart, whole);
        }
        if want.shape() != got.shape() {
            // A rewrite may carry an inner value in another layout.
            if self.same_model || graph.is_output(name) {
                let shapes = Some((want.shape().to_vec(), got.shape().to_vec()));
                self.differs(name, at, None, Apart { shapes, ..Apart::default() }, whole);
            }
            return;
        }
        let whole_numbers = integers(want).zip(integers(got));
        let distance = match &whole_numbers {
            Some((a, b)) => Distance::of(a.iter().zip(b).map(|(&a, &b)| {
                let apart = a.abs_diff(b) as f64;
                (a as f64, b as f64, apart)
            })),
            None => Distance::between(&numbers(want), &numbers(got)),
        };
        self.comparison.compared += usize::from(!whole);
        // Nothing rounds a whole number.
        let agrees = match &whole_numbers {
            Some((a, b)) => a == b,
            None => distance.within(self.limits),
        };
        if !agrees {
            return self.differs(name, at, Some(distance), Apart::default(), whole);
        }
        self.last = at.or(self.last);
        let further =
            |(_, known): &(String, Distance)| distance.max_abs_of_peak > known.max_abs_of_peak;
        if self.comparison.furthest.as_ref().is_none_or(further) {
            self.comparison.furthest = Some((name.to_owned(), distance));
        }
    }

    /// The element types of an output of two models, where they differ: as declared, for a runtime may keep floats as
    /// integers; as they are where a model declares none.
    fn types_apart(&self, name: &str, values: [&Tensor; 2]) -> Option<(String, String)> {
        let outputs = [self.old, self.model]
            .map(|model| model.graph_proto().output.iter().find(|output| output.name() == name));
        let [Some(old), Some(new)] = outputs else { return None };
        let [mut a, mut b] = [old, new].map(ValueInfoProto::type_name);
        if a == "?" || b == "?" {
            [a, b] = values.map(|value| value.dtype().name().to_owned());
        }
        (!self.same_model && a != b).then_some((a, b))
    }

    /// Whether a node's value is an integer that was rounded to, or came of such by integer arithmetic.
    fn is_quantized(&self, graph: &Graph<'_>, at: Option<usize>, dtype: DType) -> bool {
        let Some(at) = at
            .filter(|_| matches!(dtype, DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32))
        else {
            return false;
        };
        let node = graph.node(NodeId(at));
        let op = node.op_type();
        op.ends_with("QuantizeLinear")
            || op.ends_with("Integer")
            || op.starts_with("QLinear")
            || node.input.iter().any(|input| self.comparison.left_out.contains(input))
    }

    fn differs(
        &mut self,
        name: &str,
        at: Option<usize>,
        distance: Option<Distance>,
        Apart { shapes, types }: Apart,
        only_when_whole: bool,
    ) {
        let mut place = Divergence::at(&self.model.graph(), at.unwrap_or(0), self.last);
        place.value = Some(name.to_owned());
        place.max_abs_of_peak = distance.map(|d| d.max_abs_of_peak);
        let snr_db = distance.and_then(|d| d.snr_db);
        self.comparison.first = Some(Disagreement { place, snr_db, shapes, types, only_when_whole });
    }
}

/// A tensor's numbers.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    fn list<T: Into<f64>, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<f64> {
        bytes.as_chunks().0.iter().map(|bytes| read(*bytes).into()).collect()
    }
    let bytes = tensor.bytes();
    match tensor.dtype() {
        DType::F32 => list(bytes, f32::from_le_bytes),
        DType::F64 => list(bytes, f64::from_le_bytes),
        DType::F16 => list(bytes, f16::from_le_bytes),
        DType::BF16 => list(bytes, bf16::from_le_bytes),
        // Shapes that a runtime keeps as integers where the file says float are numbers all the same.
        _ => integers(tensor).unwrap_or_default().into_iter().map(|number| number as f64).collect(),
    }
}

/// A tensor's numbers, where its type is one of whole numbers.
fn integers(tensor: &Tensor) -> Option<Vec<i128>> {
    fn list<T: Into<i128>, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<i128> {
        bytes.as_chunks().0.iter().map(|bytes| read(*bytes).into()).collect()
    }
    let bytes = tensor.bytes();
    Some(match tensor.dtype() {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => return None,
        DType::I64 => list(bytes, i64::from_le_bytes),
        DType::U64 => list(bytes, u64::from_le_bytes),
        DType::I32 => list(bytes, i32::from_le_bytes),
        DType::U32 => list(bytes, u32::from_le_bytes),
        DType::I16 => list(bytes, i16::from_le_bytes),
        DType::U16 => list(bytes, u16::from_le_bytes),
        DType::I8 => list(bytes, i8::from_le_bytes),
        DType::U8 => list(bytes, u8::from_le_bytes),
        DType::Bool => list(bytes, |[byte]: [u8; 1]| u8::from(byte != 0)),
    })
}

impl Distance {
    /// Of two equally long lists. Infinite or NaN in both is equal; in one alone it is infinitely far.
    fn between(want: &[f64], got: &[f64]) -> Self {
        let equal = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
        let apart = |a: f64, b: f64| if equal(a, b) { 0.0 } else { (a - b).abs() };
        Self::of(want.iter().zip(got).map(|(&a, &b)| (a, b, apart(a, b))))
    }

    /// Of pairs of numbers, each with how far they are apart.
    fn of(pairs: impl Iterator<Item = (f64, f64, f64)> + Clone) -> Self {
        let (mut signal, mut noise, mut peak, mut worst) = (0.0, 0.0, 0.0_f64, 0.0_f64);
        let sizes = pairs.clone().flat_map(|(a, _, apart)| [a.abs(), apart]);
        let largest = sizes.filter(|size| size.is_finite()).fold(0.0, f64::max);
        // So that squares stay numbers; within the range of f32 they do as they are.
        let unit = if (1e-100..1e100).contains(&largest) || largest == 0.0 { 1.0 } else { largest };
        for (a, b, apart) in pairs {
            if apart == 0.0 {
                let finite = if a.is_finite() { a } else { 0.0 };
                signal += (finite / unit).powi(2);
                peak = peak.max(finite.abs());
            } else if a.is_finite() && b.is_finite() {
                signal += (a / unit).powi(2);
                noise += (apart / unit).powi(2);
                peak = peak.max(a.abs());
                worst = worst.max(apart);
            } else {
                (noise, worst) = (f64::INFINITY, f64::INFINITY);
            }
        }
        let max_abs_of_peak = if worst == 0.0 { 0.0 } else { worst / peak.max(f64::MIN_POSITIVE) };
        let snr_db = (noise > 0.0).then(|| 10.0 * (signal / noise).log10());
        Self { max_abs_of_peak, snr_db }
    }

    fn within(&self, limits: Limits) -> bool {
        self.max_abs_of_peak < limits.max_abs_of_peak
            && self.snr_db.is_none_or(|snr| snr > limits.snr_db)
            || self.snr_db.is_none()
    }
}
