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
    let asked = asked(&build.recipe, work)?;
    let (list, files) = listed(build)?;
    let is_same = |file: &File| list.checkpoint.get(&file.name) == Some(&file.sha256);
    let answer = list.answers.get(&work.name()).filter(|answer| answer.asked == asked)?;
    files
        .iter()
        .all(is_same)
        .then(|| Carried { answer: answer.clone(), environment: list.environment.clone() })
}

/// Whether the build's checkpoint carries an answer to everything that its recipe asks.
pub(super) fn has_all(build: &Build<'_>) -> bool {
    let graphs = build.recipe.graphs.iter().map(|(name, _)| Work::Record(name.to_owned()));
    let all = graphs.chain(build.recipe.speech.is_some().then_some(Work::Speak));
    all.into_iter().all(|work| of(build, &work).is_some())
}

/// The list, and the files of the checkpoint that is here.
fn listed(build: &Build<'_>) -> Option<(List, Vec<File>)> {
    let selection = family::of(&build.recipe).selection(&build.recipe);
    let (text, files) = match &build.source {
        Source::Directory(folder) => {
            let text = crate::files::read(&folder.join(LIST)).ok()?;
            (text, crate::source::Checkpoint::open(folder, &selection).ok()?.files)
        }
        Source::BuiltIn { name } => {
            let voice = family::built_in(name)?;
            (voice.file(LIST)?.to_vec(), voice.selected(&selection))
        }
        Source::Hub { .. } | Source::Synthetic { .. } | Source::Seeded { .. } => return None,
    };
    Some((serde_json::from_slice(&text).ok()?, files))
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
    /// [`Error::Damaged`] where it isn't the listed one; [`Error::Io`].
    pub(super) fn copy(&self, checkpoint: &Path, to: &Path) -> Result<(), Error> {
        let path: PathBuf = checkpoint.join(&self.answer.file);
        let name = Path::new(&self.answer.file).file_name();
        if name.is_none_or(|name| name != self.answer.file.as_str()) {
            return Err(Error::Damaged {
                path,
                why: format!("{LIST} lists it, and it is not next to it"),
            });
        }
        let bytes = crate::files::read(&path).map_err(Error::io(&path))?;
        if Digest::of(&bytes) != self.answer.sha256 {
            return Err(Error::Damaged { path, why: format!("it is not the file that {LIST} lists") });
        }
        std::fs::write(to, bytes).map_err(Error::io(to))
    }
}
