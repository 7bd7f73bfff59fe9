use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How a token is chosen from its logits, in the order in which `transformers` applies each: repetition
/// penalty, temperature, top-k, top-p, min-p. Each is a [`Filter`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest (upstream's 0 is 0.001, which does the same but where two are equally likely).
    pub temperature: f32,
    /// Keeps the so many likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps those at least this likely, as a share of the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides the logits of every token that is in the prompt or was said, however often, where they are
    /// positive, and multiplies them where they are negative; 1 does nothing.
    pub repetition_penalty: f32,
    /// Two runs with one seed say the same.
    pub seed: u64,
}

impl Default for Sampling {
    /// Upstream's; its 50 likeliest are the default of `transformers`.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 50, top_p: 0.95, min_p: 0.0, repetition_penalty: 1.2, seed: 0 }
    }
}

impl Sampling {
    /// These steps in their order.
    fn filters(&self) -> Vec<Box<dyn Filter>> {
        let mut filters: Vec<Box<dyn Filter>> =
            vec![Box::new(RepetitionPenalty(self.repetition_penalty))];
        if self.temperature > 0.0 {
            filters.push(Box::new(Temperature(self.temperature)));
            filters.push(Box::new(TopK(self.top_k)));
            filters.push(Box::new(TopP(self.top_p)));
            filters.push(Box::new(MinP(self.min_p)));
        }
        filters
    }
}

/// A token and its logit.
pub type Candidate = (usize, f32);

/// Changes the logits of the tokens that may come next, or takes tokens out: a link of a chain.
pub trait Filter: Send + Sync {
    /// `used[t]` says whether token t is in the prompt or was said. The first filter gets the candidates by token;
    /// after [`TopK`] they are in the order of their logits, the likeliest first.
    fn apply(&self, candidates: &mut Vec<Candidate>, used: &[bool]);
}

/// [`Sampling::repetition_penalty`], after Keskar et al. 2019 (CTRL), section 4.1.
struct RepetitionPenalty(f32);

impl Filter for RepetitionPenalty {
    fn apply(&self, candidates: &mut Vec<Candidate>, used: &[bool]) {
        for (token, logit) in candidates {
            match used.get(*token) {
                Some(true) if *logit < 0.0 => *logit *= self.0,
                Some(true) => *logit /= self.0,
                _ => {}
            }
        }
    }
}

/// Divides logits; what is then below every finite number is out.
struct Temperature(f32);

impl Filter for Temperature {
    fn apply(&self, candidates: &mut Vec<Candidate>, _used: &[bool]) {
        candidates.iter_mut().for_each(|(_, logit)| *logit /= self.0);
        candidates.retain(|(_, logit)| *logit > f32::MIN);
    }
}

/// [`Sampling::top_k`], after Fan et al. 2018; sorts.
struct TopK(usize);

impl Filter for TopK {
    fn apply(&self, candidates: &mut Vec<Candidate>, _used: &[bool]) {
        // Equal logits stand in the order of their tokens, so that nothing depends on the sort.
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.0 > 0 {
            candidates.truncate(self.0);
        }
    }
}

/// [`Sampling::top_p`], after Holtzman et al. 2020.
struct TopP(f32);

impl Filter for TopP {
    fn apply(&self, candidates: &mut Vec<Candidate>, _used: &[bool]) {
        if self.0 < 1.0 {
            let weights = weights(candidates);
            let enough = f64::from(self.0.max(0.0)) * weights.iter().sum::<f64>();
            let count = count_up_to(&weights, |before| before >= enough);
            candidates.truncate(count.map_or(weights.len(), |at| at + 1));
        }
    }
}

/// [`Sampling::min_p`], after Nguyen et al. 2024.
struct MinP(f32);

impl Filter for MinP {
    fn apply(&self, candidates: &mut Vec<Candidate>, _used: &[bool]) {
        // The likeliest weighs 1.
        let likely =
            weights(candidates).iter().take_while(|&&weight| weight >= f64::from(self.0)).count();
        candidates.truncate(likely.max(1));
    }
}

/// Probabilities of candidates in the order of their logits, as shares of the first one's.
fn weights(candidates: &[Candidate]) -> Vec<f64> {
    let largest = candidates.first().map_or(0.0, |(_, logit)| *logit);
    candidates.iter().map(|(_, logit)| f64::from(logit - largest).exp()).collect()
}

/// The place of the first weight at which the sum, that weight included, is enough.
fn count_up_to(weights: &[f64], enough: impl Fn(f64) -> bool) -> Option<usize> {
    let mut sum = 0.0;
    weights.iter().position(|weight| {
        sum += weight;
        enough(sum)
    })
}

/// Chooses the tokens of one sentence.
pub struct Sampler {
    filters: Vec<Box<dyn Filter>>,
    /// None takes the likeliest.
    random: Option<ChaCha8Rng>,
}

impl Sampler {
    /// `stream` tells sentences, and tries of one, apart that share a seed.
    pub fn new(sampling: Sampling, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(sampling.seed);
        random.set_stream(stream);
        Self { filters: sampling.filters(), random: (sampling.temperature > 0.0).then_some(random) }
    }

    /// The token that comes next; `used[t]` says whether token t is in the prompt or was said. None where a
    /// logit is NaN, or none is finite.
    pub fn choose(&mut self, logits: &[f32], used: &[bool]) -> Option<usize> {
        if logits.iter().any(|logit| logit.is_nan()) {
            return None;
        }
        let mut candidates: Vec<Candidate> = logits.iter().copied().enumerate().collect();
        self.filters.iter().for_each(|filter| filter.apply(&mut candidates, used));
        let Some(random) = &mut self.random else {
            let best = candidates.into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a });
            return best.filter(|(_, logit)| logit.is_finite()).map(|(token, _)| token);
        };
        let &(_, largest) = candidates.first()?;
        if !largest.is_finite() {
            return None;
        }
        let weights = weights(&candidates);
        let target = random.next_u64() as f64 / 2f64.powi(64) * weights.iter().sum::<f64>();
        let at = count_up_to(&weights, |sum| target < sum);
        Some(candidates[at.unwrap_or(weights.len() - 1)].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 0,
    };

    fn counts(sampling: Sampling, logits: &[f32], used: &[bool]) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, 0);
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.choose(logits, used).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn tokens_are_as_frequent_as_they_are_likely() {
        let probabilities = [0.5f32, 0.3, 0.15, 0.05];
        let logits = probabilities.map(f32::ln);
        for (found, wanted) in counts(NONE, &logits, &[]).iter().zip(probabilities) {
            let share = *found as f32 / 20_000.0;
            approx::assert_abs_diff_eq!(share, wanted, epsilon = 0.012);
        }
        // Temperature 0.5 squares the odds.
        let sharp = counts(Sampling { temperature: 0.5, ..NONE }, &logits, &[]);
        let odds = sharp[0] as f32 / sharp[1] as f32;
        approx::assert_abs_diff_eq!(odds, 25.0 / 9.0, epsilon = 0.2);
    }

    #[test]
    fn each_limit_keeps_what_it_should_and_no_less_than_one() {
        let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
        let kept =
            |sampling: Sampling| counts(sampling, &logits, &[]).iter().filter(|&&n| n > 0).count();
        assert_eq!(kept(Sampling { top_k: 2, ..NONE }), 2);
        assert_eq!(kept(Sampling { top_k: 9, ..NONE }), 4);
        assert_eq!(kept(Sampling { top_p: 0.79, ..NONE }), 2);
        assert_eq!(kept(Sampling { top_p: 0.81, ..NONE }), 3);
        assert_eq!(kept(Sampling { top_p: 0.0, ..NONE }), 1);
        assert_eq!(kept(Sampling { min_p: 0.2, ..NONE }), 3);
        assert_eq!(kept(Sampling { min_p: 1.0, ..NONE }), 1);
        assert_eq!(kept(Sampling { top_k: 3, min_p: 0.5, ..NONE }), 2);
    }

    #[test]
    fn a_penalty_is_of_presence_and_turns_round_below_zero() {
        let mut greedy =
            Sampler::new(Sampling { temperature: 0.0, repetition_penalty: 1.2, ..NONE }, 0);
        assert_eq!(greedy.choose(&[2.3, 2.0, -1.0], &[false; 3]), Some(0));
        assert_eq!(greedy.choose(&[2.3, 2.0, -1.0], &[true, false, false]), Some(1));
        assert_eq!(greedy.choose(&[-1.0, -1.1], &[true, false]), Some(1));
        assert_eq!(greedy.choose(&[2.5, 2.0], &[true, false]), Some(0), "2.5 / 1.2 is more than 2");
        assert_eq!(greedy.choose(&[1.0, 1.0], &[]), Some(0), "the first of equal ones");
    }

    #[test]
    fn a_seed_decides_and_sentences_differ() {
        let logits = vec![0.0; 100];
        let run = |seed: u64, stream: u64| -> Vec<usize> {
            let mut sampler = Sampler::new(Sampling { seed, ..NONE }, stream);
            (0..20).map(|_| sampler.choose(&logits, &[]).unwrap()).collect()
        };
        assert_eq!(run(1, 0), run(1, 0));
        assert_ne!(run(1, 0), run(2, 0));
        assert_ne!(run(1, 0), run(1, 1));
    }

    #[test]
    fn what_is_not_a_number_is_no_token() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling { temperature, ..NONE }, 0);
            assert_eq!(sampler.choose(&[1.0, f32::NAN], &[]), None);
            assert_eq!(sampler.choose(&[f32::NEG_INFINITY; 3], &[]), None);
            assert_eq!(sampler.choose(&[f32::INFINITY, 0.0], &[]), None);
            assert_eq!(sampler.choose(&[], &[]), None);
            assert_eq!(sampler.choose(&[f32::NEG_INFINITY, 0.0], &[]), Some(1));
        }
    }
}
