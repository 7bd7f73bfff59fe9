//! The ONNX model: a lossless protobuf over a memory map, a read-only index of its graph, and the
//! patches that change it.

mod build;
mod difference;
mod error;
mod external;
mod graph;
mod model;
mod patch;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod proto;
mod scope;
mod tensors;
mod types;
mod write;

pub use build::{Attr, NodeBuilder, TestGraph, node, value_f32, value_i64};
pub use difference::{Change, Difference, differences};
pub use error::Error;
pub use graph::{Graph, NodeId};
pub use model::{Model, Written};
pub use patch::{Patch, Unsafe};
pub use proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto, ValueInfoProto,
};
pub use scope::{Home, Scope};
pub use tensors::{
    dtype_name, initializer_f32, initializer_i64, initializer_raw, shape_of, stored_bytes,
};

/// The domain of nodes that the exporters leave for Rust to replace.
pub const PLACEHOLDER_DOMAIN: &str = "soprano_export";
