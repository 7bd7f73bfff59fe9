//! The gate: each rule with a model that it refuses and a near one that it lets pass.

use bytes::Bytes;

use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, TrainingInfoProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataType,
};
use super::{
    Attr, Error, Model, NodeBuilder, TestGraph, Weights, initializer_f32, initializer_i64,
    initializer_raw, node, value_f32, value_i64,
};

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

/// A model of these nodes from `x` (float) and `i` (int64) to `y`.
fn of(nodes: impl IntoIterator<Item = NodeBuilder>) -> ModelProto {
    let graph = TestGraph::new().input("x", &["n"]).input_i64("i", &["n"]).output("y", &["n"]);
    let mut model = graph.node(neg("x", "y")).model().proto().clone();
    model.graph.as_mut().unwrap().node = nodes.into_iter().map(NodeBuilder::build).collect();
    model
}

fn at(opset: i64, mut model: ModelProto) -> ModelProto {
    model.opset_import[0].version = Some(opset);
    model
}

fn with(mut model: ModelProto, change: impl FnOnce(&mut ModelProto, &mut GraphProto)) -> ModelProto {
    let mut graph = model.graph.take().unwrap();
    change(&mut model, &mut graph);
    model.graph = Some(graph);
    model
}

fn check(model: ModelProto) -> Result<(), Error> {
    Model::from_proto(model, "m.onnx").and_then(|model| model.check())
}

#[track_caller]
fn good(model: ModelProto) {
    check(model).unwrap();
}

/// Refused with an error that says each of `says`; its hint.
#[track_caller]
fn bad(model: ModelProto, says: &[&str]) -> String {
    let error = check(model).expect_err("must be refused");
    let text = error.to_string();
    for part in says.iter().chain(&["m.onnx"]) {
        assert!(text.contains(part), "{text:?} doesn't say {part:?}");
    }
    let Error::Invalid { help, .. } = error else { panic!("{text}") };
    help.into()
}

fn neg(from: &str, to: &str) -> NodeBuilder {
    node("Neg", [from], to)
}

fn graph(nodes: Vec<NodeBuilder>, output: &str) -> GraphProto {
    GraphProto {
        name: Some("g".to_owned()),
        node: nodes.into_iter().map(NodeBuilder::build).collect(),
        output: vec![value_f32(output, &["n"])],
        ..Default::default()
    }
}

fn branch(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(graph),
        ..Default::default()
    }
}

/// `y = If(c)`, with `then` as its first branch.
fn choice(then: GraphProto) -> [NodeBuilder; 2] {
    let other = branch("else_branch", graph(vec![neg("x", "e")], "e"));
    let cond = node("Cast", ["i"], "c").int("to", DataType::Bool as i64);
    [cond, node("If", ["c"], "y").attribute(branch("then_branch", then)).attribute(other)]
}

/// The function `my.F`, and a model `y = F(x)`.
fn function(nodes: Vec<NodeBuilder>) -> ModelProto {
    with(of([node("F", ["x"], "y").domain("my")]), |model, _| {
        model.opset_import.push(opset("my", 1));
        model.functions.push(FunctionProto {
            name: Some("F".to_owned()),
            domain: Some("my".to_owned()),
            input: vec!["a".to_owned()],
            output: vec!["b".to_owned()],
            node: nodes.into_iter().map(NodeBuilder::build).collect(),
            opset_import: vec![opset("", 17), opset("my", 1)],
            ..Default::default()
        });
    })
}

#[test]
fn nodes_of_a_graph_have_their_own_names() {
    let hint = bad(
        of([neg("x", "a").named("k"), neg("a", "y").named("k")]),
        &["node 1 \"k\" (Neg)", "node 0"],
    );
    assert!(hint.contains("setattr"), "{hint}");
    good(of([neg("x", "a").named("k"), neg("a", "y").named("l")]));
    good(of([neg("x", "a").named(""), neg("a", "y").named("")]));
    let twice = || vec![neg("x", "b").named("k"), neg("b", "t").named("k")];
    bad(
        of(choice(graph(twice(), "t"))),
        &["node 1 \"k\" (Neg) in \"then_branch\" of node 1 \"y\" (If)"],
    );
    let [cond, choice] = choice(graph(vec![neg("x", "t").named("k")], "t"));
    good(of([cond, neg("x", "a").named("k"), choice]));
    let twice = vec![neg("a", "q").named("k"), neg("q", "b").named("k")];
    bad(function(twice), &["node 1 \"k\" (Neg) of function \"my.F\""]);
    // A name in a function and one outside don't meet.
    good(function(vec![neg("a", "b").named("y")]));
}

#[test]
fn an_operator_is_no_newer_than_the_operator_set() {
    let model = || {
        of([
            node("DynamicQuantizeLinear", ["x"], "q").output("s").output("z").named("quantize"),
            neg("s", "y"),
        ])
    };
    let says = ["\"quantize\"", "DynamicQuantizeLinear needs opset 11; the model has opset 10"];
    let hint = bad(at(10, model()), &says);
    assert!(hint.contains("convert_version(m, 11)") && hint.contains("m.onnx"), "{hint}");
    good(at(11, model()));
    good(at(28, model()));
    bad(of([node("MatMull", ["x", "x"], "y")]), &["no operator \"MatMull\"", "\"MatMul\""]);
    bad(at(10, of([node("Upsample", ["x", "x"], "y")])), &["Upsample ended with opset 9"]);
    good(at(9, of([node("Upsample", ["x", "x"], "y")])));
    // What an operator means in so new a set is not known.
    let hint =
        bad(at(29, of([neg("x", "y")])), &["opset 29 is newer than 28, the newest that is known"]);
    assert_eq!(hint, "export the model again at opset 28 or earlier");
    good(at(28, of([neg("x", "y")])));
}

#[test]
fn a_form_is_that_of_the_operator_set() {
    let sized = || of([node("Split", ["x", "i"], "y").output("z").named("split")]);
    let says =
        ["\"split\"", "it has 2; Split takes 1 input", "needs opset 13", "the model has opset 11"];
    let hint = bad(at(11, sized()), &says);
    assert!(hint.contains("convert_version(m, 13)"), "{hint}");
    good(at(13, sized()));
    let listed = || of([node("Split", ["x"], "y").output("z").ints("split", [1, 1])]);
    bad(at(13, listed()), &["no attribute \"split\"", "this form ended with opset 12"]);
    good(at(11, listed()));
    bad(at(13, of([node("Unsqueeze", ["x"], "y").ints("axes", [0])])), &["ended with opset 12"]);
    bad(at(12, of([node("Unsqueeze", ["x", "i"], "y")])), &["needs opset 13"]);
    good(at(12, of([node("Unsqueeze", ["x"], "y").ints("axes", [0])])));
    good(at(13, of([node("Unsqueeze", ["x", "i"], "y")])));
}

#[test]
fn inputs_and_outputs_are_as_many_as_the_operator_has() {
    bad(of([node("Add", ["x"], "y")]), &["it has 1; Add takes 2 inputs"]);
    bad(of([node("Neg", ["x", "x"], "y")]), &["it has 2; Neg takes 1 input"]);
    bad(of([node("Neg", ["x", ""], "y")]), &["it has 2; Neg takes 1 input"]);
    bad(of([node("Add", ["x", ""], "y")]), &["input 1 (B) must not be left out"]);
    bad(of([node("Neg", ["x"], ""), neg("x", "y")]), &["output 0 (Y) must not be left out"]);
    bad(of([node("Concat", [""; 0], "y").int("axis", 0)]), &["Concat takes 1 input or more"]);
    bad(of([node("Clip", ["x", "x", "x", "x"], "y")]), &["it has 4; Clip takes 1 to 3 inputs"]);
    good(of([node("Clip", ["x", "", "x"], "y")]));
    good(of([node("Concat", ["x", "", "x"], "y").int("axis", 0)]));
    good(of([node("Split", ["x"], "").output("y").int("axis", 0)]));
}

#[test]
fn attributes_are_those_of_the_operator() {
    let flat = |change: &dyn Fn(&mut NodeProto)| {
        with(of([node("Flatten", ["x"], "y").int("axis", 0)]), |_, graph| change(&mut graph.node[0]))
    };
    good(flat(&|_| {}));
    bad(of([node("Neg", ["x"], "y").int("axis", 0)]), &["Neg has no attribute \"axis\""]);
    good(of([node("Neg", ["x"], "y").int("__axis", 0)]));
    bad(of([node("Cast", ["x"], "y")]), &["\"to\" is missing"]);
    bad(flat(&|n| n.attribute.push(n.attribute[0].clone())), &["two attributes \"axis\""]);
    bad(flat(&|n| n.attribute[0].r#type = None), &["\"axis\" is without a type, not int"]);
    bad(flat(&|n| n.attribute[0].r#type = Some(1)), &["\"axis\" is float, not int"]);
    bad(flat(&|n| n.attribute[0].f = Some(1.0)), &["\"axis\" is int, with a value that is float"]);
    // An absent number is zero.
    good(flat(&|n| n.attribute[0].i = None));
    let empty =
        of([node("Constant", [""; 0], "y")
            .attr("value", Attr::Tensor(initializer_f32("", &[], &[1.0])))]);
    good(empty.clone());
    let hollow = |_: &mut ModelProto, graph: &mut GraphProto| graph.node[0].attribute[0].t = None;
    bad(with(empty, hollow), &["\"value\" is tensor, with no value"]);
    // The oldest files have no types of attributes.
    let old = with(at(1, flat(&|n| n.attribute[0].r#type = None)), |model, _| {
        model.ir_version = Some(1);
        model.opset_import.clear();
    });
    good(old);
    // In a function, a value may be an attribute of the function.
    let taken = |kind: AttributeType| {
        let axis = AttributeProto {
            name: Some("axis".to_owned()),
            ref_attr_name: Some("k".to_owned()),
            r#type: Some(kind as i32),
            ..Default::default()
        };
        function(vec![node("Flatten", ["a"], "b").attribute(axis)])
    };
    good(taken(AttributeType::Int));
    bad(taken(AttributeType::Float), &["\"axis\" is float, not int"]);
}

#[test]
fn domains_are_imported() {
    let foreign = || of([node("Foo", ["x"], "y").domain("elsewhere").named("foo")]);
    let hint = bad(foreign(), &["\"foo\" (elsewhere.Foo)", "doesn't import its domain \"elsewhere\""]);
    assert!(hint.contains("domain='elsewhere'"), "{hint}");
    good(with(foreign(), |model, _| model.opset_import.push(opset("elsewhere", 1))));
    let unknown = |model: &mut ModelProto, _: &mut GraphProto| model.opset_import.clear();
    bad(with(of([neg("x", "y")]), unknown), &["\"ai.onnx\""]);
    // ONNX's own domain has two names.
    for (node_domain, import) in [("", "ai.onnx"), ("ai.onnx", ""), ("ai.onnx", "ai.onnx")] {
        let model = of([neg("x", "y").domain(node_domain)]);
        good(with(model, |model, _| model.opset_import[0].domain = Some(import.to_owned())));
    }
    bad(of([neg("x", "a"), node("Abs", ["a", "a"], "y").domain("ai.onnx")]), &["Abs takes 1 input"]);
    let learned = of([node("Scaler", ["x"], "y").domain("ai.onnx.ml")]);
    good(with(learned.clone(), |model, _| model.opset_import.push(opset("ai.onnx.ml", 1))));
    bad(learned, &["\"ai.onnx.ml\""]);
    let blocks = |bits: &str| {
        let product = node("MatMulNBits", ["x", "w", "s"], "y").domain("com.microsoft");
        let product = product.int("K", 32).int("N", 1).int("block_size", 32).int(bits, 8);
        with(of([product]), |model, graph| {
            model.opset_import.push(opset("com.microsoft", 1));
            let weights = initializer_raw("w", DataType::Uint8, &[1, 1, 32], vec![0; 32].into());
            graph.initializer.extend([weights, initializer_f32("s", &[1], &[1.0])]);
        })
    };
    good(blocks("bits"));
    // ONNX Runtime adds to its operators without a new version.
    good(blocks("to_come"));
    let small = |_: &mut ModelProto, graph: &mut GraphProto| drop(graph.node[0].attribute.remove(0));
    bad(with(blocks("bits"), small), &["\"K\" is missing"]);
}

#[test]
fn element_types_are_followed() {
    bad(
        of([node("Add", ["x", "i"], "y").named("sum")]),
        &["\"sum\"", "input 0, \"x\", is f32", "\"i\", is i64"],
    );
    bad(of([node("Sqrt", ["i"], "y")]), &["input 0 (X), \"i\", is i64; Sqrt takes f32"]);
    bad(of([node("Abs", ["i"], "y")]), &["\"y\": it is i64, and the graph says f32"]);
    good(of([node("Cast", ["i"], "a").int("to", 1), node("Add", ["x", "a"], "y")]));
    bad(of([node("Cast", ["i"], "a").int("to", 6), node("Add", ["x", "a"], "y")]), &["\"a\", is i32"]);
    bad(of([node("Shape", ["x"], "s"), node("Mul", ["s", "x"], "y")]), &["\"s\", is i64"]);
    good(of([node("Shape", ["x"], "s"), node("Expand", ["x", "s"], "y")]));
    bad(of([node("Expand", ["x", "x"], "y")]), &["input 1 (shape), \"x\", is f32; Expand takes i64"]);
    bad(of([node("Concat", ["x", "x", "i"], "y").int("axis", 0)]), &["\"x\", is f32, and input 2"]);
    let constant = |name: &str, value: Attr| {
        of([node("Constant", [""; 0], "a").attr(name, value), node("Add", ["x", "a"], "y")])
    };
    good(constant("value", Attr::Tensor(initializer_f32("", &[], &[1.0]))));
    good(constant("value_float", Attr::Float(1.0)));
    bad(constant("value", Attr::Tensor(initializer_i64("", &[], &[1]))), &["\"a\", is i64"]);
    bad(constant("value_int", Attr::Int(1)), &["\"a\", is i64"]);
    let filled = |value: Option<TensorProto>| {
        let filled = node("ConstantOfShape", ["i"], "a");
        let filled = match value {
            Some(value) => filled.attr("value", Attr::Tensor(value)),
            None => filled,
        };
        of([filled, node("Add", ["x", "a"], "y")])
    };
    good(filled(None));
    bad(filled(Some(initializer_i64("", &[1], &[1]))), &["\"a\", is i64"]);
    let wide = |model| {
        with(model, |_, graph| {
            graph.input[0] = ValueInfoProto { name: Some("x".into()), ..typed(DataType::Bfloat16) };
            graph.output[0] = ValueInfoProto { name: Some("y".into()), ..typed(DataType::Bfloat16) };
        })
    };
    let same = || wide(of([node("Identity", ["x"], "y")]));
    bad(at(9, same()), &["\"x\", is bf16", "this form needs opset 13"]);
    good(at(13, same()));
    let noted =
        |note: ValueInfoProto| with(of([neg("x", "a"), neg("a", "y")]), |_, g| g.value_info.push(note));
    good(noted(value_f32("a", &["n"])));
    bad(noted(value_i64("a", &["n"])), &["\"a\": it is f32, and the graph says i64"]);
    // What nobody knows is not judged; a note makes it known.
    let loops = |note: Option<ValueInfoProto>| {
        let [cond, choice] = choice(graph(vec![neg("x", "t")], "t"));
        let model = of([cond, choice.output("more"), node("Add", ["x", "more"], "z")]);
        with(model, |_, graph| graph.value_info.extend(note))
    };
    good(loops(None));
    bad(loops(Some(value_i64("more", &["n"]))), &["\"more\", is i64"]);
}

fn typed(dtype: DataType) -> ValueInfoProto {
    let mut value = value_f32("", &["n"]);
    if let Some(super::proto::type_proto::Value::TensorType(tensor)) =
        &mut value.r#type.as_mut().unwrap().value
    {
        tensor.elem_type = Some(dtype as i32);
    }
    value
}

#[test]
fn initializers_fit_the_ir_version_and_their_inputs() {
    let sum = |ir: i64, input: Option<ValueInfoProto>| {
        with(at(8, of([node("Add", ["x", "w"], "y")])), |model, graph| {
            model.ir_version = Some(ir);
            graph.initializer.push(initializer_f32("w", &[1], &[1.0]));
            graph.input.extend(input);
        })
    };
    let hint = bad(sum(3, None), &["initializer \"w\"", "needs IR version 4, and the model has 3"]);
    assert!(hint.contains("m.ir_version = 4"), "{hint}");
    good(sum(4, None));
    good(sum(3, Some(value_f32("w", &["1"]))));
    bad(sum(8, Some(value_i64("w", &["1"]))), &["it is f32, and the graph says i64"]);
    bad(with(sum(4, None), |model, _| model.ir_version = None), &["no ir_version"]);
    let inner = || GraphProto {
        initializer: vec![initializer_f32("w", &[1], &[1.0])],
        ..graph(vec![node("Add", ["x", "w"], "t")], "t")
    };
    let nested = |ir: i64| with(of(choice(inner())), |model, _| model.ir_version = Some(ir));
    bad(nested(3), &["initializer \"w\" in \"then_branch\"", "IR version 4"]);
    good(nested(4));
    let sparse = |ir: i64| {
        with(sum(ir, None), |_, graph| {
            let values = graph.initializer.pop();
            let indices = Some(initializer_i64("", &[1], &[0]));
            let sparse = SparseTensorProto { values, indices, dims: vec![3] };
            graph.sparse_initializer.push(sparse);
        })
    };
    bad(sparse(3), &["initializer \"w\""]);
    good(sparse(4));
    let untyped = |_: &mut ModelProto, graph: &mut GraphProto| graph.input[0].r#type = None;
    bad(with(of([neg("x", "y")]), untyped), &["graph input \"x\"", "no type"]);
}

#[test]
fn values_of_nested_graphs_have_their_scope() {
    let inner = |nodes, output| of(choice(graph(nodes, output)));
    good(inner(vec![neg("x", "t")], "t"));
    // The other branch has a value `e` too, and the model makes `z` afterwards.
    good(inner(vec![neg("x", "e")], "e"));
    let [cond, later] = choice(graph(vec![neg("x", "z")], "z"));
    good(of([cond, later, neg("x", "z")]));
    let [cond, early] = choice(graph(vec![neg("z", "t")], "t"));
    bad(of([cond, early, neg("x", "z")]), &["\"z\""]);
    bad(inner(vec![neg("b", "t"), neg("x", "b")], "t"), &["in \"then_branch\"", "node 1 makes later"]);
    bad(
        inner(vec![neg("x", "t"), neg("x", "t").named("again")], "t"),
        &["makes \"t\", which is there already"],
    );
    bad(inner(vec![neg("x", "c")], "c"), &["makes \"c\", which is there already"]);
    bad(inner(vec![], "x"), &["graph output \"x\" in \"then_branch\"", "a node of its own"]);
    bad(inner(vec![neg("x", "t")], "u"), &["node 1 \"y\" (If)", "uses \"u\", which nothing makes"]);
    bad(inner(vec![node("Add", ["x"], "t")], "t"), &["Add takes 2 inputs"]);
    bad(inner(vec![node("Add", ["x", "i"], "t")], "t"), &["\"i\", is i64"]);
    // An initializer may have a name that is known outside.
    let shadows = GraphProto {
        initializer: vec![initializer_f32("i", &[1], &[1.0])],
        ..graph(vec![node("Add", ["x", "i"], "t")], "t")
    };
    good(of(choice(shadows.clone())));
    let twice = GraphProto { initializer: vec![shadows.initializer[0].clone(); 2], ..shadows };
    bad(of(choice(twice)), &["initializer \"i\" in \"then_branch\""]);
}

#[test]
fn training_goes_on_where_the_main_graph_ends() {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let trained = |change: &dyn Fn(&mut TrainingInfoProto)| {
        with(of([node("Add", ["x", "w"], "h"), neg("h", "y")]), |model, main| {
            main.initializer.push(initializer_f32("w", &[1], &[1.0]));
            let mut algorithm = graph(vec![node("Sub", ["w", "h"], "next")], "next");
            algorithm.initializer.push(initializer_f32("step", &[1], &[0.0]));
            let start = node("Constant", [""; 0], "start").attr("value_float", Attr::Float(0.5));
            let mut training = TrainingInfoProto {
                initialization: Some(graph(vec![start], "start")),
                algorithm: Some(algorithm),
                initialization_binding: vec![entry("w", "start"), entry("step", "start")],
                update_binding: vec![entry("w", "next"), entry("step", "y")],
            };
            change(&mut training);
            model.training_info.push(training);
        })
    };
    good(trained(&|_| {}));
    good(trained(&|training| *training = TrainingInfoProto::default()));
    let algorithm = |change: &dyn Fn(&mut GraphProto)| {
        trained(&|training| change(training.algorithm.as_mut().unwrap()))
    };
    bad(
        algorithm(&|graph| graph.node[0].input[1] = "gone".to_owned()),
        &["of training 0, algorithm", "uses \"gone\", which nothing makes"],
    );
    bad(algorithm(&|graph| graph.node[0].output[0] = "h".to_owned()), &["makes \"h\", which is there"]);
    bad(algorithm(&|graph| graph.node.clear()), &["graph output \"next\"", "nothing makes it"]);
    let bound = |key: &'static str, value: &'static str| {
        trained(&|training| training.update_binding[0] = entry(key, value))
    };
    bad(bound("gone", "next"), &["binding \"gone\" of training 0, algorithm", "no initializer"]);
    bad(bound("h", "next"), &["binding \"h\"", "no initializer has this name"]);
    bad(bound("w", "h"), &["binding \"w\"", "no output is called \"h\""]);
    bad(
        trained(&|training| training.initialization_binding[0] = entry("w", "next")),
        &["of training 0, initialization", "no output is called \"next\""],
    );
    // The initialization stands alone.
    let reads = |training: &mut TrainingInfoProto| {
        training.initialization = Some(graph(vec![neg("w", "start")], "start"));
    };
    bad(trained(&reads), &["uses \"w\", which nothing makes"]);
}

#[test]
fn functions_are_whole() {
    let body = || vec![neg("a", "b")];
    let change = |change: &dyn Fn(&mut ModelProto, &mut GraphProto)| with(function(body()), change);
    good(change(&|_, _| {}));
    bad(change(&|model, _| drop(model.opset_import.pop())), &["doesn't import its domain \"my\""]);
    bad(change(&|model, _| model.functions[0].opset_import.clear()), &["the function doesn't import"]);
    bad(
        change(&|_, graph| graph.node[0].input.push("x".to_owned())),
        &["it has 2 inputs; the function has 1"],
    );
    bad(change(&|_, graph| graph.node[0].output.push("z".to_owned())), &["it has 2 outputs"]);
    bad(
        change(&|model, _| model.functions.push(model.functions[0].clone())),
        &["function \"my.F\"", "same name"],
    );
    bad(function(vec![neg("x", "b")]), &["of function \"my.F\"", "\"x\", which nothing makes"]);
    bad(function(vec![neg("a", "c")]), &["output \"b\" of function \"my.F\""]);
    bad(function(vec![node("Neg", ["a", "a"], "b")]), &["of function \"my.F\"", "Neg takes 1 input"]);
    bad(function(vec![neg("a", "a")]), &["makes \"a\", which is there already"]);
    bad(function(vec![node("F", ["a"], "b").domain("my")]), &["function \"my.F\"", "calls itself"]);
    // A function may be named as an operator of ONNX's.
    good(with(function(body()), |model, graph| {
        model.functions[0].name = Some("Neg".to_owned());
        model.functions[0].domain = None;
        model.functions[0].node[0].op_type = Some("Abs".to_owned());
        graph.node[0].op_type = Some("Neg".to_owned());
        graph.node[0].domain = None;
    }));
    // Overloads are functions of their own.
    let overloaded = |called: &str| {
        change(&|model, graph| {
            let mut other = model.functions[0].clone();
            other.overload = Some("two".to_owned());
            other.input.push("c".to_owned());
            model.functions.push(other);
            graph.node[0].overload = Some(called.to_owned());
            graph.node[0].input.push("x".to_owned());
        })
    };
    good(overloaded("two"));
    bad(overloaded(""), &["it has 2 inputs; the function has 1"]);
    // Its own operator set may differ, the forms of its operators may not.
    let older = |nodes: Vec<NodeBuilder>| {
        with(function(nodes), |model, _| model.functions[0].opset_import[0].version = Some(11))
    };
    good(older(vec![node("Not", ["a"], "b")]));
    bad(
        older(vec![node("Unsqueeze", ["a"], "b").ints("axes", [0])]),
        &["of opset 11 in the function, and of opset 13"],
    );
}

#[test]
fn the_gate_stands_before_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let broken = of([neg("x", "a").named("k"), neg("a", "y").named("k")]);
    let whole = of([neg("x", "a").named("k"), neg("a", "y").named("l")]);
    let open = |model: &ModelProto| {
        Model::from_bytes(Bytes::from(prost::Message::encode_to_vec(model)), "m.onnx").unwrap()
    };
    // The file's own fault, whether the model was changed or not; what was not changed is its bytes.
    let mut theirs = open(&broken);
    theirs.write(&path).unwrap();
    theirs.proto_mut().doc_string = Some("changed".to_owned());
    assert!(matches!(theirs.write(&path.with_extension("a")), Err(Error::Invalid { .. })));
    // The fault of a pass.
    let mut ours = open(&whole);
    ours.proto_mut().graph.as_mut().unwrap().node[1].name = Some("k".to_owned());
    let prop = super::proto::StringStringEntryProto {
        key: Some("soprano_export.pass".to_owned()),
        value: Some("some-pass".to_owned()),
    };
    ours.proto_mut().graph.as_mut().unwrap().node[1].metadata_props.push(prop);
    for weights in [Weights::Inside, Weights::Beside] {
        let error = ours.save(&path.with_extension("b"), false, weights).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Rewritten { .. }), "{text}");
        for part in ["m.onnx, rewritten", "node 1 \"k\" (Neg), made by the pass some-pass"] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A model as large as the language model's: 319 MB, about 960 nodes. It takes milliseconds, for no
/// weight is read.
#[test]
fn a_check_is_quick() {
    let data = Bytes::from(vec![0; 768 * 2304 * 4]);
    let mut graph = TestGraph::new().input("v0", &["t", "768"]);
    for layer in 0..45 {
        let weight = initializer_raw(&format!("w{layer}"), DataType::Float, &[768, 2304], data.clone());
        graph = graph.initializer(weight);
        for step in 0..21 {
            let (from, to) = (21 * layer + step, 21 * layer + step + 1);
            graph = graph.node(neg(&format!("v{from}"), &format!("v{to}")));
        }
        graph = graph.node(node(
            "MatMul",
            [format!("v{}", 21 * layer), format!("w{layer}")],
            format!("p{layer}"),
        ));
    }
    let model = graph.output("v945", &["t", "768"]).model();
    let start = std::time::Instant::now();
    model.check().unwrap();
    let first = start.elapsed();
    let start = std::time::Instant::now();
    model.check().unwrap();
    println!(
        "{} nodes, {} bytes of weights: {first:?}, then {:?}",
        45 * 22,
        model.weight_bytes(),
        start.elapsed()
    );
    // A limit for a loaded machine; it takes a tenth of this.
    assert!(first.as_millis() < 200, "{first:?}");
}
