//! What each node costs in 8 bits, and which should have more.
//!
//! Each node in turn is stored in 8 bits, and the damage at the output measured. Damages are assumed to add up as
//! powers (independent errors); the resulting choice is measured as a whole, tightened until it reaches the target,
//! and then relaxed node by node for as long as it does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::{Case, Error, Judge, Metric, References, Tolerance};
use crate::interface::{Interface, Signature};
use crate::ir::{Model, TestGraph, initializer_f32, node};
use crate::names::Ports;
use crate::quantize::{self, Candidate, Options};
use crate::recipe::Terms;
use crate::runtime::{Runtime, Tensors};
use crate::tensor::Tensor;

/// The damage at the output where one node is in 8 bits and all others are fp32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Damage {
    /// Signal-to-noise ratio of hidden states or audio against PyTorch's, over all cases.
    pub snr_db: f64,
    /// Log-spectral distance of audio in decibels, the largest of any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_spectral_distance_db: Option<f64>,
}

/// Milliseconds of a product alone, on one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Milliseconds {
    /// In fp32.
    pub fp32: f64,
    /// In 8 bits, activations in one term.
    pub one: f64,
    /// In 8 bits, activations in two terms.
    pub two: f64,
}

/// What one node costs in 8 bits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// Its name.
    pub node: String,
    /// Rows and columns of its weight.
    pub shape: [usize; 2],
    /// Whether it is a product; otherwise it reads a table.
    pub product: bool,
    /// Bytes that 8 bits save.
    pub bytes_saved: u64,
    /// With activations in one term; a table has none, and one form.
    pub one: Damage,
    /// With activations in two terms.
    pub two: Damage,
    /// How long it takes.
    pub milliseconds: Milliseconds,
}

/// Nodes that get more than one term, and what that reaches.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Choice {
    /// Activations in two terms.
    pub two_terms: Vec<String>,
    /// Not in 8 bits at all.
    pub keep_fp32: Vec<String>,
    /// Products that are in 8 bits.
    pub products: usize,
    /// What the whole model reaches so, measured.
    pub snr_db: f64,
    /// Milliseconds that it costs over one term everywhere, as measured of the products alone.
    pub milliseconds: f64,
    /// Bytes that it costs over 8 bits everywhere.
    pub bytes: u64,
}

/// Runs references that are one call, through any version of a model.
struct Bench<'a> {
    judge: Judge,
    cases: Vec<&'a Case>,
    references: &'a References,
    runtime: &'a dyn Runtime,
}

/// Longer ones add time, not knowledge.
const LONGEST: usize = 128;

impl<'a> Bench<'a> {
    fn new(
        model: &Model,
        ports: &Ports,
        references: &'a References,
        runtime: &'a dyn Runtime,
    ) -> Result<Self, Error> {
        let judge = Judge(Interface::bind(ports, &Signature::from(model))?);
        let fits = |case: &&Case| case.is_one_call() && case.length <= LONGEST && case.batch == 1;
        let mut cases: Vec<&Case> = references.cases.iter().filter(fits).collect();
        cases.sort_by_key(|case| std::cmp::Reverse(case.length));
        cases.truncate(3);
        if cases.is_empty() {
            return Err(Error::NothingToMeasure("no reference is one call of batch 1"));
        }
        Ok(Self { judge, cases, references, runtime })
    }

    fn damage(&self, model: &Model) -> Result<Damage, Error> {
        let session = self.runtime.load_bytes(&model.to_bytes())?;
        let (mut noise, mut values, mut distance) = (0.0, 0.0, None::<f64>);
        for case in &self.cases {
            let result =
                self.judge.case(case, self.references, session.as_ref(), &Tolerance::default())?;
            let snr = result.measured.get(Metric::SnrDb).unwrap_or(f64::NAN);
            noise += case.length as f64 * 10f64.powf(-snr / 10.0);
            values += case.length as f64;
            if let Some(found) = result.measured.get(Metric::LogSpectralDistanceDb) {
                distance = Some(distance.map_or(found, |d| d.max(found)));
            }
        }
        Ok(Damage { snr_db: decibels(noise / values), log_spectral_distance_db: distance })
    }
}

fn decibels(noise: f64) -> f64 {
    -10.0 * noise.log10()
}

fn power(snr_db: f64) -> f64 {
    10f64.powf(-snr_db / 10.0)
}

/// How nodes are tried in 8 bits.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Rows of an activation when products are timed: 1 for a language model's step, four for each token of a decoder.
    pub rows: usize,
    /// As in [`Options`].
    pub reduce_range: bool,
}

/// Measures every node that can be held in 8 bits.
///
/// # Errors
/// [`Error::Interface`], [`Error::Runtime`], [`Error::Quantize`], [`Error::NothingToMeasure`],
/// [`Error::Interrupted`].
pub fn measure(
    model: &Model,
    ports: &Ports,
    references: &References,
    runtime: &dyn Runtime,
    Trial { rows, reduce_range }: Trial,
    interrupted: &AtomicBool,
    done: &dyn Fn(usize, usize),
) -> Result<Vec<Sensitivity>, Error> {
    let base = base(reduce_range);
    let bench = Bench::new(model, ports, references, runtime)?;
    let candidates = quantize::candidates(model)?;
    let mut timed = BTreeMap::new();
    let mut sensitivities = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        done(at, candidates.len());
        let others = candidates.iter().filter(|other| other.node != candidate.node);
        let keep_fp32: Vec<String> = others.map(|other| other.node.clone()).collect();
        let damage = |terms: Terms| {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let mut changed = model.clone();
            let keep_fp32 = keep_fp32.clone();
            let options = Options { terms, keep_fp32, ..base.clone() };
            quantize::quantize_any(&mut changed, &options)?;
            bench.damage(&changed)
        };
        let one = damage(Terms::One)?;
        let two = if candidate.product { damage(Terms::Two)? } else { one };
        let milliseconds = match timed.get(&candidate.shape) {
            _ if !candidate.product => Milliseconds::default(),
            Some(known) => *known,
            None => {
                let measured = time(candidate, rows, &base, runtime)?;
                *timed.entry(candidate.shape).or_insert(measured)
            }
        };
        let [height, width] = candidate.shape;
        sensitivities.push(Sensitivity {
            node: candidate.node.clone(),
            shape: candidate.shape,
            product: candidate.product,
            bytes_saved: 3 * (height * width) as u64,
            one,
            two,
            milliseconds,
        });
    }
    done(candidates.len(), candidates.len());
    Ok(sensitivities)
}

/// What every form that is tried has in common.
fn base(reduce_range: bool) -> Options {
    Options { reduce_range, ..Options::default() }
}

/// Times one product alone in its three forms.
fn time(
    candidate: &Candidate,
    rows: usize,
    base: &Options,
    runtime: &dyn Runtime,
) -> Result<Milliseconds, Error> {
    const ROUNDS: usize = 20;
    let [height, width] = candidate.shape;
    let weight: Vec<f32> =
        (0..height * width).map(|at| ((at as f32 * 0.618).fract() - 0.5) / 8.0).collect();
    let fp32 = TestGraph::new()
        .input("x", &["batch", "rows", &height.to_string()])
        .initializer(initializer_f32("w", &[height, width], &weight))
        .node(node("MatMul", ["x", "w"], "y").named("product"))
        .output("y", &["batch", "rows", &width.to_string()])
        .model();
    let x: Vec<f32> = (0..rows * height).map(|at| (at as f32 * 0.382).fract() - 0.5).collect();
    let inputs = Tensors::from([("x".to_owned(), Tensor::from_f32(&[1, rows, height], &x))]);
    let mut sessions = vec![runtime.load_bytes(&fp32.to_bytes())?];
    for terms in [Terms::One, Terms::Two] {
        let mut changed = fp32.clone();
        quantize::quantize(&mut changed, &Options { terms, ..base.clone() })?;
        sessions.push(runtime.load_bytes(&changed.to_bytes())?);
    }
    let mut least = [f64::INFINITY; 3];
    for _ in 0..ROUNDS {
        for (session, least) in sessions.iter().zip(&mut least) {
            *least = least.min(1e3 * session.seconds(&inputs)?);
        }
    }
    let [fp32, one, two] = least;
    Ok(Milliseconds { fp32, one, two })
}

/// What a node is held in.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    One,
    Two,
    Fp32,
}

impl Form {
    /// The next that is cheaper; a table has one form in 8 bits.
    fn lower(self, node: &Sensitivity) -> Option<Self> {
        match self {
            Form::Fp32 if node.product => Some(Form::Two),
            Form::Fp32 | Form::Two => Some(Form::One),
            Form::One => None,
        }
    }

    fn noise(self, node: &Sensitivity) -> f64 {
        match self {
            Form::One => power(node.one.snr_db),
            Form::Two => power(node.two.snr_db),
            Form::Fp32 => 0.0,
        }
    }

    /// Milliseconds, or where nothing was timed (a table) bytes read for a row: next to nothing.
    fn cost(self, node: &Sensitivity) -> f64 {
        let ms = node.milliseconds;
        match self {
            Form::One => ms.one,
            Form::Two => ms.two,
            Form::Fp32 => ms.fp32,
        }
    }
}

/// The cheapest forms whose noise adds up to the target: from one term everywhere, repeatedly the change that removes
/// most noise for its milliseconds.
fn cheapest(nodes: &[Sensitivity], snr_db: f64) -> Vec<Form> {
    let mut forms = vec![Form::One; nodes.len()];
    let total = |forms: &[Form]| forms.iter().zip(nodes).map(|(f, n)| f.noise(n)).sum::<f64>();
    while total(&forms) > power(snr_db) {
        let changes = nodes.iter().zip(&forms).enumerate().flat_map(|(at, (node, &now))| {
            [Form::Two, Form::Fp32].into_iter().filter(move |&then| then != now).map(move |then| {
                let gained = now.noise(node) - then.noise(node);
                let paid = (then.cost(node) - now.cost(node)).max(1e-4);
                (at, then, gained, gained / paid)
            })
        });
        let best = changes.filter(|change| change.2 > 0.0).max_by(|a, b| a.3.total_cmp(&b.3));
        match best {
            Some((at, then, _, _)) => forms[at] = then,
            None => break,
        }
    }
    forms
}

/// Lowers nodes from fp32 to two terms and from two to one while the whole, `measure_whole` each time, reaches the target:
/// noises don't quite add up, so the sum may have asked for too much. What saves most time for its noise comes first,
/// each step once. Returns the ratio that the whole reaches.
fn lower<E>(
    nodes: &[Sensitivity],
    forms: &mut [Form],
    (snr_db, mut reached): (f64, f64),
    measure_whole: &mut dyn FnMut(&[Form]) -> Result<f64, E>,
) -> Result<f64, E> {
    let mut failed = vec![false; nodes.len()];
    loop {
        let steps = nodes.iter().zip(forms.iter()).enumerate().filter(|(at, _)| !failed[*at]);
        let steps = steps.filter_map(|(at, (node, &now))| {
            let then = now.lower(node)?;
            let saved = (now.cost(node) - then.cost(node)).max(1e-4);
            let added = (then.noise(node) - now.noise(node)).max(f64::MIN_POSITIVE);
            Some((at, then, saved / added))
        });
        let Some((at, then, _)) = steps.max_by(|a, b| a.2.total_cmp(&b.2)) else { return Ok(reached) };
        let now = std::mem::replace(&mut forms[at], then);
        match measure_whole(forms)? {
            ratio if ratio >= snr_db => reached = ratio,
            _ => {
                forms[at] = now;
                failed[at] = true;
            }
        }
    }
}

/// Chooses what each node is held in so that the whole reaches a signal-to-noise ratio at the least cost,
/// and measures the whole; `done` is told how many models were measured, of how many at most. What can't be
/// reached is in fp32 altogether.
///
/// # Errors
/// As [`measure`].
#[allow(clippy::too_many_arguments)]
pub fn choose(
    model: &Model,
    ports: &Ports,
    references: &References,
    runtime: &dyn Runtime,
    nodes: &[Sensitivity],
    (snr_db, reduce_range): (f64, bool),
    interrupted: &AtomicBool,
    done: &dyn Fn(usize, usize),
) -> Result<Choice, Error> {
    const TRIES: usize = 6;
    let bench = Bench::new(model, ports, references, runtime)?;
    let nodes_in = |forms: &[Form], form: Form| -> Vec<String> {
        let of = nodes.iter().zip(forms).filter(|(_, f)| **f == form);
        of.map(|(node, _)| node.node.clone()).collect()
    };
    let most = TRIES + 1 + 2 * nodes.len();
    let mut count = 0;
    let mut measure_whole = |forms: &[Form]| {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        done(count, most);
        count += 1;
        let options = Options {
            terms: Terms::One,
            two_terms: nodes_in(forms, Form::Two),
            keep_fp32: nodes_in(forms, Form::Fp32),
            ..base(reduce_range)
        };
        let mut changed = model.clone();
        quantize::quantize_any(&mut changed, &options)?;
        Ok(bench.damage(&changed)?.snr_db)
    };
    let mut aim = snr_db;
    let mut forms = Vec::new();
    let mut reached = f64::NAN;
    for _ in 0..TRIES {
        forms = cheapest(nodes, aim);
        reached = measure_whole(&forms)?;
        if reached >= snr_db || forms.iter().all(|form| *form == Form::Fp32) {
            break;
        }
        aim += (snr_db - reached).max(0.05);
    }
    if !(reached >= snr_db || forms.iter().all(|form| *form == Form::Fp32)) {
        forms.fill(Form::Fp32);
        reached = measure_whole(&forms)?;
    }
    if reached >= snr_db {
        reached = lower(nodes, &mut forms, (snr_db, reached), &mut measure_whole)?;
    }
    done(most, most);
    let pairs = || nodes.iter().zip(&forms);
    Ok(Choice {
        two_terms: nodes_in(&forms, Form::Two),
        keep_fp32: nodes_in(&forms, Form::Fp32),
        products: pairs().filter(|(node, form)| node.product && **form != Form::Fp32).count(),
        snr_db: reached,
        milliseconds: pairs().map(|(n, f)| f.cost(n) - Form::One.cost(n)).sum(),
        bytes: pairs().filter(|(_, f)| **f == Form::Fp32).map(|(n, _)| n.bytes_saved).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, one: f64, two: f64, [fp32_ms, one_ms, two_ms]: [f64; 3]) -> Sensitivity {
        let damage = |snr_db| Damage { snr_db, log_spectral_distance_db: None };
        Sensitivity {
            node: name.to_owned(),
            shape: [64, 64],
            product: true,
            bytes_saved: 12288,
            one: damage(one),
            two: damage(two),
            milliseconds: Milliseconds { fp32: fp32_ms, one: one_ms, two: two_ms },
        }
    }

    #[test]
    fn noise_is_bought_off_where_it_costs_least() {
        let nodes = [
            node("loud", 20.0, 30.0, [4.0, 1.0, 1.1]),
            node("quiet", 40.0, 41.0, [4.0, 1.0, 1.1]),
            node("weights", 25.0, 25.1, [1.2, 1.0, 2.0]),
        ];
        let forms = |snr: f64| {
            let letter = |form: &Form| match form {
                Form::One => '1',
                Form::Two => '2',
                Form::Fp32 => 'f',
            };
            cheapest(&nodes, snr).iter().map(letter).collect::<String>()
        };
        assert_eq!(forms(15.0), "111");
        assert_eq!(forms(23.0), "211", "two terms are cheap where activations are what hurts");
        assert_eq!(forms(28.0), "21f", "fp32 where the weights are");
        assert_eq!(forms(500.0), "fff", "what can't be reached keeps everything");
    }

    /// What a whole reaches whose noises add up to so much of their sum.
    fn whole<'a>(
        nodes: &'a [Sensitivity],
        share: f64,
        count: &'a mut usize,
    ) -> impl FnMut(&[Form]) -> Result<f64, ()> + 'a {
        move |forms| {
            *count += 1;
            Ok(decibels(share * forms.iter().zip(nodes).map(|(f, n)| f.noise(n)).sum::<f64>() + 1e-11))
        }
    }

    #[test]
    fn what_the_sum_asked_for_and_the_whole_does_not_is_lowered_again() {
        let mut nodes: Vec<Sensitivity> = (0..10)
            .map(|at| node("n", 30.0 + f64::from(at), 43.0 + f64::from(at), [2.0, 1.0, 1.5]))
            .collect();
        // In two terms no better than in one: its activations are not what hurts.
        nodes[9] = node("weights", 42.0, 42.0, [2.0, 1.0, 1.5]);
        for (share, from) in [(1.0, Form::Fp32), (0.01, Form::Fp32), (0.01, Form::Two)] {
            let mut forms = vec![from; nodes.len()];
            let mut count = 0;
            let reached =
                lower(&nodes, &mut forms, (40.0, 110.0), &mut whole(&nodes, share, &mut count))
                    .unwrap();
            assert!(count <= 2 * nodes.len(), "{count} models were measured");
            assert!(forms.iter().any(|form| *form != Form::Fp32));
            let mut measure = whole(&nodes, share, &mut count);
            assert!(measure(&forms).unwrap() == reached && reached >= 40.0);
            for at in 0..nodes.len() {
                let Some(then) = forms[at].lower(&nodes[at]) else { continue };
                let mut further = forms.clone();
                further[at] = then;
                assert!(measure(&further).unwrap() < 40.0, "node {at} can be lowered further");
            }
        }
    }

    #[test]
    fn nothing_is_lowered_where_anything_is_too_much() {
        let nodes = [node("a", 10.0, 20.0, [2.0, 1.0, 1.5]), node("b", 10.0, 20.0, [2.0, 1.0, 1.5])];
        let mut forms = vec![Form::Fp32; 2];
        let mut count = 0;
        let reached =
            lower(&nodes, &mut forms, (40.0, 110.0), &mut whole(&nodes, 1.0, &mut count)).unwrap();
        assert!(forms.iter().all(|form| *form == Form::Fp32) && reached == 110.0 && count == 2);
    }
}
