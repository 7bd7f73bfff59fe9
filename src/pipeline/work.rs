//! What each stage does, given those that it reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::Made;
use super::double::Double;
use super::plan::steps;
use super::stage::{Exported, MODEL, REFERENCES, REWRITTEN, SPEECH, Work};
use super::walk::Walk;
use super::{Build, Error, Rewrite, carried, judge};
use crate::bundle::FileEntry;
use crate::convert;
use crate::export::{
    self, Child, Outcome, Progress, Python, Record, References, Request, Speak, Subject, TrustedModule,
};
use crate::family;
use crate::front::Asked;
use crate::interface::{Interface, Signature};
use crate::ir::{self, Model};
use crate::names::{Exporter, Oracle, Word as _};
use crate::passes::{self, Given};
use crate::quantize;
use crate::recipe::{Form, Graph};
use crate::runtime::built_in;
use crate::source::{self, Source};
use crate::validate::{self, record::Watch};

/// What a stage of this work leaves in `folder`, and what it found out.
pub(super) fn run(walk: &Walk<'_>, work: &Work, folder: &Path) -> Result<Made, Error> {
    let of = |name: &String| walk.build.recipe.graph(name).expect("a planned graph is in the recipe");
    let context = Context { walk, build: walk.build, stage: work.name(), folder };
    match work {
        Work::Checkpoint => context.checkpoint().map(Made::from),
        Work::Export(name) => context.export(name, of(name)),
        Work::Record(name) => context.record(name, of(name)).map(Made::from),
        Work::Rewrite(name) => context.rewrite(name, of(name)),
        Work::Quantize(name) => context.quantize(name, of(name)),
        Work::Convert(name) => context.convert(name, of(name)).map(Made::from),
        Work::Validate(name, precision, format) => {
            judge::validate(walk, (name, of(name)), (*precision, *format)).map(Made::from)
        }
        Work::Time(name) => judge::time(walk, name, of(name)).map(Made::from),
        Work::Speak => context.speak().map(Made::from),
    }
}

/// A stage on its way.
struct Context<'a> {
    walk: &'a Walk<'a>,
    build: &'a Build<'a>,
    stage: String,
    folder: &'a Path,
}

impl Context<'_> {
    /// Runs a Python task in the stage's folder.
    fn child(&self, request: &Request<'_>) -> Result<Outcome, Error> {
        self.with_child(|child| child.run(request, self.folder))
    }

    /// Runs work with a child process to do it; its log stays where it fails.
    fn with_child<T, E>(&self, work: impl FnOnce(&Child<'_>) -> Result<T, E>) -> Result<T, Error>
    where
        Error: From<E>,
    {
        let Self { walk, build, .. } = self;
        let environment = family::of(&build.recipe).environment;
        let python = &Python::find(build.python.as_deref(), environment, build.cache.root())?;
        let logs = build.cache.root().join("logs");
        std::fs::create_dir_all(&logs).map_err(Error::io(&logs))?;
        let log = logs.join(format!("{}-{}.log", self.stage, std::process::id()));
        let longest = build.recipe.graphs.iter().map(|(_, graph)| graph.time_limit_seconds()).max();
        let child = Child {
            python,
            cache: build.cache.root(),
            log: &log,
            time_limit: Duration::from_secs(longest.unwrap_or(0)),
            interrupted: build.interrupted,
            progress: &|p: &Progress| walk.reporter.progress(&p.step, p.done, p.total),
        };
        let outcome = work(&child)?;
        let _ = std::fs::remove_file(&log);
        Ok(outcome)
    }

    /// Which graph a Python task is about.
    fn subject<'b>(
        &'b self,
        name: &'b str,
        graph: &'b Graph,
        names: &'b crate::names::Ports,
    ) -> Subject<'b> {
        let module = match graph {
            Graph::Signal(signal) => signal.module.as_ref(),
            Graph::Causal(_) => None,
        };
        let module = module.map(|module| TrustedModule { module, trust_code: self.build.trust_code });
        Subject { family: &self.build.recipe.family, graph: name, role: graph.role(), names, module }
    }

    /// The checkpoint's folder, whole: a child has another folder of its own.
    fn checkpoint_folder(&self) -> Result<PathBuf, Error> {
        let folder = self.walk.checkpoint()?;
        std::fs::canonicalize(&folder).map_err(Error::io(&folder))
    }

    /// Draws, downloads or unpacks the checkpoint.
    fn checkpoint(&self) -> Result<serde_json::Value, Error> {
        let recipe = &self.build.recipe;
        let family = family::of(recipe);
        let (selection, graphs) = (family.selection(recipe), family.reads(recipe));
        let files = selection.required();
        let request = match &self.build.source {
            Source::BuiltIn { name } => return self.unpack(name),
            Source::Seeded { preset, seed } => {
                return Ok(family.synthesize(preset, *seed, &graphs, self.folder)?);
            }
            Source::Synthetic { preset, seed } => {
                Request::Synthesize { family: &recipe.family, preset, seed: *seed, graphs: &graphs }
            }
            Source::Hub { repo, revision } => {
                Request::Download { repo, revision, files: &files, optional: selection.companions }
            }
            Source::Directory(_) => unreachable!("a folder needs no making"),
        };
        let outcome = self.child(&request).map_err(|error| self.or_seeded(error))?;
        if files.iter().any(|file| outcome.artifacts.values().all(|artifact| artifact.path != *file)) {
            return Err(Error::Result { field: "checkpoint" });
        }
        Ok(outcome.result)
    }

    /// That there is no PyTorch to draw weights is said with the source that needs none.
    fn or_seeded(&self, error: Error) -> Error {
        match (&self.build.source, error) {
            (Source::Synthetic { preset, seed }, Error::Export(export::Error::NoPython { .. }))
                if family::of(&self.build.recipe).synthesize.is_some() =>
            {
                let seeded = Source::Seeded { preset: preset.clone(), seed: *seed }.to_string();
                let synthetic = self.build.source.to_string();
                source::Error::NoPyTorch { synthetic, seeded }.into()
            }
            (_, error) => error,
        }
    }

    /// Writes a checkpoint that is inside this program.
    fn unpack(&self, name: &str) -> Result<serde_json::Value, Error> {
        let voice = family::built_in(name).ok_or_else(|| {
            let known = family::ALL.iter().flat_map(|family| family.built_in).map(|voice| voice.name);
            Error::BuiltIn { name: name.to_owned(), known: known.collect::<Vec<_>>().join(", ") }
        })?;
        for (file, bytes) in (voice.files)() {
            let path = self.folder.join(file);
            std::fs::write(&path, bytes).map_err(Error::io(&path))?;
        }
        Ok(serde_json::json!({}))
    }

    /// Exports a graph.
    fn export(&self, name: &str, graph: &Graph) -> Result<Made, Error> {
        let ports = graph.ports();
        if graph.exporter() == Exporter::Native {
            return self.write_graph(name, graph);
        }
        let request = Request::Export(export::Export {
            subject: self.subject(name, graph, &ports),
            checkpoint: &self.checkpoint_folder()?,
            opset: graph.opset(),
            exporter: graph.exporter().name(),
        });
        let outcome = self.child(&request)?;
        check_artifact(&outcome, "model", MODEL)?;
        let field = |name: &'static str| outcome.result.get(name);
        let number = |name: &'static str| field(name).and_then(serde_json::Value::as_u64);
        let framing = number("per_frame").zip(number("lead"));
        Ok(serde_json::json!({
            "architecture": field("architecture").ok_or(Error::Result { field: "architecture" })?,
            "sample_rate": field("sample_rate"),
            "framing": framing.map(|(per_frame, lead)| serde_json::json!({ "per_frame": per_frame, "lead": lead })),
            "environment": outcome.environment,
        })
        .into())
    }

    /// Writes a graph directly from its weights.
    fn write_graph(&self, name: &str, graph: &Graph) -> Result<Made, Error> {
        let family = family::of(&self.build.recipe);
        let front = family.front(name, graph.role()).expect("a recipe names exporters that there are");
        let (hidden_states, last_logits) = match graph {
            Graph::Causal(graph) => (graph.hidden_states.as_slice(), graph.last_logits),
            Graph::Signal(_) => (&[][..], false),
        };
        let drafted = front.draft(&Asked {
            checkpoint: &self.checkpoint_folder()?,
            opset: graph.opset(),
            ports: &graph.ports(),
            hidden_states,
            last_logits,
        })?;
        let written = drafted.draft.write(&self.folder.join(MODEL))?;
        let result = serde_json::json!({
            "architecture": drafted.architecture,
            "sample_rate": drafted.sound.map(|sound| sound.sample_rate),
            "framing": drafted.sound.map(|sound| serde_json::json!({
                "per_frame": sound.per_frame,
                "lead": sound.lead,
            })),
            "environment": {},
        });
        Ok(Made { result, files: BTreeMap::from([(MODEL, written.into())]) })
    }

    /// Records what the original module answers.
    fn record(&self, name: &str, graph: &Graph) -> Result<serde_json::Value, Error> {
        let ports = graph.ports();
        if let Some(answered) =
            self.answered_without_python(&Work::Record(name.to_owned()), REFERENCES)?
        {
            return Ok(answered);
        }
        let (references, hidden_states): (_, &[u32]) = match graph {
            Graph::Causal(graph) => (References::Causal(&graph.references), &graph.hidden_states),
            Graph::Signal(graph) => (References::Signal(&graph.references), &[]),
        };
        let outcome = self.child(&Request::Record(Record {
            subject: self.subject(name, graph, &ports),
            checkpoint: &self.checkpoint_folder()?,
            references,
            hidden_states,
        }))?;
        check_artifact(&outcome, "references", REFERENCES)?;
        Ok(serde_json::json!({}))
    }

    /// What the original model answers where no Python is needed for it: in double precision, or as the checkpoint
    /// carries it.
    fn answered_without_python(
        &self,
        work: &Work,
        file: &str,
    ) -> Result<Option<serde_json::Value>, Error> {
        match self.build.recipe.oracle() {
            Oracle::Float64 => self.in_double(work, file).map(Some),
            Oracle::PyTorch => {
                let Some(carried) = carried::of(self.build, work) else { return Ok(None) };
                carried.copy(&self.checkpoint_folder()?, &self.folder.join(file))?;
                Ok(Some(carried.result()))
            }
        }
    }

    /// What the model answers in double precision.
    fn in_double(&self, work: &Work, file: &str) -> Result<serde_json::Value, Error> {
        let reporter = self.walk.reporter;
        let progress = |done: usize, total: usize| {
            reporter.progress("record references", done as u64, total as u64)
        };
        let double = Double {
            recipe: &self.build.recipe,
            checkpoint: &self.checkpoint_folder()?,
            watch: Watch { progress: &progress, interrupted: self.build.interrupted },
        };
        let (answers, result) = match work {
            Work::Record(name) => (double.references(name)?, serde_json::json!({})),
            _ => double.speech()?,
        };
        let path = self.folder.join(file);
        std::fs::write(&path, answers.to_bytes()?).map_err(Error::io(&path))?;
        Ok(result)
    }

    /// Has the original model's own code say the recipe's sentences.
    fn speak(&self) -> Result<serde_json::Value, Error> {
        if let Some(answered) = self.answered_without_python(&Work::Speak, SPEECH)? {
            return Ok(answered);
        }
        let recipe = &self.build.recipe;
        let speech = recipe.speech.as_ref().expect("a planned stage is in the recipe");
        let outcome = self.child(&Request::Speak(Speak {
            family: &recipe.family,
            checkpoint: &self.checkpoint_folder()?,
            sentences: &speech.sentences,
            repetition_penalty: speech.repetition_penalty,
        }))?;
        check_artifact(&outcome, "speech", SPEECH)?;
        Ok(outcome.result)
    }

    /// Rewrites the exported graph.
    fn rewrite(&self, name: &str, graph: &Graph) -> Result<Made, Error> {
        let exported = self.walk.stage(&Work::Export(name.to_owned()))?;
        let (path, entry) = exported.file(MODEL)?;
        let mut model = Model::open_checked(path)?;
        let hints = hints(graph, &exported.result()?);
        let report = passes::rewrite(&mut model, steps(graph), graph.passes(), hints)?;
        let result = serde_json::to_value(Rewrite::from(report)).expect("plain data");
        // What a later stage would feed or read by a name that is not there.
        Interface::bind_whole(&graph.ports(), &Signature::from(&model))
            .map_err(validate::Error::from)?;
        Ok(Made { result, files: write(&model, self.folder, entry)? })
    }

    /// Quantizes the rewritten graph.
    fn quantize(&self, name: &str, graph: &Graph) -> Result<Made, Error> {
        let int8 = graph.int8().cloned().unwrap_or_default();
        let mut options = quantize::Options::from(&int8);
        let rewritten = self.walk.stage(&Work::Rewrite(name.to_owned()))?;
        let (path, entry) = rewritten.file(REWRITTEN)?;
        let mut model = Model::open_checked(path)?;
        let calibrate = |model: &Model| {
            let references = judge::references(self.walk, name, graph, model)?;
            Ok::<_, Error>(validate::calibrate(
                model,
                &graph.ports(),
                &references,
                built_in()?.as_ref(),
            )?)
        };
        if let Some(strength) = int8.smoothing {
            let calibration = calibrate(&model)?;
            quantize::smooth(&mut model, &calibration, strength);
        }
        if int8.form == Form::Static {
            options.seen = calibrate(&model)?;
        }
        let report = quantize::quantize(&mut model, &options)?;
        let files = write(&model, self.folder, entry)?;
        let rewrite: Rewrite = rewritten.result()?;
        let passes = [("quantize".to_owned(), report.products.len() + report.tables.len())];
        let rewrite = Rewrite {
            passes: rewrite.passes.into_iter().chain(passes).collect(),
            nodes: (rewrite.nodes.0, report.nodes.1),
            weight_bytes: (rewrite.weight_bytes.0, report.weight_bytes.1),
        };
        Ok(Made { result: serde_json::to_value(rewrite).expect("plain data"), files })
    }

    /// Converts the rewritten graph to OpenVINO's format.
    fn convert(&self, name: &str, graph: &Graph) -> Result<serde_json::Value, Error> {
        let target = graph.targets().openvino.as_ref();
        let target = target.expect("a planned conversion is in the recipe");
        let rewritten = self.walk.stage(&Work::Rewrite(name.to_owned()))?;
        let (path, ports) = (rewritten.file(REWRITTEN)?.0, graph.ports());
        let model = Model::open(&path)?;
        let sources = convert::Sources {
            model: &path,
            checkpoint: &self.checkpoint_folder()?,
            references: &self.walk.stage(&Work::Record(name.to_owned()))?.file(REFERENCES)?.0,
        };
        let subject = self.subject(name, graph, &ports);
        let converter = self.with_child(|child| {
            convert::openvino(child, subject, target, sources, &model, self.folder)
        })?;
        let rewrite: Rewrite = rewritten.result()?;
        Ok(serde_json::json!({ "rewrite": rewrite, "converter": converter }))
    }
}

/// Checks that a task left an artifact in the file that it is to be in.
fn check_artifact(outcome: &Outcome, name: &'static str, file: &str) -> Result<(), Error> {
    match outcome.artifacts.get(name) {
        Some(artifact) if artifact.path == file => Ok(()),
        _ => Err(Error::Result { field: name }),
    }
}

/// Writes a model, which was read from the file of an entry, as the rewritten one.
fn write(
    model: &Model,
    folder: &Path,
    read: FileEntry,
) -> Result<BTreeMap<&'static str, FileEntry>, Error> {
    let written = model.link_or_write(&folder.join(REWRITTEN)).map_err(|error| match error {
        // The cache's disk, with the hint that belongs to it.
        ir::Error::Io { path, source } => Error::Io { path, source },
        other => other.into(),
    })?;
    Ok(BTreeMap::from([(REWRITTEN, written.map_or(read, FileEntry::from))]))
}

/// What recipe and exporter say of a graph.
fn hints(graph: &Graph, exported: &Exported) -> Given {
    let Graph::Causal(graph) = graph else { return Given::default() };
    let number = |name: &str| Some(exported.architecture.get(name)?.as_u64()? as usize);
    Given {
        names: graph.interface.clone(),
        layers: graph.hidden_states.clone(),
        last_logits: graph.last_logits,
        heads: number("kv_heads").zip(number("head_dim")).map(<[usize; 2]>::from),
    }
}
