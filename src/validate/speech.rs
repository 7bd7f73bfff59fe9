//! A whole voice compared with what upstream's own code says in PyTorch, from text to sound.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::audio;
use crate::speech::{self, Frame, Sampling, Script, Settings, Voice, text::Faults};
use crate::tensor::TensorFile;

/// Samples this close to full scale are clipped.
const FULL_SCALE: f32 = 0.999;
/// More of a signal than this that is clipped, where the reference is not, is distortion.
const MOST_CLIPPED: f64 = 1e-3;
/// A signal this much quieter than its reference says nothing.
const QUIETEST: f64 = 0.1;

/// What upstream said to a recipe's sentences, as the exporter recorded it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The texts.
    pub sentences: Vec<String>,
    /// How upstream was asked to choose.
    pub settings: Settings,
    /// What it made of them, in order; a text may be several pieces.
    pub pieces: Vec<Piece>,
}

/// One prompt, and what upstream said to it.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The prompt, `[STOP][TEXT]…[START]`.
    pub prompt: String,
    /// Its tokens.
    pub ids: Vec<i64>,
    /// What was said, without the stop.
    pub tokens: Vec<i64>,
    /// Whether it stopped by itself.
    pub stopped: bool,
    /// The rows of hidden states that were decoded, each [channels].
    pub frames: Vec<Frame>,
    /// The samples that they became.
    pub audio: Vec<f32>,
}

#[derive(Deserialize)]
struct PieceEntry {
    prompt: String,
    stopped: bool,
}

#[derive(Deserialize)]
struct SettingsEntry {
    sentences: Vec<String>,
    repetition_penalty: f32,
    max_new_tokens: usize,
}

impl Recorded {
    /// Reads a bundle's `reference/speech.safetensors`.
    ///
    /// # Errors
    /// [`Error::References`] names the file and what is wrong with it; [`Error::Tensor`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::References { path: path.to_owned(), why };
        let file = TensorFile::read(path)?;
        let entry = |name: &str| {
            file.metadata.get(name).ok_or_else(|| refuse(format!("its header has no {name}")))
        };
        let settings: SettingsEntry = serde_json::from_str(entry("settings")?)
            .map_err(|error| refuse(format!("its settings: {error}")))?;
        let entries: Vec<PieceEntry> = serde_json::from_str(entry("pieces")?)
            .map_err(|error| refuse(format!("its pieces: {error}")))?;
        if entries.is_empty() {
            return Err(refuse("nothing is said in it".to_owned()));
        }
        let piece = |(at, entry): (usize, PieceEntry)| {
            let tensor = |name: &str| {
                let found = file.tensors.get(&format!("{at}/{name}"));
                found.ok_or_else(|| refuse(format!("piece {at} has no {name}")))
            };
            let hidden = tensor("hidden_states")?;
            let &[1, channels, length] = hidden.shape() else {
                return Err(refuse(format!("piece {at}: its hidden states are {:?}", hidden.shape())));
            };
            let values = hidden.to_f32()?;
            let row = |t: usize| Frame::Row((0..channels).map(|c| values[c * length + t]).collect());
            let piece = Piece {
                prompt: entry.prompt,
                stopped: entry.stopped,
                ids: tensor("prompt")?.to_i64()?,
                tokens: tensor("tokens")?.to_i64()?,
                frames: (0..length).map(row).collect(),
                audio: tensor("audio")?.to_f32()?,
            };
            let pieces = length.saturating_sub(1);
            let whole = piece.tokens.len() == length
                && (piece.audio.is_empty() == (pieces == 0))
                && (pieces == 0 || piece.audio.len().is_multiple_of(pieces))
                && values.iter().chain(&piece.audio).all(|value| value.is_finite());
            if whole { Ok(piece) } else { Err(refuse(format!("piece {at} is not whole"))) }
        };
        let pieces = entries.into_iter().enumerate().map(piece).collect::<Result<_, _>>()?;
        let repetition_penalty = settings.repetition_penalty;
        let sampling = Sampling { temperature: 0.0, repetition_penalty, ..Sampling::default() };
        let limit = settings.max_new_tokens;
        let faults = Faults::Kept;
        let spoken = Settings { sampling, limit, faults, ..Settings::default() };
        Ok(Self { sentences: settings.sentences, settings: spoken, pieces })
    }
}

/// What a voice must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    /// Of fp32: upstream's tokens, and its own run's audio at least so close to upstream's.
    Same {
        /// The least signal-to-noise ratio.
        snr_db: f64,
    },
    /// Of fewer bits: it stops where upstream stops, and decodes upstream's rows as well.
    Good {
        /// The least STOI.
        stoi: f64,
        /// The greatest mel-cepstral distortion, in dB.
        mel_cepstral_distortion_db: f64,
        /// The least PESQ, as MOS-LQO, where it is demanded; held where it can be measured.
        pesq: Option<f64>,
    },
}

/// How one piece was spoken, compared with upstream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Assessment {
    /// The prompt.
    pub prompt: String,
    /// Tokens of upstream's.
    pub tokens: usize,
    /// Tokens before the first that is another.
    pub agreeing: usize,
    /// Tokens more, or fewer, than upstream's.
    pub drift: i64,
    /// Whether it stopped where upstream did: by itself, or at the limit.
    pub stops: bool,
    /// Of its own run's audio to upstream's, where the tokens are the same.
    pub own_snr_db: Option<f64>,
    /// Of the decoder's audio of upstream's rows to upstream's: signal to noise.
    pub snr_db: f64,
    /// Scale-invariant signal-to-distortion ratio, in dB. This and the next three are none where the piece is silent
    /// or too short, or the rate too low.
    pub si_sdr_db: Option<f64>,
    /// Log-spectral distance, in dB.
    pub log_spectral_distance_db: f64,
    /// Mel-cepstral distortion, in dB.
    pub mel_cepstral_distortion_db: Option<f64>,
    /// Short-time objective intelligibility.
    pub stoi: Option<f64>,
    /// Extended short-time objective intelligibility.
    pub estoi: Option<f64>,
    /// Perceptual quality (P.862.2) as MOS-LQO, at 16 kHz; none too where it was not measured.
    pub pesq: Option<f64>,
    /// What it fails in, each a sentence.
    pub faults: Vec<String>,
    /// Its own run's samples.
    #[serde(skip)]
    pub samples: Vec<f32>,
    /// The decoder's samples of upstream's rows.
    #[serde(skip)]
    pub same_rows: Vec<f32>,
}

impl Assessment {
    /// Takes what [`pesq`](fn@super::pesq) measured, and holds it to what is demanded.
    pub fn score(&mut self, pesq: Option<f64>, demand: Demand) {
        self.pesq = pesq;
        if let (Some(score), Demand::Good { pesq: Some(least), .. }) = (pesq, demand)
            && score < least
        {
            self.faults.push(format!("PESQ {score:.3} (>= {least})"));
        }
    }
}

/// Lets a voice say what upstream said, and compares.
///
/// # Errors
/// [`Error::Speech`] of the voice; [`Error::Interrupted`].
pub fn assess(
    voice: &Voice,
    recorded: &Recorded,
    demand: Demand,
    interrupted: &AtomicBool,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<Assessment>, Error> {
    let mut prompts = Vec::new();
    for text in &recorded.sentences {
        let script = Script { name: format!("{text:?}"), text: text.clone() };
        prompts.extend(voice.read(&script, recorded.settings.faults)?);
    }
    let mut results = Vec::new();
    for (at, piece) in recorded.pieces.iter().enumerate() {
        progress(at, recorded.pieces.len());
        let ids = std::slice::from_ref(&piece.ids);
        let utterance = voice.say(ids, at, &recorded.settings, interrupted)?;
        let utterance = utterance.into_iter().next().unwrap_or_default();
        let pairs = utterance.tokens.iter().zip(&piece.tokens);
        let mut result = Assessment {
            prompt: piece.prompt.clone(),
            tokens: piece.tokens.len(),
            agreeing: pairs.take_while(|(a, b)| a == b).count(),
            drift: utterance.tokens.len() as i64 - piece.tokens.len() as i64,
            stops: utterance.stopped == piece.stopped,
            samples: voice.render(&utterance.frames)?,
            same_rows: voice.render(&piece.frames)?,
            ..Assessment::default()
        };
        if prompts.get(at) != Some(&piece.ids) {
            result.faults.push("the text front end makes another prompt of it".to_owned());
        }
        let same = result.agreeing == piece.tokens.len() && result.drift == 0;
        if same && !piece.audio.is_empty() {
            result.own_snr_db = Some(audio::snr_db(&piece.audio, &result.samples).map_err(refuse)?);
        }
        compare(&mut result, piece, voice.sample_rate())?;
        judge(&mut result, piece, demand, same);
        results.push(result);
    }
    progress(recorded.pieces.len(), recorded.pieces.len());
    Ok(results)
}

fn refuse(error: audio::Error) -> Error {
    Error::Speech(speech::Error::Interface {
        what: "the decoder's audio".to_owned(),
        why: error.to_string(),
    })
}

/// Measures the audio of upstream's rows.
fn compare(result: &mut Assessment, piece: &Piece, sample_rate: u32) -> Result<(), Error> {
    let (want, got) = (&piece.audio, &result.same_rows);
    result.snr_db = audio::snr_db(want, got).map_err(refuse)?;
    result.log_spectral_distance_db = if want.is_empty() {
        0.0
    } else {
        audio::log_spectral_distance_db(want, got).map_err(refuse)?
    };
    // A word of a quarter of a second can't be judged by STOI; what is silent is a fault, below.
    let optional = |score: Result<f64, audio::Error>| match score {
        Ok(score) => Ok(Some(score)),
        Err(
            audio::Error::TooShort { .. } | audio::Error::Silent { .. } | audio::Error::Rate { .. },
        ) => Ok(None),
        Err(other) => Err(refuse(other)),
    };
    result.si_sdr_db = optional(audio::si_sdr_db(want, got))?;
    result.mel_cepstral_distortion_db =
        optional(audio::mel_cepstral_distortion_db(want, got, sample_rate))?;
    result.stoi = optional(audio::stoi(want, got, sample_rate))?;
    result.estoi = optional(audio::estoi(want, got, sample_rate))?;
    Ok(())
}

fn judge(result: &mut Assessment, piece: &Piece, demand: Demand, same: bool) {
    let mut faults = std::mem::take(&mut result.faults);
    let mut ensure = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    ensure(
        result.stops,
        format!("it {} stop by itself", if piece.stopped { "doesn't" } else { "does" }),
    );
    match demand {
        Demand::Same { snr_db } => {
            let (agreeing, tokens) = (result.agreeing, result.tokens);
            ensure(same, format!("{agreeing} of {tokens} tokens are upstream's, then others"));
            let own = result.own_snr_db;
            ensure(
                !same || piece.audio.is_empty() || own.is_some_and(|own| own >= snr_db),
                format!(
                    "its own run is {:.1} dB from upstream's (>= {snr_db})",
                    own.unwrap_or(f64::NAN)
                ),
            );
        }
        Demand::Good { stoi, mel_cepstral_distortion_db: most, .. } => {
            if let Some(score) = result.stoi {
                ensure(score >= stoi, format!("STOI {score:.3} (>= {stoi})"));
            }
            if let Some(distortion) = result.mel_cepstral_distortion_db {
                let fault = format!("mel-cepstral distortion {distortion:.3} dB (<= {most})");
                ensure(distortion <= most, fault);
            }
        }
    }
    for (whose, samples) in [("its own run", &result.samples), ("upstream's rows", &result.same_rows)] {
        let loud = |samples: &[f32]| {
            let square = |s: &f32| f64::from(*s) * f64::from(*s);
            (samples.iter().map(square).sum::<f64>() / samples.len().max(1) as f64).sqrt()
        };
        let clipped = |samples: &[f32]| {
            let count = samples.iter().filter(|s| s.abs() >= FULL_SCALE).count();
            count as f64 / samples.len().max(1) as f64
        };
        let quiet = loud(samples) < QUIETEST * loud(&piece.audio);
        ensure(!quiet, format!("{whose}: silent next to upstream's"));
        let more = clipped(samples) - clipped(&piece.audio);
        ensure(more <= MOST_CLIPPED, format!("{whose}: {:.1} % of it is clipped", more * 100.0));
    }
    result.faults = faults;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece of a second and a half, and the assessment of it with its samples changed.
    fn assessed(demand: Demand, change: impl Fn(usize, f32) -> f32, same: bool) -> Assessment {
        let tone = |n: usize| {
            let t = n as f32 / 16000.0;
            let voiced = 0.5 + 0.5 * (t * 19.0).sin();
            voiced * 0.3 * ((t * 700.0).sin() + 0.5 * (t * 2900.0).sin() + 0.2 * (t * 9100.0).sin())
        };
        let audio: Vec<f32> = (0..24000).map(tone).collect();
        let samples: Vec<f32> = audio.iter().enumerate().map(|(n, &s)| change(n, s)).collect();
        let piece = Piece {
            prompt: String::new(),
            ids: vec![],
            tokens: vec![1; 4],
            stopped: true,
            frames: vec![],
            audio,
        };
        let own_snr_db = same.then(|| audio::snr_db(&piece.audio, &samples).unwrap());
        let same_rows = samples.clone();
        let mut found = Assessment {
            tokens: 4,
            stops: true,
            own_snr_db,
            samples,
            same_rows,
            ..Assessment::default()
        };
        compare(&mut found, &piece, 16000).unwrap();
        judge(&mut found, &piece, demand, same);
        found
    }

    const SAME: Demand = Demand::Same { snr_db: 60.0 };
    const GOOD: Demand = Demand::Good { stoi: 0.95, mel_cepstral_distortion_db: 1.5, pesq: Some(4.0) };

    #[test]
    fn what_is_upstreams_passes_and_each_fault_has_its_sentence() {
        let whole = |_: usize, sample: f32| sample;
        assert_eq!(assessed(SAME, whole, true).faults, [""; 0]);
        assert_eq!(assessed(GOOD, whole, false).faults, [""; 0]);
        let noise = |n: usize, s: f32| s + 0.2 * ((n * n) as f32 * 0.7).sin();
        assert!(assessed(SAME, whole, false).faults[0].contains("0 of 4 tokens"));
        assert!(assessed(SAME, noise, true).faults[0].contains("dB from upstream's"));
        let noisy = assessed(GOOD, noise, false);
        assert!(noisy.faults.iter().any(|fault| fault.contains("mel-cepstral")), "{:?}", noisy.faults);
        let silent = assessed(GOOD, |_, s| s * 0.01, false).faults;
        assert!(silent.iter().any(|fault| fault.contains("silent")), "{silent:?}");
        let loud = assessed(GOOD, |_, s| (s * 9.0).clamp(-1.0, 1.0), false).faults;
        assert!(loud.iter().any(|fault| fault.contains("clipped")), "{loud:?}");
    }

    #[test]
    fn pesq_is_held_where_it_is_demanded_and_measured() {
        let faults = |score, demand| {
            let mut assessed = Assessment::default();
            assessed.score(score, demand);
            assessed.faults
        };
        assert_eq!(faults(Some(3.1), GOOD), ["PESQ 3.100 (>= 4)"]);
        let free = Demand::Good { stoi: 0.95, mel_cepstral_distortion_db: 1.5, pesq: None };
        for (score, demand) in [(Some(4.0), GOOD), (None, GOOD), (Some(1.0), free), (Some(1.0), SAME)] {
            assert_eq!(faults(score, demand), [""; 0]);
        }
    }

    #[test]
    fn a_file_that_is_not_whole_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("speech.safetensors");
        let mut file = TensorFile::default();
        let why = |file: &TensorFile| {
            std::fs::write(&path, file.to_bytes().unwrap()).unwrap();
            Recorded::read(&path).map(|_| ()).unwrap_err().to_string()
        };
        assert!(why(&file).contains("no settings"));
        let settings = r#"{"sentences": ["A."], "repetition_penalty": 1.2, "max_new_tokens": 512}"#;
        file.metadata.insert("settings".into(), settings.into());
        file.metadata.insert("pieces".into(), "[]".into());
        assert!(why(&file).contains("nothing is said"));
        file.metadata.insert("pieces".into(), r#"[{"prompt": "p", "stopped": true}]"#.into());
        assert!(why(&file).contains("piece 0 has no hidden_states"));
        let mut tensor = |name: &str, tensor: crate::tensor::Tensor| {
            file.tensors.insert(format!("0/{name}"), tensor);
        };
        use crate::tensor::Tensor;
        tensor("hidden_states", Tensor::from_f32(&[1, 2, 3], &[0.0; 6]));
        tensor("prompt", Tensor::from_i64(&[1], &[3]));
        tensor("tokens", Tensor::from_i64(&[2], &[5, 6]));
        tensor("audio", Tensor::from_f32(&[4], &[0.0; 4]));
        assert!(why(&file).contains("piece 0 is not whole"), "two tokens, three rows");
        file.tensors.insert("0/tokens".into(), Tensor::from_i64(&[3], &[5, 6, 7]));
        std::fs::write(&path, file.to_bytes().unwrap()).unwrap();
        assert_eq!(Recorded::read(&path).unwrap().pieces[0].frames.len(), 3);
        file.tensors.insert("0/audio".into(), Tensor::from_f32(&[4], &[f32::NAN; 4]));
        std::fs::write(&path, file.to_bytes().unwrap()).unwrap();
        assert!(Recorded::read(&path).is_err());
    }
}
