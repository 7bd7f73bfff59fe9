//! What a whole checkpoint says to sentences.

use super::causal::{Drive, drive};
use super::{Course, LIMIT, Watch, refuse, rounded};
use crate::front::float64::{CausalInDouble, Frames, Numbers, SignalInDouble};
use crate::source::Refused;
use crate::tensor::{Tensor, TensorFile};
use crate::validate::Error;

/// A prompt that a sentence became; one may become several.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The sentence's place.
    pub sentence: usize,
    /// The prompt as text, `[STOP][TEXT]…[START]`.
    pub prompt: String,
    /// Its tokens.
    pub ids: Vec<i64>,
}

/// How a checkpoint is asked to speak.
#[derive(Clone, Copy, Debug)]
pub struct Speech<'a> {
    /// The texts, as they are written.
    pub sentences: &'a [String],
    /// What they became, in order.
    pub asked: &'a [Asked],
    /// By which the score of a token that was there already is divided, or multiplied where it is negative.
    pub repetition_penalty: f64,
    /// The token that ends an answer.
    pub stop: i64,
}

/// Records what a checkpoint says, from prompts to samples, the likeliest token each time: the file that
/// [`Recorded`](crate::validate::speech::Recorded) reads, and what a build keeps of it, `pieces`, `tokens` of all and
/// how many are `unstopped`. Of piece i:
///
/// ```text
/// {i}/prompt         i64 [n]            its tokens
/// {i}/tokens         i64 [T]            what is said, without the stop
/// {i}/hidden_states  f32 [1, C, T]      the rows that predicted them
/// {i}/audio          f32 [samples]      none where the rows are too few for any
/// ```
///
/// # Errors
/// As [`causal`](super::causal) and [`signal`](super::signal).
pub fn speech(
    language_model: &dyn CausalInDouble,
    decoder: &dyn SignalInDouble,
    wanted: Speech<'_>,
    watch: Watch<'_>,
) -> Result<(TensorFile, serde_json::Value), Error> {
    if wanted.asked.is_empty() {
        return refuse("`sentences`: nothing is asked".to_owned());
    }
    let (made, taken) = (language_model.channels(), decoder.channels());
    if made != taken {
        let why = format!(
            "the language model's hidden states have {made} channels, and the decoder takes {taken}"
        );
        return Err(Refused::new(
            "checkpoint-shape",
            why,
            "the two parts are of different checkpoints",
        )
        .into());
    }
    let mut course = Course::new(watch, LIMIT + decoder.ticks());
    let (stop, penalty) = (Some(wanted.stop), wanted.repetition_penalty);
    let runs = wanted.asked.iter();
    let runs: Vec<Drive<'_>> =
        runs.map(|asked| Drive { prompt: &asked.ids, limit: LIMIT, stop, penalty }).collect();
    let driven = drive(language_model, &runs, &mut course)?;
    let spoken: Vec<_> = driven.into_iter().map(|run| run.spoken(Some(wanted.stop))).collect();
    let sounds = |frames: &&Frames| frames.length > decoder.lead();
    let frames: Vec<Frames> =
        spoken.iter().map(|spoken| &spoken.frames).filter(sounds).cloned().collect();
    let mut answers = decoder.run(&frames, Numbers::Exact, &mut || course.tick())?.into_iter();
    let mut file = TensorFile::default();
    let mut pieces = Vec::new();
    for (at, (asked, spoken)) in wanted.asked.iter().zip(&spoken).enumerate() {
        let samples = match sounds(&&spoken.frames) {
            true => answers.next().map(|answer| answer.samples).unwrap_or_default(),
            false => Vec::new(),
        };
        let (what, length) = (format!("sentences[{}]", asked.sentence), spoken.frames.length);
        let shape = [1, decoder.channels(), length];
        let mut add = |name: &str, tensor| file.tensors.insert(format!("{at}/{name}"), tensor);
        add("prompt", Tensor::from_i64(&[asked.ids.len()], &asked.ids));
        add("tokens", Tensor::from_i64(&[length], &spoken.tokens));
        add("hidden_states", rounded(&what, &shape, spoken.frames.values.iter().copied())?);
        add("audio", rounded(&what, &[samples.len()], samples)?);
        let prompt = &asked.prompt;
        pieces.push(serde_json::json!({
            "sentence": asked.sentence, "prompt": prompt, "stopped": spoken.stopped
        }));
    }
    let settings = serde_json::json!({
        "sentences": wanted.sentences,
        "repetition_penalty": wanted.repetition_penalty,
        "max_new_tokens": LIMIT,
        "temperature": 0.0,
    });
    let result = serde_json::json!({
        "pieces": pieces.len(),
        "tokens": spoken.iter().map(|spoken| spoken.tokens.len()).sum::<usize>(),
        "unstopped": spoken.iter().filter(|spoken| !spoken.stopped).count(),
    });
    file.metadata.insert("pieces".into(), serde_json::Value::from(pieces).to_string());
    file.metadata.insert("precision".into(), "float64".into());
    file.metadata.insert("settings".into(), settings.to_string());
    course.finish();
    Ok((file, result))
}
