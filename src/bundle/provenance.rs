//! The provenance of a bundle as an in-toto statement with SLSA's provenance, and as a CycloneDX bill of materials.
//! Both follow from the manifest and the other files alone, so two builds of one checkpoint write equal ones.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Extra, Manifest};
use crate::digest::{Digest, Hasher};
use crate::source;

/// The name of the in-toto statement.
pub const STATEMENT: &str = "provenance.intoto.json";
/// The name of the CycloneDX bill of materials.
pub const BILL: &str = "bom.cdx.json";

const HOME: &str = env!("CARGO_PKG_REPOSITORY");
const LOCK: &str = "recipe.lock.yaml";

/// The two files. `exporters` is the digest of the Python exporters; `time`, in seconds since 1970, is written into
/// the bill where it is set (`SOURCE_DATE_EPOCH`), and nowhere else.
pub fn provenance(
    manifest: &Manifest,
    extras: &BTreeMap<String, Extra>,
    exporters: Digest,
    time: Option<u64>,
) -> [(String, Extra); 2] {
    let facts = Facts { manifest, extras, exporters };
    let text =
        |value: Value| Extra::Text(serde_json::to_string_pretty(&value).expect("plain data") + "\n");
    [(STATEMENT.to_owned(), text(facts.statement())), (BILL.to_owned(), text(facts.bill(time)))]
}

/// What provenance follows from.
struct Facts<'a> {
    manifest: &'a Manifest,
    extras: &'a BTreeMap<String, Extra>,
    exporters: Digest,
}

impl Facts<'_> {
    /// Models and references, each by its path, with its digest.
    fn subjects(&self) -> BTreeMap<&str, Digest> {
        let models = self.manifest.artifacts.iter().map(|a| (a.file.as_str(), a.sha256));
        let references = self.extras.iter().filter_map(|(name, extra)| match extra {
            Extra::Copy(_, digest) if name.starts_with("reference/") => Some((name.as_str(), *digest)),
            _ => None,
        });
        models.chain(references).collect()
    }

    fn lock(&self) -> Option<Digest> {
        match self.extras.get(LOCK)? {
            Extra::Text(text) => Some(Digest::of(text.as_bytes())),
            Extra::Copy(_, digest) => Some(*digest),
        }
    }

    /// One digest over everything that was read of the checkpoint.
    fn checkpoint(&self) -> Digest {
        source::digest(&self.manifest.checkpoint.files)
    }

    /// One digest over what the bill lists: bills of one content have one serial number.
    fn content(&self) -> Digest {
        let mut hasher = Hasher::default();
        for (name, digest) in self.subjects() {
            hasher.field(name, digest.to_string());
        }
        hasher.field("checkpoint", self.checkpoint().to_string());
        hasher.field("exporters", self.exporters.to_string());
        for (name, version) in &self.manifest.environment {
            hasher.field(name, version);
        }
        hasher.finish()
    }

    fn statement(&self) -> Value {
        let subjects: Vec<Value> = self
            .subjects()
            .into_iter()
            .map(|(name, digest)| json!({ "name": name, "digest": { "sha256": digest } }))
            .collect();
        let source = &self.manifest.checkpoint.source;
        let weights = self.manifest.checkpoint.files.iter().map(|file| {
            json!({ "name": file.name, "digest": { "sha256": file.sha256 }, "annotations": { "source": source } })
        });
        let lock = self.lock().map(|digest| json!({ "name": LOCK, "digest": { "sha256": digest } }));
        let exporters = json!({ "name": "soprano_export", "digest": { "sha256": self.exporters } });
        let packages = self.manifest.environment.iter();
        let packages =
            packages.map(|(name, version)| json!({ "name": name, "uri": package(name, version) }));
        let materials: Vec<Value> = weights.chain(lock).chain([exporters]).chain(packages).collect();
        let mut versions = self.manifest.environment.clone();
        versions.insert(self.manifest.tool.name.clone(), self.manifest.tool.version.clone());
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": format!("{HOME}/bundle/v1"),
                    "externalParameters": {
                        "source": source,
                        "recipe": { "name": LOCK, "digest": { "sha256": self.lock() } },
                    },
                    "internalParameters": { "checkpoint": { "sha256": self.checkpoint() } },
                    "resolvedDependencies": materials,
                },
                "runDetails": { "builder": { "id": HOME, "version": versions } },
            },
        })
    }

    fn bill(&self, time: Option<u64>) -> Value {
        let Manifest { name, tool, environment, checkpoint, .. } = self.manifest;
        let hashed = |kind: &str, name: &str, reference: String, digest: Digest| {
            let hashes = json!([{ "alg": "SHA-256", "content": digest }]);
            json!({ "type": kind, "bom-ref": reference, "name": name, "hashes": hashes })
        };
        let mut components = Vec::new();
        for (file, digest) in self.subjects() {
            let kind = match file.starts_with("reference/") {
                true => "data",
                false => "machine-learning-model",
            };
            components.push(hashed(kind, file, format!("file:{file}"), digest));
        }
        for file in &checkpoint.files {
            let reference = format!("checkpoint:{}", file.name);
            components.push(hashed("data", &file.name, reference, file.sha256));
        }
        for (package_name, version) in environment {
            let place = package(package_name, version);
            components.push(json!({
                "type": if package_name == "python" { "platform" } else { "library" },
                "bom-ref": place, "name": package_name, "version": version, "purl": place,
            }));
        }
        let references: Vec<Value> =
            components.iter().map(|component| component["bom-ref"].clone()).collect();
        let this = format!("{}@{}", tool.name, tool.version);
        let mut metadata = serde_json::Map::new();
        if let Some(seconds) = time {
            metadata.insert("timestamp".to_owned(), utc(seconds).into());
        }
        metadata.insert(
            "tools".to_owned(),
            json!({ "components": [{
                "type": "application", "bom-ref": this, "name": tool.name, "version": tool.version,
                "properties": [{ "name": "soprano-export:exporters:sha256", "value": self.exporters }],
            }] }),
        );
        metadata.insert(
            "component".to_owned(),
            json!({ "type": "machine-learning-model", "bom-ref": "bundle", "name": name }),
        );
        json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": serial(self.content()),
            "version": 1,
            "metadata": metadata,
            "components": components,
            "dependencies": [{ "ref": "bundle", "dependsOn": references }],
        })
    }
}

/// The address of Python or of a package, whose names are compared in lower case, with hyphens.
fn package(name: &str, version: &str) -> String {
    if name == "python" {
        return format!("pkg:generic/python@{version}");
    }
    let name = name.to_lowercase().replace('_', "-");
    // The one sign in a version that such an address can't hold as it is.
    format!("pkg:pypi/{name}@{}", version.replace('+', "%2B"))
}

/// A UUID of version 8 that follows from a digest.
fn serial(digest: Digest) -> String {
    let hex = digest.to_string();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let (a, b, c, d, e) = (part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32));
    format!("urn:uuid:{a}-{b}-8{c}-a{d}-{e}")
}

/// Seconds since 1970 as RFC 3339 writes them, in UTC.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // The year 9999 is the last that this form can hold.
    let (mut year, mut left) = (1970, days.min(2_932_896));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_others_write_them() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_735_689_599), "2024-12-31T23:59:59Z");
        assert!(utc(u64::MAX).starts_with("9999-12-31T"));
    }

    #[test]
    fn a_serial_number_is_a_uuid_and_follows_from_the_key() {
        let text = serial(Digest::of(b"abc"));
        assert_eq!(text, "urn:uuid:ba7816bf-8f01-8fea-a141-40de5dae2223");
        assert_ne!(text, serial(Digest::of(b"abd")));
    }

    #[test]
    fn package_addresses_are_normal() {
        assert_eq!(package("Soprano_TTS", "1.0+cpu"), "pkg:pypi/soprano-tts@1.0%2Bcpu");
    }
}
