//! A language model's interface and its attention: a cache for a graph exported without one, its hidden
//! states, a mask and grouped queries that every runtime takes.
//!
//! These change what a graph takes and gives, or an attention as a whole, so they stand outside the list of
//! passes, are asked for by name, and refuse whatever they do not understand.

mod add_kv_cache;
mod attention;
mod canonical_mask;
mod expose_hidden_states;
mod group_query_heads;

pub use add_kv_cache::add_kv_cache;
pub use canonical_mask::canonical_mask;
pub use expose_hidden_states::{Expose, HIDDEN, expose_hidden_states};
pub use group_query_heads::group_query_heads;

use crate::ir::{GraphProto, Model, Names, rename_value};

const LOGITS: &str = "logits";
const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const PAST: &str = "past_key_values.";
const PRESENT: &str = "present.";
const LENGTH: &str = "sequence_length";
const TOTAL: &str = "past_sequence_length + sequence_length";

/// Why a graph's interface or attention can't be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
pub enum Refused {
    #[error("expose-hidden-states: {why}")]
    #[diagnostic(
        code(passes::expose_hidden_states),
        help("a causal language model ends in a product that gives the output \"logits\"")
    )]
    HiddenStates { why: String },
    #[error("{pass}: {}{why}", at.as_ref().map(|at| format!("node {at:?}: ")).unwrap_or_default())]
    #[diagnostic(
        code(passes::attention),
        help("softmax(Q K^T * scale + mask) V is understood, with one head or group of heads an axis")
    )]
    Attention { pass: &'static str, at: Option<String>, why: String },
    #[error("{pass}: it needs opset {needs}, and the model has {has}")]
    #[diagnostic(
        code(passes::opset),
        help(
            "export the model at opset {needs} or later, or convert it: onnx.version_converter.convert_version"
        )
    )]
    Opset { pass: &'static str, needs: i64, has: i64 },
}

fn graph_of(model: &mut Model) -> &mut GraphProto {
    model.proto_mut().graph.as_mut().expect("a checked model has a graph")
}

/// Frees a name that the interface needs: the inner value that has it gets another.
fn free(graph: &mut GraphProto, names: &mut Names, name: &str) {
    if names.knows(name) {
        let other = names.value(name);
        rename_value(graph, name, &other);
    }
}

/// Refuses a model of an opset without an operator that the pass writes.
fn needs_opset(model: &Model, pass: &'static str, needs: i64) -> Result<(), Refused> {
    match model.graph().opset() {
        has if has < needs => Err(Refused::Opset { pass, needs, has }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
