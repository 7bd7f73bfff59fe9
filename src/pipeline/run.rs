//! Builds: a whole bundle, or one stage and those that it reads.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::plan::Plan;
use super::stage::{Planned, REFERENCES, State, Work};
use super::walk::Walk;
use super::{Build, Error, Finished, Reporter, Summary, carried, pack, work};
use crate::bundle;
use crate::export::Python;
use crate::family;
use crate::names::Oracle;
use crate::recipe::Recipe;
use crate::runtime::Format;
use crate::source::Source;

/// Builds a bundle: whatever is finished is taken from the cache, everything else is made, validated,
/// packed, and renamed into place.
///
/// # Errors
/// [`Error`]; nothing is left half-written, and a run after it goes on where this one ended.
pub fn run(build: &Build<'_>, reporter: &dyn Reporter) -> Result<Finished, Error> {
    let plan = Plan::of(build)?;
    if let Some(finished) = up_to_date(&Walk::new(build, &plan, reporter, work::run))? {
        return Ok(finished);
    }
    can_end(build, &plan)?;
    if let Some(output) = &build.output {
        bundle::room_for(output, build.overwrite)?;
    }
    let walk = Walk::new(build, &plan, reporter, work::run);
    for at in 0..plan.stages.len() {
        walk.finished(at)?;
    }
    if build.interrupted.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    let start = Instant::now();
    reporter.begins("bundle", &State::Miss("not packed here yet".to_owned()));
    let finished = pack::pack(&walk)?;
    reporter.ends("bundle", start.elapsed());
    Ok(finished)
}

/// Makes one stage of a build, and those that it reads, and gives its folder in the cache. Others may do
/// the same meanwhile, for other stages or for the same one, here or on machines that share the cache.
///
/// # Errors
/// [`Error::NoStage`] where the build has no stage of that name; as [`run`].
pub fn run_until(build: &Build<'_>, stage: &str, reporter: &dyn Reporter) -> Result<PathBuf, Error> {
    let plan = Plan::of(build)?;
    let Some(at) = plan.stages.iter().position(|planned| planned.key.stage == stage) else {
        let known: Vec<&str> = plan.stages.iter().map(|planned| planned.key.stage.as_str()).collect();
        return Err(Error::NoStage { stage: stage.to_owned(), known: known.join(", ") });
    };
    trusted(&build.recipe, build.trust_code)?;
    Walk::new(build, &plan, reporter, work::run).finished(at)?;
    Ok(build.cache.folder(&plan.stages[at].key))
}

/// What PyTorch answers to the references that a recipe asks of a graph: the file, among the finished stages.
///
/// # Errors
/// As [`run_until`].
pub fn answers(build: &Build<'_>, graph: &str, reporter: &dyn Reporter) -> Result<PathBuf, Error> {
    let stage = Work::Record(graph.to_owned()).name();
    Ok(run_until(build, &stage, reporter)?.join(REFERENCES))
}

/// Refuses a build that could only fail after minutes of exporting.
fn can_end(build: &Build<'_>, plan: &Plan) -> Result<(), Error> {
    trusted(&build.recipe, build.trust_code)?;
    let asks_python = |stage: &Planned| stage.state != State::Hit && needs_python(build, &stage.work);
    if plan.python.is_err() && plan.stages.iter().any(asks_python) {
        let environment = family::of(&build.recipe).environment;
        let found = Python::find(build.python.as_deref(), environment, build.cache.root());
        match (&build.source, found) {
            (Source::Hub { repo, .. }, Err(crate::export::Error::NoPython { .. })) => {
                return Err(Error::HubNeedsPython { repo: repo.clone() });
            }
            (_, found) => drop(found?),
        }
    }
    let formats =
        |format| build.runtimes.iter().any(|runtime| runtime.engine().formats().contains(&format));
    let mut graphs = build.recipe.graphs.iter();
    match graphs.any(|(_, graph)| graph.targets().openvino.is_some()) && !formats(Format::OpenVino) {
        true => Err(Error::NoOpenVino),
        false => Ok(()),
    }
}

/// Whether a stage is Python's.
fn needs_python(build: &Build<'_>, work: &Work) -> bool {
    match work {
        Work::Checkpoint => matches!(build.source, Source::Hub { .. } | Source::Synthetic { .. }),
        Work::Export(name) => {
            build.recipe.graph(name).is_some_and(|graph| graph.exporter().is_python())
        }
        Work::Record(_) | Work::Speak => {
            build.recipe.oracle() == Oracle::PyTorch && carried::of(build, work).is_none()
        }
        Work::Convert(_) => true,
        Work::Rewrite(_) | Work::Quantize(_) | Work::Validate(..) | Work::Time(_) => false,
    }
}

/// Refuses to run a recipe's own code unless someone has said that it may run.
///
/// # Errors
/// [`Error::NotTrusted`].
pub fn trusted(recipe: &Recipe, trust_code: bool) -> Result<(), Error> {
    match recipe.graphs.iter().find_map(|(_, graph)| graph.module()) {
        Some((module, _)) if !trust_code => Err(Error::NotTrusted { import: module.import.clone() }),
        _ => Ok(()),
    }
}

/// The bundle at the output, if it is the one that this build would make, and whole.
fn up_to_date(walk: &Walk<'_>) -> Result<Option<Finished>, Error> {
    let Walk { build, plan, .. } = walk;
    if build.rebuild || plan.stages.iter().any(|stage| stage.state != State::Hit) || !walk.take_all() {
        return Ok(None);
    }
    let folder = pack::output(walk)?;
    let Ok(manifest) = bundle::Manifest::read(&folder) else { return Ok(None) };
    if manifest.key != plan.bundle || !bundle::verify(&folder)?.is_empty() {
        return Ok(None);
    }
    let outcomes = pack::outcomes(walk)?;
    Ok(Some(Finished { folder, summary: Summary { manifest, outcomes }, up_to_date: true }))
}
