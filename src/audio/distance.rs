use super::{Error, Stft, max_or_nan, pairs, same_length};

/// Window of [`log_spectral_distance_db`], in samples.
pub const LSD_N_FFT: usize = 2048;
/// Samples between the windows of [`log_spectral_distance_db`].
pub const LSD_HOP: usize = 512;
/// Floor of [`log_spectral_distance_db`], in dB from the reference's loudest bin.
pub const LSD_FLOOR_DB: f64 = -100.0;

/// Signal-to-noise ratio in dB, `10 log10(Σ r² / Σ (r − t)²)`, summed in f64.
///
/// - Equal signals, silent and empty ones included: `+∞`.
/// - A silent reference and a test signal that isn't: `−∞`.
/// - NaN in either signal, or an infinity in the reference: NaN, which no limit admits
///   (`NaN >= limit` is false).
///
/// # Errors
/// [`Error::Lengths`] where the signals are not equally long.
pub fn snr_db(reference: &[f32], test: &[f32]) -> Result<f64, Error> {
    same_length(reference, test)?;
    let (mut signal, mut noise) = (0.0, 0.0);
    for (r, t) in pairs(reference, test) {
        signal += r * r;
        noise += (r - t) * (r - t);
    }
    Ok(if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() })
}

/// Log-spectral distance in dB: the mean over frames of
/// `sqrt(mean over bins of (10 log10(|R|² + ε) − 10 log10(|T|² + ε))²)`.
///
/// The root-mean-square log spectral measure `d₂` of Gray & Markel, *Distance measures for speech
/// processing*, IEEE Trans. ASSP 24(5), 1976 (also Rabiner & Juang, *Fundamentals of Speech
/// Recognition*, 1993, chapter 4), over Hann windows of [`LSD_N_FFT`] samples, [`LSD_HOP`] apart
/// ([`Stft`]: zeros beyond both ends, so shorter signals are padded).
///
/// `ε` is the power of the reference's loudest bin, lowered by [`LSD_FLOOR_DB`]: bins that are
/// empty but for rounding would otherwise outweigh all others.
///
/// - Equal signals, silent and empty ones included: 0.
/// - A silent reference and a test signal that isn't: `+∞`.
/// - NaN or an infinity in either signal: NaN, which no limit admits.
///
/// # Errors
/// [`Error::Lengths`] where the signals are not equally long.
pub fn log_spectral_distance_db(reference: &[f32], test: &[f32]) -> Result<f64, Error> {
    same_length(reference, test)?;
    let stft = Stft::new(LSD_N_FFT, LSD_HOP);
    let (reference, test) = (stft.magnitudes(reference), stft.magnitudes(test));
    let loudest = |frames: &[Vec<f64>]| frames.iter().flatten().copied().fold(0.0, max_or_nan).powi(2);
    let (loudest, loudest_test) = (loudest(&reference), loudest(&test));
    if loudest.is_nan() || loudest_test.is_nan() {
        return Ok(f64::NAN);
    }
    if loudest == 0.0 {
        return Ok(if loudest_test == 0.0 { 0.0 } else { f64::INFINITY });
    }
    let floor = loudest * 10f64.powf(LSD_FLOOR_DB / 10.0);
    let level = |magnitude: f64| 10.0 * (magnitude * magnitude + floor).log10();
    let frame_distance = |(r, t): (&Vec<f64>, &Vec<f64>)| {
        let sum: f64 = r.iter().zip(t).map(|(&r, &t)| (level(r) - level(t)).powi(2)).sum();
        (sum / r.len() as f64).sqrt()
    };
    let sum: f64 = reference.iter().zip(&test).map(frame_distance).sum();
    Ok(sum / reference.len() as f64)
}

/// `max |r − t|`, in the signals' unit; 0 for empty signals, NaN where any difference is NaN.
///
/// # Errors
/// [`Error::Lengths`] where the signals are not equally long.
pub fn max_abs_difference(reference: &[f32], test: &[f32]) -> Result<f64, Error> {
    same_length(reference, test)?;
    Ok(pairs(reference, test).map(|(r, t)| (r - t).abs()).fold(0.0, max_or_nan))
}

/// `max |x|`, in the signal's unit; 0 for an empty signal, NaN where any sample is NaN.
pub fn peak(signal: &[f32]) -> f64 {
    signal.iter().map(|&x| f64::from(x).abs()).fold(0.0, max_or_nan)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Uniform noise in −1 … 1 (xorshift64*).
    fn noise(seed: u64, samples: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..samples)
            .map(|_| {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
                (bits as f64 / f64::from(1 << 23) - 1.0) as f32
            })
            .collect()
    }

    fn power(signal: &[f32]) -> f64 {
        signal.iter().map(|&x| f64::from(x).powi(2)).sum()
    }

    fn scaled(signal: &[f32], by: f64) -> Vec<f32> {
        signal.iter().map(|&x| (f64::from(x) * by) as f32).collect()
    }

    fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
        a.iter().zip(b).map(|(a, b)| a + b).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn noise_of_known_power_gives_the_known_snr(seed: u64, n in 100usize..4000, db in -20.0..60.0f64) {
            let (signal, added) = (noise(seed, n), noise(!seed, n));
            let gain = (power(&signal) / power(&added) / 10f64.powf(db / 10.0)).sqrt();
            let measured = snr_db(&signal, &sum(&signal, &scaled(&added, gain))).unwrap();
            approx::assert_abs_diff_eq!(measured, db, epsilon = 0.02);
        }

        #[test]
        fn snr_and_distance_do_not_depend_on_the_scale(seed: u64, n in 1usize..3000, by in 1e-6..1e6f64) {
            let signal = noise(seed, n);
            let test = sum(&signal, &scaled(&noise(!seed, n), 0.01));
            let (signal_by, test_by) = (scaled(&signal, by), scaled(&test, by));
            let snr = snr_db(&signal, &test).unwrap() - snr_db(&signal_by, &test_by).unwrap();
            approx::assert_abs_diff_eq!(snr, 0.0, epsilon = 0.01);
            let lsd = |r: &[f32], t: &[f32]| log_spectral_distance_db(r, t).unwrap();
            approx::assert_abs_diff_eq!(lsd(&signal, &test), lsd(&signal_by, &test_by), epsilon = 1e-3);
        }

        #[test]
        fn a_gain_is_its_own_distance(seed: u64, n in 2048usize..8000, db in -20.0..20.0f64) {
            let signal = noise(seed, n);
            let louder = scaled(&signal, 10f64.powf(db / 20.0));
            let distance = log_spectral_distance_db(&signal, &louder).unwrap();
            approx::assert_abs_diff_eq!(distance, db.abs(), epsilon = 1e-3);
        }

        #[test]
        fn one_bad_sample_anywhere_shows(seed: u64, n in 1usize..3000, at: prop::sample::Index) {
            let signal = noise(seed, n);
            let mut bad = signal.clone();
            bad[at.index(n)] = f32::NAN;
            for (r, t) in [(&signal, &bad), (&bad, &signal), (&bad, &bad)] {
                prop_assert!(snr_db(r, t).unwrap().is_nan());
                prop_assert!(log_spectral_distance_db(r, t).unwrap().is_nan());
                prop_assert!(max_abs_difference(r, t).unwrap().is_nan());
            }
            prop_assert!(peak(&bad).is_nan());
        }
    }

    #[test]
    fn twice_as_loud_is_six_decibels() {
        let signal = noise(3, 5000);
        let distance = log_spectral_distance_db(&signal, &scaled(&signal, 2.0)).unwrap();
        approx::assert_abs_diff_eq!(distance, 6.0206, epsilon = 1e-3);
        approx::assert_abs_diff_eq!(
            snr_db(&signal, &scaled(&signal, 2.0)).unwrap(),
            0.0,
            epsilon = 1e-9
        );
    }

    #[test]
    fn equal_signals_are_exactly_equal() {
        for signal in [noise(1, 5000), noise(2, 7), vec![0.0; 3000], vec![]] {
            assert_eq!(snr_db(&signal, &signal).unwrap(), f64::INFINITY);
            assert_eq!(log_spectral_distance_db(&signal, &signal).unwrap(), 0.0);
            assert_eq!(max_abs_difference(&signal, &signal).unwrap(), 0.0);
        }
    }

    #[test]
    fn a_silent_reference_admits_only_silence() {
        let (silence, click) = (vec![0.0; 100], [vec![0.0; 99], vec![1e-9]].concat());
        assert_eq!(snr_db(&silence, &click).unwrap(), f64::NEG_INFINITY);
        assert_eq!(log_spectral_distance_db(&silence, &click).unwrap(), f64::INFINITY);
        assert_eq!(snr_db(&click, &silence).unwrap(), 0.0);
    }

    #[test]
    fn empty_bins_do_not_dominate() {
        let tone: Vec<f32> = (0..16_000).map(|i| (f64::from(i) * 0.1).sin() as f32).collect();
        let rounded = sum(&tone, &scaled(&noise(5, tone.len()), 1e-7));
        let distance = log_spectral_distance_db(&tone, &rounded).unwrap();
        assert!(distance < 0.1, "{distance}");
    }

    #[test]
    fn an_infinite_sample_fails() {
        let (good, bad) = ([0.5, 0.5], [0.5, f32::INFINITY]);
        assert_eq!(max_abs_difference(&good, &bad).unwrap(), f64::INFINITY);
        assert_eq!(snr_db(&good, &bad).unwrap(), f64::NEG_INFINITY);
        assert!(snr_db(&bad, &good).unwrap().is_nan());
        assert!(log_spectral_distance_db(&good, &bad).unwrap().is_nan());
        assert_eq!(peak(&bad), f64::INFINITY);
    }

    #[test]
    fn lengths_must_agree() {
        let (a, b) = ([0.0; 3], [0.0; 4]);
        assert!(matches!(snr_db(&a, &b), Err(Error::Lengths { reference: 3, test: 4 })));
        assert!(log_spectral_distance_db(&a, &b).is_err());
        assert!(max_abs_difference(&a, &b).is_err());
    }
}
