use std::path::PathBuf;

use miette::Diagnostic;

/// Each way in which an ONNX file can't be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    #[diagnostic(
        code(ir::io),
        help("is the path right, may you read it, and is there room on the disk?")
    )]
    Io { path: PathBuf, source: std::io::Error },

    #[error("{}: the file is empty", path.display())]
    #[diagnostic(
        code(ir::empty),
        help("export the model again; an empty file is often a full disk's trace")
    )]
    Empty { path: PathBuf },

    #[error("{}: not an ONNX file: {why}", path.display())]
    #[diagnostic(code(ir::decode), help("the file is cut short, damaged, or of another format"))]
    Decode { path: PathBuf, why: String },

    #[error("{}: {}", path.display(), what_is_lost(*lost))]
    #[diagnostic(
        code(ir::lossy),
        help("save it again with a released `onnx` package, or report the producer that wrote it")
    )]
    Lossy { path: PathBuf, lost: i64 },

    #[error("{}: {bytes} bytes; protobuf ends at 2 GiB", path.display())]
    #[diagnostic(code(ir::too_large), help("keep the weights in external data"))]
    TooLarge { path: PathBuf, bytes: u64 },

    #[error("{} exists already", path.display())]
    #[diagnostic(code(ir::exists), help("choose another file with -o, or replace it with --overwrite"))]
    Exists { path: PathBuf },

    #[error("{}: {place}: {why}", path.display())]
    #[diagnostic(code(ir::invalid))]
    Invalid { path: PathBuf, place: String, why: String },

    #[error("{}: external data of {tensor}: {why}", path.display())]
    #[diagnostic(
        code(ir::external_data),
        help(
            "external data must be a plain file beside the model, inside its folder, as long as the tensors say"
        )
    )]
    External { path: PathBuf, tensor: String, why: String },
}

fn what_is_lost(lost: i64) -> String {
    match lost.unsigned_abs() {
        bytes if lost > 0 => format!(
            "{bytes} bytes of this file are fields that no known ONNX version has; rewriting would lose them"
        ),
        bytes => format!("its lists of numbers are packed where ONNX's are not, by {bytes} bytes"),
    }
}

impl Error {
    /// Attaches a path to an I/O error.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
