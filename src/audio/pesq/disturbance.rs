use super::activity::runs;
use super::align::Correlator;
use super::bark::{self, Bark, Spectrometer};
use super::utterance::Utterance;
use super::{FRAME, LEAD, MARGIN, Padded, STEP};

const HOP: usize = FRAME / 2;
/// Disturbance above which a frame may have been aligned badly.
const BAD: f64 = 30.0;
/// Shortest bad stretch that is aligned again, in frames.
const SHORTEST_BAD: usize = 5;
/// How far either way, in samples, a bad stretch is looked for: 128 ms.
const SEARCH: usize = 4 * FRAME;
/// Highest disturbance that counts.
const HIGHEST: f64 = 45.0;
/// Frames that make up a split second: 320 ms, half overlapping.
const SPLIT_SECOND: usize = 20;

/// How far a frame is from what it should be.
#[derive(Clone, Copy, Default)]
struct Disturbance {
    symmetric: f64,
    /// What was added weighs more than what was left out.
    asymmetric: f64,
}

/// The model's view of two signals, frame by frame (16 ms apart).
struct Frames {
    reference: Vec<Bark>,
    degraded: Vec<Bark>,
}

/// P.862's raw score: 4.5 for equal signals, less for disturbed ones.
pub(super) fn raw_score(reference: &Padded, degraded: &Padded, utterances: &[Utterance]) -> f64 {
    let heard = reference.samples.len() - 2 * LEAD;
    let (skipped, left) = silent_ends(reference);
    let first = skipped / HOP;
    let count = (heard - left) / HOP;
    let spectrometer = Spectrometer::new();
    let reference_at = |f: usize| spectrometer.powers(&reference.samples[LEAD + f * HOP..]);
    let degraded_at = |f: usize| {
        let start = LEAD + f * HOP;
        let from = start as i64 + delay_at(utterances, start);
        if from <= 0 || from as usize + FRAME >= degraded.samples.len() {
            return [0.0; bark::BANDS];
        }
        spectrometer.powers(&degraded.samples[from as usize..])
    };
    let mut frames = Frames {
        reference: (0..count).map(reference_at).collect(),
        degraded: (0..count).map(degraded_at).collect(),
    };
    frames.equalize((heard / HOP - 1) as f64);
    let loudness: Vec<f64> = frames.reference.iter().map(|f| bark::audible_power(f, 1.0)).collect();
    let mut disturbances = frames.disturbances(0..count);

    let any_bad = disturbances.iter().any(|d| d.symmetric > BAD);
    for frame in lost_frames(utterances).filter(|&f| f + 1 < count) {
        disturbances[frame] = Disturbance::default();
    }
    if any_bad {
        realign(&mut frames, &mut disturbances, reference, &aligned(degraded, utterances));
    }

    for (d, power) in disturbances.iter_mut().zip(&loudness) {
        // Soft parts of the reference count for more.
        let weight = ((power + 1e5) / 1e7).powf(0.04);
        d.symmetric = (d.symmetric / weight).min(HIGHEST);
        d.asymmetric = (d.asymmetric / weight).min(HIGHEST);
    }
    let weights = time_weights(count, reference.speech_len());
    let over_time = |of: fn(&Disturbance) -> f64| {
        let values: Vec<f64> = disturbances.iter().map(of).collect();
        aggregate(values.get(first..).unwrap_or_default(), &weights)
    };
    4.5 - 0.1 * over_time(|d| d.symmetric) - 0.0309 * over_time(|d| d.asymmetric)
}

/// How many samples are skipped at the start and at the end of the reference: those before the
/// first five, and after the last, that sum up to 500.
fn silent_ends(reference: &Padded) -> (usize, usize) {
    let heard = &reference.samples[LEAD..reference.span()];
    let most = reference.searched() / 2;
    let loud = |five: &[f64]| five.iter().map(|x| x.abs()).sum::<f64>() >= 500.0;
    let skipped = heard.windows(5).position(loud).unwrap_or(most).min(most);
    let left = heard.windows(5).rev().position(loud).unwrap_or(most).min(most);
    (skipped, left)
}

/// The delay of the utterance that a sample of the reference belongs to.
fn delay_at(utterances: &[Utterance], sample: usize) -> i64 {
    let begun = |u: &&Utterance| u.start * STEP as i64 <= sample as i64;
    utterances.iter().rfind(begun).unwrap_or(&utterances[0]).delay
}

/// The degraded signal, moved to where the reference has it.
fn aligned(degraded: &Padded, utterances: &[Utterance]) -> Vec<f64> {
    let (first, last) = (LEAD as i64, degraded.span() as i64 - 1);
    let mut aligned = vec![0.0; degraded.samples.len()];
    for (i, x) in aligned.iter_mut().enumerate().take(degraded.span()).skip(LEAD) {
        *x = degraded.samples[(i as i64 + delay_at(utterances, i)).clamp(first, last) as usize];
    }
    aligned
}

/// Frames around the places where the delay shrinks by more than half a frame: what is missing
/// there isn't heard.
fn lost_frames(utterances: &[Utterance]) -> impl Iterator<Item = usize> {
    let hop = HOP as i64;
    let sample = |step: i64| (step - MARGIN as i64) * STEP as i64;
    utterances.windows(2).flat_map(move |pair| {
        let jump = pair[1].delay - pair[0].delay;
        if jump >= -hop {
            return 0..0;
        }
        let start = (sample(pair[1].start) + pair[1].delay) / hop;
        let end = (sample(pair[0].end) + pair[0].delay) / hop;
        let last = (sample(pair[1].start) + jump.abs()) / hop + 1;
        start.min(end).max(0) as usize..(last + 1).max(0) as usize
    })
}

impl Frames {
    /// Takes from the reference what a constant filter does to the degraded signal, by up to 20 dB
    /// in each band; `frames` is what averages are taken over.
    fn equalize(&mut self, frames: f64) {
        let silent: Vec<bool> =
            self.reference.iter().map(|f| bark::audible_power(f, 100.0) < 1e7).collect();
        let average = |powers: &[Bark], b: usize| {
            let spoken = powers.iter().zip(&silent).filter(|(_, silent)| !**silent).map(|(f, _)| f[b]);
            spoken.filter(|&power| bark::audible(b, power, 100.0)).sum::<f64>() / frames
        };
        for b in 0..bark::BANDS {
            let (is, was) = (average(&self.degraded, b), average(&self.reference, b));
            let gain = ((is + 1000.0) / (was + 1000.0)).clamp(0.01, 100.0);
            self.reference.iter_mut().for_each(|f| f[b] *= gain);
        }
    }

    /// The frames' disturbances. The degraded signal's gain is followed, and undone, from the
    /// range's start on.
    fn disturbances(&mut self, range: std::ops::Range<usize>) -> Vec<Disturbance> {
        let mut gain = 1.0;
        let of_frame = |f: usize| {
            let (reference, degraded) = (&self.reference[f], &mut self.degraded[f]);
            let audible = |powers: &Bark| bark::audible_power(powers, 1.0) + 5e3;
            let wanted = audible(reference) / audible(degraded);
            gain = if f == 0 { wanted } else { 0.2 * gain + 0.8 * wanted };
            degraded.iter_mut().for_each(|power| *power *= gain.clamp(3e-4, 5.0));
            disturbance(reference, degraded)
        };
        range.map(of_frame).collect()
    }
}

/// The difference in loudness, less what the louder masks of the softer, over all bands.
fn disturbance(reference: &Bark, degraded: &Bark) -> Disturbance {
    let (was, is) = (bark::loudness(reference), bark::loudness(degraded));
    let density: Bark = std::array::from_fn(|b| {
        let (difference, masked) = (is[b] - was[b], 0.25 * is[b].min(was[b]));
        difference.signum() * (difference.abs() - masked).max(0.0)
    });
    let weighted: Bark = std::array::from_fn(|b| {
        let weight = ((degraded[b] + 50.0) / (reference[b] + 50.0)).powf(1.2);
        if weight < 3.0 { 0.0 } else { density[b] * weight.min(12.0) }
    });
    Disturbance { symmetric: bark::norm(&density, 2), asymmetric: bark::norm(&weighted, 1) }
}

/// Looks for each bad stretch a little earlier and later in the aligned signal, and takes what
/// disturbs less.
fn realign(frames: &mut Frames, disturbances: &mut [Disturbance], reference: &Padded, aligned: &[f64]) {
    let spectrometer = Spectrometer::new();
    let mut moved = aligned.to_vec();
    let stretches = bad_stretches(disturbances);
    for stretch in &stretches {
        let span = LEAD + stretch.start * HOP..LEAD + stretch.end * HOP + FRAME;
        let delay = best_delay(&reference.samples, aligned, span.clone(), reference.span());
        let last = reference.searched() as i64 - 1;
        for i in span {
            moved[i] = aligned[(i as i64 + delay).clamp(0, last) as usize];
        }
    }
    for f in stretches.iter().flat_map(Clone::clone) {
        frames.degraded[f] = spectrometer.powers(&moved[LEAD + f * HOP..]);
    }
    for stretch in stretches {
        for (f, d) in stretch.clone().zip(frames.disturbances(stretch)) {
            let was = &mut disturbances[f];
            was.symmetric = was.symmetric.min(d.symmetric);
            was.asymmetric = was.asymmetric.min(d.asymmetric);
        }
    }
}

/// Stretches of at least five frames that are bad, or have bad ones within two frames on both sides.
fn bad_stretches(disturbances: &[Disturbance]) -> Vec<std::ops::Range<usize>> {
    const REACH: usize = 2;
    let bad: Vec<bool> =
        disturbances.iter().enumerate().map(|(f, d)| f > 0 && d.symmetric > BAD).collect();
    let near = |f: usize| {
        // The last frames are left as they are.
        let inner = f >= REACH && f + REACH + 1 < bad.len();
        inner && bad[f - REACH..=f].contains(&true) && bad[f..=f + REACH].contains(&true)
    };
    let smeared: Vec<bool> = (0..bad.len()).map(near).collect();
    runs(&smeared).into_iter().filter(|run| run.len() >= SHORTEST_BAD).collect()
}

/// The lag at which magnitudes correlate best; 0 where they do by less than half.
fn best_delay(reference: &[f64], aligned: &[f64], span: std::ops::Range<usize>, end: usize) -> i64 {
    let magnitude = |x: &f64| x.abs();
    let wanted: Vec<f64> = reference[span.clone()].iter().map(magnitude).collect();
    let around = span.start as i64 - SEARCH as i64..(span.end + SEARCH) as i64;
    let within = |i: i64| aligned[i.clamp(LEAD as i64, end as i64 - 1) as usize].abs();
    let searched: Vec<f64> = around.map(within).collect();
    let size = (2 * searched.len()).next_power_of_two();
    let power = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
    let scale = (power(&wanted) * power(&searched)).sqrt();
    if power(&wanted).min(power(&searched)) <= 1e-6 * size as f64 {
        return 0;
    }
    let correlation = Correlator::new(size).correlate(&wanted, &searched);
    let mut best = (0, 0.0);
    for (lag, &c) in correlation[..2 * SEARCH].iter().enumerate() {
        if c > best.1 {
            best = (lag as i64 - SEARCH as i64, c);
        }
    }
    if best.1 / scale < 0.5 { 0 } else { best.0 }
}

/// Later frames of long signals, above 16 s, count for more.
fn time_weights(frames: usize, samples: usize) -> Vec<f64> {
    let length = samples as f64 / HOP as f64;
    let length = length.floor() - 1.0;
    let slope = if frames > 1000 { ((length - 1000.0) / 5500.0).min(0.5) } else { 0.0 };
    (0..frames).map(|f| 1.0 - slope + slope * f as f64 / length).collect()
}

/// The 6-norm over split seconds, and the weighted 2-norm of those.
fn aggregate(values: &[f64], weights: &[f64]) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for start in (0..values.len()).step_by(SPLIT_SECOND / 2) {
        let end = values.len().min(start + SPLIT_SECOND);
        let mean = values[start..end].iter().map(|d| d.powi(6)).sum::<f64>() / SPLIT_SECOND as f64;
        sum += (weights[start] * mean.powf(1.0 / 6.0)).powi(2);
        total += weights[start].powi(2);
    }
    if total == 0.0 { 0.0 } else { (sum / total).sqrt() }
}
