//! Inputs for one call of any model: recorded ones, or ones made up from its ports.

use std::path::Path;

use super::{Error, References, Signature, language_model};
use crate::ir::{Model, ValueInfoProto};
use crate::runtime::Tensors;
use crate::tensor::Tensor;

/// Bytes of one made-up input, at most.
const LARGEST: u128 = 1 << 30;
/// Ids are drawn below this: every table of embeddings has as many rows.
const IDS: u64 = 16;

/// The inputs of a recorded case; a cache that the model takes is empty.
///
/// # Errors
/// [`Error::References`] where the file has no such case, or not all inputs.
pub fn recorded_case(model: &Model, file: &Path, case: &str) -> Result<Tensors, Error> {
    let names = || model.graph_proto().input.iter().map(|input| input.name());
    let references = References::read(file, &super::recorded_inputs(names()))?;
    let Some(found) = references.cases.iter().find(|known| known.name == case) else {
        let known: Vec<&str> = references.cases.iter().map(|case| case.name.as_str()).collect();
        let why = format!("it has no case {case:?}; it has: {}", known.join(", "));
        return Err(Error::References { path: file.to_owned(), why });
    };
    let mut inputs = references.inputs(found);
    if names().any(|name| name.starts_with(language_model::PAST)) {
        inputs.extend(language_model::Interface::of(&Signature::from(model))?.empty_cache(found.batch));
    }
    Ok(inputs)
}

/// Inputs made up from a model's ports, the same for the same seed: floats from -1 to 1, ids, masks of
/// ones, positions that count. Of open dimensions a batch is 1, a past is 0, and every other is `length`.
///
/// # Errors
/// [`Error::Inputs`] names an input of a type or size that nothing is made up for.
pub fn random_inputs(model: &Model, seed: u64, length: usize) -> Result<Tensors, Error> {
    let graph = model.graph();
    let wanted = model.graph_proto().input.iter().filter(|v| graph.initializer(v.name()).is_none());
    wanted.map(|input| Ok((input.name().to_owned(), made_up(input, seed, length)?))).collect()
}

fn made_up(input: &ValueInfoProto, seed: u64, length: usize) -> Result<Tensor, Error> {
    let name = input.name();
    let refuse = |why: String| Error::Inputs { name: name.to_owned(), why };
    let shape: Vec<usize> = input.dims().iter().map(|dim| size(dim, length)).collect();
    let count = shape.iter().fold(1u128, |count, &dim| count.saturating_mul(dim as u128));
    if count.saturating_mul(8) > LARGEST {
        return Err(refuse(format!("would take {count} values; give recorded inputs")));
    }
    let count = count as usize;
    // Each input has numbers of its own, whatever others there are.
    let seed = name.bytes().fold(seed, |seed, byte| mixed(seed ^ u64::from(byte)));
    let numbers = (0..count as u64).map(|at| mixed(seed.wrapping_add(at)));
    match input.dtype_name().as_str() {
        "f32" => {
            let unit = |bits: u64| (bits >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            Ok(Tensor::from_f32(&shape, &numbers.map(unit).collect::<Vec<_>>()))
        }
        "i64" => {
            let last = shape.last().copied().unwrap_or(1).max(1) as i64;
            let values: Vec<i64> = match name {
                _ if name.contains("mask") => vec![1; count],
                _ if name.contains("position") => (0..count as i64).map(|at| at % last).collect(),
                _ => numbers.map(|bits| (bits % IDS) as i64).collect(),
            };
            Ok(Tensor::from_i64(&shape, &values))
        }
        other => Err(refuse(format!("is of type {other}; give recorded inputs"))),
    }
}

/// The size of a dimension: a number, or the sum of numbers and names.
fn size(dim: &str, length: usize) -> usize {
    let part = |part: &str| match part.trim().parse::<usize>() {
        Ok(number) => number,
        Err(_) if part.contains("batch") => 1,
        Err(_) if part.trim().starts_with("past") => 0,
        Err(_) => length,
    };
    dim.split('+').map(part).fold(0, usize::saturating_add)
}

/// The finalizer of SplitMix64 (Steele, Lea & Flood, *Fast splittable pseudorandom number generators*,
/// OOPSLA 2014).
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{TestGraph, node};

    fn model(dims: &[&str]) -> Model {
        TestGraph::new()
            .input("x", dims)
            .input_i64("input_ids", &["batch", "sequence_length"])
            .input_i64("attention_mask", &["batch", "past_sequence_length + sequence_length"])
            .input_i64("position_ids", &["batch", "sequence_length"])
            .node(node("Identity", ["x"], "y"))
            .output("y", dims)
            .model()
    }

    #[test]
    fn inputs_follow_ports_and_seed() {
        let model = model(&["batch", "2", "n"]);
        let inputs = random_inputs(&model, 1, 5).unwrap();
        assert_eq!(inputs, random_inputs(&model, 1, 5).unwrap());
        assert_ne!(inputs["x"], random_inputs(&model, 2, 5).unwrap()["x"]);
        assert_eq!(inputs["x"].shape(), [1, 2, 5]);
        let floats = inputs["x"].to_f32().unwrap();
        assert!(floats.iter().all(|x| (-1.0..1.0).contains(x)), "{floats:?}");
        assert!(floats.iter().any(|x| *x < 0.0) && floats.iter().any(|x| *x > 0.0), "{floats:?}");
        assert_eq!(inputs["attention_mask"].to_i64().unwrap(), [1; 5]);
        assert_eq!(inputs["position_ids"].to_i64().unwrap(), [0, 1, 2, 3, 4]);
        assert!(inputs["input_ids"].to_i64().unwrap().iter().all(|id| (0..16).contains(id)));
    }

    #[test]
    fn an_input_beyond_all_bounds_is_refused() {
        for dims in [&["9000000000000000000", "9000000000000000000"][..], &["n", "1000000000"]] {
            let error = random_inputs(&model(dims), 0, 5).unwrap_err().to_string();
            assert!(error.contains("\"x\" would take"), "{error}");
        }
    }
}
