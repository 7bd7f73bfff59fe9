//! Whether a bundle is as fast and as small as its recipe demands.

use serde::Serialize;

use super::{Rendition, Row, USUAL_FRAMES, USUAL_STEP, Whole};
use crate::interface::Call;
use crate::names::Precision;
use crate::recipe::{CausalGate, Graph, Recipe, SignalGate};

/// Characters of the text that variants are ranked by.
pub const USUAL_TEXT: usize = 200;

/// A demand, and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// The key in the recipe: `lm.gate.step_ms`.
    pub key: String,
    /// What is demanded.
    pub limit: f64,
    /// Whether more is better.
    pub at_least: bool,
    /// What was measured; none where nothing could be.
    pub found: Option<f64>,
    /// Whether the demand is met; what wasn't measured isn't.
    pub met: bool,
}

/// What a recipe demands of a graph, by key.
fn figures(graph: &Graph) -> Vec<(&'static str, Option<f64>)> {
    let figures = match graph {
        Graph::Causal(graph) => graph.gate.as_ref().map(CausalGate::figures),
        Graph::Signal(graph) => graph.gate.as_ref().map(SignalGate::figures),
    };
    figures.unwrap_or_default()
}

/// Whether a recipe demands anything.
pub fn demands(recipe: &Recipe) -> bool {
    let mut graphs = recipe.graphs.iter().flat_map(|(_, graph)| figures(graph));
    recipe.gate.is_some() || graphs.any(|(_, limit)| limit.is_some())
}

/// Every demand of a recipe with what was measured, in order: of each graph in the variant that is fastest over 200
/// characters, and of `best`, the fastest whole voice.
pub fn gate(recipe: &Recipe, rows: &[Row], rendition: &Rendition, best: Option<&Whole>) -> Vec<Demand> {
    let mut all = Vec::new();
    let mut demand = |key: String, limit: Option<f64>, found: Option<f64>| {
        let Some(limit) = limit else { return };
        let at_least = key.ends_with("faster_than_fp32") || key.ends_with("realtime_factor");
        let met = |found: f64| if at_least { found >= limit } else { found <= limit };
        all.push(Demand { key, limit, at_least, found, met: found.is_some_and(met) });
    };
    let factor = best
        .filter(|whole| whole.rows.len() == recipe.graphs.0.len())
        .and_then(|whole| whole.realtime_factor(USUAL_TEXT));
    let limit = recipe.gate.as_ref().and_then(|gate| gate.realtime_factor);
    demand("gate.realtime_factor".into(), limit, factor);
    for (name, graph) in recipe.graphs.iter() {
        for (key, limit) in figures(graph) {
            demand(format!("{name}.gate.{key}"), limit, figure(key, name, rows, rendition));
        }
    }
    all
}

fn figure(key: &str, graph: &str, rows: &[Row], rendition: &Rendition) -> Option<f64> {
    let seconds = |row: &Row| {
        let text = rendition.estimate(&[row], USUAL_TEXT)?;
        Some(text.prefill_seconds + text.steps_seconds + text.decode_seconds)
    };
    let own = |row: &&Row| row.graph == graph && row.file.is_some();
    let fastest = |wanted: &dyn Fn(Precision) -> bool| {
        let timed = rows.iter().filter(own).filter(|row| wanted(row.precision));
        let timed = timed.filter_map(|row| Some((seconds(row)?, row)));
        timed.min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let (_, row) = fastest(&|_| true)?;
    match key {
        "faster_than_fp32" => {
            let fp32 = fastest(&|precision| precision == Precision::Fp32)?.0;
            Some(fp32 / fastest(&|precision| precision != Precision::Fp32)?.0)
        }
        "step_ms" => Some(row.at(USUAL_STEP)?.median),
        "second_ms" => {
            let Call::Frames { frames, .. } = USUAL_FRAMES else { return None };
            let rendition = Some(rendition).filter(|rendition| rendition.is_timed())?;
            Some(row.at(USUAL_FRAMES)?.median / rendition.seconds(frames))
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
    use crate::family;
    use crate::names::Role;

    #[test]
    fn each_demand_stands_beside_what_was_found() {
        let rate = SpeakingRate::of_soprano_mini();
        let rendition = Rendition { samples_per_token: 2048, sample_rate: 32_000, rate };
        let rows = [
            row(Role::Causal, Precision::Fp32, 2.0, Some("a")),
            row(Role::Causal, Precision::Int8, 1.0, Some("b")),
            row(Role::Causal, Precision::Fp32, 0.5, None),
            row(Role::Signal, Precision::Fp32, 1.0, Some("c")),
        ];
        let all = whole(&rows, &rendition, &[USUAL_TEXT]);
        let text = "name: a\nsource: b\ngate: {realtime_factor: 1.0e+5}\ngraphs:\n  lm:\n    gate: {faster_than_fp32: \
                    1.999999, step_ms: 3, memory_mb: 7, size_mb: 4}\n  decoder: {gate: {faster_than_fp32: 1}}\n";
        let recipe = family::recipes().parse(text, "t.yaml").unwrap();
        assert!(demands(&recipe));
        let found = gate(&recipe, &rows, &rendition, best(&all, &rows, USUAL_TEXT).map(|at| &all[at]));
        let keys: Vec<_> = found.iter().map(|demand| (demand.key.as_str(), demand.met)).collect();
        assert_eq!(
            keys,
            [
                ("gate.realtime_factor", false),
                ("decoder.gate.faster_than_fp32", false),
                ("lm.gate.faster_than_fp32", true),
                ("lm.gate.step_ms", false),
                ("lm.gate.memory_mb", true),
                ("lm.gate.size_mb", false),
            ]
        );
        // Of the int8 row, not of PyTorch's.
        approx::assert_abs_diff_eq!(found[3].found.unwrap(), 3.56, epsilon = 1e-9);
        assert_eq!(found[1].found, None, "there is no smaller decoder");
        let second = |sample_rate| {
            figure("second_ms", "decoder", &rows, &Rendition { sample_rate, ..rendition.clone() })
        };
        assert!(second(32_000).unwrap() > 0.0);
        assert_eq!(second(0), None, "without a rate no sound has a length");
    }
}
