//! The page of a benchmark: tables, and a plot for each figure.

use askama::Template;

use super::bars::{Bar, bars};
use crate::validate::Part;
use crate::validate::bench::{Held, Point, Report, Row, Spread, TEXTS, USUAL_TEXT};

/// A figure with its picture.
struct Plot {
    title: String,
    svg: String,
}

/// A half of the voice: a table and its plots.
struct Half {
    title: &'static str,
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
    halves: Vec<Half>,
    voices: Vec<(String, Vec<String>)>,
    texts: [usize; 4],
    speech: String,
    demands: Vec<(&'a Held, String)>,
}

/// The page, which needs nothing beside it: no script, no other file.
pub fn html(report: &Report) -> String {
    let halves = [Part::Lm, Part::Decoder].into_iter().filter_map(|part| half(report, part));
    let factors = |whole: &crate::validate::bench::Whole| {
        whole.estimates.iter().map(|e| format!("{:.2}", e.realtime_factor)).collect()
    };
    let voices = report.voices();
    let usual = |whole: &crate::validate::bench::Whole| {
        let found = whole.estimates.iter().find(|e| e.characters == USUAL_TEXT);
        found.map_or(f64::NAN, |e| e.realtime_factor)
    };
    let speech: Vec<Bar> = voices
        .iter()
        .map(|whole| {
            let value = usual(whole);
            Bar { label: short(report, whole), value, least: value, greatest: value }
        })
        .collect();
    let best = report.best.and_then(|at| report.whole.get(at));
    let demand = |held| (held, demand(held));
    let page = Html {
        report,
        best: best.map(|best| {
            format!("{}: {:.2} × realtime at {USUAL_TEXT} characters", report.voice(best), usual(best))
        }),
        halves: halves.collect(),
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
fn short(report: &Report, whole: &crate::validate::bench::Whole) -> String {
    let name = |at: usize| report.rows.get(at).map_or(String::new(), label);
    match (whole.lm.map(name), whole.decoder.map(name)) {
        (Some(lm), Some(decoder)) if lm != decoder => format!("{lm} + {decoder}"),
        (lm, decoder) => lm.or(decoder).unwrap_or_default(),
    }
}

/// `int8 onnxruntime`.
fn label(row: &Row) -> String {
    let runtime = row.runtime.split(' ').next().unwrap_or_default();
    format!("{} {runtime}", row.scheme)
}

fn demand(held: &Held) -> String {
    let bound = if held.at_least { "at least" } else { "at most" };
    let found = held.found.map_or("not measured".to_owned(), |found| format!("{found:.2}"));
    format!("{found}, {bound} {} is demanded", held.limit)
}

fn shown(ms: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", ms.median, ms.least, ms.greatest)
}

fn half(report: &Report, part: Part) -> Option<Half> {
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.part == part).collect();
    let points: Vec<Point> = rows.first()?.figures.iter().map(|figure| figure.point).collect();
    let at = |row: &Row, point: Point| {
        let unit = match point {
            Point::Decode { tokens, batch } => 1.0 / (report.rendition.seconds(tokens) * batch as f64),
            _ => 1.0,
        };
        row.at(point).map(|ms| ms.times(unit))
    };
    let mut head: Vec<String> =
        ["variant", "runtime", "size, MB", "peak memory, MB", "load", "first call"]
            .map(str::to_owned)
            .to_vec();
    head.extend(points.iter().map(|point| point.label()));
    let megabytes = |n: Option<u64>| n.map_or("–".to_owned(), |n| format!("{:.1}", n as f64 / 1e6));
    let line = |row: &&Row| {
        let mut cells = vec![
            row.scheme.to_string(),
            row.runtime.clone(),
            megabytes(row.bytes),
            megabytes(row.fresh.peak_bytes),
            shown(row.fresh.load_ms),
            shown(row.fresh.first_ms),
        ];
        cells.extend(points.iter().map(|&p| at(row, p).map_or("–".to_owned(), shown)));
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
    let once = |n: f64| Spread { median: n, least: n, greatest: n, runs: 1 };
    let mut plots: Vec<Plot> = Vec::new();
    for &point in &points {
        let (what, unit) = match point {
            Point::Decode { .. } => ("milliseconds for each second of sound", "ms/s"),
            _ => ("milliseconds", "ms"),
        };
        plots.push(plot(format!("{}, {what}", point.label()), unit, &|row| at(row, point)));
    }
    plots.push(plot("time to load".into(), "ms", &|row| Some(row.fresh.load_ms)));
    plots.push(plot("first call".into(), "ms", &|row| Some(row.fresh.first_ms)));
    plots.push(plot("peak memory".into(), "MB", &|row| {
        row.fresh.peak_bytes.map(|bytes| once(bytes as f64 / 1e6))
    }));
    let (title, unit) = match part {
        Part::Lm => ("Language model", "milliseconds of one call"),
        Part::Decoder => ("Decoder", "milliseconds for each second of sound"),
    };
    Some(Half { title, unit, head, rows: rows.iter().map(line).collect(), plots })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Machine;
    use crate::names::Precision;
    use crate::validate::bench::{Figure, Fresh, Rendition, SpeakingRate, best, whole};

    #[test]
    fn a_page_shows_every_figure_and_no_markup_of_others() {
        let ms = |median: f64| Spread { median, least: 0.9 * median, greatest: 1.2 * median, runs: 3 };
        let row = |part: Part, scheme, base: f64| Row {
            part,
            scheme,
            file: Some("a".into()),
            bytes: Some(1_500_000),
            runtime: "tract <1>".into(),
            fresh: Fresh { load_ms: ms(4.0), first_ms: ms(5.0), peak_bytes: None },
            figures: Point::of(part, true)
                .into_iter()
                .map(|point| Figure { point, ms: ms(base) })
                .collect(),
        };
        let rows = vec![
            row(Part::Lm, Precision::Fp32, 2.0),
            row(Part::Lm, Precision::Int8, 1.0),
            row(Part::Decoder, Precision::Fp32, 3.0),
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
            gate: vec![Held {
                key: "gate.lm.step_ms".into(),
                limit: 0.5,
                at_least: false,
                found: Some(1.0),
                held: false,
            }],
        };
        let page = html(&report);
        for words in ["lm int8 in tract", "step @512", "decode 128", "FAILED", "peak memory", "1.5"] {
            assert!(page.contains(words), "{words}\n{page}");
        }
        assert!(!page.contains("<b>name") && !page.contains("<not>") && !page.contains("<1>"));
        assert!(!page.contains("<script") && !page.contains("NaN"));
    }
}
