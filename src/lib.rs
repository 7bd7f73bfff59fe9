//! Turns a PyTorch text-to-speech checkpoint into a validated, CPU-ready model bundle.
//!
//! The rooms stand in a line, and each may use only those before it (`tests/architecture.rs`):
//!
//! ```text
//! files digest tensor audio hardware names | recipe source export ir interface passes quantize convert | runtime speech | family | validate bundle | pipeline | cli
//! ```
//!
//! Data walks through them by value, each stage a type, so that no stage can be skipped:
//! `Recipe -> Checkpoint -> Exported -> ir::Model -> Artifact -> Verdict -> Bundle`.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod audio;
pub mod bundle;
pub mod cli;
pub mod convert;
pub mod digest;
pub mod export;
pub mod family;
pub mod files;
pub mod hardware;
pub mod interface;
pub mod ir;
pub mod names;
pub mod passes;
pub mod pipeline;
pub mod quantize;
pub mod recipe;
pub mod runtime;
pub mod source;
pub mod speech;
pub mod tensor;
pub mod validate;
