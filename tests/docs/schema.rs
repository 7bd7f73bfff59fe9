use std::collections::BTreeMap;

use serde_json::{Value, json};
use soprano_export::bundle::Manifest;
use soprano_export::digest::Digest;

use super::hold;
use super::tables::{hold_tables, manifest_tables};

/// Where a value departs from a schema. Every keyword that this doesn't know is refused: none is passed over.
fn departures(root: &Value, schema: &Value, value: &Value, at: &str, into: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        if schema == &Value::Bool(false) {
            into.push(format!("{at}: not a key"));
        }
        return;
    };
    let fits = |schema: &Value| {
        let mut found = Vec::new();
        departures(root, schema, value, at, &mut found);
        found.is_empty()
    };
    for (keyword, rule) in keywords {
        let holds = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
            // Read with `properties`, below.
            "additionalProperties" => true,
            "$ref" => {
                let definition = &root["$defs"][rule.as_str().unwrap().rsplit('/').next().unwrap()];
                departures(root, definition, value, at, into);
                true
            }
            "anyOf" => rule.as_array().unwrap().iter().any(fits),
            "oneOf" => rule.as_array().unwrap().iter().filter(|one| fits(one)).count() == 1,
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "null" => value.is_null(),
                    other => panic!("{at}: the type {other}"),
                };
                rule.as_array().map_or_else(|| is(rule), |types| types.iter().any(is))
            }
            "required" => {
                let lacks = |key: &&Value| value.get(key.as_str().unwrap()).is_none();
                let missing =
                    rule.as_array().unwrap().iter().filter(|_| value.is_object()).filter(lacks);
                into.extend(missing.map(|key| format!("{at}: without {key}")));
                true
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    departures(root, rule, item, &format!("{at}[{i}]"), into);
                }
                true
            }
            "propertyNames" => {
                let mut keys = value.as_object().into_iter().flatten().map(|(key, _)| key);
                keys.all(|key| {
                    let mut found = Vec::new();
                    departures(root, rule, &json!(key), at, &mut found);
                    found.is_empty()
                })
            }
            "properties" => true,
            other => panic!("{at}: this test doesn't know the keyword {other}"),
        };
        if !holds {
            into.push(format!("{at}: {keyword}"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let known = schema["properties"].get(key).or_else(|| keywords.get("additionalProperties"));
        if let Some(known) = known {
            departures(root, known, inner, &format!("{at}.{key}"), into);
        }
    }
}

pub fn manifest_schema() -> Value {
    let mut schema = schemars::schema_for!(Manifest).to_value();
    schema["title"] = "soprano-export manifest, format 2".into();
    schema["properties"]["format"]["const"] = 2.into();
    schema
}

/// A manifest that has every field once.
fn small() -> Value {
    let digest = Digest::of(b"");
    let file = json!({ "sha256": digest, "bytes": 7 });
    let port = |name: &str| json!({ "name": name, "dtype": "f32", "shape": ["batch", "8", "1..64"] });
    json!({
        "format": 2, "name": "a", "key": digest, "family": "plain",
        "tool": { "name": "soprano-export", "version": "0.1.0" },
        "checkpoint": { "source": "local", "files": [{ "name": "head.safetensors", "sha256": digest }] },
        "trusted_code": ["voices.vocoder:Head"],
        "graphs": {
            "head": {
                "interface": { "role": "signal", "frames": "features", "samples": "waveform" },
                "architecture": { "channels": 8 }, "sample_rate": 16000,
                "framing": { "per_frame": 160, "lead": 1 },
            },
            "backbone": { "interface": { "role": "causal" }, "architecture": {} },
        },
        "environment": { "python": "3.11.7" },
        "artifacts": [{
            "file": "openvino/head_int8.xml", "graph": "head", "precision": "int8", "format": "openvino",
            "sha256": digest, "bytes": 7, "stateful": true, "speed_gate": "skipped",
            "weights": { "file": "openvino/head_int8.bin", "sha256": digest, "bytes": 7 },
            "inputs": [port("features")], "outputs": [port("waveform")],
            "references": "reference/head.safetensors", "tolerance": { "snr_db": 18.0 },
        }],
        "files": { "README.md": file },
    })
}

/// Whether the program reads it, and where it departs from the schema.
fn judged(manifest: &Value) -> (bool, Vec<String>) {
    let schema = manifest_schema();
    let mut found = Vec::new();
    departures(&schema, &schema, manifest, "manifest", &mut found);
    (serde_json::from_value::<Manifest>(manifest.clone()).is_ok(), found)
}

/// Every place of a value, as JSON pointers.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    let entries: BTreeMap<String, &Value> = match value {
        Value::Object(map) => map.iter().map(|(key, inner)| (key.replace('/', "~1"), inner)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(i, inner)| (i.to_string(), inner)).collect()
        }
        _ => BTreeMap::new(),
    };
    for (key, inner) in entries {
        let place = format!("{at}/{key}");
        places(inner, &place, into);
        into.push(place);
    }
}

#[test]
fn the_schema_of_manifests_is_that_of_the_types() {
    let schema = manifest_schema();
    hold_tables("docs/bundle-format.md", &manifest_tables());
    hold("docs/manifest.schema.json", &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
    assert_eq!(judged(&small()), (true, vec![]));
}

#[test]
fn schema_and_program_refuse_the_same_manifests() {
    let whole = small();
    let mut found = Vec::new();
    places(&whole, "", &mut found);
    let (mut refused, mut taken) = (0, 0);
    let mut both = |changed: &Value, what: &str| {
        let (read, departures) = judged(changed);
        assert_eq!(
            read,
            departures.is_empty(),
            "{what}: the program {read}, the schema {departures:?}"
        );
        *(if read { &mut taken } else { &mut refused }) += 1;
    };
    for place in &found {
        let (parent, key) = place.rsplit_once('/').unwrap();
        let mut without = whole.clone();
        if let Some(map) = without.pointer_mut(parent).unwrap().as_object_mut() {
            map.remove(&key.replace("~1", "/"));
            both(&without, &format!("without {place}"));
            for surplus in [json!("x"), json!(1)] {
                let mut more = whole.clone();
                more.pointer_mut(parent).unwrap()["surplus"] = surplus;
                both(&more, &format!("a surplus key next to {place}"));
            }
        }
        for other in [json!("word"), json!(-1), json!([[]]), json!({ "x": {} }), json!(true)] {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = other.clone();
            both(&changed, &format!("{place} = {other}"));
        }
    }
    assert!(refused > 100 && taken > 20, "{refused} refused, {taken} taken");
}
