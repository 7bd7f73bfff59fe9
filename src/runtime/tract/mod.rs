mod integer_products;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use bytes::Buf;
use prost::Message as _;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::conversation::{Calls, Loaded, Ports, Take};
use super::{Engine, Error, Options, Places, Runtime, Session, Takes, Traits};
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
            Precision::Int8 => Takes::Slowly("its 8-bit products are no faster than float32 there"),
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
        super::session(NAME, || load(model).map_err(message))
    }

    /// The file is mapped, and let go before the model is prepared.
    fn load(&self, path: &Path) -> Result<Box<dyn Session>, Error> {
        let mapped =
            crate::files::map(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        super::session(NAME, || load(mapped).map_err(message))
    }
}

/// A model that is ready to run.
fn load(file: impl Buf) -> TractResult<Loaded<Arc<TypedRunnableModel>>> {
    let mut reader = tract_onnx::onnx();
    reader.op_register.insert("MatMulInteger", integer_products::mat_mul_integer);
    let reader = reader
        .with_ignore_output_shapes(true)
        .with_ignore_output_types(true)
        .with_ignore_value_info(true);
    let file = ModelProto::decode(file)?;
    let model = reader.model_for_proto_model(&file)?;
    drop(file);
    let names = |outlets: &[OutletId]| -> Vec<String> {
        outlets.iter().map(|o| model.node(o.node).name.clone()).collect()
    };
    let inputs = names(model.input_outlets()?);
    let outputs = model
        .output_outlets()?
        .iter()
        .map(|&o| model.outlet_label(o).unwrap_or(&model.node(o.node).name).to_owned())
        .collect();
    let ports = Ports { runtime: NAME, inputs, outputs };
    Ok(Loaded { ports, model: model.into_optimized()?.into_runnable()? })
}

impl Calls for &Arc<TypedRunnableModel> {
    type Value = TValue;

    fn value(&self, tensor: &Tensor) -> Result<TValue, String> {
        to_tract(tensor).map(Into::into).map_err(message)
    }

    fn tensor(&self, _at: usize, value: &TValue) -> Result<Tensor, String> {
        from_tract(value)
    }

    fn call(&self, _: &Ports, inputs: Vec<TValue>, take: Take<'_, TValue>) -> Result<(), String> {
        let outputs = super::quietly(|| self.run(inputs.into()).map_err(message))?;
        outputs.into_iter().enumerate().try_for_each(|(at, value)| take(at, value))
    }
}

const TYPES: [(DType, DatumType); 12] = [
    (DType::F32, DatumType::F32),
    (DType::F64, DatumType::F64),
    (DType::F16, DatumType::F16),
    (DType::I64, DatumType::I64),
    (DType::I32, DatumType::I32),
    (DType::I16, DatumType::I16),
    (DType::I8, DatumType::I8),
    (DType::U64, DatumType::U64),
    (DType::U32, DatumType::U32),
    (DType::U16, DatumType::U16),
    (DType::U8, DatumType::U8),
    (DType::Bool, DatumType::Bool),
];

fn to_tract(tensor: &Tensor) -> TractResult<tract_onnx::prelude::Tensor> {
    let types = TYPES.iter().find(|(ours, _)| *ours == tensor.dtype());
    let &(_, dtype) = types.ok_or_else(|| TractError::msg("tract has no bfloat16"))?;
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
        DatumType::TDim => value.cast_to::<i64>().map_err(message)?.into_owned(),
        _ => value.clone(),
    };
    let types = TYPES.iter().find(|(_, theirs)| *theirs == value.datum_type());
    let &(dtype, _) = types.ok_or_else(|| format!("an output of type {:?}", value.datum_type()))?;
    let bytes = bytes::Bytes::copy_from_slice(value.as_bytes());
    Tensor::new(dtype, value.shape().to_vec(), bytes).map_err(|e| e.to_string())
}

/// An error with its causes.
fn message(error: TractError) -> String {
    format!("{error:#}")
}
