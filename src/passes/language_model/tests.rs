//! One layer of a language model as exporters write it, small enough to be run in tract at every turn.

use super::*;
use crate::ir::{TensorProto, TestGraph, initializer_f32, initializer_i64, node, rename_value};
use crate::passes::Driver;
use crate::runtime::{Runtime, Tensors, Tract};
use crate::tensor::Tensor;

const VOCABULARY: usize = 9;
const WIDTH: usize = 8;
const SIZE: usize = 4;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// What an exporter may do in one way or another.
#[derive(Clone, Copy, PartialEq)]
struct Form {
    /// The graph has a cache of its own.
    cache: bool,
    /// Probabilities that are NaN become zero, and the mask is -inf.
    guarded: bool,
}

const PLAIN: Form = Form { cache: false, guarded: false };
const OPTIMUM: Form = Form { cache: true, guarded: true };

/// Numbers without a pattern, from -0.5 to 0.5.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn weights(name: &str, rows: usize, columns: usize, seed: u64) -> TensorProto {
    initializer_f32(name, &[rows, columns], &noise(rows * columns, seed))
}

fn base(form: Form) -> TestGraph {
    // A name of its own where it could be the ids' length: tract takes two equal ranges for one axis.
    let total = if form.cache { TOTAL } else { "mask_length" };
    let heads = HEADS as i64;
    let mut graph = TestGraph::new()
        .input_i64(IDS, &["batch", LENGTH])
        .input_i64(MASK, &["batch", total])
        .initializer(weights("table", VOCABULARY, WIDTH, 1))
        .initializer(weights("wq", WIDTH, HEADS * SIZE, 2))
        .initializer(weights("wk", WIDTH, KV_HEADS * SIZE, 3))
        .initializer(weights("wv", WIDTH, KV_HEADS * SIZE, 4))
        .initializer(weights("wo", HEADS * SIZE, WIDTH, 5))
        .initializer(weights("head", WIDTH, VOCABULARY, 6))
        .initializer(initializer_i64("q_shape", &[4], &[0, 0, heads, SIZE as i64]))
        .initializer(initializer_i64("kv_shape", &[4], &[0, 0, KV_HEADS as i64, SIZE as i64]))
        .initializer(initializer_i64("merged", &[4], &[0, heads, -1, SIZE as i64]))
        .initializer(initializer_i64("flat", &[3], &[0, 0, heads * SIZE as i64]))
        .initializer(initializer_i64("two", &[1], &[2]))
        .initializer(initializer_i64("spread", &[5], &[1, 1, (HEADS / KV_HEADS) as i64, 1, 1]))
        .initializer(initializer_f32("half", &[], &[0.5]))
        .node(node("Gather", ["table", IDS], "x"));
    for (name, weight, shape) in
        [("q", "wq", "q_shape"), ("k", "wk", "kv_shape"), ("v", "wv", "kv_shape")]
    {
        let [flat, third, second] = ["flat", "third", "second"].map(|part| format!("{name}_{part}"));
        graph = graph
            .node(node("MatMul", ["x", weight], &flat))
            .node(node("Reshape", [&flat, shape], &third))
            .node(node("Transpose", [&third], &second).ints("perm", [0, 2, 1, 3]));
    }
    graph
}

/// The mask as an exporter builds it, from the lengths and values of its inputs.
fn masked(graph: TestGraph, form: Form) -> TestGraph {
    let out = if form.guarded { f32::NEG_INFINITY } else { -1e4 };
    graph
        .initializer(initializer_i64("zero", &[], &[0]))
        .initializer(initializer_i64("one", &[], &[1]))
        .initializer(initializer_i64("first", &[1], &[1]))
        .initializer(initializer_f32("in", &[], &[0.0]))
        .initializer(initializer_f32("out", &[], &[out]))
        .node(node("Shape", [MASK], "mask_shape"))
        .node(node("Gather", ["mask_shape", "one"], "total"))
        .node(node("Shape", [IDS], "ids_shape"))
        .node(node("Gather", ["ids_shape", "one"], "length"))
        .node(node("Sub", ["total", "length"], "past"))
        .node(node("Range", ["past", "total", "one"], "places"))
        .node(node("Unsqueeze", ["places", "first"], "rows"))
        .node(node("Range", ["zero", "total", "one"], "columns"))
        .node(node("LessOrEqual", ["columns", "rows"], "causal"))
        .node(node("Cast", [MASK], "given").int("to", 9))
        .node(node("Unsqueeze", ["given", "first"], "given_rows"))
        .node(node("And", ["causal", "given_rows"], "seen"))
        .node(node("Unsqueeze", ["seen", "first"], "seen_heads"))
        .node(node("Where", ["seen_heads", "in", "out"], "mask"))
}

fn attended(graph: TestGraph, form: Form, mask: &str) -> TestGraph {
    let mut graph = graph;
    let (mut keys, mut values) = ("k_second", "v_second");
    if form.cache {
        let heads = KV_HEADS.to_string();
        let size = SIZE.to_string();
        for (kind, value) in [("key", keys), ("value", values)] {
            let (past, present) = (format!("{PAST}0.{kind}"), format!("{PRESENT}0.{kind}"));
            graph = graph
                .input(&past, &["batch", &heads, "past_sequence_length", &size])
                .node(node("Concat", [&past, value], &present).int("axis", 2));
        }
        (keys, values) = ("present.0.key", "present.0.value");
    }
    for (name, value) in [("keys", keys), ("values", values)] {
        let [open, spread] = ["open", "spread"].map(|part| format!("{name}_{part}"));
        graph = graph
            .node(node("Unsqueeze", [value, "two"], &open))
            .node(node("Expand", [&open, "spread"], &spread))
            .node(node("Reshape", [&spread, "merged"], name));
    }
    let probabilities = if form.guarded { "kept" } else { "p" };
    graph = graph
        .node(node("Transpose", ["keys"], "turned").ints("perm", [0, 1, 3, 2]))
        .node(node("MatMul", ["q_second", "turned"], "raw"))
        .node(node("Mul", ["raw", "half"], "scores"))
        .node(node("Add", ["scores", mask], "masked"))
        .node(node("Softmax", ["masked"], "p").int("axis", -1).named("softmax"));
    if form.guarded {
        graph = graph.node(node("IsNaN", ["p"], "nan")).node(node("Where", ["nan", "in", "p"], "kept"));
    }
    graph.node(node("MatMul", [probabilities, "values"], "context"))
}

fn finished(graph: TestGraph, form: Form) -> Model {
    let graph = graph
        .node(node("Transpose", ["context"], "context_third").ints("perm", [0, 2, 1, 3]))
        .node(node("Reshape", ["context_third", "flat"], "context_flat"))
        .node(node("MatMul", ["context_flat", "wo"], "attended"))
        .node(node("Add", ["x", "attended"], "h"))
        .node(node("MatMul", ["h", "head"], LOGITS))
        .output(LOGITS, &["batch", LENGTH, "9"]);
    if !form.cache {
        return graph.model();
    }
    let (heads, size) = (KV_HEADS.to_string(), SIZE.to_string());
    graph
        .output("present.0.key", &["batch", &heads, TOTAL, &size])
        .output("present.0.value", &["batch", &heads, TOTAL, &size])
        .model()
}

fn model(form: Form) -> Model {
    finished(attended(masked(base(form), form), form, "mask"), form)
}

/// One call in tract: tokens and mask, [batch, …], a cache where the model has one.
fn call(model: &Model, ids: &[&[i64]], mask: &[&[i64]], past: Option<&Tensors>) -> Tensors {
    let batch = ids.len();
    let whole = |rows: &[&[i64]]| Tensor::from_i64(&[batch, rows[0].len()], &rows.concat());
    let mut inputs = Tensors::from([(IDS.to_owned(), whole(ids)), (MASK.to_owned(), whole(mask))]);
    for input in model.graph_proto().input.iter().filter(|input| input.name().starts_with(PAST)) {
        let name = input.name().to_owned();
        let tensor = match past {
            Some(past) => past[&name.replace(PAST, PRESENT)].clone(),
            None => Tensor::from_f32(&[batch, KV_HEADS, 0, SIZE], &[]),
        };
        inputs.insert(name, tensor);
    }
    Tract.load_bytes(&model.to_bytes()).unwrap().run(&inputs).unwrap()
}

fn logits(outputs: &Tensors) -> Vec<f32> {
    outputs[LOGITS].to_f32().unwrap()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    approx::abs_diff_eq!(a, b, epsilon = 1e-5)
}

const IDS_5: [i64; 5] = [3, 1, 4, 1, 5];
const ONES: [i64; 5] = [1; 5];

#[test]
fn a_cache_gives_what_the_whole_prompt_gives() {
    let plain = model(PLAIN);
    let whole = logits(&call(&plain, &[&IDS_5], &[&ONES], None));
    let mut cached = plain.clone();
    assert_eq!(add_kv_cache(&mut cached, KV_HEADS, SIZE), Ok(1));
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
    add_kv_cache(&mut cached, KV_HEADS, SIZE).unwrap();
    let graph = cached.graph();
    let (_, opened) = graph.maker_of("keys_open", "Unsqueeze").unwrap();
    assert_eq!(opened.input_at(0), Some("present.0.key"));
    let again = add_kv_cache(&mut cached, KV_HEADS, SIZE).unwrap_err().to_string();
    assert_eq!(again, "add-kv-cache: the graph has a cache already");
}

#[test]
fn what_is_no_attention_is_refused_by_name() {
    let refused = |graph: TestGraph| {
        add_kv_cache(&mut finished(graph, PLAIN), KV_HEADS, SIZE).unwrap_err().to_string()
    };
    let constant = masked(base(PLAIN), PLAIN).initializer(initializer_f32("no_mask", &[], &[0.0]));
    assert_eq!(
        refused(attended(constant, PLAIN, "no_mask")),
        "add-kv-cache: node \"softmax\": what is added to the scores does not depend on attention_mask"
    );
    let none = base(PLAIN).node(node("Identity", ["q_second"], "context"));
    assert_eq!(refused(none), "add-kv-cache: the graph has no softmax, so no attention");
    let alone = base(PLAIN).node(node("Softmax", ["q_second"], "context").int("axis", -1).named("odd"));
    assert_eq!(refused(alone), "add-kv-cache: node \"odd\": no mask is added before the softmax");
    let twice = attended(masked(base(PLAIN), PLAIN), PLAIN, "mask").node(node(
        "Identity",
        ["k_second"],
        "seen_elsewhere",
    ));
    assert!(refused(twice).ends_with("its keys or values are read in other places too"));
}

#[test]
fn a_mask_of_any_making_becomes_the_canonical_one() {
    let mut changed = model(OPTIMUM);
    let rows: [&[i64]; 2] = [&IDS_5, &[0, 0, 2, 7, 1]];
    let mask: [&[i64]; 2] = [&ONES, &[0, 0, 1, 1, 1]];
    let before = logits(&call(&changed, &rows, &mask, None));
    assert_eq!(canonical_mask(&mut changed), Ok(1));
    changed.check().unwrap();
    let after = logits(&call(&changed, &rows, &mask, None));
    let given = |values: &[f32]| [&values[..45], &values[63..]].concat();
    assert!(close(&given(&before), &given(&after)));
    Driver::of(&["unused-nodes"]).unwrap().run(&mut changed);
    let left = |op: &str| changed.graph_proto().node.iter().filter(|made| made.is(op)).count();
    assert_eq!((left("Where"), left("IsNaN"), left("And")), (0, 0, 0));
}

#[test]
fn a_mask_of_more_than_the_attention_mask_is_refused() {
    let graph = masked(base(OPTIMUM), OPTIMUM).input("slopes", &["4", "1", "1"]).node(node(
        "Add",
        ["mask", "slopes"],
        "biased",
    ));
    let error = canonical_mask(&mut finished(attended(graph, OPTIMUM, "biased"), OPTIMUM));
    assert_eq!(
        error.unwrap_err().to_string(),
        "canonical-mask: node \"softmax\": what is added to the scores is not made of attention_mask alone"
    );
}

#[test]
fn grouped_queries_give_the_same_numbers_without_copies_of_the_cache() {
    let mut grouped = model(OPTIMUM);
    canonical_mask(&mut grouped).unwrap();
    let repeated = grouped.clone();
    assert_eq!(group_query_heads(&mut grouped), Ok(1));
    grouped.consistent().unwrap();
    // The nodes whose names the new ones have are without a use now.
    Driver::of(&["unused-nodes"]).unwrap().run(&mut grouped);
    grouped.check().unwrap();
    assert!(grouped.graph_proto().node.iter().all(|made| !made.is("Expand")));
    let rows: [&[i64]; 2] = [&IDS_5, &[0, 0, 2, 7, 1]];
    let mask: [&[i64]; 2] = [&ONES, &[0, 0, 1, 1, 1]];
    let first = call(&grouped, &rows, &mask, None);
    assert!(close(&logits(&first), &logits(&call(&repeated, &rows, &mask, None))));
    let longer: [&[i64]; 2] = [&[1; 6], &[0, 0, 1, 1, 1, 1]];
    let step = |model: &Model| logits(&call(model, &[&[6], &[2]], &longer, Some(&first)));
    assert!(close(&step(&grouped), &step(&repeated)));
    assert_eq!(group_query_heads(&mut grouped), Ok(0));
}

#[test]
fn heads_are_grouped_under_the_canonical_mask_only() {
    let error = group_query_heads(&mut model(OPTIMUM)).unwrap_err().to_string();
    assert_eq!(error, "group-query-heads: node \"softmax\": the mask is not the canonical one");
}

#[test]
fn the_value_behind_the_logits_is_the_last_output() {
    let mut exposed = model(OPTIMUM);
    let whole = call(&exposed, &[&IDS_5], &[&ONES], None);
    let expose = Expose { layers: &[0], last_logits: true };
    expose_hidden_states(&mut exposed, expose).unwrap();
    exposed.check().unwrap();
    let outputs: Vec<_> = exposed.graph_proto().output.iter().map(|o| (o.name(), o.dims())).collect();
    assert_eq!(outputs.last().unwrap().0, HIDDEN);
    assert_eq!(outputs.last().unwrap().1, ["batch", LENGTH, "8"]);
    assert_eq!(outputs[3].0, "hidden_states.0");
    assert_eq!(outputs[0].1, ["batch", "1", "9"]);
    let made = call(&exposed, &[&IDS_5], &[&ONES], None);
    assert!(close(&logits(&made), &logits(&whole)[36..]));
    let hidden = made[HIDDEN].to_f32().unwrap();
    let head = noise(WIDTH * VOCABULARY, 6);
    let projected: Vec<f32> = (0..VOCABULARY)
        .map(|token| (0..WIDTH).map(|c| hidden[32 + c] * head[c * VOCABULARY + token]).sum())
        .collect();
    assert!(close(&projected, &logits(&made)));
    let table = noise(VOCABULARY * WIDTH, 1);
    assert!(close(&made["hidden_states.0"].to_f32().unwrap()[..WIDTH], &table[24..32]));
    let again = expose_hidden_states(&mut exposed, Expose::default()).unwrap_err().to_string();
    assert!(again.ends_with("an output \"last_hidden_state\" already"), "{again}");
}

#[test]
fn hidden_states_that_are_not_there_are_refused() {
    let refused = |model: &mut Model, layers: &[u32]| {
        let expose = Expose { layers, last_logits: false };
        expose_hidden_states(model, expose).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&mut model(PLAIN), &[1]),
        "expose-hidden-states: layer 1 is not there: the graph has 1"
    );
    let odd = TestGraph::new().input("h", &["b", "s", "8"]).initializer(weights("w", 8, 9, 1));
    let product = node("MatMul", ["h", "w"], LOGITS);
    let mut odd = odd.node(product).output(LOGITS, &["b", "s", "9"]).model();
    assert!(refused(&mut odd, &[]).ends_with("projected from an input, not from a hidden state"));
    let mut none = TestGraph::new()
        .input("h", &["b", "s", "8"])
        .node(node("Tanh", ["h"], "y"))
        .output("y", &["b", "s", "8"])
        .model();
    assert!(refused(&mut none, &[]).ends_with("the graph has no output \"logits\""));
}

/// The model with inner values under other names.
fn renamed(model: &Model, pairs: &[(&str, &str)]) -> Model {
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    pairs.iter().for_each(|(old, new)| rename_value(graph, old, new));
    Model::from_proto(proto, "test.onnx").unwrap()
}

fn at_opset(model: &Model, opset: i64) -> Model {
    let mut proto = model.proto().clone();
    proto.opset_import[0].version = Some(opset);
    Model::from_proto(proto, "test.onnx").unwrap()
}

#[test]
fn names_that_are_taken_are_worked_round() {
    let taken = [
        ("k_second", "present.0.key"),
        ("k_third", "past_key_values.0.value"),
        ("h", "hidden_states.0"),
        ("context_flat", HIDDEN),
        ("q_flat", "logits/last"),
        ("k_flat", "add-kv-cache/0/keys"),
    ];
    let mut plain = model(PLAIN);
    let mut odd = renamed(&plain, &taken);
    for model in [&mut plain, &mut odd] {
        expose_hidden_states(model, Expose { layers: &[0], last_logits: true }).unwrap();
        add_kv_cache(model, KV_HEADS, SIZE).unwrap();
        model.check().unwrap();
    }
    let first = |model: &Model| call(model, &[&IDS_5], &[&ONES], None);
    assert_eq!(first(&plain), first(&odd));
    let taken = [
        ("q_second", "attention_bias"),
        ("k_third", "attention_bias/rows"),
        ("q_third", "group-query-heads/0/raw"),
        ("v_third", "group-query-heads/mask_2"),
    ];
    let mut plain = model(OPTIMUM);
    let mut odd = renamed(&plain, &taken);
    for model in [&mut plain, &mut odd] {
        canonical_mask(model).unwrap();
        group_query_heads(model).unwrap();
        model.check().unwrap();
    }
    assert_eq!(first(&plain), first(&odd));
}

#[test]
fn a_hidden_state_that_is_an_output_stays_one() {
    let mut proto = model(PLAIN).proto().clone();
    proto.graph.as_mut().unwrap().output.push(crate::ir::value_f32("h", &["batch", LENGTH, "8"]));
    let mut exposed = Model::from_proto(proto, "test.onnx").unwrap();
    expose_hidden_states(&mut exposed, Expose { layers: &[], last_logits: true }).unwrap();
    exposed.check().unwrap();
    let made = call(&exposed, &[&IDS_5], &[&ONES], None);
    assert_eq!(made["h"], made[HIDDEN]);
    assert_eq!(made[LOGITS].shape(), [1, 1, VOCABULARY]);
}

#[test]
fn a_head_that_is_the_embedding_transposed_has_hidden_states() {
    let turned = node("Transpose", ["table"], "head_turned").ints("perm", [1, 0]);
    let mut proto = model(PLAIN).proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    let last = graph.node.last_mut().unwrap();
    last.input[1] = "head_turned".to_owned();
    graph.node.insert(0, turned.build());
    graph.initializer.retain(|tensor| tensor.name() != "head");
    let mut tied = Model::from_proto(proto, "test.onnx").unwrap();
    expose_hidden_states(&mut tied, Expose::default()).unwrap();
    assert_eq!(tied.graph_proto().output.last().unwrap().dims(), ["batch", LENGTH, "8"]);
}

#[test]
fn logits_without_a_shape_or_with_others_behind_them_are_refused() {
    let last = Expose { layers: &[], last_logits: true };
    let mut proto = model(PLAIN).proto().clone();
    proto.graph.as_mut().unwrap().output[0].r#type = None;
    let mut shapeless = Model::from_proto(proto, "test.onnx").unwrap();
    let error = expose_hidden_states(&mut shapeless, last).unwrap_err().to_string();
    assert!(error.ends_with("declare no shape [batch, sequence, vocabulary]"), "{error}");
    let mut proto = model(PLAIN).proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    graph.node.push(node("Exp", [LOGITS], "odds").build());
    graph.output.push(crate::ir::value_f32("odds", &["batch", LENGTH, "9"]));
    let mut more = Model::from_proto(proto, "test.onnx").unwrap();
    let error = expose_hidden_states(&mut more, last).unwrap_err().to_string();
    assert!(error.ends_with("the output \"odds\" is made of all positions' logits"), "{error}");
}

#[test]
fn each_surgery_names_the_opset_it_needs() {
    let refused = |error: Result<usize, Refused>| error.unwrap_err().to_string();
    assert_eq!(
        refused(canonical_mask(&mut at_opset(&model(OPTIMUM), 12))),
        "canonical-mask: it needs opset 13, and the model has 12"
    );
    let last = Expose { layers: &[], last_logits: true };
    assert_eq!(
        expose_hidden_states(&mut at_opset(&model(PLAIN), 9), last).unwrap_err().to_string(),
        "expose-hidden-states: it needs opset 10, and the model has 9"
    );
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
        add_kv_cache(&mut Model::from_proto(proto, "test.onnx").unwrap(), KV_HEADS, SIZE)
    };
    let why = "add-kv-cache: node \"softmax\": the softmax is not along the keys";
    assert_eq!(with_axis(17, Some(2)).unwrap_err().to_string(), why);
    assert_eq!(with_axis(12, None).unwrap_err().to_string(), why);
    assert_eq!((with_axis(13, None), with_axis(17, Some(3))), (Ok(1), Ok(1)));
}

#[test]
fn operators_of_another_domain_are_no_attention() {
    let mut proto = model(PLAIN).proto().clone();
    let nodes = &mut proto.graph.as_mut().unwrap().node;
    nodes.iter_mut().find(|node| node.output[0] == "scores").unwrap().domain = Some("other".to_owned());
    let mut model = Model::from_proto(proto, "test.onnx").unwrap();
    let error = add_kv_cache(&mut model, KV_HEADS, SIZE).unwrap_err().to_string();
    assert!(error.ends_with("no product of queries and keys is before the mask"), "{error}");
}

#[test]
fn shapes_without_a_past_are_forgotten() {
    let mut proto = model(PLAIN).proto().clone();
    proto.graph.as_mut().unwrap().value_info = vec![crate::ir::value_f32("raw", &["1", "4", "5", "5"])];
    let mut model = Model::from_proto(proto, "test.onnx").unwrap();
    add_kv_cache(&mut model, KV_HEADS, SIZE).unwrap();
    assert!(model.graph_proto().value_info.is_empty());
}

#[test]
fn every_opset_from_13_gives_the_same_numbers() {
    let before = call(&model(OPTIMUM), &[&IDS_5], &[&ONES], None);
    let whole = call(&model(PLAIN), &[&IDS_5], &[&ONES], None);
    for opset in [13, 17, 18, 23] {
        let mut grouped = at_opset(&model(OPTIMUM), opset);
        assert_eq!(canonical_mask(&mut grouped), Ok(1));
        assert_eq!(group_query_heads(&mut grouped), Ok(1));
        expose_hidden_states(&mut grouped, Expose::default()).unwrap();
        let after = call(&grouped, &[&IDS_5], &[&ONES], None);
        assert!(close(&logits(&before), &logits(&after)), "opset {opset}");
        let mut cached = at_opset(&model(PLAIN), opset);
        assert_eq!(add_kv_cache(&mut cached, KV_HEADS, SIZE), Ok(1));
        let cached = call(&cached, &[&IDS_5], &[&ONES], None);
        assert!(close(&logits(&whole), &logits(&cached)), "opset {opset}");
    }
}

#[test]
fn nodes_say_which_surgery_made_them() {
    let mut grouped = model(OPTIMUM);
    canonical_mask(&mut grouped).unwrap();
    group_query_heads(&mut grouped).unwrap();
    let by = |pass: &str| {
        let nodes = grouped.graph_proto().node.iter();
        nodes.filter(|node| node.author() == Some(pass)).count()
    };
    assert_eq!((by("canonical-mask"), by("group-query-heads")), (17, 9));
}
