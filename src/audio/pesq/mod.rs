mod activity;
mod align;
mod bark;
mod disturbance;
mod filter;
mod utterance;

use super::Error;
use super::resample::resampled;

const METRIC: &str = "PESQ";
/// The rate that everything here is defined at, in Hz.
const RATE: u32 = 16_000;
const HIGHEST_RATE: u32 = 384_000;
/// Shortest signal, in samples at 16 kHz: 250 ms.
const SHORTEST: usize = 4000;
/// Samples in a step, by which envelopes are aligned: 4 ms.
const STEP: usize = 64;
/// Steps of silence before and after a signal.
const MARGIN: usize = 75;
/// The same in samples.
const LEAD: usize = MARGIN * STEP;
/// More silence after a signal, in samples, which is heard but not searched: 320 ms.
const TAIL: usize = 5120;
/// Samples in a frame of the perceptual model: 32 ms.
const FRAME: usize = 512;

/// Perceptual evaluation of speech quality, wideband: the mean opinion that listeners would have,
/// from 1.01 (bad) to 4.64 (no difference; MOS-LQO).
///
/// ITU-T P.862.2 (11/2007), on the model of P.862 (02/2001) at 16 kHz: level and delay are made up
/// for first, utterance by utterance; then both signals' loudness is compared in critical bands.
/// Rix et al. and Beerends et al., *Perceptual Evaluation of Speech Quality (PESQ), parts I and II*,
/// J. Audio Eng. Soc. 50(10), 2002. Higher rates go through [`resample`](fn@super::resample).
///
/// Does not depend on either signal's level. Sentences of 8 to 12 s are what the model was made
/// for; beyond 30 s it says little.
///
/// # Errors
/// - [`Error::Lengths`] where the signals are not equally long.
/// - [`Error::Rate`] below 16 kHz and above 384 kHz.
/// - [`Error::NotFinite`] and [`Error::Silent`] for either signal.
/// - [`Error::TooShort`] below 250 ms, and where no utterance of 200 ms is found in the reference.
pub fn pesq(reference: &[f32], degraded: &[f32], rate: u32) -> Result<f64, Error> {
    super::comparable(METRIC, reference, degraded)?;
    if !(RATE..=HIGHEST_RATE).contains(&rate) {
        return Err(Error::Rate { metric: METRIC, rate, lowest: RATE, highest: HIGHEST_RATE });
    }
    let too_short = |needed: f64, found: f64| Error::TooShort { metric: METRIC, needed, found };
    let prepared = |signal: &[f32], which| {
        let samples = resampled(signal, rate, RATE);
        if samples.len() < SHORTEST {
            let seconds = |samples: usize| samples as f64 / f64::from(RATE);
            return Err(too_short(seconds(SHORTEST), seconds(samples.len())));
        }
        let mut padded = Padded::new(samples);
        filter::to_standard_level(&mut padded).ok_or(Error::Silent { metric: METRIC, which })?;
        filter::listened(&mut padded);
        Ok(padded)
    };
    let reference = prepared(reference, super::REFERENCE)?;
    let degraded = prepared(degraded, super::TEST)?;
    let utterances = utterance::locate(&align::Pair::new(&reference, &degraded));
    if utterances.is_empty() {
        return Err(too_short(0.2, 0.0));
    }
    Ok(listening_quality(disturbance::raw_score(&reference, &degraded, &utterances)))
}

/// P.862.2's mapping of the raw score to a mean opinion.
fn listening_quality(raw: f64) -> f64 {
    0.999 + 4.0 / (1.0 + (-1.3669 * raw + 3.8224).exp())
}

/// A signal between two stretches of silence.
#[derive(Clone, Debug)]
struct Padded {
    samples: Vec<f64>,
}

impl Padded {
    fn new(mut samples: Vec<f64>) -> Self {
        samples.splice(0..0, [0.0; LEAD]);
        samples.resize(samples.len() + LEAD + TAIL, 0.0);
        Self { samples }
    }

    /// Samples of the signal itself.
    fn speech_len(&self) -> usize {
        self.samples.len() - 2 * LEAD - TAIL
    }

    fn speech(&mut self) -> &mut [f64] {
        let len = self.speech_len();
        &mut self.samples[LEAD..][..len]
    }

    /// Samples that alignment searches: all but the tail.
    fn searched(&self) -> usize {
        self.samples.len() - TAIL
    }

    /// Where what is heard ends: signal and tail, from `LEAD` on.
    fn span(&self) -> usize {
        self.samples.len() - LEAD
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Random, noisy, voice};
    use super::*;

    #[test]
    fn equal_signals_sound_perfect_at_any_level() {
        for rate in [16_000, 32_000] {
            let reference = voice(2, rate, 2.0, 12);
            let quieter: Vec<f32> = reference.iter().map(|x| 0.01 * x).collect();
            for degraded in [&reference, &quieter] {
                let score = pesq(&reference, degraded, rate).unwrap();
                assert!((score - 4.643_888).abs() < 1e-5, "{score} at {rate}");
            }
        }
    }

    #[test]
    fn more_noise_sounds_worse() {
        let reference = voice(2, 16_000, 3.0, 12);
        let score = |db: i32| pesq(&reference, &noisy(&reference, 3, f64::from(db)), 16_000).unwrap();
        let scores: Vec<f64> = (0..7).rev().map(|db| score(10 * db)).collect();
        assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
        assert!(scores[0] > 4.5 && scores[6] < 1.1, "{scores:?}");
    }

    #[test]
    fn a_delay_is_found_to_the_sample() {
        let reference = voice(2, 16_000, 3.0, 12);
        let late = [&vec![0.0; 333], &reference[..reference.len() - 333]].concat();
        let padded = |signal: &[f32]| {
            let mut padded = Padded::new(signal.iter().map(|&x| f64::from(x)).collect());
            filter::to_standard_level(&mut padded).unwrap();
            padded
        };
        let delays = |a: &[f32], b: &[f32]| -> Vec<i64> {
            let utterances = utterance::locate(&align::Pair::new(&padded(a), &padded(b)));
            utterances.iter().map(|u| u.delay).collect()
        };
        assert_eq!(delays(&reference, &late), [333]);
        assert_eq!(delays(&late, &reference), [-333]);
        let jump = [&reference[..20_000], &vec![0.0; 700], &reference[20_000..]].concat();
        let jump = &jump[..reference.len()];
        assert_eq!(delays(&reference, jump), [0, 700]);
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let reference = voice(2, 16_000, 1.0, 12);
        let (silence, shorter) = (vec![0.0; reference.len()], &reference[1..]);
        let mut bad = reference.clone();
        bad[7] = f32::INFINITY;
        assert!(matches!(pesq(&reference, shorter, 16_000), Err(Error::Lengths { .. })));
        assert!(matches!(pesq(&bad, &reference, 16_000), Err(Error::NotFinite { index: 7, .. })));
        assert!(matches!(pesq(&silence, &reference, 16_000), Err(Error::Silent { .. })));
        assert!(matches!(pesq(&reference, &silence, 16_000), Err(Error::Silent { .. })));
        assert!(matches!(pesq(&[], &[], 16_000), Err(Error::Silent { .. })));
        assert!(matches!(pesq(&reference, &reference, 10_000), Err(Error::Rate { .. })));
        let short = &reference[..3999];
        assert!(matches!(pesq(short, short, 16_000), Err(Error::TooShort { .. })));
        let (burst, pause) = (&reference[1500..3000], vec![0.0; 8000]);
        let bursts = [&pause, burst, &pause, burst, &pause].concat();
        assert!(matches!(pesq(&bursts, &bursts, 16_000), Err(Error::TooShort { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_panics_and_stays_on_the_scale(
            seed: u64, pieces in prop::collection::vec((0.0..0.5f64, 0u8..8, any::<bool>()), 1..8),
            a in -38.0..38.0f64, b in -38.0..38.0f64, shift in 0usize..9000,
        ) {
            // Bursts of noise and of a tone, and silence: alignment finds much in them that isn't there.
            let mut random = Random::new(seed);
            let mut signal = Vec::new();
            for (seconds, loudness, tone) in pieces {
                for i in 0..(seconds * 16_000.0) as usize {
                    let sound = if tone { (0.3 * i as f64).sin() } else { random.next() };
                    signal.push(sound * f64::from(loudness) / 8.0);
                }
            }
            let scaled = |power: f64| signal.iter().map(move |x| (x * 10f64.powf(power)) as f32);
            let reference: Vec<f32> = scaled(a).collect();
            let mut degraded: Vec<f32> = scaled(b).collect();
            degraded.rotate_right(shift.min(signal.len()));
            for (r, d) in [(&reference, &degraded), (&degraded, &reference)] {
                if let Ok(score) = pesq(r, d, 16_000) {
                    prop_assert!((1.0..4.65).contains(&score), "{score}");
                }
            }
        }
    }
}
