//! Rotary position embedding (Su et al. 2021, RoFormer, section 3.2.2), scaled or not.

use std::f64::consts::TAU;

use super::super::{Config, Rotation};

/// Frequencies θᵢ of a head's pairs of channels, and the amplitude of every rotation.
#[derive(Clone, Debug)]
pub(super) struct Rotary {
    frequencies: Vec<f32>,
    amplitude: f64,
}

/// cos and sin of a token's angles, one a pair of channels.
pub(super) struct Angles {
    cos: Vec<f64>,
    sin: Vec<f64>,
}

impl Rotary {
    /// θᵢ = base^(−2i/d), scaled as the config has it.
    pub(super) fn new(config: &Config) -> Self {
        let dim = config.head_dim as f32;
        let base = f64::from(config.rope_theta as f32);
        let wavelength = |i: usize| base.powf(f64::from((2 * i) as f32 / dim)) as f32;
        let lengths: Vec<f32> = (0..config.head_dim / 2).map(wavelength).collect();
        let plain = lengths.iter().map(|length| 1.0 / length);
        let (frequencies, amplitude) = match &config.rotation {
            Rotation::Default => (plain.collect(), 1.0),
            Rotation::Linear { factor } => (plain.map(|f| f / *factor as f32).collect(), 1.0),
            Rotation::Llama3 { .. } => (plain.map(|f| llama3(f, &config.rotation)).collect(), 1.0),
            Rotation::Yarn { .. } => yarn(&lengths, config),
        };
        Self { frequencies, amplitude }
    }

    /// Of a token at a position: φᵢ = position·θᵢ.
    pub(super) fn at(&self, position: i64) -> Angles {
        let angles = self.frequencies.iter().map(|&f| f64::from(position as f32 * f));
        let (sin, cos) =
            angles.map(|angle| (angle.sin() * self.amplitude, angle.cos() * self.amplitude)).unzip();
        Angles { cos, sin }
    }
}

impl Angles {
    /// Turns a head: of channels i and i + d/2 the one to x·cos φᵢ − y·sin φᵢ, the other to y·cos φᵢ + x·sin φᵢ.
    pub(super) fn turn(&self, head: &mut [f64]) {
        let (left, right) = head.split_at_mut(self.cos.len());
        for (((x, y), cos), sin) in left.iter_mut().zip(right).zip(&self.cos).zip(&self.sin) {
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        }
    }
}

/// Low frequencies over the factor, high ones as they are, and between the two a mixture that is linear in how many
/// wavelengths the original positions hold (Llama 3.1's).
fn llama3(frequency: f32, rotation: &Rotation) -> f32 {
    let &Rotation::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings,
    } = rotation
    else {
        return frequency;
    };
    let f = f64::from(frequency);
    let wavelengths = original_max_position_embeddings * f / TAU;
    let scaled = if wavelengths < low {
        f / factor
    } else if wavelengths > high {
        f
    } else {
        let share = (wavelengths - low) / (high - low);
        (1.0 - share) * f / factor + share * f
    };
    scaled as f32
}

/// As [`llama3`], by dimension (Peng et al. 2023, YaRN, section 3.2), and every rotation times 0.1·ln(factor) + 1
/// (section 3.4) or what the config has instead.
fn yarn(lengths: &[f32], config: &Config) -> (Vec<f32>, f64) {
    let &Rotation::Yarn {
        factor,
        attention_factor,
        mscale,
        beta_fast,
        beta_slow,
        original_max_position_embeddings: original,
        truncate,
    } = &config.rotation
    else {
        return (Vec::new(), 1.0);
    };
    let amplitude = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let amplitude = attention_factor.unwrap_or_else(|| match mscale {
        Some((some, all)) => amplitude(some) / amplitude(all),
        None => amplitude(1.0),
    });
    // The dimension whose frequency turns so often over the original positions.
    let dim = config.head_dim as f64;
    let turns = |count: f64| dim * (original / (count * TAU)).ln() / (2.0 * config.rope_theta.ln());
    let (mut low, mut high) = (turns(beta_fast), turns(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let scaled = |(i, &length): (usize, &f32)| {
        let share = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        let length = f64::from(length);
        (share / (factor * length) + (1.0 - share) / length) as f32
    };
    (lengths.iter().enumerate().map(scaled).collect(), amplitude)
}
