use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

use super::{LEAD, Padded, RATE, STEP};

/// Mean power that both signals are brought to, within the band of `SPEECH_BAND`.
const TARGET_POWER: f64 = 1e7;

/// Corners of the band in which the level is measured, in Hz, and its gain there in dB; straight
/// lines between them.
const SPEECH_BAND: [(f64, f64); 4] = [(300.0, -500.0), (350.0, 0.0), (3250.0, 0.0), (3500.0, -500.0)];

/// A second-order section: `b0 b1 b2 a1 a2`, with `a0 = 1`.
type Section = [f64; 5];

/// Input filter of P.862.2: a headphone's response, flat from about 100 Hz up.
const WIDEBAND: [Section; 1] = [[2.740826, -5.4816519, 2.740826, -1.9444777, 0.94597794]];

/// What alignment listens through: P.862's band pass for 16 kHz.
const ALIGNMENT: [Section; 12] = [
    [0.325631521, -0.086782860, -0.238848661, -1.079416490, 0.434583902],
    [0.403961804, -0.556985881, 0.153024077, -0.415115835, 0.696590244],
    [4.736162769, 3.287251046, 1.753289019, -1.859599046, 0.876284034],
    [0.365373469, 0.0, 0.0, -0.634626531, 0.0],
    [0.884811506, 0.0, 0.0, -0.256725271, 0.141536777],
    [0.723593055, -1.447186099, 0.723593044, -1.129587469, 0.657232737],
    [1.644910855, -1.817280902, 1.249658063, -1.778403899, 0.801724355],
    [0.633692689, -0.284644314, -0.319789663, 0.0, 0.0],
    [1.032763031, 0.268428979, 0.602913323, 0.0, 0.0],
    [1.001616361, -0.823749013, 0.439731942, -0.885778255, 0.0],
    [0.752472096, -0.375388990, 0.188977609, -0.077258216, 0.247230734],
    [1.023700575, 0.001661628, 0.521284240, -0.183867259, 0.354324187],
];

/// Brings the signal to the standard listening level; `None` where it has nothing in the band of
/// speech.
pub(super) fn to_standard_level(signal: &mut Padded) -> Option<()> {
    let gain = (TARGET_POWER / speech_power(&signal.samples[LEAD..signal.span()])).sqrt();
    signal.samples.iter_mut().for_each(|x| *x *= gain);
    gain.is_finite().then_some(())
}

/// Mean square after the band pass of [`SPEECH_BAND`].
fn speech_power(samples: &[f64]) -> f64 {
    let size = samples.len().next_power_of_two();
    let mut planner = FftPlanner::new();
    let mut spectrum: Vec<Complex<f64>> = samples.iter().map(|&x| Complex::from(x)).collect();
    spectrum.resize(size, Complex::default());
    planner.plan_fft_forward(size).process(&mut spectrum);
    for (k, bin) in spectrum.iter_mut().enumerate() {
        let hertz = k.min(size - k) as f64 * f64::from(RATE) / size as f64;
        *bin *= 10f64.powf(speech_band_db(hertz) / 20.0) / size as f64;
    }
    planner.plan_fft_inverse(size).process(&mut spectrum);
    spectrum[..samples.len()].iter().map(|x| x.re * x.re).sum::<f64>() / samples.len() as f64
}

fn speech_band_db(hertz: f64) -> f64 {
    let next = SPEECH_BAND.iter().position(|&(corner, _)| hertz < corner);
    let ((low, from), (high, to)) = match next {
        None | Some(0) => return -500.0,
        Some(next) => (SPEECH_BAND[next - 1], SPEECH_BAND[next]),
    };
    from + (to - from) * (hertz - low) / (high - low)
}

/// As the listener of P.862.2 hears it: faded in and out over 1 ms, then filtered.
pub(super) fn listened(signal: &mut Padded) {
    let speech = signal.speech();
    fade(speech, |k| k as f64 / 16.0, 1..16);
    filter(speech, &WIDEBAND);
}

/// As alignment takes it: centred on zero, faded over 4 ms, band-passed.
pub(super) fn for_alignment(signal: &Padded) -> Padded {
    let mut signal = signal.clone();
    // The mean is over the silence at both ends too.
    let mean = signal.speech().iter().sum::<f64>() / signal.searched() as f64;
    signal.speech().iter_mut().for_each(|x| *x -= mean);
    fade(signal.speech(), |k| (k as f64 + 0.5) / STEP as f64, 0..STEP);
    filter(&mut signal.samples, &ALIGNMENT);
    signal
}

/// Weighs the first samples by the gains of `steps`, and the last ones by the same backwards.
fn fade(samples: &mut [f64], gain: impl Fn(usize) -> f64, steps: std::ops::Range<usize>) {
    let last = samples.len() - 1;
    for (i, k) in steps.enumerate() {
        samples[i] *= gain(k);
        samples[last - i] *= gain(k);
    }
}

/// A cascade in direct form II, from rest. In f32, as P.862's own program: an offset leaves rounding
/// noise in the pauses, which the score can hear.
fn filter(samples: &mut [f64], cascade: &[Section]) {
    for section in cascade {
        let [b0, b1, b2, a1, a2] = section.map(|c| c as f32);
        let (mut z1, mut z2) = (0.0, 0.0);
        for x in samples.iter_mut() {
            let z = *x as f32 - a1 * z1 - a2 * z2;
            *x = f64::from(b0 * z + b1 * z1 + b2 * z2);
            (z2, z1) = (z1, z);
        }
    }
}
