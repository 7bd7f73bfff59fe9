//! Manifests of format 1, which knew Soprano alone.

use serde::de::Error as _;
use serde_json::{Error, Map, Value, json};

use super::{FAMILY, LM};
use crate::names::{Ports, Role};

/// Upgrades a manifest to format 2: `part` becomes `graph`, `scheme` becomes `precision`, and dimensions move to their
/// graph. What has another form is left for the reader to refuse.
///
/// # Errors
/// Where it has a field of format 2.
pub fn upgrade(mut manifest: Value) -> Result<Value, Error> {
    let Some(fields) = manifest.as_object_mut() else { return Ok(manifest) };
    let later = |fields: &Map<String, Value>, names: &[&str]| {
        let name = names.iter().find(|name| fields.contains_key(**name));
        name.map_or(Ok(()), |name| Err(Error::custom(format!("unknown field `{name}` in format 1"))))
    };
    later(fields, &["family", "graphs", "trusted_code"])?;
    let mut used = Vec::new();
    for artifact in fields.get_mut("artifacts").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(artifact) = artifact.as_object_mut() else { continue };
        later(artifact, &["graph", "precision"])?;
        for (from, to) in [("part", "graph"), ("scheme", "precision")] {
            if let Some(value) = artifact.remove(from) {
                artifact.insert(to.to_owned(), value);
            }
        }
        used.extend(artifact.get("graph").and_then(Value::as_str).map(str::to_owned));
    }
    let dimensions = fields.remove("architecture");
    let mut dimensions = dimensions.and_then(|d| d.as_object().cloned()).unwrap_or_default();
    let lm = dimensions.remove(LM);
    let mut graphs = Map::new();
    for graph in FAMILY.shape.graphs.iter().filter(|graph| used.iter().any(|name| name == graph.name)) {
        let mut entry = json!({ "interface": Ports::usual(graph.role) });
        match graph.role {
            Role::Causal => entry["architecture"] = lm.clone().unwrap_or_else(|| json!({})),
            Role::Signal => {
                let number = |name: &str| dimensions.get(name).and_then(Value::as_u64);
                if let Some((hop, upscale)) = number("hop_length").zip(number("upscale")) {
                    entry["framing"] = json!({ "per_frame": hop * upscale, "lead": 1 });
                }
                entry["sample_rate"] = number("sample_rate").into();
                entry["architecture"] = Value::Object(std::mem::take(&mut dimensions));
            }
        }
        graphs.insert(graph.name.to_owned(), entry);
    }
    fields.insert("family".to_owned(), FAMILY.shape.family.into());
    fields.insert("graphs".to_owned(), graphs.into());
    fields.insert("format".to_owned(), 2.into());
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_format_2_is_refused() {
        let old = json!({
            "format": 1, "architecture": {},
            "artifacts": [{"file": "a.onnx", "part": "decoder", "scheme": "fp32"}],
        });
        let new = upgrade(old.clone()).unwrap();
        assert_eq!(
            new["artifacts"][0],
            json!({"file": "a.onnx", "graph": "decoder", "precision": "fp32"})
        );
        for field in ["family", "graphs", "trusted_code"] {
            let mut mixed = old.clone();
            mixed[field] = json!({});
            let error = upgrade(mixed).unwrap_err().to_string();
            assert_eq!(error, format!("unknown field `{field}` in format 1"));
        }
        for field in ["graph", "precision"] {
            let mut mixed = old.clone();
            mixed["artifacts"][0][field] = "x".into();
            let error = upgrade(mixed).unwrap_err().to_string();
            assert_eq!(error, format!("unknown field `{field}` in format 1"));
        }
    }
}
