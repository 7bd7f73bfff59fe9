//! The loop with models whose answers can be told: what is said depends on everything said before, through
//! the cache alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::family::soprano::Soprano;
use crate::interface::{Causal, Port, Signal, Signature};
use crate::names;
use crate::runtime::{self, Conversation, Session, Tensors};
use crate::tensor::Tensor;

const VOCABULARY: usize = 400;
const CHANNELS: usize = 3;
const STOP: i64 = 3;
static ON: AtomicBool = AtomicBool::new(false);

/// What a model is wrong about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    NeverStops,
    NotANumber,
    NoHidden,
    Wide,
}

/// Answers with a number of all tokens so far that aren't padding, each weighed by its position.
struct Fake(Vec<String>, Fault);

impl Fake {
    fn boxed(fault: Fault) -> Box<Self> {
        let names = ["input_ids", "attention_mask", "position_ids", "past_key_values.0.key"];
        Box::new(Self(names.map(str::to_owned).to_vec(), fault))
    }
}

impl Session for Fake {
    fn inputs(&self) -> &[String] {
        &self.0
    }
    fn outputs(&self) -> &[String] {
        &[]
    }
    fn begin(
        &self,
        carried: &[(String, String)],
    ) -> Result<Box<dyn Conversation + '_>, runtime::Error> {
        assert_eq!(carried, [("present.0.key".to_owned(), "past_key_values.0.key".to_owned())]);
        Ok(runtime::Copying::begin(|inputs: &Tensors| self.run(inputs), carried))
    }
    fn run(&self, inputs: &Tensors) -> Result<Tensors, runtime::Error> {
        let whole = |name: &str| inputs[name].to_i64().unwrap();
        let (ids, mask, positions) =
            (whole("input_ids"), whole("attention_mask"), whole("position_ids"));
        let past = &inputs["past_key_values.0.key"];
        let (batch, before) = (past.shape()[0], past.shape()[2]);
        let (new, cached) = (ids.len() / batch, past.to_f32().unwrap());
        assert_eq!(mask.len(), batch * (before + new));
        let (mut logits, mut rows, mut present) = (Vec::new(), Vec::new(), Vec::new());
        for b in 0..batch {
            let mut all = cached[b * before..(b + 1) * before].to_vec();
            for s in 0..new {
                all.push((ids[b * new + s] * (positions[b * new + s] + 1)) as f32);
                let seen = mask[b * (before + new)..].iter().zip(&all);
                let sum: f32 = seen.filter(|(mask, _)| **mask == 1).map(|(_, value)| value).sum();
                let spoken = ((sum as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i64 % 60;
                // Not at once: every sentence has a token.
                let stops = spoken == 0 && new == 1 && self.1 != Fault::NeverStops;
                let next = if stops { STOP } else { 100 + spoken };
                let logit = |token| match (self.1, token == next as usize) {
                    (Fault::NotANumber, _) if all.len() > 8 => f32::NAN,
                    (_, true) => 9.0,
                    (_, false) => 0.0,
                };
                logits.extend((0..VOCABULARY).map(logit));
                let channels = if self.1 == Fault::Wide { CHANNELS + 1 } else { CHANNELS };
                rows.extend((0..channels).map(|channel| ((sum + channel as f32) * 0.37).sin()));
            }
            present.extend(all);
        }
        let channels = rows.len() / (batch * new);
        let mut outputs = Tensors::from([
            ("logits".to_owned(), Tensor::from_f32(&[batch, new, VOCABULARY], &logits)),
            ("present.0.key".to_owned(), Tensor::from_f32(&[batch, 1, before + new, 1], &present)),
        ]);
        if self.1 != Fault::NoHidden {
            let rows = Tensor::from_f32(&[batch, new, channels], &rows);
            outputs.insert("last_hidden_state".to_owned(), rows);
        }
        Ok(outputs)
    }
}

/// Four samples between two rows, each of the rows up to two and a bit away, as Soprano's decoder has it.
struct FakeDecoder(Vec<String>);

impl Session for FakeDecoder {
    fn inputs(&self) -> &[String] {
        &self.0
    }
    fn outputs(&self) -> &[String] {
        &[]
    }
    fn begin(
        &self,
        carried: &[(String, String)],
    ) -> Result<Box<dyn Conversation + '_>, runtime::Error> {
        Ok(runtime::Copying::begin(|inputs: &Tensors| self.run(inputs), carried))
    }
    fn run(&self, inputs: &Tensors) -> Result<Tensors, runtime::Error> {
        let given = &inputs["hidden_states"];
        let (length, values) = (given.shape()[2], given.to_f32().unwrap());
        let at = |row: i64, channel: usize| match usize::try_from(row) {
            Ok(row) if row < length => values[channel * length + row],
            _ => 0.0,
        };
        let sample = |n: usize| {
            let (piece, part) = ((n / 4) as i64, (n % 4) as f32);
            let near = -2..=3;
            let of =
                |o: i64| at(piece + o, 0) * (o as f32 + part) + at(piece + o, 1) - at(piece + o, 2);
            near.map(of).sum()
        };
        let audio: Vec<f32> = (0..4 * (length - 1)).map(sample).collect();
        Ok(Tensors::from([("audio".to_owned(), Tensor::from_f32(&[1, audio.len()], &audio))]))
    }
}

fn signature(inputs: &[(&str, &[&str])], outputs: &[(&str, &[&str])]) -> Signature {
    let port = |(name, dims): &(&str, &[&str])| Port {
        name: (*name).to_owned(),
        dtype: "f32".to_owned(),
        dims: dims.iter().map(|dim| (*dim).to_owned()).collect(),
    };
    let ports = |list: &[(&str, &[&str])]| list.iter().map(port).collect();
    Signature { inputs: ports(inputs), outputs: ports(outputs), stateful: false }
}

fn lm(fault: Fault) -> LanguageModel {
    let signature = signature(
        &[
            ("input_ids", &["b", "s"]),
            ("attention_mask", &["b", "t"]),
            ("position_ids", &["b", "s"]),
            ("past_key_values.0.key", &["b", "1", "p", "1"]),
        ],
        &[("logits", &["b", "s", "400"]), ("last_hidden_state", &["b", "s", "3"])],
    );
    let graph = Causal::bind(&names::Causal::default(), &signature).unwrap();
    LanguageModel::new(Fake::boxed(fault), graph).unwrap()
}

fn decoder_of(channels: &str) -> Decoder {
    let signature = signature(&[("hidden_states", &["b", channels, "T"])], &[("audio", &["b", "n"])]);
    let graph = Signal::bind(&names::Signal::default(), &signature).unwrap();
    Decoder::new(Box::new(FakeDecoder(vec!["hidden_states".to_owned()])), graph)
}

fn decoder() -> Decoder {
    decoder_of("3")
}

fn soprano(fault: Fault) -> Soprano {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/soprano-mini/tokenizer.json");
    let tokenizer = Tokenizer::read(Path::new(file)).unwrap();
    Soprano::new(tokenizer, lm(fault), decoder(), 32_000).unwrap()
}

fn voice(fault: Fault) -> Voice {
    Voice::new(Arc::new(soprano(fault)))
}

fn script(text: &str) -> Vec<Script> {
    vec![Script { name: "the text".to_owned(), text: text.to_owned() }]
}

const TEXT: &str = "Hello there, this is the first of three sentences. Here is another one, not much longer \
                    than that. And this is the last of them, which is a little longer than the others were.";

#[test]
fn side_by_side_and_streamed_is_what_one_at_a_time_is() {
    let voice = voice(Fault::None);
    let plain = Settings {
        sampling: Sampling { repetition_penalty: 1.0, ..Sampling::default() },
        ..Settings::default()
    };
    let say = |settings: &Settings| {
        let mut samples = Vec::new();
        let summary = voice.speak(&script(TEXT), settings, &mut samples, &ON).unwrap();
        assert_eq!(summary.samples, samples.len());
        (samples, summary)
    };
    let (samples, summary) = say(&plain);
    assert_eq!(summary.sentences, 3);
    assert_eq!(samples.len(), 4 * (summary.tokens - 3), "a row less than tokens in each sentence");
    assert!(summary.unterminated.is_empty() && summary.first_audio.unwrap() <= summary.whole);
    for batch in [2, 3, 9] {
        assert_eq!(say(&Settings { batch, ..plain }).0, samples, "left padding changes nothing");
    }
    for chunk in [1, 2, 7, 100] {
        let streamed = say(&Settings { stream: Some(chunk), ..plain }).0;
        let apart = streamed.iter().zip(&samples).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(streamed.len() == samples.len() && apart < 1e-5, "{chunk}: {apart}");
    }
}

#[test]
fn a_model_that_never_stops_is_cut_off_and_said_so() {
    let settings = Settings { limit: 20, ..Settings::default() };
    let mut samples = Vec::new();
    let voice = voice(Fault::NeverStops);
    let summary = voice.speak(&script(TEXT), &settings, &mut samples, &ON).unwrap();
    assert_eq!((summary.unterminated, summary.tokens, samples.len()), (vec![0, 1, 2], 60, 3 * 19 * 4));
}

#[test]
fn of_several_texts_those_without_a_word_are_passed_over() {
    let voice = voice(Fault::None);
    let scripts =
        |texts: &[&str]| -> Vec<Script> { texts.iter().flat_map(|text| script(text)).collect() };
    let speak = |texts: &[&str]| {
        let mut samples = Vec::new();
        let summary = voice.speak(&scripts(texts), &Settings::default(), &mut samples, &ON)?;
        Ok::<_, Error>((samples, summary.unsaid))
    };
    let (samples, unsaid) = speak(&["***", TEXT, "..."]).unwrap();
    assert_eq!(unsaid, [0, 2]);
    assert_eq!(samples, speak(&[TEXT]).unwrap().0);
    assert!(matches!(speak(&["***", "..."]).unwrap_err(), Error::Nothing { .. }));
}

#[test]
fn what_can_not_be_said_is_an_error() {
    let why = |voice: &Voice, text: &str| {
        let mut samples: Vec<f32> = Vec::new();
        voice.speak(&script(text), &Settings::default(), &mut samples, &ON).unwrap_err()
    };
    let good = voice(Fault::None);
    for text in ["", " \n\t ", "...", "?!?", "\u{0}\u{7}", "\u{1F600}"] {
        assert!(matches!(why(&good, text), Error::Nothing { .. }), "{text:?}");
    }
    assert!(matches!(why(&voice(Fault::NotANumber), TEXT), Error::NotFinite { sentence: 0, .. }));
    assert!(matches!(why(&voice(Fault::NoHidden), TEXT), Error::Interface { .. }));
    assert!(matches!(why(&voice(Fault::Wide), TEXT), Error::Interface { .. }));
    static OFF: AtomicBool = AtomicBool::new(true);
    let mut samples: Vec<f32> = Vec::new();
    let settings = Settings::default();
    let ended = good.speak(&script(TEXT), &settings, &mut samples, &OFF);
    assert!(matches!(ended, Err(Error::Interrupted)));
}

#[test]
fn an_audience_that_has_gone_ends_it() {
    struct Gone;
    impl Audience for Gone {
        fn hear(&mut self, _: usize, _: &[f32]) -> Result<(), Error> {
            Err(Error::Output(std::io::ErrorKind::BrokenPipe.into()))
        }
    }
    let ended = voice(Fault::None).speak(&script(TEXT), &Settings::default(), &mut Gone, &ON);
    assert!(matches!(ended, Err(Error::Output(_))));
}

#[test]
fn halves_of_two_models_and_interfaces_that_are_none_are_refused() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/soprano-mini/tokenizer.json");
    let tokenizer = Tokenizer::read(Path::new(file)).unwrap();
    let met = Soprano::new(tokenizer, lm(Fault::None), decoder_of("5"), 32_000).err().unwrap();
    assert!(matches!(met, Error::Width { lm: 3, decoder: 5 }));
    let without = signature(&[("past_key_values.0.key", &["b", "1", "p", "1"])], &[]);
    let graph = Causal::bind(&names::Causal::default(), &without).unwrap();
    assert!(LanguageModel::new(Fake::boxed(Fault::None), graph).is_err(), "no hidden states");
}

#[test]
fn a_token_that_the_model_does_not_know_is_refused() {
    let model = lm(Fault::None);
    let begin = |prompt: &[i64]| {
        Generation::begin(&model, &[prompt.to_vec()], STOP, Sampling::default(), &[0], 9).err()
    };
    assert!(begin(&[3, 1, 399, 2]).is_none());
    assert!(matches!(begin(&[3, 1, 400, 2]), Some(Error::Vocabulary { token: 400, vocabulary: 400 })));
    assert!(matches!(begin(&[-1]), Some(Error::Vocabulary { token: -1, .. })));
}

/// A speaker of another kind: a prompt is a letter's number, which it counts down to 0 in codes, each of which is
/// that many samples. It is stuck at a count from 5, unless that is the second try.
struct Countdown;

impl Speaker for Countdown {
    fn sample_rate(&self) -> u32 {
        8
    }
    fn read(&self, script: &Script, _: text::Faults) -> Result<Vec<Vec<i64>>, Error> {
        Ok(script.text.bytes().map(|letter| vec![i64::from(letter - b'a')]).collect())
    }
    fn begin<'a>(
        &'a self,
        prompts: &[Vec<i64>],
        _: &Settings,
        streams: &[u64],
    ) -> Result<Box<dyn Speaking + 'a>, Error> {
        let less = |stream: &u64| i64::from(*stream >= 1 << 32);
        let left = prompts.iter().zip(streams).map(|(prompt, stream)| prompt[0] - less(stream));
        Ok(Box::new(Counting(left.map(|left| (left, Utterance::default())).collect())))
    }
    fn render(&self, frames: &[Frame]) -> Result<Vec<f32>, Error> {
        let samples = |frame: &Frame| match frame {
            Frame::Codes(codes) => vec![codes[0] as f32; codes[0] as usize],
            Frame::Row(_) => panic!("not one of its frames"),
        };
        Ok(frames.iter().flat_map(samples).collect())
    }
    fn receptive_field(&self) -> usize {
        0
    }
    fn is_stuck(&self, frames: &[Frame]) -> bool {
        frames.first() == Some(&Frame::Codes(vec![5]))
    }
}

struct Counting(Vec<(i64, Utterance)>);

impl Speaking for Counting {
    fn is_done(&self) -> bool {
        self.0.iter().all(|(left, _)| *left == 0)
    }
    fn step(&mut self, take: &mut dyn FnMut(usize, &Frame)) -> Result<(), Error> {
        for (at, (left, utterance)) in self.0.iter_mut().enumerate().filter(|(_, (left, _))| *left > 0)
        {
            let frame = Frame::Codes(vec![*left]);
            take(at, &frame);
            utterance.tokens.push(*left);
            utterance.frames.push(frame);
            *left -= 1;
            utterance.stopped = *left == 0;
        }
        Ok(())
    }
    fn finish(self: Box<Self>) -> Vec<Utterance> {
        self.0.into_iter().map(|(_, utterance)| utterance).collect()
    }
}

#[test]
fn a_speaker_of_another_kind_is_said_side_by_side_and_again_where_it_is_stuck() {
    let voice = Voice::new(Arc::new(Countdown));
    let say = |settings: Settings| {
        let mut samples = Vec::new();
        let summary = voice.speak(&script("cfb"), &settings, &mut samples, &ON).unwrap();
        (samples, summary.tokens, summary.hallucinated)
    };
    let count = |from: i16| (1..=from).rev().flat_map(|n| vec![f32::from(n); n as usize]);
    let once: Vec<f32> = count(2).chain(count(5)).chain(count(1)).collect();
    for batch in [1, 2, 3] {
        assert_eq!(say(Settings { batch, ..Settings::default() }), (once.clone(), 8, vec![]));
    }
    let again: Vec<f32> = count(2).chain(count(4)).chain(count(1)).collect();
    assert_eq!(say(Settings { retries: 1, ..Settings::default() }), (again, 7, vec![]));
    assert_eq!(voice.sample_rate(), 8);
}

#[test]
fn a_decoder_of_rows_takes_no_codes() {
    let codes = [Frame::Codes(vec![1]), Frame::Codes(vec![2])];
    let refused = soprano(Fault::None).render(&codes).unwrap_err();
    assert!(matches!(refused, Error::Interface { .. }), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_stream_gives_out_what_decoding_at_once_gives(
        rows in prop::collection::vec(prop::array::uniform3(-1.0f32..1.0), 0..60),
        chunk in 1usize..20,
    ) {
        let speaker = soprano(Fault::None);
        let rows: Vec<Frame> = rows.into_iter().map(|row| Frame::Row(row.to_vec())).collect();
        let mut stream = Stream::new(&speaker, chunk);
        let mut streamed = Vec::new();
        for row in &rows {
            let new = stream.push(row).unwrap().unwrap_or_default();
            prop_assert!(new.len() <= 4 * chunk);
            streamed.extend(new);
        }
        streamed.extend(stream.finish().unwrap());
        let whole = speaker.render(&rows).unwrap();
        prop_assert_eq!(whole.len(), streamed.len());
        for (a, b) in whole.iter().zip(&streamed) {
            approx::assert_abs_diff_eq!(a, b, epsilon = 1e-5);
        }
    }
}
