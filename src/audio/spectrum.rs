use std::f64::consts::TAU;
use std::fmt;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

/// Short-time spectra under a periodic Hann window, `w[k] = ½ − ½ cos(2πk / n_fft)`, computed in
/// f64.
///
/// Frame `f` is centred on sample `f·hop`; beyond both ends the signal is zero. Every sample
/// counts, the first and last included, where `hop ≤ n_fft / 2`.
pub struct Stft {
    hop: usize,
    window: Vec<f64>,
    fft: Arc<dyn Fft<f64>>,
}

impl Stft {
    /// Plans transforms of `n_fft` samples, `hop` samples apart.
    ///
    /// # Panics
    /// Where either is zero.
    pub fn new(n_fft: usize, hop: usize) -> Self {
        assert!(n_fft > 0 && hop > 0, "n_fft and hop are at least 1");
        let hann = |k| 0.5 - 0.5 * (TAU * k as f64 / n_fft as f64).cos();
        let window = (0..n_fft).map(hann).collect();
        Self { hop, window, fft: FftPlanner::new().plan_fft_forward(n_fft) }
    }

    /// Frequencies in a frame: `n_fft / 2 + 1`, from 0 Hz up.
    pub fn bins(&self) -> usize {
        self.window.len() / 2 + 1
    }

    /// Frames of a signal: `1 + ⌊samples / hop⌋`, and none for an empty one.
    pub fn frames(&self, samples: usize) -> usize {
        if samples == 0 { 0 } else { 1 + samples / self.hop }
    }

    /// Magnitudes `|X|`, unnormalised: `[frames][bins]`. A sample that is NaN or infinite
    /// makes every bin of the frames that see it NaN.
    pub fn magnitudes(&self, signal: &[f32]) -> Vec<Vec<f64>> {
        let half = self.window.len() / 2;
        let mut scratch = vec![Complex::default(); self.fft.get_inplace_scratch_len()];
        let mut frame = vec![Complex::default(); self.window.len()];
        (0..self.frames(signal.len()))
            .map(|f| {
                for (k, (value, weight)) in frame.iter_mut().zip(&self.window).enumerate() {
                    let sample = (f * self.hop + k).checked_sub(half).and_then(|i| signal.get(i));
                    *value = Complex::from(sample.map_or(0.0, |&s| f64::from(s) * weight));
                }
                self.fft.process_with_scratch(&mut frame, &mut scratch);
                let bad = frame[..self.bins()].iter().any(|x| !x.re.is_finite() || !x.im.is_finite());
                let size = |x: &Complex<f64>| if bad { f64::NAN } else { x.norm_sqr().sqrt() };
                frame[..self.bins()].iter().map(size).collect()
            })
            .collect()
    }
}

impl fmt::Debug for Stft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stft").field("n_fft", &self.window.len()).field("hop", &self.hop).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sine_on_a_bin_is_a_quarter_of_n_fft_there_and_an_eighth_beside_it() {
        let (n, bin) = (64, 5);
        let sine: Vec<f32> =
            (0..512).map(|i| (TAU * (bin * i) as f64 / n as f64).sin() as f32).collect();
        let stft = Stft::new(n, 16);
        let frames = stft.magnitudes(&sine);
        assert_eq!((frames.len(), frames[0].len()), (33, 33));
        let middle = &frames[16];
        for (k, &m) in middle.iter().enumerate() {
            let distance = k.abs_diff(bin);
            let expected = [16.0, 8.0].get(distance).copied().unwrap_or(0.0);
            approx::assert_abs_diff_eq!(m, expected, epsilon = 1e-5);
        }
    }

    #[test]
    fn the_first_and_the_last_sample_count() {
        for at in [0, 99] {
            let mut click = vec![0.0; 100];
            click[at] = 1.0;
            let frames = Stft::new(32, 16).magnitudes(&click);
            assert!(frames.iter().any(|frame| frame[0] > 0.5), "sample {at}");
        }
    }

    #[test]
    fn frames_are_as_many_as_promised() {
        let stft = Stft::new(8, 3);
        for samples in [0, 1, 2, 3, 4, 8, 9, 50] {
            assert_eq!(stft.magnitudes(&vec![1.0; samples]).len(), stft.frames(samples));
        }
        assert_eq!(stft.frames(0), 0);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut signal = vec![0.1; 100];
            signal[50] = bad;
            let frames = Stft::new(16, 8).magnitudes(&signal);
            assert!(frames[6].iter().all(|m| m.is_nan()), "{:?}", frames[6]);
            assert!(frames[0].iter().all(|m| m.is_finite()));
        }
    }
}
