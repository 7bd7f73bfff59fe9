//! Graph rewrites: one file each, one ordered list.
//!
//! A pass looks at one node and proposes at most one patch; it never edits. The driver owns
//! safety, the fixed point, the report and the step limit.

mod cancel_transposes;
mod channels_last_depthwise;
mod common_subexpression;
mod constant_folding;
mod conv1x1_to_matmul;
mod deduplicate_initializers;
mod driver;
mod fold_layer_norm;
mod fold_scale;
mod identity_elimination;
pub mod language_model;
mod lift_constants;
mod merge_parallel_matmuls;
mod replace_istft;
mod sink_transposes;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unused_nodes;

pub use driver::{Applied, Driver, Report, UnknownPass};

use crate::ir::{Graph, NodeId, NodeProto, Patch, stored_bytes};

/// A rewrite rule.
pub trait Pass: Sync {
    /// Kebab-case; used in recipes, logs and the metadata of the nodes it makes.
    fn name(&self) -> &'static str;

    /// The rules, as formulas: what is matched and what stands there afterwards.
    fn rules(&self) -> &'static str;

    /// The earliest opset that has the operators it writes, in the forms in which it writes them. Before 7
    /// even an addition broadcasts by attributes of its own, so that none is less.
    fn opset(&self) -> i64 {
        7
    }

    /// By how many bytes one patch may make the file grow without its being counted against the
    /// [`SMALL`] that all patches of a run have together.
    fn growth(&self) -> u64 {
        0
    }

    /// Proposes a change at a node.
    ///
    /// # Errors
    /// [`Skip`] says why there is none.
    fn visit(&self, graph: &Graph<'_>, node: NodeId) -> Result<Patch, Skip>;
}

/// Why a pass leaves a node alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The node is not of the kind the pass is about.
    NoMatch,
    /// The node matches, and nothing would change.
    NoEffect,
    /// The node is of the kind the pass is about, in a form it can't express: reported by name.
    Refused(&'static str),
}

/// A constant of this many bytes may be kept twice, as it was for other uses, and changed; and all that are
/// kept twice may come to as many in one run.
const SMALL: u64 = 1 << 16;

/// Refuses to replace the use of a constant by that of a changed copy where the constant has to stay as well,
/// for other nodes: the file would become larger.
fn replaceable(graph: &Graph<'_>, constant: &str) -> Result<(), Skip> {
    match graph.initializer(constant) {
        Some(tensor) if stored_bytes(tensor) > SMALL && graph.sole_user(constant).is_none() => {
            Err(Skip::Refused("its constant serves another node too, and would be there twice"))
        }
        _ => Ok(()),
    }
}

/// Refuses a node with attributes that its pass does not know: written anew, it would lose them.
fn only(node: &NodeProto, known: &[&str]) -> Result<(), Skip> {
    match node.attribute.iter().all(|a| known.contains(&a.name())) {
        true => Ok(()),
        false => Err(Skip::Refused("an attribute that its operator does not have")),
    }
}

/// A name for what one part of a node becomes; none where the node has none, so that the patch finds one.
fn part_of(node: &NodeProto, part: &str) -> String {
    if node.name().is_empty() { String::new() } else { format!("{}/{part}", node.name()) }
}

/// `None` while matching means: not this pass's node.
fn matched<T>(option: Option<T>) -> Result<T, Skip> {
    option.ok_or(Skip::NoMatch)
}

/// All passes in the order in which they run; each line says why it stands where it does.
pub const ALL: &[&dyn Pass] = &[
    // Constants first: every other pass asks for values, and finds them only as initializers.
    &lift_constants::LiftConstants,
    &identity_elimination::IdentityElimination,
    &constant_folding::ConstantFolding,
    // After folding, which makes equal constants; before matching, which wants one name for each.
    &deduplicate_initializers::DeduplicateInitializers,
    &common_subexpression::CommonSubexpressionElimination,
    // The model-changing passes; each may leave transposes for the one below.
    &replace_istft::ReplaceIstft,
    &conv1x1_to_matmul::Conv1x1ToMatmul,
    &fold_scale::FoldScale,
    &fold_layer_norm::FoldLayerNorm,
    &sink_transposes::SinkTransposes,
    &cancel_transposes::CancelTransposes,
    // After the residual stream has its layout: it wants a transpose on either side.
    &channels_last_depthwise::ChannelsLastDepthwise,
    // After the folds, which want each product's weights to themselves.
    &merge_parallel_matmuls::MergeParallelMatmuls,
    // Last: what the others left without a use.
    &unused_nodes::UnusedNodes,
];

/// A pass by name.
pub fn by_name(name: &str) -> Option<&'static dyn Pass> {
    ALL.iter().copied().find(|pass| pass.name() == name)
}
