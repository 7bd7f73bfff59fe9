use super::align::{Delay, Pair, WINDOW};
use super::{LEAD, MARGIN, STEP};

const STEP_SAMPLES: i64 = STEP as i64;
const MARGIN_STEPS: i64 = MARGIN as i64;
/// Shortest utterance, in steps: 200 ms.
const SHORTEST: i64 = 50;
/// Shortest speech that is tried in two parts, in steps.
const SHORTEST_SPLIT: i64 = 200;
/// No more splits once there are so many utterances.
const MOST: usize = 50;
/// Points at which a split is tried.
const POINTS: usize = 40;

/// A stretch of the reference, and where the degraded signal has it.
#[derive(Clone, Debug)]
pub(super) struct Utterance {
    /// First step.
    pub start: i64,
    /// The step after its last.
    pub end: i64,
    /// By how many samples the degraded signal is late.
    pub delay: i64,
    /// The delay that envelopes give, in whole steps.
    coarse: i64,
    confidence: f64,
}

/// The utterances of the reference, which cover all of it, and their delays; none where it has no
/// speech of at least 200 ms that the degraded signal could hold.
pub(super) fn locate(pair: &Pair) -> Vec<Utterance> {
    let steps = pair.steps();
    let whole = pair.coarse_delay(0..steps, 0);
    let earliest = SHORTEST - whole / STEP_SAMPLES;
    let latest = (pair.samples() - whole) / STEP_SAMPLES - SHORTEST;
    let stretches = pair.activity.stretches().into_iter().map(|s| s.start as i64..s.end as i64);
    let heard =
        stretches.filter(|s| s.end - s.start >= SHORTEST && s.start < latest && s.end > earliest);
    let aligned = heard.map(|stretch| {
        let search = (stretch.start - MARGIN_STEPS).max(0)..(stretch.end + MARGIN_STEPS).min(steps - 1);
        let coarse = pair.coarse_delay(search.clone(), whole);
        let Delay { samples: delay, confidence } = pair.forward(search.start, &[search.end], coarse)[0];
        Utterance { start: stretch.start, end: stretch.end, delay, coarse, confidence }
    });
    let mut utterances: Vec<_> = aligned.collect();
    cover(&mut utterances, steps);
    part(&mut utterances, pair.samples());
    let mut at = 0;
    while at < utterances.len() && utterances.len() < MOST {
        match split(&utterances[at], pair) {
            Some(halves) => drop(utterances.splice(at..=at, halves)),
            None => at += 1,
        }
    }
    utterances
}

/// Lets utterances meet in the middle of the pauses between them.
fn cover(utterances: &mut [Utterance], steps: i64) {
    let Some(last) = utterances.len().checked_sub(1) else { return };
    utterances[0].start = MARGIN_STEPS;
    utterances[last].end = steps - MARGIN_STEPS;
    for i in 1..utterances.len() {
        let middle = (utterances[i].start + utterances[i - 1].end) / 2;
        (utterances[i].start, utterances[i - 1].end) = (middle, middle);
    }
}

/// Takes from utterances what lies beyond the degraded signal, or would be used twice of it.
fn part(utterances: &mut [Utterance], samples: i64) {
    let Some(last) = utterances.len().checked_sub(1) else { return };
    utterances[0].start_within();
    utterances[last].end_within(samples);
    for i in 1..utterances.len() {
        let start = utterances[i].start * STEP_SAMPLES + utterances[i].delay;
        let end = utterances[i - 1].end * STEP_SAMPLES + utterances[i - 1].delay;
        if start < end {
            let middle = (start + end) / 2;
            utterances[i].start = (middle - utterances[i].delay + STEP_SAMPLES - 1) / STEP_SAMPLES;
            utterances[i - 1].end = (middle - utterances[i - 1].delay) / STEP_SAMPLES;
        }
    }
}

impl Utterance {
    fn start_within(&mut self) {
        if self.start * STEP_SAMPLES + self.delay < LEAD as i64 {
            self.start = MARGIN_STEPS + (STEP_SAMPLES - 1 - self.delay) / STEP_SAMPLES;
        }
    }

    fn end_within(&mut self, samples: i64) {
        if self.end * STEP_SAMPLES + self.delay > samples - LEAD as i64 {
            self.end = (samples - self.delay) / STEP_SAMPLES - MARGIN_STEPS;
        }
    }
}

/// The utterance in two, where both parts agree on a delay of their own better than the whole does.
fn split(whole: &Utterance, pair: &Pair) -> Option<[Utterance; 2]> {
    let speech = &pair.activity.speech;
    let spoken = |step: &i64| speech.get(*step as usize).is_some_and(|&s| s);
    let first = (whole.start..whole.end).find(spoken).unwrap_or(whole.end);
    let end = 1 + (whole.start + 1..=whole.end).rev().find(spoken).unwrap_or(whole.start);
    if end - first < SHORTEST_SPLIT {
        return None;
    }
    let points = split_points(first, end);
    let coarse = |from: i64, to: i64| pair.coarse_delay(from..to, whole.coarse);
    let before: Vec<i64> = points.iter().map(|&at| coarse(whole.start, at)).collect();
    let after: Vec<i64> = points.iter().map(|&at| coarse(at, whole.end)).collect();

    let before_fine = by_estimate(&before, |assumed, which| {
        let ends: Vec<i64> = which.iter().map(|&i| points[i]).collect();
        pair.forward(whole.start, &ends, assumed)
    });
    let after_fine = by_estimate(&after, |assumed, which| {
        let starts: Vec<i64> = which.iter().rev().map(|&i| points[i]).collect();
        let mut delays = pair.backward(&starts, whole.end, assumed);
        delays.reverse();
        delays
    });

    let mut best: Option<(usize, f64)> = None;
    for (i, (b, a)) in before_fine.iter().zip(&after_fine).enumerate() {
        let surer = b.confidence > whole.confidence && a.confidence > whole.confidence;
        let apart = (a.samples - b.samples).abs() >= STEP_SAMPLES;
        let sum = a.confidence + b.confidence;
        if surer && apart && best.is_none_or(|(_, highest)| sum > highest) {
            best = Some((i, sum));
        }
    }
    let (i, _) = best?;
    let half = |delay: Delay, coarse: i64, start: i64, end: i64| {
        let Delay { samples: delay, confidence } = delay;
        Utterance { start, end, delay, coarse, confidence }
    };
    // Where the delay grows, the parts overlap in the reference by what the degraded signal repeats.
    let shared = ((after_fine[i].samples - before_fine[i].samples) / (2 * STEP_SAMPLES)).max(0);
    let mut halves = [
        half(before_fine[i], before[i], whole.start, points[i] + shared),
        half(after_fine[i], after[i], points[i] - shared, whole.end),
    ];
    halves[0].start_within();
    halves[1].end_within(pair.samples());
    Some(halves)
}

/// Evenly spaced over speech, well away from its ends.
fn split_points(first: i64, end: i64) -> Vec<i64> {
    let grain = WINDOW as i64 / 4 / STEP_SAMPLES;
    let most = POINTS as i64 * grain;
    let length = end - first;
    let spacing = ((0.801 * length as f64 + (most - 1) as f64) / most as f64) as i64 * grain;
    let pad = (length / 10).max(MARGIN_STEPS);
    let points = std::iter::successors(Some(first + pad), |at| Some(at + spacing));
    points
        .enumerate()
        .take_while(|&(i, at)| i == 0 || at <= end - pad)
        .map(|(_, at)| at)
        .take(POINTS)
        .collect()
}

/// Works on all points of one estimate at a time: gets it and their indices, ascending.
fn by_estimate(estimates: &[i64], delays: impl Fn(i64, &[usize]) -> Vec<Delay>) -> Vec<Delay> {
    let mut all = vec![Delay { samples: 0, confidence: 0.0 }; estimates.len()];
    let mut distinct = estimates.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    for assumed in distinct {
        let which: Vec<usize> = (0..estimates.len()).filter(|&i| estimates[i] == assumed).collect();
        for (&i, delay) in which.iter().zip(delays(assumed, &which)) {
            all[i] = delay;
        }
    }
    all
}
