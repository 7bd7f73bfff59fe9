//! One walk over a plan: each stage is taken from the cache or made, after those that it reads.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::cache::Made;
use super::cache::Stage;
use super::plan::Plan;
use super::stage::{State, Work};
use super::{Build, Error, Reporter};
use crate::hardware::give_back_memory;

/// A walk over a plan's stages: what it has come past is found by what it does.
pub(super) struct Walk<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) plan: &'a Plan,
    pub(super) reporter: &'a dyn Reporter,
    /// Makes a stage in a folder, from those that it reads; gives what is recorded of it.
    make: Make,
    finished: Vec<OnceCell<Stage>>,
}

type Make = fn(&Walk<'_>, &Work, &Path) -> Result<Made, Error>;

impl<'a> Walk<'a> {
    pub(super) fn new(
        build: &'a Build<'a>,
        plan: &'a Plan,
        reporter: &'a dyn Reporter,
        make: Make,
    ) -> Self {
        let finished = plan.stages.iter().map(|_| OnceCell::new()).collect();
        Self { build, plan, reporter, make, finished }
    }

    /// Takes every stage from the cache; whether all are there.
    pub(super) fn take_all(&self) -> bool {
        self.finished.iter().zip(&self.plan.stages).all(|(cell, planned)| {
            self.build.cache.get(&planned.key).map(|stage| cell.get_or_init(|| stage)).is_some()
        })
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
    pub(super) fn finished(&self, at: usize) -> Result<&Stage, Error> {
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
                let make = |folder: &Path| (self.make)(self, &planned.work, folder);
                let made = build.cache.make(&planned.key, make);
                // A stage's models are as large as the next one's.
                give_back_memory();
                made?
            }
        };
        reporter.ends(name, start.elapsed());
        Ok(stage)
    }
}
