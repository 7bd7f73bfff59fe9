use std::collections::HashSet;

use super::attention::attentions;
use super::{IDS, MASK, Refused, graph_of, needs_opset};
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{Graph, Model, Names, NodeProto, TensorProto, initializer_f32, initializer_i64, node};

const PASS: &str = "canonical-mask";
/// The mask as every attention adds it, f32 [batch, 1, sequence, past + sequence]; another name where the
/// graph has a value of this one.
const BIAS: &str = "attention_bias";
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
/// [`Refused::Attention`] names the softmax of an attention of another form; [`Refused::Opset`] below 13, for
/// `Range`, `LessOrEqual` and the axes of `Unsqueeze`.
pub fn canonical_mask(model: &mut Model) -> Result<usize, Refused> {
    needs_opset(model, PASS, 13)?;
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
    model.free_constants_of_inputs();
    let mut names = Names::of(model.graph_proto());
    let made = Canonical::new(&mut names);
    let graph = graph_of(model);
    let mut guards: Vec<(String, String)> = Vec::new();
    for (add, mask, guarded) in changes {
        let operand = graph.node[add].input.iter_mut().find(|input| **input == mask);
        *operand.expect("read off this node") = made.bias.clone();
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
    graph.initializer.extend(made.constants);
    graph.node.splice(0..0, made.nodes);
    model.forget_gone_values();
    Ok(count)
}

/// Whether a value is a mask that this pass made.
pub(super) fn is_canonical(graph: &Graph<'_>, mask: &str) -> bool {
    graph.maker_of(mask, "Unsqueeze").is_some_and(|(_, node)| node.author() == Some(PASS))
}

/// The graph's inputs whose values, not only their shapes, a value depends on.
fn values_behind<'g>(graph: &Graph<'g>, value: &'g str) -> HashSet<&'g str> {
    let (mut inputs, mut seen, mut open) = (HashSet::new(), HashSet::from([value]), vec![value]);
    while let Some(value) = open.pop() {
        if graph.is_input(value) {
            inputs.insert(value);
        }
        let Some(id) = graph.maker(value) else { continue };
        if graph.is(graph.node(id), "Shape") {
            continue;
        }
        open.extend(
            graph.node(id).input.iter().map(String::as_str).filter(|input| seen.insert(*input)),
        );
    }
    inputs
}

/// The nodes that make the mask, and their constants.
struct Canonical {
    bias: String,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
}

impl Canonical {
    fn new(names: &mut Names) -> Self {
        let mut value = |part: &str| names.value(&format!("{BIAS}/{part}"));
        let [zero, one, axis, all, masked] = ["zero", "one", "axis_1", "all", "masked"].map(&mut value);
        let constants = vec![
            initializer_i64(&zero, &[], &[0]),
            initializer_i64(&one, &[], &[1]),
            initializer_i64(&axis, &[1], &[1]),
            initializer_f32(&all, &[], &[1.0]),
            initializer_f32(&masked, &[], &[MASKED]),
        ];
        let mut nodes = Vec::new();
        let mut make = |op: &str, inputs: &[&str], name: &str, to: Option<DataType>| {
            let output = names.value(name);
            let made =
                node(op, inputs.iter().copied(), &output).named(names.node(&output)).author(PASS);
            let made = to.into_iter().fold(made, |made, to| made.int("to", to as i64));
            nodes.push(made.build());
            output
        };
        let float = Some(DataType::Float);
        let mut part = |op: &str, inputs: &[&str], part: &str, to: Option<DataType>| {
            make(op, inputs, &format!("{BIAS}/{part}"), to)
        };
        let mask_shape = part("Shape", &[MASK], "mask_shape", None);
        let total = part("Gather", &[&mask_shape, &one], "total", None);
        let ids_shape = part("Shape", &[IDS], "ids_shape", None);
        let length = part("Gather", &[&ids_shape, &one], "length", None);
        let keys = part("Range", &[&zero, &total, &one], "keys", None);
        let places = part("Range", &[&zero, &length, &one], "places", None);
        let rows = part("Unsqueeze", &[&places, &axis], "rows", None);
        let past = part("Sub", &[&total, &length], "past", None);
        let queries = part("Add", &[&rows, &past], "queries", None);
        let causal = part("LessOrEqual", &[&keys, &queries], "causal", None);
        let causal = part("Cast", &[&causal], "causal_f32", float);
        let given = part("Cast", &[MASK], "given_f32", float);
        let given = part("Unsqueeze", &[&given, &axis], "given", None);
        let seen = part("Mul", &[&causal, &given], "seen", None);
        let unseen = part("Sub", &[&all, &seen], "unseen", None);
        let bias = part("Mul", &[&unseen, &masked], "bias", None);
        let bias = make("Unsqueeze", &[&bias, &axis], BIAS, None);
        Self { bias, constants, nodes }
    }
}
