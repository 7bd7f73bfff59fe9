//! One walk over a plan: each stage is taken from the cache or made, after those that it reads.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::cache::Stage;
use super::plan::Plan;
use super::stage::{State, Work};
use super::{Build, Error, Finished, Reporter, Summary, pack, work};
use crate::bundle;

/// Builds a bundle: whatever is finished is taken from the cache, everything else is made, validated,
/// packed, and renamed into place.
///
/// # Errors
/// [`Error`]; nothing is left half-written, and a run after it goes on where this one ended.
pub fn run(build: &Build<'_>, reporter: &dyn Reporter) -> Result<Finished, Error> {
    let plan = Plan::of(build)?;
    if let Some(finished) = up_to_date(&Walk::of(build, &plan, reporter))? {
        return Ok(finished);
    }
    if let Some(output) = &build.output {
        bundle::room_for(output, build.overwrite)?;
    }
    let walk = Walk::of(build, &plan, reporter);
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
    Walk::of(build, &plan, reporter).finished(at)?;
    Ok(build.cache.folder(&plan.stages[at].key))
}

/// A walk over a plan's stages: what it has come past is found by what it does.
pub(super) struct Walk<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) plan: &'a Plan,
    pub(super) reporter: &'a dyn Reporter,
    finished: Vec<OnceCell<Stage>>,
}

impl<'a> Walk<'a> {
    fn of(build: &'a Build<'a>, plan: &'a Plan, reporter: &'a dyn Reporter) -> Self {
        let finished = plan.stages.iter().map(|_| OnceCell::new()).collect();
        Self { build, plan, reporter, finished }
    }

    /// A finished stage.
    pub(super) fn stage(&self, work: &Work) -> Result<&Stage, Error> {
        let at = self.plan.place(work);
        let stage = at.and_then(|at| self.finished[at].get());
        // A stage that reads another without saying so in the plan would have a key that forgets it.
        stage.ok_or_else(|| Error::NoStage { stage: work.name(), known: "those before it".to_owned() })
    }

    /// The checkpoint's folder.
    pub(super) fn checkpoint(&self) -> Result<PathBuf, Error> {
        match &self.plan.local {
            Some(local) => Ok(local.folder.clone()),
            None => Ok(self.stage(&Work::Checkpoint)?.folder().to_owned()),
        }
    }

    /// A stage, after those that it reads.
    fn finished(&self, at: usize) -> Result<&Stage, Error> {
        if let Some(stage) = self.finished[at].get() {
            return Ok(stage);
        }
        for &before in &self.plan.stages[at].after {
            self.finished(before)?;
        }
        let stage = self.take_or_make(at)?;
        Ok(self.finished[at].get_or_init(|| stage))
    }

    fn take_or_make(&self, at: usize) -> Result<Stage, Error> {
        let Self { build, plan, reporter, .. } = self;
        if build.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let start = Instant::now();
        let planned = &plan.stages[at];
        let name = planned.key.stage.as_str();
        let stage = match plan.hit(at, &build.cache) {
            Some(stage) => {
                reporter.begins(name, &State::Hit);
                stage
            }
            None => {
                let state = match &planned.state {
                    State::Hit => State::Miss("its files are damaged".to_owned()),
                    miss => miss.clone(),
                };
                reporter.begins(name, &state);
                let make = |folder: &Path| work::run(self, &planned.work, folder);
                build.cache.make(&planned.key, make)?
            }
        };
        reporter.ends(name, start.elapsed());
        Ok(stage)
    }
}

/// The bundle at the output, if it is the one that this build would make, and whole.
fn up_to_date(walk: &Walk<'_>) -> Result<Option<Finished>, Error> {
    let Walk { build, plan, finished, .. } = walk;
    if build.rebuild || plan.stages.iter().any(|stage| stage.state != State::Hit) {
        return Ok(None);
    }
    for (cell, planned) in finished.iter().zip(&plan.stages) {
        let Some(stage) = build.cache.get(&planned.key) else { return Ok(None) };
        cell.get_or_init(|| stage);
    }
    let folder = pack::output(walk)?;
    let Ok(manifest) = bundle::Manifest::read(&folder) else { return Ok(None) };
    if manifest.key != plan.bundle || !bundle::verify(&folder)?.is_empty() {
        return Ok(None);
    }
    let outcomes = pack::outcomes(walk)?;
    Ok(Some(Finished { folder, summary: Summary { manifest, outcomes }, up_to_date: true }))
}
