use serde::Serialize;

use super::bounds::*;
use super::checks::{Checks, FLOOR, Invalid, Outcome, Step};
use super::graph::{
    Causal, CausalFp32, CausalReferences, Graph, Module, Signal, SignalFp32, SignalReferences,
};
use super::{Int8, Recipe, Shape};
use crate::names::{self, Precision, Word};

/// Recordings that travel in a bundle, at most.
const MOST_CASES: usize = 256;
/// The longest sentence of a graph's references, in characters.
const SENTENCE: usize = 300;

impl Recipe {
    /// Checks what types can't: ranges, names, and tolerances that would prove nothing.
    pub(super) fn validate(&self, shape: &Shape) -> Result<(), Invalid> {
        let root = Checks::default();
        root.key("name").file_name(&self.name)?;
        let source = root.key("source");
        source.ensure(
            !self.source.trim().is_empty(),
            "is empty",
            "write a folder, a hub id, or `synthetic:soprano-1.1`",
        )?;
        source.ensure(
            self.source.len() <= 1024 && !self.source.contains(char::is_control),
            "is longer than 1024 bytes or has control characters",
            "write a folder, a hub id, or `synthetic:soprano-1.1`",
        )?;
        root.key("license").ensure(
            word(&self.license, b".+-") && self.license.len() <= 64,
            "is not an SPDX id",
            "write one such as `apache-2.0` or `mit`",
        )?;
        if let Some(base) = &self.base_model {
            let parts: Vec<&str> = base.split('/').collect();
            root.key("base_model").ensure(
                parts.len() == 2 && parts.iter().all(|part| word(part, b"._-")) && base.len() <= 128,
                "is not a hub id",
                "write `owner/name`, such as `ekwek/Soprano-1.1-80M`",
            )?;
        }
        let known = shape.graphs.iter().map(|graph| format!("`{}: {{}}`", graph.name));
        let known = known.reduce(|all, graph| format!("{all}, {graph}"));
        let graphs = root.key("graphs");
        graphs.ensure(
            !self.graphs.0.is_empty(),
            "names nothing to export",
            format!("add {} to `graphs`", known.as_deref().unwrap_or("a graph with its `role`")),
        )?;
        for (name, graph) in self.graphs.iter() {
            let here = graphs.key(name);
            if shape.is_open() {
                here.file_name(name)?;
            }
            graph.validate(&here, shape.is_open())?;
            for (other, before) in self.graphs.iter().take_while(|(other, _)| *other != name) {
                let files = |graph: &Graph| Precision::ALL.iter().map(|&p| graph.file_of(p)).collect();
                let (ours, theirs): (Vec<_>, Vec<_>) = (files(graph), files(before));
                let shared = ours.iter().find(|file| theirs.contains(file));
                here.key("file").ensure(
                    shared.is_none(),
                    format!(
                        "is `{}`: graph `{other}` can have a file `{}` too",
                        graph.file(),
                        shared.map_or("", String::as_str)
                    ),
                    "give each graph's files a name of their own",
                )?;
            }
            // `validate-b-int8` would be the stage of two files.
            let files = Precision::ALL.iter().flat_map(|p| [format!("-{p}"), format!("-ir-{p}")]);
            for (other, ending) in files.filter_map(|end| Some((name.strip_suffix(&*end)?, end))) {
                here.ensure(
                    self.graphs.iter().all(|(name, _)| name != other),
                    format!("is what graph `{other}` is called in another form"),
                    format!("take a name that is not another graph's with `{ending}` behind it"),
                )?;
            }
        }
        let whole = Whole::of(self, shape);
        let speech = self.speech.as_ref();
        speech.map_or(Ok(()), |speech| speech.validate(&root.key("speech"), &whole))?;
        let Some(gate) = &self.gate else { return Ok(()) };
        gate.validate(&root.key("gate"))?;
        whole.ensure(&root.key("gate").key("realtime_factor"))
    }
}

/// Whether a recipe exports a whole voice.
pub(super) struct Whole {
    missing: Option<&'static str>,
    open: bool,
}

impl Whole {
    fn of(recipe: &Recipe, shape: &Shape) -> Self {
        let mut names = shape.graphs.iter().map(|graph| graph.name);
        Self { missing: names.find(|name| recipe.graph(name).is_none()), open: shape.is_open() }
    }

    pub(super) fn ensure(&self, here: &Checks) -> Outcome {
        let what = "is about a whole voice, and ";
        here.ensure(
            !self.open,
            format!("{what}this family's graphs are not said to be one"),
            "take this out",
        )?;
        let missing = self.missing.unwrap_or_default();
        here.ensure(
            self.missing.is_none(),
            format!("{what}this recipe doesn't export all of one"),
            format!("add `{missing}: {{}}` to `graphs`, or take this out"),
        )
    }
}

/// Whether a text is a letter or digit, followed by letters, digits and the given signs.
fn word(text: &str, signs: &[u8]) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || signs.contains(&b))
}

impl Graph {
    fn validate(&self, here: &Checks, open: bool) -> Outcome {
        here.key("opset").range(self.opset(), &OPSET)?;
        here.key("file").file_name(self.file())?;
        for (i, pass) in self.passes().into_iter().flatten().enumerate() {
            let kebab = pass.split('-').all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            });
            here.key("passes").at(Step::Index(i)).ensure(
                kebab && pass.len() <= 64,
                "is not a pass's name",
                "pass names are lower-case words with `-` between, such as `constant-folding`",
            )?;
            here.key("passes").at(Step::Index(i)).ensure(
                self.passes().is_none_or(|all| !all[..i].contains(pass)),
                format!("is {pass} again"),
                "write each once: they run in an order of their own",
            )?;
        }
        here.key("time_limit_seconds").range(self.time_limit_seconds(), &TIME_LIMIT)?;
        match self {
            Graph::Causal(graph) => graph.validate(here, open)?,
            Graph::Signal(graph) => graph.validate(here, open)?,
        }
        self.targets().validate(&here.key("targets"), self.role())?;
        self.int8().map_or(Ok(()), |int8| int8.validate(&here.key("int8")))?;
        here.key("references").key("sentences").ensure(
            !open || self.sentences().is_empty(),
            "asks for sentences, and this family has no text front end",
            "take the key out",
        )
    }
}

/// Refuses names of inputs and outputs that are not names, or not distinct.
fn interface<T: Serialize + Default + PartialEq>(here: &Checks, open: bool, names: &T) -> Outcome {
    here.ensure(
        open || *names == T::default(),
        "is given, and the family has names of its own",
        "take the key out, or write `family: plain`",
    )?;
    names::misnamed(names).map_or(Ok(()), |(role, why, hint)| here.key(&role).ensure(false, why, hint))
}

impl SignalReferences {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("lengths").each(&self.lengths, &LENGTH)?;
        here.key("batches").each(&self.batches, &BATCH)?;
        here.key("sentences").sentences(&self.sentences, SENTENCE)?;
        let cases = self.lengths.len() * self.batches.len();
        here.ensure(
            cases <= MOST_CASES,
            format!(
                "ask for {cases} recordings: {} lengths at {} batch sizes",
                self.lengths.len(),
                self.batches.len()
            ),
            format!("each travels in the bundle: keep to {MOST_CASES}"),
        )
    }
}

impl SignalFp32 {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("max_abs_of_peak").at_most(self.max_abs_of_peak, LOOSEST_MAX_ABS, FLOOR)?;
        here.key("snr_db").at_least(self.snr_db, *SNR_DB.start(), *SNR_DB.end(), FLOOR)?;
        here.key("log_spectral_distance_db").at_most(
            self.log_spectral_distance_db,
            LOOSEST_LSD_DB,
            FLOOR,
        )
    }
}

impl Causal {
    fn validate(&self, here: &Checks, open: bool) -> Outcome {
        if !self.hidden_states.is_empty() {
            here.key("hidden_states").each(&self.hidden_states, &(0..=MOST_LAYERS))?;
        }
        self.references.validate(&here.key("references"))?;
        self.tolerance.fp32.validate(&here.key("tolerance").key("fp32"))?;
        interface(&here.key("interface"), open, &self.interface)?;
        self.gate.as_ref().map_or(Ok(()), |gate| gate.validate(&here.key("gate")))
    }
}

impl Signal {
    fn validate(&self, here: &Checks, open: bool) -> Outcome {
        self.references.validate(&here.key("references"))?;
        self.tolerance.fp32.validate(&here.key("tolerance").key("fp32"))?;
        interface(&here.key("interface"), open, &self.interface)?;
        here.key("module").ensure(
            open == self.module.is_some(),
            if open {
                "is missing: a signal graph is a module of yours"
            } else {
                "is given, and the family has its own"
            },
            if open {
                "write `module: {import: \"package.module:Class\", weights: FILE}`"
            } else {
                "take the key out, or write `family: plain`"
            },
        )?;
        self.module.as_ref().map_or(Ok(()), |module| module.validate(&here.key("module")))?;
        let rate = here.key("sample_rate");
        rate.ensure(
            open || self.sample_rate.is_none(),
            "is given, and the family's checkpoints say it",
            "take the key out, or write `family: plain`",
        )?;
        self.sample_rate.map_or(Ok(()), |value| rate.range(value, &SAMPLE_RATE))?;
        rate.ensure(
            !open
                || self.sample_rate.is_some()
                || self.gate.as_ref().is_none_or(|gate| gate.second_ms.is_none()),
            "is missing: `gate.second_ms` is about a second of sound",
            "add it, as in `sample_rate: 24000`",
        )?;
        self.gate.as_ref().map_or(Ok(()), |gate| gate.validate(&here.key("gate")))
    }
}

impl Module {
    fn validate(&self, here: &Checks) -> Outcome {
        let identifier = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let path = self.import.split_once(':');
        here.key("import").ensure(
            self.import.len() <= 256
                && path.is_some_and(|(module, class)| {
                    module.split('.').all(identifier) && identifier(class)
                }),
            "is not an import path",
            "write `package.module:Class`",
        )?;
        let weights = std::path::Path::new(&self.weights);
        let kind = weights.extension().and_then(|e| e.to_str());
        here.key("weights").ensure(
            matches!(kind, Some("pth" | "pt" | "bin" | "safetensors"))
                && self.weights.len() <= 128
                && !self.weights.contains(['/', '\\', '*'])
                && !self.weights.contains(char::is_control),
            "is not the name of a file of weights",
            "write the name of a state dict in the checkpoint's folder, `.pth` or `.safetensors`",
        )?;
        here.key("prefix").ensure(
            self.prefix.len() <= 128 && !self.prefix.contains(char::is_control),
            "is not the beginning of a tensor's name",
            "write what each tensor's name begins with, such as `decoder.`",
        )
    }
}

impl CausalReferences {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("prefills").each(&self.prefills, &PREFILL)?;
        here.key("batch").range(self.batch, &PADDED_BATCH)?;
        here.key("steps").range(self.steps, &STEPS)?;
        here.key("sentences").sentences(&self.sentences, SENTENCE)
    }
}

impl CausalFp32 {
    fn validate(&self, here: &Checks) -> Outcome {
        here.key("max_abs").at_most(self.max_abs, LOOSEST_HIDDEN_ERROR, FLOOR)?;
        here.key("snr_db").at_least(self.snr_db, LEAST_HIDDEN_SNR_DB, *SNR_DB.end(), FLOOR)?;
        here.key("top_1_agreement").at_least(self.top_1_agreement, LEAST_AGREEMENT, 1.0, FLOOR)?;
        here.key("error_growth").at_most(self.error_growth, MOST_GROWTH, FLOOR)
    }
}

impl Int8 {
    fn validate(&self, here: &Checks) -> Outcome {
        let floor = "an int8 file that is further from PyTorch is noise";
        here.key("snr_db").at_least(self.snr_db, LEAST_INT8_SNR_DB, *SNR_DB.end(), floor)?;
        if let Some(strength) = self.smoothing {
            here.key("smoothing").range(strength, &(0.0..=1.0))?;
        }
        let usual = Int8::default();
        let ignored = [
            ("activations", self.activations != usual.activations),
            ("granularity", self.granularity != usual.granularity),
            ("two_terms", !self.two_terms.is_empty()),
            ("reduce_range", self.reduce_range != usual.reduce_range),
        ];
        for (key, _) in ignored.into_iter().filter(|(_, is_set)| *is_set && self.form.is_blocks()) {
            here.key(key).ensure(
                false,
                "is given, and blocks have activations as their kernel does",
                "take the key out, or write `form: dynamic`",
            )?;
        }
        for (key, patterns) in [("two_terms", &self.two_terms), ("keep_fp32", &self.keep_fp32)] {
            let list = here.key(key);
            list.ensure(patterns.len() <= 256, "has more than 256 entries", "put `*` into names")?;
            for (i, pattern) in patterns.iter().enumerate() {
                list.at(Step::Index(i)).ensure(
                    !pattern.is_empty() && pattern.len() <= 256 && !pattern.contains(char::is_control),
                    "is not a node's name",
                    "`soprano-export inspect` and `diff` show node names",
                )?;
            }
        }
        Ok(())
    }
}
