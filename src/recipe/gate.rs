use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checks, Outcome};
use super::present;

/// Figures are above this and below [`MOST`]; beyond it a bound is a slip of the pen.
const LEAST: f64 = 1.0e-3;
const MOST: f64 = 1.0e6;

/// What `bench --gate` holds a bundle to on the machine that it runs on: of each half the variant that is
/// fastest there. A figure that is left out isn't asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// The least seconds of speech that the whole voice makes in one second, of 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub realtime_factor: Option<f64>,
    /// The language model.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub lm: Option<LmGate>,
    /// The decoder.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderGate>,
}

/// What a language model is held to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LmGate {
    /// How many times faster the fastest smaller file says 200 characters than the fp32 one, each in the
    /// runtime where it is fastest; at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub faster_than_fp32: Option<f64>,
    /// Milliseconds of a step behind 256 positions, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub step_ms: Option<f64>,
    /// Peak memory of a process that loads and runs it, in millions of bytes, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub memory_mb: Option<f64>,
    /// Size of the file, in millions of bytes, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub size_mb: Option<f64>,
}

/// What a decoder is held to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderGate {
    /// As of the language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub faster_than_fp32: Option<f64>,
    /// Milliseconds for each second of sound, in calls of 32 tokens, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub second_ms: Option<f64>,
    /// Peak memory of a process that loads and runs it, in millions of bytes, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub memory_mb: Option<f64>,
    /// Size of the file, in millions of bytes, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LEAST, max = MOST))]
    pub size_mb: Option<f64>,
}

impl LmGate {
    /// Every figure by its key.
    pub fn figures(&self) -> [(&'static str, Option<f64>); 4] {
        [
            ("faster_than_fp32", self.faster_than_fp32),
            ("step_ms", self.step_ms),
            ("memory_mb", self.memory_mb),
            ("size_mb", self.size_mb),
        ]
    }
}

impl DecoderGate {
    /// Every figure by its key.
    pub fn figures(&self) -> [(&'static str, Option<f64>); 4] {
        [
            ("faster_than_fp32", self.faster_than_fp32),
            ("second_ms", self.second_ms),
            ("memory_mb", self.memory_mb),
            ("size_mb", self.size_mb),
        ]
    }
}

impl Gate {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        let asked =
            |figures: [(&str, Option<f64>); 4]| figures.iter().any(|(_, value)| value.is_some());
        self.realtime_factor.is_none()
            && !self.lm.as_ref().is_some_and(|lm| asked(lm.figures()))
            && !self.decoder.as_ref().is_some_and(|decoder| asked(decoder.figures()))
    }

    /// What is asked of a bundle that holds these halves alone; none where that is nothing.
    pub fn of_halves(mut self, lm: bool, decoder: bool) -> Option<Self> {
        self.lm = self.lm.filter(|_| lm);
        self.decoder = self.decoder.filter(|_| decoder);
        self.realtime_factor = self.realtime_factor.filter(|_| lm && decoder);
        (!self.is_empty()).then_some(self)
    }

    pub(super) fn validate(&self, here: &Checks, lm: bool, decoder: bool) -> Outcome {
        let halves = [
            ("lm", lm, self.lm.as_ref().map(LmGate::figures)),
            ("decoder", decoder, self.decoder.as_ref().map(DecoderGate::figures)),
        ];
        for (half, exported, figures) in halves {
            let Some(figures) = figures else { continue };
            here.key(half).ensure(
                exported,
                "is about a half that this recipe doesn't export",
                format!("add `{half}: {{}}` to the recipe, or take this out"),
            )?;
            for (key, value) in figures {
                bound(&here.key(half).key(key), value)?;
            }
        }
        let whole = here.key("realtime_factor");
        bound(&whole, self.realtime_factor)?;
        whole.ensure(
            self.realtime_factor.is_none() || (lm && decoder),
            "is about a whole voice, and this recipe exports half of one",
            "add the other half, `lm: {}` or `decoder: {}`, or take this out",
        )?;
        here.ensure(
            !self.is_empty(),
            "asks for nothing",
            "write a figure, such as `lm: {faster_than_fp32: 1.5}`, or take the key out",
        )
    }
}

fn bound(here: &Checks, value: Option<f64>) -> Outcome {
    value.map_or(Ok(()), |value| {
        here.ensure(
            (LEAST..=MOST).contains(&value),
            format!("is {value}, which is not a bound"),
            format!("write a number from {LEAST} to {MOST}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::recipe::Recipe;

    const BOTH: &str = "name: a\nsource: ./b\ndecoder: {}\nlm: {}\ngate:\n";

    fn refused(text: &str) -> String {
        Recipe::parse(text, "t.yaml").expect_err("refused").to_string()
    }

    #[test]
    fn a_gate_reads_back_as_it_was_written() {
        let gate = "  realtime_factor: 4\n  lm:\n    faster_than_fp32: 1.5\n    size_mb: 130\n  decoder:\n    \
                    second_ms: 30\n";
        let recipe = Recipe::parse(&format!("{BOTH}{gate}"), "t.yaml").unwrap();
        let read = recipe.gate.clone().unwrap();
        assert_eq!(read.realtime_factor, Some(4.0));
        assert_eq!(read.lm.unwrap().size_mb, Some(130.0));
        assert_eq!(read.decoder.unwrap().second_ms, Some(30.0));
        assert_eq!(Recipe::parse(&recipe.to_yaml(), "t.yaml").unwrap(), recipe);
    }

    #[test]
    fn what_no_gate_may_be_is_refused_at_its_place() {
        let at = |gate: &str| refused(&format!("{BOTH}{gate}"));
        assert_eq!(
            at("  lm: {step_mss: 3}\n"),
            "t.yaml:6:8: unknown key `step_mss`; did you mean `step_ms`?"
        );
        assert!(at("  lm: {step_ms: 0}\n").contains("`gate.lm.step_ms` is 0, which is not a bound"));
        assert!(at("  lm: {step_ms: .nan}\n").contains("which is not a bound"));
        assert!(at("  decoder: {size_mb: -1}\n").contains("`gate.decoder.size_mb` is -1"));
        assert!(at("").contains("`gate` asks for nothing"));
        assert!(at("  lm:\n").contains("`gate` asks for nothing"));
        let half = "name: a\nsource: ./b\nlm: {}\ngate:\n";
        let other = refused(&format!("{half}  decoder: {{second_ms: 3}}\n"));
        assert!(other.contains("a half that this recipe doesn't export"), "{other}");
        let whole = refused(&format!("{half}  realtime_factor: 3\n"));
        assert!(whole.contains("exports half of one"), "{whole}");
    }

    #[test]
    fn half_a_bundle_is_asked_for_its_half() {
        let text = format!("{BOTH}  realtime_factor: 4\n  lm: {{step_ms: 9}}\n");
        let gate = Recipe::parse(&text, "t.yaml").unwrap().gate.unwrap();
        assert_eq!(gate.clone().of_halves(true, true), Some(gate.clone()));
        let half = gate.clone().of_halves(true, false).unwrap();
        assert_eq!((half.realtime_factor, half.lm.is_some()), (None, true));
        assert_eq!(gate.of_halves(false, true), None);
    }
}
