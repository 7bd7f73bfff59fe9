//! The players and pictures of a recording.

use super::plot::{self, Spectrogram};
use super::{Listening, grouped, many, word};
use crate::audio::{self, Encoding, Wav};

/// A recording as the page shows it.
pub(super) struct Sound {
    pub title: String,
    pub facts: String,
    pub players: Vec<(&'static str, Result<String, String>)>,
    pub waveforms: Vec<(String, String)>,
    pub spectrograms: Vec<(String, String)>,
    pub note: Option<String>,
}

impl Sound {
    pub(super) fn of(Listening { title, sample_rate, reference, artifact }: &Listening) -> Self {
        let rate = (*sample_rate).max(1);
        let seconds = reference.len() as f64 / f64::from(rate);
        let figures = figures(reference, artifact);
        let facts = format!("{} s at {} Hz{figures}", plot::plain(seconds, 4), grouped(sample_rate));
        let sides = [("Reference", reference), ("Artifact", artifact)];

        let full_scale = positive(loudest(reference).max(loudest(artifact)));
        let draw_wave = |name: &str, samples: &[f32], scale: f64| {
            let label = format!("Waveform of the {}, amplitude over seconds", name.to_lowercase());
            plot::waveform(samples, rate, scale, &label)
        };
        let waveform = |(name, samples): (&str, &Vec<f32>)| {
            (name.to_owned(), draw_wave(name, samples, full_scale))
        };
        let mut waveforms: Vec<_> = sides.map(waveform).into();

        let pictures = sides.map(|(name, samples)| (name, Spectrogram::of(samples, rate)));
        let zero = match pictures.each_ref().map(|(_, picture)| picture.loudest()) {
            [reference, _] if reference > 0.0 => reference,
            [_, artifact] => positive(artifact),
        };
        let draw = |name: &str, picture: &Spectrogram, top: f64| {
            let label = format!("Spectrogram of the {}, kilohertz over seconds", name.to_lowercase());
            picture.draw(zero, top, &label)
        };
        let spectrogram =
            |(name, picture): (&str, Spectrogram)| (name.to_owned(), draw(name, &picture, 0.0));
        let mut spectrograms: Vec<_> = pictures.map(spectrogram).into();

        let mut notes = Vec::new();
        if reference.len() == artifact.len() {
            let difference: Vec<f32> = artifact.iter().zip(reference).map(|(a, r)| a - r).collect();
            let (scale, extent) = match loudest(&difference) {
                greatest if greatest > 0.0 => {
                    let scale = plot::round_down(full_scale / greatest);
                    (scale, format!(", drawn {} times as large", times(scale)))
                }
                _ => (1.0, ": zero wherever it is a number".to_owned()),
            };
            let heading = format!("Difference (artifact − reference){extent}");
            waveforms.push((heading, draw_wave("difference", &difference, full_scale / scale)));
            let picture = Spectrogram::of(&difference, rate);
            let top = 20.0 * (picture.loudest() / zero).log10();
            let top = if top.is_finite() { (top / 10.0).ceil() * 10.0 } else { 0.0 };
            let heading = "Difference (artifact − reference), with a scale of its own".to_owned();
            spectrograms.push((heading, draw("difference", &picture, top)));
        } else {
            notes.push(format!(
                "No difference is drawn: the reference has {} samples and the artifact {}.",
                grouped(reference.len()),
                grouped(artifact.len())
            ));
        }
        notes.extend(not_numbers(reference, artifact));
        Self {
            title: title.clone(),
            facts,
            players: sides.map(|(name, samples)| (name, player(*sample_rate, samples))).into(),
            waveforms,
            spectrograms,
            note: (!notes.is_empty()).then(|| notes.join(" ")),
        }
    }
}

/// How far an artifact is from its reference; nothing where they can't be compared.
fn figures(reference: &[f32], artifact: &[f32]) -> String {
    let (Ok(snr), Ok(distance), Ok(greatest)) = (
        audio::snr_db(reference, artifact),
        audio::log_spectral_distance_db(reference, artifact),
        audio::max_abs_difference(reference, artifact),
    ) else {
        return String::new();
    };
    let show = |x: f64, text: String| if x.is_finite() { text } else { word(x).to_owned() };
    format!(
        "; SNR {}, log-spectral distance {}, greatest difference {}",
        show(snr, format!("{snr:.2} dB")),
        show(distance, format!("{distance:.2} dB")),
        show(greatest, format!("{greatest:.2e}"))
    )
}

/// How many samples are not numbers, where some are.
fn not_numbers(reference: &[f32], artifact: &[f32]) -> Option<String> {
    let [in_reference, in_artifact] =
        [reference, artifact].map(|samples| samples.iter().filter(|s| !s.is_finite()).count());
    (in_reference + in_artifact > 0).then(|| {
        format!(
            "{} of the reference and {} of the artifact are not numbers or not finite; the pictures \
             bar them in red.",
            many(in_reference, "sample", "samples"),
            grouped(in_artifact)
        )
    })
}

/// A factor as text: `20,000` or `0.5`.
fn times(scale: f64) -> String {
    if (1.0..1e15).contains(&scale) { grouped(scale.round() as u64) } else { plot::plain(scale, 1) }
}

/// The greatest finite magnitude of a signal, for the scale of a picture.
fn loudest(signal: &[f32]) -> f64 {
    signal.iter().map(|&x| f64::from(x).abs()).filter(|x| x.is_finite()).fold(0.0, f64::max)
}

pub(super) fn positive(x: f64) -> f64 {
    if x > 0.0 { x } else { 1.0 }
}

/// A 16-bit WAV as a data URI, or why there is none.
pub(super) fn player(sample_rate: u32, samples: &[f32]) -> Result<String, String> {
    if samples.is_empty() {
        return Err("it has no samples".to_owned());
    }
    let wav = Wav { sample_rate, samples: samples.to_vec() };
    let bytes = wav.to_bytes(Encoding::Pcm16).map_err(|why| why.to_string())?;
    Ok(plot::data_uri("audio/wav", &bytes))
}
