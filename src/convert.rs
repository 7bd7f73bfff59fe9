//! Converts an ONNX file to OpenVINO's intermediate representation, by OpenVINO's own converter.
//!
//! It starts from the fp32 file: OpenVINO runs ONNX's integer products slower than fp32 ones. Its int8 is nncf's
//! compression of weights.

use std::path::Path;

use crate::export::{self, Child, Convert, InputShape, Request, Subject};
use crate::ir::Model;
use crate::names::{Precision, Word as _};
use crate::quantize;
use crate::recipe::OpenVinoTarget;

/// How a conversion fails.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Export(#[from] export::Error),
    /// The converter left out a file.
    #[error("the converter left no {file}")]
    #[diagnostic(
        code(convert::missing),
        help("the environment holds another version of the exporters: make setup")
    )]
    Missing { file: String },
    /// The converted file has other inputs or outputs than its ONNX file.
    #[error("the converted model's {what} are {found}, and the ONNX file's {wanted}")]
    #[diagnostic(code(convert::interface), help("clients count them: use `via: onnx`"))]
    Interface { what: &'static str, found: String, wanted: String },
}

/// The graph and the weights of a precision, by their names in the folder of a conversion.
pub fn files(precision: Precision) -> [String; 2] {
    ["xml", "bin"].map(|kind| format!("{}.{kind}", precision.name()))
}

/// Where a conversion reads from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The fp32 ONNX file.
    pub model: &'a Path,
    /// The folder of PyTorch's weights, for a target that is made from the module.
    pub checkpoint: &'a Path,
    /// The graph's references, for a target whose activations are calibrated.
    pub references: &'a Path,
}

/// Converts a model; `folder` holds [`files`] of each precision afterwards. Gives what the converter said.
pub fn openvino(
    child: &Child<'_>,
    subject: Subject<'_>,
    target: &OpenVinoTarget,
    sources: Sources<'_>,
    model: &Model,
    folder: &Path,
) -> Result<serde_json::Value, Error> {
    let ports = subject.names;
    let mut keep_fp32 = target.keep_fp32.clone();
    keep_fp32.extend(quantize::spectral_products(model));
    let request = Request::Convert(Convert {
        model: sources.model,
        subject,
        precisions: &target.precisions,
        via: target.via.name(),
        checkpoint: sources.checkpoint,
        keep_fp32: &keep_fp32,
        shapes: target.shapes.iter().map(|(input, dims)| InputShape { input, dims }).collect(),
        stateful: target.stateful,
        calibration: target.calibrated.then_some(sources.references),
    });
    let outcome = child.run(&request, folder)?;
    for file in target.precisions.iter().flat_map(|&precision| files(precision)) {
        if outcome.artifacts.values().all(|artifact| artifact.path != *file) {
            return Err(Error::Missing { file });
        }
    }
    let graph = model.graph_proto();
    let own = |name: &str| target.stateful && ports.is_cache(name);
    let names = |ports: &[crate::ir::ValueInfoProto]| -> Vec<String> {
        ports.iter().map(|port| port.name().to_owned()).filter(|name| !own(name)).collect()
    };
    for (what, expected) in [("inputs", names(&graph.input)), ("outputs", names(&graph.output))] {
        let found = outcome.result.get(what).and_then(|names| names.as_array());
        let found: Vec<&str> = found.into_iter().flatten().filter_map(|name| name.as_str()).collect();
        if found != expected {
            let (found, expected) = (found.join(", "), expected.join(", "));
            return Err(Error::Interface { what, found, wanted: expected });
        }
    }
    Ok(outcome.result)
}
