//! How far an answer is from itself, computed with every number moved by a last bit.

use crate::validate::{Measured, Metric};

/// The largest and the square sum of a difference, next to those of what it is a difference of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Distance {
    peak: f64,
    signal: f64,
    largest: f64,
    noise: f64,
    is_finite: bool,
}

impl Distance {
    /// Between two answers.
    pub(super) fn between<'a>(
        exact: impl IntoIterator<Item = &'a f64>,
        moved: impl IntoIterator<Item = &'a f64>,
    ) -> Self {
        let mut distance = Distance { is_finite: true, ..Distance::default() };
        for (a, b) in exact.into_iter().zip(moved) {
            let by = b - a;
            distance.is_finite &= by.is_finite();
            distance.peak = distance.peak.max(a.abs());
            distance.largest = distance.largest.max(by.abs());
            distance.signal += a * a;
            distance.noise += by * by;
        }
        distance
    }

    /// Adds its figures, three digits each.
    pub(super) fn add_to(&self, measured: &mut Measured, in_its_own_unit: bool) {
        let (mut largest, mut of_peak) = (self.largest, self.largest / self.peak);
        let mut snr_db = 10.0 * (self.signal / self.noise).log10();
        if self.noise == 0.0 && self.is_finite {
            (of_peak, snr_db) = (0.0, f64::INFINITY);
        } else if !self.is_finite || self.signal == 0.0 {
            (largest, of_peak, snr_db) = (f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY);
        }
        if in_its_own_unit {
            measured.add(Metric::MaxAbs, three_digits(largest));
        }
        measured.add(Metric::MaxAbsOfPeak, three_digits(of_peak));
        measured.add(Metric::SnrDb, three_digits(snr_db));
    }
}

/// A figure's first three digits: more would say something about one draw of signs.
fn three_digits(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(exact: &[f64], moved: &[f64]) -> [Option<f64>; 3] {
        let mut measured = Measured::default();
        Distance::between(exact, moved).add_to(&mut measured, true);
        [Metric::MaxAbs, Metric::MaxAbsOfPeak, Metric::SnrDb].map(|metric| measured.get(metric))
    }

    #[test]
    fn the_largest_difference_counts_in_its_unit_and_of_the_peak() {
        let some = |values: [f64; 3]| values.map(Some);
        assert_eq!(figures(&[1.0, -4.0, 2.0], &[1.0, -4.0, 1.99]), some([0.01, 0.0025, 53.2]));
        assert_eq!(figures(&[1.0, -4.0], &[1.0, -4.0]), some([0.0, 0.0, f64::INFINITY]));
        let (inf, least) = (f64::INFINITY, f64::NEG_INFINITY);
        assert_eq!(figures(&[1.0, 1.0], &[1.0, f64::NAN]), some([inf, inf, least]));
        assert_eq!(figures(&[0.0], &[1e-9]), some([inf, inf, least]));
        assert_eq!(figures(&[], &[]), some([0.0, 0.0, f64::INFINITY]));
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(three_digits(1.23456e-7), 1.23e-7);
        assert_eq!(three_digits(117.95), 118.0);
        assert!(three_digits(f64::NEG_INFINITY) == f64::NEG_INFINITY);
    }
}
