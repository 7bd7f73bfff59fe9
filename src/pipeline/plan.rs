//! A build as a list of stages with keys, states and dependencies: what `plan` prints and `run` walks.

use super::cache::{Cache, Key};
use super::stage::{Planned, State, Work};
use super::{Build, Error, carried};
use crate::digest::Digest;
use crate::export::{self, Python};
use crate::family::{self, BuiltIn};
use crate::hardware::Machine;
use crate::names::{Exporter, Oracle, Precision, Role};
use crate::passes::{self, Driver, Step};
use crate::recipe::{Form, Graph, Recipe};
use crate::runtime::Format;
use crate::source::{Checkpoint, Source, seeded};

/// The stages of a build. Planning reads the recipe, the checkpoint and the names of packages, and runs nothing.
pub struct Plan {
    /// The stages, each after those that it reads.
    pub stages: Vec<Planned>,
    /// The folder's checkpoint, hashed; none where a stage makes it.
    pub local: Option<Checkpoint>,
    /// The digest that the finished bundle carries.
    pub bundle: Digest,
    /// The interpreter, if one was found.
    pub python: Result<Python, export::Error>,
}

/// This build of this program: its source and the versions it is locked to.
const TOOL: &str = env!("SOPRANO_EXPORT_FINGERPRINT");

/// Stages as they are planned.
struct Planner<'a> {
    build: &'a Build<'a>,
    stages: Vec<Planned>,
    /// The digests of the exporters and of their environment.
    exporters: String,
    environment: String,
    /// What the checkpoint is known by.
    identity: Digest,
    runtimes: String,
}

impl Planner<'_> {
    /// Adds a stage whose key has these fields, and the digest of each stage that it reads.
    fn add(&mut self, work: Work, after: &[usize], key: Key) -> usize {
        let mut key = key;
        for &at in after {
            let (verb, digest) = (verb(&self.stages[at].work), self.stages[at].key.digest());
            key = key.with(verb, digest);
        }
        let state = match (self.build.rebuild, self.build.cache.get(&key)) {
            (true, _) => State::Miss("--rebuild".to_owned()),
            (false, Some(_)) => State::Hit,
            (false, None) => State::Miss(self.build.cache.why(&key)),
        };
        self.stages.push(Planned { work, key, state, after: after.to_vec() });
        self.stages.len() - 1
    }

    fn key(work: &Work) -> Key {
        Key::new(&work.name())
    }

    /// A key of what the Python environment does to the checkpoint.
    fn by_python(&self, work: &Work) -> Key {
        let key = Self::key(work).with("exporters", &self.exporters);
        key.with("environment", &self.environment).with("checkpoint", self.identity)
    }

    /// A key of what this program does to the checkpoint.
    fn by_tool(&self, work: &Work) -> Key {
        Self::key(work).with("tool", TOOL).with("checkpoint", self.identity)
    }

    /// A key of what the original model answers.
    fn by_oracle(&self, work: &Work) -> Key {
        match self.build.recipe.oracle() {
            Oracle::PyTorch => match carried::of(self.build, work) {
                Some(carried) => Self::key(work).with("carried", carried.digest()),
                None => self.by_python(work),
            },
            Oracle::Float64 => self.by_tool(work),
        }
        .with("oracle", self.build.recipe.oracle())
    }

    fn graph(&mut self, name: &str, graph: &Graph) -> Result<(), Error> {
        let named = || name.to_owned();
        let first: Vec<usize> =
            (0..self.stages.len().min(1)).filter(|_| self.has_checkpoint()).collect();
        // What both the export and the recording are about.
        let subject = |key: Key| match graph.module() {
            Some((module, _)) => key
                .with("names", json(&graph.ports()))
                .with("module", json(module))
                .with("trust code", self.build.trust_code),
            None => key.with("names", json(&graph.ports())),
        };
        let shape = |key: Key| match graph {
            Graph::Causal(graph) => key
                .with("hidden states", json(&graph.hidden_states))
                .with("last logits", graph.last_logits),
            Graph::Signal(_) => key,
        };
        let work = Work::Export(named());
        let key = match graph.exporter() {
            Exporter::Native => shape(self.by_tool(&work)),
            Exporter::Torch | Exporter::Optimum => self.by_python(&work),
        };
        let key = subject(key).with("opset", graph.opset()).with("exporter", graph.exporter());
        let export = self.add(work, &first, key);
        let (references, hidden_states) = match graph {
            Graph::Causal(graph) => (json(&graph.references), json(&graph.hidden_states)),
            Graph::Signal(graph) => (json(&graph.references), String::new()),
        };
        let work = Work::Record(named());
        let key = subject(self.by_oracle(&work));
        let key = key.with("references", references).with("hidden states", hidden_states);
        let record = self.add(work, &first, key);
        let work = Work::Rewrite(named());
        let key = Self::key(&work).with("passes", pass_names(name, graph)?).with("tool", TOOL);
        let key = shape(key);
        let rewrite = self.add(work, &[export], key);
        let tolerance = match graph {
            Graph::Causal(graph) => json(&graph.tolerance),
            Graph::Signal(graph) => json(&graph.tolerance),
        };
        self.validate(name, (Precision::Fp32, Format::Onnx), &[rewrite, record, export], &tolerance);
        if let Some(int8) = graph.int8() {
            let work = Work::Quantize(named());
            let key = Self::key(&work).with("options", json(int8)).with("tool", TOOL);
            let watches = int8.smoothing.is_some() || int8.form == Form::Static;
            let after = [rewrite].into_iter().chain(watches.then_some(record));
            let quantize = self.add(work, &after.collect::<Vec<_>>(), key);
            let file = (Precision::Int8, Format::Onnx);
            self.validate(name, file, &[quantize, record], &json(&int8.snr_db));
            if self.build.speed_gate {
                let work = Work::Time(named());
                let key = Self::key(&work).with("runtime", &self.runtimes);
                let key = key.with("machine", Machine::detect().cpu).with("tool", TOOL);
                self.add(work, &[rewrite, quantize, record], key);
            }
        }
        if let Some(target) = &graph.targets().openvino {
            let work = Work::Convert(named());
            let key = self.by_python(&work).with("target", json(target));
            let after: Vec<usize> = first.into_iter().chain([rewrite, record]).collect();
            let convert = self.add(work, &after, key);
            for &precision in &target.precisions {
                let file = (precision, Format::OpenVino);
                self.validate(name, file, &[convert, rewrite, record], &tolerance);
            }
        }
        Ok(())
    }

    fn validate(&mut self, name: &str, file: (Precision, Format), after: &[usize], tolerance: &str) {
        let work = Work::Validate(name.to_owned(), file.0, file.1);
        let key = Self::key(&work).with("tolerance", tolerance);
        let key = key.with("runtime", &self.runtimes).with("tool", TOOL);
        self.add(work, after, key);
    }

    fn has_checkpoint(&self) -> bool {
        self.stages.first().is_some_and(|stage| stage.work == Work::Checkpoint)
    }
}

/// What a stage is called in the keys of those that read it.
fn verb(work: &Work) -> &'static str {
    match work {
        Work::Checkpoint => "made checkpoint",
        Work::Export(_) => "export",
        Work::Record(_) => "record",
        Work::Rewrite(_) => "rewrite",
        Work::Quantize(_) => "quantize",
        Work::Convert(_) => "convert",
        Work::Validate(..) => "validate",
        Work::Time(_) => "time",
        Work::Speak => "speak",
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

impl Plan {
    /// Plans a build.
    ///
    /// # Errors
    /// [`Error::Source`] where a folder is not a checkpoint; [`Error::Pass`] for an unknown pass.
    pub fn of(build: &Build<'_>) -> Result<Self, Error> {
        let recipe = &build.recipe;
        let family = family::of(recipe);
        let python = Python::find(build.python.as_deref(), family.environment, build.cache.root());
        let environment = match &python {
            Ok(python) => python.digest().short(),
            Err(_) => "none".to_owned(),
        };
        let runtimes = build.runtimes.iter().map(|runtime| runtime.name_and_version());
        let mut planner = Planner {
            build,
            stages: Vec::new(),
            exporters: export::source_digest().short(),
            environment,
            identity: Digest::of(b""),
            runtimes: runtimes.collect::<Vec<_>>().join(", "),
        };
        let local = planner.checkpoint(recipe)?;
        for (name, graph) in recipe.graphs.iter() {
            planner.graph(name, graph)?;
        }
        if let Some(speech) = &recipe.speech {
            let after: Vec<usize> = (0..usize::from(planner.has_checkpoint())).collect();
            let key = planner.by_oracle(&Work::Speak);
            let key = key
                .with("sentences", json(&speech.sentences))
                .with("repetition penalty", speech.repetition_penalty);
            planner.add(Work::Speak, &after, key);
        }
        let stages = planner.stages;
        let validated = stages.iter().filter(|stage| stage.work != Work::Checkpoint);
        let validated = validated.map(|stage| stage.key.digest().to_string());
        let bundle = Key::new("bundle")
            .with("validate", validated.collect::<Vec<_>>().join(" "))
            .with("source", &build.source)
            .with("recipe", recipe.to_yaml())
            .with("speed gate", build.speed_gate)
            .with("name", build.name.clone().unwrap_or_default())
            .digest();
        Ok(Self { stages, local, bundle, python })
    }

    /// The place of the stage that does this.
    pub fn place(&self, work: &Work) -> Option<usize> {
        self.stages.iter().position(|stage| stage.work == *work)
    }

    /// The stage of a place, hashed again, if it is to be taken from the cache.
    pub(super) fn hit(&self, at: usize, cache: &Cache) -> Option<super::Stage> {
        let planned = &self.stages[at];
        if planned.state == State::Hit { cache.get_whole(&planned.key) } else { None }
    }
}

impl Planner<'_> {
    /// Opens a folder's checkpoint, or plans the stage that makes one.
    fn checkpoint(&mut self, recipe: &Recipe) -> Result<Option<Checkpoint>, Error> {
        let family = family::of(recipe);
        let (work, selection) = (Work::Checkpoint, family.selection(recipe));
        let key = match &self.build.source {
            Source::Directory(folder) => {
                let local = Checkpoint::open(folder, &selection)?;
                self.identity = local.digest();
                return Ok(Some(local));
            }
            Source::Hub { repo, revision } => {
                let key = Self::key(&work).with("repo", repo).with("revision", revision);
                key.with("files", selection.required().join(" ")).with("exporters", &self.exporters)
            }
            Source::BuiltIn { name } => {
                // All that is unpacked, carried answers too.
                let files = family::built_in(name).map(BuiltIn::all);
                Self::key(&work).with("files", json(&files))
            }
            Source::Seeded { preset, seed } => {
                let key = Self::key(&work).with("family", &recipe.family).with("preset", preset);
                let key = key.with("seed", seed).with("graphs", family.reads(recipe).join(" "));
                key.with("draw", seeded::DRAW)
            }
            Source::Synthetic { preset, seed } => {
                let key = Self::key(&work).with("family", &recipe.family).with("preset", preset);
                let key = key.with("seed", seed).with("graphs", family.reads(recipe).join(" "));
                key.with("exporters", &self.exporters).with("environment", &self.environment)
            }
        };
        let at = self.add(work, &[], key);
        self.identity = self.stages[at].key.digest();
        Ok(None)
    }
}

/// How a graph is rewritten where the recipe doesn't say.
pub(super) fn steps(graph: &Graph) -> &'static [Step] {
    match graph.role() {
        Role::Signal => passes::SIGNAL,
        Role::Causal => match graph.exporter() {
            Exporter::Torch => passes::CAUSAL,
            Exporter::Optimum => passes::CAUSAL_CACHED,
            // Its outputs and its cache are there already.
            Exporter::Native => passes::SIGNAL,
        },
    }
}

/// Checks what a recipe says of the stages: its passes, graph by graph.
///
/// # Errors
/// [`Error::Pass`] for an unknown name; [`Error::Surgery`] where a surgery is for graphs of another role.
pub fn check(recipe: &Recipe) -> Result<(), Error> {
    recipe.graphs.iter().try_for_each(|(name, graph)| pass_names(name, graph).map(|_| ()))
}

/// The passes and surgeries of a graph: those that the recipe names, or its own.
fn pass_names(name: &str, graph: &Graph) -> Result<String, Error> {
    let driver = graph.passes().map_or_else(|| Ok(Driver::new(steps(graph))), Driver::of)?;
    let surgery = |name: &&str| passes::entry(name).is_ok_and(|entry| entry.surgery);
    if graph.role() == Role::Signal
        && let Some(surgery) = driver.names().into_iter().find(surgery)
    {
        return Err(Error::Surgery { graph: name.to_owned(), surgery });
    }
    Ok(driver.names().join(" "))
}
