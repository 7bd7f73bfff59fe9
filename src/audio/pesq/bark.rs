use std::f64::consts::TAU;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use super::FRAME;

/// Critical bands up to 8 kHz.
pub(super) const BANDS: usize = 49;
/// A value for each band.
pub(super) type Bark = [f64; BANDS];

/// `Sp`: brings powers to a scale on which a tone of 1 kHz and 40 dB SPL has 10⁴ at its peak.
const POWER_SCALE: f64 = 6.910853e-6;
/// `Sl`: brings the loudness of that tone to 1 sone.
const LOUDNESS_SCALE: f64 = 0.1866055;
/// Exponent of loudness (Zwicker).
const ZWICKER: f64 = 0.23;

/// A critical band of P.862's model at 16 kHz.
pub(super) struct Band {
    /// Bins of a spectrum of 512 samples, from where the band below ends.
    bins: usize,
    /// Its middle, in Bark.
    centre: f64,
    /// In Bark.
    pub width: f64,
    /// What makes up for its width in bins being whole, times 100.
    correction: f64,
    /// The absolute threshold of hearing, as a power.
    threshold: f64,
}

const fn band(bins: usize, centre: f64, width: f64, correction: f64, threshold: f64) -> Band {
    Band { bins, centre, width, correction, threshold }
}

#[rustfmt::skip]
pub(super) const TABLE: [Band; BANDS] = [
    band(1, 0.078672, 0.157344, 100.0, 51286152.0),
    band(1, 0.316341, 0.317994, 99.999992, 2454709.5),
    band(1, 0.636559, 0.322441, 100.0, 70794.59375),
    band(1, 0.961246, 0.326934, 100.000008, 4897.788574),
    band(1, 1.29045, 0.331474, 100.000008, 1174.897705),
    band(1, 1.624217, 0.336061, 100.000015, 389.045166),
    band(1, 1.962597, 0.340697, 99.999992, 104.71286),
    band(1, 2.305636, 0.345381, 99.999969, 45.70882),
    band(2, 2.653383, 0.350114, 50.000027, 17.782795),
    band(1, 3.005889, 0.354897, 100.0, 9.772372),
    band(1, 3.363201, 0.359729, 99.999969, 4.897789),
    band(1, 3.725371, 0.364611, 100.000015, 3.090296),
    band(1, 4.092449, 0.369544, 99.999947, 1.905461),
    band(1, 4.464486, 0.374529, 100.000061, 1.258925),
    band(2, 4.841533, 0.379565, 53.047077, 0.977237),
    band(1, 5.223642, 0.384653, 110.000046, 0.724436),
    band(1, 5.610866, 0.389794, 117.991989, 0.562341),
    band(2, 6.003256, 0.394989, 65.0, 0.457088),
    band(2, 6.400869, 0.400236, 68.760147, 0.389045),
    band(2, 6.803755, 0.405538, 69.999931, 0.331131),
    band(2, 7.211971, 0.410894, 71.428818, 0.295121),
    band(2, 7.625571, 0.416306, 75.000038, 0.269153),
    band(2, 8.044611, 0.421773, 76.843384, 0.25704),
    band(2, 8.469146, 0.427297, 80.968781, 0.251189),
    band(2, 8.899232, 0.432877, 88.646126, 0.251189),
    band(3, 9.334927, 0.438514, 63.864388, 0.251189),
    band(3, 9.776288, 0.444209, 68.15535, 0.251189),
    band(3, 10.223374, 0.449962, 72.547775, 0.263027),
    band(3, 10.676242, 0.455774, 75.584831, 0.288403),
    band(4, 11.134952, 0.461645, 58.379192, 0.30903),
    band(3, 11.599563, 0.467577, 80.950836, 0.338844),
    band(4, 12.070135, 0.473569, 64.135651, 0.371535),
    band(5, 12.546731, 0.479621, 54.384785, 0.398107),
    band(4, 13.029408, 0.485736, 73.821884, 0.436516),
    band(5, 13.518232, 0.491912, 64.437073, 0.467735),
    band(6, 14.013264, 0.498151, 59.176456, 0.489779),
    band(6, 14.514566, 0.504454, 65.521278, 0.501187),
    band(7, 15.022202, 0.510819, 61.399822, 0.501187),
    band(8, 15.536238, 0.51725, 58.144047, 0.512861),
    band(9, 16.056736, 0.523745, 57.004543, 0.524807),
    band(9, 16.583761, 0.530308, 64.126297, 0.524807),
    band(12, 17.117382, 0.536934, 54.311001, 0.524807),
    band(12, 17.657663, 0.543629, 61.114979, 0.512861),
    band(15, 18.204674, 0.55039, 55.077751, 0.47863),
    band(16, 18.758478, 0.55722, 56.849335, 0.42658),
    band(18, 19.319147, 0.564119, 55.628868, 0.371535),
    band(21, 19.886751, 0.571085, 53.137054, 0.363078),
    band(25, 20.461355, 0.578125, 54.985844, 0.416869),
    band(20, 21.043034, 0.585232, 79.546974, 0.537032),
];

/// Power in each band, from frames of 512 samples under a Hann window.
pub(super) struct Spectrometer {
    window: Vec<f64>,
    fft: Arc<dyn Fft<f64>>,
}

impl Spectrometer {
    pub fn new() -> Self {
        let window = (0..FRAME).map(|i| 0.5 - 0.5 * (TAU * i as f64 / FRAME as f64).cos()).collect();
        Self { window, fft: FftPlanner::new().plan_fft_forward(FRAME) }
    }

    /// Of the first 512 samples; the mean and the highest frequency don't count.
    pub fn powers(&self, samples: &[f64]) -> Bark {
        let windowed = samples.iter().zip(&self.window).map(|(x, w)| Complex::from(x * w));
        let mut spectrum: Vec<Complex<f64>> = windowed.collect();
        self.fft.process(&mut spectrum);
        spectrum[0] = Complex::default();
        let mut bins = spectrum.iter();
        std::array::from_fn(|b| {
            let band = &TABLE[b];
            let power: f64 = bins.by_ref().take(band.bins).map(Complex::norm_sqr).sum();
            power * band.correction * POWER_SCALE
        })
    }
}

/// Whether a power is audible by `factor` in its band.
pub(super) fn audible(band: usize, power: f64, factor: f64) -> bool {
    power > factor * TABLE[band].threshold
}

/// The power in all bands but the lowest in which it is audible by `factor`.
pub(super) fn audible_power(powers: &Bark, factor: f64) -> f64 {
    (1..BANDS).filter(|&b| audible(b, powers[b], factor)).map(|b| powers[b]).sum()
}

/// Loudness in sone per Bark (Zwicker & Fastl, Psychoacoustics), with an exponent that grows
/// towards the lowest bands.
pub(super) fn loudness(powers: &Bark) -> Bark {
    std::array::from_fn(|b| {
        let Band { centre, threshold, .. } = TABLE[b];
        let steeper = if centre < 4.0 { (6.0 / (centre + 2.0)).min(2.0).powf(0.15) } else { 1.0 };
        let exponent = ZWICKER * steeper;
        if powers[b] <= threshold {
            return 0.0;
        }
        let above = (0.5 + 0.5 * powers[b] / threshold).powf(exponent) - 1.0;
        LOUDNESS_SCALE * (threshold / 0.5).powf(exponent) * above
    })
}

/// The `p`-norm over all bands but the lowest, weighted by their widths.
pub(super) fn norm(density: &Bark, p: i32) -> f64 {
    let bands = || density.iter().zip(&TABLE).skip(1);
    let width: f64 = bands().map(|(_, band)| band.width).sum();
    let sum: f64 = bands().map(|(d, band)| (d.abs() * band.width).powi(p)).sum();
    (sum / width).powf(1.0 / f64::from(p)) * width
}
