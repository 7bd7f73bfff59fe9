use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Measured};
use crate::interface::{Port, Signature};
use crate::runtime::Tensors;
use crate::tensor::{DType, Tensor, TensorFile};

/// What kind of input a reference has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// As they come in use.
    Realistic,
    /// Driven to the magnitude clip, to large phases, to loudness, or all zero.
    Extreme,
    /// A prompt at once, without a cache.
    Prefill,
    /// A prompt at once, then token after token from the cache.
    Steps,
    /// A prompt, then whatever token is likeliest.
    Greedy,
    /// A sentence, said by the checkpoint's own causal graph.
    Spoken,
}

impl Kind {
    /// The name in references and reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Realistic => "realistic",
            Kind::Extreme => "extreme",
            Kind::Prefill => "prefill",
            Kind::Steps => "steps",
            Kind::Greedy => "greedy",
            Kind::Spoken => "spoken",
        }
    }
}

/// One recorded run: of PyTorch's own module, or of its formulas in double precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Unique; tensors are named `<name>/<input or output>`.
    pub name: String,
    /// Batch size.
    pub batch: usize,
    /// Sequence length in tokens.
    pub length: usize,
    /// What kind of input it has.
    pub kind: Kind,
    /// Of a case with decode steps: how many tokens are given at once before the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub prefill: usize,
    /// How far the recorded output itself moves where every input value changes by a last bit, and in a file that was
    /// recorded in double precision every weight too; if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_bit: Option<Measured>,
}

/// Whether a dimension of a recipe admits a size.
fn admits(dim: &str, size: usize) -> bool {
    let number = |text: &str| text.parse::<usize>().ok();
    match dim.split_once("..") {
        Some((from, to)) => {
            number(from).is_none_or(|from| from <= size) && number(to).is_none_or(|to| size <= to)
        }
        None => number(dim).is_none_or(|wanted| wanted == size),
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Case {
    /// Whether it is one call of the model with lifelike inputs: no cache of its own making, no extremes.
    pub fn is_one_call(&self) -> bool {
        matches!(self.kind, Kind::Realistic | Kind::Prefill)
            || (self.kind == Kind::Spoken && self.prefill == 0)
    }
}

/// Inputs and outputs that were recorded.
#[derive(Clone, Debug)]
pub struct References {
    /// Every case, in recorded order.
    pub cases: Vec<Case>,
    inputs: Vec<String>,
    tensors: TensorFile,
}

impl References {
    /// Reads a references file; `inputs` are the model's input names, every other tensor of a case is
    /// an output. Refuses a file that proves nothing: no case, a case without inputs or outputs,
    /// values that aren't finite, a silent reference.
    ///
    /// # Errors
    /// [`Error::References`] names the file and the case, [`Error::Tensor`].
    pub fn read(path: &Path, inputs: &[String]) -> Result<Self, Error> {
        let refuse = |why: String| Error::References { path: path.to_owned(), why };
        let tensors = TensorFile::read(path)?;
        let cases = tensors.metadata.get("cases").ok_or_else(|| refuse("it names no cases".into()))?;
        let cases: Vec<Case> =
            serde_json::from_str(cases).map_err(|e| refuse(format!("its cases: {e}")))?;
        if cases.is_empty() {
            return Err(refuse("it holds no case: nothing would be proven".into()));
        }
        let references = Self { cases, inputs: inputs.to_vec(), tensors };
        for (at, case) in references.cases.iter().enumerate() {
            if references.cases[..at].iter().any(|other| other.name == case.name) {
                return Err(refuse(format!("two cases are named {:?}", case.name)));
            }
            let given = references.inputs(case);
            if let Some(missing) = inputs.iter().find(|name| !given.contains_key(*name)) {
                return Err(refuse(format!("case {:?} has no input {missing:?}", case.name)));
            }
            let outputs = references.outputs(case);
            if outputs.is_empty() {
                return Err(refuse(format!("case {:?} has no output", case.name)));
            }
            for (name, tensor) in outputs.iter().chain(&given).filter(|(_, t)| t.dtype() == DType::F32)
            {
                if !tensor.to_f32()?.iter().all(|v| v.is_finite()) {
                    return Err(refuse(format!("{}/{name} has values that aren't finite", case.name)));
                }
            }
            let silent =
                |t: &Tensor| t.to_f32().is_ok_and(|values| values.iter().all(|&value| value == 0.0));
            if let Some((output, _)) = outputs.iter().find(|(_, tensor)| silent(tensor)) {
                let (path, case) = (path.to_owned(), case.name.clone());
                return Err(Error::Silent { path, case, output: output.clone() });
            }
        }
        Ok(references)
    }

    /// The cases of up to so many tokens, over their batch.
    pub fn up_to(mut self, tokens: usize) -> Self {
        self.cases.retain(|case| case.batch * case.length <= tokens);
        self
    }

    /// The cases whose shapes a model takes; a dimension is a number, `a..b`, or anything else for any.
    pub fn within(mut self, signature: &Signature) -> Self {
        let cases = std::mem::take(&mut self.cases);
        let fits = |case: &Case| {
            let given = self.inputs(case);
            signature.inputs.iter().all(|Port { name, dims, .. }| {
                let shape = given.get(name).map(|tensor| tensor.shape());
                shape.is_none_or(|shape| {
                    shape.len() == dims.len() && shape.iter().zip(dims).all(|(&n, dim)| admits(dim, n))
                })
            })
        };
        let kept = cases.into_iter().filter(fits).collect();
        self.cases = kept;
        self
    }

    /// The inputs of a case by the model's names.
    pub fn inputs(&self, case: &Case) -> Tensors {
        self.of(case, true)
    }

    /// The outputs of a case by the model's names.
    pub fn outputs(&self, case: &Case) -> Tensors {
        self.of(case, false)
    }

    fn of(&self, case: &Case, inputs: bool) -> Tensors {
        let prefix = format!("{}/", case.name);
        self.tensors
            .tensors
            .range(prefix.clone()..)
            .map_while(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)))
            .filter(|(name, _)| self.inputs.iter().any(|input| input == name) == inputs)
            .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
            .collect()
    }
}
