use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Divergence, Kind, Measured, Tolerance};
use crate::digest::Digest;
use crate::names::{Precision, Role};

/// How one reference came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// The case's name, `b3_t16`.
    pub name: String,
    /// Realistic or extreme input.
    pub kind: Kind,
    /// Batch size.
    pub batch: usize,
    /// Sequence length in tokens.
    pub length: usize,
    /// Largest absolute value of the reference.
    pub peak: f64,
    /// How far the outputs are from the reference.
    #[serde(flatten)]
    pub measured: Measured,
    /// Whether every figure is within the tolerance.
    pub passed: bool,
    /// What forbids a comparison, where something does: a wrong shape, a missing output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// How far a last bit of its input moves PyTorch's own output, if that is out of tolerance: the case is checked
    /// against [`Tolerance::widened`] and proves nothing closer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ill_conditioned: Option<Measured>,
}

/// A model's file on its way into a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Where it lies.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
    /// Its weights, where they lie in a file of their own.
    pub weights: Option<Weights>,
}

/// The weights of an artifact in a file of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Where they lie.
    pub path: PathBuf,
    /// Their SHA-256.
    pub sha256: Digest,
    /// Their length.
    pub bytes: u64,
}

/// How an artifact came out against all references, in one runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The file that was run.
    pub sha256: Digest,
    /// Its weights, where they are another file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Digest>,
    /// The runtime, with its version.
    pub runtime: String,
    /// The graph's name.
    pub graph: String,
    /// The graph's role.
    pub role: Role,
    /// How the file holds numbers.
    pub precision: Precision,
    /// What was demanded.
    pub tolerance: Tolerance,
    /// Every case.
    pub cases: Vec<CaseResult>,
    /// Whether every case passed, and there was one.
    pub passed: bool,
    /// Where a failing artifact first leaves the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// The same artifact in other runtimes: each has to pass too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
}

/// An artifact's verdict in another runtime, and how far the two are from each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// Against the references.
    pub verdict: Verdict,
    /// Signal-to-noise ratio between the two runtimes' outputs, of the case nearest to its limit.
    pub agreement_db: f64,
    /// Its lower limit: [`AGREEMENT_DB`], or [`CLOSER_DB`] above that case's ratio to PyTorch if that is less.
    pub agreement_limit_db: f64,
    /// Each case that was compared.
    #[serde(default)]
    pub compared: Vec<Agreement>,
}

/// How far two runtimes are from each other in one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The case's name.
    pub case: String,
    /// The difference over the first one's peak and the signal-to-noise ratio, of the worst output.
    pub measured: Measured,
    /// Whether that is near enough.
    pub passed: bool,
}

impl Beside {
    /// Whether the artifact passes there, and the runtimes agree.
    pub fn passed(&self) -> bool {
        self.verdict.passed
            && !self.compared.is_empty()
            && self.compared.iter().all(|case| case.passed)
            && self.agreement_db > self.agreement_limit_db
    }
}

/// An artifact that its verdict accepts: nothing else makes one.
#[derive(Clone, Debug)]
pub struct Accepted {
    artifact: Artifact,
    verdict: Verdict,
}

impl Accepted {
    /// The file.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// What accepted it.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

impl Verdict {
    /// Accepts the artifact that this verdict is about, if it passed.
    ///
    /// # Errors
    /// The verdict itself, where it didn't, or where it is about another file.
    pub fn accept(self, artifact: Artifact) -> Result<Accepted, Box<Verdict>> {
        let holds = self.passed
            && hold(&self.cases)
            && self.tolerance.check(self.role, self.precision).is_ok()
            && self.beside.iter().all(|beside| beside.passed() && beside.verdict.sha256 == self.sha256)
            && self.sha256 == artifact.sha256
            && self.weights == artifact.weights.as_ref().map(|weights| weights.sha256);
        if holds { Ok(Accepted { artifact, verdict: self }) } else { Err(Box::new(self)) }
    }

    /// A kind of references that proves nothing, for each of them is ill-conditioned.
    pub fn unproven(&self) -> Option<Kind> {
        unproven(&self.cases)
    }

    /// The case to look for the fault in, and the runtime where it failed: the smallest, well-conditioned ones first.
    pub fn failure(&self) -> Option<(&str, &CaseResult)> {
        let verdicts = std::iter::once(self).chain(self.beside.iter().map(|beside| &beside.verdict));
        let failed = verdicts.flat_map(|verdict| {
            let failed = verdict.cases.iter().filter(|case| !case.passed);
            failed.map(|case| (verdict.runtime.as_str(), case))
        });
        failed.min_by_key(|(_, case)| (case.ill_conditioned.is_some(), case.batch * case.length))
    }
}

/// The kind of a case besides which no other of that kind is well-conditioned.
fn unproven(cases: &[CaseResult]) -> Option<Kind> {
    let judges = |kind: Kind| cases.iter().any(|c| c.kind == kind && c.ill_conditioned.is_none());
    cases.iter().map(|case| case.kind).find(|&kind| !judges(kind))
}

/// Whether there is a case, every one passed, and one of each kind could judge.
pub(super) fn hold(cases: &[CaseResult]) -> bool {
    !cases.is_empty() && cases.iter().all(|case| case.passed) && unproven(cases).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, kind: Kind, passed: bool, ill: bool) -> CaseResult {
        CaseResult {
            name: name.to_owned(),
            kind,
            batch: 1,
            length: name.len(),
            peak: 1.0,
            measured: Measured::default(),
            passed,
            fault: None,
            ill_conditioned: ill.then(Measured::default),
        }
    }

    #[test]
    fn each_kind_is_judged_by_a_case_that_can() {
        let good = case("good", Kind::Realistic, true, false);
        let thrown = case("thrown", Kind::Extreme, true, true);
        let other = case("other", Kind::Extreme, true, false);
        let bad = case("bad", Kind::Extreme, false, false);
        assert!(!hold(&[]), "nothing is proven by nothing");
        assert!(hold(std::slice::from_ref(&good)));
        assert!(hold(&[good.clone(), thrown.clone(), other.clone()]));
        assert!(!hold(&[good.clone(), thrown.clone()]), "no extreme case judges");
        assert_eq!(unproven(&[good.clone(), thrown.clone()]), Some(Kind::Extreme));
        assert!(!hold(&[good.clone(), thrown.clone(), bad]));
        let thrown = CaseResult { passed: false, ..thrown };
        assert!(!hold(&[good, thrown, other]), "a case is held to something, though not closely");
    }

    #[test]
    fn the_fault_is_looked_for_in_the_smallest_case_that_judges() {
        let verdict = |runtime: &str, cases: Vec<CaseResult>| Verdict {
            sha256: Digest::of(b""),
            weights: None,
            runtime: runtime.to_owned(),
            graph: "decoder".to_owned(),
            role: Role::Signal,
            precision: Precision::Fp32,
            tolerance: Tolerance::default(),
            cases,
            passed: false,
            divergence: None,
            beside: Vec::new(),
        };
        let (long, short) = ("long one", "short");
        let failed = |name: &str, ill: bool| case(name, Kind::Extreme, false, ill);
        let mut found = verdict("tract", vec![case("a", Kind::Realistic, true, false)]);
        assert!(found.failure().is_none());
        found.cases.push(failed("zero", true));
        assert_eq!(found.failure().unwrap().1.name, "zero");
        let beside = verdict("onnxruntime", vec![failed(long, false), failed(short, false)]);
        found.beside.push(Beside {
            verdict: beside,
            agreement_db: 0.0,
            agreement_limit_db: 0.0,
            compared: Vec::new(),
        });
        let (runtime, case) = found.failure().unwrap();
        assert_eq!((runtime, case.name.as_str()), ("onnxruntime", short));
    }
}
