use std::collections::HashMap;

use super::attention::{Attention, attentions};
use super::surgery::{Given, Refused, Surgery, port};
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{Graph, Model, Names, NodeProto, TensorProto, initializer_f32, initializer_i64, node};
use crate::names::Causal;

const NAME: &str = "canonical-mask";
/// The mask as every attention adds it, f32 [batch, 1, sequence, past + sequence]; another name where the
/// graph has a value of this one.
const BIAS: &str = "attention_bias";
/// Added to the score of a position that may not be seen: finite, so that a row of padding stays a number.
const MASKED: f32 = -1e9;

/// Whatever an exporter made of `attention_mask` becomes one mask for every layer.
pub(super) struct CanonicalMask;

impl Surgery for CanonicalMask {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static str {
        "of S ids and a mask of length T, query s at place T - S + s:\n\
         \u{20} bias[b, 0, s, t] = 0 where t <= T - S + s and attention_mask[b, t] = 1, else -1e9\n\
         softmax(scores + any mask made of attention_mask and shapes alone)  =>  softmax(scores + bias)\n\
         Where(IsNaN(p), 0, p)  =>  p\n\
         the old mask is assumed to be causal: `diff --run` shows whether the numbers stay the same\n\
         not: before opset 13, an attention of another form, queries that are grouped already"
    }

    /// For `Range`, `LessOrEqual` and the axes of `Unsqueeze`.
    fn opset(&self, _: &Given) -> i64 {
        13
    }

    fn run(&self, model: &mut Model, given: &Given) -> Result<usize, Refused> {
        let changes = changes(&model.graph(), &given.names)?;
        let count = changes.len();
        model.free_constants_of_inputs();
        let mut names = Names::of(model.graph_proto());
        let canonical = Canonical::new(&mut names, &given.names);
        let graph = model.graph_proto_mut();
        let mut guards: HashMap<String, String> = HashMap::new();
        for (add, mask, guarded) in changes {
            let operands = graph.node[add].input.iter_mut().filter(|input| **input == mask);
            operands.for_each(|operand| operand.clone_from(&canonical.bias));
            guards.extend(guarded);
        }
        // With a finite mask no probability is NaN.
        for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
            if let Some(plain) = guards.get(name) {
                name.clone_from(plain);
            }
        }
        graph.initializer.extend(canonical.constants);
        graph.node.splice(0..0, canonical.nodes);
        Ok(count)
    }
}

/// The place of the addition, the mask, and where probabilities are guarded what they become and what they were.
type Masking = (usize, String, Option<(String, String)>);

/// How each attention is masked.
fn changes(graph: &Graph<'_>, names: &Causal) -> Result<Vec<Masking>, Refused> {
    port(graph, "ids", &names.ids, false)?;
    port(graph, "mask", &names.mask, false)?;
    let sources = sources(graph, &names.mask);
    let masking = |a: &Attention<'_>| {
        let softmax = graph.node(a.softmax);
        let why = match sources.get(a.mask) {
            _ if a.is_grouped(graph) => {
                "its queries are grouped: a mask has rows for one head alone".to_owned()
            }
            Some(Source::Mask) => String::new(),
            Some(Source::Joined) => {
                "its mask is joined from parts, and doesn't have one row for each of the ids".to_owned()
            }
            _ => format!("what is added to the scores is not made of {} alone", names.mask),
        };
        if !why.is_empty() {
            return Err(Refused::attention(softmax, why));
        }
        let plain = softmax.output_at(0).unwrap_or_default().to_owned();
        Ok((a.add.0, a.mask.to_owned(), a.guarded.map(|guarded| (guarded.to_owned(), plain))))
    };
    attentions(graph)?.iter().map(masking).collect()
}

/// Whether a value is a mask that this surgery made.
pub(super) fn is_canonical(graph: &Graph<'_>, mask: &str) -> bool {
    graph.maker_of(mask, "Unsqueeze").is_some_and(|(_, node)| node.author() == Some(NAME))
}

/// What the numbers of a value come from, other than constants and shapes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Mask,
    /// The mask, repeated or joined with other numbers.
    Joined,
    Other,
}

/// The source of each value that has one.
fn sources<'g>(graph: &Graph<'g>, mask: &str) -> HashMap<&'g str, Source> {
    let inputs = graph.proto().input.iter().map(|input| input.name());
    let inputs = inputs.filter(|name| graph.is_input(name));
    let mut sources: HashMap<&str, Source> =
        inputs.map(|name| (name, if name == mask { Source::Mask } else { Source::Other })).collect();
    for (_, node) in graph.nodes().filter(|(_, node)| !graph.is(node, "Shape")) {
        let nested = node.nested().next().is_some();
        let joins = graph.is(node, "Concat") || graph.is(node, "Tile");
        let least = if joins { Source::Joined } else { Source::Mask };
        let read = node.input.iter().filter_map(|input| sources.get(input.as_str()).copied());
        let read = read.map(|source| source.max(least));
        if let Some(source) = read.chain(nested.then_some(Source::Other)).max() {
            sources.extend(node.output.iter().map(|output| (output.as_str(), source)));
        }
    }
    sources
}

/// The nodes that make the mask, and their constants.
struct Canonical {
    bias: String,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
}

impl Canonical {
    fn new(names: &mut Names, ports: &Causal) -> Self {
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
            let step = node(op, inputs.iter().copied(), &output).named(names.node(&output));
            let step = to.into_iter().fold(step.author(NAME), |step, to| step.int("to", to as i64));
            nodes.push(step.build());
            output
        };
        let float = Some(DataType::Float);
        let mut part = |op: &str, inputs: &[&str], part: &str, to: Option<DataType>| {
            make(op, inputs, &format!("{BIAS}/{part}"), to)
        };
        let mask_shape = part("Shape", &[&ports.mask], "mask_shape", None);
        let total = part("Gather", &[&mask_shape, &one], "total", None);
        let ids_shape = part("Shape", &[&ports.ids], "ids_shape", None);
        let length = part("Gather", &[&ids_shape, &one], "length", None);
        let keys = part("Range", &[&zero, &total, &one], "keys", None);
        let places = part("Range", &[&zero, &length, &one], "places", None);
        let rows = part("Unsqueeze", &[&places, &axis], "rows", None);
        let past = part("Sub", &[&total, &length], "past", None);
        let queries = part("Add", &[&rows, &past], "queries", None);
        let causal = part("LessOrEqual", &[&keys, &queries], "causal", None);
        let causal = part("Cast", &[&causal], "causal_f32", float);
        let mask = part("Cast", &[&ports.mask], "given_f32", float);
        let mask = part("Unsqueeze", &[&mask, &axis], "given", None);
        let visible = part("Mul", &[&causal, &mask], "seen", None);
        let hidden = part("Sub", &[&all, &visible], "unseen", None);
        let bias = part("Mul", &[&hidden, &masked], "bias", None);
        let bias = make("Unsqueeze", &[&bias, &axis], BIAS, None);
        Self { bias, constants, nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::layer::*;
    use super::*;

    #[test]
    fn a_mask_of_any_making_becomes_the_canonical_one() {
        let mut changed = model(OPTIMUM);
        let rows: [&[i64]; 2] = [&IDS_5, &[0, 0, 2, 7, 1]];
        let mask: [&[i64]; 2] = [&ONES, &[0, 0, 1, 1, 1]];
        let before = logits(&call(&changed, &rows, &mask, None));
        assert_eq!(apply(&mut changed, "canonical-mask"), Ok(1));
        changed.check().unwrap();
        let after = logits(&call(&changed, &rows, &mask, None));
        let given = |values: &[f32]| [&values[..45], &values[63..]].concat();
        assert!(close(&given(&before), &given(&after)));
        let left = |op: &str| changed.graph_proto().node.iter().filter(|node| node.is(op)).count();
        assert_eq!((left("Where"), left("IsNaN"), left("And")), (0, 0, 0));
    }

    #[test]
    fn a_mask_of_more_than_the_attention_mask_is_refused() {
        let graph = masked(base(OPTIMUM), OPTIMUM).input("slopes", &["4", "1", "1"]).node(node(
            "Add",
            ["mask", "slopes"],
            "biased",
        ));
        let error = apply(&mut finished(attended(graph, OPTIMUM, "biased"), OPTIMUM), "canonical-mask");
        assert_eq!(
            error.unwrap_err(),
            "canonical-mask: node \"softmax\": what is added to the scores is not made of attention_mask alone"
        );
    }

    #[test]
    fn a_mask_of_other_rows_is_refused() {
        let repeated = masked(base(OPTIMUM), OPTIMUM)
            .node(node("Concat", ["mask", "mask"], "masks").int("axis", 2));
        let error =
            apply(&mut finished(attended(repeated, OPTIMUM, "masks"), OPTIMUM), "canonical-mask");
        let why = "canonical-mask: node \"softmax\": its mask is joined from parts, and doesn't have one row for each of the ids";
        assert_eq!(error.unwrap_err(), why);
        let mut grouped = model(OPTIMUM);
        apply(&mut grouped, "canonical-mask").unwrap();
        apply(&mut grouped, "group-query-heads").unwrap();
        let error = apply(&mut grouped, "canonical-mask").unwrap_err();
        assert!(
            error.ends_with("its queries are grouped: a mask has rows for one head alone"),
            "{error}"
        );
    }

    #[test]
    fn scores_that_two_attentions_share_are_masked_once() {
        let shared = attended(masked(base(OPTIMUM), OPTIMUM), OPTIMUM, "mask")
            .node(node("Softmax", ["masked"], "p_again").int("axis", -1))
            .node(node("MatMul", ["p_again", "values"], "context_again"));
        assert_eq!(apply(&mut finished(shared, OPTIMUM), "canonical-mask"), Ok(2));
    }
}
