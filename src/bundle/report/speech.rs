//! The page of `validate --speech`: players, spectrograms, and the numbers.

use askama::Template;

use super::plot::{RANGE_DB, Spectrogram};
use super::sound::{player, positive};
use crate::validate::speech::{Heard, Piece};

/// What one variant said in one runtime.
pub struct Speaker {
    /// `fp32 in tract 0.23.9`.
    pub name: String,
    /// Piece by piece, in the order of the recording.
    pub heard: Vec<Heard>,
}

/// A voice beside the run of upstream that it is held to.
pub struct SpeechPage<'a> {
    /// The bundle.
    pub name: &'a str,
    /// Samples a second.
    pub sample_rate: u32,
    /// What upstream said.
    pub pieces: &'a [Piece],
    /// What was said here.
    pub speakers: &'a [Speaker],
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

/// The page, which needs nothing beside it: no script, no other file.
pub fn html(page: &SpeechPage<'_>) -> String {
    let passed = |heard: &[Heard]| heard.iter().filter(|heard| heard.faults.is_empty()).count();
    let summary = page.speakers.iter().map(|s| (s.name.clone(), passed(&s.heard), s.heard.len()));
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
        let said = page.speakers.iter().filter_map(|speaker| {
            let heard = speaker.heard.get(at)?;
            Some(sound(&speaker.name, &heard.samples, figures(heard), heard.faults.clone()))
        });
        Row { prompt: piece.prompt.clone(), sounds: std::iter::once(upstream).chain(said).collect() }
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

fn figures(heard: &Heard) -> String {
    let scores = [
        ("SI-SDR", heard.si_sdr_db, 1, " dB"),
        ("log-spectral distance", Some(heard.log_spectral_distance_db), 3, " dB"),
        ("mel-cepstral distortion", heard.mel_cepstral_distortion_db, 3, " dB"),
        ("STOI", heard.stoi, 3, ""),
        ("ESTOI", heard.estoi, 3, ""),
        ("PESQ", heard.pesq, 3, ""),
    ];
    let scores = scores.map(|(name, score, digits, unit)| match score {
        Some(score) => format!("{name} {score:.digits$}{unit}"),
        None => format!("{name} –"),
    });
    format!(
        "{} of {} tokens the same; from upstream’s rows: SNR {:.1} dB, {}",
        heard.agreeing,
        heard.tokens,
        heard.snr_db,
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
        let good =
            Heard { tokens: 2, agreeing: 2, samples: audio, stoi: Some(0.97), ..Heard::default() };
        let bad = Heard { faults: vec!["PESQ 3.100 (>= 4)".into()], ..Heard::default() };
        let speaker = |name: &str, heard| Speaker { name: name.into(), heard: vec![heard] };
        let speakers = [speaker("fp32 in tract", good), speaker("int8 in tract", bad)];
        let page = SpeechPage {
            name: "mini",
            sample_rate: 8000,
            pieces: &[piece],
            speakers: &speakers,
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
