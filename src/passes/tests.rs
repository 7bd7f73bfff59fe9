//! What holds for all passes together.

mod surgeries;
mod vocos;

use std::cell::Cell;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::ir::proto::{GraphProto, StringStringEntryProto, TensorAnnotation, TrainingInfoProto};
use crate::ir::{NodeBuilder, value_f32};

/// A value in two steps of which one goes, with all that a file may note of nodes and values.
fn annotated() -> Model {
    let graph = TestGraph::new()
        .input("x", &["n"])
        .initializer(f32s("unused", &[1], &[1.0]))
        .node(node("Identity", ["x"], "a"))
        .node(node("Abs", ["a"], "b"))
        .node(node("Neg", ["b"], "y"))
        .output("y", &["n"]);
    let mut proto = graph.model().proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    graph.node.iter_mut().for_each(|node| node.doc_string = Some("line 7".to_owned()));
    graph.value_info = vec![value_f32("a", &["n"]), value_f32("b", &["n"])];
    graph.quantization_annotation = ["a", "b"].map(annotation).to_vec();
    Model::from_proto(proto, "test.onnx").unwrap()
}

fn annotation(value: &str) -> TensorAnnotation {
    TensorAnnotation { tensor_name: Some(value.to_owned()), ..Default::default() }
}

/// y = g · (x·w + b), of which training uses parts: `reads` in a node of its own, and `updates` to assign to.
fn trained(reads: &str, updates: Option<&str>) -> Model {
    let graph = TestGraph::new()
        .input("x", &["n", "2"])
        .initializer(f32s("w", &[2, 2], &[1., 2., 3., 4.]))
        .initializer(f32s("b", &[2], &[0.5, -0.5]))
        .initializer(f32s("g", &[2], &[2.0, 3.0]))
        .initializer(f32s("step", &[1], &[1.0]))
        .node(node("MatMul", ["x", "w"], "p"))
        .node(node("Add", ["p", "b"], "s"))
        .node(node("Relu", ["p"], "loss"))
        .node(node("Mul", ["s", "g"], "y"))
        .output("y", &["n", "2"]);
    let mut proto = graph.model().proto().clone();
    let entry = |key: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some("next".to_owned()),
    };
    proto.training_info.push(TrainingInfoProto {
        algorithm: Some(GraphProto {
            node: vec![node("Neg", [reads], "next").build()],
            output: vec![value_f32("next", &["n", "2"])],
            ..Default::default()
        }),
        update_binding: updates.into_iter().map(entry).collect(),
        ..Default::default()
    });
    Model::from_proto(proto, "test.onnx").unwrap()
}

#[test]
fn what_training_reads_stays_and_what_it_assigns_to_is_no_constant() {
    let rewritten = |reads: &str, updates: Option<&str>| {
        let mut model = trained(reads, updates);
        model.check().unwrap();
        Driver::default().run(&mut model).unwrap();
        model.check().unwrap();
        model
    };
    let scaled = |model: &Model| !ops(model).contains(&"Mul");
    // A node, a constant that nothing else uses, and values within the pattern of a fold.
    let model = rewritten("loss", None);
    assert!(ops(&model).contains(&"Relu") && !scaled(&model));
    assert!(rewritten("step", None).graph().initializer("step").is_some());
    assert!(scaled(&rewritten("step", None)));
    assert!(!scaled(&rewritten("s", None)));
    for weight in ["w", "b", "g"] {
        let model = rewritten(weight, Some(weight));
        assert!(!scaled(&model), "{weight}");
        assert!(model.graph().initializer(weight).is_none(), "{weight}");
    }
}

#[test]
fn without_fuel_or_work_a_model_stays_as_it_was() {
    let before = annotated();
    let mut model = before.clone();
    assert!(Driver::default().fuel(Some(0)).run(&mut model).unwrap().out_of_fuel);
    assert_eq!(model.to_bytes(), before.to_bytes());
    Driver::of(&["fold-scale", "sink-transposes"]).unwrap().run(&mut model).unwrap();
    assert_eq!(model.to_bytes(), before.to_bytes());
}

#[test]
fn a_node_without_a_name_is_told_by_its_output() {
    let graph = TestGraph::new().versions(8, 6).input("x", &["n"]);
    let graph = graph.node(node("Identity", ["x"], "a").named("")).node(node("Neg", ["a"], "y"));
    let mut model = graph.output("y", &["n"]).model();
    let report = Driver::default().run(&mut model).unwrap();
    let why = "it needs opset 7, and the model has 6";
    assert_eq!(report.passes[0].refused, [("a".to_owned(), why.to_owned())]);
}

#[test]
fn what_is_noted_of_values_that_are_still_there_stays() {
    let mut model = annotated();
    Driver::default().run(&mut model).unwrap();
    let graph = model.graph_proto();
    assert_eq!(ops(&model), ["Abs", "Neg"]);
    assert!(graph.node.iter().all(|node| node.doc_string() == "line 7"));
    assert_eq!(graph.value_info, [value_f32("b", &["n"])]);
    assert_eq!(graph.quantization_annotation, [annotation("b")]);
    assert!(graph.initializer.is_empty());
}

#[test]
fn a_shape_noted_under_a_name_that_a_pass_takes_goes() {
    let mut proto = TestGraph::new()
        .input("x", &["t", "1"])
        .initializer(f32s("a", &[1, 1], &[1.]))
        .initializer(f32s("b", &[1, 1], &[2.]))
        .node(node("MatMul", ["x", "a"], "p"))
        .node(node("MatMul", ["x", "b"], "q"))
        .output("p", &["t", "1"])
        .output("q", &["t", "1"])
        .model()
        .proto()
        .clone();
    proto.graph.as_mut().unwrap().value_info = vec![value_f32("p/merged", &["t", "1"])];
    let mut model = Model::from_proto(proto, "test.onnx").unwrap();
    assert_eq!(apply(&mut model, "merge-parallel-matmuls"), 1);
    assert!(model.graph_proto().value_info.is_empty());
}

/// One step of a chain: it takes `x`, of width 4, and gives `y` of the same. Its first node has a name.
fn step(graph: TestGraph, kind: usize, at: usize, opset: i64, name: &str) -> TestGraph {
    let weight = |part: &str, dims: &[usize]| {
        let values =
            (1..=dims.iter().product()).map(|i| ((i + at) as f32 * 0.7).sin()).collect::<Vec<_>>();
        f32s(&format!("w{at}{part}"), dims, &values)
    };
    let (x, y) = (format!("v{at}"), format!("v{}", at + 1));
    let value = |part: &str| format!("v{at}/{part}");
    let first = Cell::new(name);
    let named = |op: &str, inputs: &[&str], output: &str| -> NodeBuilder {
        node(op, inputs.iter().copied(), output).named(first.take())
    };
    let turn = |x: &str, y: &str| named("Transpose", &[x], y).ints("perm", [0, 2, 1]);
    match kind {
        0 => graph.node(named("Identity", &[&x], &y)),
        1 => graph
            .initializer(weight("a", &[4, 4]))
            .initializer(weight("b", &[4, 4]))
            .node(named("MatMul", &[&x, &format!("w{at}a")], &value("merged")))
            .node(named("MatMul", &[&x, &format!("w{at}b")], &value("weight")))
            .node(named("Add", &[&value("merged"), &value("weight")], &y)),
        2 => graph
            .initializer(weight("a", &[4, 4]))
            .initializer(weight("b", &[4]))
            .initializer(weight("g", &[4]))
            .node(named("MatMul", &[&x, &format!("w{at}a")], &value("p")))
            .node(named("Add", &[&value("p"), &format!("w{at}b")], &value("p/scaled")))
            .node(named("Mul", &[&value("p/scaled"), &format!("w{at}g")], &y)),
        3 => graph
            .initializer(weight("a", &[4, 4, 1]))
            .node(turn(&x, &value("t")))
            .node(named("Conv", &[&value("t"), &format!("w{at}a")], &value("c")))
            .node(turn(&value("c"), &y)),
        4 => graph
            .initializer(weight("a", &[4, 1, 3]))
            .node(turn(&x, &value("t")))
            .node(
                named("Conv", &[&value("t"), &format!("w{at}a")], &value("c"))
                    .int("group", 4)
                    .ints("pads", [1, 1]),
            )
            .node(turn(&value("c"), &y)),
        5 => {
            let constant = node("Constant", NONE, value("k")).named(first.take());
            let constant = constant.attr("value", Attr::Tensor(weight("k", &[1])));
            graph.node(constant).node(named("Mul", &[&x, &value("k")], &y))
        }
        _ => {
            let axes = |op: &str, x: &str, y: &str| match opset {
                ..13 => named(op, &[x], y).ints("axes", [0]),
                _ => named(op, &[x, &format!("w{at}axes")], y),
            };
            graph
                .initializer(weight("a", &[4]))
                .initializer(i64s(&format!("w{at}axes"), &[1], &[0]))
                .node(axes("Unsqueeze", &format!("w{at}a"), &value("u")))
                .node(axes("Squeeze", &value("u"), &value("s")))
                .node(named("Sub", &[&x, &value("s")], &y))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Chains of what the passes look for, at every opset, of nodes without names but one.
    #[test]
    fn any_chain_keeps_its_numbers_and_no_new_name_is_taken(
        kinds in proptest::collection::vec(0usize..7, 1..6),
        opset in proptest::sample::select(OPSETS.to_vec()),
        name in proptest::sample::select(vec!["", "n", "v0/merged"]),
    ) {
        let start = TestGraph::new().versions(8, opset).input("v0", &["b", "t", "4"]);
        let steps = kinds.iter().enumerate();
        let graph = steps.fold(start, |graph, (at, &kind)| {
            step(graph, kind, at, opset, if at == 0 { name } else { "" })
        });
        let last = format!("v{}", kinds.len());
        let mut model = graph.node(node("Abs", [last], "y")).output("y", &["b", "t", "4"]).model();
        let x: Vec<f32> = (0..2 * 5 * 4).map(|i| (i as f32 * 0.37).cos()).collect();
        let feed: Feed<'_> = &[("v0", &[2, 5, 4], &x)];
        let before = run(&model, feed);
        Driver::default().run(&mut model).unwrap();
        model.check().unwrap();
        let nodes = &model.graph_proto().node;
        for new in nodes.iter().filter(|node| node.author().is_some()) {
            prop_assert!(!new.name().is_empty());
            prop_assert_eq!(nodes.iter().filter(|node| node.name() == new.name()).count(), 1);
        }
        let after = run(&model, feed);
        let largest = before[0].to_f32().unwrap().into_iter().fold(1.0f32, f32::max);
        prop_assert!(max_diff(&before, &after) < 1e-5 * largest, "{}", max_diff(&before, &after));
    }
}
