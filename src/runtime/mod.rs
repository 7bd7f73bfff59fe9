//! Runtimes: one trait loads a model and runs it, with inputs and outputs by name.

// Fewer runtimes need less of what all of them share.
#![cfg_attr(
    not(all(feature = "onnxruntime", feature = "openvino", feature = "rten", feature = "tract")),
    allow(dead_code)
)]

mod conversation;
mod engine;
mod library;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
#[cfg(feature = "openvino")]
mod openvino;
mod options;
mod registry;
#[cfg(feature = "rten")]
mod rten;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(feature = "tract")]
mod tract;
#[cfg(feature = "openvino")]
mod weights;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

pub use crate::tensor::Tensors;

pub use crate::names::Format;
pub use engine::{Engine, Takes, Traits};
pub use library::{Library, Places};
pub use options::{Hint, Optimization, Options};
pub use registry::{ALL, built_in, named};
#[cfg(test)]
pub(crate) use testing::Copying;
#[cfg(feature = "tract")]
pub use tract::Tract;

/// Why a runtime can't be used, or can't run a model.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Error {
    /// A model file could not be read.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(runtime::io))]
    Io { path: PathBuf, source: std::io::Error },
    /// The runtime can't load the model.
    #[error("{runtime} can't load the model: {why}")]
    #[diagnostic(code(runtime::load))]
    Load { runtime: &'static str, why: String },
    /// The runtime failed while it ran the model.
    #[error("{runtime} can't run the model: {why}")]
    #[diagnostic(code(runtime::run))]
    Run { runtime: &'static str, why: String },
    /// The runtime's library was not found, or is not one.
    #[error("{runtime} is not available: {why}")]
    #[diagnostic(
        code(runtime::missing),
        help("install it with `make setup`, or set {variable} to the path of its library")
    )]
    Missing { runtime: &'static str, why: String, variable: &'static str },
    /// No built-in runtime was compiled into this program.
    #[error("this program was compiled without a runtime of its own")]
    #[diagnostic(code(runtime::none_built_in), help("cargo build --release --features tract"))]
    NoneBuiltIn,
    /// The model does not have an input of this name.
    #[error("the model has no input {name:?}; it has: {known}")]
    #[diagnostic(code(runtime::input))]
    UnknownInput { name: String, known: String },
    /// An input of the model has no value.
    #[error("the model's input {name:?} has no value")]
    #[diagnostic(code(runtime::input))]
    MissingInput { name: String },
}

/// A runtime found on this machine, with its options.
pub trait Runtime: Sync {
    /// Which one it is.
    fn engine(&self) -> &'static dyn Engine;

    /// Its name and version: `tract 0.23.9`.
    fn name_and_version(&self) -> String;

    /// The shared library that it is in, where it isn't built in.
    fn library(&self) -> Option<&Path> {
        None
    }

    /// Loads it now, to know whether it works.
    ///
    /// # Errors
    /// [`Error::Missing`] says why it doesn't.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Its name in options, recipes and reports.
    fn name(&self) -> &'static str {
        self.engine().name()
    }

    /// Whether it reads files of a format.
    fn runs(&self, format: Format) -> bool {
        self.engine().formats().contains(&format)
    }

    /// How well it runs a file.
    fn takes(&self, file: &Traits) -> Takes {
        match self.runs(file.format) {
            true => self.engine().takes(file),
            false => Takes::Not("it doesn't read that format"),
        }
    }

    /// Loads an ONNX model from memory; open dimensions stay open.
    ///
    /// # Errors
    /// [`Error::Load`] with the runtime's own words.
    fn load_bytes(&self, model: &[u8]) -> Result<Box<dyn Session>, Error>;

    /// Loads a model from a file.
    ///
    /// # Errors
    /// As [`Runtime::load_bytes`], and [`Error::Io`].
    fn load(&self, path: &Path) -> Result<Box<dyn Session>, Error> {
        let bytes =
            crate::files::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        self.load_bytes(&bytes)
    }
}

/// A loaded model. It holds no state: a conversation does.
pub trait Session: Send + Sync {
    /// The names of its inputs, in the model's order.
    fn inputs(&self) -> &[String];

    /// The names of its outputs, in the model's order.
    fn outputs(&self) -> &[String];

    /// Begins a series of calls in which outputs go back in: each of `carried` is an output, and the input that
    /// takes it in the next call. Conversations are independent of each other, the state of a model included.
    ///
    /// # Errors
    /// [`Error::Run`] with the runtime's words.
    fn begin(&self, carried: &[(String, String)]) -> Result<Box<dyn Conversation + '_>, Error>;

    /// Runs the model once, from its initial state: every input by name, every output by name.
    ///
    /// # Errors
    /// [`Error::UnknownInput`], [`Error::MissingInput`], or [`Error::Run`] with the runtime's words.
    fn run(&self, inputs: &Tensors) -> Result<Tensors, Error> {
        self.begin(&[])?.run(inputs)
    }

    /// Seconds that one call takes, as [`Conversation::seconds`].
    ///
    /// # Errors
    /// As [`Session::run`].
    fn seconds(&self, inputs: &Tensors) -> Result<f64, Error> {
        self.begin(&[])?.seconds(inputs)
    }
}

/// Calls one after another, in which what the model gave out goes back in, without a copy where the runtime
/// allows it.
pub trait Conversation {
    /// Runs the model once. At the first call `inputs` are all of the model's, later those that don't come
    /// from the call before. Gives the outputs that don't go back.
    ///
    /// # Errors
    /// As [`Session::run`]; [`Error::Run`] where the model has no output of that name.
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, Error>;

    /// Seconds that one call takes, without making its inputs and reading its outputs; none of these goes back.
    ///
    /// # Errors
    /// As [`Session::run`].
    fn seconds(&mut self, inputs: &Tensors) -> Result<f64, Error>;
}

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// A session of what `load` loads, or the runtime's own words on why it does not.
fn session<S: Session + 'static>(
    runtime: &'static str,
    load: impl FnOnce() -> Result<S, String>,
) -> Result<Box<dyn Session>, Error> {
    match quietly(load) {
        Ok(session) => Ok(Box::new(session)),
        Err(why) => Err(Error::Load { runtime, why }),
    }
}

fn message(error: impl ToString) -> String {
    error.to_string()
}

/// Runs foreign code whose panics are errors here: a model of a hostile shape must not end the
/// process, and its backtrace means nothing to the person who supplied it.
fn quietly<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // rten calls a model in threads of its own, and gives their panics to the one that asked.
            let its_own = std::thread::current().name().is_some_and(|name| name.starts_with("rten-"));
            if !CONTAINED.get() && !its_own {
                usual(info);
            }
        }));
    });
    CONTAINED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(false);
    outcome.unwrap_or_else(|panic| {
        Err(match panic.downcast_ref::<String>() {
            Some(words) => words.clone(),
            None => panic.downcast_ref::<&str>().map_or("it panicked".to_owned(), |w| (*w).to_owned()),
        })
    })
}
