use super::cache::{Cache, Key};
use super::{Build, Error};
use crate::digest::Digest;
use crate::export::{self, Python};
use crate::passes;
use crate::recipe::Recipe;
use crate::runtime::{Runtime, Tract};
use crate::source::{Checkpoint, Source};

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

/// The stages of a build. Making it reads the recipe, the checkpoint's digest and the names of the
/// installed packages; nothing is run.
pub struct Plan {
    /// Making the checkpoint available; none for a folder, which is there already.
    pub checkpoint: Option<Planned>,
    /// The folder's checkpoint, hashed.
    pub local: Option<Checkpoint>,
    /// PyTorch to ONNX, and the references.
    pub export: Planned,
    /// The passes.
    pub rewrite: Planned,
    /// The references in tract.
    pub validate: Planned,
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
            Source::Directory(folder) => (Some(Checkpoint::open(folder)?), None),
            Source::Hub { repo, revision } => {
                let key = Key::new("checkpoint").with("repo", repo).with("revision", revision);
                let speaks = !recipe.decoder.references.sentences.is_empty();
                let key = if speaks { key.with("language model", true) } else { key };
                (None, Some(planned(key.with("exporters", &exporters))))
            }
            Source::Synthetic { preset, seed } => {
                let key = Key::new("checkpoint").with("preset", preset).with("seed", seed);
                (None, Some(planned(made(key))))
            }
        };
        let identity = match (&local, &checkpoint) {
            (Some(local), _) => local.digest(),
            (None, Some(stage)) => stage.key.digest(),
            (None, None) => unreachable!("a source is local or made"),
        };
        let decoder = &recipe.decoder;
        let export = Key::new("export")
            .with("checkpoint", identity)
            .with("opset", decoder.opset)
            .with("references", serde_json::to_string(&decoder.references).expect("plain data"));
        let export = planned(made(export));
        let passes = pass_names(recipe)?;
        let rewrite = Key::new("rewrite")
            .with("export", export.key.digest())
            .with("passes", passes.join(" "))
            .with("tool", TOOL);
        let rewrite = planned(rewrite);
        let validate = Key::new("validate")
            .with("rewrite", rewrite.key.digest())
            .with("tolerance", serde_json::to_string(&decoder.tolerance).expect("plain data"))
            .with("runtime", Tract.name_and_version())
            .with("tool", TOOL);
        let validate = planned(validate);
        let bundle = Key::new("bundle")
            .with("validate", validate.key.digest())
            .with("source", &build.source)
            .with("recipe", recipe.to_yaml())
            .with("name", build.name.clone().unwrap_or_default())
            .digest();
        Ok(Self { checkpoint, local, export, rewrite, validate, bundle, python })
    }

    /// The stages in order.
    pub fn stages(&self) -> impl Iterator<Item = &Planned> {
        self.checkpoint.iter().chain([&self.export, &self.rewrite, &self.validate])
    }

    /// The stage of a key, hashed again, if it is to be taken from the cache.
    pub(super) fn hit(&self, planned: &Planned, cache: &Cache) -> Option<super::Stage> {
        if planned.state == State::Hit { cache.get_whole(&planned.key) } else { None }
    }
}

/// The passes of a recipe: those it names, or all.
fn pass_names(recipe: &Recipe) -> Result<Vec<String>, Error> {
    match &recipe.decoder.passes {
        Some(names) => {
            passes::Driver::of(names)?;
            Ok(names.clone())
        }
        None => Ok(passes::ALL.iter().map(|pass| pass.name().to_owned()).collect()),
    }
}
