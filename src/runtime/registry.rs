//! The runtimes that this program knows: one file each, and one line here.

use super::{Engine, Error, Options, Places, Runtime};

/// Every runtime that is compiled in. The first that takes a file is the one that judges it.
pub const ALL: &[&dyn Engine] = &[
    #[cfg(feature = "tract")]
    &super::tract::ENGINE,
    #[cfg(feature = "onnxruntime")]
    &super::onnxruntime::ENGINE,
    #[cfg(feature = "openvino")]
    &super::openvino::ENGINE,
    #[cfg(feature = "rten")]
    &super::rten::ENGINE,
];

/// The runtime of a name.
pub fn named(name: &str) -> Option<&'static dyn Engine> {
    ALL.iter().copied().find(|engine| engine.name() == name)
}

/// The first runtime that is built in: the same on every machine.
///
/// # Errors
/// [`Error::NoneBuiltIn`] where the program was compiled without any.
pub fn built_in() -> Result<Box<dyn Runtime>, Error> {
    let engine = ALL.iter().find(|engine| engine.library().is_none()).ok_or(Error::NoneBuiltIn)?;
    engine.find(&Places::default(), Options::EXACT)
}
