//! PyTorch's recorded answers that a checkpoint carries along: taken where they are to what is asked, of these weights.
//!
//! A checkpoint's `references.json` lists them; they lie next to it. Another setting, a weight that differs or a file
//! that was changed, and PyTorch has to answer again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stage::Work;
use super::{Build, Error};
use crate::digest::Digest;
use crate::family;
use crate::names::Oracle;
use crate::recipe::{Graph, Recipe};
use crate::source::{File, Source};
use crate::tensor::TensorFile;

/// The list in a checkpoint.
const LIST: &str = "references.json";

/// What a checkpoint carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// The files of the checkpoint that was asked, with their digests.
    checkpoint: BTreeMap<String, Digest>,
    /// Versions of Python and of the packages that answered.
    environment: BTreeMap<String, String>,
    /// The answers, by the name of the stage that asks.
    answers: BTreeMap<String, Answer>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    file: String,
    sha256: Digest,
    asked: Value,
    /// What the stage found out.
    result: Value,
}

/// One carried answer.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    answer: Answer,
    environment: BTreeMap<String, String>,
}

/// What a stage asks of the original model; none of one that asks nothing.
pub(super) fn asked(recipe: &Recipe, work: &Work) -> Option<Value> {
    match work {
        Work::Record(name) => {
            let graph = recipe.graph(name)?;
            let (references, hidden_states) = match graph {
                Graph::Causal(graph) => (json(&graph.references), json(&graph.hidden_states)),
                Graph::Signal(graph) => (json(&graph.references), Value::Null),
            };
            // A module of the recipe's own is code that only PyTorch can ask.
            graph.module().is_none().then(|| {
                serde_json::json!({
                    "names": json(&graph.ports()),
                    "references": references,
                    "hidden_states": hidden_states,
                })
            })
        }
        Work::Speak => {
            let speech = recipe.speech.as_ref()?;
            Some(serde_json::json!({
                "sentences": speech.sentences,
                "repetition_penalty": speech.repetition_penalty,
            }))
        }
        _ => None,
    }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain data")
}

/// The answer that the build's checkpoint carries to what a stage asks.
pub(super) fn of(build: &Build<'_>, work: &Work) -> Option<Carried> {
    if build.recipe.oracle() != Oracle::PyTorch {
        return None;
    }
    listed(build).ok()?.answer(&build.recipe, work).ok()
}

/// Whether the build's checkpoint carries an answer to everything that its recipe asks.
///
/// # Errors
/// What is wrong with the list, as a clause about it; nothing where there is none.
pub(super) fn has_all(build: &Build<'_>) -> Result<(), Option<String>> {
    let list = listed(build)?;
    let graphs = build.recipe.graphs.iter().map(|(name, _)| Work::Record(name.to_owned()));
    let mut all = graphs.chain(build.recipe.speech.is_some().then_some(Work::Speak));
    all.try_for_each(|work| list.answer(&build.recipe, &work).map(drop)).map_err(Some)
}

/// The list, held against the checkpoint that is here; nothing where there is none, or no checkpoint.
fn listed(build: &Build<'_>) -> Result<List, Option<String>> {
    let selection = family::of(&build.recipe).selection(&build.recipe);
    let (text, files) = match &build.source {
        Source::Directory(folder) => {
            let path = folder.join(LIST);
            path.symlink_metadata().map_err(|_| None)?;
            let text =
                crate::files::read_small(&path).map_err(|e| Some(format!("can't be read: {e}")))?;
            let here = crate::source::Checkpoint::open(folder, &selection).map_err(|_| None)?;
            (text, here.files)
        }
        Source::BuiltIn { name } => {
            let voice = family::built_in(name).ok_or(None)?;
            (voice.file(LIST).ok_or(None)?.to_vec(), voice.selected(&selection))
        }
        Source::Hub { .. } | Source::Synthetic { .. } | Source::Seeded { .. } => return Err(None),
    };
    let list: List =
        serde_json::from_slice(&text).map_err(|e| Some(format!("is not a list of answers: {e}")))?;
    let is_other = |file: &&File| list.checkpoint.get(&file.name) != Some(&file.sha256);
    match files.iter().find(is_other) {
        Some(file) => Err(Some(format!("has answers of another {}", file.name))),
        None => Ok(list),
    }
}

impl List {
    /// The answer to what a stage asks.
    ///
    /// # Errors
    /// Why there is none, as a clause about the list.
    fn answer(&self, recipe: &Recipe, work: &Work) -> Result<Carried, String> {
        let stage = work.name();
        let Some(asked) = asked(recipe, work) else {
            return Err(format!("can't have answers of the recipe's own code ({stage})"));
        };
        match self.answers.get(&stage) {
            Some(answer) if answer.asked == asked => {
                Ok(Carried { answer: answer.clone(), environment: self.environment.clone() })
            }
            Some(_) => Err(format!("answers other settings than the recipe's ({stage})")),
            None => Err(format!("has no answers for {stage}")),
        }
    }
}

impl Carried {
    /// What its stage depends on.
    pub(super) fn digest(&self) -> Digest {
        self.answer.sha256
    }

    /// What the stage found out when PyTorch answered.
    pub(super) fn result(&self) -> Value {
        self.answer.result.clone()
    }

    /// Versions of what answered.
    pub(super) fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Copies the answer out of a checkpoint's folder.
    ///
    /// # Errors
    /// [`Error::Carried`] where it isn't the listed one, or no tensors where it should be; [`Error::Io`].
    pub(super) fn copy(&self, checkpoint: &Path, to: &Path) -> Result<(), Error> {
        let path: PathBuf = checkpoint.join(&self.answer.file);
        let refuse = |why: String| Error::Carried { path: path.clone(), why };
        let name = Path::new(&self.answer.file).file_name();
        if name.is_none_or(|name| name != self.answer.file.as_str()) {
            return Err(refuse(format!("{LIST} lists it, and it is not next to it")));
        }
        let bytes = crate::files::map(&path).map_err(Error::io(&path))?;
        if Digest::of(&bytes) != self.answer.sha256 {
            return Err(refuse(format!("it is not the file that {LIST} lists")));
        }
        if path.extension().is_some_and(|kind| kind == "safetensors") {
            TensorFile::of_bytes(bytes.clone(), &path).map_err(|error| refuse(error.to_string()))?;
        }
        std::fs::write(to, bytes).map_err(Error::io(to))
    }
}
