//! A language model's interface: a cache for a graph exported without one, and its hidden states.
//!
//! These change what a graph takes and gives, so they stand outside the list of passes, are asked for by
//! name, and refuse whatever they do not understand.

use std::collections::{HashMap, HashSet};

use crate::ir::{Graph, Model, NodeId, ValueInfoProto, node, value_f32};

/// Why a graph's interface can't be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)]
pub enum Refused {
    #[error("expose-hidden-states: {why}")]
    #[diagnostic(
        code(passes::expose_hidden_states),
        help("a causal language model ends in a product that gives the output \"logits\"")
    )]
    HiddenStates { why: String },
    #[error("add-kv-cache: {}{why}", at.as_ref().map(|at| format!("node {at:?}: ")).unwrap_or_default())]
    #[diagnostic(
        code(passes::add_kv_cache),
        help("softmax(Q K^T * scale + mask) V is understood, with one head or group of heads an axis")
    )]
    Cache { at: Option<String>, why: String },
}

/// The output that carries what the logits are projected from.
pub const HIDDEN: &str = "last_hidden_state";
const LOGITS: &str = "logits";
const MASK: &str = "attention_mask";
const PAST_LENGTH: &str = "past_sequence_length";

/// `expose-hidden-states`: the value that feeds the projection to `logits` becomes the output
/// `last_hidden_state`, f32 [batch, sequence, channels], behind every other output.
///
/// ```text
/// logits = MatMul(h, W)    =>    logits = MatMul(last_hidden_state, W), outputs …, last_hidden_state
/// ```
///
/// `channels` is the width of `h`: W's rows.
///
/// # Errors
/// [`Refused::HiddenStates`] where `logits` is no output, or no product makes it.
pub fn expose_hidden_states(model: &mut Model) -> Result<(), Refused> {
    let refuse = |why: &str| Refused::HiddenStates { why: why.to_owned() };
    let (hidden, channels, dims) = {
        let graph = model.graph();
        let Some(logits) = graph.proto().output.iter().find(|o| o.name() == LOGITS) else {
            return Err(refuse("the graph has no output \"logits\""));
        };
        if graph.is_output(HIDDEN) {
            return Err(refuse("the graph has an output \"last_hidden_state\" already"));
        }
        let product = product_behind(&graph, LOGITS).ok_or_else(|| refuse("no product makes \"logits\""))?;
        let (Some(hidden), Some(weight)) = (product.0, product.1) else {
            return Err(refuse("the product that makes \"logits\" has no constant weight"));
        };
        let channels = weight.dims.first().copied().unwrap_or(0);
        let dims: Vec<String> = logits.dims().into_iter().take(2).collect();
        (hidden.to_owned(), channels, dims)
    };
    rename(model, &hidden, HIDDEN);
    let channels = channels.to_string();
    let dims = [dims[0].as_str(), dims[1].as_str(), &channels];
    let graph = model.proto_mut().graph.as_mut().expect("a checked model has a graph");
    graph.output.push(value_f32(HIDDEN, &dims));
    Ok(())
}

/// The activation and the weight of the product whose result, but for shape and bias, is `value`.
fn product_behind<'g>(
    graph: &Graph<'g>,
    value: &str,
) -> Option<(Option<&'g str>, Option<&'g crate::ir::TensorProto>)> {
    let made = graph.node(graph.maker(value)?);
    match made.op_type() {
        "MatMul" => {
            let weight = made.input_at(1).and_then(|w| graph.initializer(w));
            Some((made.input_at(0), weight.filter(|w| w.dims.len() == 2)))
        }
        "Add" => {
            let id = graph.maker(value)?;
            product_behind(graph, graph.constant_operand(id)?.1)
        }
        "Cast" | "Identity" => product_behind(graph, made.input_at(0)?),
        _ => None,
    }
}

/// Gives a value another name wherever it stands.
fn rename(model: &mut Model, old: &str, new: &str) {
    let graph = model.proto_mut().graph.as_mut().expect("a checked model has a graph");
    for made in &mut graph.node {
        for name in made.input.iter_mut().chain(&mut made.output).filter(|name| *name == old) {
            *name = new.to_owned();
        }
    }
}

/// What an attention of a graph exported without a cache reads.
struct Attention {
    keys: String,
    values: String,
    /// The nodes that read them: the keys' transpose, the product with the values.
    readers: (NodeId, NodeId),
    /// Whether the keys are [batch, heads, sequence, size]; otherwise [batch, sequence, heads, size], and one
    /// transpose does what two would.
    heads_second: bool,
}

/// `add-kv-cache`: a graph exported without a cache gains one.
///
/// For each layer i, in the order of the graph, with K f32 [batch, heads, sequence, size] after its rotary
/// embedding and before any transpose or repetition, and V alike:
///
/// ```text
/// softmax(Q · Kᵀ + mask) · V
///   =>  K' = present.i.key = Concat(past_key_values.i.key, K; axis 2), V' likewise
///       softmax(Q · K'ᵀ + mask) · V'
/// ```
///
/// The mask must be built from the length of `attention_mask`, which then is past and sequence together;
/// positions are an input. Inputs follow those that are there, outputs follow `logits`, layer by layer, and
/// `last_hidden_state` stays last. `heads` and `size` are those of the cache (a config's key-value heads and
/// head size), and stand in the interface as fixed numbers.
///
/// # Errors
/// [`Refused::Cache`] names the node: a cache that is there already, no attention, an attention of another
/// form, a mask that does not depend on `attention_mask`.
pub fn add_kv_cache(model: &mut Model, heads: usize, size: usize) -> Result<usize, Refused> {
    let refuse = |why: &str| Refused::Cache { at: None, why: why.to_owned() };
    let found = {
        let graph = model.graph();
        let proto = graph.proto();
        if proto.input.iter().any(|input| input.name().starts_with("past_key_values.")) {
            return Err(refuse("the graph has a cache already"));
        }
        if !graph.is_input(MASK) {
            return Err(refuse("the graph has no input \"attention_mask\""));
        }
        let masked = descendants(&graph, MASK);
        let softmaxes = graph.nodes().filter(|(_, n)| n.is("Softmax"));
        let found = softmaxes
            .map(|(id, _)| attention(&graph, id, &masked))
            .collect::<Result<Vec<_>, Refused>>()?;
        if found.is_empty() {
            return Err(refuse("the graph has no softmax, so no attention"));
        }
        found
    };
    let layers = found.len();
    let graph = model.proto_mut().graph.as_mut().expect("a checked model has a graph");
    let (mut inputs, mut outputs): (Vec<ValueInfoProto>, Vec<ValueInfoProto>) = Default::default();
    let mut inserted: Vec<(usize, crate::ir::NodeProto)> = Vec::new();
    for (layer, attention) in found.into_iter().enumerate() {
        let pairs = [
            ("key", attention.keys, attention.readers.0),
            ("value", attention.values, attention.readers.1),
        ];
        for (kind, value, reader) in pairs {
            let past = format!("past_key_values.{layer}.{kind}");
            let present = format!("present.{layer}.{kind}");
            let mut value = value;
            let reading = graph.node[reader.0].input.iter_mut().filter(|name| **name == value);
            reading.for_each(|name| *name = present.clone());
            if kind == "key" && !attention.heads_second {
                let turned = format!("add-kv-cache/{layer}/keys");
                let turn = node("Transpose", [&value], &turned).named(&turned).ints("perm", [0, 2, 1, 3]);
                inserted.push((reader.0, turn.build()));
                let perm = graph.node[reader.0].attribute.iter_mut().find(|a| a.name() == "perm");
                perm.expect("found by its perm").ints = vec![0, 1, 3, 2];
                value = turned;
            }
            let concat = node("Concat", [&past, &value], &present)
                .named(format!("add-kv-cache/{layer}/{kind}"))
                .int("axis", 2)
                .build();
            inserted.push((reader.0, concat));
            let (heads, size) = (heads.to_string(), size.to_string());
            let total = format!("{PAST_LENGTH} + sequence_length");
            inputs.push(value_f32(&past, &["batch", &heads, PAST_LENGTH, &size]));
            outputs.push(value_f32(&present, &["batch", &heads, &total, &size]));
        }
    }
    // From the back, so that places stay what they are, and in the order in which they were made.
    inserted.sort_by_key(|(at, _)| *at);
    for (at, concat) in inserted.into_iter().rev() {
        graph.node.insert(at, concat);
    }
    graph.input.extend(inputs);
    for input in graph.input.iter_mut().filter(|input| input.name() == MASK) {
        let total = format!("{PAST_LENGTH} + sequence_length");
        *input = crate::ir::value_i64(MASK, &["batch", &total]);
    }
    let hidden = graph.output.iter().position(|o| o.name() == HIDDEN).map(|at| graph.output.remove(at));
    let after = graph.output.iter().position(|o| o.name() == LOGITS).map_or(0, |at| at + 1);
    graph.output.splice(after..after, outputs);
    graph.output.extend(hidden);
    Ok(layers)
}

/// Every value that depends on `from`.
fn descendants<'g>(graph: &Graph<'g>, from: &'g str) -> HashSet<&'g str> {
    let mut found = HashSet::from([from]);
    let mut open = vec![from];
    while let Some(value) = open.pop() {
        for &user in graph.users(value) {
            for output in &graph.node(user).output {
                if found.insert(output) {
                    open.push(output);
                }
            }
        }
    }
    found
}

/// Reads one attention off its softmax.
fn attention(graph: &Graph<'_>, id: NodeId, masked: &HashSet<&str>) -> Result<Attention, Refused> {
    let softmax = graph.node(id);
    let refuse =
        |why: &str| Refused::Cache { at: Some(softmax.name().to_owned()), why: why.to_owned() };
    let scores = softmax.input_at(0).ok_or_else(|| refuse("the softmax has no input"))?;
    let probabilities = softmax.output_at(0).ok_or_else(|| refuse("the softmax has no output"))?;

    let add = graph.maker_of(scores, "Add").ok_or_else(|| refuse("no mask is added before the softmax"))?;
    let operands = [add.1.input_at(0), add.1.input_at(1)];
    let product = operands.into_iter().flatten().find_map(|value| scores_behind(graph, value));
    let (product, from) = product.ok_or_else(|| refuse("no product of queries and keys is before the mask"))?;
    let mask = operands.into_iter().flatten().find(|value| *value != from);
    if !mask.is_some_and(|mask| masked.contains(mask)) {
        return Err(refuse("what is added to the scores does not depend on attention_mask"));
    }
    let transposed = graph.node(product).input_at(1).unwrap_or_default();
    let (transpose, turned) = graph
        .maker_of(transposed, "Transpose")
        .ok_or_else(|| refuse("the keys are not transposed before their product"))?;
    let heads_second = match turned.attr_ints("perm") {
        Some([0, 1, 3, 2]) => true,
        Some([0, 2, 3, 1]) => false,
        _ => return Err(refuse("the keys' transpose keeps no axis of heads")),
    };
    let keys = turned.input_at(0).unwrap_or_default();

    let reader = graph
        .sole_user(probabilities)
        .filter(|user| graph.node(*user).is("MatMul"))
        .ok_or_else(|| refuse("the softmax feeds no single product with the values"))?;
    let values = graph.node(reader).input_at(1).unwrap_or_default();
    for value in [keys, values] {
        if graph.maker(value).is_some_and(|maker| graph.node(maker).is("Concat"))
            && concatenates_input(graph, value)
        {
            return Err(refuse("its keys or values are concatenated with an input: a cache is there"));
        }
        if graph.maker(value).is_none() {
            return Err(refuse("its keys or values are computed by nothing"));
        }
    }
    let readers = (transpose, reader);
    Ok(Attention { keys: keys.to_owned(), values: values.to_owned(), readers, heads_second })
}

fn concatenates_input(graph: &Graph<'_>, value: &str) -> bool {
    let Some(maker) = graph.maker(value) else { return false };
    graph.node(maker).input.iter().any(|input| graph.is_input(input))
}

/// The product behind a value, through a scale; with the value itself.
fn scores_behind<'g>(graph: &Graph<'g>, value: &'g str) -> Option<(NodeId, &'g str)> {
    let mut at = value;
    for _ in 0..4 {
        let maker = graph.maker(at)?;
        let made = graph.node(maker);
        match made.op_type() {
            "MatMul" => return Some((maker, value)),
            "Mul" | "Div" => at = graph.constant_operand(maker)?.1,
            _ => return None,
        }
    }
    None
}

/// The layers of a model that has a cache, with each input's declared dimensions.
pub fn cache_of(model: &Model) -> HashMap<String, Vec<String>> {
    let inputs = model.graph_proto().input.iter();
    inputs
        .filter(|input| input.name().starts_with("past_key_values."))
        .map(|input| (input.name().to_owned(), input.dims()))
        .collect()
}
