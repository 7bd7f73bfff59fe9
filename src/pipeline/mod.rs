//! The order of things: a plan that runs nothing, and the run that follows it.

mod cache;
mod carried;
mod double;
mod error;
mod judge;
mod pack;
mod pages;
mod plan;
mod reject;
mod run;
mod settle;
mod stage;
mod walk;
mod work;
mod workflow;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use cache::{Cache, Key, Stage};
pub use error::Error;
pub use plan::{Plan, check};
pub use run::{answers, run, run_until, trusted};
pub use settle::{Wishes, settle};
pub use stage::{Planned, State, Work};
pub use workflow::{Job, github_matrix, snakefile};

use crate::bundle::Manifest;
use crate::passes;
use crate::recipe::Recipe;
use crate::runtime::Runtime;
use crate::source::Source;
use crate::validate::{Speed, Verdict};

/// What to build, and where to.
pub struct Build<'a> {
    /// What to export, and what it must reach.
    pub recipe: Recipe,
    /// The checkpoint.
    pub source: Source,
    /// The bundle's name, if the recipe is for this source; otherwise it follows from the version of the weights.
    pub name: Option<String>,
    /// The bundle's folder; its name, in the current folder, where none is given.
    pub output: Option<PathBuf>,
    /// Replace a bundle that is in the way.
    pub overwrite: bool,
    /// Make every stage anew.
    pub rebuild: bool,
    /// The interpreter to use.
    pub python: Option<PathBuf>,
    /// The runtimes that are here, in the order of [`runtime::ALL`](crate::runtime::ALL): each validates what it
    /// takes.
    pub runtimes: Vec<Box<dyn Runtime>>,
    /// Whether an int8 file must be faster than its fp32 one, here.
    pub speed_gate: bool,
    /// Whether code that the recipe names may be run.
    pub trust_code: bool,
    /// Finished stages.
    pub cache: Cache,
    /// Set from outside to stop.
    pub interrupted: &'a AtomicBool,
}

/// Hears how a build goes; the pipeline itself prints nothing.
pub trait Reporter: Sync {
    /// A stage begins: it was found in the cache, or must be made, because.
    fn begins(&self, stage: &str, state: &State);
    /// Progress inside a stage.
    fn progress(&self, step: &str, done: u64, total: u64);
    /// A stage is finished.
    fn ends(&self, stage: &str, took: Duration);
}

/// How a build ended.
#[derive(Debug)]
pub struct Finished {
    /// The bundle's folder.
    pub folder: PathBuf,
    /// What it holds.
    pub summary: Summary,
    /// Whether the bundle was there already, whole.
    pub up_to_date: bool,
}

/// What the stages of a build found out: what its table shows.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    /// The bundle's manifest.
    pub manifest: Manifest,
    /// What was done to each artifact of the manifest, in its order.
    pub outcomes: Vec<Outcome>,
}

/// What the stages of one artifact found out.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// What the rewrite did.
    pub rewrite: Rewrite,
    /// What the validation found.
    pub verdict: Verdict,
    /// How fast an int8 artifact is, where measured; not in the bundle, whose bytes depend on no machine.
    #[serde(skip)]
    pub speed: Option<Speed>,
}

/// What the rewrite of one model did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rewrite {
    /// Patches per pass, in the order of the passes.
    pub passes: Vec<(String, usize)>,
    /// Nodes before and after.
    pub nodes: (usize, usize),
    /// Bytes of weights before and after.
    pub weight_bytes: (u64, u64),
}

impl From<passes::Report> for Rewrite {
    fn from(report: passes::Report) -> Self {
        let applied = report.passes.iter().filter(|p| p.applied > 0);
        Self {
            passes: applied.map(|p| (p.pass.to_owned(), p.applied)).collect(),
            nodes: report.nodes,
            weight_bytes: report.weight_bytes,
        }
    }
}
