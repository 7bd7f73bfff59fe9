//! The functions between products.

use super::Rows;

/// x / √(mean(x²) + ε) · w over a row (Zhang and Sennrich 2019, Root Mean Square Layer Normalization, eq. 4).
pub(crate) fn rms_norm(row: &mut [f64], weight: &[f64], epsilon: f64) {
    let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
    let scale = 1.0 / (mean + epsilon).sqrt();
    row.iter_mut().zip(weight).for_each(|(x, w)| *x *= scale * w);
}

/// (x − mean(x)) / √(var(x) + ε) · w + b over a row (Ba et al. 2016, Layer Normalization, eq. 4). Gives the scale
/// 1 / √(var(x) + ε).
pub(crate) fn layer_norm(row: &mut [f64], weight: &[f64], bias: &[f64], epsilon: f64) -> f64 {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((x, w), b) in row.iter_mut().zip(weight).zip(bias) {
        *x = (*x - mean) * scale * w + b;
    }
    scale
}

/// exp(x) / Σ exp(x), the largest taken off first.
pub(crate) fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = (*x - largest).exp();
        sum += *x;
    }
    row.iter_mut().for_each(|x| *x /= sum);
}

/// x·σ(x).
pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// x += y.
pub(crate) fn add(x: &mut Rows, y: &Rows) {
    *x += y;
}

/// The place of the largest value; the first of equal ones.
pub(crate) fn argmax(values: impl IntoIterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (at, value) in values.into_iter().enumerate() {
        if value > best.1 {
            best = (at, value);
        }
    }
    best.0
}

/// Points of a unit.
const GRID: f64 = 32.0;
/// Beyond it erf is 1 to the last bit of a double.
const END: f64 = 6.0;

/// The Gaussian error linear unit, x·Φ(x) (Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2), exact.
///
/// erf is read from its Taylor series around the nearest of 193 points. With hₙ the Hermite polynomials,
/// erf⁽ⁿ⁺¹⁾(z) = (2/√π)·(−1)ⁿ·hₙ(z)·exp(−z²); eight terms at 1/64 from a point are off by less than 2e-16.
#[derive(Debug)]
pub(crate) struct Gelu(Vec<[f64; 8]>);

impl Gelu {
    /// The series of every point.
    pub(crate) fn new() -> Self {
        let point = |at: usize| {
            let z = at as f64 / GRID;
            let mut terms = [libm::erf(z); 8];
            // (−1)ⁿ·hₙ of n − 1 and n, and n!.
            let (mut before, mut hermite, mut factorial) = (0.0, 1.0, 1.0);
            let slope = std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp();
            for (n, term) in (0_u8..).zip(&mut terms[1..]) {
                factorial *= f64::from(n) + 1.0;
                *term = slope * hermite / factorial;
                (before, hermite) = (hermite, -2.0 * z * hermite - 2.0 * f64::from(n) * before);
            }
            terms
        };
        Self((0..=(END * GRID) as usize).map(point).collect())
    }

    /// erf(z) for z ≥ 0.
    #[inline]
    fn erf(&self, z: f64) -> f64 {
        let z = z.min(END);
        let at = (z * GRID + 0.5) as usize;
        let d = z - at as f64 / GRID;
        let [a, b, c, e, f, g, h, i] = self.0.get(at).copied().unwrap_or([f64::NAN; 8]);
        let d2 = d * d;
        ((a + b * d) + (c + e * d) * d2) + ((f + g * d) + (h + i * d) * d2) * (d2 * d2)
    }

    /// Φ(x), the share of a normal distribution below x.
    #[inline]
    fn share(&self, x: f64) -> f64 {
        0.5 * (1.0 + self.erf(x.abs() * std::f64::consts::FRAC_1_SQRT_2).copysign(x))
    }

    /// x·Φ(x).
    #[inline]
    pub(crate) fn at(&self, x: f64) -> f64 {
        x * self.share(x)
    }

    /// Its slope, Φ(x) + x·exp(−x²/2)/√(2π).
    pub(crate) fn slope(&self, x: f64) -> f64 {
        let density =
            (-0.5 * x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2
                / 2.0;
        self.share(x) + x * density
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_that_of_erf_to_the_last_bits() {
        let gelu = Gelu::new();
        let mut largest = 0.0_f64;
        for at in -200_000..=200_000 {
            let x = f64::from(at) * 4.9e-5;
            let want = 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
            largest = largest.max((gelu.at(x) - want).abs());
        }
        assert!(largest < 2e-15, "{largest:e}");
        for (x, want) in [(0.0, 0.0), (40.0, 40.0), (-40.0, 0.0), (1e300, 1e300), (-1e300, 0.0)] {
            assert_eq!(gelu.at(x), want);
        }
        assert!(gelu.at(f64::NAN).is_nan());
    }

    #[test]
    fn slopes_are_those_of_differences() {
        let gelu = Gelu::new();
        for at in -60..=60 {
            let (x, h) = (f64::from(at) / 10.0 + 0.013, 1e-5);
            let want = (gelu.at(x + h) - gelu.at(x - h)) / (2.0 * h);
            assert!((gelu.slope(x) - want).abs() < 1e-9, "{x}");
        }
    }

    #[test]
    fn norms_are_those_of_their_equations() {
        let mut row = [3.0, -4.0, 0.0, 5.0];
        rms_norm(&mut row, &[1.0, 2.0, 3.0, 0.5], 0.5);
        let rms = (50.0_f64 / 4.0 + 0.5).sqrt();
        let want = [3.0 / rms, -8.0 / rms, 0.0, 2.5 / rms];
        row.iter().zip(want).for_each(|(a, b)| assert!((a - b).abs() < 1e-15));
        let mut row = [1.0, 2.0, 6.0];
        let scale = layer_norm(&mut row, &[1.0, 1.0, 2.0], &[0.0, 1.0, -1.0], 1.0 / 3.0);
        // Of a mean of 3 and a variance of 14/3.
        assert!((scale - 1.0 / 5.0_f64.sqrt()).abs() < 1e-15);
        let want = [-2.0 * scale, 1.0 - scale, 6.0 * scale - 1.0];
        row.iter().zip(want).for_each(|(a, b)| assert!((a - b).abs() < 1e-15));
        let mut row = [1000.0, 1000.0 + 3.0_f64.ln(), f64::NEG_INFINITY];
        softmax(&mut row);
        row.iter().zip([0.25, 0.75, 0.0]).for_each(|(a, b)| assert!((a - b).abs() < 1e-13));
        assert_eq!((silu(0.0), silu(800.0)), (0.0, 800.0));
        assert!((silu(1.0) - 0.731_058_578_630_004_9).abs() < 1e-15 && silu(-800.0) == 0.0);
    }

    #[test]
    fn the_first_of_equals_is_the_largest() {
        assert_eq!(argmax([1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax([f64::NAN, -5.0, -6.0]), 1);
        assert_eq!(argmax([]), 0);
    }
}
