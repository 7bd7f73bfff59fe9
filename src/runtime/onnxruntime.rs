use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use half::{bf16, f16};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::SessionInputValue;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Outlet, PrimitiveTensorElementType, TensorElementType, ValueType};

use super::conversation::{Calls, Loaded, Ports, Take};
use super::library::Library;
use super::{Engine, Error, Optimization, Options, Places, Runtime, Session, Takes, Traits, message};
use crate::tensor::{DType, Tensor};

/// ONNX Runtime, from a shared library that is found when it is asked for and loaded with the first model.
///
/// A process holds one: the library that was loaded first stays.
#[derive(Clone, Debug)]
struct OnnxRuntime {
    library: PathBuf,
    version: String,
    options: Options,
}

const NAME: &str = "onnxruntime";

static LIBRARY: Library = Library {
    about: "ONNX Runtime's shared library",
    option: NAME,
    variable: "SOPRANO_EXPORT_ONNXRUNTIME",
    package: NAME,
    folder: "onnxruntime/capi",
    stem: "libonnxruntime",
    symbol: "OrtGetApiBase",
};

static LOADED: OnceLock<(PathBuf, Environment, &str)> = OnceLock::new();

/// ONNX Runtime, found or not.
pub(super) struct Known;

pub(super) static ENGINE: Known = Known;

impl Engine for Known {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "ONNX Runtime"
    }

    fn library(&self) -> Option<&'static Library> {
        Some(&LIBRARY)
    }

    fn takes(&self, _file: &Traits) -> Takes {
        Takes::Well
    }

    fn find(&self, places: &Places, options: Options) -> Result<Box<dyn Runtime>, Error> {
        let (library, _) = LIBRARY.locate(self.name(), places)?;
        let missing = |why| LIBRARY.missing(self.name(), why);
        let version = match version_of(&library) {
            Some(version) => version,
            None => commit(OnnxRuntime::loaded(&library).map_err(missing)?.1).to_owned(),
        };
        Ok(Box::new(OnnxRuntime { library, version, options }))
    }
}

impl OnnxRuntime {
    /// Loads the library, once in a process; gives its environment and what it says of its build.
    fn loaded(library: &Path) -> Result<(Environment, &'static str), String> {
        if let Some((path, environment, build)) = LOADED.get()
            && path == library
        {
            return Ok((environment.clone(), build));
        }
        LIBRARY.check(library)?;
        let load = || {
            let builder = ort::init_from(library).map_err(message)?;
            let environment = builder.with_telemetry(false).build().map_err(message)?;
            environment.set_log_level(LogLevel::Fatal);
            Ok((library.to_owned(), environment, ort::info()))
        };
        let loaded = match LOADED.get() {
            Some(loaded) => loaded,
            None => {
                let loaded =
                    super::quietly(load).map_err(|why| format!("{}: {why}", library.display()))?;
                LOADED.get_or_init(|| loaded)
            }
        };
        Ok((loaded.1.clone(), loaded.2))
    }
}

/// The version behind `.so.` in a library's name, or in that of the file that it is a link to.
fn version_of(library: &Path) -> Option<String> {
    let named = |path: &Path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let version = name.split_once(".so.").map(|(_, version)| version.to_owned())?;
        version.contains('.').then_some(version)
    };
    named(library).or_else(|| named(&std::fs::canonicalize(library).ok()?))
}

/// The commit in a build's description, or all of it.
fn commit(build: &str) -> &str {
    let commit = build.split("git-commit-id=").nth(1).and_then(|rest| rest.split(',').next());
    commit.unwrap_or(build)
}

impl Runtime for OnnxRuntime {
    fn engine(&self) -> &'static dyn Engine {
        &ENGINE
    }

    fn name_and_version(&self) -> String {
        format!("{NAME} {}", self.version)
    }

    fn library(&self) -> Option<&Path> {
        Some(&self.library)
    }

    fn check(&self) -> Result<(), Error> {
        Self::loaded(&self.library).map(drop).map_err(|why| LIBRARY.missing(ENGINE.name(), why))
    }

    fn load_bytes(&self, model: &[u8]) -> Result<Box<dyn Session>, Error> {
        super::session(NAME, || {
            let (environment, _) = Self::loaded(&self.library)?;
            let builder = ort::session::Session::builder(&environment).map_err(message)?;
            let session =
                configured(builder, &self.options)?.commit_from_memory(model).map_err(message)?;
            let names = |ports: &[Outlet]| ports.iter().map(|port| port.name().to_owned()).collect();
            let (inputs, outputs) = (names(session.inputs()), names(session.outputs()));
            // A call needs the session for itself.
            Ok(Loaded { ports: Ports { runtime: NAME, inputs, outputs }, model: Mutex::new(session) })
        })
    }
}

/// A session's settings in ONNX Runtime's own words.
fn configured(builder: SessionBuilder, options: &Options) -> Result<SessionBuilder, String> {
    let builder = builder.with_optimization_level(level(options.optimization)).map_err(message)?;
    let builder = builder.with_intra_threads(options.threads).map_err(message)?;
    let builder = builder.with_inter_threads(options.threads_between).map_err(message)?;
    let builder = builder.with_parallel_execution(options.threads_between > 1).map_err(message)?;
    let builder = builder.with_log_level(LogLevel::Fatal).map_err(message)?;
    let builder = builder.with_intra_op_spinning(options.threads > 1).map_err(message)?;
    let set = |builder: SessionBuilder, &(key, value): &(&str, &str)| {
        builder.with_config_entry(key, value).map_err(message)
    };
    entries(options).iter().try_fold(builder, set)
}

fn level(optimization: Optimization) -> GraphOptimizationLevel {
    match optimization {
        Optimization::None => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::All => GraphOptimizationLevel::All,
    }
}

/// Settings that have no method.
fn entries(options: &Options) -> Vec<(&'static str, &'static str)> {
    let stop = options.yielding.then_some(("session.force_spinning_stop", "1"));
    // Weights alone in 8 bits are otherwise multiplied by activations in 8 bits.
    let exact = options.exact.then_some(("session.qdq_matmulnbits_accuracy_level", "1"));
    stop.into_iter().chain(exact).collect()
}

impl Calls for &Mutex<ort::session::Session> {
    type Value = DynValue;

    fn value(&self, tensor: &Tensor) -> Result<DynValue, String> {
        to_ort(tensor)
    }

    fn tensor(&self, _at: usize, value: &DynValue) -> Result<Tensor, String> {
        from_ort(value)
    }

    fn call(
        &self,
        ports: &Ports,
        inputs: Vec<DynValue>,
        take: Take<'_, DynValue>,
    ) -> Result<(), String> {
        let borrowed = ports.inputs.iter().zip(&inputs);
        let borrowed: Vec<(&str, SessionInputValue<'_>)> =
            borrowed.map(|(name, value)| (name.as_str(), value.into())).collect();
        let mut session = self.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outputs = session.run(borrowed).map_err(message)?;
        for (at, name) in ports.outputs.iter().enumerate() {
            take(at, outputs.remove(name).ok_or_else(|| format!("it gave no output {name:?}"))?)?;
        }
        Ok(())
    }
}

fn to_ort(tensor: &Tensor) -> Result<DynValue, String> {
    fn owned<T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static, const N: usize>(
        tensor: &Tensor,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<DynValue, String> {
        let chunks = tensor.bytes().as_chunks::<N>().0;
        let values: Vec<T> = chunks.iter().map(|bytes| read(*bytes)).collect();
        let value = ort::value::Tensor::from_array((tensor.shape().to_vec(), values));
        value.map(ort::value::Tensor::into_dyn).map_err(message)
    }
    match tensor.dtype() {
        DType::F32 => owned(tensor, f32::from_le_bytes),
        DType::F64 => owned(tensor, f64::from_le_bytes),
        DType::I64 => owned(tensor, i64::from_le_bytes),
        DType::I32 => owned(tensor, i32::from_le_bytes),
        DType::I16 => owned(tensor, i16::from_le_bytes),
        DType::I8 => owned(tensor, i8::from_le_bytes),
        DType::U64 => owned(tensor, u64::from_le_bytes),
        DType::U32 => owned(tensor, u32::from_le_bytes),
        DType::U16 => owned(tensor, u16::from_le_bytes),
        DType::U8 => owned(tensor, u8::from_le_bytes),
        DType::F16 => owned(tensor, f16::from_le_bytes),
        DType::BF16 => owned(tensor, bf16::from_le_bytes),
        DType::Bool => owned(tensor, |[byte]: [u8; 1]| byte != 0),
    }
}

fn from_ort(value: &DynValue) -> Result<Tensor, String> {
    fn read<T: PrimitiveTensorElementType + Copy, const N: usize>(
        value: &DynValue,
        dtype: DType,
        write: impl Fn(T) -> [u8; N],
    ) -> Result<Tensor, String> {
        let (shape, values) = value.try_extract_tensor::<T>().map_err(message)?;
        let shape = shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|&value| write(value)).collect();
        Tensor::new(dtype, shape, bytes.into()).map_err(message)
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err("an output that is not a tensor".to_owned());
    };
    match ty {
        TensorElementType::Float32 => read(value, DType::F32, f32::to_le_bytes),
        TensorElementType::Float64 => read(value, DType::F64, f64::to_le_bytes),
        TensorElementType::Int64 => read(value, DType::I64, i64::to_le_bytes),
        TensorElementType::Int32 => read(value, DType::I32, i32::to_le_bytes),
        TensorElementType::Int16 => read(value, DType::I16, i16::to_le_bytes),
        TensorElementType::Int8 => read(value, DType::I8, i8::to_le_bytes),
        TensorElementType::Uint64 => read(value, DType::U64, u64::to_le_bytes),
        TensorElementType::Uint32 => read(value, DType::U32, u32::to_le_bytes),
        TensorElementType::Uint16 => read(value, DType::U16, u16::to_le_bytes),
        TensorElementType::Float16 => read(value, DType::F16, f16::to_le_bytes),
        TensorElementType::Bfloat16 => read(value, DType::BF16, bf16::to_le_bytes),
        TensorElementType::Uint8 => read(value, DType::U8, u8::to_le_bytes),
        TensorElementType::Bool => read(value, DType::Bool, |b: bool| [u8::from(b)]),
        other => Err(format!("an output of type {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_translated() {
        assert!(matches!(level(Optimization::None), GraphOptimizationLevel::Disable));
        assert!(matches!(level(Optimization::Basic), GraphOptimizationLevel::Level1));
        assert!(matches!(level(Optimization::All), GraphOptimizationLevel::All));
        assert_eq!(entries(&Options::EXACT), [("session.qdq_matmulnbits_accuracy_level", "1")]);
        assert!(entries(&Options::fast(2)).is_empty());
        let yielding = Options { yielding: true, ..Options::fast(2) };
        assert_eq!(entries(&yielding), [("session.force_spinning_stop", "1")]);
    }

    #[test]
    fn a_version_is_read_off_a_name() {
        assert_eq!(version_of(Path::new("x/libonnxruntime.so.1.31.1")).as_deref(), Some("1.31.1"));
        assert_eq!(version_of(Path::new("libonnxruntime.so")), None);
        assert_eq!(version_of(Path::new("libonnxruntime.so.1")), None);
        assert_eq!(commit("ORT Build Info: git-commit-id=abc123, build type=Release"), "abc123");
        assert_eq!(commit("of unknown origin"), "of unknown origin");
    }
}
