use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::cache::{Key, Stage};
use super::openvino;
use super::plan::{self, Int8Plan, OpenVinoPlan, PartPlan, Plan, Planned, State};
use super::stages::{self, Exported};
use super::{Build, Error, Outcome, Reporter, Rewrite, Summary};
use crate::bundle::{
    self, ArtifactEntry, CheckpointEntry, Contents, Extra, Manifest, Port, SpeedGate, Tool,
    WeightsEntry,
};
use crate::export::source_digest;
use crate::ir::Model;
use crate::names::Precision;
use crate::runtime::Format;
use crate::source::{COMPANIONS, Checkpoint};
use crate::validate::{self, Accepted, Artifact, Part, Signature, Speed, Verdict};

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

/// Builds a bundle: whatever is finished is taken from the cache, everything else is made, validated,
/// packed, and renamed into place.
///
/// # Errors
/// [`Error`]; nothing is left half-written, and a run after it goes on where this one ended.
pub fn run(build: &Build<'_>, reporter: &dyn Reporter) -> Result<Finished, Error> {
    let plan = Plan::of(build)?;
    if let Some(finished) = up_to_date(build, &plan)? {
        return Ok(finished);
    }
    if let Some(output) = &build.output {
        bundle::room_for(output, build.overwrite)?;
    }
    let runner = Runner { build, plan: &plan, reporter };
    let checkpoint = runner.checkpoint()?;
    let halves = plan
        .parts
        .iter()
        .map(|part| runner.part(part, &checkpoint))
        .collect::<Result<Vec<_>, Error>>()?
        .into_iter()
        .flatten()
        .collect();
    let speech = plan.speak.as_ref().map(|planned| runner.speak(planned, &checkpoint)).transpose()?;

    if build.interrupted.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    let start = Instant::now();
    let state = State::Miss("not packed here yet".to_owned());
    reporter.begins("bundle", &state);
    let finished = pack(build, &plan, &checkpoint, halves, speech.as_ref())?;
    reporter.ends("bundle", start.elapsed());
    Ok(finished)
}

/// Makes one stage of a build, and those that it depends on, and gives its folder in the cache. Others may do
/// the same meanwhile, for other stages or for the same one, here or on machines that share the cache.
///
/// # Errors
/// [`Error::NoStage`] where the build has no stage of that name; as [`run`].
pub fn run_until(build: &Build<'_>, stage: &str, reporter: &dyn Reporter) -> Result<PathBuf, Error> {
    let plan = Plan::of(build)?;
    let Some(wanted) = plan.stages().find(|planned| planned.key.stage == stage) else {
        let known: Vec<&str> = plan.stages().map(|planned| planned.key.stage).collect();
        return Err(Error::NoStage { stage: stage.to_owned(), known: known.join(", ") });
    };
    let runner = Runner { build, plan: &plan, reporter };
    let checkpoint = runner.checkpoint()?;
    let owner =
        plan.parts.iter().find(|part| part.stages().iter().any(|planned| planned.key == wanted.key));
    if let Some(part) = owner {
        runner.until(part, &checkpoint, &wanted.key)?;
    } else if let Some(speak) = plan.speak.as_ref().filter(|speak| speak.key == wanted.key) {
        runner.speak(speak, &checkpoint)?;
    }
    Ok(build.cache.folder(&wanted.key))
}

struct Runner<'a> {
    build: &'a Build<'a>,
    plan: &'a Plan,
    reporter: &'a dyn Reporter,
}

/// A half of the model that may go into the bundle.
struct Half {
    part: Part,
    export: Stage,
    rewrite: Rewrite,
    signature: Signature,
    accepted: Accepted,
    speed: Option<Speed>,
}

impl Runner<'_> {
    /// Makes the checkpoint available.
    fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let (build, reporter) = (self.build, self.reporter);
        match (&self.plan.local, &self.plan.checkpoint) {
            (Some(local), _) => Ok(local.clone()),
            (None, Some(planned)) => {
                let made = self.stage(planned, |folder| stages::checkpoint(build, reporter, folder))?;
                Ok(Checkpoint::open(made.folder(), plan::needs(&build.recipe))?)
            }
            (None, None) => unreachable!("a source is local or made"),
        }
    }

    fn export(&self, plan: &PartPlan, checkpoint: &Checkpoint) -> Result<Stage, Error> {
        let (build, reporter) = (self.build, self.reporter);
        self.stage(&plan.export, |folder| {
            stages::export(build, reporter, plan.part, &checkpoint.folder, folder)
        })
    }

    fn speak(&self, planned: &Planned, checkpoint: &Checkpoint) -> Result<Stage, Error> {
        let (build, reporter) = (self.build, self.reporter);
        self.stage(planned, |folder| stages::speak(build, reporter, &checkpoint.folder, folder))
    }

    fn rewrite(&self, plan: &PartPlan, export: &Stage) -> Result<Stage, Error> {
        self.stage(&plan.rewrite, |folder| stages::rewrite(self.build, plan.part, export, folder))
    }

    fn quantize(
        &self,
        (plan, int8): (&PartPlan, &Int8Plan),
        export: &Stage,
        rewritten: &Stage,
    ) -> Result<Stage, Error> {
        self.stage(&int8.quantize, |folder| {
            stages::quantize(self.build, plan.part, export, rewritten, folder)
        })
    }

    fn speed(
        &self,
        (plan, planned): (&PartPlan, &Planned),
        export: &Stage,
        files: [&Stage; 2],
    ) -> Result<Stage, Error> {
        self.stage(planned, |_| stages::speed(self.build, plan.part, files, export))
    }

    /// Exports, rewrites and validates one half; where the recipe asks for it, in int8 too.
    fn part(&self, plan: &PartPlan, checkpoint: &Checkpoint) -> Result<Vec<Half>, Error> {
        let part = plan.part;
        let export = self.export(plan, checkpoint)?;
        let rewritten = self.rewrite(plan, &export)?;
        let fp32 = self.judge(&plan.validate, part, Precision::Fp32, &export, rewritten.clone())?;
        let mut halves = vec![fp32];
        if let Some(int8) = &plan.int8 {
            let quantized = self.quantize((plan, int8), &export, &rewritten)?;
            let mut half =
                self.judge(&int8.validate, part, Precision::Int8, &export, quantized.clone())?;
            if let Some(planned) = &int8.speed {
                let stage = self.speed((plan, planned), &export, [&rewritten, &quantized])?;
                half.speed = Some(stage.result()?);
            }
            halves.push(half);
        }
        if let Some(openvino) = &plan.openvino {
            let converted = self.convert((plan, openvino), [&export, &rewritten], checkpoint)?;
            for planned in &openvino.validate {
                halves.push(self.judge_converted(planned, part, &export, [&rewritten, &converted])?);
            }
        }
        Ok(halves)
    }

    fn convert(
        &self,
        (plan, openvino): (&PartPlan, &OpenVinoPlan),
        stages: [&Stage; 2],
        checkpoint: &Checkpoint,
    ) -> Result<Stage, Error> {
        self.stage(&openvino.convert, |folder| {
            let (build, reporter) = (self.build, self.reporter);
            openvino::convert(build, reporter, plan.part, stages, &checkpoint.folder, folder)
        })
    }

    /// Runs the references through one file in OpenVINO's format.
    fn judge_converted(
        &self,
        (precision, planned): &(Precision, Planned),
        part: Part,
        export: &Stage,
        [rewritten, converted]: [&Stage; 2],
    ) -> Result<Half, Error> {
        let (build, reporter) = (self.build, self.reporter);
        let artifact = openvino::artifact(converted, *precision)?;
        let judged = self.stage(planned, |_| {
            let stages = [export, rewritten, converted];
            self.passed(openvino::validate(build, reporter, part, *precision, stages)?, &artifact)
        })?;
        let signature = openvino::signature(build, part, rewritten)?;
        let accepted = self.accept(judged.result()?, artifact)?;
        let rewrite = openvino::rewrite(converted)?;
        Ok(Half { part, export: export.clone(), rewrite, signature, accepted, speed: None })
    }

    /// A verdict as a stage's result, if it passed.
    fn passed(&self, verdict: Verdict, artifact: &Artifact) -> Result<serde_json::Value, Error> {
        if !verdict.passed {
            return Err(reject(self.build, verdict, artifact));
        }
        Ok(serde_json::to_value(verdict).expect("plain data"))
    }

    fn accept(&self, verdict: Verdict, artifact: Artifact) -> Result<Accepted, Error> {
        verdict.accept(artifact.clone()).map_err(|verdict| reject(self.build, *verdict, &artifact))
    }

    /// Makes one stage of a half, and those that it depends on.
    fn until(&self, plan: &PartPlan, checkpoint: &Checkpoint, wanted: &Key) -> Result<(), Error> {
        let export = self.export(plan, checkpoint)?;
        if plan.export.key == *wanted {
            return Ok(());
        }
        let rewritten = self.rewrite(plan, &export)?;
        if plan.validate.key == *wanted {
            self.judge(&plan.validate, plan.part, Precision::Fp32, &export, rewritten)?;
            return Ok(());
        }
        if let Some(openvino) = &plan.openvino {
            let judged = openvino.validate.iter().find(|(_, planned)| planned.key == *wanted);
            if judged.is_some() || openvino.convert.key == *wanted {
                let converted = self.convert((plan, openvino), [&export, &rewritten], checkpoint)?;
                if let Some(planned) = judged {
                    self.judge_converted(planned, plan.part, &export, [&rewritten, &converted])?;
                }
                return Ok(());
            }
        }
        let Some(int8) = plan.int8.as_ref().filter(|_| plan.rewrite.key != *wanted) else {
            return Ok(());
        };
        let quantized = self.quantize((plan, int8), &export, &rewritten)?;
        if int8.validate.key == *wanted {
            self.judge(&int8.validate, plan.part, Precision::Int8, &export, quantized)?;
        } else if let Some(planned) = int8.speed.as_ref().filter(|speed| speed.key == *wanted) {
            self.speed((plan, planned), &export, [&rewritten, &quantized])?;
        }
        Ok(())
    }

    /// Runs the references through one artifact; what is out of tolerance is rejected.
    fn judge(
        &self,
        planned: &Planned,
        part: Part,
        scheme: Precision,
        export: &Stage,
        made: Stage,
    ) -> Result<Half, Error> {
        let (build, reporter) = (self.build, self.reporter);
        let artifact = stages::artifact(&made)?;
        let judged = self.stage(planned, |_| {
            let verdict = stages::validate(build, reporter, part, scheme, export, &made)?;
            self.passed(verdict, &artifact)
        })?;
        let signature = Signature::from(&Model::open(&artifact.path)?);
        let accepted = self.accept(judged.result()?, artifact)?;
        let rewrite = made.result()?;
        Ok(Half { part, export: export.clone(), rewrite, signature, accepted, speed: None })
    }

    fn stage(
        &self,
        planned: &Planned,
        work: impl FnOnce(&Path) -> Result<serde_json::Value, Error>,
    ) -> Result<Stage, Error> {
        if self.build.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let start = Instant::now();
        let cache = &self.build.cache;
        let stage = match self.plan.hit(planned, cache) {
            Some(stage) => {
                self.reporter.begins(planned.key.stage, &State::Hit);
                stage
            }
            None => {
                let state = match &planned.state {
                    State::Hit => State::Miss("its files are damaged".to_owned()),
                    miss => miss.clone(),
                };
                self.reporter.begins(planned.key.stage, &state);
                cache.make(&planned.key, work)?
            }
        };
        self.reporter.ends(planned.key.stage, start.elapsed());
        Ok(stage)
    }
}

/// The bundle at the output, if it is the one that this build would make, and whole.
fn up_to_date(build: &Build<'_>, plan: &Plan) -> Result<Option<Finished>, Error> {
    if build.rebuild || plan.stages().any(|stage| stage.state != State::Hit) {
        return Ok(None);
    }
    let Some(first) = plan.parts.first().and_then(|part| build.cache.get(&part.export.key)) else {
        return Ok(None);
    };
    let folder = output(build, &first.result()?);
    let Ok(manifest) = Manifest::read(&folder) else { return Ok(None) };
    if manifest.key != plan.bundle || !bundle::verify(&folder)?.is_empty() {
        return Ok(None);
    }
    let mut outcomes = Vec::new();
    for part in &plan.parts {
        let int8 = part.int8.iter().map(|int8| (&int8.quantize, &int8.validate, int8.speed.as_ref()));
        for (made, judged, timed) in std::iter::once((&part.rewrite, &part.validate, None)).chain(int8)
        {
            let stages = [made, judged].map(|stage| build.cache.get(&stage.key));
            let [Some(made), Some(judged)] = stages else { return Ok(None) };
            let timed = timed.and_then(|stage| build.cache.get(&stage.key));
            let speed = timed.map(|stage| stage.result()).transpose()?;
            outcomes.push(Outcome { rewrite: made.result()?, verdict: judged.result()?, speed });
        }
        if let Some(openvino) = &part.openvino {
            let Some(made) = build.cache.get(&openvino.convert.key) else { return Ok(None) };
            for (_, judged) in &openvino.validate {
                let Some(judged) = build.cache.get(&judged.key) else { return Ok(None) };
                let (rewrite, verdict) = (openvino::rewrite(&made)?, judged.result()?);
                outcomes.push(Outcome { rewrite, verdict, speed: None });
            }
        }
    }
    Ok(Some(Finished { folder, summary: Summary { manifest, outcomes }, up_to_date: true }))
}

/// The bundle's name: the recipe's where it was chosen for this checkpoint, else its version's.
fn name(build: &Build<'_>, exported: &Exported) -> String {
    build.name.clone().unwrap_or_else(|| {
        let version = exported.architecture.get("version").and_then(|v| v.as_str()).unwrap_or("lm");
        format!("{}-{version}", build.recipe.family.name())
    })
}

fn output(build: &Build<'_>, exported: &Exported) -> PathBuf {
    build.output.clone().unwrap_or_else(|| PathBuf::from(name(build, exported)))
}

fn pack(
    build: &Build<'_>,
    plan: &Plan,
    checkpoint: &Checkpoint,
    halves: Vec<Half>,
    speech: Option<&Stage>,
) -> Result<Finished, Error> {
    let mut extras = BTreeMap::new();
    if let Some(speech) = speech {
        let (path, entry) = speech.file(stages::SPEECH)?;
        extras.insert(format!("reference/{}", stages::SPEECH), Extra::Copy(path, entry.sha256));
    }
    let (mut models, mut entries, mut outcomes) = (BTreeMap::new(), Vec::new(), Vec::new());
    let (mut architecture, mut environment) = (BTreeMap::new(), BTreeMap::new());
    let (mut listening, mut sample_rate, mut folder, mut bundle_name) = (None, None, None, None);
    for Half { part, export, rewrite, signature, accepted, speed } in halves {
        let exported: Exported = export.result()?;
        let format = Format::of(&accepted.artifact().path);
        let references = format!("reference/{part}.safetensors");
        let verdict = accepted.verdict().clone();
        let stem = stages::file_name(&build.recipe, part, verdict.scheme);
        let (file, weights) = match format {
            Format::Onnx => (format!("{format}/{stem}.onnx"), None),
            Format::OpenVino => (format!("{format}/{stem}.xml"), Some(format!("{format}/{stem}.bin"))),
        };
        entries.push(ArtifactEntry {
            file: file.clone(),
            part,
            scheme: verdict.scheme,
            format,
            sha256: accepted.artifact().sha256,
            bytes: accepted.artifact().bytes,
            weights: accepted
                .artifact()
                .weights
                .as_ref()
                .zip(weights)
                .map(|(made, file)| WeightsEntry { file, sha256: made.sha256, bytes: made.bytes }),
            stateful: signature.stateful,
            inputs: ports(&signature.inputs),
            outputs: ports(&signature.outputs),
            references: references.clone(),
            tolerance: verdict.tolerance.clone(),
            speed_gate: (verdict.scheme == Precision::Int8 && format == Format::Onnx).then_some(
                match speed {
                    Some(_) => SpeedGate::Passed,
                    None => SpeedGate::Skipped,
                },
            ),
        });
        let (path, entry) = stages::references_entry(part, &export)?;
        extras.insert(references, Extra::Copy(path, entry.sha256));
        folder.get_or_insert_with(|| output(build, &exported));
        bundle_name.get_or_insert_with(|| name(build, &exported));
        environment.extend(exported.environment.clone());
        match part {
            Part::Decoder if verdict.scheme != Precision::Fp32 || format != Format::Onnx => {}
            Part::Decoder => {
                let model = Model::open(&accepted.artifact().path)?;
                let references = stages::references(part, &export, &model)?;
                listening = super::pages::listening(&exported, accepted.artifact(), &references)?;
                sample_rate = exported.sample_rate;
                architecture.extend(exported.architecture);
            }
            Part::Lm => {
                let dimensions = serde_json::Value::from_iter(exported.architecture);
                architecture.insert(part.name().to_owned(), dimensions);
            }
        }
        outcomes.push(Outcome { rewrite, verdict, speed });
        models.insert(file, accepted);
    }
    let (Some(folder), Some(name)) = (folder, bundle_name) else {
        unreachable!("a checked recipe names a part")
    };
    let manifest = Manifest {
        format: 1,
        name,
        key: plan.bundle,
        tool: Tool {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        checkpoint: CheckpointEntry {
            source: build.source.to_string(),
            files: checkpoint.files.clone(),
        },
        architecture,
        environment,
        artifacts: entries,
        files: BTreeMap::new(),
    };
    for companion in checkpoint.files.iter().filter(|f| COMPANIONS.contains(&f.name.as_str())) {
        let path = checkpoint.folder.join(&companion.name);
        extras.insert(companion.name.clone(), Extra::Copy(path, companion.sha256));
    }
    let summary = Summary { manifest: manifest.clone(), outcomes };
    extras.insert("recipe.lock.yaml".to_owned(), Extra::Text(build.recipe.to_yaml()));
    extras.insert("report.json".to_owned(), Extra::Text(super::pages::json(&summary)));
    extras.insert("report.html".to_owned(), Extra::Text(super::pages::html(&summary, listening)));
    extras.insert(
        "README.md".to_owned(),
        Extra::Text(super::pages::card(&summary, &build.recipe, sample_rate)),
    );
    let time = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    extras.extend(bundle::provenance(&manifest, &extras, source_digest(), time));
    let manifest = bundle::pack(Contents { manifest, models, extras }, &folder, build.overwrite)?;
    Ok(Finished { folder, summary: Summary { manifest, ..summary }, up_to_date: false })
}

fn ports(values: &[validate::Port]) -> Vec<Port> {
    let port = |value: &validate::Port| Port {
        name: value.name.clone(),
        dtype: value.dtype.clone(),
        shape: value.dims.clone(),
    };
    values.iter().map(port).collect()
}

/// A rejection, with the artifact and its verdict kept beside where the bundle would have been; where
/// they can't be kept there, the artifact stays in the cache. The answer is no either way.
fn reject(build: &Build<'_>, verdict: Verdict, artifact: &Artifact) -> Error {
    let kept = keep(build, &verdict, artifact).unwrap_or_else(|_| artifact.path.clone());
    Error::Rejected { verdict: Box::new(verdict), kept }
}

fn keep(build: &Build<'_>, verdict: &Verdict, artifact: &Artifact) -> std::io::Result<PathBuf> {
    let home = build.output.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let kept = home.join("rejected").join(format!("{}-{}", verdict.part, verdict.sha256.short()));
    std::fs::create_dir_all(&kept)?;
    let stem = stages::file_name(&build.recipe, verdict.part, verdict.scheme);
    let files = std::iter::once(&artifact.path).chain(artifact.weights.iter().map(|w| &w.path));
    for file in files {
        let kind = file.extension().unwrap_or_default().to_string_lossy();
        std::fs::copy(file, kept.join(format!("{stem}.{kind}")))?;
    }
    let text = serde_json::to_string_pretty(verdict).expect("plain data");
    std::fs::write(kept.join("verdict.json"), text)?;
    Ok(kept)
}
