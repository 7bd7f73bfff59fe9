//! The page of `validate --speech`: players, spectrograms, and the numbers.

use askama::Template;

use super::plot::{RANGE_DB, Spectrogram};
use super::sound::{player, positive};
use crate::validate::speech::{Assessment, Piece};

/// What one variant said in one runtime.
pub struct Variant {
    /// `fp32 in tract 0.23.9`.
    pub name: String,
    /// Piece by piece, in the order of the recording.
    pub assessments: Vec<Assessment>,
}

/// A voice, compared with the run of upstream.
pub struct SpeechPage<'a> {
    /// The bundle.
    pub name: &'a str,
    /// Samples a second.
    pub sample_rate: u32,
    /// What upstream said.
    pub pieces: &'a [Piece],
    /// What was said here.
    pub variants: &'a [Variant],
    /// Why PESQ was not measured, where it wasn't.
    pub pesq_missing: Option<&'a str>,
}

/// One sound of a piece.
struct Sound {
    name: String,
    figures: String,
    /// A data URI, or why there is no sound.
    player: Result<String, String>,
    spectrogram: String,
    faults: Vec<String>,
}

struct Row {
    prompt: String,
    sounds: Vec<Sound>,
}

#[derive(Template)]
#[template(path = "speech.html", config = "src/bundle/askama.toml", whitespace = "minimize")]
struct Html<'a> {
    name: &'a str,
    summary: Vec<(String, usize, usize)>,
    rows: Vec<Row>,
    range_db: f64,
    pesq_missing: Option<&'a str>,
}

/// The page, which needs nothing else: no script, no other file.
pub fn html(page: &SpeechPage<'_>) -> String {
    let passed = |all: &[Assessment]| all.iter().filter(|one| one.faults.is_empty()).count();
    let summary =
        page.variants.iter().map(|s| (s.name.clone(), passed(&s.assessments), s.assessments.len()));
    let rows = page.pieces.iter().enumerate().map(|(at, piece)| {
        let reference = Spectrogram::of(&piece.audio, page.sample_rate);
        let zero = positive(reference.loudest());
        let sound = |name: &str, samples: &[f32], figures: String, faults: Vec<String>| Sound {
            name: name.to_owned(),
            figures,
            player: player(page.sample_rate, samples),
            spectrogram: Spectrogram::of(samples, page.sample_rate).draw(
                zero,
                0.0,
                &format!("Spectrogram of {name}, kHz over seconds"),
            ),
            faults,
        };
        let tokens = format!("{} tokens", piece.tokens.len());
        let upstream = sound("upstream in PyTorch", &piece.audio, tokens, Vec::new());
        let sounds = page.variants.iter().filter_map(|variant| {
            let assessment = variant.assessments.get(at)?;
            Some(sound(
                &variant.name,
                &assessment.samples,
                figures(assessment),
                assessment.faults.clone(),
            ))
        });
        Row { prompt: piece.prompt.clone(), sounds: std::iter::once(upstream).chain(sounds).collect() }
    });
    let html = Html {
        name: page.name,
        summary: summary.collect(),
        rows: rows.collect(),
        range_db: RANGE_DB,
        pesq_missing: page.pesq_missing,
    };
    html.render().expect("writing to memory, with filters that refuse nothing")
}

fn figures(assessment: &Assessment) -> String {
    let scores = [
        ("SI-SDR", assessment.si_sdr_db, 1, " dB"),
        ("log-spectral distance", Some(assessment.log_spectral_distance_db), 3, " dB"),
        ("mel-cepstral distortion", assessment.mel_cepstral_distortion_db, 3, " dB"),
        ("STOI", assessment.stoi, 3, ""),
        ("ESTOI", assessment.estoi, 3, ""),
        ("PESQ", assessment.pesq, 3, ""),
    ];
    let scores = scores.map(|(name, score, digits, unit)| match score {
        Some(score) => format!("{name} {score:.digits$}{unit}"),
        None => format!("{name} –"),
    });
    format!(
        "{} of {} tokens the same; from upstream’s rows: SNR {:.1} dB, {}",
        assessment.agreeing,
        assessment.tokens,
        assessment.snr_db,
        scores.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sound_is_played_and_a_fault_is_said_in_words() {
        let audio: Vec<f32> = (0..8000).map(|n| (n as f32 * 0.3).sin() * 0.5).collect();
        let piece = Piece {
            prompt: "[STOP][TEXT]<b>hello[START]".into(),
            ids: vec![],
            tokens: vec![1, 2],
            stopped: true,
            frames: vec![],
            audio: audio.clone(),
        };
        let good = Assessment {
            tokens: 2,
            agreeing: 2,
            samples: audio,
            stoi: Some(0.97),
            ..Assessment::default()
        };
        let bad = Assessment { faults: vec!["PESQ 3.100 (>= 4)".into()], ..Assessment::default() };
        let variant = |name: &str, one| Variant { name: name.into(), assessments: vec![one] };
        let variants = [variant("fp32 in tract", good), variant("int8 in tract", bad)];
        let page = SpeechPage {
            name: "mini",
            sample_rate: 8000,
            pieces: &[piece],
            variants: &variants,
            pesq_missing: Some("no Python environment"),
        };
        let html = html(&page);
        assert_eq!(html.matches("<audio").count(), 2);
        assert_eq!(html.matches("<svg").count(), 3);
        for wanted in
            ["STOI 0.970", "PESQ 3.100", "FAILED", "1 of 1", "0 of 1", "&#60;b&#62;", "no samples"]
                .into_iter()
                .chain(["PESQ is not measured: no Python environment.", "ESTOI –"])
        {
            assert!(html.contains(wanted), "{wanted}");
        }
        assert!(!html.contains("<script") && !html.contains("<b>hello"));
    }
}
