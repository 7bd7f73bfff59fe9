use std::collections::BTreeMap;

use super::attention::attentions;
use super::canonical_mask::is_canonical;
use super::{Refused, graph_of};
use crate::ir::{
    Model, Names, NodeBuilder, NodeProto, TensorProto, initializer_f32, initializer_i64, node,
};

const PASS: &str = "group-query-heads";

/// `group-query-heads`: queries are grouped instead of keys and values repeated, which copies the whole
/// cache at each step.
///
/// With G heads of keys and R queries heads to each, K and V the cache [B, G, T, D]:
///
/// ```text
/// softmax(Q · repeat(K, R)ᵀ c + mask) · repeat(V, R)
///   =>  Reshape(softmax(Q' · Kᵀ c + mask') · V, [B, G R, S, D])
///       Q' = Reshape(Q, [B, G, R S, D]),  mask' = the mask R times, one below the other
/// ```
///
/// Exact: the same products in the same order. Gives the number of attentions that changed; one whose heads
/// are not repeated stays as it is.
///
/// # Errors
/// [`Refused::Attention`] names the softmax of an attention of another form.
pub fn group_query_heads(model: &mut Model) -> Result<usize, Refused> {
    let mut names = Names::of(model.graph_proto());
    let mut constants: Vec<TensorProto> = Vec::new();
    let mut shapes: BTreeMap<usize, String> = BTreeMap::new();
    let mut masks: BTreeMap<(String, usize), String> = BTreeMap::new();
    let mut changes = {
        let graph = model.graph();
        let mut changes = Vec::new();
        for (layer, a) in attentions(&graph, PASS)?.into_iter().enumerate() {
            let softmax = graph.node(a.softmax);
            let refuse = |why: &str| Refused::Attention {
                pass: PASS,
                at: Some(softmax.name().to_owned()),
                why: why.to_owned(),
            };
            let repeats = a.keys.repeats;
            if a.values.repeats != repeats {
                return Err(refuse("keys and values are not repeated alike"));
            }
            if repeats == 1 {
                continue;
            }
            if !is_canonical(&graph, a.mask) || !a.heads_second || a.guarded.is_some() {
                return Err(refuse("the mask is not the canonical one"));
            }
            let (heads, _) = a
                .keys
                .declared(&graph)
                .ok_or_else(|| refuse("its cache is no input of fixed heads"))?;
            let mut shape = |heads: usize, what: &str| {
                let made = shapes.entry(heads).or_insert_with(|| {
                    let name = names.value(&format!("{PASS}/{what}_{heads}"));
                    constants.push(initializer_i64(&name, &[4], &[0, heads as i64, -1, 0]));
                    name
                });
                made.clone()
            };
            let (grouped, whole) = (shape(heads, "grouped"), shape(heads * repeats, "heads"));
            let mask = masks.entry((a.mask.to_owned(), repeats));
            let mask = mask.or_insert_with(|| names.value(&format!("{PASS}/mask_{repeats}"))).clone();
            let scale = names.value(&format!("{PASS}/scale_{layer}"));
            constants.push(initializer_f32(&scale, &[], &[a.scale]));
            let mut own = |part: &str| names.value(&format!("{PASS}/{layer}/{part}"));
            let [rows, turned, raw, scores, masked, probabilities, together] =
                ["queries", "keys", "raw", "scores", "masked", "probabilities", "together"]
                    .map(&mut own);
            let context = graph.node(a.context);
            let output = context.output_at(0).unwrap_or_default();
            let mut made = |op: &str, inputs: [&str; 2], output: &str| {
                node(op, inputs, output).named(names.node(output)).author(PASS)
            };
            let mut nodes = vec![made("Reshape", [a.queries, &grouped], &rows)];
            let raw_scores = made("MatMul", [&rows, &turned], &raw);
            let products = made("Mul", [&raw, &scale], &scores);
            let sums = made("Add", [&scores, &mask], &masked);
            let contexts = made("MatMul", [&probabilities, a.values.whole], &together);
            let turn = node("Transpose", [a.keys.whole], &turned).named(names.node(&turned));
            nodes.extend([
                turn.author(PASS).ints("perm", [0, 1, 3, 2]),
                raw_scores,
                products,
                sums,
                node("Softmax", [&masked], &probabilities)
                    .named(softmax.name())
                    .author(PASS)
                    .int("axis", -1),
                contexts,
                node("Reshape", [&together, &whole], output).named(context.name()).author(PASS),
            ]);
            let nodes: Vec<NodeProto> = nodes.into_iter().map(NodeBuilder::build).collect();
            // The softmax served this product alone, and its name goes on.
            changes.extend([(a.context.0, nodes), (a.softmax.0, Vec::new())]);
        }
        changes
    };
    let count = changes.len() / 2;
    model.free_constants_of_inputs();
    let graph = graph_of(model);
    graph.initializer.extend(constants);
    // From the back, so that places stay what they are.
    changes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (at, nodes) in changes {
        graph.node.splice(at..=at, nodes);
    }
    for ((mask, repeats), rows) in masks {
        let made = graph.node.iter().position(|made| made.output_at(0) == Some(&mask));
        let concat = node("Concat", vec![mask; repeats], &rows).named(names.node(&rows)).author(PASS);
        graph.node.insert(made.map_or(0, |at| at + 1), concat.int("axis", 2).build());
    }
    model.forget_gone_values();
    Ok(count)
}
