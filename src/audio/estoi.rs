use super::Error;
use super::stoi::{BANDS, SEGMENT, speech_envelopes, unit};

/// Extended short-time objective intelligibility, from about 0 (nothing is understood) to 1: how alike the
/// spectra of both signals are over 384 ms, each band first brought to the same mean and energy in time, then
/// each frame to the same mean and energy across the bands. Unlike [`stoi`](fn@super::stoi) it also tells
/// noise that comes and goes from noise that stays.
///
/// Jensen & Taal, *An Algorithm for Predicting the Intelligibility of Speech Masked by Modulated Noise Maskers*,
/// IEEE/ACM Trans. ASLP 24(11), 2016: with `X` and `Y` the two segments, [15 bands, 30 frames], after both
/// normalizations, `d = 1/30 · Σ_n Σ_j X(j, n) · Y(j, n)`, averaged over segments that start at every frame.
/// Rate, frames, bands and silence are those of [`stoi`](fn@super::stoi).
///
/// # Errors
/// Those of [`stoi`](fn@super::stoi).
pub fn estoi(clean: &[f32], processed: &[f32], rate: u32) -> Result<f64, Error> {
    let [clean, processed] = speech_envelopes("ESTOI", clean, processed, rate)?;
    let segments = clean.windows(SEGMENT).zip(processed.windows(SEGMENT));
    let count = segments.len();
    let sum: f64 = segments.map(|(x, y)| product(&normalized(x), &normalized(y))).sum();
    Ok(sum / (count * SEGMENT) as f64)
}

/// A segment of frames with every band, then every frame at mean 0 and length 1.
fn normalized(segment: &[[f64; BANDS]]) -> Vec<Vec<f64>> {
    let band = |b| unit(&segment.iter().map(|frame| frame[b]).collect::<Vec<_>>());
    let bands: Vec<Vec<f64>> = (0..BANDS).map(band).collect();
    let frame = |n| unit(&bands.iter().map(|band| band[n]).collect::<Vec<_>>());
    (0..segment.len()).map(frame).collect()
}

fn product(x: &[Vec<f64>], y: &[Vec<f64>]) -> f64 {
    x.iter().flatten().zip(y.iter().flatten()).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;
    use proptest::prelude::*;

    use super::super::testing::{Random, noisy, scaled, voice};
    use super::*;

    #[test]
    fn equal_signals_are_understood_at_any_level() {
        for rate in [10_000, 16_000, 32_000] {
            let clean = voice(2, rate, 2.0, 12);
            for gain in [1.0, 0.01, -30.0] {
                let score = estoi(&clean, &scaled(&clean, gain), rate).unwrap();
                assert_abs_diff_eq!(score, 1.0, epsilon = 1e-6);
            }
        }
    }

    #[test]
    fn more_noise_is_understood_less() {
        let clean = voice(2, 16_000, 3.0, 12);
        let score = |db: i32| estoi(&clean, &noisy(&clean, 3, f64::from(db)), 16_000).unwrap();
        let scores: Vec<f64> = (-2..5).rev().map(|db| score(10 * db)).collect();
        assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
        assert!(scores[0] > 0.99 && scores[6] < 0.35, "{scores:?}");
    }

    #[test]
    fn a_steady_tone_says_nothing_of_speech() {
        let clean = voice(2, 16_000, 2.0, 12);
        let tone: Vec<f32> = (0..clean.len()).map(|n| (n as f32 * 0.3).sin()).collect();
        let score = estoi(&clean, &tone, 16_000).unwrap();
        assert!(score.abs() < 0.2, "{score}");
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let clean = voice(2, 16_000, 1.0, 12);
        let silence = vec![0.0; clean.len()];
        assert!(matches!(estoi(&clean, &clean[1..], 16_000), Err(Error::Lengths { .. })));
        assert!(matches!(estoi(&silence, &clean, 16_000), Err(Error::Silent { metric: "ESTOI", .. })));
        assert!(matches!(estoi(&clean, &silence, 16_000), Err(Error::Silent { .. })));
        assert!(matches!(estoi(&clean, &clean, 8000), Err(Error::Rate { .. })));
        assert!(matches!(estoi(&clean[..6000], &clean[..6000], 16_000), Err(Error::TooShort { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_panics_and_is_a_correlation(
            seed: u64, n in 1usize..9000, a in -38.0..38.0f64, b in -38.0..38.0f64, rate in 20u32..96,
        ) {
            let signal = |seed, power: f64| -> Vec<f32> {
                let gain = 10f64.powf(power);
                Random::new(seed).values(n).iter().map(|x| (x.powi(9) * gain) as f32).collect()
            };
            if let Ok(score) = estoi(&signal(seed, a), &signal(!seed, b), 500 * rate) {
                prop_assert!(score.abs() <= 1.0 + 1e-9, "{score}");
            }
        }
    }
}
