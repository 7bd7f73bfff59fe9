use super::Error;

/// Scale-invariant signal-to-distortion ratio in dB: `10 log₁₀(‖αs‖² / ‖αs − ŝ‖²)`, where `s` is the
/// reference, `ŝ` the signal held against it, and `α = ⟨ŝ, s⟩ / ‖s‖²` the gain at which they are closest.
///
/// Le Roux, Wisdom, Erdogan & Hershey, *SDR – Half-baked or Well Done?*, ICASSP 2019, eqs. (2) and (4); no mean
/// is taken out of either signal. Sums are in f64.
///
/// - The reference at any gain: `+∞`, or what rounding to f32 leaves of it.
/// - A signal at a right angle to the reference: `−∞`.
///
/// # Errors
/// - [`Error::Lengths`] where the signals are not equally long.
/// - [`Error::NotFinite`] and [`Error::Silent`] for either signal.
pub fn si_sdr_db(reference: &[f32], test: &[f32]) -> Result<f64, Error> {
    super::comparable("SI-SDR", reference, test)?;
    let pairs = || super::pairs(reference, test);
    let energy: f64 = pairs().map(|(s, _)| s * s).sum();
    let gain = pairs().map(|(s, t)| s * t).sum::<f64>() / energy;
    let distortion: f64 = pairs().map(|(s, t)| (gain * s - t).powi(2)).sum();
    Ok(if distortion == 0.0 {
        f64::INFINITY
    } else {
        10.0 * (gain * gain * energy / distortion).log10()
    })
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use approx::{assert_abs_diff_eq, assert_relative_eq};
    use proptest::prelude::*;

    use super::super::testing::{Random, scaled};
    use super::*;

    fn sine(cycles: usize, phase: f32) -> Vec<f32> {
        (0..1000).map(|n| (TAU * (cycles * n) as f32 / 1000.0 + phase).sin()).collect()
    }

    fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
        a.iter().zip(b).map(|(a, b)| a + b).collect()
    }

    #[test]
    fn another_sine_is_distortion_of_its_own_power() {
        let (signal, other) = (sine(10, 0.0), sine(17, 0.0));
        for (gain, db) in [(1.0, 0.0), (0.1, 20.0), (0.001, 60.0)] {
            let test = sum(&signal, &scaled(&other, gain));
            assert_abs_diff_eq!(si_sdr_db(&signal, &test).unwrap(), db, epsilon = 1e-3);
        }
    }

    #[test]
    fn gain_is_no_distortion() {
        let signal = sine(10, 0.0);
        for gain in [1.0, 0.5, -4.0] {
            assert_eq!(si_sdr_db(&signal, &scaled(&signal, gain)).unwrap(), f64::INFINITY);
        }
        assert!(si_sdr_db(&signal, &scaled(&signal, 0.3)).unwrap() > 140.0, "rounding alone");
    }

    #[test]
    fn a_right_angle_is_nothing_of_the_signal() {
        assert_eq!(si_sdr_db(&[1.0, 0.0], &[0.0, 1.0]).unwrap(), f64::NEG_INFINITY);
        assert!(si_sdr_db(&sine(10, 0.0), &sine(10, TAU / 4.0)).unwrap() < -100.0);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let (signal, silence) = (sine(10, 0.0), [0.0; 1000]);
        assert!(matches!(si_sdr_db(&signal, &silence), Err(Error::Silent { .. })));
        assert!(matches!(si_sdr_db(&silence, &signal), Err(Error::Silent { .. })));
        assert!(matches!(si_sdr_db(&[], &[]), Err(Error::Silent { .. })));
        assert!(matches!(si_sdr_db(&signal, &signal[1..]), Err(Error::Lengths { .. })));
        assert!(matches!(si_sdr_db(&[1.0], &[f32::NAN]), Err(Error::NotFinite { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_gain_of_either_signal_changes_nothing(seed: u64, n in 10usize..2000, power in -20..20i32) {
            let values = |seed| Random::new(seed).values(n).iter().map(|&x| x as f32).collect::<Vec<f32>>();
            let (signal, noise, gain) = (values(seed), values(!seed), 2f32.powi(power));
            let test = sum(&signal, &scaled(&noise, 0.1));
            let ratio = si_sdr_db(&signal, &test).unwrap();
            for (s, t) in [(scaled(&signal, gain), test.clone()), (signal, scaled(&test, gain))] {
                assert_relative_eq!(si_sdr_db(&s, &t).unwrap(), ratio, max_relative = 1e-9);
            }
        }

        #[test]
        fn never_panics_and_is_never_nan(a in prop::collection::vec(any::<f32>(), 1..9), b: [f32; 9]) {
            if let Ok(ratio) = si_sdr_db(&a, &b[..a.len()]) {
                prop_assert!(!ratio.is_nan(), "{ratio}");
            }
        }
    }
}
