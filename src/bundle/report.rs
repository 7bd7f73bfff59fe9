//! The report page and the model card, from plain data: equal data gives equal bytes.

mod bars;
mod bench;
mod plot;
mod sound;
mod speech;

use std::fmt::Display;

use askama::Template;

use crate::bundle::{FileEntry, WeightsEntry};
use crate::digest::Digest;

pub use bench::html as bench_html;
use sound::Sound;
pub use speech::{SpeechPage, Variant, html as speech_html};

/// All that `report.html` says.
#[derive(Clone, Debug)]
pub struct Page {
    /// The bundle's name.
    pub name: String,
    /// Where the weights came from: `synthetic:soprano-1.1`, a hub id with its revision, a folder.
    pub checkpoint: String,
    /// Digest of the checkpoint's files.
    pub checkpoint_digest: Digest,
    /// The model's dimensions, name and value.
    pub architecture: Vec<(String, String)>,
    /// What the bundle was made with, package and version.
    pub environment: Vec<(String, String)>,
    /// One section for each artifact and the runtime it was checked in.
    pub artifacts: Vec<ArtifactSection>,
    /// A recording to listen to.
    pub listening: Option<Listening>,
    /// Whether differences are from the original model in double precision, not from PyTorch.
    pub float64: bool,
}

/// One artifact: its size, what the passes did to it, and how it did in one runtime.
#[derive(Clone, Debug)]
pub struct ArtifactSection {
    /// Path inside the bundle.
    pub file: String,
    /// Size of the file and of its weights, where they are another, in bytes.
    pub bytes: u64,
    /// Digest of the file.
    pub sha256: Digest,
    /// Its weights, where they are a file of their own.
    pub weights: Option<WeightsEntry>,
    /// How numbers are held: `fp32`, `int8`, …
    pub precision: String,
    /// What ran it, with the version: `tract 0.23.9`.
    pub runtime: String,
    /// Nodes of the graph, as exported and as bundled.
    pub nodes: (usize, usize),
    /// Bytes of weights, as exported and as bundled.
    pub weight_bytes: (u64, u64),
    /// How often each pass changed the graph, in the order in which they ran.
    pub passes: Vec<(String, usize)>,
    /// Metric and limit: (`snr_db`, `≥ 60 dB`). The limit of a metric that is a field of
    /// [`CaseRow`] stands in that field's column, any other one in a line of its own.
    pub thresholds: Vec<(String, String)>,
    /// What was run.
    pub cases: Vec<CaseRow>,
    /// The verdict that validation came to.
    pub passed: bool,
}

/// One recorded input, and how far the artifact's output is from the recorded one.
#[derive(Clone, Debug)]
pub struct CaseRow {
    /// Unique within the artifact.
    pub name: String,
    /// What the case is about: `random`, `edge`, `prefill`, …
    pub kind: String,
    /// Size of the batch.
    pub batch: usize,
    /// Length of the input, in the model's steps (tokens, hidden states).
    pub length: usize,
    /// Greatest magnitude of the reference.
    pub peak: f64,
    /// Greatest difference, as a share of `peak`.
    pub max_abs_of_peak: f64,
    /// [`crate::audio::snr_db`] of the output.
    pub snr_db: f64,
    /// [`crate::audio::log_spectral_distance_db`] of the output; nothing where the output is not sound.
    pub log_spectral_distance_db: Option<f64>,
    /// Whether every metric is within its limit.
    pub passed: bool,
    /// Of a case that can't judge closely how far a last bit of its input moves PyTorch's own output.
    pub ill_conditioned: Option<String>,
}

/// A recording, as PyTorch and as the artifact made it.
#[derive(Clone, Debug)]
pub struct Listening {
    /// What is heard.
    pub title: String,
    /// Samples a second, of both.
    pub sample_rate: u32,
    /// PyTorch's samples; full scale is ±1.
    pub reference: Vec<f32>,
    /// The artifact's samples.
    pub artifact: Vec<f32>,
}

/// All that the bundle's `README.md` says.
#[derive(Clone, Debug)]
pub struct Card {
    /// The bundle's name.
    pub name: String,
    /// Hub id of the model this one is made from; nothing for weights that are on no hub.
    pub base_model: Option<String>,
    /// Licence identifier of the weights, as the hub spells it: `apache-2.0`.
    pub license: String,
    /// Tags of the hub page.
    pub tags: Vec<String>,
    /// See [`Page::checkpoint`].
    pub checkpoint: String,
    /// See [`Page::checkpoint_digest`].
    pub checkpoint_digest: Digest,
    /// The models' files by their path inside the bundle.
    pub files: Vec<(String, FileEntry)>,
    /// The interface of the graph that makes sound; nothing for a bundle without one.
    pub signal: Option<CardSignal>,
    /// The same sections as the page's.
    pub artifacts: Vec<ArtifactSection>,
    /// Whether the original model answered in double precision, not in PyTorch.
    pub float64: bool,
}

/// A signal graph that turns `input` into `output` `[batch, per_frame·(T − lead)]`, both f32.
#[derive(Clone, Debug)]
pub struct CardSignal {
    /// Path of the ONNX file inside the bundle.
    pub file: String,
    /// Name of the input: `hidden_states`.
    pub input: String,
    /// Channels of a frame.
    pub channels: usize,
    /// Whether channels are the last dimension, and not the one before.
    pub channels_last: bool,
    /// Name of the output: `audio`.
    pub output: String,
    /// Samples of a frame.
    pub per_frame: usize,
    /// Frames that give no sample of their own.
    pub lead: usize,
    /// Samples a second.
    pub sample_rate: u32,
}

impl CardSignal {
    /// A frame's two dimensions, channels and so many frames.
    fn shape(&self, frames: &str) -> String {
        let channels = self.channels;
        if self.channels_last {
            format!("{frames}, {channels}")
        } else {
            format!("{channels}, {frames}")
        }
    }

    /// The number of samples, by the frames' letter.
    fn samples(&self) -> String {
        match self.lead {
            0 => format!("{}·T", self.per_frame),
            lead => format!("{}·(T − {lead})", self.per_frame),
        }
    }
}

impl Page {
    /// Whether there is an artifact, and every one is accepted.
    pub fn accepted(&self) -> bool {
        !self.artifacts.is_empty() && self.artifacts.iter().all(ArtifactSection::accepted)
    }

    /// The verdict in one sentence, after its word.
    fn sentence(&self) -> String {
        let cases = self.artifacts.iter().map(|a| a.cases.len()).sum();
        let checks = many(self.artifacts.len(), "artifact check", "artifact checks");
        if self.artifacts.is_empty() {
            return "no artifact was checked".to_owned();
        }
        if self.accepted() {
            let ill_conditioned =
                self.artifacts.iter().map(|a| a.cases.len() - a.judging().count()).sum::<usize>();
            let outcome = match ill_conditioned {
                0 => "every one within its limits",
                _ => "every one that can judge within its limits",
            };
            return format!("{checks}, {}, {outcome}", many(cases, "case", "cases"));
        }
        let failed = self.artifacts.iter().filter(|a| !a.accepted());
        let files: Vec<String> = failed.map(|a| format!("{} in {}", a.file, a.runtime)).collect();
        let failed: usize = self.artifacts.iter().map(ArtifactSection::failures).sum();
        format!(
            "{failed} of {} failed; not accepted: {}",
            many(cases, "case", "cases"),
            files.join(", ")
        )
    }
}

impl ArtifactSection {
    /// Whether validation passed it and the cases bear that out: at least one, none failed.
    pub fn accepted(&self) -> bool {
        self.passed && !self.cases.is_empty() && self.failures() == 0
    }

    fn failures(&self) -> usize {
        self.cases.iter().filter(|case| !case.accepted()).count()
    }

    fn sentence(&self) -> String {
        let cases = many(self.cases.len(), "case", "cases");
        let ill_conditioned = self.cases.len() - self.judging().count();
        match self.failures() {
            0 if self.cases.is_empty() => "no case was run".to_owned(),
            0 if self.passed && ill_conditioned > 0 => {
                format!(
                    "{cases}, of which {} ill-conditioned; the others within their limits",
                    grouped(ill_conditioned)
                )
            }
            0 if self.passed => format!("{cases}, every one within its limits"),
            0 => format!("{cases} within their limits, and the artifact was refused as a whole"),
            n => format!("{n} of {cases} failed"),
        }
    }

    /// The cases: failed ones first, then those that judge closely, then by SNR and by difference, worst first.
    fn worst_first(&self) -> Vec<&CaseRow> {
        let mut cases: Vec<&CaseRow> = self.cases.iter().collect();
        cases.sort_by(|a, b| {
            a.accepted()
                .cmp(&b.accepted())
                .then_with(|| a.ill_conditioned.is_some().cmp(&b.ill_conditioned.is_some()))
                .then_with(|| badness(-b.snr_db).total_cmp(&badness(-a.snr_db)))
                .then_with(|| badness(b.max_abs_of_peak).total_cmp(&badness(a.max_abs_of_peak)))
        });
        cases
    }

    /// The cases that are held to the limits.
    fn judging(&self) -> impl Iterator<Item = &CaseRow> {
        self.cases.iter().filter(|case| case.ill_conditioned.is_none())
    }

    fn least_snr_db(&self) -> Option<f64> {
        self.judging().map(|case| case.snr_db).max_by(|a, b| badness(-a).total_cmp(&badness(-b)))
    }

    fn greatest_difference(&self) -> Option<f64> {
        let differences = self.judging().map(|case| case.max_abs_of_peak);
        differences.max_by(|a, b| badness(*a).total_cmp(&badness(*b)))
    }

    fn limit(&self, metric: &str) -> String {
        let limits: Vec<&str> = self
            .thresholds
            .iter()
            .filter(|(m, _)| m == metric)
            .map(|(_, limit)| limit.as_str())
            .collect();
        if limits.is_empty() { "none".to_owned() } else { limits.join(" and ") }
    }

    fn other_limits(&self) -> Vec<&(String, String)> {
        const COLUMNS: [&str; 3] = ["max_abs_of_peak", "snr_db", "log_spectral_distance_db"];
        self.thresholds.iter().filter(|(metric, _)| !COLUMNS.contains(&metric.as_str())).collect()
    }
}

impl CaseRow {
    /// Whether it passed, and its metrics are numbers at all.
    pub fn accepted(&self) -> bool {
        let mut metrics = [self.peak, self.max_abs_of_peak, self.snr_db].into_iter();
        let metrics_are_numbers =
            !metrics.any(f64::is_nan) && !self.log_spectral_distance_db.is_some_and(f64::is_nan);
        self.passed && metrics_are_numbers
    }
}

/// Orders metrics of which more is worse; NaN, of either sign, is worst.
fn badness(metric: f64) -> f64 {
    if metric.is_nan() { f64::NAN.copysign(1.0) } else { metric }
}

/// A number that is none, for people.
fn word(x: f64) -> &'static str {
    match x {
        x if x.is_nan() => "not a number",
        x if x > 0.0 => "infinite",
        _ => "minus infinite",
    }
}

fn many(count: usize, one: &str, more: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { more })
}

/// A whole number, `1234567` as `1,234,567`.
fn grouped(n: impl Display) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// What the templates write `|name` after a value for.
mod filters {
    use std::borrow::Borrow;
    use std::fmt::Display;

    use askama::{Result, Values};

    pub fn count(n: impl Display, _: &dyn Values) -> Result<String> {
        Ok(super::grouped(n))
    }

    pub fn size(bytes: &u64, _: &dyn Values) -> Result<String> {
        Ok(super::megabytes(*bytes))
    }

    pub fn decibels(x: &f64, _: &dyn Values) -> Result<String> {
        Ok(if x.is_finite() { format!("{x:.2} dB") } else { super::word(*x).to_owned() })
    }

    pub fn ratio(x: &f64, _: &dyn Values) -> Result<String> {
        Ok(match *x {
            0.0 => "0".to_owned(),
            x if x.is_finite() => format!("{x:.2e}"),
            x => super::word(x).to_owned(),
        })
    }

    pub fn verdict(accepted: impl Borrow<bool>, _: &dyn Values) -> Result<&'static str> {
        Ok(if *accepted.borrow() { "PASSED" } else { "FAILED" })
    }

    /// Text in a Markdown table cell or paragraph: nothing in it is markup.
    pub fn cell(text: &str, _: &dyn Values) -> Result<String> {
        let mut escaped = String::new();
        for c in text.chars() {
            match c {
                '&' => escaped.push_str("&amp;"),
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                c if c.is_control() => escaped.push(' '),
                '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => escaped.extend(['\\', c]),
                c => escaped.push(c),
            }
        }
        Ok(escaped)
    }

    /// A name in a Markdown code span, or as [`cell`] where a code span can't hold it.
    pub fn code(text: &str, values: &dyn Values) -> Result<String> {
        let plain = |c: char| c.is_alphanumeric() || "-_./:@+ =,".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            Ok(format!("`{text}`"))
        } else {
            cell(text, values)
        }
    }

    /// A JSON string literal, which YAML and Python read as a string too.
    pub fn quoted(text: &str, _: &dyn Values) -> Result<String> {
        serde_json::to_string(text).map_err(|e| askama::Error::Custom(e.into()))
    }
}

#[derive(Template)]
#[template(path = "report.html", config = "src/bundle/askama.toml", whitespace = "minimize")]
struct Html<'a> {
    page: &'a Page,
    sound: Option<Sound>,
    range_db: f64,
}

/// The report as one page without scripts or other files. Everything in it is escaped; a verdict is always a word.
pub fn html(page: &Page) -> String {
    let sound = page.listening.as_ref().map(Sound::of);
    let html = Html { page, sound, range_db: plot::RANGE_DB };
    html.render().expect("writing to memory, with filters that refuse nothing")
}

#[derive(Template)]
#[template(path = "model_card.md", config = "src/bundle/askama.toml", escape = "none")]
struct Markdown<'a> {
    card: &'a Card,
}

/// The bundle's `README.md`, with the front matter that the model hub reads.
pub fn model_card(card: &Card) -> String {
    let card = Markdown { card };
    card.render().expect("writing to memory, with filters that refuse nothing")
}

#[cfg(test)]
mod tests;
