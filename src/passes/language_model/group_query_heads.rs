use std::collections::BTreeSet;

use super::attention::attentions;
use super::canonical_mask::BIAS;
use super::{Refused, graph_of};
use crate::ir::{Model, NodeProto, initializer_f32, initializer_i64, node};

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
    struct Change {
        at: usize,
        nodes: Vec<NodeProto>,
        scale: f32,
        repeats: usize,
    }
    let changes = {
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
            if a.mask != BIAS || !a.heads_second || a.guarded.is_some() {
                return Err(refuse("the mask is not the canonical one"));
            }
            let (heads, _) = a
                .keys
                .declared(&graph)
                .ok_or_else(|| refuse("its cache is no input of fixed heads"))?;
            let own = |part: &str| format!("{PASS}/{layer}/{part}");
            let made = |op: &str, inputs: [&str; 2], output: &str| {
                node(op, inputs, output).named(own(output.rsplit('/').next().unwrap_or(output)))
            };
            let context = graph.node(a.context);
            let output = context.output_at(0).unwrap_or_default();
            let (grouped, together) = (format!("{PASS}/grouped_{heads}"), own("together"));
            let whole = format!("{PASS}/heads_{}", heads * repeats);
            let [rows, turned, raw, scores, masked, probabilities] =
                ["queries", "keys", "raw", "scores", "masked", "probabilities"].map(own);
            let (scale, mask) = (format!("{PASS}/scale_{layer}"), format!("{PASS}/mask_{repeats}"));
            let turn = node("Transpose", [a.keys.whole], &turned).named(&turned);
            let nodes = vec![
                made("Reshape", [a.queries, &grouped], &rows).build(),
                turn.ints("perm", [0, 1, 3, 2]).build(),
                made("MatMul", [&rows, &turned], &raw).build(),
                made("Mul", [&raw, &scale], &scores).build(),
                made("Add", [&scores, &mask], &masked).build(),
                node("Softmax", [&masked], &probabilities)
                    .named(softmax.name())
                    .int("axis", -1)
                    .build(),
                made("MatMul", [&probabilities, a.values.whole], &together).build(),
                node("Reshape", [&together, &whole], output).named(context.name()).build(),
            ];
            changes.push((heads, Change { at: a.context.0, nodes, scale: a.scale, repeats }));
        }
        changes
    };
    let count = changes.len();
    let graph = graph_of(model);
    let shapes: BTreeSet<(usize, usize)> = changes.iter().map(|(h, c)| (*h, c.repeats)).collect();
    for &(heads, repeats) in &shapes {
        let (grouped, whole) = (heads as i64, (heads * repeats) as i64);
        let name = format!("{PASS}/grouped_{heads}");
        graph.initializer.push(initializer_i64(&name, &[4], &[0, grouped, -1, 0]));
        let name = format!("{PASS}/heads_{whole}");
        graph.initializer.push(initializer_i64(&name, &[4], &[0, whole, -1, 0]));
    }
    // From the back, so that places stay what they are.
    for (layer, (_, change)) in changes.into_iter().enumerate().rev() {
        let scale = format!("{PASS}/scale_{layer}");
        graph.initializer.push(initializer_f32(&scale, &[], &[change.scale]));
        graph.node.splice(change.at..=change.at, change.nodes);
    }
    let after =
        graph.node.iter().position(|made| made.output_at(0) == Some(BIAS)).map_or(0, |at| at + 1);
    let repeats: BTreeSet<usize> = shapes.iter().map(|(_, repeats)| *repeats).collect();
    for repeats in repeats {
        let mask = format!("{PASS}/mask_{repeats}");
        let rows = vec![BIAS; repeats];
        graph.node.insert(after, node("Concat", rows, &mask).named(&mask).int("axis", 2).build());
    }
    Ok(count)
}
