use std::collections::{BTreeMap, HashSet};

use super::attention::{Attention, PAST_LENGTH, TOTAL, attentions, descendants};
use super::surgery::{self, Given, Refused, Surgery, fixed, free, splice};
use crate::ir::{Graph, Model, Names, NodeId, NodeProto, node, value_f32, value_i64};
use crate::names::Causal;

const NAME: &str = "add-kv-cache";

/// A graph exported without a cache gains one.
///
/// Keys are unique after their rotary embedding, and both before any transpose or repetition. Positions are an input,
/// so that a step can say where it is. Inputs follow those that are there, outputs follow the logits, layer by
/// layer in the order of the graph; the hidden states stay last. The cache's heads and their size stand in the
/// interface as fixed numbers, read off the graph or told. An inner value that has the name of an input or output to
/// be gets another.
pub(super) struct AddKvCache;

impl Surgery for AddKvCache {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static str {
        "softmax(Q K^T + mask) V of layer i, K and V f32 [batch, heads, sequence, size]\n\
         \u{20} =>  K' = present.i.key = Concat(past_key_values.i.key, K; axis 2), V' likewise\n\
         \u{20}     softmax(Q K'^T + mask) V'\n\
         the mask is made from the length of attention_mask, which then is past and sequence together\n\
         a mask that compares places with places (Range, CumSum, position_ids) or is made by Trilu, to the end of\n\
         attention_mask, is assumed to hide all later positions from each: a cache is right nowhere else\n\
         not: a graph that has a cache, an attention of another form, a mask that attention_mask does not reach\n\
         or that hides no later positions, keys or values that other nodes read too or whose heads are unknown,\n\
         a fixed number of positions"
    }

    fn run(&self, model: &mut Model, given: &Given) -> Result<usize, Refused> {
        let names = &given.names;
        let layers = insertions(&model.graph(), given)?.len();
        let mut unique = Names::of(model.graph_proto());
        let ports =
            (0..layers).flat_map(|layer| [port(names, layer, "key"), port(names, layer, "value")]);
        let graph = model.graph_proto_mut();
        ports.flatten().for_each(|port| drop(free(graph, &mut unique, &port)));
        // By the names that values have now.
        let insertions = insertions(&model.graph(), given)?;
        let batch = model.graph().noted(&names.mask).and_then(|mask| fixed(mask, 0));
        let batch = batch.as_deref().unwrap_or("batch");
        let graph = model.graph_proto_mut();
        // Inner shapes are those without a past.
        graph.value_info.clear();
        let mut outputs = Vec::new();
        let mut inserted: BTreeMap<usize, Vec<NodeProto>> = BTreeMap::new();
        for (layer, insertion) in insertions.into_iter().enumerate() {
            let Insertion { keys, values, readers, heads_second, shape } = insertion;
            for (kind, mut value, reader) in [("key", keys, readers.0), ("value", values, readers.1)] {
                let [past, present] = port(names, layer, kind);
                let before = inserted.entry(reader.0).or_default();
                let reading = &mut graph.node[reader.0];
                reading
                    .input
                    .iter_mut()
                    .filter(|name| **name == value)
                    .for_each(|name| *name = present.clone());
                if kind == "key" && !heads_second {
                    let keys = unique.value(&format!("{NAME}/{layer}/keys"));
                    let turn = node("Transpose", [&value], &keys).named(unique.node(&keys));
                    before.push(turn.author(NAME).ints("perm", [0, 2, 1, 3]).build());
                    let perm = reading.attribute.iter_mut().find(|a| a.name() == "perm");
                    perm.expect("found by its perm").ints = vec![0, 1, 3, 2];
                    value = keys;
                }
                let concat = node("Concat", [&past, &value], &present).author(NAME).int("axis", 2);
                before.push(concat.named(unique.node(&format!("{NAME}/{layer}/{kind}"))).build());
                let [heads, size] = shape.map(|n| n.to_string());
                graph.input.push(value_f32(&past, &[batch, &heads, PAST_LENGTH, &size]));
                outputs.push(value_f32(&present, &[batch, &heads, TOTAL, &size]));
            }
        }
        splice(graph, inserted, &HashSet::new());
        for input in graph.input.iter_mut().filter(|input| input.name() == names.mask) {
            *input = value_i64(&names.mask, &[batch, TOTAL]);
        }
        let after = graph.output.iter().position(|o| o.name() == names.logits).map_or(0, |at| at + 1);
        graph.output.splice(after..after, outputs);
        Ok(layers)
    }
}

/// The input and the output that carry a layer's keys or values.
fn port(names: &Causal, layer: usize, kind: &str) -> [String; 2] {
    [&names.past, &names.present].map(|prefix| format!("{prefix}.{layer}.{kind}"))
}

/// Where a layer's cache goes in.
struct Insertion {
    keys: String,
    values: String,
    /// The nodes that read them: the keys' transpose, the product with the values.
    readers: (NodeId, NodeId),
    heads_second: bool,
    /// How many heads there are, and their size.
    shape: [usize; 2],
}

/// Where the cache of each attention goes in, in the order of the graph.
fn insertions(graph: &Graph<'_>, given: &Given) -> Result<Vec<Insertion>, Refused> {
    let Causal { ids, mask, past, present, logits, .. } = &given.names;
    let mut ports = graph.proto().input.iter().chain(&graph.proto().output).map(|port| port.name());
    let is_cache = |name: &str| {
        let mut rest =
            [past, present].into_iter().filter_map(|prefix| name.strip_prefix(prefix.as_str()));
        rest.any(|rest| rest.starts_with('.'))
    };
    if ports.any(is_cache) {
        return Err(Refused::Cached);
    }
    for (role, name) in [("mask", mask), ("ids", ids), ("logits", logits)] {
        if role == "mask" || graph.noted(name).is_some() {
            surgery::port(graph, role, name, role != "logits")?;
        }
    }
    let masked = descendants(graph, mask);
    attentions(graph)?.iter().map(|attention| insertion(graph, attention, &masked, given)).collect()
}

/// Whether a mask has a row for each position after the cache, and compares places with places, or is a triangle,
/// that moves with the end of what is cached.
fn hides_later(graph: &Graph<'_>, mask: &str, masked: &HashSet<&str>, names: &Causal) -> bool {
    let [fed, placed] = [&names.ids, &names.positions].map(|name| descendants(graph, name));
    let is_stepped = |value: &str| fed.contains(value) || placed.contains(value);
    let counts =
        graph.nodes().filter(|(_, node)| matches!(node.op_type(), "Range" | "CumSum" | "NonZero"));
    let mut counted: HashSet<&str> =
        counts.flat_map(|(_, node)| &node.output).flat_map(|value| descendants(graph, value)).collect();
    counted.retain(|value| masked.contains(value));
    counted.extend(&placed);
    let hides = |node: &NodeProto| {
        let moves = |at: usize| node.input_at(at).filter(|input| masked.contains(input));
        match node.op_type() {
            op if !graph.is(node, op) => false,
            "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => {
                node.input.iter().all(|place| counted.contains(place.as_str()))
            }
            // Of a rectangle the diagonal moves; of a square the rows are cut out later.
            "Trilu" => moves(1).is_some() || moves(0).is_some_and(|square| !is_stepped(square)),
            _ => false,
        }
    };
    let enters = |node: &NodeProto| node.output.iter().any(|o| descendants(graph, o).contains(mask));
    is_stepped(mask) && graph.nodes().any(|(_, node)| hides(node) && enters(node))
}

/// Where the cache of one attention goes in: before heads are repeated, if they are.
fn insertion(
    graph: &Graph<'_>,
    attention: &Attention<'_>,
    masked: &HashSet<&str>,
    given: &Given,
) -> Result<Insertion, Refused> {
    let softmax = graph.node(attention.softmax);
    let refuse = |why: &str| Err(Refused::attention(softmax, why));
    if !masked.contains(attention.mask) {
        return refuse(&format!("what is added to the scores does not depend on {}", given.names.mask));
    }
    if !hides_later(graph, attention.mask, masked, &given.names) {
        return refuse(
            "what is added to the scores hides no later positions, counted from what is cached",
        );
    }
    let (keys, values) = (attention.keys, attention.values);
    for heads in [keys, values] {
        if heads.cache(graph).is_some() {
            return refuse("its keys or values are concatenated with an input: a cache is there");
        }
        if graph.maker(heads.whole).is_none() {
            return refuse("its keys or values are computed by nothing");
        }
    }
    let reader = |whole: &str, read: &str, direct: NodeId| {
        if whole == read { Some(direct) } else { graph.sole_user(whole) }
    };
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
        shape: shape(graph, attention, given)
            .map_err(|why| Refused::Heads { at: softmax.called().to_owned(), why })?,
    })
}

/// Number and size of the heads of keys and values: as the graph says or else as told, and the same of both.
fn shape(graph: &Graph<'_>, attention: &Attention<'_>, given: &Given) -> Result<[usize; 2], String> {
    let keys = attention.keys.shape(graph, attention.heads_second);
    let values = attention.values.shape(graph, true);
    let one = |at: usize, what: &str| {
        let numbers = [keys[at], values[at], given.heads.map(|heads| heads[at])];
        let mut numbers = numbers.into_iter().flatten();
        let first =
            numbers.next().ok_or_else(|| format!("the {what} of its keys and values is unknown"))?;
        match numbers.find(|other| *other != first) {
            Some(other) => Err(format!("the {what} of its keys and values is {first} and {other}")),
            None => Ok(first),
        }
    };
    Ok([one(0, "number of heads")?, one(1, "head size")?])
}

#[cfg(test)]
mod tests {
    use super::super::Driver;
    use super::super::testing::layer::*;
    use super::*;
    use crate::ir::rename_value;

    #[test]
    fn a_cache_gives_what_the_whole_prompt_gives() {
        let plain = model(PLAIN);
        let whole = logits(&call(&plain, &[&IDS_5], &[&ONES], None));
        let mut cached = plain.clone();
        assert_eq!(apply(&mut cached, "add-kv-cache"), Ok(1));
        cached.check().unwrap();
        let names = |infos: &[crate::ir::ValueInfoProto]| -> Vec<String> {
            infos.iter().map(|info| info.name().to_owned()).collect()
        };
        assert_eq!(
            names(&cached.graph_proto().input),
            [IDS, MASK, "past_key_values.0.key", "past_key_values.0.value"]
        );
        assert_eq!(names(&cached.graph_proto().output), [LOGITS, "present.0.key", "present.0.value"]);
        assert_eq!(cached.graph_proto().input[2].dims(), ["batch", "2", "past_sequence_length", "4"]);
        for cut in 1..5 {
            let first = call(&cached, &[&IDS_5[..cut]], &[&ONES[..cut]], None);
            let second = call(&cached, &[&IDS_5[cut..]], &[&ONES], Some(&first));
            assert!(close(&logits(&first), &whole[..cut * VOCABULARY]));
            assert!(close(&logits(&second), &whole[cut * VOCABULARY..]), "cut at {cut}");
            assert_eq!(second["present.0.key"].shape(), [1, KV_HEADS, 5, SIZE]);
        }
    }

    #[test]
    fn a_cache_goes_in_before_heads_are_repeated_and_only_once() {
        let mut cached = model(PLAIN);
        apply(&mut cached, "add-kv-cache").unwrap();
        let graph = cached.graph();
        let (_, opened) = graph.maker_of("keys_open", "Unsqueeze").unwrap();
        assert_eq!(opened.input_at(0), Some("present.0.key"));
        let again = apply(&mut cached, "add-kv-cache").unwrap_err();
        assert_eq!(again, "add-kv-cache: the graph has a cache already");
    }

    #[test]
    fn what_is_no_attention_is_refused_by_name() {
        let refused =
            |graph: TestGraph| apply(&mut finished(graph, PLAIN), "add-kv-cache").unwrap_err();
        let constant = masked(base(PLAIN), PLAIN).initializer(initializer_f32("no_mask", &[], &[0.0]));
        assert_eq!(
            refused(attended(constant, PLAIN, "no_mask")),
            "add-kv-cache: node \"softmax\": what is added to the scores does not depend on attention_mask"
        );
        let none = base(PLAIN).node(node("Identity", ["q_second"], "context"));
        assert_eq!(refused(none), "add-kv-cache: the graph has no softmax, so no attention");
        let alone =
            base(PLAIN).node(node("Softmax", ["q_second"], "context").int("axis", -1).named("odd"));
        assert_eq!(refused(alone), "add-kv-cache: node \"odd\": no mask is added before the softmax");
        let twice = attended(masked(base(PLAIN), PLAIN), PLAIN, "mask").node(node(
            "Neg",
            ["k_second"],
            "seen_elsewhere",
        ));
        assert!(refused(twice).ends_with("its keys or values are read in other places too"));
    }

    /// A layer whose mask is padding and what these nodes make of the places: `hidden`, [sequence, total] of bool.
    fn hidden_by(nodes: impl FnOnce(TestGraph) -> TestGraph) -> Model {
        let graph = nodes(masked(base(PLAIN), PLAIN))
            .node(node("And", ["hidden", "given_rows"], "seen_2"))
            .node(node("Unsqueeze", ["seen_2", "first"], "seen_heads_2"))
            .node(node("Where", ["seen_heads_2", "in", "out"], "mask_2"));
        finished(attended(graph, PLAIN, "mask_2"), PLAIN)
    }

    #[test]
    fn a_mask_that_hides_no_later_positions_is_refused() {
        let of = |op: &'static str, inputs: [&'static str; 2]| {
            hidden_by(|graph| graph.node(node(op, inputs, "hidden")))
        };
        let from_zero = hidden_by(|graph| {
            graph
                .node(node("Range", ["zero", "length", "one"], "early"))
                .node(node("Unsqueeze", ["early", "first"], "early_rows"))
                .node(node("LessOrEqual", ["columns", "early_rows"], "hidden"))
        });
        let square = hidden_by(|graph| {
            graph.node(node("Unsqueeze", ["columns", "first"], "all_rows")).node(node(
                "LessOrEqual",
                ["columns", "all_rows"],
                "hidden",
            ))
        });
        let why = "add-kv-cache: node \"softmax\": what is added to the scores hides no later positions, counted \
                   from what is cached";
        let padding = of("And", ["given_rows", "given_rows"]);
        for mut model in [padding, of("Greater", ["columns", "one"]), from_zero, square] {
            assert_eq!(apply(&mut model, "add-kv-cache").unwrap_err(), why);
        }
        assert_eq!(apply(&mut of("GreaterOrEqual", ["rows", "columns"]), "add-kv-cache"), Ok(1));
    }

    #[test]
    fn a_triangle_whose_diagonal_moves_is_a_mask() {
        let triangle = |diagonal: &'static str| {
            hidden_by(|graph| {
                graph
                    .initializer(initializer_f32("unit", &[1, 1], &[1.0]))
                    .node(node("Unsqueeze", ["length", "zero_1"], "length_1"))
                    .node(node("Unsqueeze", ["total", "zero_1"], "total_1"))
                    .initializer(initializer_i64("zero_1", &[1], &[0]))
                    .node(node("Concat", ["length_1", "total_1"], "extents").int("axis", 0))
                    .node(node("Expand", ["unit", "extents"], "ones"))
                    .node(node("Trilu", ["ones", diagonal], "lower").int("upper", 0))
                    .node(node("Cast", ["lower"], "hidden").int("to", 9))
            })
        };
        // Of the form alone: tract holds a diagonal that is made of shapes in a type of its own.
        assert_eq!(apply(&mut triangle("past"), "add-kv-cache"), Ok(1));
        assert!(
            apply(&mut triangle("zero"), "add-kv-cache").unwrap_err().contains("no later positions")
        );
    }

    #[test]
    fn positions_that_are_fed_are_places() {
        let model = |dims: &[&str]| {
            hidden_by(|graph| {
                graph
                    .input_i64("position_ids", dims)
                    .initializer(initializer_i64("last", &[1], &[-1]))
                    .node(node("Unsqueeze", ["position_ids", "last"], "fed_rows"))
                    .node(node("LessOrEqual", ["columns", "fed_rows"], "hidden"))
            })
        };
        assert_eq!(apply(&mut model(&["batch", LENGTH]), "add-kv-cache"), Ok(1));
    }

    #[test]
    fn ports_of_another_form_are_refused() {
        let with = |change: &dyn Fn(&mut crate::ir::GraphProto)| {
            let mut proto = model(PLAIN).proto().clone();
            change(proto.graph.as_mut().unwrap());
            apply(&mut Model::from_proto(proto, "test.onnx").unwrap(), "add-kv-cache")
        };
        let fixed = "the input \"attention_mask\" is fixed at 5 positions";
        let floats = "\"attention_mask\" is f32 with 2 axes, and mask is i64 with 2";
        let flat = "\"attention_mask\" is i64 with 1 axes, and mask is i64 with 2";
        let refused = [
            (value_i64(MASK, &["batch", "5"]), fixed),
            (value_f32(MASK, &["batch", "n"]), floats),
            (value_i64(MASK, &["n"]), flat),
        ];
        for (mask, why) in refused {
            let error = with(&|graph| graph.input[1] = mask.clone()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let fixed =
            |graph: &mut crate::ir::GraphProto| graph.input[0] = value_i64(IDS, &["batch", "5"]);
        assert!(with(&fixed).unwrap_err().contains("\"input_ids\" is fixed at 5"));
        assert_eq!(with(&|graph| graph.input[1] = value_i64(MASK, &["2", "n"])), Ok(1));
    }

    #[test]
    fn a_softmax_along_another_axis_is_no_attention() {
        let with_axis = |opset: i64, axis: Option<i64>| {
            let mut proto = at_opset(&model(PLAIN), opset).proto().clone();
            let nodes = &mut proto.graph.as_mut().unwrap().node;
            let softmax = nodes.iter_mut().find(|node| node.is("Softmax")).unwrap();
            softmax.attribute.clear();
            if let Some(axis) = axis {
                softmax.attribute = node("Softmax", ["x"], "y").int("axis", axis).build().attribute;
            }
            apply(&mut Model::from_proto(proto, "test.onnx").unwrap(), "add-kv-cache")
        };
        let why = "add-kv-cache: node \"softmax\": the softmax is not along the keys";
        assert_eq!(with_axis(17, Some(2)).unwrap_err(), why);
        assert_eq!(with_axis(12, None).unwrap_err(), why);
        assert_eq!((with_axis(13, None), with_axis(17, Some(3))), (Ok(1), Ok(1)));
    }

    #[test]
    fn operators_of_another_domain_are_no_attention() {
        let mut proto = model(PLAIN).proto().clone();
        let nodes = &mut proto.graph.as_mut().unwrap().node;
        nodes.iter_mut().find(|node| node.output[0] == "scores").unwrap().domain =
            Some("other".to_owned());
        let mut model = Model::from_proto(proto, "test.onnx").unwrap();
        let error = apply(&mut model, "add-kv-cache").unwrap_err();
        assert!(error.ends_with("no product of queries and keys is before the mask"), "{error}");
    }

    #[test]
    fn shapes_without_a_past_are_forgotten() {
        let mut proto = model(PLAIN).proto().clone();
        proto.graph.as_mut().unwrap().value_info =
            vec![crate::ir::value_f32("raw", &["1", "4", "5", "5"])];
        let mut model = Model::from_proto(proto, "test.onnx").unwrap();
        apply(&mut model, "add-kv-cache").unwrap();
        assert!(model.graph_proto().value_info.is_empty());
    }

    /// The layer with keys and values whose shape is an input, so that nothing in the graph tells their heads.
    fn untold() -> Model {
        let mut proto = model(PLAIN).proto().clone();
        let graph = proto.graph.as_mut().unwrap();
        graph.initializer.retain(|tensor| tensor.name() != "kv_shape");
        graph.input.push(crate::ir::value_i64("kv_shape", &["4"]));
        Model::from_proto(proto, "test.onnx").unwrap()
    }

    #[test]
    fn heads_that_the_graph_does_not_tell_are_asked_for() {
        let error = Driver::of(&["add-kv-cache"]).unwrap().run(&mut untold()).unwrap_err();
        let why =
            "add-kv-cache: node \"softmax\": the number of heads of its keys and values is unknown";
        assert_eq!(error.to_string(), why);
        let hint = miette::Diagnostic::help(&error).unwrap().to_string();
        assert!(hint.ends_with("--kv-heads N --head-size N"), "{hint}");
        let stated = |heads| Given { heads: Some(heads), ..Given::default() };
        let mut cached = untold();
        assert_eq!(operate(&mut cached, "add-kv-cache", stated([KV_HEADS, SIZE])), Ok(1));
        let dims = cached.graph().noted("past_key_values.0.key").unwrap().dims();
        assert_eq!(dims, ["batch", "2", "past_sequence_length", "4"]);
        let why = "add-kv-cache: node \"softmax\": the head size of its keys and values is 4 and 8";
        let error = operate(&mut model(PLAIN), "add-kv-cache", stated([KV_HEADS, 8])).unwrap_err();
        assert_eq!(error, why);
    }

    #[test]
    fn ports_of_other_names_are_told() {
        let renamed = {
            let mut proto = model(PLAIN).proto().clone();
            let graph = proto.graph.as_mut().unwrap();
            rename_value(graph, "attention_mask", "padding");
            graph.input[1].name = Some("padding".to_owned());
            Model::from_proto(proto, "test.onnx").unwrap()
        };
        let error = Driver::of(&["add-kv-cache"]).unwrap().run(&mut renamed.clone()).unwrap_err();
        assert_eq!(error.to_string(), "add-kv-cache: the graph has no input \"attention_mask\"");
        let hint = miette::Diagnostic::help(&error).unwrap().to_string();
        assert!(hint.contains("--name mask=NAME"), "{hint}");
        let names = Causal {
            mask: "padding".to_owned(),
            past: "cache_in".to_owned(),
            present: "cache_out".to_owned(),
            ..Causal::default()
        };
        let mut cached = renamed;
        let given = Given { names, ..Given::default() };
        assert_eq!(operate(&mut cached, "add-kv-cache", given), Ok(1));
        let ports = |infos: &[crate::ir::ValueInfoProto]| -> Vec<String> {
            infos.iter().map(|info| info.name().to_owned()).collect()
        };
        let graph = cached.graph_proto();
        assert_eq!(ports(&graph.input), ["input_ids", "padding", "cache_in.0.key", "cache_in.0.value"]);
        assert_eq!(graph.input[1].dims(), ["batch", TOTAL]);
        assert_eq!(ports(&graph.output), ["logits", "cache_out.0.key", "cache_out.0.value"]);
    }
}
