use std::sync::Arc;

use tract_onnx::prelude::*;

use super::conversation::{Calls, Take, Turns};
use super::{Conversation, Engine, Error, Options, Places, Runtime, Session, Takes, Traits};
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

    fn begin(&self, carried: &[(String, String)]) -> Result<Box<dyn Conversation + '_>, Error> {
        Ok(Turns::begin(self, carried))
    }
}

impl Calls for &Loaded {
    type Value = TValue;

    fn runtime(&self) -> &'static str {
        NAME
    }

    fn ports(&self) -> [&[String]; 2] {
        [&self.inputs, &self.outputs]
    }

    fn value(&self, tensor: &Tensor) -> Result<TValue, String> {
        to_tract(tensor).map(Into::into).map_err(|e| format!("{e:#}"))
    }

    fn tensor(&self, _at: usize, value: &TValue) -> Result<Tensor, String> {
        from_tract(value)
    }

    fn call(&self, inputs: Vec<TValue>, take: Take<'_, TValue>) -> Result<(), String> {
        let outputs = contained(|| self.plan.run(inputs.into()))?;
        outputs.into_iter().enumerate().try_for_each(|(at, value)| take(at, value))
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
