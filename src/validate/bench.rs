//! How fast a bundle's models are on this machine, and what speech costs with them: measurement and arithmetic.

mod estimate;
mod fresh;
mod gate;
mod rate;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::hardware::Machine;
use crate::interface::{Call, Interface};
use crate::names::{Precision, Role};
use crate::runtime::{Runtime, Session, Tensors};

pub use estimate::{Curve, Estimate, Rendition, Whole, best, whole};
pub use fresh::{Fresh, fresh, peak_memory_bytes};
pub use gate::{Demand, USUAL_TEXT, demands, gate};
pub use rate::{SpeakingRate, TextUnits};

/// The decode step whose time stands for a causal graph's where one figure must.
pub const USUAL_STEP: Call = Call::Step { past: 256, batch: 1 };
/// The call whose time stands for a signal graph's.
pub const USUAL_FRAMES: Call = Call::Frames { frames: 32, batch: 1 };

/// What is timed of a graph; `quick` leaves batches out.
pub fn calls(role: Role, quick: bool) -> Vec<Call> {
    const BATCHES: [usize; 3] = [1, 4, 16];
    let batches = if quick { &BATCHES[..1] } else { &BATCHES[..] };
    match role {
        Role::Causal => {
            let steps = [0, 64, 256, 512].map(|past| Call::Step { past, batch: 1 });
            let batched = batches[1..].iter().map(|&batch| Call::Step { past: 256, batch });
            let prefills = [32, 128].map(|tokens| Call::Prefill { tokens });
            steps.into_iter().chain(batched).chain(prefills).collect()
        }
        Role::Signal => {
            let of = |frames| batches.iter().map(move |&batch| Call::Frames { frames, batch });
            [8, 32, 128].into_iter().flat_map(of).collect()
        }
    }
}

/// Seconds of one call, in a conversation of its own; a graph that keeps its cache itself fills it first, untimed.
fn seconds(
    graph: &Interface,
    call: Call,
    session: &dyn Session,
    inputs: &Tensors,
) -> Result<f64, Error> {
    let mut conversation = session.begin(&[])?;
    if let (Some(graph), Call::Step { past: past @ 1.., batch }) =
        (graph.causal().filter(|graph| graph.is_stateful()), call)
    {
        conversation.run(&graph.prompt(batch, past))?;
    }
    Ok(conversation.seconds(inputs)?)
}

/// The inputs of a call of this graph.
fn inputs(graph: &Interface, call: Call) -> Result<Tensors, Error> {
    graph.feed(call).ok_or(Error::NothingToMeasure("a call of another role can't be timed"))
}

/// The median of several runs, and the least and greatest of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the runs took no longer.
    pub median: f64,
    /// The fastest run.
    pub least: f64,
    /// The slowest run.
    pub greatest: f64,
    /// How many runs there were.
    pub runs: usize,
}

impl Spread {
    /// Of at least one value; of several in any order.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        };
        Some(Self { median, least, greatest, runs: sorted.len() })
    }

    /// Of one run.
    pub fn once(value: f64) -> Self {
        Self { median: value, least: value, greatest: value, runs: 1 }
    }

    /// The same figures in another unit.
    pub fn times(self, factor: f64) -> Self {
        let Self { median, least, greatest, runs } = self;
        Self { median: median * factor, least: least * factor, greatest: greatest * factor, runs }
    }
}

/// A point, and the milliseconds of one call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was timed.
    #[serde(flatten)]
    pub point: Call,
    /// Milliseconds of one call.
    pub ms: Spread,
}

/// A file in a runtime, with what was measured of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The graph's name.
    pub graph: String,
    /// The graph's role.
    pub role: Role,
    /// How the file holds numbers.
    pub precision: Precision,
    /// The file inside the bundle; none for PyTorch, which runs the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Size of the file with its weights; none for PyTorch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The runtime, with its version.
    pub runtime: String,
    /// What processes of its own showed.
    pub fresh: Fresh,
    /// What calls in turn with all others took.
    pub figures: Vec<Figure>,
}

impl Row {
    /// Milliseconds at a point.
    pub fn at(&self, point: Call) -> Option<Spread> {
        self.figures.iter().find(|figure| figure.point == point).map(|figure| figure.ms)
    }

    /// The variant and its runtime, for people: `lm int8 in onnxruntime 1.23.0`.
    pub fn name(&self) -> String {
        format!("{} {} in {}", self.graph, self.precision, self.runtime)
    }
}

/// All that was measured of a bundle, and what follows from it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The bundle's name.
    pub name: String,
    /// What everything ran on.
    pub machine: Machine,
    /// Threads of every runtime but tract, which has one.
    pub threads: usize,
    /// Rounds in which subjects took turns.
    pub rounds: usize,
    /// How tokens become sound.
    pub rendition: Rendition,
    /// Every file in every runtime.
    pub rows: Vec<Row>,
    /// What texts take.
    pub whole: Vec<Whole>,
    /// The place in [`Report::whole`] of what is fastest at [`USUAL_TEXT`] characters.
    pub best: Option<usize>,
    /// What was not measured, and why.
    pub left_out: Vec<String>,
    /// The recipe's demands, where they were asked about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gate: Vec<Demand>,
}

/// Lengths of the texts that are estimated, in characters.
pub const TEXTS: [usize; 4] = [50, 100, USUAL_TEXT, 500];

impl Report {
    /// The names of the graphs, in the order of their rows.
    pub fn graphs(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.graph.as_str()) {
                names.push(&row.graph);
            }
        }
        names
    }

    /// Milliseconds of a row at a point: of one call, or for each second of sound where one has a length.
    pub fn ms(&self, row: &Row, point: Call) -> Option<Spread> {
        let calls = match point {
            Call::Frames { frames, batch } if self.rendition.is_timed() => {
                self.rendition.seconds(frames) * batch as f64
            }
            _ => 1.0,
        };
        row.at(point).map(|ms| ms.times(1.0 / calls))
    }

    /// A whole voice's name: the variant and runtime of each graph.
    pub fn voice(&self, whole: &Whole) -> String {
        let names = whole.rows.iter().filter_map(|&at| self.rows.get(at)).map(Row::name);
        names.collect::<Vec<_>>().join(" + ")
    }

    /// Voices worth showing, fastest first: the best, those of one precision in one runtime, and PyTorch's.
    pub fn voices(&self) -> Vec<&Whole> {
        let alike = |whole: &Whole| {
            let mut rows = whole.rows.iter().filter_map(|&at| self.rows.get(at));
            let first = rows.next();
            first.is_none_or(|first| {
                rows.all(|row| row.precision == first.precision && row.runtime == first.runtime)
            })
        };
        let shown = |at: &usize| self.best == Some(*at) || alike(&self.whole[*at]);
        let mut voices: Vec<&Whole> =
            (0..self.whole.len()).filter(shown).map(|at| &self.whole[at]).collect();
        let factor = |whole: &Whole| whole.realtime_factor(USUAL_TEXT).unwrap_or(0.0);
        voices.sort_by(|a, b| factor(b).total_cmp(&factor(a)));
        voices
    }
}

/// A file and the runtime that it is to be timed in.
pub struct Subject<'a> {
    /// Where the file lies.
    pub path: PathBuf,
    /// The graph.
    pub interface: &'a Interface,
    /// What runs it.
    pub runtime: &'a dyn Runtime,
}

/// How long a runtime's threads may spin after a call, as ONNX Runtime's do, and take cores from what is timed next.
const PAUSE: Duration = Duration::from_millis(60);
/// A visit repeats short calls until this much time has gone.
const VISIT: Duration = Duration::from_millis(40);
const CALLS: usize = 5;
/// Once the calls of one subject at one point have taken so long, [`FEWEST`] rounds are enough.
const BUDGET: Duration = Duration::from_secs(6);
const FEWEST: usize = 3;

/// Milliseconds of every subject at every point. Subjects take turns, round by round, so that whatever
/// else the machine does meets all of them alike; a subject's first call of a visit is not counted, the
/// median of those after it is that round's figure.
///
/// # Errors
/// [`Error::Runtime`] where a model can't be loaded or run, [`Error::Interrupted`].
pub fn measure(
    subjects: &[Subject<'_>],
    points: &[Call],
    rounds: usize,
    interrupted: &AtomicBool,
    done: &dyn Fn(usize, usize),
) -> Result<Vec<Vec<Figure>>, Error> {
    let load = |subject: &Subject<'_>| subject.runtime.load(&subject.path);
    let sessions = subjects.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let mut figures = vec![Vec::new(); subjects.len()];
    for (at, &point) in points.iter().enumerate() {
        let mut took = vec![Vec::new(); subjects.len()];
        let mut spent = vec![Duration::ZERO; subjects.len()];
        for round in 0..rounds.max(1) {
            for (who, (subject, session)) in subjects.iter().zip(&sessions).enumerate() {
                if interrupted.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                if round >= FEWEST && spent[who] > BUDGET {
                    continue;
                }
                if subjects.len() > 1 {
                    std::thread::sleep(PAUSE);
                }
                let start = Instant::now();
                took[who].extend(visit(subject.interface, point, session.as_ref())?);
                spent[who] += start.elapsed();
            }
            done(at * rounds + round + 1, points.len() * rounds);
        }
        for (figures, took) in figures.iter_mut().zip(&took) {
            figures.extend(Spread::of(took).map(|ms| Figure { point, ms }));
        }
    }
    Ok(figures)
}

/// The figure of one round: milliseconds.
fn visit(graph: &Interface, point: Call, session: &dyn Session) -> Result<Option<f64>, Error> {
    let inputs = inputs(graph, point)?;
    let call = || seconds(graph, point, session, &inputs).map(|seconds| 1e3 * seconds);
    call()?;
    let start = Instant::now();
    let mut took = vec![call()?];
    while took.len() < CALLS && start.elapsed() < VISIT {
        took.push(call()?);
    }
    Ok(Spread::of(&took).map(|spread| spread.median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.greatest, spread.runs), (2.5, 1.0, 4.0, 4));
        assert_eq!(Spread::of(&[7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(spread.times(2.0).greatest, 8.0);
    }

    #[test]
    fn every_role_is_timed_at_its_usual_point_and_each_point_once() {
        for quick in [false, true] {
            for (role, usual) in [(Role::Causal, USUAL_STEP), (Role::Signal, USUAL_FRAMES)] {
                let points = calls(role, quick);
                assert!(points.contains(&usual));
                for (at, point) in points.iter().enumerate() {
                    assert!(!points[..at].contains(point), "{point:?} twice");
                }
            }
        }
        assert_eq!(calls(Role::Signal, false).len(), 9);
        assert_eq!(calls(Role::Causal, false).len(), 8);
    }
}
