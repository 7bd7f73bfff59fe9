//! Normal deviates from ChaCha20 by the transform of Box and Muller (Annals of Mathematical Statistics 29, 1958).

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::digest::Hasher;

/// An endless row of independent normal deviates of mean 0 and variance 1, which can be entered anywhere.
///
/// Words `2k` and `2k + 1` of the ChaCha20 stream whose key is SHA-256 of seed and name, `a` and `b`, give deviates `2k`
/// and `2k + 1`, which are `r cos t` and `r sin t`: `r = sqrt(-2 ln((a + 1/2) / 2^32))`, the logarithm in
/// f64, and `t = 2 pi b / 2^32` with `b` as a signed number, in f32. None is further from 0 than 6.8.
///
/// Logarithm, sine and cosine are those of the crate `libm`, in Rust alone: those of `std` are the platform's, and their
/// last bits differ.
pub struct Deviates {
    key: [u8; 32],
}

impl Deviates {
    /// Those of a seed and a name.
    pub fn of(seed: u64, name: &str) -> Self {
        let mut hasher = Hasher::default();
        hasher.field("seed", seed.to_le_bytes()).field("name", name);
        Self { key: hasher.finish().bytes() }
    }

    /// Writes deviates from number `2 * pair` on.
    pub fn fill(&self, pair: u64, numbers: &mut [f32]) {
        let mut words = ChaCha20Rng::from_seed(self.key);
        words.set_word_pos(2 * u128::from(pair));
        let mut drawn = [0; 1 << 12];
        for numbers in numbers.chunks_mut(drawn.len() / 4) {
            let drawn = &mut drawn[..8 * numbers.len().div_ceil(2)];
            words.fill_bytes(drawn);
            for (numbers, &pair) in numbers.chunks_mut(2).zip(drawn.as_chunks::<8>().0) {
                let deviates = transform(pair);
                numbers.copy_from_slice(&deviates[..numbers.len()]);
            }
        }
    }
}

/// Two deviates of two words.
fn transform(words: [u8; 8]) -> [f32; 2] {
    let words = u64::from_le_bytes(words);
    let (a, b) = (words as u32, (words >> 32) as i32);
    let uniform = (f64::from(a) + 0.5) / 4_294_967_296.0;
    let radius = libm::sqrtf((-2.0 * libm::log(uniform)) as f32);
    let (sine, cosine) = libm::sincosf(b as f32 * (std::f32::consts::PI / 2_147_483_648.0));
    [radius * cosine, radius * sine]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_same_wherever_it_is_entered() {
        let deviates = Deviates::of(7, "a");
        let mut whole = vec![0.0; 4001];
        deviates.fill(0, &mut whole);
        for (pair, count) in [(0, 1), (0, 4001), (1, 3999), (512, 1025), (700, 2), (2000, 1)] {
            let mut part = vec![0.0; count];
            deviates.fill(pair, &mut part);
            assert_eq!(part, whole[2 * pair as usize..][..count], "{pair}");
        }
        let mut other = vec![0.0; 4001];
        for (seed, name) in [(8, "a"), (7, "b")] {
            Deviates::of(seed, name).fill(0, &mut other);
            assert!(whole.iter().zip(&other).all(|(a, b)| a != b), "{seed} {name}");
        }
    }

    #[test]
    fn extreme_words_give_finite_deviates() {
        let both = |a: u32, b: u32| transform((u64::from(b) << 32 | u64::from(a)).to_le_bytes());
        let largest = both(0, 0)[0];
        assert!((6.7..6.8).contains(&largest), "{largest}");
        assert_eq!(both(0, 1 << 31)[0], -largest);
        for deviate in both(u32::MAX, 1 << 29) {
            assert!((1e-6..1e-4).contains(&deviate), "{deviate}");
        }
    }

    #[test]
    fn moments_are_those_of_the_normal_distribution() {
        let mut numbers = vec![0.0; 1 << 20];
        Deviates::of(0, "moments").fill(0, &mut numbers);
        let moment = |power: i32, of: &dyn Fn(usize) -> f64| {
            (0..numbers.len()).map(|at| of(at).powi(power)).sum::<f64>() / numbers.len() as f64
        };
        let value = |at: usize| f64::from(numbers[at]);
        // Five standard errors of a million.
        for (power, moments, error) in
            [(1, 0.0, 1.0), (2, 1.0, 2_f64.sqrt()), (3, 0.0, 15_f64.sqrt()), (4, 3.0, 96_f64.sqrt())]
        {
            let bound = 5.0 * error / 1024.0;
            let found = moment(power, &value);
            assert!((found - moments).abs() < bound, "{power}: {found}");
        }
        // Neighbours, of one pair and of two, know nothing of each other, nor do their squares.
        for apart in [1, 2, 3] {
            let next = |at: usize| value(at) * value((at + apart) % numbers.len());
            let squares = |at: usize| next(at).powi(2) - 1.0;
            assert!(moment(1, &next).abs() < 5.0 / 1024.0, "{apart}");
            assert!(moment(1, &squares).abs() < 5.0 * 8_f64.sqrt() / 1024.0, "{apart}");
        }
        let within = |bound: f64| (0..numbers.len()).filter(|&at| value(at).abs() < bound).count();
        for (bound, share) in [(1.0, 0.682_689), (2.0, 0.954_500), (3.0, 0.997_300), (4.0, 0.999_937)] {
            let found = within(bound) as f64 / numbers.len() as f64;
            assert!((found - share).abs() < 0.0025, "{bound}: {found}");
        }
    }
}
