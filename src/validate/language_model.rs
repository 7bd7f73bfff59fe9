//! Runs a language model's references: prompts at once, and token after token from its own cache.

use super::{Case, CaseResult, Error, Fault, Kind, Metric, References, output};
use crate::audio;
use crate::ir::Model;
use crate::runtime::{Session, Tensors};
use crate::tensor::Tensor;

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const POSITIONS: &str = "position_ids";
const LOGITS: &str = "logits";
const HIDDEN: &str = "last_hidden_state";
pub(super) const PAST: &str = "past_key_values.";
const PRESENT: &str = "present.";

/// A language model's cache, as its inputs declare it.
pub(super) struct Interface {
    /// `{layer}.key` or `{layer}.value`, with the number of heads and their size.
    cache: Vec<(String, usize, usize)>,
}

const INPUTS: [&str; 3] = [IDS, MASK, POSITIONS];

impl Interface {
    /// Reads the cache off a model's inputs.
    ///
    /// # Errors
    /// [`Error::Interface`] where an input is none of a language model's, or a cache's heads and size are
    /// left open.
    pub(super) fn of(model: &Model) -> Result<Self, Error> {
        let mut cache = Vec::new();
        for input in &model.graph_proto().input {
            let Some(name) = input.name().strip_prefix(PAST) else {
                if INPUTS.contains(&input.name()) {
                    continue;
                }
                return Err(Error::Interface {
                    name: input.name().to_owned(),
                    why: "is none of a language model's",
                });
            };
            let dims = input.dims();
            let fixed = |at: usize| dims.get(at).and_then(|dim| dim.parse().ok());
            let (Some(heads), Some(size), 4) = (fixed(1), fixed(3), dims.len()) else {
                let why = "must be [batch, heads, past, size] with heads and size fixed";
                return Err(Error::Interface { name: input.name().to_owned(), why });
            };
            cache.push((name.to_owned(), heads, size));
        }
        if cache.is_empty() {
            return Err(Error::Interface {
                name: format!("{PAST}0.key"),
                why: "is not there: the model has no cache",
            });
        }
        Ok(Self { cache })
    }

    /// Runs one case.
    pub(super) fn run(
        &self,
        case: &Case,
        references: &References,
        session: &dyn Session,
        result: &mut CaseResult,
    ) -> Result<(), Fault> {
        let given = references.inputs(case);
        let wanted = references.outputs(case);
        let ids = Rows::of(&given, IDS)?;
        match case.kind {
            Kind::Greedy => self.greedy(case, &ids, &wanted, session, result),
            Kind::Steps => self.steps(case, &ids, &wanted, session, result),
            _ => {
                let mask = Rows::of(&given, MASK)?;
                let mut outputs = self.call(session, &given, None)?;
                outputs.retain(|name, _| wanted.contains_key(name));
                for name in [HIDDEN, LOGITS] {
                    let Some(want) = wanted.get(name) else { continue };
                    let got = output(&outputs, name, want)?;
                    let counts = |row: usize| mask.values[row] != 0;
                    compare(name, want, got, counts, result)?;
                }
                Ok(())
            }
        }
    }

    /// One call, with an empty cache where none is given.
    fn call(
        &self,
        session: &dyn Session,
        given: &Tensors,
        past: Option<Tensors>,
    ) -> Result<Tensors, Fault> {
        let batch = given.get(IDS).map_or(1, |ids| ids.shape()[0]);
        let mut inputs = given.clone();
        inputs.extend(past.unwrap_or_else(|| {
            let empty = |heads, size| Tensor::from_f32(&[batch, heads, 0, size], &[]);
            self.cache
                .iter()
                .map(|(name, heads, size)| (format!("{PAST}{name}"), empty(*heads, *size)))
                .collect()
        }));
        Ok(session.run(&inputs)?)
    }

    /// Feeds tokens `from..to` of one sequence, all that came before being in the cache.
    fn feed(
        &self,
        session: &dyn Session,
        ids: &[i64],
        from: usize,
        past: Option<Tensors>,
    ) -> Result<(Tensors, Tensors), Fault> {
        let to = ids.len();
        let positions: Vec<i64> = (from as i64..to as i64).collect();
        let given = Tensors::from([
            (IDS.to_owned(), Tensor::from_i64(&[1, to - from], &ids[from..])),
            (MASK.to_owned(), Tensor::from_i64(&[1, to], &vec![1; to])),
            (POSITIONS.to_owned(), Tensor::from_i64(&[1, to - from], &positions)),
        ]);
        let mut outputs = self.call(session, &given, past)?;
        let mut cache = Tensors::new();
        for (name, heads, size) in &self.cache {
            let present = format!("{PRESENT}{name}");
            let tensor = outputs
                .remove(&present)
                .ok_or_else(|| Fault::Output(format!("the model has no output {present:?}")))?;
            if tensor.shape() != [1, *heads, to, *size] {
                let found = tensor.shape();
                return Err(Fault::Output(format!(
                    "{present} has the shape {found:?} after {to} tokens"
                )));
            }
            cache.insert(format!("{PAST}{name}"), tensor);
        }
        Ok((outputs, cache))
    }

    /// A prompt, then one token at a time as recorded: every position is compared.
    fn steps(
        &self,
        case: &Case,
        ids: &Rows,
        wanted: &Tensors,
        session: &dyn Session,
        result: &mut CaseResult,
    ) -> Result<(), Fault> {
        let length = ids.values.len();
        let (mut past, mut from) = (None, 0);
        let mut made: [Vec<f32>; 2] = Default::default();
        for to in case.prefill.max(1)..=length {
            let (outputs, cache) = self.feed(session, &ids.values[..to], from, past)?;
            for (name, values) in [HIDDEN, LOGITS].iter().zip(&mut made) {
                let Some(want) = wanted.get(*name) else { continue };
                let channels = want.shape().last().copied().unwrap_or(1);
                let part =
                    Tensor::from_f32(&[1, to - from, channels], &vec![0.0; (to - from) * channels]);
                values.extend(output(&outputs, name, &part)?.to_f32()?);
            }
            (past, from) = (Some(cache), to);
        }
        for (name, values) in [HIDDEN, LOGITS].iter().zip(&made) {
            let Some(want) = wanted.get(*name) else { continue };
            let got = Tensor::from_f32(&[1, length, values.len() / length.max(1)], values);
            if got.shape() != want.shape() {
                let shapes = format!("{name}: {:?} was recorded of {length} positions", want.shape());
                return Err(Fault::Output(shapes));
            }
            compare(name, want, &got, |_| true, result)?;
        }
        if let Some(want) = wanted.get(HIDDEN) {
            let growth = growth(&want.to_f32()?, &made[0], length, case.prefill.max(1));
            result.measured.add(Metric::ErrorGrowth, growth);
        }
        Ok(())
    }

    /// A prompt, then the likeliest token each time: the tokens are those that PyTorch chose.
    fn greedy(
        &self,
        case: &Case,
        ids: &Rows,
        wanted: &Tensors,
        session: &dyn Session,
        result: &mut CaseResult,
    ) -> Result<(), Fault> {
        let tokens = Rows::of(wanted, "tokens")?.values;
        let mut said = ids.values.clone();
        let (mut past, mut from, mut same) = (None, 0, 0usize);
        for &token in &tokens {
            let to = said.len();
            let (outputs, cache) = self.feed(session, &said, from, past)?;
            let logits = outputs
                .get(LOGITS)
                .ok_or_else(|| Fault::Output("the model has no output \"logits\"".to_owned()))?;
            let vocabulary = logits.shape().last().copied().unwrap_or(1).max(1);
            let logits = logits.to_f32()?;
            if largest(&logits[logits.len() - vocabulary..]) as i64 != token {
                break;
            }
            same += 1;
            (past, from) = (Some(cache), to);
            said.push(token);
        }
        result.measured.add(Metric::GreedyAgreement, same as f64 / tokens.len().max(1) as f64);
        result.length = case.length;
        Ok(())
    }
}

/// The whole numbers of an input.
struct Rows {
    values: Vec<i64>,
}

impl Rows {
    fn of(tensors: &Tensors, name: &str) -> Result<Self, Fault> {
        let missing = || Fault::Output(format!("the reference has no {name:?}"));
        Ok(Self { values: tensors.get(name).ok_or_else(missing)?.to_i64()? })
    }
}

/// The largest difference over the last quarter of the steps, over that of the first quarter.
fn growth(want: &[f32], got: &[f32], length: usize, prefill: usize) -> f64 {
    let channels = (want.len() / length.max(1)).max(1);
    let error = |(w, g): (&[f32], &[f32])| {
        w.iter().zip(g).map(|(w, g)| f64::from((w - g).abs())).fold(0.0, f64::max)
    };
    let errors: Vec<f64> =
        want.chunks(channels).zip(got.chunks(channels)).map(error).skip(prefill).collect();
    let quarter = errors.len().div_ceil(4);
    let largest = |errors: &[f64]| errors.iter().copied().fold(0.0, f64::max);
    let (first, last) = (largest(&errors[..quarter]), largest(&errors[errors.len() - quarter..]));
    if last == 0.0 { 0.0 } else { last / first }
}

/// The place of the largest value; the first of equal ones.
fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = at;
        }
    }
    best
}

/// Compares the rows (positions) that count.
fn compare(
    name: &str,
    want: &Tensor,
    got: &Tensor,
    counts: impl Fn(usize) -> bool,
    result: &mut CaseResult,
) -> Result<(), Fault> {
    let channels = want.shape().last().copied().unwrap_or(1).max(1);
    let (want, got) = (want.to_f32()?, got.to_f32()?);
    let (mut reference, mut test) = (Vec::new(), Vec::new());
    let (mut agreeing, mut rows) = (0usize, 0usize);
    for (row, (w, g)) in want.chunks(channels).zip(got.chunks(channels)).enumerate() {
        if counts(row) {
            rows += 1;
            agreeing += usize::from(largest(w) == largest(g));
            reference.extend_from_slice(w);
            test.extend_from_slice(g);
        }
    }
    let refuse = |fault: audio::Error| Fault::Output(format!("{name}: {fault}"));
    let error = audio::max_abs_difference(&reference, &test).map_err(refuse)?;
    if name == LOGITS {
        result.measured.add(Metric::Top1Agreement, agreeing as f64 / rows.max(1) as f64);
        return Ok(());
    }
    result.peak = result.peak.max(audio::peak(&reference));
    result.measured.add(Metric::MaxAbs, error);
    result.measured.add(Metric::MaxAbsOfPeak, error / audio::peak(&reference));
    result.measured.add(Metric::SnrDb, audio::snr_db(&reference, &test).map_err(refuse)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_sees_an_error_that_grows_and_not_one_that_stays() {
        let want = vec![0.0; 40];
        let steady: Vec<f32> = (0..40).map(|at| if at % 2 == 0 { 1e-6 } else { 0.0 }).collect();
        let growing: Vec<f32> = (0..40).map(|at| 1e-6 * at as f32).collect();
        assert!((growth(&want, &steady, 20, 2) - 1.0).abs() < 1e-9);
        // Two values a step: 13 at the sixth step, the last of the first quarter, and 39 at the last.
        assert!((growth(&want, &growing, 20, 2) - 3.0).abs() < 1e-6);
        assert_eq!(growth(&want, &want, 20, 2), 0.0);
        assert!(growth(&want, &[vec![0.0; 20], vec![1.0; 20]].concat(), 20, 2).is_infinite());
    }

    #[test]
    fn the_first_of_equal_values_is_the_largest() {
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0]), 1);
    }
}
