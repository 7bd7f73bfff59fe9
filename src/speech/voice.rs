use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::text::Faults;
use super::{Error, Frame, Script, Settings, Speaker, Stream, Utterance};

/// What speaking a text took.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Sentences that were said.
    pub sentences: usize,
    /// Audio tokens.
    pub tokens: usize,
    /// Samples.
    pub samples: usize,
    /// Sentences (from 0) that didn't stop by themselves.
    pub unterminated: Vec<usize>,
    /// Sentences that still repeat one sound after the last retry.
    pub hallucinated: Vec<usize>,
    /// Texts (from 0) of several that have nothing to say and were passed over.
    pub unsaid: Vec<usize>,
    /// From the text to the first prompt.
    pub reading: Duration,
    /// In the language model and choosing.
    pub speaking: Duration,
    /// In the decoder.
    pub decoding: Duration,
    /// From the text to the first samples.
    pub first_audio: Option<Duration>,
    /// From the text to the last.
    pub whole: Duration,
}

/// A whole bundle that speaks, text by text.
pub struct Voice {
    speaker: Arc<dyn Speaker>,
}

/// Where samples go, and what progress is reported to.
pub trait Audience {
    /// Takes the next samples of text `text`.
    ///
    /// # Errors
    /// [`Error::Output`] where they can't be put anywhere.
    fn hear(&mut self, text: usize, samples: &[f32]) -> Result<(), Error>;

    /// Reports that so many of so many sentences are said.
    fn progress(&mut self, _done: usize, _of: usize) {}
}

/// All samples, one text after the other.
impl Audience for Vec<f32> {
    fn hear(&mut self, _text: usize, samples: &[f32]) -> Result<(), Error> {
        self.extend_from_slice(samples);
        Ok(())
    }
}

impl Voice {
    /// The voice of a speaker.
    pub fn new(speaker: Arc<dyn Speaker>) -> Self {
        Self { speaker }
    }

    /// Samples a second.
    pub fn sample_rate(&self) -> u32 {
        self.speaker.sample_rate()
    }

    /// The prompts' tokens of a text, sentence by sentence.
    ///
    /// # Errors
    /// As [`Speaker::read`].
    pub fn read(&self, script: &Script, faults: Faults) -> Result<Vec<Vec<i64>>, Error> {
        self.speaker.read(script, faults)
    }

    /// Samples of frames that follow each other, full scale ±1.
    ///
    /// # Errors
    /// As [`Speaker::render`].
    pub fn render(&self, frames: &[Frame]) -> Result<Vec<f32>, Error> {
        self.speaker.render(frames)
    }

    /// Generates the utterances of several prompts at once, without decoding them; `first` is the number of the
    /// first of them in its text.
    ///
    /// # Errors
    /// As [`Speaker::begin`] and [`Speaking::step`](super::Speaking::step), and [`Error::Interrupted`].
    pub fn say(
        &self,
        prompts: &[Vec<i64>],
        first: usize,
        settings: &Settings,
        interrupted: &AtomicBool,
    ) -> Result<Vec<Utterance>, Error> {
        let mut utterances = vec![Utterance::default(); prompts.len()];
        let mut open: Vec<usize> = (0..prompts.len()).collect();
        for attempt in 0..=settings.retries {
            let again: Vec<Vec<i64>> = open.iter().map(|&at| prompts[at].clone()).collect();
            let streams: Vec<u64> = open.iter().map(|&at| stream(first + at, attempt)).collect();
            let mut speaking = self.speaker.begin(&again, settings, &streams)?;
            while !speaking.is_done() {
                stop_if(interrupted)?;
                speaking.step(&mut |_, _| {})?;
            }
            for (&at, utterance) in open.iter().zip(speaking.finish()) {
                utterances[at] = utterance;
            }
            open.retain(|&at| self.speaker.is_stuck(&utterances[at].frames));
            if open.is_empty() {
                break;
            }
        }
        Ok(utterances)
    }

    /// Says texts of any length, sentence by sentence, to an audience. Of several texts those that have
    /// nothing to say are passed over, and named in the summary.
    ///
    /// # Errors
    /// [`Error::Nothing`] where no text has anything to say; otherwise as [`Voice::read`], [`Voice::say`]
    /// and [`Voice::render`]; [`Error::Output`] of the audience.
    pub fn speak(
        &self,
        scripts: &[Script],
        settings: &Settings,
        audience: &mut dyn Audience,
        interrupted: &AtomicBool,
    ) -> Result<Summary, Error> {
        let begun = Instant::now();
        let (mut prompts, mut unsaid) = (Vec::new(), Vec::new());
        for (text, script) in scripts.iter().enumerate() {
            stop_if(interrupted)?;
            match self.read(script, settings.faults) {
                Ok(sentences) => prompts.extend(sentences.into_iter().map(|prompt| (text, prompt))),
                Err(Error::Nothing { .. }) => unsaid.push(text),
                Err(error) => return Err(error),
            }
        }
        if let (true, Some(&text)) = (prompts.is_empty(), unsaid.first()) {
            return Err(Error::Nothing { name: scripts[text].name.clone() });
        }
        let mut speech = Speech {
            voice: self,
            settings,
            audience,
            interrupted,
            begun,
            of: prompts.len(),
            summary: Summary { unsaid, reading: begun.elapsed(), ..Summary::default() },
        };
        match settings.stream {
            Some(chunk) => {
                for (text, prompt) in &prompts {
                    speech.stream(*text, prompt, chunk)?;
                }
            }
            None => {
                for prompts in prompts.chunks(settings.batch.max(1)) {
                    speech.sentences(prompts)?;
                }
            }
        }
        Ok(Summary { whole: begun.elapsed(), ..speech.summary })
    }
}

/// The random numbers of a sentence, and of each try.
fn stream(sentence: usize, attempt: usize) -> u64 {
    ((attempt as u64) << 32) | sentence as u64
}

fn stop_if(interrupted: &AtomicBool) -> Result<(), Error> {
    if interrupted.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

/// A text that is being said.
struct Speech<'a> {
    voice: &'a Voice,
    settings: &'a Settings,
    audience: &'a mut dyn Audience,
    interrupted: &'a AtomicBool,
    begun: Instant,
    of: usize,
    summary: Summary,
}

impl Speech<'_> {
    /// Says sentences at once, each to its end before it is heard.
    fn sentences(&mut self, prompts: &[(usize, Vec<i64>)]) -> Result<(), Error> {
        let start = Instant::now();
        let first = self.summary.sentences;
        let (texts, prompts): (Vec<usize>, Vec<Vec<i64>>) = prompts.iter().cloned().unzip();
        let utterances = self.voice.say(&prompts, first, self.settings, self.interrupted)?;
        self.summary.speaking += start.elapsed();
        for (text, utterance) in texts.into_iter().zip(utterances) {
            stop_if(self.interrupted)?;
            let start = Instant::now();
            let samples = self.voice.render(&utterance.frames)?;
            self.summary.decoding += start.elapsed();
            self.hear(text, &samples)?;
            self.count(&utterance);
        }
        Ok(())
    }

    /// Says a sentence that is heard while it is said.
    fn stream(&mut self, text: usize, prompt: &[i64], chunk: usize) -> Result<(), Error> {
        let speaker = self.voice.speaker.as_ref();
        let mut stream = Stream::new(speaker, chunk);
        let mut start = Instant::now();
        let streams = [self::stream(self.summary.sentences, 0)];
        let mut speaking = speaker.begin(&[prompt.to_vec()], self.settings, &streams)?;
        while !speaking.is_done() {
            stop_if(self.interrupted)?;
            let mut new = None;
            speaking.step(&mut |_, frame| new = Some(frame.clone()))?;
            self.summary.speaking += start.elapsed();
            start = Instant::now();
            let samples = new.map(|frame| stream.push(&frame)).transpose()?.flatten();
            self.summary.decoding += start.elapsed();
            samples.map(|samples| self.hear(text, &samples)).transpose()?;
            start = Instant::now();
        }
        let rest = stream.finish()?;
        self.summary.decoding += start.elapsed();
        self.hear(text, &rest)?;
        speaking.finish().iter().for_each(|utterance| self.count(utterance));
        Ok(())
    }

    fn hear(&mut self, text: usize, samples: &[f32]) -> Result<(), Error> {
        if samples.is_empty() {
            return Ok(());
        }
        self.summary.first_audio.get_or_insert_with(|| self.begun.elapsed());
        self.summary.samples += samples.len();
        self.audience.hear(text, samples)
    }

    fn count(&mut self, utterance: &Utterance) {
        let summary = &mut self.summary;
        if !utterance.stopped {
            summary.unterminated.push(summary.sentences);
        }
        if self.settings.retries > 0 && self.voice.speaker.is_stuck(&utterance.frames) {
            summary.hallucinated.push(summary.sentences);
        }
        summary.tokens += utterance.tokens.len();
        summary.sentences += 1;
        self.audience.progress(summary.sentences, self.of);
    }
}
