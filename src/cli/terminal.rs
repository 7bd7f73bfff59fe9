//! Terminal output: errors, progress, tables, numbers.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use crate::pipeline::{self, Reporter, State};
use crate::validate::{CaseResult, Measured, Metric, Verdict};

/// Whether stderr takes colour: a terminal, and NO_COLOR isn't set.
fn colourful() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Text for a person. A name in a file may hold what steers a terminal or turns the order of letters round: such a
/// character is written as `\u{1b}`.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let steers = |c: char| match c {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control() && c != '\n' && c != '\t',
    };
    if !text.contains(steers) {
        return text.into();
    }
    let shown = |c: char| if steers(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Writes to stderr. Whoever read it may have gone, and that is not a failure.
pub(super) fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(plain(text).as_bytes());
}

/// Prints a failure to stderr and returns the exit code.
pub(super) fn fail(failure: &(dyn Diagnostic + Send + Sync)) -> u8 {
    if interrupted(failure) {
        let spoken = failure.code().is_some_and(|code| code.to_string() == "speech::interrupted");
        match spoken {
            true => tellln!("interrupted; no file is left of what was said so far"),
            false => {
                tellln!("interrupted; finished stages are kept, and the next run goes on from there")
            }
        }
        return 130;
    }
    let text = if failure.source_code().is_some() {
        let report = |theme| {
            let mut text = String::new();
            let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
            let _ = handler.render_report(&mut text, failure);
            text
        };
        // In colour only where no escape is the file's own.
        match plain(&report(GraphicalTheme::none())) {
            Cow::Borrowed(_) if colourful() => report(GraphicalTheme::unicode()),
            words => words.into_owned(),
        }
    } else {
        let (bold, usual) = if colourful() { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
        let mut text = format!("{failure}\n");
        let mut cause = failure.source();
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text += &format!("  because: {inner_text}\n");
            }
            cause = inner.source();
        }
        if let Some(help) = failure.help() {
            text += &format!("hint: {help}\n");
        }
        format!("{bold}error{usual}: {}", plain(&text))
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
    match failure.code() {
        Some(code) if matches!(code.to_string().as_str(), "pipeline::rejected" | "pipeline::slow") => 1,
        _ => 2,
    }
}

fn interrupted(failure: &(dyn Diagnostic + Send + Sync)) -> bool {
    failure.code().is_some_and(|code| code.to_string().ends_with("::interrupted"))
}

/// A bar on a terminal, nothing elsewhere.
pub(super) struct Bar(pub Option<ProgressBar>);

impl Bar {
    pub(super) fn new(template: &str) -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(template).expect("a fixed template");
            ProgressBar::no_length().with_style(style)
        }))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Shows how a build goes: a bar on a terminal, plain lines elsewhere.
pub(super) struct Progress {
    bar: Bar,
    /// What is said of the stage that is being made.
    state: Mutex<String>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { bar: Bar::new("{prefix:<24} {bar:24} {msg} [{elapsed}]"), state: Mutex::default() }
    }
}

impl Reporter for Progress {
    fn begins(&self, stage: &str, state: &State) {
        let words = match state {
            State::Hit => "cached".to_owned(),
            State::Miss(why) => format!("making: {why}"),
        };
        *self.state.lock().expect("no panic holds it") = words.clone();
        match &self.bar.0 {
            Some(bar) => {
                bar.reset();
                bar.set_prefix(plain(stage).into_owned());
                bar.set_message(plain(&words).into_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
            }
            None if *state != State::Hit => tellln!("{stage:<24} {words}"),
            None => {}
        }
    }

    fn progress(&self, step: &str, done: u64, total: u64) {
        if let Some(bar) = &self.bar.0 {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{} {done}/{total}", plain(step)));
        }
    }

    fn ends(&self, stage: &str, took: Duration) {
        let words = self.state.lock().expect("no panic holds it").clone();
        let line = match words.as_str() {
            "cached" => format!("{stage:<24} cached"),
            _ => format!("{stage:<24} done in {:.1} s", took.as_secs_f64()),
        };
        match &self.bar.0 {
            Some(bar) => bar.println(plain(&line)),
            None => tellln!("{line}"),
        }
    }
}

/// Bytes for people: `121.45 MB`, in powers of ten as file managers and stores count.
pub(super) fn bytes(n: u64) -> String {
    if n < 10_000 {
        return format!("{n} B");
    }
    let (value, unit) = match n {
        0..1_000_000 => (n as f64 / 1e3, "kB"),
        1_000_000..1_000_000_000 => (n as f64 / 1e6, "MB"),
        _ => (n as f64 / 1e9, "GB"),
    };
    format!("{value:.1} {unit}")
}

/// Columns aligned by their widest cell; the first row is the header.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|row| row.get(c))
                .map(|cell| plain(cell).chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &w)| format!("{:<w$}", plain(cell))).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// The names of a table's columns.
pub(super) fn header(names: &str) -> Vec<String> {
    names.split(", ").map(str::to_owned).collect()
}

/// A row of a table.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($cell.to_string()),*] };
}
pub(super) use row;

/// The result of a validation: each error with its threshold.
pub(super) fn verdict(verdict: &Verdict) -> String {
    let (thrown, judging): (Vec<_>, Vec<_>) =
        verdict.cases.iter().partition(|case| case.ill_conditioned.is_some());
    let mut rows = vec![row!["metric", "worst", "threshold", "case"]];
    for (metric, limit) in verdict.tolerance.limits() {
        let cases = judging.iter().filter_map(|c| Some((c.measured.get(metric)?, &c.name)));
        let worst = cases.max_by(|a, b| metric.badness(a.0).total_cmp(&metric.badness(b.0)));
        let (value, case) =
            worst.map_or(("-".to_owned(), "-"), |(value, name)| (metric.show(value), name.as_str()));
        rows.push(row![metric.label(), value, metric.show_limit(limit), case]);
    }
    let failed: Vec<_> = verdict.cases.iter().filter(|case| !case.passed).collect();
    let mut text = table(&rows);
    let state = if verdict.passed { "PASSED" } else { "FAILED" };
    text += &format!(
        "{state}: {} of {} references within tolerance, in {}\n",
        judging.iter().filter(|case| case.passed).count(),
        judging.len(),
        verdict.runtime
    );
    for case in thrown {
        text += &ill_conditioned(case);
    }
    if let Some(kind) = verdict.unproven() {
        text += &format!("  every {} reference is ill-conditioned: nothing is proven\n", kind.name());
    }
    for case in failed.iter().take(5) {
        text += &match &case.fault {
            Some(fault) => format!("  {}: {fault}\n", case.name),
            None => {
                let figures = case.measured.iter().map(|(m, v)| format!("{} {}", m.label(), m.show(v)));
                format!("  {}: {}\n", case.name, figures.collect::<Vec<_>>().join(", "))
            }
        };
    }
    for beside in &verdict.beside {
        let other = &beside.verdict;
        let passed = other.cases.iter().filter(|case| case.passed).count();
        let state = if beside.passed() { "PASSED" } else { "FAILED" };
        text += &format!(
            "{state}: {passed} of {} in {}; the two agree to {} ({})\n",
            other.cases.len(),
            other.runtime,
            Metric::SnrDb.show(beside.agreement_db),
            Metric::SnrDb.show_limit((10.0 * beside.agreement_limit_db).round() / 10.0)
        );
    }
    if let Some(divergence) = &verdict.divergence {
        text += &format!("  first divergence: {divergence}\n");
    }
    text
}

/// Why a case can't judge closely, and what it was held to instead.
fn ill_conditioned(case: &CaseResult) -> String {
    let moved = case.ill_conditioned.as_ref().map(Measured::summary).unwrap_or_default();
    let excess = if case.passed { "" } else { ", which is more than that explains" };
    format!(
        "  {}: ill-conditioned: where a last bit changes, the original model's own answer is off by {moved} of the \
         peak; the model's by {}{excess}\n",
        case.name,
        case.measured.summary()
    )
}

/// The rejected verdict inside a pipeline's error, if that is what it is.
pub(super) fn rejected(error: &pipeline::Error) -> Option<&Verdict> {
    match error {
        pipeline::Error::Rejected { verdict, .. } => Some(verdict),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        for (text, shown) in [
            ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("\r\u{7f}\u{9b}2J\0", "\\u{d}\\u{7f}\\u{9b}2J\\u{0}"),
            ("\u{202e}x\u{2069}\u{202a}\u{2066}", "\\u{202e}x\\u{2069}\\u{202a}\\u{2066}"),
            ("two\nlines\tand é, – and \u{2065}\u{200d}", "two\nlines\tand é, – and \u{2065}\u{200d}"),
        ] {
            assert_eq!(plain(text), shown);
        }
        // Columns are as wide as what is shown.
        let rows = [row!["\u{1b}", "a"], row!["b", "\u{9b}"]];
        assert_eq!(table(&rows), "\\u{1b}  a\nb       \\u{9b}\n");
    }
}
