use std::path::{Path, PathBuf};

use miette::Diagnostic;

use super::check::{Fault, Remedy};
use super::wire::UnknownFields;

/// Why an ONNX file can't be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(ir::io), help("{}", match source.kind() {
        std::io::ErrorKind::StorageFull => "make room on the disk, or choose another with -o",
        _ => "is the path right, and may you read it, or write there?",
    }))]
    Io { path: PathBuf, source: std::io::Error },

    /// The file is empty.
    #[error("{}: the file is empty", path.display())]
    #[diagnostic(
        code(ir::empty),
        help("export the model again; an empty file often means that the disk was full")
    )]
    Empty { path: PathBuf },

    /// The file is not an ONNX file.
    #[error("{}: not an ONNX file: {why}", path.display())]
    #[diagnostic(code(ir::decode), help("the file is cut short, damaged, or of another format"))]
    Decode { path: PathBuf, why: String },

    /// The file has fields that this program would lose.
    #[error("{}: {fields}", path.display())]
    #[diagnostic(
        code(ir::unknown_fields),
        help(
            "a rewrite would lose it: save the file again with a released `onnx` package, or report the producer that wrote it"
        )
    )]
    UnknownFields { path: PathBuf, fields: UnknownFields },

    /// The model is larger than protobuf can hold.
    #[error("{}: {bytes} bytes; protobuf allows 2 GiB at most", path.display())]
    #[diagnostic(code(ir::too_large), help("keep the weights in a file next to it: --external-data"))]
    TooLarge { path: PathBuf, bytes: u64 },

    /// The output is there already.
    #[error("{} exists already", path.display())]
    #[diagnostic(code(ir::exists), help("choose another file with -o, or replace it with --overwrite"))]
    Exists { path: PathBuf },

    /// Writing would overwrite the weights of another model.
    #[error("{} holds the weights of {}, which would lose them", data.display(), model.display())]
    #[diagnostic(
        code(ir::weights_in_use),
        help("choose another name with -o, or overwrite the model itself: -o {}", model.display())
    )]
    WeightsInUse { data: PathBuf, model: PathBuf },

    /// The model breaks a rule of its format.
    #[error("{}: {place}: {why}", path.display())]
    #[diagnostic(code(ir::invalid))]
    Invalid {
        path: PathBuf,
        place: String,
        why: String,
        #[help]
        help: Box<str>,
    },

    /// A rewrite left the model so that it breaks a rule of its format.
    #[error("{}, rewritten: {place}: {why}", path.display())]
    #[diagnostic(
        code(ir::rewritten),
        help(
            "the file was good, so this is a fault of soprano-export, and nothing was written: please report it; `pass run --fuel N` finds the patch"
        )
    )]
    Rewritten { path: PathBuf, place: String, why: String },

    /// The data of a tensor in another file cannot be had.
    #[error("{}: external data of {tensor}: {why}", path.display())]
    #[diagnostic(
        code(ir::external_data),
        help(
            "external data must be a plain file inside the model's folder, or inside the one that the model's link leads to, as long as the tensors say"
        )
    )]
    External { path: PathBuf, tensor: String, why: String },

    /// The values of a constant can't be made.
    #[error("{}: the values of {tensor:?}: {why}", path.display())]
    #[diagnostic(code(ir::values), help("is the checkpoint's file whole, and unchanged?"))]
    Values { path: PathBuf, tensor: String, why: String },
}

impl Error {
    /// A model's fault, with what helps.
    pub(super) fn invalid(path: &Path, fault: Fault) -> Self {
        let file = path.display();
        let python = |change: &str, to: String| {
            format!(
                "python -c \"import onnx; m = onnx.load('{file}'); {change}; onnx.save(m, '{to}')\""
            )
        };
        let help = match fault.remedy {
            Remedy::Opset(opset) => python(
                &format!("m = onnx.version_converter.convert_version(m, {opset})"),
                format!("opset{opset}.onnx"),
            ),
            Remedy::Older(opset) => format!("export the model again at opset {opset} or earlier"),
            Remedy::IrVersion(version) => {
                python(&format!("m.ir_version = {version}"), format!("ir{version}.onnx"))
            }
            Remedy::Import(domain) => python(
                &format!("m.opset_import.add(domain='{domain}', version=1)"),
                "imports.onnx".to_owned(),
            ),
            Remedy::Names => python(
                "[setattr(n, 'name', f'{i}_{n.name}') for i, n in enumerate(m.graph.node)]",
                "named.onnx".to_owned(),
            ),
            Remedy::None => "export the model again, with a newer version of what wrote it".to_owned(),
        };
        let Fault { place, why, .. } = fault;
        Error::Invalid { path: path.to_owned(), place, why, help: help.into() }
    }

    /// The same fault, where the file was good before it was rewritten.
    pub(super) fn ours(self) -> Self {
        match self {
            Error::Invalid { path, place, why, .. } => Error::Rewritten { path, place, why },
            other => other,
        }
    }

    /// Attaches a path to an I/O error.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
