//! One safetensors file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};

use super::{AGAIN, FLOATS, INDEX, no_pointer};
use crate::source::Refused;
use crate::tensor::{DType, Stored};

/// The tensors of a safetensors file, which are those of `names` where an index lists them.
pub(super) fn read(
    bytes: &Bytes,
    path: &Path,
    names: Option<&[String]>,
) -> Result<BTreeMap<String, Stored>, Refused> {
    no_pointer(bytes, path)?;
    let refuse = |why: String| {
        let message = format!("{} is not a whole safetensors file: {why}", path.display());
        Refused::new("checkpoint-format", message, AGAIN)
    };
    let file = SafeTensors::deserialize(bytes).map_err(|e| refuse(e.to_string()))?;
    if let Some(name) = repeated(bytes) {
        return Err(refuse(format!("its header has {name:?} twice")));
    }
    let found: BTreeSet<&str> = file.iter().map(|(name, _)| name).collect();
    if let Some(names) = names {
        let listed: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        agree(&found, &listed, path)?;
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let dtype = match DType::from_safetensors(view.dtype()) {
            Some(dtype @ (DType::F32 | DType::F16 | DType::BF16)) => dtype,
            _ => {
                let is = torch_name(view.dtype());
                let message = format!("{}: tensor `{name}` is {is}; {FLOATS}", path.display());
                return Err(Refused::new("checkpoint-dtype", message, ""));
            }
        };
        let stored = Stored::row_major(dtype, view.shape().to_vec(), bytes.slice_ref(view.data()));
        tensors.insert(name.to_owned(), stored.map_err(|e| refuse(e.to_string()))?);
    }
    Ok(tensors)
}

/// Holds the tensors of a shard against those that the index lists for it.
fn agree(found: &BTreeSet<&str>, listed: &BTreeSet<&str>, path: &Path) -> Result<(), Refused> {
    let Some(name) = found.symmetric_difference(listed).next() else { return Ok(()) };
    let said = match listed.contains(name) {
        true => format!("is missing, although {INDEX} says it is there"),
        false => format!("is there, although {INDEX} does not say so"),
    };
    let message = format!("{}: tensor `{name}` {said}", path.display());
    Err(Refused::new("checkpoint-shape", message, "fetch it again"))
}

/// What PyTorch calls a type.
fn torch_name(dtype: Dtype) -> String {
    match dtype {
        Dtype::BOOL => "bool".into(),
        Dtype::F64 => "float64".into(),
        Dtype::F8_E5M2 => "float8_e5m2".into(),
        Dtype::F8_E4M3 => "float8_e4m3fn".into(),
        Dtype::F8_E8M0 => "float8_e8m0fnu".into(),
        Dtype::C64 => "complex64".into(),
        other => {
            let name = format!("{other:?}");
            match name.split_at_checked(1) {
                Some(("I", bits)) => format!("int{bits}"),
                Some(("U", bits)) => format!("uint{bits}"),
                _ => name,
            }
        }
    }
}

/// A name that the header has twice, of which a JSON reader keeps one.
fn repeated(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let names: Names = serde_json::from_slice(rest.get(..length)?).ok()?;
    names.0
}

/// The first key that an object has twice.
struct Names(Option<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let (mut seen, mut twice) = (BTreeSet::new(), None);
                while let Some(key) = map.next_key::<String>()? {
                    map.next_value::<IgnoredAny>()?;
                    if seen.contains(&key) {
                        twice.get_or_insert(key);
                    } else {
                        seen.insert(key);
                    }
                }
                Ok(Names(twice))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}
