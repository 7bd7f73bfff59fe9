use std::f64::consts::TAU;
use std::ops::Range;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use super::activity::Activity;
use super::{Padded, STEP, filter};

/// Samples in a window of fine alignment: 64 ms.
pub(super) const WINDOW: usize = 1024;
const HOP: i64 = WINDOW as i64 / 4;
/// Half the width of the triangle that smooths the histogram of delays.
const TRIANGLE: usize = WINDOW / 64;

/// Both signals as alignment hears them. Delays are in samples, positive where the degraded signal
/// is late; windows are in steps of the reference.
pub(super) struct Pair {
    reference: Vec<f64>,
    degraded: Vec<f64>,
    /// The reference's speech.
    pub activity: Activity,
    degraded_envelope: Vec<f64>,
    window: Vec<f64>,
    correlator: Correlator,
}

impl Pair {
    pub fn new(reference: &Padded, degraded: &Padded) -> Self {
        let heard = |signal: &Padded| {
            let mut heard = filter::for_alignment(signal);
            heard.samples.truncate(signal.searched());
            let activity = Activity::of(&heard.samples);
            (heard.samples, activity)
        };
        let ((reference, activity), (degraded, other)) = (heard(reference), heard(degraded));
        let window = (0..WINDOW).map(|i| 0.5 - 0.5 * (TAU * i as f64 / WINDOW as f64).cos()).collect();
        let correlator = Correlator::new(WINDOW);
        Self { reference, degraded, activity, degraded_envelope: other.envelope, window, correlator }
    }

    /// Samples in either signal.
    pub fn samples(&self) -> i64 {
        self.reference.len() as i64
    }

    /// Steps in either signal.
    pub fn steps(&self) -> i64 {
        self.activity.speech.len() as i64
    }

    /// The delay, in whole steps, at which the envelopes agree best, near one that is assumed.
    pub fn coarse_delay(&self, window: Range<i64>, assumed: i64) -> i64 {
        let shift = assumed / STEP as i64;
        let start = window.start.max(-shift).max(0);
        let end = window.end.min(self.steps());
        let (from, to) = (start + shift, (end + shift).min(self.steps()));
        if end - start < 2 || to - from < 2 {
            return assumed;
        }
        let piece =
            |envelope: &[f64], from: i64, to: i64| envelope[from as usize..to as usize].to_vec();
        let reference = piece(&self.activity.envelope, start, end);
        let degraded = piece(&self.degraded_envelope, from, to);
        assumed + best_lag(&reference, &degraded) * STEP as i64
    }

    /// The delays of all windows from the start of a stretch on, near one that is assumed, gathered
    /// for ever later ends of the stretch (in steps, ascending).
    pub fn forward(&self, start: i64, ends: &[i64], assumed: i64) -> Vec<Delay> {
        let mut at = (start * STEP as i64).max(-assumed).max(0);
        let mut histogram = Histogram::new();
        let to_end = |&end: &i64| {
            let last = self.samples().min(end * STEP as i64) - WINDOW as i64;
            while at <= last && at + assumed + WINDOW as i64 <= self.samples() {
                self.count(&mut histogram, at, assumed);
                at += HOP;
            }
            histogram.best(assumed)
        };
        ends.iter().map(to_end).collect()
    }

    /// As [`Self::forward`], from the end of a stretch towards ever earlier starts (descending).
    pub fn backward(&self, starts: &[i64], end: i64, assumed: i64) -> Vec<Delay> {
        let last = self.samples() - WINDOW as i64;
        let mut at = (end * STEP as i64 - WINDOW as i64).min(last - assumed.max(0));
        let mut histogram = Histogram::new();
        let to_start = |&start: &i64| {
            while at + assumed >= 0 && at >= (start * STEP as i64).max(0) {
                self.count(&mut histogram, at, assumed);
                at -= HOP;
            }
            histogram.best(assumed)
        };
        starts.iter().map(to_start).collect()
    }

    fn count(&self, histogram: &mut Histogram, at: i64, assumed: i64) {
        let windowed = |signal: &[f64], from: i64| -> Vec<f64> {
            signal[from as usize..].iter().zip(&self.window).map(|(x, w)| x * w).collect()
        };
        let reference = windowed(&self.reference, at);
        let degraded = windowed(&self.degraded, at + assumed);
        histogram.add(&self.correlator.correlate(&reference, &degraded));
    }
}

/// What a histogram of delays says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delay {
    /// In samples.
    pub samples: i64,
    /// The share of all windows that agree, 0 to 1.
    pub confidence: f64,
}

/// Delays of many windows, each weighted by its correlation to the power of 1/8.
struct Histogram {
    weights: Vec<f64>,
}

impl Histogram {
    fn new() -> Self {
        Self { weights: vec![0.0; WINDOW] }
    }

    /// Counts every lag whose correlation comes within 1 % of the highest.
    fn add(&mut self, correlation: &[f64]) {
        let limit = 0.99 * correlation.iter().fold(0.0, |highest: f64, c| highest.max(c.abs()));
        for (weight, _) in self.weights.iter_mut().zip(correlation).filter(|(_, c)| c.abs() > limit) {
            *weight += limit.powf(0.125);
        }
    }

    fn best(&self, assumed: i64) -> Delay {
        let total: f64 = self.weights.iter().sum();
        if total == 0.0 {
            return Delay { samples: assumed, confidence: 0.0 };
        }
        let mut smooth = vec![0.0; WINDOW];
        for (at, weight) in self.weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            for k in 1..2 * TRIANGLE {
                let share = 1.0 - k.abs_diff(TRIANGLE) as f64 / TRIANGLE as f64;
                smooth[(at + k + WINDOW - TRIANGLE) % WINDOW] += share * weight;
            }
        }
        let (lag, highest) = first_highest(&smooth);
        let lag = if lag >= WINDOW / 2 { lag as i64 - WINDOW as i64 } else { lag as i64 };
        Delay { samples: assumed + lag, confidence: highest / total }
    }
}

/// Circular cross-correlation of real signals, `c[lag] = Σ a[t] b[t + lag]`.
pub(super) struct Correlator {
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
}

impl Correlator {
    pub fn new(size: usize) -> Self {
        let mut planner = FftPlanner::new();
        Self { forward: planner.plan_fft_forward(size), inverse: planner.plan_fft_inverse(size) }
    }

    /// Of two signals no longer than the correlator's size; zeros fill the rest.
    pub fn correlate(&self, a: &[f64], b: &[f64]) -> Vec<f64> {
        let size = self.forward.len();
        let spectrum = |signal: &[f64]| {
            let mut spectrum: Vec<Complex<f64>> = signal.iter().map(|&x| Complex::from(x)).collect();
            spectrum.resize(size, Complex::default());
            self.forward.process(&mut spectrum);
            spectrum
        };
        let mut product: Vec<_> =
            spectrum(a).iter().zip(spectrum(b)).map(|(a, b)| a.conj() * b).collect();
        self.inverse.process(&mut product);
        product.iter().map(|c| c.re / size as f64).collect()
    }
}

/// The lag, in steps, at which two envelopes agree best; 0 where they never do.
fn best_lag(reference: &[f64], degraded: &[f64]) -> i64 {
    let size = 2 * reference.len().max(degraded.len()).next_power_of_two();
    let mut lags = Correlator::new(size).correlate(reference, degraded);
    let earliest = reference.len() - 1;
    lags.rotate_right(earliest);
    lags.truncate(earliest + degraded.len());
    match first_highest(&lags) {
        (_, 0.0) => 0,
        (at, _) => at as i64 - earliest as i64,
    }
}

/// Of values above 0; otherwise `(0, 0.0)`.
fn first_highest(values: &[f64]) -> (usize, f64) {
    let higher = |best: (usize, f64), (at, &value)| if value > best.1 { (at, value) } else { best };
    values.iter().enumerate().fold((0, 0.0), higher)
}
