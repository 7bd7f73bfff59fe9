//! One layer of a language model as exporters write it, small enough to be run in tract at every turn.

pub(in crate::passes) use super::super::attention::{LENGTH, TOTAL};
pub(in crate::passes) use crate::ir::{Model, TestGraph, initializer_f32, initializer_i64, node};
use crate::ir::{TensorProto, rename_value};
use crate::passes::{Driver, Given};
use crate::runtime::{Runtime, Tensors, Tract};
use crate::tensor::Tensor;

pub(in crate::passes) const IDS: &str = "input_ids";
pub(in crate::passes) const MASK: &str = "attention_mask";
pub(in crate::passes) const LOGITS: &str = "logits";
pub(in crate::passes) const VOCABULARY: usize = 9;
pub(in crate::passes) const WIDTH: usize = 8;
pub(in crate::passes) const SIZE: usize = 4;
pub(in crate::passes) const HEADS: usize = 4;
pub(in crate::passes) const KV_HEADS: usize = 2;

/// Runs one surgery; in how many places it changed the model, or why not.
pub(in crate::passes) fn operate(
    model: &mut Model,
    surgery: &str,
    given: Given,
) -> Result<usize, String> {
    let report = Driver::of(&[surgery]).unwrap().given(given).run(model).map_err(|e| e.to_string())?;
    let own = report.passes.iter().find(|one| one.pass == surgery);
    Ok(own.map_or(0, |own| own.applied))
}

/// As [`operate`], of a surgery that is told nothing.
pub(in crate::passes) fn apply(model: &mut Model, surgery: &str) -> Result<usize, String> {
    operate(model, surgery, Given::default())
}

/// Exposes what enters the projection, and what enters these layers.
pub(in crate::passes) fn expose(
    model: &mut Model,
    layers: &[u32],
    last_logits: bool,
) -> Result<usize, String> {
    let given = Given { layers: layers.to_vec(), last_logits, ..Given::default() };
    operate(model, "expose-hidden-states", given)
}

/// What an exporter may do in one way or another.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::passes) struct Form {
    /// The graph has a cache of its own.
    pub(in crate::passes) cache: bool,
    /// Probabilities that are NaN become zero, and the mask is -inf.
    pub(in crate::passes) guarded: bool,
}

pub(in crate::passes) const PLAIN: Form = Form { cache: false, guarded: false };
pub(in crate::passes) const OPTIMUM: Form = Form { cache: true, guarded: true };

/// Numbers without a pattern, from -0.5 to 0.5.
pub(in crate::passes) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

pub(in crate::passes) fn weights(name: &str, rows: usize, columns: usize, seed: u64) -> TensorProto {
    initializer_f32(name, &[rows, columns], &noise(rows * columns, seed))
}

pub(in crate::passes) fn base(form: Form) -> TestGraph {
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
pub(in crate::passes) fn masked(graph: TestGraph, form: Form) -> TestGraph {
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

pub(in crate::passes) fn attended(graph: TestGraph, form: Form, mask: &str) -> TestGraph {
    let mut graph = graph;
    let (mut keys, mut values) = ("k_second", "v_second");
    if form.cache {
        let heads = KV_HEADS.to_string();
        let size = SIZE.to_string();
        for (kind, value) in [("key", keys), ("value", values)] {
            let (past, present) = (format!("past_key_values.0.{kind}"), format!("present.0.{kind}"));
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

pub(in crate::passes) fn finished(graph: TestGraph, form: Form) -> Model {
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

pub(in crate::passes) fn model(form: Form) -> Model {
    finished(attended(masked(base(form), form), form, "mask"), form)
}

/// One call in tract: tokens and mask, [batch, …], a cache where the model has one.
pub(in crate::passes) fn call(
    model: &Model,
    ids: &[&[i64]],
    mask: &[&[i64]],
    past: Option<&Tensors>,
) -> Tensors {
    let batch = ids.len();
    let whole = |rows: &[&[i64]]| Tensor::from_i64(&[batch, rows[0].len()], &rows.concat());
    let mut inputs = Tensors::from([(IDS.to_owned(), whole(ids)), (MASK.to_owned(), whole(mask))]);
    for input in
        model.graph_proto().input.iter().filter(|input| input.name().starts_with("past_key_values."))
    {
        let name = input.name().to_owned();
        let tensor = match past {
            Some(past) => past[&name.replace("past_key_values.", "present.")].clone(),
            None => Tensor::from_f32(&[batch, KV_HEADS, 0, SIZE], &[]),
        };
        inputs.insert(name, tensor);
    }
    Tract.load_bytes(&model.to_bytes()).unwrap().run(&inputs).unwrap()
}

pub(in crate::passes) fn logits(outputs: &Tensors) -> Vec<f32> {
    outputs[LOGITS].to_f32().unwrap()
}

pub(in crate::passes) fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

pub(in crate::passes) const IDS_5: [i64; 5] = [3, 1, 4, 1, 5];
pub(in crate::passes) const ONES: [i64; 5] = [1; 5];

/// The model with inner values under other names.
pub(in crate::passes) fn renamed(model: &Model, pairs: &[(&str, &str)]) -> Model {
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    pairs.iter().for_each(|(old, new)| rename_value(graph, old, new));
    Model::from_proto(proto, "test.onnx").unwrap()
}

pub(in crate::passes) fn at_opset(model: &Model, opset: i64) -> Model {
    let mut proto = model.proto().clone();
    proto.opset_import[0].version = Some(opset);
    Model::from_proto(proto, "test.onnx").unwrap()
}
