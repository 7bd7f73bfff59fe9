//! What is measured of an output, and how far it may go.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::names::{Precision, Role};

/// A figure that says how far an output is from its reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Largest absolute difference, in the output's own unit.
    MaxAbs,
    /// Largest absolute difference over the reference's peak.
    MaxAbsOfPeak,
    /// Signal-to-noise ratio in decibels; infinite where every value is equal.
    SnrDb,
    /// Log-spectral distance in decibels.
    LogSpectralDistanceDb,
    /// Share of positions whose largest logit is that of the reference.
    #[serde(rename = "top_1_agreement")]
    Top1Agreement,
    /// Share of a greedy run's tokens before the first that differs.
    GreedyAgreement,
    /// Largest difference over the last quarter of the cached steps, over that of the first quarter: an error
    /// that accumulates in a cache grows.
    ErrorGrowth,
}

impl Metric {
    /// Whether more of it is better.
    pub fn higher_is_better(self) -> bool {
        matches!(self, Metric::SnrDb | Metric::Top1Agreement | Metric::GreedyAgreement)
    }

    /// The name that JSON and YAML use.
    pub fn name(self) -> &'static str {
        match self {
            Metric::MaxAbs => "max_abs",
            Metric::MaxAbsOfPeak => "max_abs_of_peak",
            Metric::SnrDb => "snr_db",
            Metric::LogSpectralDistanceDb => "log_spectral_distance_db",
            Metric::Top1Agreement => "top_1_agreement",
            Metric::GreedyAgreement => "greedy_agreement",
            Metric::ErrorGrowth => "error_growth",
        }
    }

    /// The name that a person reads.
    pub fn label(self) -> &'static str {
        match self {
            Metric::MaxAbs => "max abs error",
            Metric::MaxAbsOfPeak => "max abs error / peak",
            Metric::SnrDb => "signal to noise",
            Metric::LogSpectralDistanceDb => "log-spectral distance",
            Metric::Top1Agreement => "top-1 agreement",
            Metric::GreedyAgreement => "greedy agreement",
            Metric::ErrorGrowth => "error growth over steps",
        }
    }

    /// A value with its unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Metric::MaxAbs | Metric::MaxAbsOfPeak => format!("{value:.2e}"),
            Metric::SnrDb => format!("{value:.1} dB"),
            Metric::LogSpectralDistanceDb => format!("{value:.5} dB"),
            Metric::Top1Agreement | Metric::GreedyAgreement => format!("{:.1} %", 100.0 * value),
            Metric::ErrorGrowth => format!("{value:.2}x"),
        }
    }

    /// A limit with its direction and unit; a share that may be 0 is measured, and not held.
    pub fn show_limit(self, limit: f64) -> String {
        match self {
            Metric::Top1Agreement | Metric::GreedyAgreement if limit <= 0.0 => "not held".to_owned(),
            Metric::MaxAbs | Metric::MaxAbsOfPeak => format!("< {limit:.0e}"),
            Metric::SnrDb => format!("> {limit} dB"),
            Metric::LogSpectralDistanceDb => format!("< {limit} dB"),
            Metric::Top1Agreement | Metric::GreedyAgreement => format!(">= {} %", 100.0 * limit),
            Metric::ErrorGrowth => format!("<= {limit}x"),
        }
    }

    /// Whether a value is within a limit; NaN never is.
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Metric::MaxAbs | Metric::MaxAbsOfPeak | Metric::LogSpectralDistanceDb => value < limit,
            Metric::SnrDb => value > limit,
            Metric::Top1Agreement | Metric::GreedyAgreement => value >= limit,
            Metric::ErrorGrowth => value <= limit,
        }
    }

    /// Of two values the one further from the reference; NaN is furthest.
    pub fn worse(self, a: f64, b: f64) -> f64 {
        if self.badness(a) >= self.badness(b) { a } else { b }
    }

    /// Orders values: more is worse, NaN is worst.
    pub fn badness(self, value: f64) -> f64 {
        match (value.is_nan(), self.higher_is_better()) {
            (true, _) => f64::INFINITY,
            (_, true) => -value,
            (_, false) => value,
        }
    }
}

/// What an artifact must reach, in every case that has the metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transform = of_metrics)]
pub struct Tolerance(BTreeMap<Metric, f64>);

/// Names the keys in a schema, which a mapping of described words leaves open.
fn of_metrics(schema: &mut Schema) {
    let words = Metric::json_schema(&mut SchemaGenerator::default());
    schema.insert("propertyNames".to_owned(), words.to_value());
}

impl Tolerance {
    /// A tolerance of these limits.
    pub fn new(limits: impl IntoIterator<Item = (Metric, f64)>) -> Self {
        Self(limits.into_iter().collect())
    }

    /// Each metric and its limit.
    pub fn limits(&self) -> impl Iterator<Item = (Metric, f64)> + '_ {
        self.0.iter().map(|(&metric, &limit)| (metric, limit))
    }

    /// The limits that no recipe and no manifest can loosen. An fp32 file beyond them computes something else; an int8
    /// file beyond them is noise.
    pub fn floor(role: Role, precision: Precision) -> Self {
        use Metric::{
            ErrorGrowth, GreedyAgreement, LogSpectralDistanceDb, MaxAbs, MaxAbsOfPeak, SnrDb,
            Top1Agreement,
        };
        match (role, precision) {
            (Role::Signal, Precision::Fp32) => {
                Self::new([(MaxAbsOfPeak, 1e-4), (SnrDb, 40.0), (LogSpectralDistanceDb, 1.0)])
            }
            (Role::Signal, Precision::Fp16 | Precision::Int8) => Self::new([(SnrDb, 12.0)]),
            (Role::Causal, Precision::Fp32) => Self::new([
                (MaxAbs, 1e-3),
                (SnrDb, 60.0),
                (Top1Agreement, 0.99),
                (GreedyAgreement, 0.99),
                (ErrorGrowth, 4.0),
            ]),
            // A greedy run leaves the reference for good at the first token that differs: reported, not held.
            (Role::Causal, Precision::Fp16 | Precision::Int8) => {
                Self::new([(SnrDb, 12.0), (GreedyAgreement, 0.0)])
            }
        }
    }

    /// The limits of an ill-conditioned case: [`LAST_BITS`] times as far as a last bit of its input moves PyTorch's
    /// own output, where that is looser. A metric without such a figure is not checked.
    pub fn widened(&self, last_bit: &Measured) -> Self {
        let wider = |(metric, limit): (Metric, f64)| {
            let moved = last_bit.get(metric)?;
            let allowed = match metric {
                Metric::SnrDb => moved - 20.0 * LAST_BITS.log10(),
                // So many times the share that doesn't agree.
                Metric::Top1Agreement | Metric::GreedyAgreement => 1.0 - LAST_BITS * (1.0 - moved),
                _ => moved * LAST_BITS,
            };
            Some((
                metric,
                if metric.badness(allowed) > metric.badness(limit) { allowed } else { limit },
            ))
        };
        Self(self.limits().filter_map(wider).collect())
    }

    /// Checks that every limit of the floor is there and no looser; NaN is looser than anything.
    ///
    /// # Errors
    /// [`Error::Floor`] names the limit.
    pub fn check(&self, role: Role, precision: Precision) -> Result<(), Error> {
        for (metric, floor) in Self::floor(role, precision).limits() {
            let value = self.0.get(&metric).copied().unwrap_or(f64::NAN);
            if value.is_nan() || metric.badness(value) > metric.badness(floor) {
                return Err(Error::Floor { name: metric.name(), value, floor });
            }
        }
        Ok(())
    }
}

/// How many last bits the rounding of a whole model may amount to in an ill-conditioned case: in well-conditioned
/// ones, correct decoders are off by one or two.
const LAST_BITS: f64 = 16.0;

/// The figures of one case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Measured(BTreeMap<Metric, Figure>);

impl Measured {
    /// Takes a figure in; of two of one metric the worse stays.
    pub fn add(&mut self, metric: Metric, value: f64) {
        let figure = self.0.entry(metric).or_insert(Figure(value));
        figure.0 = metric.worse(figure.0, value);
    }

    /// A figure, if it was measured.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).map(|figure| figure.0)
    }

    /// Error over peak and signal-to-noise ratio, as far as they were measured.
    pub fn summary(&self) -> String {
        let metrics = [Metric::MaxAbsOfPeak, Metric::SnrDb].into_iter();
        let figures = metrics.filter_map(|metric| Some(metric.show(self.get(metric)?)));
        figures.collect::<Vec<_>>().join(", ")
    }

    /// Every figure.
    pub fn iter(&self) -> impl Iterator<Item = (Metric, f64)> + '_ {
        self.0.iter().map(|(&metric, figure)| (metric, figure.0))
    }

    /// Whether there is a figure, and every one is within its limit.
    pub fn within(&self, tolerance: &Tolerance) -> bool {
        let mut results =
            tolerance.limits().filter_map(|(m, limit)| Some(m.holds(self.get(m)?, limit)));
        let first = results.next();
        first == Some(true) && results.all(|holds| holds)
    }

    /// Whether a figure is beyond its limit; one that isn't a number says nothing.
    pub fn beyond(&self, tolerance: &Tolerance) -> bool {
        let mut figures = tolerance.limits().filter_map(|(m, limit)| Some((m, self.get(m)?, limit)));
        figures.any(|(metric, value, limit)| !value.is_nan() && !metric.holds(value, limit))
    }
}

/// A number that may be infinite or NaN, which are serialized as strings: JSON has no numbers for them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figure(f64);

impl Serialize for Figure {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            to.serialize_f64(self.0)
        } else {
            to.serialize_str(&self.0.to_string())
        }
    }
}

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Word(String),
        }
        match Either::deserialize(from)? {
            Either::Number(number) => Ok(Figure(number)),
            Either::Word(word) => word.parse().map(Figure).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_worst_and_within_nothing() {
        for metric in [Metric::MaxAbs, Metric::SnrDb, Metric::Top1Agreement, Metric::ErrorGrowth] {
            assert!(metric.worse(f64::NAN, 0.5).is_nan());
            assert!(metric.worse(0.5, f64::NAN).is_nan());
            assert!(!metric.holds(f64::NAN, 0.5));
        }
        assert_eq!(Metric::SnrDb.worse(10.0, 20.0), 10.0);
        assert_eq!(Metric::MaxAbs.worse(10.0, 20.0), 20.0);
    }

    #[test]
    fn a_tolerance_without_a_limit_of_the_floor_is_refused() {
        let whole = Tolerance::floor(Role::Causal, Precision::Fp32);
        assert!(whole.check(Role::Causal, Precision::Fp32).is_ok());
        for (missing, _) in whole.limits() {
            let less = Tolerance::new(whole.limits().filter(|(metric, _)| *metric != missing));
            let error = less.check(Role::Causal, Precision::Fp32).unwrap_err().to_string();
            assert!(error.contains(missing.name()), "{error}");
        }
        assert!(Tolerance::default().check(Role::Signal, Precision::Int8).is_err());
    }

    #[test]
    fn a_last_bit_widens_limits_and_never_narrows_them() {
        let tolerance = Tolerance::new([
            (Metric::MaxAbsOfPeak, 1e-5),
            (Metric::SnrDb, 90.0),
            (Metric::LogSpectralDistanceDb, 0.05),
        ]);
        let measured = |of_peak: f64, snr_db: f64| {
            let mut measured = Measured::default();
            measured.add(Metric::MaxAbsOfPeak, of_peak);
            measured.add(Metric::SnrDb, snr_db);
            measured
        };
        let usual = measured(1.2e-6, 118.0);
        assert!(!usual.beyond(&tolerance));
        assert!(!Measured::default().beyond(&tolerance), "nothing was measured");
        assert!(!measured(f64::NAN, f64::NAN).beyond(&tolerance), "nor is that a figure");
        let thrown = measured(59.0, -26.3);
        assert!(thrown.beyond(&tolerance) && measured(1e-6, 89.0).beyond(&tolerance));
        let wide = tolerance.widened(&thrown);
        assert!(measured(58.0, -26.0).within(&wide));
        assert!(measured(16.0 * 58.9, -50.0).within(&wide));
        assert!(!measured(16.0 * 59.1, -26.0).within(&wide));
        assert!(!measured(58.0, -51.0).within(&wide));
        assert!(!measured(f64::NAN, -26.0).within(&wide));
        let agreement = Tolerance::new([(Metric::Top1Agreement, 1.0)]);
        let allowed = |share: f64| {
            let mut measured = Measured::default();
            measured.add(Metric::Top1Agreement, share);
            agreement.widened(&measured).limits().map(|(_, limit)| limit).collect::<Vec<_>>()
        };
        assert_eq!(allowed(1.0), [1.0]);
        assert_eq!(allowed(1.0 - 1.0 / 64.0), [0.75]);
        let narrow: Vec<_> = tolerance.widened(&measured(0.0, f64::INFINITY)).limits().collect();
        assert_eq!(narrow, [(Metric::MaxAbsOfPeak, 1e-5), (Metric::SnrDb, 90.0)]);
    }

    #[test]
    fn nothing_measured_is_not_within() {
        let tolerance = Tolerance::new([(Metric::SnrDb, 40.0)]);
        let mut measured = Measured::default();
        assert!(!measured.within(&tolerance));
        measured.add(Metric::MaxAbs, 0.0);
        assert!(!measured.within(&tolerance), "no figure that has a limit");
        measured.add(Metric::SnrDb, 50.0);
        assert!(measured.within(&tolerance));
        measured.add(Metric::SnrDb, 39.0);
        assert!(!measured.within(&tolerance), "the worse one counts");
        let text = serde_json::to_string(&measured).unwrap();
        assert_eq!(text, r#"{"max_abs":0.0,"snr_db":39.0}"#);
        measured.add(Metric::SnrDb, f64::NAN);
        let text = serde_json::to_string(&measured).unwrap();
        let back: Measured = serde_json::from_str(&text).unwrap();
        assert!(back.get(Metric::SnrDb).unwrap().is_nan());
    }
}
