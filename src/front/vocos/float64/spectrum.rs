//! The inverse of a centred short-time Fourier transform.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use crate::front::float64::Rows;

/// Frames transformed together.
const PANEL: usize = 256;

/// Overlap and add of windowed frames (Griffin and Lim 1984, Signal Estimation from Modified Short-Time Fourier
/// Transform, eq. 6): with yₘ the inverse transform of frame m and w the window,
///
/// ```text
/// x[t] = Σₘ w[t − m·hop]·yₘ[t − m·hop] / Σₘ w[t − m·hop]²
/// ```
///
/// of which n_fft/2 samples are taken off at both ends.
pub(super) struct Inverse {
    hop: usize,
    window: Vec<f64>,
    fft: Arc<dyn Fft<f64>>,
}

impl fmt::Debug for Inverse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inverse").field("n_fft", &self.window.len()).field("hop", &self.hop).finish()
    }
}

impl Inverse {
    /// Of frames of the window's size, `hop` apart.
    pub(super) fn new(window: Vec<f64>, hop: usize) -> Self {
        let fft = FftPlanner::new().plan_fft_inverse(window.len());
        Self { hop, window, fft }
    }

    /// The samples of a sequence of spectra, hop·(frames − 1). `polar` are rows of magnitudes and phases, n_fft/2 + 1
    /// each.
    pub(super) fn samples(&self, polar: &Rows) -> Vec<f64> {
        let size = self.window.len();
        let length = self.hop * polar.nrows().saturating_sub(1);
        let mut sums = vec![0.0; length + size];
        let mut envelope = vec![0.0; length + size];
        let values = polar.as_slice().expect("rows stand one after another");
        for (panel, rows) in values.chunks(PANEL * polar.ncols().max(1)).enumerate() {
            let rows = rows.par_chunks(polar.ncols().max(1)).with_min_len(8);
            let frames: Vec<Vec<f64>> = rows.map(|row| self.frame(row)).collect();
            for (at, frame) in frames.iter().enumerate() {
                let from = (panel * PANEL + at) * self.hop;
                let places = sums[from..from + size].iter_mut().zip(&mut envelope[from..from + size]);
                for ((sum, weight), (y, w)) in places.zip(frame.iter().zip(&self.window)) {
                    *sum += w * y;
                    *weight += w * w;
                }
            }
        }
        let middle = size / 2..size / 2 + length;
        sums[middle.clone()].iter().zip(&envelope[middle]).map(|(sum, weight)| sum / weight).collect()
    }

    /// The inverse transform of one spectrum, whose first and last bin are left out.
    fn frame(&self, polar: &[f64]) -> Vec<f64> {
        let size = self.window.len();
        let (magnitudes, phases) = polar.split_at(polar.len() / 2);
        let mut spectrum = vec![Complex::default(); size];
        for bin in 1..size / 2 {
            let value = Complex::from_polar(magnitudes[bin], phases[bin]);
            (spectrum[bin], spectrum[size - bin]) = (value, value.conj());
        }
        self.fft.process(&mut spectrum);
        spectrum.iter().map(|value| value.re / size as f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// Σ over all frequencies, as the definition has it.
    fn directly(polar: &Rows, window: &[f64], hop: usize) -> Vec<f64> {
        let (size, bins) = (window.len(), window.len() / 2 + 1);
        let length = hop * (polar.nrows() - 1);
        let (mut sums, mut weights) = (vec![0.0; length + size], vec![0.0; length + size]);
        for (m, row) in polar.rows().into_iter().enumerate() {
            for n in 0..size {
                let wave = |k: usize| {
                    2.0 * row[k] * (row[bins + k] + TAU * (k * n) as f64 / size as f64).cos()
                        / size as f64
                };
                sums[m * hop + n] += window[n] * (1..size / 2).map(wave).sum::<f64>();
                weights[m * hop + n] += window[n] * window[n];
            }
        }
        (size / 2..size / 2 + length).map(|t| sums[t] / weights[t]).collect()
    }

    #[test]
    fn it_is_the_sum_of_its_waves() {
        let (size, hop) = (16, 4);
        let window: Vec<f64> = (0..size).map(|n| 0.5 - 0.5 * (TAU * n as f64 / 16.0).cos()).collect();
        for frames in [2, 3, 700] {
            let polar = Rows::from_shape_fn((frames, 18), |(m, k)| ((m * 7 + k * 5) % 11) as f64 * 0.3);
            let samples = Inverse::new(window.clone(), hop).samples(&polar);
            assert_eq!(samples.len(), hop * (frames - 1));
            let want = directly(&polar, &window, hop);
            samples.iter().zip(&want).for_each(|(a, b)| assert!((a - b).abs() < 1e-13, "{a} {b}"));
        }
        assert!(Inverse::new(window, hop).samples(&Rows::zeros((1, 18))).is_empty());
    }
}
