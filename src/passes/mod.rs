//! Graph rewrites: one file each, one ordered list.
//!
//! A [`Pass`] looks at one node and proposes at most one patch; a [`Surgery`] changes a graph as a whole. The
//! driver owns safety, the fixed point, the report and the step limit. `docs/adding-a-pass.md` shows how one
//! is added.

mod add_kv_cache;
mod attention;
mod cancel_transposes;
mod canonical_mask;
mod channels_last_depthwise;
mod common_subexpression;
mod constant_folding;
mod conv1x1_to_matmul;
mod deduplicate_initializers;
mod driver;
mod expose_hidden_states;
mod fold_layer_norm;
mod fold_scale;
mod group_query_heads;
mod identity_elimination;
mod lift_constants;
mod merge_parallel_matmuls;
mod replace_istft;
mod sink_transposes;
mod surgery;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unused_nodes;

pub use driver::{Applied, Driver, Error, Report, rewrite};
pub use replace_istft::NAME as REPLACE_ISTFT;
pub use surgery::{Given, Refused, Surgery};

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
    /// [`Skip`] says why nothing changes.
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

/// An axis or a place counted from the front; none where there are not so many.
fn from_front(at: i64, count: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add_unsigned(count as u64)? } else { at };
    usize::try_from(at).ok().filter(|&at| at < count)
}

/// The attributes of a convolution.
const CONV: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// A name for what one part of a node becomes; none where the node has none, so that the patch finds one.
fn part_of(node: &NodeProto, part: &str) -> String {
    if node.name().is_empty() { String::new() } else { format!("{}/{part}", node.name()) }
}

/// `None` while matching means: not this pass's node.
fn matched<T>(option: Option<T>) -> Result<T, Skip> {
    option.ok_or(Skip::NoMatch)
}

/// `false` likewise.
fn require(condition: bool) -> Result<(), Skip> {
    matched(condition.then_some(()))
}

/// One step of a rewrite.
#[derive(Clone, Copy)]
pub enum Step {
    /// Passes, to their common fixed point.
    Passes(&'static [&'static dyn Pass]),
    /// A surgery, once.
    Surgery(&'static dyn Surgery),
}

/// What a pass or surgery is called, and what it does.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Whether it is a surgery, and runs only where it is asked for.
    pub surgery: bool,
    /// Its rules, as formulas.
    pub rules: &'static str,
}

impl Step {
    /// Each pass of the step, or its surgery.
    pub fn entries(&self) -> Vec<Entry> {
        match self {
            Step::Surgery(one) => vec![Entry { name: one.name(), surgery: true, rules: one.rules() }],
            Step::Passes(passes) => passes
                .iter()
                .map(|pass| Entry { name: pass.name(), surgery: false, rules: pass.rules() })
                .collect(),
        }
    }
}

/// Everything there is, in the order in which it runs; each line says why it stands where it does.
pub const ALL: &[Step] = &[
    // Surgeries first: an attention still has the form in which it was exported, and what they leave is for
    // the passes. Outputs are told from inner values before a cache adds more of them.
    EXPOSE_HIDDEN_STATES,
    ADD_KV_CACHE,
    // Heads are grouped under a mask that is the same for all of them.
    CANONICAL_MASK,
    GROUP_QUERY_HEADS,
    Step::Passes(PASSES),
];

const EXPOSE_HIDDEN_STATES: Step = Step::Surgery(&expose_hidden_states::ExposeHiddenStates);
const ADD_KV_CACHE: Step = Step::Surgery(&add_kv_cache::AddKvCache);
const CANONICAL_MASK: Step = Step::Surgery(&canonical_mask::CanonicalMask);
const GROUP_QUERY_HEADS: Step = Step::Surgery(&group_query_heads::GroupQueryHeads);

/// A causal language model exported without a cache, as by `torch.onnx`.
pub const CAUSAL: &[Step] = &[EXPOSE_HIDDEN_STATES, ADD_KV_CACHE, Step::Passes(PASSES)];

/// A causal language model exported with its cache, as by Optimum.
pub const CAUSAL_CACHED: &[Step] =
    &[EXPOSE_HIDDEN_STATES, CANONICAL_MASK, GROUP_QUERY_HEADS, Step::Passes(PASSES)];

/// A graph from frames to samples.
pub const SIGNAL: &[Step] = &[Step::Passes(PASSES)];

/// Run before the first surgery, asked for or not: what surgeries read off a graph they find by its
/// initializers, and with nothing in between.
pub const READABLE: &[&dyn Pass] =
    &[&lift_constants::LiftConstants, &identity_elimination::IdentityElimination];

/// The passes in the order of a round; each line says why it stands where it does.
const PASSES: &[&dyn Pass] = &[
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

/// Every surgery and pass, in the order of [`ALL`].
pub fn catalog() -> impl Iterator<Item = Entry> {
    ALL.iter().flat_map(Step::entries)
}

/// A pass or surgery by name.
///
/// # Errors
/// [`Error::Unknown`] with the name that is nearest.
pub fn entry(name: &str) -> Result<Entry, Error> {
    if let Some(entry) = catalog().find(|entry| entry.name == name) {
        return Ok(entry);
    }
    let near = catalog().map(|entry| (strsim::jaro(entry.name, name), entry.name));
    let near = near.filter(|(likeness, _)| *likeness > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
    let near = near.map_or(String::new(), |(_, near)| format!("did you mean {near:?}? "));
    Err(Error::Unknown { name: name.to_owned(), hint: near + "`soprano-export pass list` shows all" })
}
