use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use openvino::{Core, DeviceType, ElementType, InferRequest, RwPropertyKey, Shape};

use super::conversation::{Calls, Ports, Take, Turns};
use super::library::Library;
use super::{
    Conversation, Engine, Error, Format, Hint, Options, Places, Runtime, Session, Takes, Traits,
};
use crate::ir::Model;
use crate::names::Precision;
use crate::tensor::{DType, Tensor};

/// OpenVINO, from a shared library that is found when it is asked for and loaded with the first model.
///
/// A process holds one: the library that was loaded first stays.
#[derive(Clone, Debug)]
struct OpenVino {
    library: PathBuf,
    version: String,
    options: Options,
}

const NAME: &str = "openvino";

static LIBRARY: Library = Library {
    about: "OpenVINO's shared C library",
    option: "openvino-library",
    variable: "SOPRANO_EXPORT_OPENVINO",
    package: NAME,
    folder: "openvino/libs",
    stem: "libopenvino_c",
    symbol: "ov_get_openvino_version",
};

static LOADED: OnceLock<PathBuf> = OnceLock::new();

/// OpenVINO, found or not.
pub(super) struct Known;

pub(super) static ENGINE: Known = Known;

impl Engine for Known {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "OpenVINO"
    }

    fn library(&self) -> Option<&'static Library> {
        Some(&LIBRARY)
    }

    fn formats(&self) -> &'static [Format] {
        &[Format::OpenVino, Format::Onnx]
    }

    fn takes(&self, file: &Traits) -> Takes {
        match (file.format, file.precision) {
            (Format::Onnx, Precision::Int8) => {
                Takes::Not("OpenVINO runs such products slower than fp32; an IR file is for it")
            }
            _ => Takes::Well,
        }
    }

    fn find(&self, places: &Places, options: Options) -> Result<Box<dyn Runtime>, Error> {
        let (library, version) = LIBRARY.locate(self.name(), places)?;
        let missing = |why| LIBRARY.missing(self.name(), why);
        let version = match version {
            Some(version) => version,
            None => {
                OpenVino::loaded(&library).map_err(missing)?;
                let build = super::quietly(|| Ok(openvino::version().build_number)).map_err(missing)?;
                // The release, without the commit after it.
                build.split('-').next().unwrap_or_default().to_owned()
            }
        };
        Ok(Box::new(OpenVino { library, version, options }))
    }
}

impl OpenVino {
    /// Loads the library, once in a process.
    fn loaded(library: &Path) -> Result<(), String> {
        if LOADED.get().is_some_and(|path| path == library) {
            return Ok(());
        }
        LIBRARY.check(library)?;
        if LOADED.get().is_none() {
            super::quietly(|| openvino_sys::library::load_from(library.to_owned()))
                .map_err(|why| format!("{}: {why}", library.display()))?;
            LOADED.get_or_init(|| library.to_owned());
        }
        Ok(())
    }

    fn core(&self) -> Result<Core, String> {
        Self::loaded(&self.library)?;
        let mut core = Core::new().map_err(message)?;
        for (key, value) in properties(&self.options) {
            let key = RwPropertyKey::Other(key.into());
            core.set_property(&DeviceType::CPU, &key, &value).map_err(message)?;
        }
        Ok(core)
    }

    fn session(
        &self,
        onnx: Option<&Model>,
        stateful: bool,
        read: impl FnOnce(&mut Core) -> Result<openvino::Model, String>,
    ) -> Result<Box<dyn Session>, Error> {
        super::session(NAME, || {
            let mut core = self.core()?;
            let model = read(&mut core)?;
            let compiled = core.compile_model(&model, DeviceType::CPU).map_err(message)?;
            let mut inputs: Vec<String> = (0..compiled.get_input_size().map_err(message)?)
                .map(|index| compiled.get_input_by_index(index)?.get_name())
                .collect::<Result<_, _>>()
                .map_err(message)?;
            let mut outputs: Vec<String> = (0..compiled.get_output_size().map_err(message)?)
                .map(|index| compiled.get_output_by_index(index)?.get_name())
                .collect::<Result<_, _>>()
                .map_err(message)?;
            // A value may have several names there, of which OpenVINO gives any.
            if let Some(graph) = onnx.map(Model::graph_proto) {
                for (names, ports) in [(&mut inputs, &graph.input), (&mut outputs, &graph.output)] {
                    if names.len() == ports.len() {
                        *names = ports.iter().map(|port| port.name().to_owned()).collect();
                    }
                }
            }
            let compiled = Mutex::new(Compiled { model: compiled, _core: core });
            let ports = Ports { runtime: NAME, inputs, outputs };
            Ok(Loaded { compiled, idle: Mutex::default(), stateful, ports })
        })
    }
}

/// The options as OpenVINO's properties.
fn properties(options: &Options) -> Vec<(&'static str, String)> {
    let hint = match options.hint {
        Hint::Latency => "LATENCY",
        Hint::Throughput => "THROUGHPUT",
    };
    let mut properties =
        vec![("INFERENCE_NUM_THREADS", options.threads.to_string()), ("PERFORMANCE_HINT", hint.into())];
    if let Some(streams) = options.streams {
        properties.push(("NUM_STREAMS", streams.to_string()));
    }
    if let Some(pinned) = options.pinning {
        properties.push(("ENABLE_CPU_PINNING", if pinned { "YES" } else { "NO" }.into()));
    }
    if options.exact {
        // Otherwise activations before compressed weights are quantized in groups, in whatever type the
        // processor is fastest in, and a cache is held in 8 bits.
        properties.push(("EXECUTION_MODE_HINT", "ACCURACY".into()));
        properties.push(("INFERENCE_PRECISION_HINT", "f32".into()));
        properties.push(("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0".into()));
        properties.push(("KV_CACHE_PRECISION", "f32".into()));
    }
    properties
}

impl Runtime for OpenVino {
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
        // Its plugin for processors too.
        super::quietly(|| self.core().map(drop)).map_err(|why| LIBRARY.missing(ENGINE.name(), why))
    }

    fn load_bytes(&self, model: &[u8]) -> Result<Box<dyn Session>, Error> {
        let parsed = Model::from_bytes(bytes::Bytes::copy_from_slice(model), "").ok();
        let read = |core: &mut Core| core.read_model_from_buffer(model, None).map_err(message);
        self.session(parsed.as_ref(), false, read)
    }

    fn load(&self, path: &Path) -> Result<Box<dyn Session>, Error> {
        crate::files::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let name = path.to_str().ok_or_else(|| Error::Load {
            runtime: NAME,
            why: format!("{}: its path is not UTF-8", path.display()),
        })?;
        let weights = path.with_extension("bin");
        let beside = weights.to_str().filter(|_| Format::of(path) == Format::OpenVino);
        let (parsed, stateful) = match beside {
            Some(_) => (None, super::weights::check(path, &weights)?),
            None => (Model::open(path).ok(), false),
        };
        let read =
            |core: &mut Core| core.read_model_from_file(name, beside.unwrap_or("")).map_err(message);
        self.session(parsed.as_ref(), stateful, read)
    }
}

/// A compiled model, and what it belongs to, which lives as long as it does.
struct Compiled {
    model: openvino::CompiledModel,
    _core: Core,
}

struct Loaded {
    /// Requests that no conversation has now; one may take a model's state along, so that those of a model with
    /// a state are never here.
    idle: Mutex<Vec<InferRequest>>,
    compiled: Mutex<Compiled>,
    stateful: bool,
    ports: Ports,
}

fn message(error: impl ToString) -> String {
    error.to_string().lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("; ")
}

impl Session for Loaded {
    fn inputs(&self) -> &[String] {
        &self.ports.inputs
    }

    fn outputs(&self) -> &[String] {
        &self.ports.outputs
    }

    fn begin(&self, carried: &[(String, String)]) -> Result<Box<dyn Conversation + '_>, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let new = || {
            let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            let request = compiled.model.create_infer_request();
            request.map_err(|why| Error::Run { runtime: NAME, why: message(why) })
        };
        let request = Some(idle.map_or_else(new, Ok)?);
        Ok(Turns::begin(
            Requested { loaded: self, request: RefCell::new(request) },
            &self.ports,
            carried,
        ))
    }
}

/// A model with a request of one conversation, which holds what the model keeps itself.
struct Requested<'a> {
    loaded: &'a Loaded,
    /// There until the conversation ends.
    request: RefCell<Option<InferRequest>>,
}

impl Drop for Requested<'_> {
    fn drop(&mut self) {
        if !self.loaded.stateful {
            let mut idle = self.loaded.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.extend(self.request.take());
        }
    }
}

impl Calls for Requested<'_> {
    type Value = openvino::Tensor;

    fn value(&self, tensor: &Tensor) -> Result<openvino::Tensor, String> {
        to_openvino(tensor)
    }

    fn tensor(&self, _at: usize, value: &openvino::Tensor) -> Result<Tensor, String> {
        from_openvino(value)
    }

    // A request writes each call's outputs where those of the last one were.
    fn lasting(&self, value: openvino::Tensor) -> Result<openvino::Tensor, String> {
        to_openvino(&from_openvino(&value)?)
    }

    fn call(
        &self,
        ports: &Ports,
        inputs: Vec<openvino::Tensor>,
        take: Take<'_, openvino::Tensor>,
    ) -> Result<(), String> {
        let mut request = self.request.borrow_mut();
        let request = request.as_mut().expect("there until the conversation ends");
        for (index, tensor) in inputs.iter().enumerate() {
            request.set_input_tensor_by_index(index, tensor).map_err(message)?;
        }
        request.infer().map_err(message)?;
        (0..ports.outputs.len())
            .try_for_each(|at| take(at, request.get_output_tensor_by_index(at).map_err(message)?))
    }
}

fn element_type(dtype: DType) -> ElementType {
    match dtype {
        DType::F32 => ElementType::F32,
        DType::F64 => ElementType::F64,
        DType::F16 => ElementType::F16,
        DType::I64 => ElementType::I64,
        DType::I32 => ElementType::I32,
        DType::I16 => ElementType::I16,
        DType::I8 => ElementType::I8,
        DType::U64 => ElementType::U64,
        DType::U32 => ElementType::U32,
        DType::U16 => ElementType::U16,
        DType::U8 => ElementType::U8,
        DType::BF16 => ElementType::Bf16,
        DType::Bool => ElementType::Boolean,
    }
}

fn to_openvino(tensor: &Tensor) -> Result<openvino::Tensor, String> {
    let dims = tensor.shape().iter().map(|&dim| i64::try_from(dim)).collect::<Result<Vec<_>, _>>();
    let shape = Shape::new(&dims.map_err(message)?).map_err(message)?;
    let mut value = openvino::Tensor::new(element_type(tensor.dtype()), &shape).map_err(message)?;
    // A tensor without values has no place in memory to write to.
    if !tensor.bytes().is_empty() {
        value.get_raw_data_mut().map_err(message)?.copy_from_slice(tensor.bytes());
    }
    Ok(value)
}

fn from_openvino(tensor: &openvino::Tensor) -> Result<Tensor, String> {
    let element = tensor.get_element_type().map_err(message)?;
    let dtype = DType::ALL.into_iter().find(|&dtype| element_type(dtype) == element);
    let dtype = dtype.ok_or_else(|| format!("an output of type {element}"))?;
    let shape = tensor.get_shape().map_err(message)?;
    let dims = shape.get_dimensions().iter().map(|&dim| usize::try_from(dim));
    let dims = dims.collect::<Result<Vec<_>, _>>().map_err(message)?;
    let bytes = match tensor.get_byte_size().map_err(message)? {
        0 => bytes::Bytes::new(),
        _ => bytes::Bytes::copy_from_slice(tensor.get_raw_data().map_err(message)?),
    };
    Tensor::new(dtype, dims, bytes).map_err(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &Options) -> Vec<String> {
        properties(options).iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn options_are_translated() {
        let exact = of(&Options::EXACT);
        for wanted in [
            "INFERENCE_NUM_THREADS=1",
            "PERFORMANCE_HINT=LATENCY",
            "EXECUTION_MODE_HINT=ACCURACY",
            "INFERENCE_PRECISION_HINT=f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE=0",
            "KV_CACHE_PRECISION=f32",
        ] {
            assert!(exact.iter().any(|set| set == wanted), "{wanted}: {exact:?}");
        }
        assert_eq!(of(&Options::fast(3)), ["INFERENCE_NUM_THREADS=3", "PERFORMANCE_HINT=LATENCY"]);
        let many = Options {
            hint: Hint::Throughput,
            streams: Some(2),
            pinning: Some(false),
            ..Options::fast(4)
        };
        let wanted = [
            "INFERENCE_NUM_THREADS=4",
            "PERFORMANCE_HINT=THROUGHPUT",
            "NUM_STREAMS=2",
            "ENABLE_CPU_PINNING=NO",
        ];
        assert_eq!(of(&many), wanted);
        assert!(
            of(&Options { pinning: Some(true), ..many }).contains(&"ENABLE_CPU_PINNING=YES".into())
        );
    }
}
