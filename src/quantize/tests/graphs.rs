//! Products and tables of every rank, type, operator set and place.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::ir::proto::attribute_proto::AttributeType;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{
    Attr, AttributeProto, GraphProto, NodeBuilder, TensorProto, initializer_i64, initializer_raw,
    value_f32,
};

/// A model of another operator set.
pub(super) fn at_opset(mut model: Model, opset: i64) -> Model {
    let proto = model.proto_mut();
    proto.opset_import[0].version = Some(opset);
    proto.ir_version = Some(if opset > 20 { 10 } else { 8 });
    model
}

pub(super) fn f16s(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    let halves = values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes());
    initializer_raw(name, DataType::Float16, shape, halves.collect::<Vec<u8>>().into())
}

pub(super) fn constant(tensor: TensorProto) -> NodeBuilder {
    let name = tensor.name().to_owned();
    node("Constant", Vec::<String>::new(), name).attr("value", Attr::Tensor(tensor)).named("")
}

fn transposed(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..rows * columns).map(|at| values[(at % rows) * columns + at / rows]).collect()
}

/// `x · w`, summed in f64.
fn multiplied(x: &[f32], w: &[f32], [k, n]: [usize; 2]) -> Vec<f32> {
    let sum = |row: &[f32], column: usize| -> f64 {
        row.iter().enumerate().map(|(at, x)| f64::from(*x) * f64::from(w[at * n + column])).sum()
    };
    x.chunks_exact(k).flat_map(|row| (0..n).map(move |column| sum(row, column) as f32)).collect()
}

fn output(runtime: &dyn Runtime, model: &Model, inputs: Tensors) -> Tensor {
    let session = runtime.load_bytes(&model.to_bytes()).unwrap_or_else(|error| panic!("{error:?}"));
    session.run(&inputs).unwrap_or_else(|error| panic!("{error:?}"))["y"].clone()
}

pub(super) fn ops(model: &Model) -> Vec<&str> {
    model.graph_proto().node.iter().map(|node| node.op_type()).collect()
}

/// Every node and every value has a name of its own.
fn assert_named(model: &Model) {
    fn names<'m>(graph: &'m GraphProto, nodes: &mut Vec<&'m str>, values: &mut Vec<&'m str>) {
        values.extend(graph.initializer.iter().map(|tensor| tensor.name()));
        for node in &graph.node {
            nodes.push(node.name());
            values.extend(node.output.iter().map(String::as_str).filter(|name| !name.is_empty()));
            node.nested().for_each(|graph| names(graph, nodes, values));
        }
    }
    let (mut nodes, mut values) = (Vec::new(), Vec::new());
    names(model.graph_proto(), &mut nodes, &mut values);
    nodes.retain(|name| !name.is_empty());
    for mut list in [nodes, values] {
        list.sort_unstable();
        let twice = list.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(twice, None);
    }
    model.check().unwrap();
}

fn listed(name: &str, attribute: &str, values: Attr) -> NodeBuilder {
    node("Constant", Vec::<String>::new(), name).attr(attribute, values).named("")
}

/// Where a weight comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Initializer,
    Constant,
    /// A `Constant` of a list of numbers, reshaped by another.
    Lists,
    Identity,
    Transpose,
    Reshape,
    CastFromHalf,
    Ones,
    Half,
}

#[derive(Clone, Debug)]
struct Shape {
    front: Vec<usize>,
    k: usize,
    n: usize,
    place: Place,
    opset: i64,
    named: bool,
    declared: bool,
}

impl Shape {
    fn x(&self) -> Vec<usize> {
        self.front.iter().copied().chain([self.k]).collect()
    }

    /// Rows of the weight before its two axes.
    fn ones(&self) -> usize {
        if self.place == Place::Ones { 1 } else { 0 }
    }

    fn y(&self) -> Vec<usize> {
        let mut front = self.front.clone();
        if self.ones() == 1 && front.len() < 2 {
            front.insert(0, 1);
        }
        front.into_iter().chain([self.n]).collect()
    }

    fn model(&self, weight: &[f32]) -> Model {
        let (k, n) = (self.k, self.n);
        let stored = initializer_f32("w", &[k, n], weight);
        let graph = TestGraph::new();
        let graph = match self.place {
            Place::Initializer => graph.initializer(stored),
            Place::Constant => graph.node(constant(stored)),
            Place::Lists => graph
                .node(listed("v", "value_floats", Attr::Floats(weight.to_vec())))
                .node(listed("shape", "value_ints", Attr::Ints(vec![k as i64, -1])))
                .node(node("Reshape", ["v", "shape"], "w").named("")),
            Place::Identity => graph
                .initializer(initializer_f32("v", &[k, n], weight))
                .node(node("Identity", ["v"], "w").named("")),
            Place::Transpose => graph
                .node(constant(initializer_f32("v", &[n, k], &transposed(weight, [k, n]))))
                .node(node("Transpose", ["v"], "w").ints("perm", [1, 0]).named("")),
            Place::Reshape => graph
                .initializer(initializer_f32("v", &[n * k], weight))
                .initializer(initializer_i64("shape", &[2], &[-1, n as i64]))
                .node(node("Reshape", ["v", "shape"], "w").named("")),
            Place::CastFromHalf => graph
                .initializer(f16s("v", &[k, n], weight))
                .node(node("Cast", ["v"], "w").int("to", 1).named("")),
            Place::Ones => graph.initializer(initializer_f32("w", &[1, k, n], weight)),
            Place::Half => graph
                .initializer(f16s("w", &[k, n], weight))
                .node(node("Cast", ["given"], "x").int("to", 10).named("")),
        };
        let numbers: Vec<String> = self.x().iter().map(usize::to_string).collect();
        let dims: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let half = self.place == Place::Half;
        let name = if self.named { "product" } else { "" };
        let product = node("MatMul", ["x", "w"], if half { "wide" } else { "y" }).named(name);
        let mut graph = graph.input(if half { "given" } else { "x" }, &dims).node(product);
        if half {
            graph = graph.node(node("Cast", ["wide"], "y").int("to", 1).named(""));
        }
        let numbers: Vec<String> = self.y().iter().map(usize::to_string).collect();
        let dims: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let mut model = at_opset(graph.output("y", &dims).model(), self.opset);
        let graph = model.proto_mut().graph.as_mut().unwrap();
        if !self.declared {
            // An unknown rank.
            if let Some(crate::ir::proto::type_proto::Value::TensorType(tensor)) =
                graph.output[0].r#type.as_mut().and_then(|r#type| r#type.value.as_mut())
            {
                tensor.shape = None;
            }
        }
        model
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let places = [
        Place::Initializer,
        Place::Constant,
        Place::Lists,
        Place::Identity,
        Place::Transpose,
        Place::Reshape,
        Place::CastFromHalf,
        Place::Ones,
        Place::Half,
    ];
    let fronts = prop::collection::vec(1usize..4, 0..5);
    // Also some that no block of 32 divides.
    let sizes = (prop::sample::select(vec![64usize, 72, 130]), prop::sample::select(vec![64usize, 65]));
    let opsets = prop::sample::select(vec![11i64, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23]);
    (fronts, sizes, prop::sample::select(places.to_vec()), opsets, any::<bool>(), any::<bool>())
        .prop_map(|(front, (k, n), place, opset, named, declared)| Shape {
            front,
            k,
            n,
            place,
            // Constants have lists from 12 on.
            opset: if place == Place::Lists { opset.max(12) } else { opset },
            named,
            declared,
        })
}

const FORMS: [(Form, Terms, f64); 5] = [
    (Form::Dynamic, Terms::One, 30.0),
    (Form::Dynamic, Terms::Two, 38.0),
    (Form::Static, Terms::One, 30.0),
    (Form::Blocks8, Terms::One, 30.0),
    (Form::Blocks4, Terms::One, 12.0),
];

#[test]
fn a_product_of_any_rank_keeps_its_shape_in_every_form() {
    let onnxruntime = onnxruntime("a_product_of_any_rank_keeps_its_shape_in_every_form");
    let case = |(shape, (form, terms, least)): (Shape, (Form, Terms, f64))| {
        let rows: usize = shape.front.iter().product();
        let (weight, x) = (noise(shape.k * shape.n, 61), noise(rows * shape.k, 62));
        let want = multiplied(&x, &weight, [shape.k, shape.n]);
        let mut model = shape.model(&weight);
        let mut seen = seen(&x, shape.k);
        seen.extend(seen.get("x").cloned().map(|seen| ("given".to_owned(), seen)));
        let options = Options { form, terms, reduce_range: true, seen, ..Options::default() };
        let report = match quantize(&mut model, &options) {
            Err(Error::Opset { needs: 13, .. }) if form == Form::Static && shape.opset < 13 => {
                return Ok(());
            }
            // The rank of the result can't be told from the input's.
            Err(Error::Nothing { .. })
                if form.is_blocks() && shape.ones() == 1 && shape.front.len() < 2 =>
            {
                return Ok(());
            }
            other => other.unwrap(),
        };
        let name = match (shape.named, shape.place == Place::Half) {
            (true, _) => "product",
            (false, true) => "wide",
            (false, false) => "y",
        };
        prop_assert_eq!(report.products, [name]);
        prop_assert!(report.weight_bytes.1 < report.weight_bytes.0);
        assert_named(&model);
        let inside = if shape.place == Place::Half { "given" } else { "x" };
        let inputs = || Tensors::from([(inside.to_owned(), Tensor::from_f32(&shape.x(), &x))]);
        let tract = (!form.is_blocks()).then_some(&Tract as &dyn Runtime);
        let there = onnxruntime.as_deref();
        for runtime in tract.into_iter().chain(there) {
            let y = output(runtime, &model, inputs());
            let expected = shape.y();
            prop_assert_eq!(y.shape(), expected.as_slice(), "{}", runtime.name());
            let found = snr(&want, &y.to_f32().unwrap());
            prop_assert!(found > least, "{}: {:.1} dB", runtime.name(), found);
        }
        Ok(())
    };
    let cases = (shapes(), prop::sample::select(FORMS.to_vec()));
    let config = Config { cases: 96, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&cases, case).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_gemm_is_its_formula_with_any_factor_side_and_bias() {
    let onnxruntime = onnxruntime("a_gemm_is_its_formula_with_any_factor_side_and_bias");
    let (m, k, n) = (3usize, 72usize, 64usize);
    let (x, weight) = (noise(m * k, 71), noise(k * n, 72));
    let biases: [Option<&[usize]>; 6] =
        [None, Some(&[]), Some(&[64]), Some(&[1, 64]), Some(&[3, 1]), Some(&[3, 64])];
    let factors = [(1.0f32, 1.0f32), (0.25, 1.0), (-2.0, 0.5), (1.0, 0.0)];
    for (at, ((turn_a, turn_b), bias)) in [(0, 0), (0, 1), (1, 0), (1, 1)]
        .into_iter()
        .flat_map(|turns| biases.into_iter().map(move |bias| (turns, bias)))
        .enumerate()
    {
        let (alpha, beta) = factors[at % factors.len()];
        let (terms, least) = if at % 2 == 0 { (Terms::One, 30.0) } else { (Terms::Two, 38.0) };
        let plain = multiplied(&x, &weight, [k, n]);
        let count = bias.map_or(0, |shape| shape.iter().product());
        let c: Vec<f32> = noise(count, 73).iter().map(|value| 4.0 * value).collect();
        let at_place = |place: usize| match bias.unwrap_or_default() {
            _ if bias.is_none() => 0.0,
            [3, 1] => c[place / n],
            [3, 64] => c[place],
            [] => c[0],
            _ => c[place % n],
        };
        let formula = |place: usize| alpha * plain[place] + beta * at_place(place);
        let want: Vec<f32> = (0..m * n).map(formula).collect();
        let (xs, x_shape) =
            if turn_a == 1 { (transposed(&x, [m, k]), [k, m]) } else { (x.clone(), [m, k]) };
        let (ws, w_shape) =
            if turn_b == 1 { (transposed(&weight, [k, n]), [n, k]) } else { (weight.clone(), [k, n]) };
        let mut gemm = vec!["x", "w"];
        gemm.extend(bias.map(|_| "c"));
        let gemm = node("Gemm", gemm, "y").int("transA", turn_a).int("transB", turn_b);
        let gemm = gemm.attr("alpha", Attr::Float(alpha)).attr("beta", Attr::Float(beta)).named("gemm");
        let dims = x_shape.map(|dim| dim.to_string());
        let mut graph = TestGraph::new()
            .input("x", &[&dims[0], &dims[1]])
            .initializer(initializer_f32("w", &w_shape, &ws))
            .node(gemm)
            .output("y", &["3", "64"]);
        if let Some(shape) = bias {
            graph = graph.initializer(initializer_f32("c", shape, &c));
        }
        let mut model = graph.model();
        let report =
            quantize(&mut model, &Options { terms, reduce_range: true, ..Options::default() }).unwrap();
        assert_eq!(report.products, ["gemm"]);
        assert_named(&model);
        let inputs = || Tensors::from([("x".to_owned(), Tensor::from_f32(&x_shape, &xs))]);
        let there = onnxruntime.as_deref();
        for runtime in std::iter::once(&Tract as &dyn Runtime).chain(there) {
            let y = output(runtime, &model, inputs());
            let found = snr(&want, &y.to_f32().unwrap());
            let place = (turn_a, turn_b, bias, alpha, beta);
            assert!(
                y.shape() == [m, n] && found > least,
                "{} {place:?}: {found:.1} dB",
                runtime.name()
            );
        }
    }
}

#[test]
fn rows_of_a_table_come_in_the_shape_of_their_indices() {
    let onnxruntime = onnxruntime("rows_of_a_table_come_in_the_shape_of_their_indices");
    let (rows, columns) = (128usize, 64usize);
    let values = noise(rows * columns, 81);
    for half in [false, true] {
        for shape in [&[][..], &[3], &[2, 2], &[2, 1, 2], &[0, 2]] {
            let count: usize = shape.iter().product();
            let ids: Vec<i64> = [5, -1, 0, -128].into_iter().take(count).collect();
            let numbers: Vec<String> = shape.iter().map(usize::to_string).collect();
            let dims: Vec<&str> = numbers.iter().map(String::as_str).collect();
            let stored = if half {
                f16s("t", &[rows, columns], &values)
            } else {
                initializer_f32("t", &[rows, columns], &values)
            };
            let mut graph = TestGraph::new()
                .input_i64("ids", &dims)
                .initializer(stored)
                .node(node("Gather", ["t", "ids"], if half { "narrow" } else { "y" }).named(""));
            if half {
                graph = graph.node(node("Cast", ["narrow"], "y").int("to", 1));
            }
            let all: Vec<&str> = dims.iter().copied().chain(["64"]).collect();
            let mut model = graph.output("y", &all).model();
            let report = quantize_any(&mut model, &Options::default()).unwrap();
            assert_eq!(report.tables, [if half { "narrow" } else { "y" }]);
            assert_named(&model);
            let row = |id: i64| &values[id.rem_euclid(rows as i64) as usize * columns..][..columns];
            let want: Vec<f32> = ids.iter().flat_map(|&id| row(id).iter().copied()).collect();
            let there = onnxruntime.as_deref();
            // tract gathers rows from their beginning alone.
            let here = ids.iter().all(|&id| id >= 0).then_some(&Tract as &dyn Runtime);
            for runtime in here.into_iter().chain(there) {
                let inputs = Tensors::from([("ids".to_owned(), Tensor::from_i64(shape, &ids))]);
                let y = output(runtime, &model, inputs);
                let expected: Vec<usize> = shape.iter().copied().chain([columns]).collect();
                assert_eq!(y.shape(), expected, "{}", runtime.name());
                if count > 0 {
                    let found = snr(&want, &y.to_f32().unwrap());
                    assert!(found > 42.0, "{} {shape:?}: {found:.1} dB", runtime.name());
                }
            }
        }
    }
}

#[test]
fn what_is_added_has_names_that_nothing_had() {
    let weight = noise(64 * 64, 91);
    let mut model = TestGraph::new()
        .input("x", &["rows", "64"])
        .initializer(initializer_f32("w", &[64, 64], &weight))
        .initializer(initializer_f32("v", &[64, 64], &weight))
        .initializer(initializer_f32("quantize/1e-30", &[], &[2.0]))
        .node(node("Mul", ["x", "quantize/1e-30"], "x/scale").named("x/abs"))
        .node(node("Mul", ["x/scale", "x/scale"], "w/int8_columns").named("z/sums"))
        .node(node("MatMul", ["x", "w"], "a").named(""))
        .node(node("MatMul", ["a", "v"], "b").named(""))
        .node(node("Add", ["b", "w/int8_columns"], "y").named("b/second"))
        .output("y", &["rows", "64"])
        .model();
    let fp32 = model.clone();
    let report = quantize(&mut model, &Options { terms: Terms::Two, ..Options::default() }).unwrap();
    assert_eq!(report.products, ["a", "b"], "known by their outputs");
    assert_named(&model);
    let x = noise(2 * 64, 92);
    let want = run(&fp32, &[2, 64], &x);
    assert!(snr(&want, &run(&model, &[2, 64], &x)) > 38.0);
    if let Some(onnxruntime) = onnxruntime("what_is_added_has_names_that_nothing_had") {
        assert!(snr(&want, &run_in(onnxruntime.as_ref(), &model, &[2, 64], &x)) > 30.0);
    }
    let kept = Options { keep_fp32: vec!["b".to_owned()], ..Options::default() };
    let report = quantize(&mut fp32.clone(), &kept).unwrap();
    assert_eq!(report.kept, [("b".to_owned(), "it is named to stay fp32".to_owned())]);
}

/// A graph attribute.
fn branch(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        g: Some(graph),
        r#type: Some(AttributeType::Graph as i32),
        ..AttributeProto::default()
    }
}

/// A graph without inputs.
fn inside(nodes: Vec<NodeBuilder>, constants: Vec<TensorProto>, output: &str) -> GraphProto {
    GraphProto {
        name: Some("inside".to_owned()),
        node: nodes.into_iter().map(NodeBuilder::build).collect(),
        initializer: constants,
        output: vec![value_f32(output, &["rows", "64"])],
        ..GraphProto::default()
    }
}

#[test]
fn products_in_branches_and_loops_are_held_in_8_bits_too() {
    let (weight, other) = (noise(64 * 64, 101), noise(64 * 64, 102));
    // One weight of the graph around, one of the branch's own, after a `Transpose`.
    let then = inside(vec![node("MatMul", ["x", "w"], "then").named("")], vec![], "then");
    let turned = node("Transpose", ["v"], "t").ints("perm", [1, 0]);
    let own = initializer_f32("v", &[64, 64], &other);
    let r#else = inside(vec![turned, node("MatMul", ["x", "t"], "else").named("")], vec![own], "else");
    let branches = node("If", ["which"], "y")
        .attribute(branch("then_branch", then))
        .attribute(branch("else_branch", r#else));
    let fp32 = TestGraph::new()
        .input("x", &["rows", "64"])
        .input("signal", &["1"])
        .initializer(initializer_f32("w", &[64, 64], &weight))
        .initializer(initializer_f32("half", &[1], &[0.5]))
        .node(node("Greater", ["signal", "half"], "which"))
        .node(branches)
        .output("y", &["rows", "64"])
        .model();
    let x = noise(3 * 64, 103);
    let found = onnxruntime("products_in_branches_and_loops_are_held_in_8_bits_too");
    for (terms, least) in [(Terms::One, 30.0), (Terms::Two, 38.0)] {
        let mut model = fp32.clone();
        let options = Options { terms, reduce_range: true, ..Options::default() };
        let report = quantize(&mut model, &options).unwrap();
        assert_eq!(report.products, ["then", "else"]);
        assert!(report.weight_bytes.1 < report.weight_bytes.0, "{:?}", report.weight_bytes);
        assert_named(&model);
        for (signal, weight) in [(1.0f32, weight.clone()), (0.0, transposed(&other, [64, 64]))] {
            let want = multiplied(&x, &weight, [64, 64]);
            if let Some(runtime) = found.as_deref() {
                let inputs = Tensors::from([
                    ("x".to_owned(), Tensor::from_f32(&[3, 64], &x)),
                    ("signal".to_owned(), Tensor::from_f32(&[1], &[signal])),
                ]);
                let y = output(runtime, &model, inputs).to_f32().unwrap();
                assert!(snr(&want, &y) > least, "{terms:?} {signal}: {:.1} dB", snr(&want, &y));
            }
        }
    }
    // What a branch reads in fp32 keeps the weight for all.
    let mut shared = fp32.clone();
    let graph = shared.proto_mut().graph.as_mut().unwrap();
    let then = graph.node[1].attribute[0].g.as_mut().unwrap();
    then.node[0] = node("Add", ["x", "w"], "then").build();
    graph.node.push(node("MatMul", ["x", "w"], "z").named("outer").build());
    let report = quantize(&mut shared, &Options::default()).unwrap();
    assert_eq!(report.products, ["else"]);
    let why = "its weight \"w\" stays as it is for \"then\" (Add)".to_owned();
    assert_eq!(report.kept, [("outer".to_owned(), why)]);
}

#[test]
fn vectors_stay_vectors_through_several_products() {
    let weight = noise(64 * 64, 121);
    let mut model = TestGraph::new()
        .input("x", &["64"])
        .initializer(initializer_f32("w", &[64, 64], &weight))
        .initializer(initializer_f32("b", &[64], &weight[..64]))
        .node(node("MatMul", ["x", "w"], "a"))
        .node(node("Add", ["a", "b"], "biased"))
        .node(node("Relu", ["biased"], "positive"))
        .node(node("MatMul", ["positive", "w"], "y"))
        .output("y", &["64"])
        .model();
    let x = noise(64, 122);
    let want = run(&model, &[64], &x);
    for terms in [Terms::One, Terms::Two] {
        let mut int8 = model.clone();
        quantize(&mut int8, &Options { terms, ..Options::default() }).unwrap();
        let inputs = Tensors::from([("x".to_owned(), Tensor::from_f32(&[64], &x))]);
        let y = output(&Tract, &int8, inputs);
        assert_eq!(y.shape(), [64]);
        assert!(snr(&want, &y.to_f32().unwrap()) > 28.0);
    }
    // Nothing shows the rank here.
    let graph = model.proto_mut().graph.as_mut().unwrap();
    graph.node[1] = node("NonZero", ["a"], "biased").build();
    let scopes = super::super::scopes::Scopes::new(model.proto());
    assert_eq!((scopes.rank(0, "a"), scopes.rank(0, "positive")), (Some(1), None));
}
