//! Runs a language model's references: prompts at once, and token after token from its own cache.

use super::signature::Port;
use super::{Case, CaseResult, Error, Fault, Kind, Metric, References, Signature, output};
use crate::audio;
use crate::runtime::{Session, Tensors};
use crate::tensor::Tensor;

pub(super) const IDS: &str = "input_ids";
pub(super) const MASK: &str = "attention_mask";
pub(super) const POSITIONS: &str = "position_ids";
const LOGITS: &str = "logits";
pub(super) const HIDDEN: &str = "last_hidden_state";
pub(super) const PAST: &str = "past_key_values.";
const LAYER: &str = "hidden_states.";
pub(super) const PRESENT: &str = "present.";

/// A language model's cache, as its inputs declare it.
pub(super) struct Interface {
    /// `{layer}.key` or `{layer}.value`, with the number of heads and their size.
    cache: Vec<(String, usize, usize)>,
    /// Logits are those of the last position alone.
    last_logits: bool,
    /// The cache is the model's own: a call without one begins anew.
    stateful: bool,
}

const INPUTS: [&str; 3] = [IDS, MASK, POSITIONS];

impl Interface {
    /// Reads the cache off a model's inputs.
    ///
    /// # Errors
    /// [`Error::Interface`] where an input is none of a language model's, or a cache's heads and size are
    /// left open.
    pub(super) fn of(signature: &Signature) -> Result<Self, Error> {
        let mut cache = Vec::new();
        for Port { name: input, dims, .. } in &signature.inputs {
            let Some(name) = input.strip_prefix(PAST) else {
                if INPUTS.contains(&input.as_str()) {
                    continue;
                }
                return Err(Error::Interface {
                    name: input.clone(),
                    why: "is none of a language model's",
                });
            };
            let fixed = |at: usize| dims.get(at).and_then(|dim| dim.parse().ok());
            let (Some(heads), Some(size), 4) = (fixed(1), fixed(3), dims.len()) else {
                let why = "must be [batch, heads, past, size] with heads and size fixed";
                return Err(Error::Interface { name: input.clone(), why });
            };
            cache.push((name.to_owned(), heads, size));
        }
        if cache.is_empty() && !signature.stateful {
            return Err(Error::Interface {
                name: format!("{PAST}0.key"),
                why: "is not there: the model has no cache",
            });
        }
        let logits = signature.outputs.iter().find(|port| port.name == LOGITS);
        let last_logits = logits.is_some_and(|port| port.dims.get(1).is_some_and(|dim| dim == "1"));
        Ok(Self { cache, last_logits, stateful: signature.stateful })
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
                let outputs = self.call(session, &given, None)?;
                let inner = |name: &&String| name.starts_with(LAYER);
                if let Some(name) = outputs.keys().filter(inner).find(|n| !wanted.contains_key(*n)) {
                    return Err(Fault::Output(format!("the reference has no {name:?}")));
                }
                for (name, want) in &wanted {
                    if name == LOGITS && self.last_logits {
                        let want = last_rows(want)?;
                        compare(name, &want, output(&outputs, name, &want)?, |_| true, result)?;
                    } else {
                        let counts = |row: usize| mask.values[row] != 0;
                        compare(name, want, output(&outputs, name, want)?, counts, result)?;
                    }
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
        if self.stateful && past.is_none() {
            session.restart()?;
        }
        let batch = given.get(IDS).map_or(1, |ids| ids.shape()[0]);
        let mut inputs = given.clone();
        inputs.extend(past.unwrap_or_else(|| self.empty_cache(batch)));
        Ok(session.run(&inputs)?)
    }

    /// The cache before the first token.
    pub(super) fn empty_cache(&self, batch: usize) -> Tensors {
        self.filled_cache(batch, 0)
    }

    /// A cache of so many positions, all zero.
    fn filled_cache(&self, batch: usize, past: usize) -> Tensors {
        let zeros = |heads: usize, size: usize| {
            Tensor::from_f32(&[batch, heads, past, size], &vec![0.0; batch * heads * past * size])
        };
        let inputs = self.cache.iter();
        inputs.map(|(name, heads, size)| (format!("{PAST}{name}"), zeros(*heads, *size))).collect()
    }

    /// One token behind a cache of so many positions.
    pub(super) fn step(&self, past: usize) -> Tensors {
        let mut inputs = self.filled_cache(1, past);
        inputs.insert(IDS.to_owned(), Tensor::from_i64(&[1, 1], &[1]));
        inputs.insert(MASK.to_owned(), Tensor::from_i64(&[1, past + 1], &vec![1; past + 1]));
        inputs.insert(POSITIONS.to_owned(), Tensor::from_i64(&[1, 1], &[past as i64]));
        inputs
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
                let rows = if *name == LOGITS && self.last_logits { 1 } else { to - from };
                let part = Tensor::from_f32(&[1, rows, channels], &vec![0.0; rows * channels]);
                values.extend(output(&outputs, name, &part)?.to_f32()?);
            }
            (past, from) = (Some(cache), to);
        }
        for (name, values) in [HIDDEN, LOGITS].iter().zip(&made) {
            let Some(want) = wanted.get(*name) else { continue };
            let [1, recorded, channels] = *want.shape() else {
                let shapes = format!("{name}: {:?} was recorded of {length} positions", want.shape());
                return Err(Fault::Output(shapes));
            };
            // Of a prompt's logits the last row alone, where the model gives no others.
            let skipped = if *name == LOGITS && self.last_logits { case.prefill.max(1) - 1 } else { 0 };
            let want = want.to_f32()?.split_off((skipped * channels).min(recorded * channels));
            if recorded != length || values.len() != want.len() {
                let shapes = format!("{name}: {recorded} rows were recorded of {length} positions");
                return Err(Fault::Output(shapes));
            }
            let shape = [1, length - skipped, channels];
            let (want, got) = (Tensor::from_f32(&shape, &want), Tensor::from_f32(&shape, values));
            compare(name, &want, &got, |_| true, result)?;
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

/// The last row of each sequence, [batch, 1, channels].
fn last_rows(tensor: &Tensor) -> Result<Tensor, Fault> {
    let [batch, rows, channels] = *tensor.shape() else {
        return Err(Fault::Output(format!("logits were recorded as {:?}", tensor.shape())));
    };
    let values = tensor.to_f32()?;
    let of = |b: usize| ((b * rows + rows - 1) * channels)..((b + 1) * rows * channels);
    let kept: Vec<f32> =
        (0..batch).filter(|_| rows > 0).flat_map(|b| values[of(b)].iter().copied()).collect();
    Ok(Tensor::from_f32(&[batch, rows.min(1), channels], &kept))
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
        approx::assert_abs_diff_eq!(growth(&want, &steady, 20, 2), 1.0, epsilon = 1e-9);
        // Two values a step: 13 at the sixth step, the last of the first quarter, and 39 at the last.
        approx::assert_abs_diff_eq!(growth(&want, &growing, 20, 2), 3.0, epsilon = 1e-6);
        assert_eq!(growth(&want, &want, 20, 2), 0.0);
        assert!(growth(&want, &[vec![0.0; 20], vec![1.0; 20]].concat(), 20, 2).is_infinite());
    }

    #[test]
    fn the_first_of_equal_values_is_the_largest() {
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0]), 1);
    }
}
