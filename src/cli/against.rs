//! PyTorch's answers for a bundle whose own references are another's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::here::Here;
use super::terminal::Progress;
use super::{Failure, INTERRUPTED};
use crate::bundle::Bundle;
use crate::family;
use crate::names::Oracle;
use crate::pipeline::{self, Build};
use crate::source::{Checkpoint, Source};

/// The recipe of every bundle, with what was left open filled in.
const RECIPE: &str = "recipe.lock.yaml";

/// The answers of a bundle's graphs, by graph.
pub(super) struct PyTorch(BTreeMap<String, PathBuf>);

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum Error {
    #[error("{}: {file} is not the file that the bundle was built from", checkpoint.display())]
    #[diagnostic(
        code(cli::other_checkpoint),
        help(
            "--against names the folder of the bundle's own checkpoint; manifest.json lists its files"
        )
    )]
    OtherCheckpoint { checkpoint: PathBuf, file: String },
    #[error("the bundle's recipe.lock.yaml exports no graph {0:?}")]
    #[diagnostic(code(cli::no_recipe), help("verify the bundle, or build it again"))]
    NoRecipe(String),
}

impl PyTorch {
    /// Asks PyTorch, with the bundle's own recipe and its own checkpoint.
    pub(super) fn of(folder: &Path, bundle: &Bundle, here: &Here) -> Result<Self, Failure> {
        let mut recipe = family::recipes().read(&bundle.file(RECIPE)?)?;
        recipe.references = Some(Oracle::PyTorch);
        let manifest = bundle.manifest();
        let is_there = |name: &str| manifest.graphs.contains_key(name);
        recipe.graphs.0.retain(|(name, _)| is_there(name));
        let here_is = Checkpoint::open(folder, &family::of(&recipe).selection(&recipe))?;
        if let Some(other) = here_is.files.iter().find(|file| !manifest.checkpoint.files.contains(file))
        {
            let (checkpoint, file) = (folder.to_owned(), other.name.clone());
            return Err(Box::new(Error::OtherCheckpoint { checkpoint, file }));
        }
        let build = Build {
            source: Source::Directory(folder.to_owned()),
            name: None,
            output: None,
            overwrite: false,
            rebuild: false,
            python: here.named_python().map(Path::to_owned),
            runtimes: Vec::new(),
            speed_gate: false,
            trust_code: false,
            cache: here.cache().clone(),
            interrupted: &INTERRUPTED,
            recipe,
        };
        let progress = Progress::new();
        let names = build.recipe.graphs.iter().map(|(name, _)| name.to_owned());
        let answers = names.map(|name| {
            let path = pipeline::answers(&build, &name, &progress)?;
            Ok((name, path))
        });
        Ok(Self(answers.collect::<Result<_, Failure>>()?))
    }

    /// The file of a graph's answers.
    pub(super) fn answers(&self, graph: &str) -> Result<&Path, Failure> {
        Ok(self.0.get(graph).ok_or_else(|| Error::NoRecipe(graph.to_owned()))?)
    }
}
