use std::sync::Arc;

use rten::{ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::prelude::*;

use super::conversation::{Calls, Loaded, Ports, Take};
use super::{Engine, Error, Options, Places, Runtime, Session, Takes, Traits, message};
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{GraphProto, Model, NodeProto, TensorProto, constant_of, dtype_of, value_of};
use crate::tensor::{DType, Tensor};

const NAME: &str = "rten";
/// The version that is linked in.
const VERSION: &str = env!("SOPRANO_EXPORT_RTEN");

/// rten, built in: pure Rust, on as many threads as are asked for. It holds whole numbers in 32 bits.
struct Rten {
    options: Options,
}

/// rten, as the registry knows it.
pub(super) struct Known;

pub(super) static ENGINE: Known = Known;

impl Engine for Known {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "Built in, on several threads"
    }

    fn takes(&self, _file: &Traits) -> Takes {
        Takes::Well
    }

    fn judges_builds(&self) -> bool {
        false
    }

    fn find(&self, _places: &Places, options: Options) -> Result<Box<dyn Runtime>, Error> {
        Ok(Box::new(Rten { options }))
    }
}

impl Runtime for Rten {
    fn engine(&self) -> &'static dyn Engine {
        &ENGINE
    }

    fn name_and_version(&self) -> String {
        format!("{NAME} {VERSION}")
    }

    fn load_bytes(&self, model: &[u8]) -> Result<Box<dyn Session>, Error> {
        super::session(NAME, || {
            let types = outputs(model)?;
            let mut options = ModelOptions::with_all_ops();
            let model = options.prepack_weights(true).load(model.to_vec()).map_err(message)?;
            let names = |ids: &[NodeId]| -> Vec<String> {
                let name = |id: &NodeId| Some(model.node_info(*id)?.name()?.to_owned());
                ids.iter().map(|id| name(id).unwrap_or_default()).collect()
            };
            let (inputs, outputs) = (names(model.input_ids()), names(model.output_ids()));
            let pool = Arc::new(ThreadPool::with_num_threads(self.options.threads));
            let ports = Ports { runtime: NAME, inputs, outputs };
            Ok(Loaded { ports, model: Pooled { model, pool, types } })
        })
    }
}

/// The type of each output, which rten may hold in another; refuses a model whose constants it would change.
fn outputs(model: &[u8]) -> Result<Vec<Option<DType>>, String> {
    let model = Model::from_bytes(bytes::Bytes::copy_from_slice(model), "").map_err(message)?;
    let graph = model.graph_proto();
    if let Some(changed) = beyond_32_bits(graph) {
        return Err(format!("{NAME} holds numbers in 32 bits, and {changed}"));
    }
    Ok(graph.output.iter().map(|output| dtype_of(output.element_type())).collect())
}

/// A number of a graph, or of one within it, that rten 0.27's loader would bring to the nearest one of 32 bits, or a
/// node that makes doubles, which it reads as one that makes f32. Where a `Slice` ends at the largest of 64 bits, or
/// anywhere near, nothing changes: no axis is so long.
fn beyond_32_bits(graph: &GraphProto) -> Option<String> {
    let is_changed = |value: &i64| i32::try_from(*value).is_err() && value.unsigned_abs() < 1 << 62;
    let wide = |name: &str, tensor: &TensorProto| {
        let changed = match dtype_of(tensor.data_type())? {
            DType::I64 => {
                value_of(tensor).ok()?.to_i64().ok()?.into_iter().find(is_changed)?.to_string()
            }
            DType::F64 => "doubles".to_owned(),
            _ => return None,
        };
        Some(format!("{name:?} holds {changed}"))
    };
    let stored = || graph.initializer.iter().find_map(|tensor| wide(tensor.name(), tensor));
    let inner = |node: &NodeProto| {
        let constant = (node.op_type() == "Constant").then(|| constant_of(node)).flatten();
        let name = node.output.first().map_or("", String::as_str);
        if node.is("Cast") && node.attr_i("to", 0) == DataType::Double as i64 {
            return Some(format!("{name:?} holds doubles"));
        }
        constant
            .and_then(|tensor| wide(name, &tensor))
            .or_else(|| node.nested().find_map(beyond_32_bits))
    };
    stored().or_else(|| graph.node.iter().find_map(inner))
}

/// A model, the threads that run it, and the types of its outputs.
struct Pooled {
    model: rten::Model,
    pool: Arc<ThreadPool>,
    types: Vec<Option<DType>>,
}

impl Calls for &Pooled {
    type Value = Value;

    fn value(&self, tensor: &Tensor) -> Result<Value, String> {
        to_rten(tensor)
    }

    fn tensor(&self, at: usize, value: &Value) -> Result<Tensor, String> {
        from_rten(value, self.types.get(at).copied().flatten())
    }

    fn call(&self, _: &Ports, inputs: Vec<Value>, take: Take<'_, Value>) -> Result<(), String> {
        let ids = self.model.input_ids().iter().copied();
        let inputs = ids.zip(inputs.into_iter().map(ValueOrView::Value)).collect();
        let options = RunOptions::default().with_thread_pool(Some(self.pool.clone()));
        let run = || self.model.run(inputs, self.model.output_ids(), Some(options)).map_err(message);
        let outputs = super::quietly(run)?;
        outputs.into_iter().enumerate().try_for_each(|(at, value)| take(at, value))
    }
}

fn to_rten(tensor: &Tensor) -> Result<Value, String> {
    fn owned<U, const N: usize>(
        tensor: &Tensor,
        read: impl Fn([u8; N]) -> Result<U, String>,
    ) -> Result<Value, String>
    where
        Value: From<rten_tensor::Tensor<U>>,
    {
        let values = tensor.bytes().as_chunks::<N>().0.iter().map(|bytes| read(*bytes));
        Value::from_shape(tensor.shape(), values.collect::<Result<Vec<U>, _>>()?).map_err(message)
    }
    let narrow = |value: i64| {
        i32::try_from(value).map_err(|_| format!("{value}: {NAME} holds whole numbers in 32 bits"))
    };
    match tensor.dtype() {
        DType::F32 => owned(tensor, |bytes| Ok(f32::from_le_bytes(bytes))),
        DType::I64 => owned(tensor, |bytes| narrow(i64::from_le_bytes(bytes))),
        DType::I32 => owned(tensor, |bytes| Ok(i32::from_le_bytes(bytes))),
        DType::I8 => owned(tensor, |bytes| Ok(i8::from_le_bytes(bytes))),
        DType::U8 => owned(tensor, |[byte]| Ok(byte)),
        DType::Bool => owned(tensor, |[byte]| Ok(i32::from(byte != 0))),
        other => Err(format!("{NAME} has no {}", other.name())),
    }
}

/// A value as a tensor of the type that the model says, where that is one which rten holds in 32 bits.
fn from_rten(value: &Value, dtype: Option<DType>) -> Result<Tensor, String> {
    let (dtype, shape, bytes): (DType, Vec<usize>, Vec<u8>) = match (value, dtype) {
        (Value::FloatTensor(t), _) => {
            (DType::F32, t.shape().to_vec(), t.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        (Value::Int32Tensor(t), Some(DType::I64)) => {
            let wide = t.iter().flat_map(|v| i64::from(*v).to_le_bytes());
            (DType::I64, t.shape().to_vec(), wide.collect())
        }
        (Value::Int32Tensor(t), Some(DType::Bool)) => {
            (DType::Bool, t.shape().to_vec(), t.iter().map(|v| u8::from(*v != 0)).collect())
        }
        (Value::Int32Tensor(t), _) => {
            (DType::I32, t.shape().to_vec(), t.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        (Value::Int8Tensor(t), _) => {
            (DType::I8, t.shape().to_vec(), t.iter().map(|v| v.cast_unsigned()).collect())
        }
        (Value::UInt8Tensor(t), _) => (DType::U8, t.shape().to_vec(), t.iter().copied().collect()),
        (other, _) => return Err(format!("an output of type {}", other.dtype())),
    };
    Tensor::new(dtype, shape, bytes.into()).map_err(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, TestGraph, initializer_i64, initializer_raw, node};

    #[test]
    fn whole_numbers_that_would_change_are_refused() {
        let runtime = ENGINE.find(&Places::default(), Options::EXACT).unwrap();
        let load =
            |model: Model| runtime.load_bytes(&model.to_bytes()).map(|_| ()).map_err(|e| e.to_string());
        let stored = |value: i64| {
            TestGraph::new()
                .input("x", &["2"])
                .initializer(initializer_i64("ends", &[1], &[value]))
                .initializer(initializer_i64("starts", &[1], &[0]))
                .node(node("Slice", ["x", "starts", "ends"], "y"))
                .output("y", &["n"])
                .model()
        };
        let from_node = |value: i64| {
            let constant = node::<&str>("Constant", [], "c").attr("value_int", Attr::Int(value));
            let cast = node("Cast", ["c"], "f").attr("to", Attr::Int(1));
            let add = node("Add", ["x", "f"], "y");
            TestGraph::new()
                .input("x", &["2"])
                .node(constant)
                .node(cast)
                .node(add)
                .output("y", &["2"])
                .model()
        };
        for value in [1 << 31, -(1 << 31) - 1, 1 << 61] {
            let says = format!("rten holds numbers in 32 bits, and \"ends\" holds {value}");
            assert!(load(stored(value)).unwrap_err().ends_with(&says));
            assert!(load(from_node(value)).unwrap_err().ends_with(&format!("\"c\" holds {value}")));
        }
        for value in [i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX, i64::MIN, i64::MAX - 1] {
            assert_eq!((load(stored(value)), load(from_node(value))), (Ok(()), Ok(())), "{value}");
        }
        let through = |code: i64| {
            let there = node("Cast", ["x"], "d").attr("to", Attr::Int(code));
            let back = node("Cast", ["d"], "y").attr("to", Attr::Int(1));
            TestGraph::new().input("x", &["2"]).node(there).node(back).output("y", &["2"]).model()
        };
        assert!(load(through(11)).unwrap_err().ends_with("\"d\" holds doubles"));
        assert_eq!(load(through(6)), Ok(()));
        let mut doubles = stored(0).proto().clone();
        let k = initializer_raw("k", DataType::Double, &[1], 1e300f64.to_le_bytes().to_vec().into());
        doubles.graph.as_mut().unwrap().initializer.push(k);
        let doubles = Model::from_proto(doubles, "m.onnx").unwrap();
        assert!(load(doubles).unwrap_err().ends_with("\"k\" holds doubles"));
    }
}
