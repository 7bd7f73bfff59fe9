//! Which files a language model's weights lie in.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{INDEX, WEIGHTS};
use crate::files;
use crate::source::Refused;

/// What helps where a file is not there.
pub(super) const HOLDS: &str =
    "a language model's folder holds model.safetensors, or model.safetensors.index.json and its shards";

/// A file, and the tensors that an index lists for it.
type Shard = (PathBuf, Option<Vec<String>>);

/// The file that holds or lists all tensors, and the files that they lie in.
pub(super) fn list(folder: &Path) -> Result<(PathBuf, Vec<Shard>), Refused> {
    let (one, index) = (folder.join(WEIGHTS), folder.join(INDEX));
    if one.exists() || !index.exists() {
        return Ok((one.clone(), vec![(one, None)]));
    }
    let refuse = |why: &str| {
        let message = format!("{}{why}", index.display());
        Refused::new("checkpoint-format", message, "fetch it again")
    };
    let text = files::read_small(&index).map_err(|e| refuse(&format!(" is not JSON: {e}")))?;
    let listed: Value =
        serde_json::from_slice(&text).map_err(|e| refuse(&format!(" is not JSON: {e}")))?;
    let Some(table) = listed.get("weight_map").and_then(Value::as_object).filter(|t| !t.is_empty())
    else {
        return Err(refuse(" has no `weight_map`"));
    };
    let mut shards: Vec<Shard> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (name, file) in table {
        let Some(file) = file.as_str().filter(|file| is_shard(file)) else {
            let shown = file.as_str().map_or_else(|| file.to_string(), |text| format!("{text:?}"));
            let shown: String = shown.chars().take(80).collect();
            return Err(refuse(&format!(": {shown} is not the name of a safetensors file next to it")));
        };
        let at = *places.entry(file).or_insert_with(|| {
            shards.push((folder.join(file), Some(Vec::new())));
            shards.len() - 1
        });
        if let Some((_, Some(names))) = shards.get_mut(at) {
            names.push(name.clone());
        }
    }
    Ok((index, shards))
}

/// Whether a name is that of a safetensors file in the same folder, and no hidden one.
fn is_shard(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.strip_suffix(".safetensors")
        .is_some_and(|stem| stem.starts_with(is_word) && stem.chars().all(|c| is_word(c) || c == '.'))
}
