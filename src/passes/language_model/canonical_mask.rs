use std::collections::HashSet;

use super::attention::attentions;
use super::{IDS, MASK, Refused, graph_of};
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{Graph, Model, NodeProto, TensorProto, initializer_f32, initializer_i64, node};

const PASS: &str = "canonical-mask";
/// The mask as every attention adds it, f32 [batch, 1, sequence, past + sequence].
pub(super) const BIAS: &str = "attention_bias";
/// Added to the score of a position that may not be seen: finite, so that a row of padding stays a number.
const MASKED: f32 = -1e9;

/// `canonical-mask`: whatever an exporter made of `attention_mask` becomes one mask for every layer.
///
/// With S the ids' length, T the mask's, query s at place T − S + s:
///
/// ```text
/// bias[b, 0, s, t] = 0 where t <= T - S + s and attention_mask[b, t] = 1, else -1e9
/// softmax(scores + any mask made of attention_mask and shapes alone)  =>  softmax(scores + bias)
/// Where(IsNaN(p), 0, p)                                               =>  p
/// ```
///
/// The old mask must be made of `attention_mask` and shapes alone. That it is causal is not read off it:
/// the references hold it to that. Gives the number of attentions.
///
/// # Errors
/// [`Refused::Attention`] names the softmax of an attention of another form.
pub fn canonical_mask(model: &mut Model) -> Result<usize, Refused> {
    let (changes, count) = {
        let graph = model.graph();
        if !graph.is_input(MASK) || !graph.is_input(IDS) {
            let why = format!("the graph has no inputs {IDS:?} and {MASK:?}");
            return Err(Refused::Attention { pass: PASS, at: None, why });
        }
        let found = attentions(&graph, PASS)?;
        for attention in &found {
            let values = values_behind(&graph, attention.mask);
            if !values.contains(MASK) || values.len() > 1 {
                let at = Some(graph.node(attention.softmax).name().to_owned());
                let why = "what is added to the scores is not made of attention_mask alone".to_owned();
                return Err(Refused::Attention { pass: PASS, at, why });
            }
        }
        let changes: Vec<_> = found
            .iter()
            .map(|a| {
                let plain = graph.node(a.softmax).output_at(0).unwrap_or_default().to_owned();
                (a.add.0, a.mask.to_owned(), a.guarded.map(|guarded| (guarded.to_owned(), plain)))
            })
            .collect();
        (changes, found.len())
    };
    let graph = graph_of(model);
    let mut guards: Vec<(String, String)> = Vec::new();
    for (add, mask, guarded) in changes {
        let operand = graph.node[add].input.iter_mut().find(|input| **input == mask);
        *operand.expect("read off this node") = BIAS.to_owned();
        guards.extend(guarded);
    }
    // With a finite mask no probability is NaN.
    graph.node.retain(|made| {
        let guarded = |(after, before): &(String, String)| {
            made.output_at(0) == Some(after) || (made.is("IsNaN") && made.input_at(0) == Some(before))
        };
        !guards.iter().any(guarded)
    });
    for made in &mut graph.node {
        for name in &mut made.input {
            if let Some((_, plain)) = guards.iter().find(|(guarded, _)| guarded == name) {
                name.clone_from(plain);
            }
        }
    }
    graph.initializer.extend(constants());
    graph.node.splice(0..0, nodes());
    Ok(count)
}

/// The graph's inputs whose values, not only their shapes, a value depends on.
fn values_behind<'g>(graph: &Graph<'g>, value: &'g str) -> HashSet<&'g str> {
    let (mut inputs, mut seen, mut open) = (HashSet::new(), HashSet::from([value]), vec![value]);
    while let Some(value) = open.pop() {
        if graph.is_input(value) {
            inputs.insert(value);
        }
        let Some(id) = graph.maker(value) else { continue };
        if graph.node(id).is("Shape") {
            continue;
        }
        open.extend(
            graph.node(id).input.iter().map(String::as_str).filter(|input| seen.insert(*input)),
        );
    }
    inputs
}

fn constants() -> Vec<TensorProto> {
    vec![
        initializer_i64("attention_bias/zero", &[], &[0]),
        initializer_i64("attention_bias/one", &[], &[1]),
        initializer_i64("attention_bias/axis_1", &[1], &[1]),
        initializer_f32("attention_bias/all", &[], &[1.0]),
        initializer_f32("attention_bias/masked", &[], &[MASKED]),
    ]
}

fn nodes() -> Vec<NodeProto> {
    let own = |name: &str| match name {
        IDS | MASK => name.to_owned(),
        "" => BIAS.to_owned(),
        part => format!("{BIAS}/{part}"),
    };
    let make = |op: &str, inputs: &[&str], output: &str| {
        let inputs: Vec<String> = inputs.iter().map(|input| own(input)).collect();
        node(op, inputs, own(output)).named(own(output))
    };
    let float = DataType::Float as i64;
    vec![
        make("Shape", &[MASK], "mask_shape").build(),
        make("Gather", &["mask_shape", "one"], "total").build(),
        make("Shape", &[IDS], "ids_shape").build(),
        make("Gather", &["ids_shape", "one"], "length").build(),
        make("Range", &["zero", "total", "one"], "keys").build(),
        make("Range", &["zero", "length", "one"], "places").build(),
        make("Unsqueeze", &["places", "axis_1"], "rows").build(),
        make("Sub", &["total", "length"], "past").build(),
        make("Add", &["rows", "past"], "queries").build(),
        make("LessOrEqual", &["keys", "queries"], "causal").build(),
        make("Cast", &["causal"], "causal_f32").int("to", float).build(),
        make("Cast", &[MASK], "given_f32").int("to", float).build(),
        make("Unsqueeze", &["given_f32", "axis_1"], "given").build(),
        make("Mul", &["causal_f32", "given"], "seen").build(),
        make("Sub", &["all", "seen"], "unseen").build(),
        make("Mul", &["unseen", "masked"], "bias").build(),
        make("Unsqueeze", &["bias", "axis_1"], "").build(),
    ]
}
