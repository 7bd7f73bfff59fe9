//! Inputs, drawn from a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::digest::Hasher;
use crate::front::float64::{Frames, Signs};

/// A generator of its own for whatever is drawn.
fn generator(what: &str, seed: u64, numbers: &[usize]) -> ChaCha8Rng {
    let mut hasher = Hasher::default();
    hasher.field("what", what).field("seed", seed.to_le_bytes());
    for &number in numbers {
        hasher.field("number", (number as u64).to_le_bytes());
    }
    let key = hasher.finish().short();
    ChaCha8Rng::seed_from_u64(u64::from_str_radix(&key, 16).unwrap_or(0))
}

/// Token ids of a batch, each as likely as the others.
pub(super) fn ids(batch: usize, length: usize, vocabulary: usize, seed: u64) -> Vec<Vec<i64>> {
    let mut generator = generator("ids", seed, &[batch, length]);
    let mut id = || ((u128::from(generator.next_u64()) * vocabulary as u128) >> 64) as i64;
    (0..batch).map(|_| (0..length).map(|_| id()).collect()).collect()
}

/// Numbers of the standard normal distribution (Box and Muller 1958). Every function is Rust's own: the numbers are the
/// same on all machines.
struct Normal {
    generator: ChaCha8Rng,
    left: Option<f64>,
}

impl Normal {
    fn new(what: &str, seed: u64, numbers: &[usize]) -> Self {
        Self { generator: generator(what, seed, numbers), left: None }
    }

    fn next(&mut self) -> f64 {
        if let Some(value) = self.left.take() {
            return value;
        }
        let mut share = || ((self.generator.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let radius = libm::sqrt(-2.0 * libm::log(share()));
        let angle = std::f64::consts::TAU * share();
        self.left = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }
}

/// Frames [channels, length] in f32's numbers, shaped like the rows that a language model leaves after its final norm:
/// each has unit root mean square before a scale of its channel, which the seed alone decides, and neighbours are
/// correlated. `row` is its place in a batch: a batch of one has the first row of every other.
pub(super) fn lifelike(channels: usize, length: usize, row: usize, seed: u64) -> Frames {
    let mut scale = Normal::new("scale", seed, &[]);
    let scale: Vec<f64> = (0..channels).map(|_| libm::exp(0.4 * scale.next())).collect();
    let mut normal = Normal::new("frames", seed, &[length, row]);
    let steps: Vec<f64> = (0..channels * (length + 2)).map(|_| normal.next()).collect();
    let mut values = vec![0.0; channels * length];
    for (values, steps) in values.chunks_mut(length.max(1)).zip(steps.chunks(length + 2)) {
        for (value, steps) in values.iter_mut().zip(steps.windows(3)) {
            let smooth = 0.25 * steps[0] + 0.5 * steps[1] + 0.25 * steps[2];
            *value = smooth + 0.5 * normal.next();
        }
    }
    for at in 0..length {
        let column = || (0..channels).map(|channel| channel * length + at);
        let square: f64 = column().map(|at| values[at] * values[at]).sum();
        let size = libm::sqrt(square / channels as f64);
        for (place, scale) in column().zip(&scale) {
            values[place] = f64::from((scale * values[place] / size) as f32);
        }
    }
    Frames { length, values }
}

/// Frames with a last bit more or less in every number. A zero, which has no last bit that counts, moves by 2⁻²⁴ of
/// `scale`, the magnitude of lifelike inputs: what a rounding leaves where values of that size cancel.
pub(super) fn moved(frames: &Frames, name: &str, scale: f64, seed: u64) -> Frames {
    let mut signs = Signs::new(name, seed, 0);
    let move_one = |&value: &f64| {
        let factor = signs.factor();
        if value == 0.0 { scale * (factor - 1.0) } else { value * factor }
    };
    Frames { length: frames.length, values: frames.values.iter().map(move_one).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_each_time_and_every_token_comes() {
        let drawn = ids(3, 700, 7, 5);
        assert_eq!(drawn, ids(3, 700, 7, 5));
        for other in [ids(3, 700, 7, 6), ids(3, 701, 7, 5)] {
            assert_ne!(drawn[0][..], other[0][..700]);
        }
        let mut counts = [0; 7];
        drawn.iter().flatten().for_each(|&id| counts[id as usize] += 1);
        assert!(counts.iter().all(|count| (200..400).contains(count)), "{counts:?}");
        assert_eq!(ids(1, 2, 1, 0), [[0, 0]]);
    }

    #[test]
    fn frames_have_the_size_of_their_channels_and_neighbours_are_alike() {
        let (channels, length) = (64, 400);
        let frames = lifelike(channels, length, 0, 3);
        assert_eq!(frames, lifelike(channels, length, 0, 3));
        assert!(frames.values.iter().all(|&value| value == f64::from(value as f32)));
        assert_ne!(frames, lifelike(channels, length, 1, 3));
        assert_ne!(frames, lifelike(channels, length, 0, 4));
        let size = |of: &Frames, channel: usize| {
            let row = &of.values[channel * of.length..][..of.length];
            (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64).sqrt()
        };
        // The scale of a channel is the seed's, whatever the length and the row.
        let other = lifelike(channels, 300, 2, 3);
        for channel in 0..channels {
            let (a, b) = (size(&frames, channel), size(&other, channel));
            assert!((a / b - 1.0).abs() < 0.2, "{channel}: {a} {b}");
        }
        let logs: Vec<f64> = (0..channels).map(|channel| size(&frames, channel).ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let deviation =
            (logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / logs.len() as f64).sqrt();
        assert!((0.3..0.5).contains(&deviation), "{deviation}");
        // Of smooth + 0.5·noise: (0.25·0.5·2) / (0.375 + 0.25).
        let pairs = frames.values.chunks(length).flat_map(|row| row.windows(2));
        let along: f64 = pairs.map(|pair| pair[0] * pair[1]).sum();
        let square: f64 = frames.values.iter().map(|x| x * x).sum();
        assert!((along / square - 0.4).abs() < 0.03, "{}", along / square);
    }

    #[test]
    fn a_number_moves_by_half_a_last_bit_and_zero_by_one_of_the_scale() {
        let frames = Frames { length: 2, values: vec![1.0, -3.0, 0.0, 0.5] };
        let moved = moved(&frames, "a", 8.0, 0);
        for (before, after) in frames.values.iter().zip(&moved.values) {
            let by = (after - before).abs();
            let size = if *before == 0.0 { 8.0 } else { before.abs() };
            assert_eq!(by, size / (1 << 24) as f64);
        }
    }
}
