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

use crate::ir::{GraphProto, Model};

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
}

fn graph_of(model: &mut Model) -> &mut GraphProto {
    model.proto_mut().graph.as_mut().expect("a checked model has a graph")
}

/// Gives a value another name wherever it is read or made.
fn rename(graph: &mut GraphProto, old: &str, new: &str) {
    for made in &mut graph.node {
        for name in made.input.iter_mut().chain(&mut made.output).filter(|name| *name == old) {
            *name = new.to_owned();
        }
    }
}

#[cfg(test)]
mod tests;
