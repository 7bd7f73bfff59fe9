//! Weights of any size, read in any number of ways, and what a file says of them.

use super::graphs::f16s;
use super::*;
use crate::ir::proto::{StringStringEntryProto, TensorAnnotation, TrainingInfoProto};
use crate::ir::{Attr, GraphProto, TensorProto};

/// `x [rows, 64]`, without a product yet.
fn graph() -> TestGraph {
    TestGraph::new().input("x", &["rows", "64"])
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}

/// Initializers of 8 bits.
fn in_8_bits(model: &Model) -> usize {
    model.graph_proto().initializer.iter().filter(|tensor| tensor.name().contains("/int8_")).count()
}

#[test]
fn a_block_of_zeros_gives_exact_zeros() {
    let (k, n) = (1024, 64);
    let mut weight = vec![0f32; k * n];
    weight.iter_mut().step_by(n).for_each(|value| *value = 1e-4);
    let x: Vec<f32> = noise(3 * k, 131).iter().map(|value| value + 3.0).collect();
    let there = onnxruntime("a_block_of_zeros_gives_exact_zeros");
    for form in [Form::Blocks8, Form::Blocks4] {
        let mut model = product(&weight, [k, n]);
        quantize(&mut model, &Options { form, terms: Terms::One, ..Options::default() }).unwrap();
        let there = there.as_deref();
        let here = (form == Form::Blocks4).then_some(&Tract as &dyn Runtime);
        for runtime in here.into_iter().chain(there) {
            let y = run_in(runtime, &model, &[1, 3, k], &x);
            for row in y.chunks_exact(n) {
                assert!(row[0] > 0.25 && row[1..].iter().all(|v| *v == 0.0), "{form:?}: {row:?}");
            }
        }
    }
}

#[test]
fn a_weight_behind_any_number_of_links_is_followed() {
    let mut graph = graph().initializer(initializer_f32("w", &[64, 64], &noise(64 * 64, 132)));
    let mut last = "w".to_owned();
    for at in 0..40_000 {
        let next = format!("v{at}");
        graph = graph.node(node("Identity", [last.as_str()], &next));
        last = next;
    }
    let mut model = graph
        .node(node("MatMul", ["x", "w"], "y").named("product"))
        .node(node("Neg", [last.as_str()], "z"))
        .output("y", &["rows", "64"])
        .output("z", &["64", "64"])
        .model();
    let found = std::thread::Builder::new()
        .stack_size(1 << 18)
        .spawn(move || quantize(&mut model, &Options::default()).unwrap_err().to_string());
    let message = found.unwrap().join().unwrap();
    assert!(message.contains("its weight \"w\" stays as it is for \"z\" (Neg)"), "{message}");
}

#[test]
fn readers_of_one_weight_share_its_values() {
    let weight = noise(64 * 64, 133);
    let mut turned = graph().initializer(initializer_f32("w", &[64, 64], &weight));
    let mut scaled = graph().initializer(initializer_f32("w", &[64, 64], &weight));
    for at in 1..=6i64 {
        let [t, u, y] = ["t", "u", "y"].map(|part| format!("{part}{at}"));
        turned = turned
            .node(node("Transpose", ["w"], &t).ints("perm", [1, 0]))
            .node(node("Identity", [t.as_str()], &u))
            .node(node("MatMul", ["x", u.as_str()], &y))
            .output(&y, &["rows", "64"]);
        let alpha = Attr::Float(at as f32);
        scaled =
            scaled.node(node("Gemm", ["x", "w"], &y).attr("alpha", alpha)).output(&y, &["rows", "64"]);
    }
    let x = noise(2 * 64, 134);
    for (graph, scales) in [(turned, 1), (scaled, 6)] {
        let fp32 = graph.model();
        for form in [Form::Dynamic, Form::Static, Form::Blocks8] {
            let mut model = fp32.clone();
            let seen = seen(&x, 64);
            let options = Options { form, terms: Terms::One, seen, ..Options::default() };
            let report = quantize(&mut model, &options).unwrap();
            assert_eq!((report.products.len(), in_8_bits(&model)), (6, 1), "{form:?}");
            let of_scales = if form.is_blocks() { 2 } else { 1 } * 4 * 64 * scales;
            assert!(report.weight_bytes.1 < 64 * 64 + of_scales + 64, "{:?}", report.weight_bytes);
            if form.is_blocks() {
                continue;
            }
            let inputs = || Tensors::from([("x".to_owned(), Tensor::from_f32(&[2, 64], &x))]);
            let outputs =
                |model: &Model| Tract.load_bytes(&model.to_bytes()).unwrap().run(&inputs()).unwrap();
            let (want, got) = (outputs(&fp32), outputs(&model));
            for (name, want) in &want {
                let found = snr(&want.to_f32().unwrap(), &got[name].to_f32().unwrap());
                assert!(found > 30.0, "{form:?} {name}: {found:.1} dB");
            }
        }
    }
    // The other sign has values of its own; scales are positive.
    let gemm = |alpha: f32, y: &str| node("Gemm", ["x", "w"], y).attr("alpha", Attr::Float(alpha));
    let mut signs = graph()
        .initializer(initializer_f32("w", &[64, 64], &weight))
        .node(gemm(2.0, "y"))
        .node(gemm(-2.0, "z"))
        .output("y", &["rows", "64"])
        .output("z", &["rows", "64"])
        .model();
    quantize(&mut signs, &Options::default()).unwrap();
    assert_eq!(in_8_bits(&signs), 2);
}

#[test]
fn no_weight_takes_more_bytes_than_the_file_held_it_in() {
    // Half the bytes already, before a cast that shows twice as many.
    let cast = |shape: [usize; 2]| {
        let [k, n] = shape.map(|dim| dim.to_string());
        TestGraph::new()
            .input("x", &["rows", &k])
            .initializer(f16s("h", &shape, &noise(shape[0] * shape[1], 135)))
            .node(node("Cast", ["h"], "w").int("to", 1))
            .node(node("MatMul", ["x", "w"], "y").named("product"))
            .output("y", &["rows", &n])
            .model()
    };
    let message = quantize(&mut cast([3, 4096]), &Options::default()).unwrap_err().to_string();
    assert!(message.contains("8 bits with their scales would take no fewer bytes"), "{message}");
    let report = quantize(&mut cast([64, 4096]), &Options::default()).unwrap();
    assert!(report.weight_bytes.1 < report.weight_bytes.0);
    // A table and a product of one weight, each of which would be smaller alone.
    let tied = |tensor: TensorProto| {
        TestGraph::new()
            .input("x", &["rows", "64"])
            .input_i64("ids", &["n"])
            .initializer(tensor)
            .node(node("Cast", ["e"], "w").int("to", 1))
            .node(node("Gather", ["w", "ids"], "z").named("table"))
            .node(node("Transpose", ["w"], "t").ints("perm", [1, 0]))
            .node(node("MatMul", ["x", "t"], "y").named("product"))
            .output("y", &["rows", "2000"])
            .output("z", &["n", "64"])
            .model()
    };
    let values = noise(2000 * 64, 136);
    let message =
        quantize(&mut tied(f16s("e", &[2000, 64], &values)), &Options::default()).unwrap_err();
    let why = "in the 2 forms that its readers need, its weight \"e\" would take no fewer bytes";
    for node in ["table", "product"] {
        assert!(message.to_string().contains(&format!("{node:?} stays fp32: {why}")), "{message}");
    }
    let wide = initializer_f32("e", &[2000, 64], &values);
    let report = quantize(&mut tied(wide), &Options::default()).unwrap();
    assert_eq!((report.products.len(), report.tables.len()), (1, 1));
    assert!(report.weight_bytes.1 < report.weight_bytes.0);
}

#[test]
fn very_small_weights_never_become_zeros() {
    let model = |values: &[f32]| {
        graph()
            .initializer(initializer_f32("w", &[64, 64], values))
            .initializer(initializer_f32("large", &[], &[1e30]))
            .node(node("MatMul", ["x", "w"], "small").named("product"))
            .node(node("Mul", ["small", "large"], "y"))
            .output("y", &["rows", "64"])
            .model()
    };
    let times = |factor: f32| noise(64 * 64, 137).iter().map(|v| v * factor).collect::<Vec<f32>>();
    for form in [Form::Dynamic, Form::Blocks8, Form::Blocks4] {
        let options = Options { form, ..Options::default() };
        for factor in [1e-31, 1e-36, 1e-44] {
            let message = quantize(&mut model(&times(factor)), &options).unwrap_err().to_string();
            assert!(
                message.contains("\"product\" stays fp32: its values are below 1e-30"),
                "{message}"
            );
        }
    }
    // Columns of any size next to each other.
    let mut mixed = times(1.0);
    for row in mixed.chunks_exact_mut(64) {
        (row[3], row[4]) = (row[3] * 1e-29, row[4] * 1e-33);
    }
    let x = noise(2 * 64, 138);
    let want = run(&model(&mixed), &[2, 64], &x);
    for terms in [Terms::One, Terms::Two] {
        let mut int8 = model(&mixed);
        quantize(&mut int8, &Options { terms, ..Options::default() }).unwrap();
        let got = run(&int8, &[2, 64], &x);
        for column in [3, 4] {
            let of = |y: &[f32]| y.iter().skip(column).step_by(64).copied().collect::<Vec<f32>>();
            assert!(snr(&of(&want), &of(&got)) > 25.0, "{terms:?}: {:?} {:?}", of(&want), of(&got));
        }
    }
    let tiny = |alpha: f32| {
        graph()
            .initializer(initializer_f32("w", &[64, 64], &times(1.0)))
            .node(node("Gemm", ["x", "w"], "y").attr("alpha", Attr::Float(alpha)).named("product"))
            .output("y", &["rows", "64"])
            .model()
    };
    for (alpha, why) in [(1e-31, "its values are below 1e-30"), (f32::NAN, "its alpha is NaN")] {
        let message = quantize(&mut tiny(alpha), &Options::default()).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    }
    quantize(&mut tiny(0.0), &Options::default()).unwrap();
}

#[test]
fn patterns_that_change_nothing_are_named() {
    let fresh = || {
        graph()
            .initializer(initializer_f32("w", &[64, 64], &noise(64 * 64, 139)))
            .node(node("MatMul", ["x", "w"], "a").named("product"))
            .node(node("MatMul", ["a", "a"], "b").named("computed"))
            .node(node("Relu", ["b"], "y").named("relu"))
            .output("y", &["rows", "64"])
            .model()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let idle = |two_terms: &[&str], keep_fp32: &[&str]| {
        let (two_terms, keep_fp32) = (names(two_terms), names(keep_fp32));
        quantize_any(&mut fresh(), &Options { two_terms, keep_fp32, ..Options::default() })
            .map(|report| report.idle.into_iter().map(|(pattern, _)| pattern).collect::<Vec<_>>())
    };
    assert_eq!(idle(&["product"], &[]).unwrap(), names(&[]));
    assert_eq!(idle(&["*"], &["prod*"]).unwrap(), names(&["*"]));
    assert_eq!(idle(&["computed"], &["relu", "comp*"]).unwrap(), names(&["relu", "comp*", "computed"]));
    let error = idle(&["product", "relu"], &[]).unwrap_err().to_string();
    assert_eq!(error, "no node that is named \"relu\" is a product");
    assert!(matches!(idle(&["nobody"], &[]), Err(Error::Keep { .. })));
}

/// Two products in a row, `w` and `v`, with `w` after a `Transpose`.
fn two() -> Model {
    graph()
        .initializer(initializer_f32("w", &[64, 64], &noise(64 * 64, 140)))
        .initializer(initializer_f32("v", &[64, 64], &noise(64 * 64, 141)))
        .initializer(initializer_f32("rate", &[], &[0.1]))
        .node(node("Transpose", ["w"], "t").ints("perm", [1, 0]))
        .node(node("MatMul", ["x", "t"], "a").named("first"))
        .node(node("MatMul", ["a", "v"], "y").named("second"))
        .output("y", &["rows", "64"])
        .model()
}

#[test]
fn what_training_names_stays_as_it_is() {
    let bound = |key: &str| TrainingInfoProto {
        update_binding: vec![entry(key, "new")],
        ..TrainingInfoProto::default()
    };
    let reads = |name: &str| {
        let step = node("Mul", [name, "rate"], "new").build();
        let algorithm = GraphProto { node: vec![step], ..GraphProto::default() };
        TrainingInfoProto { algorithm: Some(algorithm), ..TrainingInfoProto::default() }
    };
    for training in [bound("w"), reads("w"), reads("t")] {
        let mut model = two();
        model.proto_mut().training_info.push(training);
        let before = model.graph().constant_f32("w");
        let report = quantize(&mut model, &Options::default()).unwrap();
        assert_eq!(report.products, ["second"]);
        let why = "its weight \"w\" stays as it is for the training that the file describes";
        assert_eq!(report.kept, [("first".to_owned(), why.to_owned())]);
        assert_eq!(model.graph().constant_f32("w"), before);
        assert!(model.graph().knows("t") && model.graph().knows("rate"));
    }
    let mut free = two();
    assert_eq!(quantize(&mut free, &Options::default()).unwrap().products.len(), 2);
}

#[test]
fn what_is_gone_is_not_annotated() {
    let mut model = two();
    let annotation = |name: &str| TensorAnnotation {
        tensor_name: Some(name.to_owned()),
        quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "rate")],
    };
    let graph = model.proto_mut().graph.as_mut().unwrap();
    graph.quantization_annotation = ["w", "t", "a"].map(annotation).to_vec();
    graph.value_info = vec![crate::ir::value_f32("t", &["64", "64"])];
    quantize(&mut model, &Options::default()).unwrap();
    assert_eq!(model.graph_proto().quantization_annotation, [annotation("a")]);
    assert!(model.graph_proto().value_info.is_empty() && model.graph().knows("rate"));
}

#[test]
fn a_node_in_8_bits_keeps_its_notes() {
    let notes = |mut built: crate::ir::NodeProto| {
        built.doc_string = Some("the gate".to_owned());
        built.metadata_props = vec![entry("namespace", "/layers.0")];
        built
    };
    for (form, terms) in [
        (Form::Dynamic, Terms::One),
        (Form::Dynamic, Terms::Two),
        (Form::Static, Terms::One),
        (Form::Blocks8, Terms::One),
        (Form::Blocks4, Terms::One),
    ] {
        let mut model = TestGraph::new()
            .input_i64("ids", &["n"])
            .initializer(initializer_f32("e", &[64, 64], &noise(64 * 64, 142)))
            .initializer(initializer_f32("w", &[64, 64], &noise(64 * 64, 143)))
            .node(node("Gather", ["e", "ids"], "x").named("table"))
            .node(node("MatMul", ["x", "w"], "y").named(""))
            .output("y", &["n", "64"])
            .model();
        let graph = model.proto_mut().graph.as_mut().unwrap();
        graph.node = std::mem::take(&mut graph.node).into_iter().map(notes).collect();
        let seen = seen(&noise(64, 144), 64);
        quantize(&mut model, &Options { form, terms, seen, ..Options::default() }).unwrap();
        for name in ["table", "y"] {
            let node = model.graph_proto().node.iter().find(|node| node.name() == name).unwrap();
            assert_eq!(*node, notes(node.clone()), "{form:?} {terms:?}");
        }
    }
}
