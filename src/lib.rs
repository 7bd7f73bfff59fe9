//! Turns a PyTorch text-to-speech checkpoint into a validated, CPU-ready model bundle, and lets it speak.
//!
//! # Speaking
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//!
//! use soprano_export::{Bundle, Script, Settings, runtime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bundle = Bundle::open("soprano-1.1".as_ref())?;
//! let runtime = runtime::built_in()?;
//! let voice = bundle.voice_in(runtime.as_ref(), None)?;
//! let text = Script { name: "the text".into(), text: "Hello there.".into() };
//! let mut samples: Vec<f32> = Vec::new();
//! voice.speak(&[text], &Settings::default(), &mut samples, &AtomicBool::new(false))?;
//! # Ok(())
//! # }
//! ```
//!
//! # Rewriting
//!
//! [`Model`] reads an ONNX file without loss, [`passes`] rewrites it, [`quantize`] writes it in 8 bits, and
//! [`validate`] holds it to what PyTorch recorded. `examples/` has a program for each.
//!
//! # Features
//!
//! | feature | what it brings |
//! |---|---|
//! | `cli` | the program; and with it the two below |
//! | `publish` | bundles to and from a folder, a registry, a hub |
//! | `report` | the pages of a bundle, and [`pipeline`], which builds one |
//! | `tract`, `rten` | runtimes that are built in |
//! | `onnxruntime`, `openvino` | runtimes whose libraries are found when they are asked for |
//!
//! # Security
//!
//! A bundle's path comes from [`Bundle`] alone, contained in its folder and hashed; no checkpoint's code is run unless
//! that is asked for. `SECURITY.md` says what a hostile file can and can't do.
//!
//! # Rooms
//!
//! The rooms stand in a line, and each may use only those before it (`tests/architecture/`):
//!
//! ```text
//! files digest tensor audio hardware names | recipe source export ir interface front passes quantize convert | runtime speech | family | validate bundle | pipeline | cli
//! ```
//!
//! Data walks through them by value, each stage a type, so that no stage can be skipped:
//! `Recipe -> Checkpoint -> Exported -> ir::Model -> Artifact -> Verdict -> Bundle`.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod audio;
pub mod bundle;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod convert;
pub mod digest;
pub mod export;
pub mod family;
pub mod files;
pub mod front;
pub mod hardware;
pub mod interface;
pub mod ir;
pub mod names;
pub mod passes;
#[cfg(feature = "report")]
pub mod pipeline;
pub mod quantize;
pub mod recipe;
pub mod runtime;
pub mod source;
pub mod speech;
pub mod tensor;
pub mod validate;

pub use bundle::{Bundle, Manifest};
pub use interface::{Interface, Signature};
pub use ir::Model;
pub use names::{Format, Precision, Role};
pub use passes::{Driver, Pass, Surgery};
pub use recipe::Recipe;
pub use runtime::{Runtime, Session};
pub use speech::{Audience, Script, Settings, Voice};
pub use tensor::{Tensor, Tensors};
pub use validate::Verdict;
