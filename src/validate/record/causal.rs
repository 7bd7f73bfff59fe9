//! References of a causal graph.

use super::drawn::ids;
use super::moved::Distance;
use super::{Course, LIMIT, MOST_MOVED, Prompts, Recording, SEED, Watch, refuse, rounded};
use crate::front::float64::{
    CausalAnswer, CausalInDouble, Frames, Numbers, Sequence, Stepping, Wanted, argmax,
};
use crate::names;
use crate::recipe::CausalReferences;
use crate::tensor::{Tensor, TensorFile};
use crate::validate::{Case, Error, Kind, Measured, Metric};

/// Tokens of the random prompt of a greedy run, and of its answer.
const GREEDY: (usize, usize) = (5, 32);
/// Tokens that are given at once before the first step.
const STEPS_PREFILL: usize = 7;

/// What a greedy run came to.
#[derive(Clone, Debug)]
pub struct Spoken {
    /// The tokens, without the one that ends the answer.
    pub tokens: Vec<i64>,
    /// Whether that one came.
    pub stopped: bool,
    /// The hidden states that predicted each of the tokens, [channels, tokens], in f32's numbers.
    pub frames: Frames,
}

/// How a run that chooses its own tokens is driven.
pub(super) struct Drive<'a> {
    /// Its beginning.
    pub(super) prompt: &'a [i64],
    /// Tokens after which it ends.
    pub(super) limit: usize,
    /// The token that ends it.
    pub(super) stop: Option<i64>,
    /// By which the score of a token that was there already is divided, or multiplied where it is negative.
    pub(super) penalty: f64,
}

/// What was chosen: the token that ended a run is the last of its tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Driven {
    pub(super) tokens: Vec<i64>,
    pub(super) hidden: Vec<Vec<f64>>,
    is_done: bool,
}

/// Has the model choose the likeliest token each time, all runs together.
pub(super) fn drive(
    model: &dyn CausalInDouble,
    runs: &[Drive<'_>],
    course: &mut Course<'_>,
) -> Result<Vec<Driven>, Error> {
    if runs.iter().any(|run| run.prompt.is_empty()) {
        return refuse("a prompt without a token".to_owned());
    }
    let mut stepping: Box<dyn Stepping + '_> = model.begin(runs.len());
    let mut driven: Vec<Driven> = vec![Driven::default(); runs.len()];
    let mut used = vec![vec![false; model.vocabulary()]; runs.len()];
    let use_up = |used: &mut Vec<bool>, ids: &[i64]| {
        for id in ids {
            if let Some(used) = usize::try_from(*id).ok().and_then(|id| used.get_mut(id)) {
                *used = true;
            }
        }
    };
    runs.iter().zip(&mut used).for_each(|(run, used)| use_up(used, run.prompt));
    loop {
        let open: Vec<usize> =
            (0..runs.len()).filter(|&at| !driven[at].is_done && runs[at].limit > 0).collect();
        if open.is_empty() {
            return Ok(driven);
        }
        let tokens = open.iter().map(|&at| {
            let said = &driven[at].tokens;
            (at, if said.is_empty() { runs[at].prompt } else { &said[said.len() - 1..] })
        });
        let tokens: Vec<(usize, &[i64])> = tokens.collect();
        let nexts = stepping.feed(&tokens)?;
        for (&at, next) in open.iter().zip(nexts) {
            let (run, driven) = (&runs[at], &mut driven[at]);
            let scores =
                next.logits.iter().zip(&used[at]).map(|(&score, &used)| match (used, score < 0.0) {
                    (false, _) => score,
                    (true, true) => score * run.penalty,
                    (true, false) => score / run.penalty,
                });
            let token = argmax(scores) as i64;
            driven.tokens.push(token);
            driven.hidden.push(next.hidden);
            driven.is_done = driven.tokens.len() >= run.limit || Some(token) == run.stop;
            use_up(&mut used[at], &[token]);
        }
        course.tick()?;
    }
}

impl Driven {
    /// Without the token that ended it.
    pub(super) fn spoken(mut self, stop: Option<i64>) -> Spoken {
        let stopped = stop.is_some() && self.tokens.last().copied() == stop;
        if stopped {
            self.tokens.pop();
            self.hidden.pop();
        }
        let length = self.hidden.len();
        let channels = self.hidden.first().map_or(0, Vec::len);
        let value = |at: usize| f64::from(self.hidden[at % length][at / length] as f32);
        let values = (0..channels * length).map(value).collect();
        Spoken { tokens: self.tokens, stopped, frames: Frames { length, values } }
    }
}

/// What the model says to each prompt greedily: [`LIMIT`] tokens at most. Frames that were spoken are those of a signal
/// graph's [`signal`](super::signal).
///
/// # Errors
/// [`Error::Checkpoint`] for an answer of fewer than two tokens, of which no sound can be made, and a prompt with a
/// token that the model doesn't know; [`Error::Interrupted`].
pub fn spoken(
    model: &dyn CausalInDouble,
    prompts: Prompts<'_>,
    watch: Watch<'_>,
) -> Result<Vec<Spoken>, Error> {
    let mut course = Course::new(watch, LIMIT);
    let of = |prompt| Drive { prompt, limit: LIMIT, stop: prompts.stop, penalty: 1.0 };
    let runs: Vec<Drive<'_>> = prompts.ids.iter().map(|prompt| of(prompt.as_slice())).collect();
    let driven = drive(model, &runs, &mut course)?;
    let spoken: Vec<Spoken> = driven.into_iter().map(|run| run.spoken(prompts.stop)).collect();
    if let Some((at, short)) = spoken.iter().enumerate().find(|(_, spoken)| spoken.tokens.len() < 2) {
        let count = short.tokens.len();
        return refuse(format!("`sentences[{at}]`: the checkpoint says {count} tokens to it"));
    }
    course.finish();
    Ok(spoken)
}

/// Records what a causal model answers: prompts at once, a padded batch, steps from a cache, and greedy runs. Cases,
/// names and distributions are those of `lm_references.py`. Steps are computed at once: in double precision the two
/// are the same to 1e-12.
///
/// # Errors
/// [`Error::Checkpoint`] where the model has too few positions, layers or tokens, and for answers that are not finite;
/// [`Error::Interrupted`].
pub fn causal(
    model: &dyn CausalInDouble,
    names: &names::Causal,
    wanted: &CausalReferences,
    hidden_states: &[u32],
    prompts: Prompts<'_>,
    watch: Watch<'_>,
) -> Result<TensorFile, Error> {
    let plan = Plan::new(model, wanted, hidden_states)?;
    let limit = if prompts.ids.is_empty() { GREEDY.1 } else { LIMIT };
    let mut course = Course::new(watch, 2 * (model.layers() + 1) + limit);
    let random = ids(1, GREEDY.0, model.vocabulary(), wanted.seed).pop().unwrap_or_default();
    let mut runs = vec![Drive { prompt: &random, limit: GREEDY.1, stop: None, penalty: 1.0 }];
    let of = |prompt| Drive { prompt, limit: LIMIT, stop: prompts.stop, penalty: 1.0 };
    runs.extend(prompts.ids.iter().map(|prompt| of(prompt.as_slice())));
    let driven = drive(model, &runs, &mut course)?;
    let all = Wanted { logits: true, layers: hidden_states };
    let exact = model.run(&plan.sequences, all, Numbers::Exact, &mut || course.tick())?;
    // Greedy runs are moved on the tokens that they chose.
    let mut sequences = plan.sequences.clone();
    for (run, driven) in runs.iter().zip(&driven) {
        let given = &driven.tokens[..driven.tokens.len().saturating_sub(1)];
        let whole = [run.prompt, given].concat();
        sequences.extend((whole.len() <= MOST_MOVED).then(|| Sequence::of(&whole)));
    }
    let inner = Wanted { logits: false, layers: hidden_states };
    let moved = model.run(&sequences, inner, Numbers::Moved { seed: SEED }, &mut || course.tick())?;
    let mut recording = Recording::default();
    for planned in &plan.cases {
        planned.record(&plan, names, hidden_states, (&exact, &moved), &mut recording)?;
    }
    let mut forced = moved[plan.sequences.len()..].iter();
    for (at, (run, driven)) in runs.iter().zip(&driven).enumerate() {
        let name = if at == 0 { "greedy".to_owned() } else { format!("spoken_{}", at - 1) };
        let length = run.prompt.len() + driven.tokens.len();
        let forced = (length <= MOST_MOVED + 1).then(|| forced.next()).flatten();
        let last_bit = forced.map(|forced| {
            let chosen = &forced.likeliest[run.prompt.len() - 1..];
            let same = chosen.iter().zip(&driven.tokens).take_while(|(a, b)| a == b).count();
            let mut measured = Measured::default();
            measured.add(Metric::GreedyAgreement, same as f64 / driven.tokens.len().max(1) as f64);
            measured
        });
        let case = Case { name, kind: Kind::Greedy, batch: 1, length, prefill: 0, last_bit };
        let [ids, mask, positions] = inputs(&[Sequence::of(run.prompt)]);
        // A graph may call an input that; none has a dot in its name.
        let is_taken = [&names.ids, &names.mask, &names.positions].iter().any(|name| *name == "tokens");
        let tokens = if is_taken { "greedy.tokens" } else { "tokens" };
        let said = Tensor::from_i64(&[1, driven.tokens.len()], &driven.tokens);
        let given = [(&*names.ids, ids), (&*names.mask, mask), (&*names.positions, positions)];
        recording.add(case, given.into_iter().chain([(tokens, said)]));
    }
    course.finish();
    Ok(recording.finish())
}

/// A case of sequences that are given at once.
struct Planned {
    name: String,
    kind: Kind,
    prefill: usize,
    /// Of all sequences, the first and how many.
    first: usize,
    batch: usize,
}

/// Every sequence that is run, once, and the cases that are made of them.
struct Plan {
    sequences: Vec<Sequence>,
    cases: Vec<Planned>,
}

impl Plan {
    fn new(
        model: &dyn CausalInDouble,
        wanted: &CausalReferences,
        hidden_states: &[u32],
    ) -> Result<Self, Error> {
        let (vocabulary, positions) = (model.vocabulary(), model.positions());
        let steps = STEPS_PREFILL + wanted.steps as usize;
        let longest = wanted.prefills.iter().map(|&length| length as usize).max().unwrap_or(0);
        if longest.max(steps + 1) > positions {
            let longest = longest.max(steps + 1);
            return refuse(format!("`references`: {longest} positions, and the model has {positions}"));
        }
        if let Some(layer) = hidden_states.iter().find(|&&layer| layer as usize >= model.layers()) {
            return refuse(format!("`hidden_states`: layer {layer} of {}", model.layers()));
        }
        let mut plan = Self { sequences: Vec::new(), cases: Vec::new() };
        let mut add = |name: String, sequences: Vec<Sequence>| {
            let (first, batch) = (plan.sequences.len(), sequences.len());
            plan.cases.push(Planned { name, kind: Kind::Prefill, prefill: 0, first, batch });
            plan.sequences.extend(sequences);
        };
        let whole = |ids: Vec<Vec<i64>>| ids.iter().map(|ids| Sequence::of(ids)).collect();
        for &length in &wanted.prefills {
            add(format!("prefill_{length}"), whole(ids(1, length as usize, vocabulary, wanted.seed)));
        }
        let (batch, length) = (wanted.batch as usize, longest.clamp(4, 16));
        let rows = ids(batch, length, vocabulary, wanted.seed).into_iter().enumerate();
        let padded = |(row, ids): (usize, Vec<i64>)| {
            let hidden = if row == 0 { 0 } else { (length - 1).min(1 + row * length / (batch + 1)) };
            let positions = (0..length).map(|at| at.saturating_sub(hidden) as i64).collect();
            Sequence { ids, seen: (0..length).map(|at| at >= hidden).collect(), positions }
        };
        add(format!("padded_b{batch}_{length}"), rows.map(padded).collect());
        add("steps_at_once".to_owned(), whole(ids(1, steps, vocabulary, wanted.seed)));
        // The same ids one at a time, which come first.
        if let Some(at_once) = plan.cases.pop() {
            let name = "steps".to_owned();
            plan.cases.push(Planned { name, kind: Kind::Steps, prefill: STEPS_PREFILL, ..at_once });
            plan.cases.push(at_once);
        }
        Ok(plan)
    }
}

impl Planned {
    fn record(
        &self,
        plan: &Plan,
        names: &names::Causal,
        hidden_states: &[u32],
        (exact, moved): (&[CausalAnswer], &[CausalAnswer]),
        recording: &mut Recording,
    ) -> Result<(), Error> {
        let range = self.first..self.first + self.batch;
        let (sequences, exact, moved) =
            (&plan.sequences[range.clone()], &exact[range.clone()], &moved[range]);
        let length = sequences.first().map_or(0, |sequence| sequence.ids.len());
        let what = format!("case {}", self.name);
        let rows =
            |of: &dyn Fn(&CausalAnswer) -> Option<&ndarray::Array2<f64>>| -> Result<Tensor, Error> {
                let rows: Vec<_> = exact.iter().filter_map(of).collect();
                let channels = rows.first().map_or(0, |rows| rows.ncols());
                let values = rows.into_iter().flat_map(|rows| rows.iter().copied());
                rounded(&what, &[self.batch, length, channels], values)
            };
        let [ids, mask, positions] = inputs(sequences);
        let mut tensors = vec![
            (names.ids.clone(), ids),
            (names.mask.clone(), mask),
            (names.positions.clone(), positions),
            (names.logits.clone(), rows(&|answer| answer.logits.as_ref())?),
            (names.hidden.clone(), rows(&|answer| Some(&answer.hidden))?),
        ];
        let layers = if self.kind == Kind::Steps { &[] } else { hidden_states };
        for (at, layer) in layers.iter().enumerate() {
            let inner = rows(&|answer| answer.layers.get(at))?;
            tensors.push((format!("{}.{layer}", names.layers), inner));
        }
        let case = Case {
            name: self.name.clone(),
            kind: self.kind,
            batch: self.batch,
            length,
            prefill: self.prefill,
            last_bit: Some(distance(sequences, exact, moved, layers.len())),
        };
        recording.add(case, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())));
        Ok(())
    }
}

/// Part of an answer, row by row.
type Part = dyn Fn(&CausalAnswer) -> &ndarray::Array2<f64>;

/// How far the hidden states of what is not padding moved, and of how many positions the likeliest token stayed.
fn distance(
    sequences: &[Sequence],
    exact: &[CausalAnswer],
    moved: &[CausalAnswer],
    layers: usize,
) -> Measured {
    let mut measured = Measured::default();
    let mut outputs: Vec<Box<Part>> = vec![Box::new(|answer| &answer.hidden)];
    for at in 0..layers {
        outputs.push(Box::new(move |answer| &answer.layers[at]));
    }
    for output in outputs {
        let seen = |answers: &'_ [CausalAnswer]| -> Vec<f64> {
            let rows = sequences.iter().zip(answers).flat_map(|(sequence, answer)| {
                let rows = sequence.seen.iter().zip(output(answer).rows());
                rows.filter(|(seen, _)| **seen).flat_map(|(_, row)| row.to_vec()).collect::<Vec<_>>()
            });
            rows.collect()
        };
        Distance::between(&seen(exact), &seen(moved)).add_to(&mut measured, true);
    }
    let chosen =
        sequences.iter().zip(exact.iter().zip(moved)).flat_map(|(sequence, (exact, moved))| {
            let pairs = exact.likeliest.iter().zip(&moved.likeliest).zip(&sequence.seen);
            pairs.filter(|(_, seen)| **seen).map(|((a, b), _)| a == b)
        });
    let (same, all) =
        chosen.fold((0, 0), |(same, all), is_same| (same + usize::from(is_same), all + 1));
    measured.add(Metric::Top1Agreement, same as f64 / all.max(1) as f64);
    measured
}

/// Ids, mask and positions, i64 [batch, length] each.
fn inputs(sequences: &[Sequence]) -> [Tensor; 3] {
    let shape = [sequences.len(), sequences.first().map_or(0, |sequence| sequence.ids.len())];
    let of = |values: &dyn Fn(&Sequence) -> Vec<i64>| {
        Tensor::from_i64(&shape, &sequences.iter().flat_map(values).collect::<Vec<_>>())
    };
    [
        of(&|sequence| sequence.ids.clone()),
        of(&|sequence| sequence.seen.iter().map(|&seen| i64::from(seen)).collect()),
        of(&|sequence| sequence.positions.clone()),
    ]
}
