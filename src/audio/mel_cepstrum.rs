use std::f64::consts::{LN_10, PI};

use super::{Error, Stft, resample};

const METRIC: &str = "mel-cepstral distortion";
/// The rate that everything below is defined at, in Hz.
const RATE: u32 = 16_000;
/// Samples in a frame: 32 ms.
const N_FFT: usize = 512;
/// Samples from frame to frame: 8 ms.
const HOP: usize = 128;
/// Triangular filters, from 0 Hz to half the rate.
const BANDS: usize = 40;
/// Coefficients that are compared: from the first to this one.
const COEFFICIENTS: usize = 24;
/// Frames this far below the reference's loudest, in dB, are silence.
const DYNAMIC_RANGE_DB: f64 = 40.0;
/// What is added to every band, in dB from the signal's own loudest one.
const FLOOR_DB: f64 = -100.0;

/// Mel-cepstral distortion in dB: the mean over frames of
/// `10 / ln 10 · sqrt(2 · Σ_{k = 1}^{24} (r_k − t_k)²)`, with the cepstra
/// `c_k = 1/40 · Σ_{m = 0}^{39} ln(E_m + ε) · cos(π k (m + ½) / 40)`.
///
/// Kubichek, *Mel-cepstral distance measure for objective speech quality assessment*, Proc. IEEE Pacific Rim
/// Conference on Communications, Computers and Signal Processing, 1993. He left much open; here:
///
/// - 16 kHz; other rates go through [`resample`](fn@super::resample), so what is above 8 kHz does not count.
/// - Power spectra under Hann windows of 512 samples, 128 apart ([`Stft`]).
/// - `E_m`: 40 triangles of height 1, linear in Hz, whose corners are equally far apart on the scale
///   `2595 log₁₀(1 + f / 700)` from 0 to 8 kHz.
/// - `ε`: 100 dB below the signal's own loudest band.
/// - No `c_0`, so the level does not count, neither a signal's nor a frame's.
/// - Frame for frame, without time warping: both signals are equally long. Frames in which the reference is
///   more than 40 dB below its loudest are left out.
///
/// So normalized, it is the root-mean-square difference of the two log mel spectra after smoothing, as it is
/// for the all-pole mel cepstra of many published figures, which are of the same order but not the same.
///
/// # Errors
/// - [`Error::Lengths`] where the signals are not equally long.
/// - [`Error::Rate`] below 16 kHz and above 384 kHz.
/// - [`Error::NotFinite`] and [`Error::Silent`] for either signal.
pub fn mel_cepstral_distortion_db(reference: &[f32], test: &[f32], rate: u32) -> Result<f64, Error> {
    super::comparable(METRIC, reference, test)?;
    super::resampleable(METRIC, rate, RATE)?;
    let bands = filters();
    let (reference, test) = (powers(reference, rate), powers(test, rate));
    let level = |frame: &Vec<f64>| frame.iter().sum::<f64>();
    let loudest = reference.iter().map(level).fold(0.0, f64::max);
    let quietest = loudest * 10f64.powf(-DYNAMIC_RANGE_DB / 10.0);
    let speech: Vec<bool> = reference.iter().map(|frame| level(frame) > quietest).collect();
    let cepstra =
        |frames, which| cepstra(frames, &bands).ok_or(Error::Silent { metric: METRIC, which });
    let (reference, test) = (cepstra(reference, super::REFERENCE)?, cepstra(test, super::TEST)?);
    let pairs = reference.iter().zip(&test).zip(&speech).filter(|(_, speech)| **speech);
    let distances: Vec<f64> = pairs.map(|((r, t), _)| distance(r, t)).collect();
    Ok(distances.iter().sum::<f64>() / distances.len() as f64)
}

fn distance(r: &[f64; COEFFICIENTS], t: &[f64; COEFFICIENTS]) -> f64 {
    let square: f64 = r.iter().zip(t).map(|(r, t)| (r - t).powi(2)).sum();
    10.0 / LN_10 * (2.0 * square).sqrt()
}

/// Power spectra, frame by frame.
fn powers(signal: &[f32], rate: u32) -> Vec<Vec<f64>> {
    let mut frames = Stft::new(N_FFT, HOP).magnitudes(&resample(signal, rate, RATE));
    frames.iter_mut().flatten().for_each(|magnitude| *magnitude *= *magnitude);
    frames
}

/// Each band's weights of the bins.
fn filters() -> Vec<Vec<f64>> {
    let highest = 2595.0 * (1.0 + f64::from(RATE) / 2.0 / 700.0).log10();
    let corner = |m: usize| {
        let mel = highest * m as f64 / (BANDS + 1) as f64;
        700.0 * (10f64.powf(mel / 2595.0) - 1.0)
    };
    let filter = |m: usize| {
        let [from, peak, to] = [corner(m), corner(m + 1), corner(m + 2)];
        let hertz = |bin: usize| bin as f64 * f64::from(RATE) / N_FFT as f64;
        let weight = |hz: f64| ((hz - from) / (peak - from)).min((to - hz) / (to - peak)).max(0.0);
        (0..=N_FFT / 2).map(|bin| weight(hertz(bin))).collect()
    };
    (0..BANDS).map(filter).collect()
}

/// The cepstra of power spectra; none of silence.
fn cepstra(frames: Vec<Vec<f64>>, filters: &[Vec<f64>]) -> Option<Vec<[f64; COEFFICIENTS]>> {
    let energy = |frame: &[f64], filter: &[f64]| frame.iter().zip(filter).map(|(p, w)| p * w).sum();
    let energies = |frame: Vec<f64>| filters.iter().map(|f| energy(&frame, f)).collect::<Vec<f64>>();
    let frames: Vec<Vec<f64>> = frames.into_iter().map(energies).collect();
    let loudest = frames.iter().flatten().copied().fold(0.0, f64::max);
    if loudest == 0.0 {
        return None;
    }
    let floor = loudest * 10f64.powf(FLOOR_DB / 10.0);
    let wave = |k: usize, m: usize| (PI * k as f64 * (m as f64 + 0.5) / BANDS as f64).cos();
    let cepstrum = |frame: &Vec<f64>| {
        let logs: Vec<f64> = frame.iter().map(|energy| (energy + floor).ln()).collect();
        std::array::from_fn(|at| {
            let terms = logs.iter().enumerate().map(|(m, log)| log * wave(at + 1, m));
            terms.sum::<f64>() / BANDS as f64
        })
    };
    Some(frames.iter().map(cepstrum).collect())
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use approx::assert_abs_diff_eq;
    use proptest::prelude::*;

    use super::super::testing::{Random, noisy, scaled, voice};
    use super::*;

    #[test]
    fn equal_signals_are_not_apart_at_any_level() {
        for rate in [16_000, 32_000] {
            let reference = voice(2, rate, 1.0, 12);
            assert_eq!(mel_cepstral_distortion_db(&reference, &reference, rate).unwrap(), 0.0);
            for gain in [0.001, -30.0] {
                let louder = scaled(&reference, gain);
                let distance = mel_cepstral_distortion_db(&reference, &louder, rate).unwrap();
                assert_abs_diff_eq!(distance, 0.0, epsilon = 1e-4);
            }
        }
    }

    /// A filter `1 + a z⁻¹` tilts the spectrum by a known number of dB in every frame.
    #[test]
    fn a_tilt_is_its_own_root_mean_square() {
        let noise: Vec<f32> = Random::new(4).values(64_000).iter().map(|&x| x as f32).collect();
        let tilted: Vec<f32> = (0..noise.len())
            .map(|n| noise[n] + 0.5 * n.checked_sub(1).map_or(0.0, |n| noise[n]))
            .collect();
        let decibels: Vec<f64> = (0..BANDS)
            .map(|m| {
                let mel = 2840.023 * (m + 1) as f64 / (BANDS + 1) as f64;
                let hz = 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
                10.0 * (1.25 + (f64::from(TAU) * hz / f64::from(RATE)).cos()).log10()
            })
            .collect();
        let mean = decibels.iter().sum::<f64>() / BANDS as f64;
        let rms = (decibels.iter().map(|db| (db - mean).powi(2)).sum::<f64>() / BANDS as f64).sqrt();
        let distance = mel_cepstral_distortion_db(&noise, &tilted, RATE).unwrap();
        assert_abs_diff_eq!(distance, rms, epsilon = 0.1);
    }

    #[test]
    fn more_noise_is_further() {
        let reference = voice(2, 16_000, 2.0, 12);
        let distance = |db| mel_cepstral_distortion_db(&reference, &noisy(&reference, 3, db), 16_000);
        let distances: Vec<f64> = (0..6).map(|db| distance(f64::from(10 * db)).unwrap()).collect();
        assert!(distances.is_sorted_by(|a, b| a > b), "{distances:?}");
    }

    #[test]
    fn what_is_only_in_pauses_does_not_count() {
        let sine: Vec<f32> = (0..16_000).map(|n| (TAU * n as f32 / 16.0).sin()).collect();
        let paused: Vec<f32> =
            sine.iter().enumerate().map(|(n, &x)| if n < 8000 { x } else { 0.0 }).collect();
        let mut hissing = paused.clone();
        hissing[9000..]
            .iter_mut()
            .zip(Random::new(1).values(7000))
            .for_each(|(x, n)| *x = 1e-3 * n as f32);
        assert_eq!(mel_cepstral_distortion_db(&paused, &hissing, 16_000).unwrap(), 0.0);
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let sound = voice(2, 16_000, 0.1, 12);
        let silence = vec![0.0; sound.len()];
        let refused = |r: &[f32], t: &[f32], rate| mel_cepstral_distortion_db(r, t, rate).unwrap_err();
        assert!(matches!(refused(&sound, &silence, 16_000), Error::Silent { .. }));
        assert!(matches!(refused(&silence, &sound, 16_000), Error::Silent { .. }));
        assert!(matches!(refused(&[], &[], 16_000), Error::Silent { .. }));
        assert!(matches!(refused(&sound, &sound[1..], 16_000), Error::Lengths { .. }));
        assert!(matches!(refused(&sound, &sound, 8000), Error::Rate { lowest: 16_000, .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_panics_and_is_a_distance(seed: u64, n in 1usize..3000, a in -44.0..38.0f64, b in -44.0..38.0f64) {
            let signal = |seed, power: f64| -> Vec<f32> {
                Random::new(seed).values(n).iter().map(|x| (x * 10f64.powf(power)) as f32).collect()
            };
            if let Ok(distance) = mel_cepstral_distortion_db(&signal(seed, a), &signal(!seed, b), 32_000) {
                prop_assert!(distance.is_finite() && distance >= 0.0, "{distance}");
            }
        }
    }
}
