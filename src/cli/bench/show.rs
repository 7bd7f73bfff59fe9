//! The results of `bench`, for a terminal.

use super::super::terminal::{bytes, row, table};
use crate::interface::Call;
use crate::names::Role;
use crate::validate::bench::{Demand, Report, Row, Spread, TEXTS, USUAL_TEXT};

/// A table for each graph, what texts take, and the best.
pub(super) fn tables(report: &Report) -> String {
    let mut text = format!(
        "{}, {} {}\n",
        report.machine.cpu,
        report.threads,
        if report.threads == 1 { "thread" } else { "threads (tract: 1)" }
    );
    for name in report.graphs() {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.graph == name).collect();
        text += &format!("\n{}", graph(report, name, &rows));
    }
    if !report.whole.is_empty() {
        let mut rows = vec![row!["seconds of speech in a second, of characters:"]];
        rows[0].extend(TEXTS.iter().map(ToString::to_string));
        for whole in report.voices() {
            let factors = whole.estimates.iter().map(|e| format!("{:.2}x", e.realtime_factor));
            rows.push([report.voice(whole)].into_iter().chain(factors).collect());
        }
        text += &format!("\n{}", table(&rows));
        text += &format!(
            "({:.2} tokens a character: {})\n",
            report.rendition.rate.tokens_per_character, report.rendition.rate.source
        );
    }
    if let Some(best) = report.best.and_then(|at| report.whole.get(at)) {
        let factor = best.realtime_factor(USUAL_TEXT).unwrap_or(f64::NAN);
        text += &format!(
            "best on this machine: {}, {factor:.2}x realtime at {USUAL_TEXT} characters\n",
            report.voice(best)
        );
    }
    text
}

fn graph(report: &Report, name: &str, rows: &[&Row]) -> String {
    let points: Vec<Call> = rows[0].figures.iter().map(|figure| figure.point).collect();
    let mut lines = vec![row![name, "runtime", "size", "memory", "load ms", "first ms"]];
    lines[0].extend(points.iter().map(|point| point.label()));
    for row in rows {
        let size = row.bytes.map_or("-".to_owned(), bytes);
        let memory = row.fresh.peak_bytes.map_or("-".to_owned(), bytes);
        let mut line = row![
            row.precision,
            row.runtime,
            size,
            memory,
            spread(row.fresh.load_ms),
            spread(row.fresh.first_ms)
        ];
        for &point in &points {
            line.push(report.ms(row, point).map_or("-".to_owned(), spread));
        }
        lines.push(line);
    }
    let unit = match rows[0].role {
        Role::Signal if report.rendition.is_timed() => {
            "ms for each second of sound; median, and half of fastest to slowest"
        }
        _ => "ms of one call; median, and half of the distance between fastest and slowest",
    };
    format!("{}({unit})\n", table(&lines))
}

/// `12.3 ±4%`; of a single run the figure alone.
fn spread(ms: Spread) -> String {
    let figure = match ms.median {
        m if m < 10.0 => format!("{m:.2}"),
        m if m < 100.0 => format!("{m:.1}"),
        m => format!("{m:.0}"),
    };
    match ms.runs {
        1 => figure,
        _ => format!("{figure} ±{:.0}%", 50.0 * (ms.greatest - ms.least) / ms.median),
    }
}

/// A demand of the gate as a line.
pub(super) fn demand(demand: &Demand) -> String {
    let verdict = if demand.met { "held" } else { "MISSED" };
    let bound = if demand.at_least { ">=" } else { "<=" };
    let figure = demand.found.map_or("not measured".to_owned(), |figure| format!("{figure:.2}"));
    format!("{verdict}: {} {figure} ({bound} {})", demand.key, demand.limit)
}
