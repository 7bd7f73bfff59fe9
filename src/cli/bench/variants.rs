//! Which file is timed in which runtime.

use std::path::PathBuf;

use super::super::Failure;
use super::super::here::Found;
use crate::bundle::{ArtifactEntry, Bundle};
use crate::interface::Interface;
use crate::runtime::Runtime;

/// A file of the bundle in a runtime.
pub(super) struct Variant<'a> {
    pub entry: &'a ArtifactEntry,
    pub path: PathBuf,
    pub interface: Interface,
    pub runtime: &'a dyn Runtime,
}

/// Every file of a bundle in every runtime that runs it, and a sentence for each pair that is left out.
pub(super) fn of<'a>(
    bundle: &'a Bundle,
    found: &'a Found,
) -> Result<(Vec<Variant<'a>>, Vec<String>), Failure> {
    let (mut variants, mut left_out) = (Vec::new(), Vec::new());
    for entry in &bundle.manifest().artifacts {
        let artifact = bundle.model(entry)?;
        let traits = entry.traits(&artifact)?;
        let ports = &bundle.manifest().graph(entry).interface;
        let interface = Interface::bind(ports, &entry.signature())?;
        for runtime in found.runtimes.iter().filter(|runtime| runtime.runs(entry.format)) {
            if let Some(why) = found.declines(runtime.as_ref(), &traits) {
                left_out.push(format!("{} is not timed in {}: {why}", entry.file, runtime.name()));
                continue;
            }
            let (path, interface) = (artifact.path.clone(), interface.clone());
            variants.push(Variant { entry, path, interface, runtime: runtime.as_ref() });
        }
    }
    Ok((variants, left_out))
}
