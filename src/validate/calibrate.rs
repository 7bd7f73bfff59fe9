//! Watches activations while references run.

use super::divergence::showing;
use super::{Error, References};
use crate::interface::{Interface, Signature};
use crate::ir::Model;
use crate::names::Ports;
use crate::quantize::{Calibration, Observed};
use crate::runtime::Runtime;

/// Tokens of a case, over its batch, up to which it is run: every inner value is kept meanwhile.
const LONGEST: usize = 128;

/// What the activations of every product that can be held in 8 bits are, over the references that are one
/// lifelike call.
///
/// # Errors
/// [`Error::NothingToMeasure`] where no reference is one; [`Error::Quantize`], [`Error::Runtime`].
pub fn calibrate(
    model: &Model,
    ports: &Ports,
    references: &References,
    runtime: &dyn Runtime,
) -> Result<Calibration, Error> {
    let cases: Vec<_> = references
        .cases
        .iter()
        .filter(|case| case.is_one_call() && case.batch * case.length <= LONGEST)
        .collect();
    if cases.is_empty() {
        let why = "the calibration set is empty: no reference is one call of up to 128 tokens";
        return Err(Error::NothingToMeasure(why));
    }
    let candidates = crate::quantize::candidates(model)?;
    let graph = model.graph();
    let mut names: Vec<String> = Vec::new();
    let mut inputs_observed: Vec<String> = Vec::new();
    for input in candidates.into_iter().filter_map(|candidate| candidate.activation) {
        let list = if graph.is_input(&input) { &mut inputs_observed } else { &mut names };
        if !list.contains(&input) {
            list.push(input);
        }
    }
    let session = runtime.load_bytes(&showing(model, &names).to_bytes())?;
    let interface = Interface::bind(ports, &Signature::from(model))?;
    let mut calibration = Calibration::new();
    for case in cases {
        let mut inputs = references.inputs(case);
        interface.complete(&mut inputs, case.batch);
        let outputs = session.run(&inputs)?;
        inputs.retain(|name, _| inputs_observed.contains(name));
        for (name, tensor) in outputs.into_iter().chain(inputs) {
            let channels = tensor.shape().last().copied().unwrap_or(1);
            let observed: &mut Observed = calibration.entry(name).or_default();
            observed.add(&tensor.to_f32()?, channels);
        }
    }
    Ok(calibration)
}
