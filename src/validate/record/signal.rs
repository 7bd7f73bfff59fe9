//! References of a signal graph.

use super::drawn::{lifelike, moved};
use super::moved::Distance;
use super::{Course, MOST_MOVED, Recording, SEED, Watch, refuse, rounded};
use crate::front::float64::{Frames, Numbers, SignalAnswer, SignalInDouble};
use crate::names;
use crate::recipe::SignalReferences;
use crate::tensor::{Tensor, TensorFile};
use crate::validate::{Case, Error, Kind, Measured};

/// Lengths of extreme cases, beyond what the model's lead takes.
const EXTREME_LENGTHS: [usize; 2] = [5, 16];
/// How much louder than lifelike frames those of a loud case are.
const LOUD: f64 = 100.0;

/// A case on its way: rows of the list of all that are run.
struct Planned {
    name: String,
    kind: Kind,
    rows: Vec<usize>,
}

/// Every sequence that is run, once, and the cases that are made of them.
#[derive(Default)]
struct Plan {
    rows: Vec<Frames>,
    cases: Vec<Planned>,
}

impl Plan {
    /// A case of a single sequence.
    fn one(&mut self, name: impl Into<String>, kind: Kind, frames: Frames) {
        self.cases.push(Planned { name: name.into(), kind, rows: vec![self.rows.len()] });
        self.rows.push(frames);
    }

    fn length(&self, case: &Planned) -> usize {
        case.rows.first().map_or(0, |&row| self.rows[row].length)
    }
}

/// Records what a signal model answers: every length at every batch size, extremes, and spoken frames, if there are
/// any. Cases, names and distributions are those of `signals.py`; a batch's first row is that of a batch of one, and is
/// computed once. Frames are f32 [batch, channels, length], samples f32 [batch, samples].
///
/// # Errors
/// [`Error::Checkpoint`] for lengths that give no sample, frames of other channels, and answers that are not finite;
/// [`Error::Interrupted`].
pub fn signal(
    model: &dyn SignalInDouble,
    names: &names::Signal,
    wanted: &SignalReferences,
    spoken: &[Frames],
    watch: Watch<'_>,
) -> Result<TensorFile, Error> {
    let (lead, channels) = (model.lead(), model.channels());
    if let Some(short) = wanted.lengths.iter().find(|&&length| length as usize <= lead) {
        return refuse(format!("`references.lengths`: {short} frames give no sample"));
    }
    let mut course = Course::new(watch, 2 * model.ticks() + model.driven_ticks());
    let plan = plan(model, wanted, spoken, &mut course)?;
    let exact = model.run(&plan.rows, Numbers::Exact, &mut || course.tick())?;
    let moved = moved_answers(model, &plan, &mut course)?;
    let mut recording = Recording::default();
    for case in &plan.cases {
        let (batch, length) = (case.rows.len(), plan.length(case));
        let samples = |answers: &[SignalAnswer]| -> Vec<f64> {
            case.rows.iter().flat_map(|&row| answers[row].samples.iter().copied()).collect()
        };
        let answer = samples(&exact);
        let last_bit = moves(case, &plan).then(|| {
            let mut measured = Measured::default();
            let of = |row: &usize| moved[*row].iter().flat_map(|answer| answer.samples.iter());
            let moved: Vec<&f64> = case.rows.iter().flat_map(of).collect();
            Distance::between(&answer, moved).add_to(&mut measured, false);
            measured
        });
        let frames = case.rows.iter().flat_map(|&row| plan.rows[row].values.iter().map(|&x| x as f32));
        let frames: Vec<f32> = frames.collect();
        let shape = [batch, answer.len() / batch.max(1)];
        let tensors = [
            (names.frames.as_str(), Tensor::from_f32(&[batch, channels, length], &frames)),
            (names.samples.as_str(), rounded(&format!("case {}", case.name), &shape, answer)?),
        ];
        let (name, kind) = (case.name.clone(), case.kind);
        recording.add(Case { name, batch, length, kind, prefill: 0, last_bit }, tensors);
    }
    course.finish();
    Ok(recording.finish())
}

/// The inputs to record, shortest first within each batch size.
fn plan(
    model: &dyn SignalInDouble,
    wanted: &SignalReferences,
    spoken: &[Frames],
    course: &mut Course<'_>,
) -> Result<Plan, Error> {
    let (channels, seed) = (model.channels(), wanted.seed);
    let more = model.lead().saturating_sub(1);
    let mut plan = Plan::default();
    let most = wanted.batches.iter().copied().max().unwrap_or(0) as usize;
    for &length in &wanted.lengths {
        plan.rows.extend((0..most).map(|row| lifelike(channels, length as usize, row, seed)));
    }
    for &batch in &wanted.batches {
        for (at, length) in wanted.lengths.iter().enumerate() {
            let name = format!("b{batch}_t{length}");
            let rows = (at * most..).take(batch as usize).collect();
            plan.cases.push(Planned { name, kind: Kind::Realistic, rows });
        }
    }
    if wanted.extreme {
        let starts = EXTREME_LENGTHS.map(|length| lifelike(channels, length + more, 0, seed));
        let driven = model.driven(&starts, &mut || course.tick())?;
        for (at, start) in starts.iter().enumerate() {
            let length = start.length;
            for (name, frames) in &driven {
                plan.one(format!("{name}_t{length}"), Kind::Extreme, floats(&frames[at], 1.0));
            }
            plan.one(format!("loud_t{length}"), Kind::Extreme, floats(start, LOUD));
        }
        let least = 3 + more;
        let zeros = Frames { length: least, values: vec![0.0; channels * least] };
        plan.one(format!("zeros_t{least}"), Kind::Extreme, zeros);
    }
    for (at, frames) in spoken.iter().enumerate() {
        plan.one(format!("spoken_{at}"), Kind::Spoken, floats(frames, 1.0));
    }
    Ok(plan)
}

/// Frames times a factor, in f32's numbers.
fn floats(frames: &Frames, factor: f64) -> Frames {
    let values = frames.values.iter().map(|value| f64::from((factor * value) as f32)).collect();
    Frames { length: frames.length, values }
}

/// Whether it is measured how far a last bit moves a case.
fn moves(case: &Planned, plan: &Plan) -> bool {
    case.rows.len() * plan.length(case) <= MOST_MOVED
}

/// What the model answers to the sequences of cases that are to be moved, by sequence.
fn moved_answers(
    model: &dyn SignalInDouble,
    plan: &Plan,
    course: &mut Course<'_>,
) -> Result<Vec<Option<SignalAnswer>>, Error> {
    let realistic = plan.cases.iter().filter(|case| case.kind == Kind::Realistic);
    let values = realistic.flat_map(|case| &case.rows).flat_map(|&row| &plan.rows[row].values);
    let scale = values.fold(0.0_f64, |most, value| most.max(value.abs()));
    let cases = plan.cases.iter().filter(|case| moves(case, plan));
    let mut rows: Vec<usize> = cases.flat_map(|case| case.rows.iter().copied()).collect();
    rows.sort_unstable();
    rows.dedup();
    let frames = rows.iter().map(|&row| moved(&plan.rows[row], &format!("frames {row}"), scale, SEED));
    let answers =
        model.run(&frames.collect::<Vec<_>>(), Numbers::Moved { seed: SEED }, &mut || course.tick())?;
    let mut moved = vec![None; plan.rows.len()];
    rows.into_iter().zip(answers).for_each(|(row, answer)| moved[row] = Some(answer));
    Ok(moved)
}
