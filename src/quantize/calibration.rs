//! The ranges of activations that references show.

use std::collections::BTreeMap;

/// The values of an activation over a calibration set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The least value, 0 at most.
    pub least: f32,
    /// The largest value, 0 at least.
    pub largest: f32,
    /// The largest magnitude in each channel (the last axis).
    pub channels: Vec<f32>,
}

impl Observed {
    /// Takes in values whose last axis has so many channels.
    pub fn add(&mut self, values: &[f32], channels: usize) {
        self.channels.resize(channels, 0.0);
        for row in values.chunks_exact(channels.max(1)) {
            for (seen, value) in self.channels.iter_mut().zip(row) {
                *seen = seen.max(value.abs());
                self.least = self.least.min(*value);
                self.largest = self.largest.max(*value);
            }
        }
    }

    /// Scale and zero point of 8 bits over the range: `x ≈ scale · (q − zero_point)`.
    pub(super) fn levels(&self) -> (f32, u8) {
        let scale = ((self.largest - self.least) / 255.0).max(1e-30);
        (scale, (-self.least / scale).round_ties_even().clamp(0.0, 255.0) as u8)
    }
}

/// Activations by the names of their values.
pub type Calibration = BTreeMap<String, Observed>;
