use std::ops::Range;

use super::STEP;

/// Shortest burst that counts as speech, in steps less one.
const LONGEST_CLICK: usize = 4;
/// Longest pause within an utterance, in steps.
const LONGEST_GAP: usize = 50;
/// Power that is taken to be the floor, from the loudest step.
const FLOOR: f64 = 1e-4;

/// Where there is speech, and how loud, in steps of 4 ms.
#[derive(Debug)]
pub(super) struct Activity {
    /// `ln(power / threshold)`; 0 where there is no speech, or none above the threshold.
    pub envelope: Vec<f64>,
    /// Whether a step belongs to speech.
    pub speech: Vec<bool>,
}

impl Activity {
    /// Of samples in whole steps; what is left over at the end isn't seen.
    pub fn of(samples: &[f64]) -> Self {
        let square = |step: &[f64]| step.iter().map(|x| x * x).sum::<f64>() / STEP as f64;
        let mut power: Vec<f64> = samples.chunks_exact(STEP).map(square).collect();
        let start = mean(power.iter().copied());
        let loudest = power.iter().copied().fold(0.0, f64::max);
        let floor = if loudest > 0.0 { FLOOR * loudest } else { 1.0 };
        power.iter_mut().for_each(|p| *p = p.max(floor));

        let mut threshold = noise_threshold(&power, start);
        if power.iter().all(|&p| p <= threshold) {
            threshold = -1.0;
        }
        let (loud, quiet): (Vec<f64>, Vec<f64>) = power.iter().partition(|&&p| p > threshold);
        let last = power.len() - 1;
        let mut speech: Vec<bool> = power.iter().map(|&p| p > threshold).collect();
        for end in [0, last] {
            (speech[end], power[end]) = (false, floor);
        }

        drop_runs(&mut speech, |run| run.len() <= LONGEST_CLICK);
        if !quiet.is_empty() && mean(loud.iter().copied()) >= 1000.0 * mean(quiet.iter().copied()) {
            drop_runs(&mut speech, |run| mean(power[run].iter().copied()) < 3.0 * threshold);
        }
        for pair in runs(&speech).windows(2) {
            let gap = pair[0].end..pair[1].start;
            if gap.len() <= LONGEST_GAP {
                speech[gap.clone()].fill(true);
                power[gap].fill(floor);
            }
        }
        if !speech.contains(&true) {
            speech[1..last].fill(true);
        }
        for run in runs(&speech) {
            soften(&mut power, &mut speech, run);
        }

        let threshold = if threshold > 0.0 { threshold } else { floor };
        let level =
            |(&p, &s): (&f64, &bool)| if s && p > threshold { (p / threshold).ln() } else { 0.0 };
        Self { envelope: power.iter().zip(&speech).map(level).collect(), speech }
    }

    /// Stretches of speech, in steps.
    pub fn stretches(&self) -> Vec<Range<usize>> {
        runs(&self.speech)
    }
}

/// Two standard deviations above the mean of what lies below it, found by iteration.
fn noise_threshold(power: &[f64], start: f64) -> f64 {
    (0..12).fold(start, |threshold, _| {
        let below = || power.iter().copied().filter(|&p| p <= threshold);
        let level = mean(below());
        1.001 * (level + 2.0 * mean(below().map(|p| (p - level).powi(2))).sqrt())
    })
}

/// Extends a stretch by two steps on either side, at 30 % and 10 % of its power there.
fn soften(power: &mut [f64], speech: &mut [bool], run: Range<usize>) {
    let end = power.len() - 2;
    if (3..end).contains(&run.start) {
        power[run.start - 2] = 0.1 * power[run.start];
        power[run.start - 1] = 0.3 * power[run.start];
        speech[run.start - 2..run.start].fill(true);
    }
    if (3..end).contains(&run.end) {
        power[run.end] = 0.3 * power[run.end - 1];
        power[run.end + 1] = 0.1 * power[run.end - 1];
        speech[run.end..run.end + 2].fill(true);
    }
}

/// 0 for no values.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), x| (count + 1.0, sum + x));
    if count == 0.0 { 0.0 } else { sum / count }
}

fn drop_runs(flags: &mut [bool], drop: impl Fn(Range<usize>) -> bool) {
    for run in runs(flags) {
        if drop(run.clone()) {
            flags[run].fill(false);
        }
    }
}

/// Where flags stand in a row.
pub(super) fn runs(flags: &[bool]) -> Vec<Range<usize>> {
    let mut at = 0;
    let pieces = flags.chunk_by(|a, b| a == b).map(|piece| {
        at += piece.len();
        (piece[0], at - piece.len()..at)
    });
    pieces.filter_map(|(set, run)| set.then_some(run)).collect()
}
