use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

use super::Error;
use super::resample::resampled;

const METRIC: &str = "STOI";
/// The rate that everything below is defined at, in Hz.
const RATE: u32 = 10_000;
/// Samples in a frame.
const FRAME: usize = 256;
const HOP: usize = FRAME / 2;
const N_FFT: usize = 512;
/// Third-octave bands, the lowest around `LOWEST_BAND` Hz.
pub(super) const BANDS: usize = 15;
const LOWEST_BAND: f64 = 150.0;
/// Frames that are correlated at a time: 384 ms.
pub(super) const SEGMENT: usize = 30;
/// Frames this far below the loudest, in dB, are silence.
const DYNAMIC_RANGE_DB: f64 = 40.0;
/// Lower bound of the signal-to-distortion ratio, in dB.
const LOWEST_SDR_DB: f64 = -15.0;

/// Short-time objective intelligibility, from about 0 (nothing is understood) to 1: the mean
/// correlation of third-octave envelopes over 384 ms.
///
/// Taal, Hendriks, Heusdens & Jensen, *An Algorithm for Intelligibility Prediction of Time-Frequency
/// Weighted Noisy Speech*, IEEE Trans. ASLP 19(7), 2011 (the extended measure is [`estoi`](fn@super::estoi)), with the
/// framing of its authors' program: a signal's last frame is left out, and other rates than 10 kHz
/// go through [`resample`](fn@super::resample). Does not depend on either signal's level.
///
/// # Errors
/// - [`Error::Lengths`] where the signals are not equally long.
/// - [`Error::Rate`] below 10 kHz and above 384 kHz.
/// - [`Error::NotFinite`] and [`Error::Silent`] for either signal.
/// - [`Error::TooShort`] where less than 30 frames of `clean` are speech.
pub fn stoi(clean: &[f32], processed: &[f32], rate: u32) -> Result<f64, Error> {
    let [clean, processed] = speech_envelopes(METRIC, clean, processed, rate)?;
    let of_band = |b: usize| {
        let envelope = |frames: &[[f64; BANDS]]| frames.iter().map(|f| f[b]).collect::<Vec<_>>();
        let (x, y) = (envelope(&clean), envelope(&processed));
        x.windows(SEGMENT).zip(y.windows(SEGMENT)).map(|(x, y)| correlation(x, y)).sum::<f64>()
    };
    let segments = clean.len() + 1 - SEGMENT;
    Ok((0..BANDS).map(of_band).sum::<f64>() / (segments * BANDS) as f64)
}

/// Third-octave envelopes of both signals at 10 kHz, in the frames in which the clean one is not silent: at
/// least [`SEGMENT`] frames.
pub(super) fn speech_envelopes(
    metric: &'static str,
    clean: &[f32],
    processed: &[f32],
    rate: u32,
) -> Result<[Vec<[f64; BANDS]>; 2], Error> {
    super::comparable(metric, clean, processed)?;
    super::resampleable(metric, rate, RATE)?;
    let (clean, processed) = (resampled(clean, rate, RATE), resampled(processed, rate, RATE));
    let (clean, processed) = without_silence(&frames(&clean), &frames(&processed));
    let envelopes = [envelopes(&clean), envelopes(&processed)];
    let seconds = |frames: usize| (frames * HOP) as f64 / f64::from(RATE);
    match envelopes[0].len() {
        SEGMENT.. => Ok(envelopes),
        few => Err(Error::TooShort { metric, needed: seconds(SEGMENT), has: seconds(few) }),
    }
}

/// Eqs. (3) to (5): `y` at the level of `x`, clipped where it is far louder; their correlation.
fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let clip = 1.0 + 10f64.powf(-LOWEST_SDR_DB / 20.0);
    let gain = norm(x) / (norm(y) + f64::EPSILON);
    let clipped: Vec<f64> = x.iter().zip(y).map(|(x, y)| (y * gain).min(x * clip)).collect();
    let (x, y) = (unit(x), unit(&clipped));
    x.iter().zip(&y).map(|(x, y)| x * y).sum()
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Mean 0, length 1.
pub(super) fn unit(v: &[f64]) -> Vec<f64> {
    let mean = v.iter().sum::<f64>() / v.len() as f64;
    let centred: Vec<f64> = v.iter().map(|x| x - mean).collect();
    let length = norm(&centred) + f64::EPSILON;
    centred.iter().map(|x| x / length).collect()
}

/// Frames under a Hann window without its zeros, all but the last.
fn frames(signal: &[f64]) -> Vec<Vec<f64>> {
    let window = hann();
    let starts = (0..signal.len().saturating_sub(FRAME)).step_by(HOP);
    let weighted = |(x, w): (&f64, &f64)| x * w;
    starts.map(|at| signal[at..].iter().zip(&window).map(weighted).collect()).collect()
}

fn hann() -> Vec<f64> {
    let step = std::f64::consts::TAU / (FRAME + 1) as f64;
    (1..=FRAME).map(|i| 0.5 - 0.5 * (step * i as f64).cos()).collect()
}

/// Both signals, overlapped and added from the frames in which the clean one is not silent.
fn without_silence(clean: &[Vec<f64>], processed: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let level = |frame: &Vec<f64>| 20.0 * (norm(frame) + f64::EPSILON).log10();
    let levels: Vec<f64> = clean.iter().map(level).collect();
    let loudest = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let speech = |i: &usize| loudest - DYNAMIC_RANGE_DB < levels[*i];
    let loud: Vec<usize> = (0..clean.len()).filter(speech).collect();
    let joined = |frames: &[Vec<f64>]| {
        let mut signal = vec![0.0; (loud.len() + 1) * HOP];
        for (to, &from) in loud.iter().enumerate() {
            signal[to * HOP..].iter_mut().zip(&frames[from]).for_each(|(s, x)| *s += x);
        }
        signal
    };
    (joined(clean), joined(processed))
}

/// The magnitude in each third-octave band, frame by frame (eq. 1).
fn envelopes(signal: &[f64]) -> Vec<[f64; BANDS]> {
    let fft = FftPlanner::new().plan_fft_forward(N_FFT);
    let mut scratch = vec![Complex::default(); fft.get_inplace_scratch_len()];
    let bands = bands();
    let of_frame = |frame: Vec<f64>| {
        let mut spectrum: Vec<Complex<f64>> = frame.into_iter().map(Complex::from).collect();
        spectrum.resize(N_FFT, Complex::default());
        fft.process_with_scratch(&mut spectrum, &mut scratch);
        bands.clone().map(|band| spectrum[band].iter().map(Complex::norm_sqr).sum::<f64>().sqrt())
    };
    frames(signal).into_iter().map(of_frame).collect()
}

/// The bins of each band, between the bins nearest to its edges.
fn bands() -> [std::ops::Range<usize>; BANDS] {
    let bin = |sixths: f64| {
        let hertz = LOWEST_BAND * 2f64.powf(sixths / 6.0);
        (hertz * N_FFT as f64 / f64::from(RATE)).round() as usize
    };
    std::array::from_fn(|b| bin(2.0 * b as f64 - 1.0)..bin(2.0 * b as f64 + 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Random, noisy, voice};
    use super::*;

    #[test]
    fn equal_signals_are_understood_at_any_level() {
        for rate in [10_000, 16_000, 32_000] {
            let clean = voice(2, rate, 2.0, 12);
            let quieter: Vec<f32> = clean.iter().map(|x| 0.01 * x).collect();
            for processed in [&clean, &quieter] {
                let score = stoi(&clean, processed, rate).unwrap();
                approx::assert_abs_diff_eq!(score, 1.0, epsilon = 1e-6);
            }
        }
    }

    #[test]
    fn more_noise_is_understood_less() {
        let clean = voice(2, 16_000, 3.0, 12);
        let score = |db: i32| stoi(&clean, &noisy(&clean, 3, f64::from(db)), 16_000).unwrap();
        let scores: Vec<f64> = (-2..5).rev().map(|db| score(10 * db)).collect();
        assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
        assert!(scores[0] > 0.995 && scores[6] < 0.4, "{scores:?}");
    }

    #[test]
    fn bands_are_those_of_the_paper() {
        let bands = bands();
        assert_eq!((bands[0].clone(), bands[14].clone()), (7..9, 174..219));
        assert!(bands.windows(2).all(|pair| pair[0].end == pair[1].start));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let clean = voice(2, 16_000, 1.0, 12);
        let (silence, shorter) = (vec![0.0; clean.len()], &clean[1..]);
        let mut bad = clean.clone();
        bad[7] = f32::NAN;
        assert!(matches!(stoi(&clean, shorter, 16_000), Err(Error::Lengths { .. })));
        assert!(matches!(stoi(&clean, &bad, 16_000), Err(Error::NotFinite { index: 7, .. })));
        assert!(matches!(stoi(&silence, &clean, 16_000), Err(Error::Silent { .. })));
        assert!(matches!(stoi(&clean, &silence, 16_000), Err(Error::Silent { .. })));
        assert!(matches!(stoi(&[], &[], 16_000), Err(Error::Silent { .. })));
        assert!(matches!(stoi(&clean, &clean, 8000), Err(Error::Rate { .. })));
        let short = &clean[..6000];
        assert!(matches!(stoi(short, short, 16_000), Err(Error::TooShort { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_panics_and_is_a_correlation(
            seed: u64, n in 1usize..9000, a in -38.0..38.0f64, b in -38.0..38.0f64, rate in 10_000u32..48_000,
        ) {
            let rate = rate / 500 * 500;
            let signal = |seed, power: f64| -> Vec<f32> {
                let gain = 10f64.powf(power);
                Random::new(seed).values(n).iter().map(|x| (x.powi(9) * gain) as f32).collect()
            };
            if let Ok(score) = stoi(&signal(seed, a), &signal(!seed, b), rate) {
                prop_assert!(score.abs() <= 1.0 + 1e-9, "{score}");
            }
        }
    }
}
