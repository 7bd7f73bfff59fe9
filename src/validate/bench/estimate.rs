//! What the figures come to: seconds for a text, and how much faster than speech that is.

use serde::{Deserialize, Serialize};

use super::{Row, SpeakingRate};
use crate::interface::Call;
use crate::names::Role;

/// Milliseconds over a size, from few measured sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve(Vec<(f64, f64)>);

impl Curve {
    /// Through these points, by size; none where there are fewer than two sizes.
    pub fn through(mut points: Vec<(f64, f64)>) -> Option<Self> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|a, b| a.0 == b.0);
        (points.len() >= 2).then_some(Self(points))
    }

    /// Interpolates between the two nearest points. Beyond the last it extends the last line, unless that falls;
    /// before the first it is constant.
    pub fn at(&self, size: f64) -> f64 {
        let Some(&(first, ms)) = self.0.first() else { return f64::NAN };
        if size <= first {
            return ms;
        }
        let mut last = (first, ms, 0.0);
        for pair in self.0.windows(2) {
            let ((x, y), (to, end)) = (pair[0], pair[1]);
            let slope = (end - y) / (to - x);
            if size <= to {
                return y + slope * (size - x);
            }
            last = (to, end, slope.max(0.0));
        }
        let (x, y, slope) = last;
        y + slope * (size - x)
    }
}

/// Saying a text of some length as one utterance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Characters of the text.
    pub characters: usize,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Tokens that are said.
    pub audio_tokens: usize,
    /// Seconds of sound.
    pub audio_seconds: f64,
    /// Seconds until the first token; 0 without a language model.
    pub prefill_seconds: f64,
    /// Seconds of all steps after it, each with more cached positions.
    pub steps_seconds: f64,
    /// Seconds of the decoder; 0 without one.
    pub decode_seconds: f64,
    /// Seconds of sound made in one second.
    pub realtime_factor: f64,
}

/// A whole voice: each of its graphs in some variant and runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    /// A place in the list of rows for each graph.
    pub rows: Vec<usize>,
    /// One for each length of text.
    pub estimates: Vec<Estimate>,
}

impl Whole {
    /// Seconds of sound made in one second at a length of text, where that was estimated.
    pub fn realtime_factor(&self, characters: usize) -> Option<f64> {
        let estimate = self.estimates.iter().find(|estimate| estimate.characters == characters);
        estimate.map(|estimate| estimate.realtime_factor)
    }
}

/// How tokens become sound, and text tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rendition {
    /// Samples for each token after the first; 0 where nothing makes sound.
    pub samples_per_token: usize,
    /// Samples a second.
    pub sample_rate: usize,
    /// How much is said.
    pub rate: SpeakingRate,
}

impl Rendition {
    /// Whether sound has a length in seconds.
    pub fn is_timed(&self) -> bool {
        self.samples_per_token > 0 && self.sample_rate > 0
    }

    /// Seconds of sound that a decoder makes of so many tokens.
    pub fn seconds(&self, tokens: usize) -> f64 {
        (tokens.saturating_sub(1) * self.samples_per_token) as f64 / self.sample_rate.max(1) as f64
    }

    /// What a text takes in these rows, one of each graph; none where a row lacks the calls that it takes.
    pub fn estimate(&self, rows: &[&Row], characters: usize) -> Option<Estimate> {
        let units = self.rate.units(characters);
        let (mut prefill_ms, mut steps_ms, mut decode_ms) = (0.0, 0.0, 0.0);
        for row in rows {
            match row.role {
                Role::Causal => {
                    let (prefill, step) = (prefill_curve(row)?, step_curve(row)?);
                    prefill_ms += prefill.at(units.prompt as f64);
                    // The prompt gives the first token; the last step gives the stop.
                    steps_ms +=
                        (0..units.audio).map(|at| step.at((units.prompt + at) as f64)).sum::<f64>();
                }
                Role::Signal => decode_ms += frames_curve(row)?.at(units.audio as f64),
            }
        }
        let audio_seconds = self.seconds(units.audio);
        let whole_ms = prefill_ms + steps_ms + decode_ms;
        (whole_ms > 0.0).then(|| Estimate {
            characters,
            prompt_tokens: units.prompt,
            audio_tokens: units.audio,
            audio_seconds,
            prefill_seconds: prefill_ms / 1e3,
            steps_seconds: steps_ms / 1e3,
            decode_seconds: decode_ms / 1e3,
            realtime_factor: audio_seconds / (whole_ms / 1e3),
        })
    }
}

fn curve(row: &Row, size: impl Fn(Call) -> Option<usize>) -> Option<Curve> {
    let points = row.figures.iter().filter_map(|f| Some((size(f.point)? as f64, f.ms.median)));
    Curve::through(points.collect())
}

fn step_curve(row: &Row) -> Option<Curve> {
    curve(row, |point| match point {
        Call::Step { past, batch: 1 } => Some(past),
        _ => None,
    })
}

/// A decode step without cached positions is a prompt of one token.
fn prefill_curve(row: &Row) -> Option<Curve> {
    curve(row, |point| match point {
        Call::Step { past: 0, batch: 1 } => Some(1),
        Call::Prefill { tokens } => Some(tokens),
        _ => None,
    })
}

fn frames_curve(row: &Row) -> Option<Curve> {
    curve(row, |point| match point {
        Call::Frames { frames, batch: 1 } => Some(frames),
        _ => None,
    })
}

/// Every choice of one row of each graph, with what each text takes; PyTorch's rows go with each other alone.
pub fn whole(rows: &[Row], rendition: &Rendition, characters: &[usize]) -> Vec<Whole> {
    if !rendition.is_timed() {
        return Vec::new();
    }
    let mut graphs: Vec<&str> = Vec::new();
    for row in rows {
        if !graphs.contains(&row.graph.as_str()) {
            graphs.push(&row.graph);
        }
    }
    let choices = graphs.iter().fold(vec![Vec::new()], |choices: Vec<Vec<usize>>, graph| {
        let with = |chosen: &Vec<usize>| -> Vec<Vec<usize>> {
            let of_graph = (0..rows.len()).filter(|&at| rows[at].graph == **graph);
            of_graph.map(|at| chosen.iter().copied().chain([at]).collect()).collect()
        };
        choices.iter().flat_map(with).collect()
    });
    let own = |at: &usize| rows[*at].file.is_some();
    let alike = |chosen: &Vec<usize>| chosen.iter().all(own) || !chosen.iter().any(own);
    let estimated = |chosen: Vec<usize>| {
        let of: Vec<&Row> = chosen.iter().map(|&at| &rows[at]).collect();
        let estimates =
            characters.iter().map(|&n| rendition.estimate(&of, n)).collect::<Option<_>>()?;
        Some(Whole { rows: chosen, estimates })
    };
    choices.into_iter().filter(alike).filter_map(estimated).collect()
}

/// The place of the fastest of the bundle's own at a length of text; PyTorch is none of them.
pub fn best(all: &[Whole], rows: &[Row], characters: usize) -> Option<usize> {
    let own = |at: &usize| rows.get(*at).is_some_and(|row| row.file.is_some());
    let factor = |at: usize| all[at].realtime_factor(characters).unwrap_or(f64::NEG_INFINITY);
    let own = (0..all.len()).filter(|&at| all[at].rows.iter().all(own));
    own.max_by(|&a, &b| factor(a).total_cmp(&factor(b)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Figure, Fresh, Spread, calls};
    use super::*;
    use crate::names::Precision;

    pub(in super::super) fn exactly(ms: f64) -> Spread {
        Spread { median: ms, least: ms, greatest: ms, runs: 1 }
    }

    /// A row whose every call takes `base` and as much again for each hundred of its size.
    pub(in super::super) fn row(
        role: Role,
        precision: Precision,
        base: f64,
        file: Option<&str>,
    ) -> Row {
        let size = |point: Call| match point {
            Call::Step { past, batch } => past * batch,
            Call::Prefill { tokens } => tokens,
            Call::Frames { frames, batch } => frames * batch,
        };
        let ms = |point| exactly(base * (1.0 + size(point) as f64 / 100.0));
        Row {
            graph: if role == Role::Causal { "lm".into() } else { "decoder".into() },
            role,
            precision,
            file: file.map(str::to_owned),
            bytes: file.map(|_| 5_000_000),
            runtime: if file.is_some() { "tract 1".into() } else { "pytorch 2".into() },
            fresh: Fresh { load_ms: exactly(1.0), first_ms: exactly(1.0), peak_bytes: Some(7_000_000) },
            figures: calls(role, false).iter().map(|&point| Figure { point, ms: ms(point) }).collect(),
        }
    }

    fn rendition() -> Rendition {
        let rate = SpeakingRate {
            tokens_per_character: 1.0,
            prompt_per_character: 0.29,
            source: String::new(),
        };
        Rendition { samples_per_token: 2000, sample_rate: 20_000, rate }
    }

    #[test]
    fn a_curve_goes_through_its_points_and_on() {
        let curve = Curve::through(vec![(10.0, 3.0), (0.0, 1.0), (20.0, 8.0)]).unwrap();
        for (size, ms) in [(0.0, 1.0), (5.0, 2.0), (10.0, 3.0), (15.0, 5.5), (20.0, 8.0), (30.0, 13.0)]
        {
            approx::assert_abs_diff_eq!(curve.at(size), ms, epsilon = 1e-12);
        }
        let falling = Curve::through(vec![(1.0, 5.0), (2.0, 4.0)]).unwrap();
        assert_eq!((falling.at(0.0), falling.at(100.0)), (5.0, 4.0), "noise is not followed below");
        assert_eq!(Curve::through(vec![(1.0, 2.0), (1.0, 3.0)]), None);
    }

    #[test]
    fn a_text_takes_its_prompt_its_steps_and_its_sound() {
        let lm = row(Role::Causal, Precision::Fp32, 1.0, Some("a"));
        let decoder = row(Role::Signal, Precision::Fp32, 10.0, Some("b"));
        let whole = rendition().estimate(&[&lm, &decoder], 100).unwrap();
        assert_eq!((whole.prompt_tokens, whole.audio_tokens), (32, 100));
        approx::assert_abs_diff_eq!(whole.prefill_seconds, 1.32e-3, epsilon = 1e-12);
        // 100 steps of 1 ms, and (32 + ... + 131) / 100 more for their pasts.
        approx::assert_abs_diff_eq!(whole.steps_seconds, 0.1 + 8150.0 / 100.0 / 1e3, epsilon = 1e-9);
        approx::assert_abs_diff_eq!(whole.decode_seconds, 0.02, epsilon = 1e-12);
        approx::assert_abs_diff_eq!(whole.audio_seconds, 9.9, epsilon = 1e-12);
        let seconds = whole.prefill_seconds + whole.steps_seconds + whole.decode_seconds;
        approx::assert_abs_diff_eq!(whole.realtime_factor, 9.9 / seconds, epsilon = 1e-9);
    }

    #[test]
    fn the_best_is_the_fastest_pair_and_never_pytorch() {
        let rows = [
            row(Role::Causal, Precision::Fp32, 2.0, Some("lm32")),
            row(Role::Causal, Precision::Int8, 1.0, Some("lm8")),
            row(Role::Causal, Precision::Fp32, 0.1, None),
            row(Role::Signal, Precision::Fp32, 1.0, Some("dec32")),
            row(Role::Signal, Precision::Int8, 3.0, Some("dec8")),
        ];
        let all = whole(&rows, &rendition(), &[50, 200]);
        assert_eq!(all.len(), 4, "half of PyTorch is paired with no file");
        let best = &all[best(&all, &rows, 200).unwrap()];
        assert_eq!(best.rows, [1, 3]);
    }

    #[test]
    fn half_a_voice_is_estimated_alone() {
        let rows = [row(Role::Signal, Precision::Fp32, 1.0, Some("a"))];
        let all = whole(&rows, &rendition(), &[50]);
        assert_eq!((all.len(), &all[0].rows[..]), (1, &[0][..]));
        assert_eq!(all[0].estimates[0].steps_seconds, 0.0);
        assert!(whole(&[], &rendition(), &[50]).is_empty());
    }
}
