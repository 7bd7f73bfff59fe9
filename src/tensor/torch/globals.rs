//! The names that a pickle may ask for. Everything else is refused.

use crate::tensor::DType;

/// An element type: as PyTorch names it, and as it is here where it is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// `float32`, `complex64`, …
    pub name: &'static str,
    /// Bytes of an element; 0 where a storage of this type can't be measured in elements.
    pub size: usize,
    /// What it is here.
    pub dtype: Option<DType>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// Functions of `torch._utils` and `torch._tensor`.
    Rebuild(Rebuild),
    /// A class of storages, and the type of their elements.
    Storage(&'static Element),
    /// An element type.
    Element(&'static Element),
    /// `torch.Size`: a tuple.
    Size,
    /// A class or constant that is harmless and that no dense tensor needs, by the name of its type.
    Other(&'static str),
}

/// A function that makes a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rebuild {
    /// `_rebuild_tensor(storage, offset, size, stride)`.
    V1,
    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata=None)`.
    V2,
    /// `_rebuild_tensor_v3`: as v2, with the element type before the metadata.
    V3,
    /// `_rebuild_parameter(data, requires_grad, hooks)`, `_rebuild_parameter_with_state(…, state)`.
    Parameter,
    /// `_rebuild_from_type_v2(function, type, arguments, state)`: a tensor with attributes.
    FromType,
    /// `_rebuild_device_tensor_from_cpu_tensor(data, dtype, device, requires_grad)`.
    FromDevice,
    /// A tensor that is not dense; how it is laid out.
    Foreign(&'static str),
}

const fn element(name: &'static str, size: usize, dtype: Option<DType>) -> Element {
    Element { name, size, dtype }
}

/// The type that bytes without a type have.
pub(super) static BYTES: Element = element("uint8", 1, Some(DType::U8));

/// Classes of storages, without `Storage`, and their elements.
static STORAGES: &[(&str, Element)] = &[
    ("Float", element("float32", 4, Some(DType::F32))),
    ("Half", element("float16", 2, Some(DType::F16))),
    ("BFloat16", element("bfloat16", 2, Some(DType::BF16))),
    ("Double", element("float64", 8, Some(DType::F64))),
    ("Long", element("int64", 8, Some(DType::I64))),
    ("Int", element("int32", 4, Some(DType::I32))),
    ("Short", element("int16", 2, Some(DType::I16))),
    ("Char", element("int8", 1, Some(DType::I8))),
    ("Byte", element("uint8", 1, Some(DType::U8))),
    ("Bool", element("bool", 1, Some(DType::Bool))),
    ("ComplexFloat", element("complex64", 8, None)),
    ("ComplexDouble", element("complex128", 16, None)),
    ("QUInt8", element("quint8", 1, None)),
    ("QInt8", element("qint8", 1, None)),
    ("QInt32", element("qint32", 4, None)),
    ("QUInt4x2", element("quint4x2", 1, None)),
    ("QUInt2x4", element("quint2x4", 1, None)),
];

/// Element types that have no class of storages.
static NEW_ELEMENTS: &[Element] = &[
    element("uint16", 2, Some(DType::U16)),
    element("uint32", 4, Some(DType::U32)),
    element("uint64", 8, Some(DType::U64)),
    element("complex32", 4, None),
    element("float8_e5m2", 1, None),
    element("float8_e4m3fn", 1, None),
    element("float8_e5m2fnuz", 1, None),
    element("float8_e4m3fnuz", 1, None),
    element("float8_e8m0fnu", 1, None),
    element("float4_e2m1fn_x2", 1, None),
    element("bits8", 1, None),
    element("bits16", 2, None),
    element("bits1x8", 1, None),
    element("bits2x4", 1, None),
    element("bits4x2", 1, None),
];

/// What `module.name` stands for; none where it is not part of a tensor.
pub(super) fn known(module: &str, name: &str) -> Option<Global> {
    let module = python_3(module);
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("collections", "Counter") => Global::Other("Counter"),
        ("builtins", "set") => Global::Other("set"),
        ("builtins", "bytearray") => Global::Other("bytearray"),
        ("builtins", "complex") => Global::Other("complex"),
        ("_codecs", "encode") => Global::Other("bytes"),
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Other("device"),
        ("torch", "Tensor") => Global::Other("Tensor"),
        ("torch.nn.parameter", "Parameter") => Global::Other("Parameter"),
        ("torch.serialization", "_get_layout") => Global::Other("layout"),
        ("torch._tensor", "_rebuild_from_type_v2") => Global::Rebuild(Rebuild::FromType),
        ("torch._utils", name) => Global::Rebuild(rebuild(name)?),
        ("torch.storage" | "torch", "UntypedStorage") => Global::Storage(&BYTES),
        ("torch" | "torch.cuda", name) if name.ends_with("Storage") => {
            let kind = name.strip_suffix("Storage")?;
            let found = STORAGES.iter().find(|(known, _)| *known == kind);
            Global::Storage(&found?.1)
        }
        ("torch", name) => {
            let elements = STORAGES.iter().map(|(_, element)| element).chain(NEW_ELEMENTS);
            match elements.into_iter().find(|element| element.name == name) {
                Some(element) => Global::Element(element),
                None if name.starts_with("per_tensor_") || name.starts_with("per_channel_") => {
                    Global::Other("qscheme")
                }
                None => return None,
            }
        }
        _ => return None,
    })
}

fn rebuild(name: &str) -> Option<Rebuild> {
    Some(match name {
        "_rebuild_tensor" => Rebuild::V1,
        "_rebuild_tensor_v2" => Rebuild::V2,
        "_rebuild_tensor_v3" => Rebuild::V3,
        "_rebuild_parameter" | "_rebuild_parameter_with_state" => Rebuild::Parameter,
        "_rebuild_sparse_tensor" => Rebuild::Foreign("sparse"),
        "_rebuild_qtensor" => Rebuild::Foreign("quantized"),
        "_rebuild_meta_tensor_no_storage" => Rebuild::Foreign("meta"),
        "_rebuild_wrapper_subclass" => Rebuild::Foreign("a subclass of Tensor"),
        "_rebuild_device_tensor_from_cpu_tensor" => Rebuild::FromDevice,
        "_rebuild_device_tensor_from_numpy" => Rebuild::Foreign("of another device"),
        _ => return None,
    })
}

/// A module's name in Python 3; pickles of protocol 2 and less have those of Python 2.
pub(super) fn python_3(module: &str) -> &str {
    match module {
        "__builtin__" | "exceptions" => "builtins",
        "copy_reg" => "copyreg",
        other => other,
    }
}

/// A name as errors write it: without `builtins`, and nothing in it that a terminal would obey.
pub(super) fn called(module: &str, name: &str) -> String {
    let module = python_3(module);
    let whole = match module {
        "builtins" => name.to_owned(),
        _ => format!("{module}.{name}"),
    };
    whole.escape_debug().take(200).collect()
}
