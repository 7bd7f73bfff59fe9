//! JSON files of a checkpoint.

use std::path::Path;

use serde_json::{Map, Value};

use crate::files;
use crate::source::Refused;

/// What a JSON file holds.
pub(super) fn json(path: &Path) -> Result<Value, Refused> {
    let place = path.display();
    let bytes = files::read_small(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Refused::new(
            "checkpoint-missing",
            format!("{place} does not exist"),
            format!(
                "a language model's folder holds {}",
                path.file_name().unwrap_or_default().display()
            ),
        ),
        _ => Refused::new("checkpoint-format", format!("{place}: {error}"), "fetch it again"),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Refused::new("checkpoint-format", format!("{place} is not JSON: {error}"), "fetch it again")
    })
}

/// The fields of a JSON file.
pub(super) fn object(path: &Path) -> Result<Map<String, Value>, Refused> {
    match json(path)? {
        Value::Object(fields) => Ok(fields),
        _ => {
            let message = format!("{} is not a JSON object", path.display());
            Err(Refused::new("checkpoint-format", message, "fetch it again"))
        }
    }
}
