//! Model families: one folder each, and one line in [`ALL`].
//!
//! A family says which graphs a model has, by name and role, where their weights are in a checkpoint, and which of
//! them speak together. Only this room knows a graph by its name.

pub mod plain;
pub mod soprano;

use std::path::Path;

use serde_json::Value;

use crate::digest::Digest;
use crate::front::Front;
use crate::names::Role;
use crate::recipe::{Catalog, Graph, Recipe, Shape};
use crate::source::{self, Files, Selection};
use crate::speech::Assemble;

/// A checkpoint inside this program.
#[derive(Clone, Copy)]
pub struct BuiltIn {
    /// What `builtin:NAME` calls it.
    pub name: &'static str,
    /// Its files: name and contents. Not a value: a constant is written out wherever it is used.
    pub files: fn() -> &'static [(&'static str, &'static [u8])],
}

impl std::fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl BuiltIn {
    /// A file's contents.
    pub fn file(&self, name: &str) -> Option<&'static [u8]> {
        (self.files)().iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
    }

    /// The files of these names, hashed.
    fn hashed(&self, takes: impl Fn(&str) -> bool) -> Vec<source::File> {
        let files = (self.files)().iter().filter(|(name, _)| takes(name));
        files
            .map(|(name, bytes)| source::File { name: (*name).to_owned(), sha256: Digest::of(bytes) })
            .collect()
    }

    /// Every file, hashed.
    pub fn all(&self) -> Vec<source::File> {
        self.hashed(|_| true)
    }

    /// The files that a selection takes, hashed.
    pub fn selected(&self, selection: &Selection) -> Vec<source::File> {
        self.hashed(|name| selection.takes(name))
    }
}

/// The checkpoint of a name inside this program.
pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    ALL.iter().flat_map(|family| family.built_in).find(|voice| voice.name == name)
}

/// What sentences become, as upstream reads them to the letter.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The prompt of a sentence as a whole.
    pub whole: fn(&str) -> String,
    /// The prompts that a text is cut into.
    pub pieces: fn(&str) -> Vec<String>,
}

/// Draws the weights of a preset into the files that the named graphs are read from, and says what they are of:
/// `{"preset", "seed", "architecture"}`.
pub type Synthesize =
    fn(preset: &str, seed: u64, graphs: &[String], folder: &Path) -> Result<Value, source::Error>;

/// A model family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name and graphs, as recipes know them.
    pub shape: Shape,
    /// The Python environment that exports it: the name of a lock file in `python/env`.
    pub environment: &'static str,
    /// Files of a checkpoint that a bundle carries along where they are there.
    pub companions: &'static [&'static str],
    /// The weights of a causal graph that a recipe names, in a family that leaves graphs to recipes.
    pub causal_weights: &'static [&'static str],
    /// The graphs that speak together, in the order of their calls; none where the family has no voice.
    pub voice: &'static [&'static str],
    /// What writes each graph directly from its weights, by the graph's name.
    pub fronts: &'static [(&'static str, &'static dyn Front)],
    /// What writes a causal graph that a recipe names.
    pub causal_front: Option<&'static dyn Front>,
    /// What sentences become for the original model; none where the family has no text front end.
    pub text: Option<Text>,
    /// Puts them together.
    pub speaker: Option<Assemble>,
    /// Samples of a frame and samples a second, where no graph of a bundle says them.
    pub usual_sound: Option<(usize, usize)>,
    /// Checkpoints inside this program.
    pub built_in: &'static [BuiltIn],
    /// Makes its `seeded:` checkpoints, where it has any.
    pub synthesize: Option<Synthesize>,
    /// Built-in recipes: name and text.
    pub recipes: &'static [(&'static str, &'static str)],
    /// Words for a hub's model card.
    pub tags: &'static [&'static str],
}

/// Every family; the first is meant where a recipe names none.
pub const ALL: &[&Family] = &[&soprano::FAMILY, &plain::FAMILY];

/// What every family says of recipes, and the built-in ones.
pub fn recipes() -> Catalog {
    Catalog {
        families: ALL.iter().map(|family| family.shape).collect(),
        builtin: ALL.iter().flat_map(|family| family.recipes).copied().collect(),
    }
}

/// The family of a name.
pub fn named(name: &str) -> Option<&'static Family> {
    ALL.iter().copied().find(|family| family.shape.family == name)
}

/// The family of a recipe.
pub fn of(recipe: &Recipe) -> &'static Family {
    named(&recipe.family).expect("a recipe's family was looked up when it was read")
}

impl Family {
    /// What writes a graph directly from its weights, where something does.
    pub fn front(&self, name: &str, role: Role) -> Option<&'static dyn Front> {
        let named = self.fronts.iter().find(|(known, _)| *known == name).map(|(_, front)| *front);
        named.or(self.causal_front.filter(|_| self.shape.is_open() && role == Role::Causal))
    }

    /// The files of a checkpoint that a recipe's export reads.
    pub fn selection(&self, recipe: &Recipe) -> Selection {
        let graphs = self.reads(recipe);
        let weights = graphs.iter().map(|name| self.weights(name, recipe.graph(name)));
        Selection { weights: weights.collect(), companions: self.companions }
    }

    /// The graphs whose weights an export reads: those exported, and those that say their references' sentences.
    pub fn reads(&self, recipe: &Recipe) -> Vec<String> {
        let exported = |name: &str| recipe.graph(name).is_some();
        let speaks = |name: &str| {
            self.shape.graphs.iter().any(|other| {
                let spoken =
                    recipe.graph(other.name).is_some_and(|graph| !graph.sentences().is_empty());
                other.spoken_by == Some(name) && spoken
            })
        };
        if self.shape.is_open() {
            return recipe.graphs.iter().map(|(name, _)| name.to_owned()).collect();
        }
        let names = self.shape.graphs.iter().map(|graph| graph.name);
        names.filter(|name| exported(name) || speaks(name)).map(str::to_owned).collect()
    }

    /// Makes a `seeded:` checkpoint, as [`Synthesize`] says.
    ///
    /// # Errors
    /// [`source::Error::Preset`] where the family has no preset of that name; [`source::Error::Io`].
    pub fn synthesize(
        &self,
        preset: &str,
        seed: u64,
        graphs: &[String],
        folder: &Path,
    ) -> Result<Value, source::Error> {
        let none = || source::Error::Preset {
            preset: preset.to_owned(),
            guess: None,
            known: format!("the family `{}` has no presets", self.shape.family),
        };
        self.synthesize.ok_or_else(none)?(preset, seed, graphs, folder)
    }

    fn weights(&self, name: &str, graph: Option<&Graph>) -> Files {
        match (self.shape.graph(name), graph) {
            (Some(known), _) => Files::of(known.weights),
            (None, Some(Graph::Signal(signal))) => {
                let module = signal.module.as_ref().map(|module| module.weights.as_str());
                Files::of(module.as_slice())
            }
            (None, _) => Files::of(self.causal_weights),
        }
    }
}
