use std::path::PathBuf;

use crate::names::Exporter;
use crate::validate::{Speed, Verdict};
use crate::{bundle, export, ir, passes, source, tensor, validate};

/// How a build ends without a bundle.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] source::Refused),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Export(#[from] export::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ir::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pass(#[from] passes::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tensor(#[from] tensor::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Validate(#[from] validate::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Bundle(#[from] bundle::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Quantize(#[from] crate::quantize::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Convert(#[from] crate::convert::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Runtime(#[from] crate::runtime::Error),
    /// The cache could not be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(
        code(pipeline::io),
        help("is the disk full, or the cache folder not writable? --cache-dir names another")
    )]
    Io { path: PathBuf, source: std::io::Error },
    /// A finished stage is damaged.
    #[error("{}: {why}", path.display())]
    #[diagnostic(code(pipeline::damaged), help("soprano-export cache prune"))]
    Damaged { path: PathBuf, why: String },
    /// An answer that a checkpoint carries can't be taken.
    #[error("{}: {why}", path.display())]
    #[diagnostic(
        code(pipeline::carried),
        help("fetch the checkpoint again, or ask another with --references float64")
    )]
    Carried { path: PathBuf, why: String },
    /// A checkpoint of a hub, and nothing here that fetches it.
    #[error("{repo:?} is taken for a hub id, which the Python environment fetches, and none was found")]
    #[diagnostic(
        code(pipeline::hub),
        help(
            "make setup   (or --python PATH); a folder begins with ./ or /, and drawn weights with seeded:"
        )
    )]
    HubNeedsPython { repo: String },
    /// A Python task left out part of its result.
    #[error("the exporter's result has no {field}")]
    #[diagnostic(
        code(pipeline::result),
        help("the environment holds another version of the exporters: make setup")
    )]
    Result { field: &'static str },
    /// A file is out of tolerance.
    #[error("the artifact is out of tolerance and was not bundled; it is kept at {}", kept.display())]
    #[diagnostic(code(pipeline::rejected), help("{}", where_to_look(verdict)))]
    Rejected { verdict: Box<Verdict>, kept: PathBuf },
    /// A surgery that the recipe names is for graphs of another role.
    #[error("graph `{graph}`: `passes` has {surgery}, which is for causal graphs")]
    #[diagnostic(code(pipeline::surgery), help("take it out; soprano-export pass explain {surgery}"))]
    Surgery { graph: String, surgery: &'static str },
    /// A graph has no such exporter.
    #[error("graph `{graph}` is not exported by {exporter}")]
    #[diagnostic(code(pipeline::exporter), help("one of: {known}"))]
    Exporter { graph: String, exporter: Exporter, known: String },
    /// No checkpoint of that name is in this program.
    #[error("no checkpoint {name:?} is in this program; there are: {known}")]
    #[diagnostic(code(pipeline::built_in), help("builtin:{known}"))]
    BuiltIn { name: String, known: String },
    /// The recipe names code, and nobody has said that it may run.
    #[error("{import} is code that this program does not know; none of it was run")]
    #[diagnostic(code(pipeline::code_not_trusted), help("read it, then run this with --trust-code"))]
    NotTrusted { import: String },
    /// An int8 file is slower than its fp32 one.
    #[error(
        "the int8 {graph} takes {:.2} ms, its fp32 {:.2} ms ({} in {}): slower, so it was not bundled",
        speed.int8_ms, speed.fp32_ms, speed.what, speed.runtime
    )]
    #[diagnostic(
        code(pipeline::slow),
        help(
            "--no-speed-gate takes it all the same; `activations: one` or fewer nodes in 8 bits may be faster"
        )
    )]
    Slow { graph: String, speed: Box<Speed> },
    /// The file runs in ONNX Runtime alone, and there is none.
    #[error("weights in blocks of 8 bits run in ONNX Runtime alone, and there is none here")]
    #[diagnostic(
        code(pipeline::no_onnxruntime),
        help("make setup installs it, --onnxruntime names its library; or write `form: dynamic`")
    )]
    NoOnnxRuntime,
    /// The file runs in OpenVINO alone, and there is none.
    #[error("OpenVINO's format is validated in OpenVINO, and there is none here")]
    #[diagnostic(
        code(pipeline::no_openvino),
        help("make setup installs it, SOPRANO_EXPORT_OPENVINO names its library; or leave it out")
    )]
    NoOpenVino,
    /// There is no runtime to time an int8 file in.
    #[error("int8 must be faster than fp32, and there is no ONNX Runtime here to time them in")]
    #[diagnostic(
        code(pipeline::no_clock),
        help("make setup installs it, --onnxruntime names its library; --no-speed-gate goes without")
    )]
    NoClock,
    /// The build has no stage of that name.
    #[error("the build has no stage {stage:?}; it has: {known}")]
    #[diagnostic(code(pipeline::no_stage), help("soprano-export plan RECIPE lists them"))]
    NoStage { stage: String, known: String },
    /// Two recipes would write one bundle.
    #[error("two recipes make a bundle named {name:?}")]
    #[diagnostic(code(pipeline::same_name), help("give one of them another `name:`"))]
    SameName { name: String },
    /// The build was stopped from outside.
    #[error("interrupted")]
    #[diagnostic(code(pipeline::interrupted))]
    Interrupted,
}

fn where_to_look(verdict: &Verdict) -> String {
    match (&verdict.divergence, verdict.unproven()) {
        (Some(divergence), _) => format!("it first diverges at {divergence}"),
        (None, Some(kind)) => format!(
            "a last bit throws over what PyTorch answers to every {kind} reference: record others \
             (`references` in the recipe), or look at the checkpoint's weights",
            kind = kind.name()
        ),
        (None, None) => "no inner value could be compared".to_owned(),
    }
}

impl Error {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
