use std::f64::consts::PI;

/// Stop band of [`resample`]'s filter, in dB.
const REJECTION_DB: f64 = 60.0;

/// The signal at another rate: `⌈samples · to / from⌉` samples, the first one at the same instant,
/// zero beyond both ends. Delay is none, gain in the pass band 1.
///
/// A polyphase FIR filter: a sinc that falls to half at the lower of the two Nyquist frequencies,
/// under a Kaiser window of 60 dB rejection whose transition is a tenth of that frequency (Octave's
/// `resample`, which the published STOI figures rest on). Sums are in f64.
///
/// The filter holds some `73 · max(from, to) / gcd(from, to)` taps: 23 kB for 32 kHz to 10 kHz,
/// half a gigabyte only where two rates near 1 MHz share no divisor.
///
/// # Panics
/// Where a rate is zero.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    resampled(samples, from, to).into_iter().map(|x| x as f32).collect()
}

/// [`resample`], unrounded.
pub(super) fn resampled(samples: &[f32], from: u32, to: u32) -> Vec<f64> {
    assert!(from > 0 && to > 0, "rates are at least 1");
    if from == to || samples.is_empty() {
        return samples.iter().map(|&x| f64::from(x)).collect();
    }
    let divisor = gcd(from, to);
    let (up, down) = ((to / divisor) as usize, (from / divisor) as usize);
    let filter = Filter::new(up, down);
    (0..(samples.len() * up).div_ceil(down)).map(|m| filter.at(samples, m * down)).collect()
}

/// Phase after phase, the taps that meet consecutive samples, last sample first.
struct Filter {
    phases: Vec<Vec<f64>>,
    half: usize,
}

impl Filter {
    fn new(up: usize, down: usize) -> Self {
        let cutoff = 0.5 / up.max(down) as f64;
        // Kaiser's estimates of length and shape (Oppenheim & Schafer, Discrete-Time Signal
        // Processing, §7.5.3), with the transition's width in cycles a sample.
        let half = ((REJECTION_DB - 8.0) / (28.714 * cutoff / 10.0)).ceil() as usize;
        let beta = 0.1102 * (REJECTION_DB - 8.7);
        let tap = |i: usize| {
            let t = i as f64 - half as f64;
            sinc(2.0 * cutoff * t) * bessel_i0(beta * (1.0 - (t / half as f64).powi(2)).max(0.0).sqrt())
        };
        let taps: Vec<f64> = (0..=2 * half).map(tap).collect();
        let scale = up as f64 / taps.iter().sum::<f64>();
        let phase = |p: usize| taps.iter().skip(p).step_by(up).map(|tap| tap * scale).collect();
        Self { phases: (0..up).map(phase).collect(), half }
    }

    /// The filtered signal at an instant on the grid of `up` instants a sample.
    fn at(&self, samples: &[f32], instant: usize) -> f64 {
        let newest = instant + self.half;
        let (last, phase) = (newest / self.phases.len(), newest % self.phases.len());
        let taps = &self.phases[phase];
        let beyond = (last + 1).saturating_sub(samples.len());
        let until = last + 1 - beyond;
        let newest_first = samples[..until].iter().rev();
        taps.iter().skip(beyond).zip(newest_first).map(|(tap, &x)| tap * f64::from(x)).sum()
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// Modified Bessel function of the first kind and order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut term, mut sum, mut k) = (1.0, 1.0, 1.0);
    while term > sum * f64::EPSILON {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;

    fn sine(hertz: f64, rate: u32, samples: usize) -> Vec<f32> {
        (0..samples).map(|i| (TAU * hertz * i as f64 / f64::from(rate)).sin() as f32).collect()
    }

    #[test]
    fn a_sine_stays_where_it_was() {
        for (from, to) in [(32_000, 16_000), (32_000, 10_000), (44_100, 16_000), (16_000, 48_000)] {
            let resampled = resample(&sine(1000.0, from, from as usize / 2), from, to);
            let expected = sine(1000.0, to, resampled.len());
            let middle = resampled.len() / 4..resampled.len() * 3 / 4;
            let apart = middle.map(|i| (resampled[i] - expected[i]).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-3, "{from} to {to}: {apart}");
        }
    }

    #[test]
    fn what_the_new_rate_cannot_hold_is_gone() {
        let resampled = resample(&sine(9000.0, 32_000, 16_000), 32_000, 16_000);
        let loudest = resampled[2000..6000].iter().fold(0.0f32, |a, x| a.max(x.abs()));
        assert!(loudest < 1e-3, "{loudest}");
    }

    #[test]
    fn bessel_is_as_tabulated() {
        // Abramowitz & Stegun, table 9.8.
        for (x, expected) in [(0.0, 1.0), (1.0, 1.266_065_877_752), (5.0, 27.239_871_823_604)] {
            approx::assert_relative_eq!(bessel_i0(x), expected, max_relative = 1e-10);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_length_and_rate(n in 0usize..50, from in 1u32..60, to in 1u32..60) {
            let resampled = resample(&vec![1.0; n], from, to);
            prop_assert_eq!(resampled.len(), (n * to as usize).div_ceil(from as usize));
            prop_assert!(resampled.iter().all(|x| x.is_finite() && x.abs() < 2.0));
        }
    }
}
