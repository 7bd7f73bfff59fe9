use std::collections::HashSet;

use super::attention::{Attention, attentions, descendants};
use super::{LOGITS, MASK, PAST, PRESENT, Refused, TOTAL, free, graph_of};
use crate::ir::{Graph, Model, Names, NodeId, NodeProto, ValueInfoProto, node, value_f32, value_i64};

const PASS: &str = "add-kv-cache";
const PAST_LENGTH: &str = "past_sequence_length";

/// Where a layer's cache goes in.
struct Insertion {
    keys: String,
    values: String,
    /// The nodes that read them: the keys' transpose, the product with the values.
    readers: (NodeId, NodeId),
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
/// head size), and stand in the interface as fixed numbers. An inner value that has the name of an input or output
/// to be gets another.
///
/// # Errors
/// [`Refused::Attention`] names the node: a cache that is there already, no attention, an attention of another
/// form, a mask that does not depend on `attention_mask`.
pub fn add_kv_cache(model: &mut Model, heads: usize, size: usize) -> Result<usize, Refused> {
    let layers = insertions(&model.graph())?.len();
    let mut names = Names::of(model.graph_proto());
    let graph = graph_of(model);
    let ports = |layer: usize| {
        ["key", "value"]
            .map(|kind| [format!("{PAST}{layer}.{kind}"), format!("{PRESENT}{layer}.{kind}")])
    };
    (0..layers).flat_map(ports).flatten().for_each(|port| free(graph, &mut names, &port));
    // By their present names.
    let found = insertions(&model.graph())?;
    let graph = graph_of(model);
    // Inner shapes are those without a past.
    graph.value_info.clear();
    let (mut inputs, mut outputs): (Vec<ValueInfoProto>, Vec<ValueInfoProto>) = Default::default();
    let mut inserted: Vec<(usize, NodeProto)> = Vec::new();
    for (layer, insertion) in found.into_iter().enumerate() {
        let pairs = [
            ("key", insertion.keys, insertion.readers.0),
            ("value", insertion.values, insertion.readers.1),
        ];
        for ((kind, value, reader), [past, present]) in pairs.into_iter().zip(ports(layer)) {
            let mut value = value;
            let reading = graph.node[reader.0].input.iter_mut().filter(|name| **name == value);
            reading.for_each(|name| *name = present.clone());
            if kind == "key" && !insertion.heads_second {
                let turned = names.value(&format!("{PASS}/{layer}/keys"));
                let turn = node("Transpose", [&value], &turned).named(names.node(&turned));
                let turn = turn.author(PASS).ints("perm", [0, 2, 1, 3]);
                inserted.push((reader.0, turn.build()));
                let perm = graph.node[reader.0].attribute.iter_mut().find(|a| a.name() == "perm");
                perm.expect("found by its perm").ints = vec![0, 1, 3, 2];
                value = turned;
            }
            let concat = node("Concat", [&past, &value], &present)
                .named(names.node(&format!("{PASS}/{layer}/{kind}")))
                .author(PASS)
                .int("axis", 2)
                .build();
            inserted.push((reader.0, concat));
            let (heads, size) = (heads.to_string(), size.to_string());
            inputs.push(value_f32(&past, &["batch", &heads, PAST_LENGTH, &size]));
            outputs.push(value_f32(&present, &["batch", &heads, TOTAL, &size]));
        }
    }
    // From the back, so that places stay what they are, and in the order in which they were made.
    inserted.sort_by_key(|(at, _)| *at);
    for (at, concat) in inserted.into_iter().rev() {
        graph.node.insert(at, concat);
    }
    graph.input.extend(inputs);
    for input in graph.input.iter_mut().filter(|input| input.name() == MASK) {
        *input = value_i64(MASK, &["batch", TOTAL]);
    }
    let after = graph.output.iter().position(|o| o.name() == LOGITS).map_or(0, |at| at + 1);
    graph.output.splice(after..after, outputs);
    Ok(layers)
}

/// Where the cache of each attention goes in, in the order of the graph.
fn insertions(graph: &Graph<'_>) -> Result<Vec<Insertion>, Refused> {
    let refuse = |why: &str| Refused::Attention { pass: PASS, at: None, why: why.to_owned() };
    let mut ports = graph.proto().input.iter().chain(&graph.proto().output);
    if ports.any(|port| port.name().starts_with(PAST) || port.name().starts_with(PRESENT)) {
        return Err(refuse("the graph has a cache already"));
    }
    if !graph.is_input(MASK) {
        return Err(refuse("the graph has no input \"attention_mask\""));
    }
    let masked = descendants(graph, MASK);
    let found = attentions(graph, PASS)?;
    found.iter().map(|attention| insertion(graph, attention, &masked)).collect()
}

/// Where the cache of one attention goes in: before heads are repeated, if they are.
fn insertion(
    graph: &Graph<'_>,
    attention: &Attention<'_>,
    masked: &HashSet<&str>,
) -> Result<Insertion, Refused> {
    let refuse = |why: &str| {
        let at = Some(graph.node(attention.softmax).name().to_owned());
        Err(Refused::Attention { pass: PASS, at, why: why.to_owned() })
    };
    if !masked.contains(attention.mask) {
        return refuse("what is added to the scores does not depend on attention_mask");
    }
    for heads in [&attention.keys, &attention.values] {
        if heads.has_cache(graph) {
            return refuse("its keys or values are concatenated with an input: a cache is there");
        }
        if graph.maker(heads.whole).is_none() {
            return refuse("its keys or values are computed by nothing");
        }
    }
    let reader = |whole: &str, read: &str, direct: NodeId| {
        if whole == read { Some(direct) } else { graph.sole_user(whole) }
    };
    let (keys, values) = (attention.keys, attention.values);
    let readers = (
        reader(keys.whole, keys.read, attention.transpose),
        reader(values.whole, values.read, attention.context),
    );
    let (Some(first), Some(second)) = readers else {
        return refuse("its keys or values are read in other places too");
    };
    Ok(Insertion {
        keys: keys.whole.to_owned(),
        values: values.whole.to_owned(),
        readers: (first, second),
        heads_second: attention.heads_second,
    })
}
