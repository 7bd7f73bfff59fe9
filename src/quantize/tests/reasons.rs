//! What stays fp32 or is refused, and why.

use super::graphs::{at_opset, constant, f16s, ops};
use super::*;

#[test]
fn an_opset_without_the_operators_is_refused_with_the_one_that_has_them() {
    let cases = [
        (Form::Dynamic, Terms::One, Granularity::Row, 11),
        (Form::Dynamic, Terms::Two, Granularity::Row, 11),
        (Form::Dynamic, Terms::One, Granularity::Tensor, 11),
        (Form::Dynamic, Terms::Two, Granularity::Tensor, 10),
        (Form::Static, Terms::One, Granularity::Row, 13),
        (Form::Blocks4, Terms::One, Granularity::Row, 7),
    ];
    for (form, terms, granularity, needs) in cases {
        let options = |form, terms| {
            let seen = seen(&noise(64, 1), 64);
            Options { form, terms, granularity, seen, ..Options::default() }
        };
        let model = |opset| at_opset(product(&noise(64 * 64, 2), [64, 64]), opset);
        quantize(&mut model(needs), &options(form, terms)).unwrap();
        let mut older = model(needs - 1);
        let before = older.to_bytes();
        match quantize(&mut older, &options(form, terms)) {
            Err(error @ Error::Opset { .. }) => {
                let message = format!("products need opset {needs}; the model has {}", needs - 1);
                assert!(error.to_string().ends_with(&message), "{error}");
                assert_eq!(older.to_bytes(), before);
            }
            other => assert!(form.is_blocks(), "{other:?}"),
        }
    }
}

#[test]
fn operators_of_other_domains_are_no_products_of_onnx() {
    let weight = || initializer_f32("w", &[64, 64], &noise(64 * 64, 3));
    let graph = || TestGraph::new().input("x", &["rows", "64"]).initializer(weight());
    let theirs = graph()
        .node(node("MatMul", ["x", "w"], "a").domain("theirs"))
        .node(node("Gather", ["w", "x"], "b").domain("theirs"))
        .node(node("DotInteger", ["a", "b"], "y").domain("theirs"))
        .output("y", &["rows", "64"])
        .model();
    let error = quantize(&mut theirs.clone(), &Options::default()).unwrap_err().to_string();
    let why = "it is not an operator of ONNX's own domain";
    assert!(error.contains(&format!("1 theirs.MatMul node stays fp32: {why}")), "{error}");
    assert!(error.contains(&format!("1 theirs.Gather node stays fp32: {why}")), "{error}");
    for (domain, op, twice) in [
        ("", "MatMulInteger", true),
        ("", "QLinearMatMul", true),
        ("com.microsoft", "MatMulNBits", true),
        ("com.microsoft", "QGemm", true),
        ("com.microsoft", "QuickGelu", false),
        ("theirs", "MatMulInteger", false),
        ("theirs", "DequantizeLinear", false),
    ] {
        let mut model = graph()
            .node(node("MatMul", ["x", "w"], "a"))
            .node(node(op, ["a"], "y").domain(domain))
            .output("y", &["rows", "64"])
            .model();
        let found = quantize(&mut model, &Options::default());
        assert_eq!(matches!(found, Err(Error::Twice { .. })), twice, "{domain}.{op}");
    }
}

#[test]
fn a_weight_that_something_else_needs_is_not_there_twice_unasked() {
    let model = |also: &str| {
        let graph = TestGraph::new()
            .input("x", &["rows", "64"])
            .input_i64("ids", &["n"])
            .initializer(initializer_f32("w", &[64, 64], &noise(64 * 64, 4)))
            .initializer(initializer_f32("v", &[64, 64], &noise(64 * 64, 5)))
            .node(node("Transpose", ["w"], "t").ints("perm", [1, 0]))
            .node(node("MatMul", ["x", "t"], "a").named("first"))
            .node(node("MatMul", ["a", "v"], "y").named("second"))
            .output("y", &["rows", "64"]);
        match also {
            "output" => graph.output("w", &["64", "64"]),
            "Add" => graph.node(node("Add", ["w", "w"], "z")).output("z", &["64", "64"]),
            "Gather" => {
                graph.node(node("Gather", ["w", "ids"], "z").named("table")).output("z", &["n", "64"])
            }
            _ => {
                graph.node(node("MatMul", ["x", "w"], "z").named("third")).output("z", &["rows", "64"])
            }
        }
        .model()
    };
    for (also, by) in [("output", "the graph's output"), ("Add", "\"z\" (Add)")] {
        let mut model = model(also);
        let report = quantize(&mut model, &Options::default()).unwrap();
        assert_eq!(report.products, ["second"], "{also}");
        let why = format!("its weight \"w\" stays as it is for {by}");
        assert_eq!(report.kept, [("first".to_owned(), why)]);
        assert!(report.weight_bytes.1 < report.weight_bytes.0 && report.twice.is_empty());
    }
    for (also, count) in [("Gather", 1), ("MatMul", 0)] {
        let mut both = model(also);
        let report = quantize(&mut both, &Options::default()).unwrap();
        assert_eq!((report.products.len() + report.tables.len(), report.tables.len()), (3, count));
        assert!(report.kept.is_empty() && report.twice.is_empty());
        assert!(!both.graph().knows("w") && !both.graph().knows("t"), "{:?}", ops(&both));
    }
    let asked = Options { keep_fp32: vec!["table".to_owned()], ..Options::default() };
    let report = quantize(&mut model("Gather"), &asked).unwrap();
    assert_eq!(report.products, ["first", "second"]);
    assert_eq!(report.twice, [("w".to_owned(), 64 * 64 + 4 * 64)]);
}

#[test]
fn whatever_stays_fp32_has_its_reason() {
    let stack = noise(2 * 64 * 64, 6);
    let mut mask = noise(64 * 64, 7);
    mask[3] = f32::NEG_INFINITY;
    let mut model = TestGraph::new()
        .input("x", &["64", "64"])
        .input("open", &["64", "64"])
        .input("long", &["2", "70000"])
        .input_i64("ids", &["n"])
        .initializer(initializer_f32("w", &[64, 64], &stack[..4096]))
        .initializer(initializer_f32("open", &[64, 64], &stack[..4096]))
        .initializer(initializer_f32("stack", &[2, 64, 64], &stack))
        .initializer(initializer_f32("vector", &[4096], &stack[..4096]))
        .initializer(initializer_f32("tall", &[70000, 1], &noise(70000, 8)))
        .initializer(initializer_f32("wide", &[1, 4096], &stack[..4096]))
        .initializer(initializer_f32("mask", &[64, 64], &mask))
        .initializer(initializer_f32("little", &[64, 4], &stack[..256]))
        .initializer(initializer_f32("kernel", &[64, 64, 1], &stack[..4096]))
        .node(node("MatMul", ["w", "x"], "left"))
        .node(node("MatMul", ["w", "w"], "both"))
        .node(node("MatMul", ["x", "open"], "replaceable"))
        .node(node("MatMul", ["x", "stack"], "stacked"))
        .node(node("MatMul", ["f", "vector"], "flat"))
        .node(node("MatMul", ["long", "tall"], "overflowing"))
        .node(node("MatMul", ["n", "wide"], "larger"))
        .node(node("MatMul", ["x", "little"], "small"))
        .node(node("MatMul", ["x", "x"], "computed"))
        .node(node("MatMul", ["left", "x"], "computed_too"))
        .node(node("Gather", ["mask", "ids"], "masks"))
        .node(node("Gather", ["mask", "ids"], "columns").int("axis", 1))
        .node(node("Conv", ["c", "kernel"], "convolved"))
        .input("f", &["4096"])
        .input("n", &["2", "1"])
        .input("c", &["1", "64", "8"])
        .output("left", &["64", "64"])
        .model();
    let error = quantize(&mut model, &Options::default()).unwrap_err();
    let message = error.to_string();
    let lines: Vec<&str> = message.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "no product with a constant weight is left to quantize",
            "\"left\" stays fp32: its weight is on the left",
            "\"both\" stays fp32: both factors are constants",
            "\"replaceable\" stays fp32: its weight is an input of the graph too, which a caller may replace",
            "\"stacked\" stays fp32: its weight is a stack of matrices",
            "\"flat\" stays fp32: its weight is a vector",
            "\"overflowing\" stays fp32: sums of 70000 products of 8 bits don't fit 32 bits",
            "\"larger\" stays fp32: 8 bits with their scales would take no fewer bytes",
            "\"small\" stays fp32: it is small",
            "\"masks\" stays fp32: it has values that are not finite, as masks have",
            "\"columns\" stays fp32: it doesn't read whole rows",
            "1 Conv node stays fp32: a convolution has no fast integer form everywhere",
            "2 MatMul nodes stay fp32: both factors are computed",
        ]
    );
}

#[test]
fn a_weight_in_half_precision_that_is_not_finite_is_refused_too() {
    let mut values = noise(64 * 64, 111);
    values[9] = f32::NAN;
    let mut model = TestGraph::new()
        .input("x", &["rows", "64"])
        .node(constant(f16s("h", &[64, 64], &values)))
        .node(node("Cast", ["h"], "w").int("to", 1))
        .node(node("MatMul", ["x", "w"], "y").named(""))
        .output("y", &["rows", "64"])
        .model();
    let error = quantize(&mut model, &Options::default()).unwrap_err().to_string();
    assert_eq!(error, "node \"y\": the weight \"w\" has NaN or infinite values");
}
