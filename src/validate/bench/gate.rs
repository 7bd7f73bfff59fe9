//! Whether a bundle is as fast and as small as its recipe demands.

use serde::Serialize;

use super::{Rendition, Row, USUAL_DECODE, USUAL_STEP, Whole};
use crate::recipe::Gate;
use crate::validate::{Part, Scheme};

/// Characters of the text that variants are ranked by.
pub const USUAL_TEXT: usize = 200;

/// A demand beside what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// The key in the recipe: `gate.lm.step_ms`.
    pub key: String,
    /// What is demanded.
    pub limit: f64,
    /// Whether more is better.
    pub at_least: bool,
    /// What was measured; none where nothing could be.
    pub found: Option<f64>,
    /// Whether the demand is met; what wasn't measured isn't.
    pub held: bool,
}

/// Every demand of a gate beside what was found, in the gate's order. Of each half it is about the row that
/// is fastest over 200 characters; `best` is the fastest whole voice.
pub fn held(gate: &Gate, rows: &[Row], rendition: &Rendition, best: Option<&Whole>) -> Vec<Held> {
    let mut all = Vec::new();
    let mut hold = |key: String, limit: Option<f64>, found: Option<f64>| {
        let Some(limit) = limit else { return };
        let at_least = key.ends_with("faster_than_fp32") || key.ends_with("realtime_factor");
        let met = |found: f64| if at_least { found >= limit } else { found <= limit };
        all.push(Held { key, limit, at_least, found, held: found.is_some_and(met) });
    };
    let factor = best.and_then(|whole| {
        let estimates = whole.lm.and(whole.decoder).map(|_| &whole.estimates)?;
        estimates.iter().find(|estimate| estimate.characters == USUAL_TEXT)
    });
    hold("gate.realtime_factor".into(), gate.realtime_factor, factor.map(|e| e.realtime_factor));
    let halves = [
        (Part::Lm, gate.lm.as_ref().map(|lm| lm.figures())),
        (Part::Decoder, gate.decoder.as_ref().map(|decoder| decoder.figures())),
    ];
    for (part, figures) in halves {
        for (key, limit) in figures.into_iter().flatten() {
            hold(format!("gate.{part}.{key}"), limit, figure(key, part, rows, rendition));
        }
    }
    all
}

fn figure(key: &str, part: Part, rows: &[Row], rendition: &Rendition) -> Option<f64> {
    let seconds = |row: &Row| {
        let (lm, decoder) = match part {
            Part::Lm => (Some(row), None),
            Part::Decoder => (None, Some(row)),
        };
        let text = rendition.estimate(lm, decoder, USUAL_TEXT)?;
        Some(text.prefill_seconds + text.steps_seconds + text.decode_seconds)
    };
    let own = |row: &&Row| row.part == part && row.file.is_some();
    let fastest = |wanted: &dyn Fn(Scheme) -> bool| {
        let timed = rows.iter().filter(own).filter(|row| wanted(row.scheme));
        let timed = timed.filter_map(|row| Some((seconds(row)?, row)));
        timed.min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let (_, row) = fastest(&|_| true)?;
    match key {
        "faster_than_fp32" => {
            let fp32 = fastest(&|scheme| scheme == Scheme::Fp32)?.0;
            Some(fp32 / fastest(&|scheme| scheme != Scheme::Fp32)?.0)
        }
        "step_ms" => Some(row.at(USUAL_STEP)?.median),
        "second_ms" => {
            let super::Point::Decode { tokens, .. } = USUAL_DECODE else { return None };
            Some(row.at(USUAL_DECODE)?.median / rendition.seconds(tokens))
        }
        "memory_mb" => Some(row.fresh.peak_bytes? as f64 / 1e6),
        "size_mb" => Some(row.bytes? as f64 / 1e6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::estimate::tests::row;
    use super::super::{SpeakingRate, best, whole};
    use super::*;
    use crate::recipe::{DecoderGate, LmGate};

    #[test]
    fn each_demand_stands_beside_what_was_found() {
        let rate = SpeakingRate::of_soprano_mini();
        let rendition = Rendition { samples_per_token: 2048, sample_rate: 32_000, rate };
        let rows = [
            row(Part::Lm, Scheme::Fp32, 2.0, Some("a")),
            row(Part::Lm, Scheme::Int8, 1.0, Some("b")),
            row(Part::Lm, Scheme::Fp32, 0.5, None),
            row(Part::Decoder, Scheme::Fp32, 1.0, Some("c")),
        ];
        let all = whole(&rows, &rendition, &[USUAL_TEXT]);
        let gate = Gate {
            realtime_factor: Some(1e5),
            lm: Some(LmGate {
                faster_than_fp32: Some(2.0 - 1e-9),
                step_ms: Some(3.0),
                memory_mb: Some(7.0),
                size_mb: Some(4.0),
            }),
            decoder: Some(DecoderGate { faster_than_fp32: Some(1.0), ..DecoderGate::default() }),
        };
        let held = held(&gate, &rows, &rendition, best(&all, &rows, USUAL_TEXT).map(|at| &all[at]));
        let keys: Vec<_> = held.iter().map(|held| (held.key.as_str(), held.held)).collect();
        assert_eq!(
            keys,
            [
                ("gate.realtime_factor", false),
                ("gate.lm.faster_than_fp32", true),
                ("gate.lm.step_ms", false),
                ("gate.lm.memory_mb", true),
                ("gate.lm.size_mb", false),
                ("gate.decoder.faster_than_fp32", false),
            ]
        );
        // Of the int8 row, not of PyTorch's.
        approx::assert_abs_diff_eq!(held[2].found.unwrap(), 3.56, epsilon = 1e-9);
        assert_eq!(held[5].found, None, "there is no smaller decoder");
    }
}
