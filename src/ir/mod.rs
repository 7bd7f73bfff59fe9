//! The ONNX model: a lossless protobuf over a memory map, a read-only index of its graph, and the
//! patches that change it.

mod build;
mod check;
mod conformance;
mod difference;
mod domains;
mod draft;
mod error;
mod external;
mod fields;
mod forms;
mod graph;
mod map;
mod model;
mod names;
mod operators;
mod patch;
mod plan;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod proto;
mod purity;
mod save;
mod scope;
mod tensors;
mod test_graph;
#[cfg(test)]
mod tests;
mod types;
mod walk;
mod wire;
mod write;

pub use build::{Attr, NodeBuilder, node, value_f32, value_i64};
pub(crate) use difference::same_attributes;
pub use difference::{Change, Difference, differences};
pub use draft::{Draft, Late, Make};
pub use error::Error;
pub use forms::{Form, List, Operand};
pub use graph::{Graph, NodeId};
pub use model::Model;
pub use names::Names;
pub(crate) use names::rename_value;
pub use patch::{Patch, Unsafe};
pub use proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, TensorProto, ValueInfoProto,
};
pub use save::{Saved, Weights, Written};
pub use scope::{Home, Scope};
pub(crate) use tensors::{code_of, constant_of, dtype_of, plain_bytes, value_of};
pub use tensors::{
    dtype_name, initializer_f32, initializer_i64, initializer_raw, shape_of, stored_bytes,
};
pub use test_graph::TestGraph;
pub use wire::UnknownFields;

/// The domain of nodes that the exporters leave for Rust to replace.
pub const PLACEHOLDER_DOMAIN: &str = "soprano_export";

/// `1 node`, `2 nodes`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
