//! The frequencies of a rotary embedding, in the single precision in which `transformers` computes them.

use std::f32::consts::PI;

use super::{Config, Rotation};

/// The frequencies of a head's pairs of channels, and the amplitude of their rotation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rotary {
    /// Radians a position, one a pair.
    pub(super) frequencies: Vec<f32>,
    /// What cosines and sines are multiplied with.
    pub(super) amplitude: f32,
}

impl Rotary {
    pub(super) fn of(config: &Config) -> Self {
        let size = config.head_dim;
        let base = config.rope_theta as f32;
        // base^(2i/d) (Su et al. 2021, section 3.2.2).
        let periods: Vec<f32> =
            (0..size).step_by(2).map(|at| base.powf(at as f32 / size as f32)).collect();
        let plain = periods.iter().map(|period| 1.0 / period);
        let frequencies = match config.rotation {
            Rotation::Default => plain.collect(),
            Rotation::Linear { factor } => plain.map(|w| w / factor as f32).collect(),
            Rotation::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let low = low_freq_factor as f32;
                let bands = [
                    (original_max_position_embeddings / low_freq_factor) as f32,
                    (original_max_position_embeddings / high_freq_factor) as f32,
                ];
                let scale = |w: f32| {
                    let wavelength = 2.0 * PI / w;
                    if wavelength > bands[0] {
                        return w / factor as f32;
                    }
                    if wavelength < bands[1] {
                        return w;
                    }
                    let turns = original_max_position_embeddings as f32 / wavelength;
                    let share = (turns - low) / (high_freq_factor - low_freq_factor) as f32;
                    (1.0 - share) * w / factor as f32 + share * w
                };
                plain.map(scale).collect()
            }
            Rotation::Yarn { factor, .. } => {
                let ramp = ramp(config);
                let parts = periods.iter().zip(&ramp).map(|(period, share)| {
                    1.0 / (factor as f32 * period) * (1.0 - share) + 1.0 / period * share
                });
                parts.collect()
            }
        };
        Self { frequencies, amplitude: amplitude(&config.rotation) }
    }
}

/// By pair of channels, the share of the unscaled frequency (Peng et al. 2023, section 3.2).
fn ramp(config: &Config) -> Vec<f32> {
    let Rotation::Yarn { beta_fast, beta_slow, original_max_position_embeddings, truncate, .. } =
        config.rotation
    else {
        return Vec::new();
    };
    let size = config.head_dim as f64;
    let turns = |count: f64| {
        let of = (original_max_position_embeddings / (count * 2.0 * std::f64::consts::PI)).ln();
        size * of / (2.0 * config.rope_theta.ln())
    };
    let (low, high) = (turns(beta_fast), turns(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(size - 1.0));
    // Two equal bounds would divide by zero.
    let high = if low == high { high + 0.001 } else { high };
    (0..config.head_dim / 2)
        .map(|at| 1.0 - ((at as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0))
        .collect()
}

/// What YaRN multiplies cosines and sines with (Peng et al. 2023, eq. 22, and its generalisation by two scales).
fn amplitude(rotation: &Rotation) -> f32 {
    let Rotation::Yarn { factor, attention_factor, mscale, .. } = rotation else { return 1.0 };
    let of = |scale: f64| if *factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let amplitude = match (attention_factor, mscale) {
        (Some(given), _) => *given,
        (None, Some((one, all))) => of(*one) / of(*all),
        (None, None) => of(1.0),
    };
    amplitude as f32
}
