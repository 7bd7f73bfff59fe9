//! Inputs for one call of any model: recorded ones, those of a file, or ones made up from its ports.

mod dims;
mod given;

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};

use super::{Error, References};
use crate::interface::{Interface, Signature};
use crate::ir::proto::{tensor_shape_proto::dimension, type_proto};
use crate::ir::{Model, ValueInfoProto};
use crate::names::{Ports, Role};
use crate::runtime::Tensors;
use crate::tensor::{DType, Tensor};

pub use dims::Sizes;
pub use given::given_inputs;

/// Bytes of one made-up input, at most.
const LARGEST: u128 = 1 << 30;
/// Ids are below this, so that they fit any table of embeddings, unless they index a table of known size.
const IDS: u64 = 16;

/// The inputs that a caller has to give: those that are not initializers too.
fn required(model: &Model) -> impl Iterator<Item = &ValueInfoProto> {
    let graph = model.graph_proto();
    let initialized: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|t| t.name()).collect();
    graph.input.iter().filter(move |input| !initialized.contains(input.name()))
}

/// The inputs of a recorded case; a cache that the model takes is empty.
///
/// # Errors
/// [`Error::References`] where the file has no such case, or not all inputs.
pub fn recorded_case(model: &Model, file: &Path, case: &str) -> Result<Tensors, Error> {
    let (signature, ports) = (Signature::from(model), Ports::usual(Role::Causal));
    let references = References::read(file, &signature.recorded_inputs(&ports))?;
    let Some(recorded) = references.cases.iter().find(|recorded| recorded.name == case) else {
        let known: Vec<&str> = references.cases.iter().map(|case| case.name.as_str()).collect();
        let why = format!("it has no case {case:?}; it has: {}", known.join(", "));
        return Err(Error::References { path: file.to_owned(), why });
    };
    let mut inputs = references.inputs(recorded);
    if signature.inputs.iter().any(|port| ports.is_cache(&port.name)) {
        Interface::bind(&ports, &signature)?.complete(&mut inputs, recorded.batch);
    }
    Ok(inputs)
}

/// Names the dimensions of inputs that have neither a name nor a size: tract 0.23 takes none of those.
pub fn name_dimensions(model: &mut Model) {
    let inputs = model.proto_mut().graph.iter_mut().flat_map(|graph| &mut graph.input);
    for (at, input) in inputs.enumerate() {
        let of = input.r#type.as_mut().and_then(|of| of.value.as_mut());
        let Some(type_proto::Value::TensorType(tensor)) = of else { continue };
        for (axis, dim) in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).enumerate() {
            if dim
                .value
                .as_ref()
                .is_none_or(|value| *value == dimension::Value::DimParam(String::new()))
            {
                dim.value = Some(dimension::Value::DimParam(format!("unnamed_{at}_{axis}")));
            }
        }
    }
}

/// Inputs that were made up, and what had to be assumed for them.
#[derive(Clone, Debug, PartialEq)]
pub struct MadeUp {
    /// The inputs.
    pub inputs: Tensors,
    /// The sizes of open dimensions that nobody gave, by name; one without a name is `INPUT:AXIS`.
    pub assumed: BTreeMap<String, usize>,
}

/// Inputs made up from the ports of models, the same for the same seed: floats from -1 to 1, ids below 16 or the
/// rows of the table that they are looked up in, 8-bit integers of all sizes, masks of ones, positions that
/// count, lengths that are `sizes.length`. Of an input that several models have, the last one's port counts.
///
/// # Errors
/// [`Error::Inputs`] names an input of a type, shape or size that nothing is made up for; [`Error::Dimension`] a
/// size for a dimension that no input has.
pub fn random_inputs(models: &[&Model], seed: u64, sizes: &Sizes) -> Result<MadeUp, Error> {
    let resolver = dims::Resolver::new(sizes, models)?;
    let mut inputs = Tensors::new();
    for model in models.iter().rev() {
        for input in required(model).filter(|input| !input.name().is_empty()) {
            if inputs.contains_key(input.name()) {
                continue;
            }
            let ids = rows(model, input.name()).unwrap_or(IDS);
            inputs.insert(input.name().to_owned(), made_up(input, seed, &resolver, ids)?);
        }
    }
    Ok(MadeUp { inputs, assumed: resolver.assumed() })
}

/// The rows of the smallest table that an input's values are looked up in.
fn rows(model: &Model, input: &str) -> Option<u64> {
    let graph = model.graph();
    let tables = graph.users(input).iter().filter_map(|&user| {
        let node = graph.node(user);
        if !node.is("Gather") || node.input_at(1) != Some(input) {
            return None;
        }
        let dims = &graph.initializer(node.input_at(0)?)?.dims;
        let axis = node.attr_i("axis", 0);
        let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
        u64::try_from(*dims.get(usize::try_from(axis).ok()?)?).ok()
    });
    tables.min()
}

fn made_up(
    input: &ValueInfoProto,
    seed: u64,
    resolver: &dims::Resolver<'_>,
    ids: u64,
) -> Result<Tensor, Error> {
    let name = input.name();
    let refuse = |why: String| Error::Inputs { name: name.to_owned(), why };
    let kind = input.type_name();
    let known = DType::ALL.into_iter().find(|dtype| dtype.name() == kind);
    let dtype = known.ok_or_else(|| refuse(format!("is of type {kind}, which is not made up")))?;
    let dims = input.shape().ok_or_else(|| refuse("has no shape".to_owned()))?;
    let sizes = dims.iter().enumerate().map(|(axis, dim)| resolver.size(name, axis, dim));
    let shape = sizes.collect::<Result<Vec<usize>, String>>().map_err(refuse)?;
    let count = shape.iter().fold(1u128, |count, &dim| count.saturating_mul(dim as u128));
    if count.saturating_mul(8) > LARGEST {
        return Err(refuse(format!("would take {count} values")));
    }
    let count = count as u64;
    // Each input has numbers of its own, whatever others there are.
    let seed = name.bytes().fold(seed, |seed, byte| mixed(seed ^ u64::from(byte)));
    let bits = |at: u64| mixed(seed.wrapping_add(at));
    let unit = |at: u64| (bits(at) >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
    let last = shape.last().copied().unwrap_or(1).max(1) as u64;
    let whole = |at: u64| match name {
        _ if name.contains("mask") => 1,
        _ if name.contains("position") => at % last,
        _ if name.contains("length") => resolver.length(),
        _ => bits(at) % ids.max(1),
    };
    let small = |at: u64| if name.contains("mask") { 1 } else { bits(at) as u8 };
    let each = |value: &dyn Fn(u64) -> Vec<u8>| (0..count).flat_map(value).collect::<Vec<u8>>();
    let data = match dtype {
        DType::F32 => each(&|at| unit(at).to_le_bytes().into()),
        DType::F64 => each(&|at| f64::from(unit(at)).to_le_bytes().into()),
        DType::F16 => each(&|at| f16::from_f32(unit(at)).to_le_bytes().into()),
        DType::BF16 => each(&|at| bf16::from_f32(unit(at)).to_le_bytes().into()),
        DType::I64 | DType::U64 => each(&|at| whole(at).to_le_bytes().into()),
        DType::I32 | DType::U32 => each(&|at| (whole(at) as u32).to_le_bytes().into()),
        DType::I16 | DType::U16 => each(&|at| ((whole(at) & 0x7fff) as u16).to_le_bytes().into()),
        DType::I8 | DType::U8 => each(&|at| vec![small(at)]),
        DType::Bool => each(&|at| vec![small(at) & 1]),
    };
    Tensor::new(dtype, shape, data.into()).map_err(Error::Tensor)
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
    use crate::ir::{TestGraph, initializer_f32, node};

    fn sizes(length: usize, given: &[(&str, usize)]) -> Sizes {
        let given = given.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
        Sizes { length, given }
    }

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
        let random = random_inputs(&[&model], 1, &sizes(5, &[])).unwrap();
        let inputs = &random.inputs;
        assert_eq!(random, random_inputs(&[&model], 1, &sizes(5, &[])).unwrap());
        assert_ne!(inputs["x"], random_inputs(&[&model], 2, &sizes(5, &[])).unwrap().inputs["x"]);
        assert_eq!(inputs["x"].shape(), [1, 2, 5]);
        let floats = inputs["x"].to_f32().unwrap();
        assert!(floats.iter().all(|x| (-1.0..1.0).contains(x)), "{floats:?}");
        assert!(floats.iter().any(|x| *x < 0.0) && floats.iter().any(|x| *x > 0.0), "{floats:?}");
        assert_eq!(inputs["attention_mask"].to_i64().unwrap(), [1; 5]);
        assert_eq!(inputs["position_ids"].to_i64().unwrap(), [0, 1, 2, 3, 4]);
        assert!(inputs["input_ids"].to_i64().unwrap().iter().all(|id| (0..16).contains(id)));
        let assumed: Vec<(&str, usize)> =
            random.assumed.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let wanted = [("batch", 1), ("n", 5), ("past_sequence_length", 0), ("sequence_length", 5)];
        assert_eq!(assumed, wanted);
    }

    #[test]
    fn given_sizes_are_taken_and_unknown_ones_refused() {
        let of = |dims: &[&str], given: &[(&str, usize)]| {
            let random = random_inputs(&[&model(dims)], 0, &sizes(5, given));
            random.map(|random| random.inputs["x"].shape().to_vec()).map_err(|error| error.to_string())
        };
        assert_eq!(of(&["batch", "2*n", "n + 1"], &[("n", 8), ("batch", 3)]).unwrap(), [3, 16, 9]);
        assert_eq!(of(&["floor(n/2)", "4"], &[]).unwrap(), [2, 4]);
        assert_eq!(of(&["?", "4"], &[]).unwrap(), [5, 4]);
        assert_eq!(of(&["?", "4"], &[("x:0", 9)]).unwrap(), [9, 4]);
        let error = of(&["n/2", "4"], &[("n", 7)]).unwrap_err();
        assert!(error.contains("\"x\" has the dimension \"n/2\", which is 3.5 where n = 7"), "{error}");
        let error = of(&["n - 6"], &[]).unwrap_err();
        assert!(error.contains("which is -1 where n = 5"), "{error}");
        let error = of(&["n"], &[("sequence_lenght", 7)]).unwrap_err();
        assert!(error.contains("\"sequence_lenght\"; did you mean \"sequence_length\"?"), "{error}");
        let error = of(&["n"], &[("zzz", 7)]).unwrap_err();
        assert!(
            error.contains("there are: batch, n, past_sequence_length, sequence_length"),
            "{error}"
        );
    }

    #[test]
    fn ids_stay_within_the_table_that_they_are_looked_up_in() {
        let model = |rows: usize| {
            TestGraph::new()
                .input_i64("ids", &["n"])
                .initializer(initializer_f32("table", &[rows, 1], &vec![0.0; rows]))
                .node(node("Gather", ["table", "ids"], "y"))
                .output("y", &["n", "1"])
                .model()
        };
        let drawn = |rows: usize| {
            let random = random_inputs(&[&model(rows)], 0, &sizes(500, &[])).unwrap();
            random.inputs["ids"].to_i64().unwrap().into_iter().max().unwrap()
        };
        assert_eq!((drawn(3), drawn(1)), (2, 0));
        assert!(drawn(1000) > 900);
    }

    #[test]
    fn an_input_beyond_all_bounds_is_refused() {
        for dims in [&["9000000000000000000", "9000000000000000000"][..], &["n", "1000000000"]] {
            let error = random_inputs(&[&model(dims)], 0, &sizes(5, &[])).unwrap_err().to_string();
            assert!(error.contains("\"x\" would take"), "{error}");
        }
    }
}
