//! Runs a causal graph's references: prompts at once, and token after token from its own cache.

use std::cell::RefCell;

use super::{Case, CaseResult, Fault, Kind, Metric, References, output};
use crate::audio;
use crate::interface::Causal;
use crate::runtime::{Conversation, Session, Tensors};
use crate::tensor::Tensor;

/// Runs one case.
pub(super) fn run(
    graph: &Causal,
    case: &Case,
    references: &References,
    session: &dyn Session,
    result: &mut CaseResult,
) -> Result<(), Fault> {
    let conversation = RefCell::new(session.begin(&[])?);
    Runner { graph, conversation }.run(case, references, result)
}

/// A causal graph, and the one conversation with it that a case is.
struct Runner<'a> {
    graph: &'a Causal,
    conversation: RefCell<Box<dyn Conversation + 'a>>,
}

impl Runner<'_> {
    fn run(&self, case: &Case, references: &References, result: &mut CaseResult) -> Result<(), Fault> {
        let inputs = references.inputs(case);
        let recorded = references.outputs(case);
        let names = self.graph.names();
        let ids = whole_numbers(&inputs, &names.ids)?;
        match case.kind {
            Kind::Greedy => self.greedy(case, &ids, &recorded, result),
            Kind::Steps => self.steps(case, &ids, &recorded, result),
            _ => {
                let mask = whole_numbers(&inputs, &names.mask)?;
                let outputs = self.call(&inputs, None, case.batch)?;
                let layers = format!("{}.", names.layers);
                let inner = |name: &&String| name.starts_with(&layers);
                if let Some(name) = outputs.keys().filter(inner).find(|n| !recorded.contains_key(*n)) {
                    return Err(Fault::Output(format!("the reference has no {name:?}")));
                }
                for (name, want) in &recorded {
                    if *name == names.logits && self.graph.has_last_logits() {
                        let want = last_rows(want)?;
                        self.compare(name, &want, output(&outputs, name, &want)?, |_| true, result)?;
                    } else {
                        let counts = |row: usize| mask[row] != 0;
                        self.compare(name, want, output(&outputs, name, want)?, counts, result)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// One call, with an empty cache unless there is a past.
    fn call(&self, inputs: &Tensors, past: Option<Tensors>, batch: usize) -> Result<Tensors, Fault> {
        let mut inputs = inputs.clone();
        inputs.extend(past.unwrap_or_else(|| self.graph.empty_cache(batch)));
        Ok(self.conversation.borrow_mut().run(&inputs)?)
    }

    /// Feeds tokens `from..to` of one sequence, all that came before being in the cache.
    fn feed(
        &self,
        ids: &[i64],
        from: usize,
        past: Option<Tensors>,
    ) -> Result<(Tensors, Tensors), Fault> {
        let to = ids.len();
        let positions: Vec<i64> = (from as i64..to as i64).collect();
        let inputs = self.graph.tokens(1, &ids[from..], &vec![1; to], &positions);
        let mut outputs = self.call(&inputs, past, 1)?;
        let mut cache = Tensors::new();
        for cached in self.graph.cache() {
            let present = &cached.present;
            let tensor = outputs.remove(present).ok_or_else(|| no_output(present))?;
            if tensor.shape() != [1, cached.heads, to, cached.size] {
                let shape = tensor.shape();
                return Err(Fault::Output(format!(
                    "{present} has the shape {shape:?} after {to} tokens"
                )));
            }
            cache.insert(cached.past.clone(), tensor);
        }
        Ok((outputs, cache))
    }

    /// A prompt, then one token at a time as recorded: every position is compared.
    fn steps(
        &self,
        case: &Case,
        ids: &[i64],
        recorded: &Tensors,
        result: &mut CaseResult,
    ) -> Result<(), Fault> {
        let length = ids.len();
        let names = self.graph.names();
        let outputs_by_name = [&names.hidden, &names.logits];
        let last_logits = |name: &String| *name == names.logits && self.graph.has_last_logits();
        let (mut past, mut from) = (None, 0);
        let mut collected: [Vec<f32>; 2] = Default::default();
        for to in case.prefill.max(1)..=length {
            let (outputs, cache) = self.feed(&ids[..to], from, past)?;
            for (name, values) in outputs_by_name.into_iter().zip(&mut collected) {
                let Some(want) = recorded.get(name) else { continue };
                let channels = want.shape().last().copied().unwrap_or(1);
                let rows = if last_logits(name) { 1 } else { to - from };
                let part = Tensor::from_f32(&[1, rows, channels], &vec![0.0; rows * channels]);
                values.extend(output(&outputs, name, &part)?.to_f32()?);
            }
            (past, from) = (Some(cache), to);
        }
        for (name, values) in outputs_by_name.into_iter().zip(&collected) {
            let Some(want) = recorded.get(name) else { continue };
            let [1, rows, channels] = *want.shape() else {
                let shapes = format!("{name}: {:?} was recorded of {length} positions", want.shape());
                return Err(Fault::Output(shapes));
            };
            // Of a prompt's logits the last row alone, where the model gives no others.
            let skipped = if last_logits(name) { case.prefill.max(1) - 1 } else { 0 };
            let want = want.to_f32()?.split_off((skipped * channels).min(rows * channels));
            if rows != length || values.len() != want.len() {
                let shapes = format!("{name}: {rows} rows were recorded of {length} positions");
                return Err(Fault::Output(shapes));
            }
            let shape = [1, length - skipped, channels];
            let (want, got) = (Tensor::from_f32(&shape, &want), Tensor::from_f32(&shape, values));
            self.compare(name, &want, &got, |_| true, result)?;
        }
        if let Some(want) = recorded.get(&names.hidden) {
            let growth = growth(&want.to_f32()?, &collected[0], length, case.prefill.max(1));
            result.measured.add(Metric::ErrorGrowth, growth);
        }
        Ok(())
    }

    /// A prompt, then the likeliest token each time: the tokens are those that PyTorch chose.
    fn greedy(
        &self,
        case: &Case,
        ids: &[i64],
        recorded: &Tensors,
        result: &mut CaseResult,
    ) -> Result<(), Fault> {
        // No input or output has a dot in its name; where an input is called `tokens`, these are not.
        let name = if recorded.contains_key("greedy.tokens") { "greedy.tokens" } else { "tokens" };
        let tokens = whole_numbers(recorded, name)?;
        let mut sequence = ids.to_vec();
        let (mut past, mut from, mut same) = (None, 0, 0usize);
        for &token in &tokens {
            let to = sequence.len();
            let (outputs, cache) = self.feed(&sequence, from, past)?;
            let name = &self.graph.names().logits;
            let logits = outputs.get(name).ok_or_else(|| no_output(name))?;
            let vocabulary = logits.shape().last().copied().unwrap_or(1).max(1);
            let logits = logits.to_f32()?;
            if largest(&logits[logits.len() - vocabulary..]) as i64 != token {
                break;
            }
            same += 1;
            (past, from) = (Some(cache), to);
            sequence.push(token);
        }
        result.measured.add(Metric::GreedyAgreement, same as f64 / tokens.len().max(1) as f64);
        result.length = case.length;
        Ok(())
    }

    /// Compares the rows (positions) that count.
    fn compare(
        &self,
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
        if name == self.graph.names().logits {
            result.measured.add(Metric::Top1Agreement, agreeing as f64 / rows.max(1) as f64);
            return Ok(());
        }
        result.peak = result.peak.max(audio::peak(&reference));
        result.measured.add(Metric::MaxAbs, error);
        result.measured.add(Metric::MaxAbsOfPeak, error / audio::peak(&reference));
        result.measured.add(Metric::SnrDb, audio::snr_db(&reference, &test).map_err(refuse)?);
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

/// The whole numbers of a recorded tensor.
fn whole_numbers(tensors: &Tensors, name: &str) -> Result<Vec<i64>, Fault> {
    let missing = || Fault::Output(format!("the reference has no {name:?}"));
    Ok(tensors.get(name).ok_or_else(missing)?.to_i64()?)
}

/// That the model has no such output.
fn no_output(name: &str) -> Fault {
    Fault::Output(format!("the model has no output {name:?}"))
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
