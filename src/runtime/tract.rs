use std::collections::BTreeMap;
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::{Conversation, Engine, Error, Options, Places, Runtime, Session, Takes, Tensors, Traits};
use crate::names::Precision;
use crate::tensor::{DType, Tensor};

/// tract, built in: pure Rust, in float32, on one thread.
pub struct Tract;

const NAME: &str = "tract";
/// The version that is linked in.
const VERSION: &str = env!("SOPRANO_EXPORT_TRACT");

pub(super) static ENGINE: Tract = Tract;

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "Built in"
    }

    fn takes(&self, file: &Traits) -> Takes {
        match file.precision {
            _ if file.byte_blocks => Takes::Not("its products are ONNX Runtime's own"),
            Precision::Int8 => Takes::Slowly("its 8-bit products take minutes there"),
            Precision::Fp32 | Precision::Fp16 => Takes::Well,
        }
    }

    fn find(&self, _places: &Places, _options: Options) -> Result<Box<dyn Runtime>, Error> {
        Ok(Box::new(Tract))
    }
}

impl Runtime for Tract {
    fn engine(&self) -> &'static dyn Engine {
        &ENGINE
    }

    fn name_and_version(&self) -> String {
        format!("{NAME} {VERSION}")
    }

    fn load_bytes(&self, model: &[u8]) -> Result<Box<dyn Session>, Error> {
        let refuse = |why| Error::Load { runtime: NAME, why };
        contained(|| {
            let model = tract_onnx::onnx()
                .with_ignore_output_shapes(true)
                .with_ignore_output_types(true)
                .with_ignore_value_info(true)
                .model_for_read(&mut &*model)?;
            let names = |outlets: &[OutletId]| -> Vec<String> {
                outlets.iter().map(|o| model.node(o.node).name.clone()).collect()
            };
            let inputs = names(model.input_outlets()?);
            let outputs = model
                .output_outlets()?
                .iter()
                .map(|&o| {
                    model.outlet_label(o).map_or_else(|| model.node(o.node).name.clone(), str::to_owned)
                })
                .collect();
            let plan = model.into_optimized()?.into_runnable()?;
            Ok(Loaded { plan, inputs, outputs })
        })
        .map(|loaded| Box::new(loaded) as Box<dyn Session>)
        .map_err(refuse)
    }
}

struct Loaded {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Session for Loaded {
    fn inputs(&self) -> &[String] {
        &self.inputs
    }

    fn outputs(&self) -> &[String] {
        &self.outputs
    }

    fn run(&self, inputs: &Tensors) -> Result<Tensors, Error> {
        super::check_inputs(&self.inputs, inputs)?;
        let refuse = |why| Error::Run { runtime: NAME, why };
        let mut fed = TVec::new();
        for name in &self.inputs {
            fed.push(to_tract(&inputs[name]).map_err(|e| refuse(format!("{e:#}")))?.into());
        }
        let outputs = contained(|| self.plan.run(fed)).map_err(refuse)?;
        self.outputs
            .iter()
            .zip(&outputs)
            .map(|(name, value)| Ok((name.clone(), from_tract(value).map_err(refuse)?)))
            .collect()
    }

    fn converse(&self, carried: &[(String, String)]) -> Box<dyn Conversation + '_> {
        Box::new(Moving { loaded: self, carried: carried.to_vec(), held: BTreeMap::new() })
    }
}

/// A conversation whose values go back as tract gave them.
struct Moving<'a> {
    loaded: &'a Loaded,
    carried: Vec<(String, String)>,
    held: BTreeMap<String, TValue>,
}

impl Conversation for Moving<'_> {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, Error> {
        let refuse = |why| Error::Run { runtime: NAME, why };
        let Loaded { plan, inputs: known, outputs: names } = self.loaded;
        let mut held = std::mem::take(&mut self.held);
        if let Some(name) = inputs.keys().find(|name| !known.contains(name) || held.contains_key(*name))
        {
            return Err(Error::UnknownInput { name: name.clone(), known: known.join(", ") });
        }
        let mut fed: TVec<TValue> = TVec::new();
        for name in known {
            let value = match (held.remove(name), inputs.get(name)) {
                (Some(value), _) => value,
                (None, Some(tensor)) => to_tract(tensor).map_err(|e| refuse(format!("{e:#}")))?.into(),
                (None, None) => return Err(Error::MissingInput { name: name.clone() }),
            };
            fed.push(value);
        }
        let outputs = contained(|| plan.run(fed)).map_err(refuse)?;
        let mut kept = Tensors::new();
        for (name, value) in names.iter().zip(outputs) {
            match self.carried.iter().find(|(from, _)| from == name) {
                Some((_, to)) => {
                    self.held.insert(to.clone(), value);
                }
                None => {
                    kept.insert(name.clone(), from_tract(&value).map_err(refuse)?);
                }
            }
        }
        match self.carried.iter().find(|(_, to)| !self.held.contains_key(to)) {
            Some((from, _)) => Err(super::no_output(NAME, from)),
            None => Ok(kept),
        }
    }
}

fn to_tract(tensor: &Tensor) -> TractResult<tract_onnx::prelude::Tensor> {
    let dtype = match tensor.dtype() {
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::F16 => DatumType::F16,
        DType::I64 => DatumType::I64,
        DType::I32 => DatumType::I32,
        DType::I16 => DatumType::I16,
        DType::I8 => DatumType::I8,
        DType::U64 => DatumType::U64,
        DType::U32 => DatumType::U32,
        DType::U16 => DatumType::U16,
        DType::U8 => DatumType::U8,
        DType::Bool => DatumType::Bool,
        DType::BF16 => return Err(TractError::msg("tract has no bfloat16")),
    };
    #[allow(unsafe_code)]
    // SAFETY: the length was checked against shape and type when the tensor was made, and every bit
    // pattern is a value of these types; a bool of another byte than 0 and 1 is made one below.
    unsafe {
        if tensor.dtype() == DType::Bool {
            let clean: Vec<u8> = tensor.bytes().iter().map(|&b| u8::from(b != 0)).collect();
            return tract_onnx::prelude::Tensor::from_raw_dt(dtype, tensor.shape(), &clean);
        }
        tract_onnx::prelude::Tensor::from_raw_dt(dtype, tensor.shape(), tensor.bytes())
    }
}

fn from_tract(value: &tract_onnx::prelude::Tensor) -> Result<Tensor, String> {
    let value = match value.datum_type() {
        DatumType::TDim => value.cast_to::<i64>().map_err(|e| format!("{e:#}"))?.into_owned(),
        _ => value.clone(),
    };
    let dtype = match value.datum_type() {
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        DatumType::F16 => DType::F16,
        DatumType::I64 => DType::I64,
        DatumType::I32 => DType::I32,
        DatumType::I16 => DType::I16,
        DatumType::I8 => DType::I8,
        DatumType::U64 => DType::U64,
        DatumType::U32 => DType::U32,
        DatumType::U16 => DType::U16,
        DatumType::U8 => DType::U8,
        DatumType::Bool => DType::Bool,
        other => return Err(format!("an output of type {other:?}")),
    };
    let bytes = bytes::Bytes::copy_from_slice(value.as_bytes());
    Tensor::new(dtype, value.shape().to_vec(), bytes).map_err(|e| e.to_string())
}

fn contained<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    super::quietly(|| work().map_err(|e| format!("{e:#}")))
}
