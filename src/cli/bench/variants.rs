//! Which file is timed in which runtime.

use std::path::PathBuf;

use super::super::arguments::{RuntimeName, Shared};
use super::super::{Failure, build};
use crate::bundle::{ArtifactEntry, Bundle};
use crate::interface::Interface;
use crate::ir::Model;
use crate::names::Precision;
use crate::quantize::needs_onnxruntime;
use crate::runtime::{self, Format, Runtime, Tract};

/// A file of the bundle in a runtime.
pub(super) struct Variant<'a> {
    pub entry: &'a ArtifactEntry,
    pub path: PathBuf,
    pub interface: Interface,
    pub runtime: &'a dyn Runtime,
    pub named: RuntimeName,
}

/// The runtimes that are here.
pub(super) struct Runtimes {
    found: Vec<(RuntimeName, Box<dyn Runtime>)>,
    /// Whether tract was asked for by its name.
    tract_is_named: bool,
    /// Those that are not, each as a sentence.
    pub missing: Vec<String>,
}

/// Finds what was asked for. One that is named must be there; of all, a missing one is a sentence.
pub(super) fn runtimes(
    asked: &[RuntimeName],
    threads: usize,
    shared: &Shared,
) -> Result<Runtimes, Failure> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let all = asked.contains(&RuntimeName::All);
    for one in [RuntimeName::Tract, RuntimeName::Onnxruntime, RuntimeName::Openvino] {
        let named = asked.contains(&one);
        if !all && !named {
            continue;
        }
        let here = find(one, runtime::Options::fast(threads), shared);
        match here {
            Ok(runtime) => found.push((one, runtime)),
            Err(error) if named || has_library(one, shared) => return Err(error),
            Err(error) => missing.push(format!("{error}; it is left out")),
        }
    }
    Ok(Runtimes { found, tract_is_named: asked.contains(&RuntimeName::Tract), missing })
}

/// Whether the person named a runtime's library: it must then be one.
pub(in super::super) fn has_library(runtime: RuntimeName, shared: &Shared) -> bool {
    match runtime {
        RuntimeName::Onnxruntime => shared.onnxruntime.is_some(),
        RuntimeName::Openvino => shared.openvino_library.is_some(),
        RuntimeName::All | RuntimeName::Tract => false,
    }
}

/// One runtime, to work in a way.
pub(in super::super) fn find(
    runtime: RuntimeName,
    options: runtime::Options,
    shared: &Shared,
) -> Result<Box<dyn Runtime>, Failure> {
    Ok(match runtime {
        RuntimeName::All | RuntimeName::Tract => Box::new(Tract),
        RuntimeName::Onnxruntime => {
            Box::new(build::required_onnxruntime(shared)?.with_options(options))
        }
        RuntimeName::Openvino => Box::new(build::required_openvino(shared)?.with_options(options)),
    })
}

/// Every file of a bundle in every runtime that runs it, and a sentence for each pair that is left out.
pub(super) fn of<'a>(
    bundle: &'a Bundle,
    runtimes: &'a Runtimes,
) -> Result<(Vec<Variant<'a>>, Vec<String>), Failure> {
    let (mut variants, mut left_out) = (Vec::new(), Vec::new());
    for entry in &bundle.manifest().artifacts {
        let path = bundle.model(entry)?.path;
        let onnx = entry.format == Format::Onnx;
        let of_onnxruntime = onnx && needs_onnxruntime(&Model::open(&path)?);
        let ports = &bundle.manifest().graph(entry).interface;
        let interface = Interface::bind(ports, &entry.signature())?;
        for (named, runtime) in &runtimes.found {
            let int8 = onnx && entry.precision != Precision::Fp32;
            let why = match named {
                _ if !runtime.runs(entry.format) => continue,
                RuntimeName::Openvino if int8 => {
                    Some("OpenVINO runs such products slower than fp32; an IR file is for it")
                }
                RuntimeName::Tract if of_onnxruntime => Some("its products are ONNX Runtime's own"),
                RuntimeName::Openvino if of_onnxruntime => continue,
                RuntimeName::Tract if int8 && !runtimes.tract_is_named => {
                    Some("its 8-bit products take minutes there; --runtime tract asks for it")
                }
                _ => None,
            };
            if let Some(why) = why {
                left_out.push(format!("{} is not timed in {}: {why}", entry.file, runtime.name()));
                continue;
            }
            let (path, interface) = (path.clone(), interface.clone());
            variants.push(Variant { entry, path, interface, runtime: runtime.as_ref(), named: *named });
        }
    }
    Ok((variants, left_out))
}
