use super::cache::{Cache, Key};
use super::{Build, Error, openvino, stages};
use crate::digest::Digest;
use crate::export::{self, Python};
use crate::hardware::Machine;
use crate::names::Precision;
use crate::passes::Driver;
use crate::recipe::{Int8, Recipe};
use crate::runtime::Runtime;
use crate::source::{Checkpoint, Needs, Source};
use crate::validate::Part;

/// Whether a stage has to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the cache.
    Hit,
    /// It must be made, and why.
    Miss(String),
}

/// A stage of a plan.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Everything it depends on.
    pub key: Key,
    /// Whether it is there.
    pub state: State,
}

/// The stages of one half of a model.
#[derive(Clone, Debug)]
pub struct PartPlan {
    /// Which half.
    pub part: Part,
    /// PyTorch to ONNX, and the references.
    pub export: Planned,
    /// The passes.
    pub rewrite: Planned,
    /// The references in tract.
    pub validate: Planned,
    /// The int8 file, where the recipe asks for it.
    pub int8: Option<Int8Plan>,
    /// OpenVINO's format, where the recipe asks for it.
    pub openvino: Option<OpenVinoPlan>,
}

/// The stages of one half in OpenVINO's format.
#[derive(Clone, Debug)]
pub struct OpenVinoPlan {
    /// The fp32 file, converted.
    pub convert: Planned,
    /// The references in OpenVINO, for each file.
    pub validate: Vec<(Precision, Planned)>,
}

/// The stages of the int8 file of one half.
#[derive(Clone, Debug)]
pub struct Int8Plan {
    /// The fp32 file in 8 bits.
    pub quantize: Planned,
    /// The references in tract, and in ONNX Runtime where there is one.
    pub validate: Planned,
    /// Its time beside fp32's, unless that was not to be asked.
    pub speed: Option<Planned>,
}

impl PartPlan {
    /// The stages in order.
    pub fn stages(&self) -> Vec<&Planned> {
        let int8 = self
            .int8
            .iter()
            .flat_map(|int8| [&int8.quantize, &int8.validate].into_iter().chain(int8.speed.as_ref()));
        let converted = self.openvino.iter().flat_map(|openvino| {
            let judged = openvino.validate.iter().map(|(_, planned)| planned);
            std::iter::once(&openvino.convert).chain(judged)
        });
        let fp32 = [&self.export, &self.rewrite, &self.validate];
        fp32.into_iter().chain(int8).chain(converted).collect()
    }
}

/// The stages of a build. Making it reads the recipe, the checkpoint's digest and the names of the
/// installed packages; nothing is run.
pub struct Plan {
    /// Making the checkpoint available; none for a folder, which is there already.
    pub checkpoint: Option<Planned>,
    /// The folder's checkpoint, hashed.
    pub local: Option<Checkpoint>,
    /// The halves of the model that the recipe names, the decoder first.
    pub parts: Vec<PartPlan>,
    /// What upstream's PyTorch says, where the recipe asks for it.
    pub speak: Option<Planned>,
    /// The digest that the finished bundle carries.
    pub bundle: Digest,
    /// The interpreter, if one was found.
    pub python: Result<Python, export::Error>,
}

/// This build of this program: its source and the versions it is locked to.
const TOOL: &str = env!("SOPRANO_EXPORT_FINGERPRINT");

impl Plan {
    /// Plans a build.
    ///
    /// # Errors
    /// [`Error::Source`] where a folder is no checkpoint; [`Error::Pass`] for an unknown pass.
    pub fn of(build: &Build<'_>) -> Result<Self, Error> {
        let recipe = &build.recipe;
        let python = Python::find(build.python.as_deref(), recipe.family.name(), build.cache.root());
        let environment = match &python {
            Ok(python) => python.digest().short(),
            Err(_) => "none".to_owned(),
        };
        let exporters = export::source_digest().short();
        let made = |key: Key| key.with("exporters", &exporters).with("environment", &environment);
        let planned = |key: Key| {
            let state = match (build.rebuild, build.cache.get(&key)) {
                (true, _) => State::Miss("--rebuild".to_owned()),
                (false, Some(_)) => State::Hit,
                (false, None) => State::Miss(build.cache.why(&key)),
            };
            Planned { key, state }
        };

        let (local, checkpoint) = match &build.source {
            Source::Directory(folder) => (Some(Checkpoint::open(folder, needs(recipe))?), None),
            Source::Hub { repo, revision } => {
                let key = Key::new("checkpoint").with("repo", repo).with("revision", revision);
                let key = key.with("files", stages::hub_files(recipe).join(" "));
                (None, Some(planned(key.with("exporters", &exporters))))
            }
            Source::Synthetic { preset, seed } => {
                let key = Key::new("checkpoint").with("preset", preset).with("seed", seed);
                (None, Some(planned(made(key.with("parts", stages::halves(recipe).join(" "))))))
            }
        };
        let identity = match (&local, &checkpoint) {
            (Some(local), _) => local.digest(),
            (None, Some(stage)) => stage.key.digest(),
            (None, None) => unreachable!("a source is local or made"),
        };
        let runtimes =
            stages::runtimes(build).map(Runtime::name_and_version).collect::<Vec<_>>().join(", ");
        let part = |part: Part, export: Key, passes: String, tolerance: String, int8: Option<&Int8>| {
            let [rewrite, validate, quantize, validate_int8, speed] = stages::names(part);
            let export = planned(made(export.with("checkpoint", identity)));
            let rewrite = Key::new(rewrite)
                .with("export", export.key.digest())
                .with("passes", passes)
                .with("tool", TOOL);
            let rewrite = planned(rewrite);
            let validate = Key::new(validate)
                .with("rewrite", rewrite.key.digest())
                .with("tolerance", &tolerance)
                .with("runtime", &runtimes)
                .with("tool", TOOL);
            let int8 = int8.map(|int8| {
                let quantize = Key::new(quantize)
                    .with("rewrite", rewrite.key.digest())
                    .with("options", serde_json::to_string(int8).expect("plain data"))
                    .with("tool", TOOL);
                let quantize = planned(quantize);
                let validate = Key::new(validate_int8)
                    .with("quantize", quantize.key.digest())
                    .with("runtime", &runtimes)
                    .with("tool", TOOL);
                let speed = build.speed_gate.then(|| {
                    let key = Key::new(speed).with("quantize", quantize.key.digest());
                    let key = key.with("runtime", &runtimes).with("machine", Machine::detect().cpu);
                    planned(key.with("tool", TOOL))
                });
                Int8Plan { quantize, validate: planned(validate), speed }
            });
            let target = openvino::target(recipe, part);
            let openvino = target.map(|target| {
                let [convert, _] = openvino::names(part, Precision::Fp32);
                let convert = made(Key::new(convert).with("rewrite", rewrite.key.digest()))
                    .with("checkpoint", identity)
                    .with("target", serde_json::to_string(target).expect("plain data"));
                let convert = planned(convert);
                let judged = target.schemes.iter().map(|&scheme| {
                    let [_, validate] = openvino::names(part, scheme);
                    let key = Key::new(validate)
                        .with("convert", convert.key.digest())
                        .with("tolerance", &tolerance)
                        .with("runtime", &runtimes)
                        .with("tool", TOOL);
                    (scheme, planned(key))
                });
                OpenVinoPlan { validate: judged.collect(), convert }
            });
            PartPlan { part, export, rewrite, validate: planned(validate), int8, openvino }
        };
        let json = |value: serde_json::Result<String>| value.expect("plain data");
        let mut parts = Vec::new();
        if let Some(decoder) = &recipe.decoder {
            let export = Key::new("export")
                .with("opset", decoder.opset)
                .with("references", json(serde_json::to_string(&decoder.references)));
            let passes = pass_names(recipe, Part::Decoder)?;
            let tolerance = json(serde_json::to_string(&decoder.tolerance));
            parts.push(part(Part::Decoder, export, passes, tolerance, decoder.int8.as_ref()));
        }
        if let Some(lm) = &recipe.lm {
            let export = Key::new("export-lm")
                .with("opset", lm.opset)
                .with("route", lm.route.name())
                .with("hidden states", format!("{:?}", lm.hidden_states))
                .with("references", json(serde_json::to_string(&lm.references)));
            let tolerance = json(serde_json::to_string(&lm.tolerance));
            let last = if lm.last_logits { ", last logits" } else { "" };
            let passes = pass_names(recipe, Part::Lm)? + last;
            parts.push(part(Part::Lm, export, passes, tolerance, lm.int8.as_ref()));
        }
        let speak = recipe.speech.as_ref().map(|speech| {
            let key = Key::new(stages::SPEAK)
                .with("checkpoint", identity)
                .with("sentences", json(serde_json::to_string(&speech.sentences)))
                .with("repetition penalty", speech.repetition_penalty);
            planned(made(key))
        });
        let validated = parts.iter().flat_map(PartPlan::stages).chain(&speak);
        let validated = validated.map(|stage| stage.key.digest().to_string());
        let bundle = Key::new("bundle")
            .with("validate", validated.collect::<Vec<_>>().join(" "))
            .with("source", &build.source)
            .with("recipe", recipe.to_yaml())
            .with("speed gate", build.speed_gate)
            .with("name", build.name.clone().unwrap_or_default())
            .digest();
        Ok(Self { checkpoint, local, parts, speak, bundle, python })
    }

    /// The stages in order.
    pub fn stages(&self) -> impl Iterator<Item = &Planned> {
        let parts = self.parts.iter().flat_map(PartPlan::stages);
        self.checkpoint.iter().chain(parts).chain(&self.speak)
    }

    /// The stages in order, each with those that it follows directly.
    pub fn steps(&self) -> Vec<(&Planned, Vec<&Planned>)> {
        let mut steps: Vec<(&Planned, Vec<&Planned>)> =
            self.checkpoint.iter().map(|checkpoint| (checkpoint, Vec::new())).collect();
        for part in &self.parts {
            steps.push((&part.export, self.checkpoint.iter().collect()));
            steps.push((&part.rewrite, vec![&part.export]));
            steps.push((&part.validate, vec![&part.rewrite]));
            if let Some(int8) = &part.int8 {
                steps.push((&int8.quantize, vec![&part.rewrite]));
                steps.push((&int8.validate, vec![&int8.quantize]));
                steps.extend(int8.speed.iter().map(|speed| (speed, vec![&int8.quantize])));
            }
            if let Some(openvino) = &part.openvino {
                steps.push((&openvino.convert, vec![&part.rewrite]));
                let judged = openvino.validate.iter();
                steps.extend(judged.map(|(_, validate)| (validate, vec![&openvino.convert])));
            }
        }
        steps.extend(self.speak.iter().map(|speak| (speak, self.checkpoint.iter().collect())));
        steps
    }

    /// The stage of a key, hashed again, if it is to be taken from the cache.
    pub(super) fn hit(&self, planned: &Planned, cache: &Cache) -> Option<super::Stage> {
        if planned.state == State::Hit { cache.get_whole(&planned.key) } else { None }
    }
}

/// Which weights a recipe's export reads.
pub(super) fn needs(recipe: &Recipe) -> Needs {
    Needs { decoder: recipe.decoder.is_some(), lm: recipe.reads_language_model() }
}

/// The passes and surgeries of a part: those that the recipe names, or its own.
fn pass_names(recipe: &Recipe, part: Part) -> Result<String, Error> {
    let (steps, names) = stages::steps(recipe, part);
    let driver = names.map_or_else(|| Ok(Driver::new(steps)), Driver::of)?;
    Ok(driver.names().join(" "))
}
