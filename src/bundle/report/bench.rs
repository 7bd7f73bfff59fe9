//! The page of a benchmark: tables, and a plot for each figure.

use askama::Template;

use super::bars::{Bar, bars};
use crate::interface::Call;
use crate::names::Role;
use crate::validate::bench::{Demand, Report, Row, Spread, TEXTS, USUAL_TEXT, Whole};

/// A figure with its picture.
struct Plot {
    title: String,
    svg: String,
}

/// A graph: a table and its plots.
struct Graph {
    title: String,
    unit: &'static str,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    plots: Vec<Plot>,
}

#[derive(Template)]
#[template(path = "bench.html", config = "src/bundle/askama.toml", whitespace = "minimize")]
struct Html<'a> {
    report: &'a Report,
    best: Option<String>,
    graphs: Vec<Graph>,
    voices: Vec<(String, Vec<String>)>,
    texts: [usize; 4],
    speech: String,
    demands: Vec<(&'a Demand, String)>,
}

/// The page, which needs nothing else: no script, no other file.
pub fn html(report: &Report) -> String {
    let graphs = report.graphs().into_iter().filter_map(|name| graph(report, name));
    let factors =
        |whole: &Whole| whole.estimates.iter().map(|e| format!("{:.2}", e.realtime_factor)).collect();
    let voices = report.voices();
    let usual = |whole: &Whole| whole.realtime_factor(USUAL_TEXT).unwrap_or(f64::NAN);
    let speech: Vec<Bar> = voices
        .iter()
        .map(|whole| {
            let value = usual(whole);
            Bar { label: short(report, whole), value, least: value, greatest: value }
        })
        .collect();
    let best = report.best.and_then(|at| report.whole.get(at));
    let demand = |asked| (asked, demand(asked));
    let page = Html {
        report,
        best: best.map(|best| {
            format!("{}: {:.2} × realtime at {USUAL_TEXT} characters", report.voice(best), usual(best))
        }),
        graphs: graphs.collect(),
        voices: voices.iter().map(|whole| (report.voice(whole), factors(whole))).collect(),
        texts: TEXTS,
        speech: bars(
            &format!("Seconds of speech made in one second, of {USUAL_TEXT} characters"),
            "× realtime",
            &speech,
        ),
        demands: report.gate.iter().map(demand).collect(),
    };
    page.render().expect("writing to memory, with filters that refuse nothing")
}

/// A voice's name as a plot has room for it.
fn short(report: &Report, whole: &Whole) -> String {
    let mut labels: Vec<String> =
        whole.rows.iter().filter_map(|&at| report.rows.get(at)).map(label).collect();
    labels.dedup();
    labels.join(" + ")
}

/// `int8 onnxruntime`.
fn label(row: &Row) -> String {
    let runtime = row.runtime.split(' ').next().unwrap_or_default();
    format!("{} {runtime}", row.precision)
}

fn demand(demand: &Demand) -> String {
    let bound = if demand.at_least { "at least" } else { "at most" };
    let found = demand.found.map_or("not measured".to_owned(), |found| format!("{found:.2}"));
    format!("{found}, {bound} {} is demanded", demand.limit)
}

fn shown(ms: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", ms.median, ms.least, ms.greatest)
}

fn graph(report: &Report, name: &str) -> Option<Graph> {
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.graph == name).collect();
    let role = rows.first()?.role;
    let points: Vec<Call> = rows.first()?.figures.iter().map(|figure| figure.point).collect();
    let mut head: Vec<String> =
        ["variant", "runtime", "size, MB", "peak memory, MB", "load", "first call"]
            .map(str::to_owned)
            .to_vec();
    head.extend(points.iter().map(|point| point.label()));
    let megabytes = |n: Option<u64>| n.map_or("–".to_owned(), |n| format!("{:.1}", n as f64 / 1e6));
    let line = |row: &&Row| {
        let mut cells = vec![
            row.precision.to_string(),
            row.runtime.clone(),
            megabytes(row.bytes),
            megabytes(row.fresh.peak_bytes),
            shown(row.fresh.load_ms),
            shown(row.fresh.first_ms),
        ];
        cells.extend(points.iter().map(|&p| report.ms(row, p).map_or("–".to_owned(), shown)));
        cells
    };
    let plot = |title: String, unit: &str, value: &dyn Fn(&Row) -> Option<Spread>| {
        let bar = |row: &&Row| {
            let Spread { median, least, greatest, .. } = value(row)?;
            Some(Bar { label: label(row), value: median, least, greatest })
        };
        let svg = bars(&title, unit, &rows.iter().filter_map(bar).collect::<Vec<_>>());
        Plot { title, svg }
    };
    let mut plots: Vec<Plot> = Vec::new();
    for &point in &points {
        let (what, unit) = match point {
            Call::Frames { .. } if report.rendition.is_timed() => {
                ("milliseconds for each second of sound", "ms/s")
            }
            _ => ("milliseconds", "ms"),
        };
        plots.push(plot(format!("{}, {what}", point.label()), unit, &|row| report.ms(row, point)));
    }
    plots.push(plot("time to load".into(), "ms", &|row| Some(row.fresh.load_ms)));
    plots.push(plot("first call".into(), "ms", &|row| Some(row.fresh.first_ms)));
    plots.push(plot("peak memory".into(), "MB", &|row| {
        row.fresh.peak_bytes.map(|bytes| Spread::once(bytes as f64 / 1e6))
    }));
    let unit = match role {
        Role::Signal if report.rendition.is_timed() => "milliseconds for each second of sound",
        _ => "milliseconds of one call",
    };
    let title = format!("Graph {name}");
    Some(Graph { title, unit, head, rows: rows.iter().map(line).collect(), plots })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Machine;
    use crate::names::Precision;
    use crate::validate::bench::{Figure, Fresh, Rendition, SpeakingRate, best, calls, whole};

    #[test]
    fn a_page_shows_every_figure_and_no_markup_of_others() {
        let ms = |median: f64| Spread { median, least: 0.9 * median, greatest: 1.2 * median, runs: 3 };
        let row = |graph: &str, role: Role, precision, base: f64| Row {
            graph: graph.to_owned(),
            role,
            precision,
            file: Some("a".into()),
            bytes: Some(1_500_000),
            runtime: "tract <1>".into(),
            fresh: Fresh { load_ms: ms(4.0), first_ms: ms(5.0), peak_bytes: None },
            figures: calls(role, true)
                .into_iter()
                .map(|point| Figure { point, ms: ms(base) })
                .collect(),
        };
        let rows = vec![
            row("lm", Role::Causal, Precision::Fp32, 2.0),
            row("lm", Role::Causal, Precision::Int8, 1.0),
            row("decoder", Role::Signal, Precision::Fp32, 3.0),
        ];
        let rate = SpeakingRate::of_soprano_mini();
        let rendition = Rendition { samples_per_token: 2048, sample_rate: 32_000, rate };
        let whole = whole(&rows, &rendition, &TEXTS);
        let report = Report {
            name: "<b>name".into(),
            machine: Machine::default(),
            threads: 2,
            rounds: 3,
            rendition,
            best: best(&whole, &rows, USUAL_TEXT),
            rows,
            whole,
            left_out: vec!["openvino is <not> there".into()],
            gate: vec![Demand {
                key: "lm.gate.step_ms".into(),
                limit: 0.5,
                at_least: false,
                found: Some(1.0),
                met: false,
            }],
        };
        let page = html(&report);
        for words in ["lm int8 in tract", "step @512", "frames 128", "FAILED", "peak memory", "1.5"] {
            assert!(page.contains(words), "{words}\n{page}");
        }
        assert!(!page.contains("<b>name") && !page.contains("<not>") && !page.contains("<1>"));
        assert!(!page.contains("<script") && !page.contains("NaN"));
    }
}
