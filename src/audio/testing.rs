//! Signals for tests, and what the published Python packages make of them: `fixtures/audio/oracle.py`
//! makes the same ones by the same arithmetic.

use std::f64::consts::{PI, TAU};

use approx::{assert_abs_diff_eq, assert_relative_eq};

use super::{estoi, mel_cepstral_distortion_db, si_sdr_db, stoi};

/// Something like speech: syllables of 180 ms, each a vowel (harmonics of a gliding pitch under
/// three formants) or a hiss, in sentences of `words` syllables with four silent ones between.
pub fn voice(seed: u64, rate: u32, seconds: f64, words: usize) -> Vec<f32> {
    const SYLLABLE: f64 = 0.18;
    let mut random = Random::new(seed);
    let syllables: Vec<[f64; 5]> = (0..(seconds / SYLLABLE).ceil() as usize)
        .map(|_| {
            let [kind, f1, f2, f3, loudness] = std::array::from_fn(|_| random.next());
            [kind, 550.0 + 250.0 * f1, 1500.0 + 600.0 * f2, 2900.0 + 500.0 * f3, 0.7 + 0.3 * loudness]
        })
        .collect();
    let mut breath = Random::new(seed + 1);
    let mut last = 0.0;
    let sample = |i: usize| {
        let t = i as f64 / f64::from(rate);
        let noise = breath.next();
        let hiss = noise - last;
        last = noise;
        let k = (t / SYLLABLE).floor();
        let [kind, f1, f2, f3, loudness] = syllables[k as usize];
        let pause = k as usize % (words + 4) >= words;
        let envelope = if pause { 0.0 } else { loudness * (PI * (t / SYLLABLE - k)).sin().sqrt() };
        let pitch = TAU * (120.0 * t - 20.0 / (TAU * 0.7) * (TAU * 0.7 * t).cos());
        let harmonic = |h: usize| {
            let hertz = 120.0 * h as f64;
            let near = |formant: f64, width: f64| 1.0 / (1.0 + ((hertz - formant) / width).powi(2));
            (near(f1, 90.0) + 0.5 * near(f2, 110.0) + 0.3 * near(f3, 160.0)) * (pitch * h as f64).sin()
        };
        let vowel = || (1..=32).map(harmonic).sum::<f64>();
        let sound = if kind < -0.6 { 0.15 * hiss } else { 0.1 * vowel() };
        (envelope * sound + 1e-4 * noise) as f32
    };
    (0..(seconds * f64::from(rate)).round() as usize).map(sample).collect()
}

/// The signal with white noise at a signal-to-noise ratio in dB.
pub fn noisy(signal: &[f32], seed: u64, db: f64) -> Vec<f32> {
    let noise = Random::new(seed).values(signal.len());
    let power: f64 = signal.iter().map(|&x| f64::from(x).powi(2)).sum();
    let gain = (power / noise.iter().map(|n| n * n).sum::<f64>() / 10f64.powf(db / 10.0)).sqrt();
    signal.iter().zip(noise).map(|(&x, n)| (f64::from(x) + gain * n) as f32).collect()
}

/// The signal at another gain.
pub fn scaled(signal: &[f32], gain: f32) -> Vec<f32> {
    signal.iter().map(|x| gain * x).collect()
}

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Uniform in −1 … 1.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        bits as f64 / f64::from(1 << 23) - 1.0
    }

    pub fn values(mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| self.next()).collect()
    }
}

fn shaped(signal: &[f32], f: impl Fn(f64) -> f64) -> Vec<f32> {
    signal.iter().map(|&x| f(f64::from(x)) as f32).collect()
}

/// Later by `delay` samples from sample `from` on, as long as before.
fn delayed(signal: &[f32], from: usize, delay: usize) -> Vec<f32> {
    [&signal[..from], &vec![0.0; delay], &signal[from..signal.len() - delay]].concat()
}

/// Earlier by `samples` from sample `from` on, as long as before.
fn hastened(signal: &[f32], from: usize, samples: usize) -> Vec<f32> {
    [&signal[..from], &signal[from + samples..], &vec![0.0; samples]].concat()
}

/// Each sample, or in the last `samples` of `every` so many, what `other` gives for its index.
fn spoiled(signal: &[f32], every: usize, samples: usize, other: impl Fn(usize) -> f32) -> Vec<f32> {
    let sample = |(i, &x): (usize, &f32)| if i % every < every - samples { x } else { other(i) };
    signal.iter().enumerate().map(sample).collect()
}

fn smoothed(signal: &[f32], taps: usize) -> Vec<f32> {
    let mean = |i: usize| {
        let seen = &signal[(i + 1).saturating_sub(taps)..=i];
        (seen.iter().map(|&x| f64::from(x)).sum::<f64>() / taps as f64) as f32
    };
    (0..signal.len()).map(mean).collect()
}

/// A rate, a reference (mostly `v`) and a degraded signal.
fn material(name: &str, v: &[f32]) -> (u32, Vec<f32>, Vec<f32>) {
    let with_noise = |rate, signal: Vec<f32>, db| (rate, signal.clone(), noisy(&signal, 9, db));
    match name {
        "many_sentences" => return with_noise(16_000, voice(3, 16_000, 20.0, 9), 20.0),
        "short" => return with_noise(16_000, voice(5, 16_000, 1.0, 12), 20.0),
        "stoi_at_its_own_rate" => return with_noise(10_000, voice(7, 10_000, 4.0, 12), 5.0),
        "soprano_rate" => return with_noise(32_000, voice(7, 32_000, 4.0, 12), 20.0),
        "cd_rate" => return with_noise(44_100, voice(7, 44_100, 3.0, 12), 20.0),
        _ => {}
    }
    let degraded = match name {
        "equal" => v.to_vec(),
        "noise_50" => noisy(v, 9, 50.0),
        "noise_30" => noisy(v, 9, 30.0),
        "noise_15" => noisy(v, 9, 15.0),
        "noise_0" => noisy(v, 9, 0.0),
        "quieter" => shaped(&noisy(v, 9, 25.0), |x| 0.05 * x),
        "clipped" => shaped(v, |x| x.clamp(-0.05, 0.05)),
        "quantized" => shaped(v, |x| (x * 64.0 + 0.5).floor() / 64.0),
        "smoothed" => smoothed(v, 6),
        "offset" => shaped(v, |x| x + 0.1),
        "late" => delayed(v, 0, 1234),
        "early" => hastened(v, 0, 777),
        "late_from_a_pause_on" => noisy(&delayed(v, 51_000, 480), 9, 30.0),
        "late_within_a_sentence" => delayed(v, 20_000, 900),
        "early_within_a_sentence" => hastened(v, 20_000, 900),
        "late_then_early" => hastened(&delayed(v, 15_000, 700), 80_000, 1100),
        "dropped" => spoiled(v, 16_000, 1600, |_| 0.0),
        "misplaced" => spoiled(v, 12_000, 4000, |i| v[i - 600]),
        _ => panic!("{name}: no such signal"),
    };
    (16_000, v.to_vec(), degraded)
}

#[derive(serde::Deserialize)]
struct Oracle {
    scores: Vec<Score>,
}

#[derive(serde::Deserialize)]
struct Score {
    name: String,
    stoi: f64,
    estoi: f64,
    /// None below 16 kHz.
    mel_cepstral_distortion_db: Option<f64>,
    /// None where it is infinite.
    si_sdr_db: Option<f64>,
}

#[test]
fn scores_are_those_of_independent_implementations() {
    let oracle: Oracle =
        serde_json::from_str(include_str!("../../fixtures/audio/quality.json")).unwrap();
    assert_eq!(oracle.scores.len(), 23);
    let v = voice(1, 16_000, 7.0, 12);
    for score in oracle.scores {
        let name = score.name.as_str();
        let (rate, reference, degraded) = material(name, &v);
        println!("{name}");
        assert_abs_diff_eq!(stoi(&reference, &degraded, rate).unwrap(), score.stoi, epsilon = 1e-5);
        assert_abs_diff_eq!(estoi(&reference, &degraded, rate).unwrap(), score.estoi, epsilon = 1e-5);
        let ratio = si_sdr_db(&reference, &degraded).unwrap();
        // Infinities are equal to this macro alone.
        assert_relative_eq!(ratio, score.si_sdr_db.unwrap_or(f64::INFINITY), epsilon = 1e-4);
        let distortion = mel_cepstral_distortion_db(&reference, &degraded, rate).ok();
        assert_eq!(distortion.is_some(), score.mel_cepstral_distortion_db.is_some());
        for (distortion, expected) in distortion.into_iter().zip(score.mel_cepstral_distortion_db) {
            assert_abs_diff_eq!(distortion, expected, epsilon = 1e-4);
        }
    }
}
