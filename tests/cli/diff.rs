//! `diff`: every field in which two models differ; `diff --run`: runtimes held against each other, and the node
//! that is named where they differ.

use std::io::Write as _;

use soprano_export::ir::proto::{StringStringEntryProto, ValueInfoProto, type_proto::Value};
use soprano_export::ir::{
    Attr, Model, ModelProto, TensorProto, TestGraph, initializer_f32, initializer_i64, node, value_f32,
};
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::harness::{World, onnxruntime, openvino, skipped};
use crate::{shared_or_skip, snapshot};

/// `x (n / 4 n)`, with `n` read off the input's shape. Where `n` is open, tract divides shapes as integers: the
/// quotient is 0 for what uses it, and yet a quarter for who looks at it.
fn shape_in_floats() -> Model {
    TestGraph::new()
        .input("x", &["n"])
        .initializer(initializer_i64("four", &[1], &[4]))
        .node(node("Relu", ["x"], "r").named("rectify"))
        .node(node("Shape", ["r"], "shape").named("shape"))
        .node(node("Mul", ["shape", "four"], "more").named("times"))
        .node(node("Cast", ["shape"], "n").named("cast").attr("to", Attr::Int(1)))
        .node(node("Cast", ["more"], "m").named("cast_more").attr("to", Attr::Int(1)))
        .node(node("Div", ["n", "m"], "quarter").named("divide"))
        .node(node("Mul", ["r", "quarter"], "y").named("scale"))
        .output("y", &["n"])
        .model()
}

fn rows(bias: f32) -> Model {
    TestGraph::new()
        .input("x", &["batch", "n"])
        .initializer(initializer_f32("bias", &[1], &[bias]))
        .node(node("Relu", ["x"], "r").named("rectify"))
        .node(node("Add", ["r", "bias"], "a").named("shift"))
        .node(node("Exp", ["a"], "y").named("exponential"))
        .output("y", &["batch", "n"])
        .model()
}

#[test]
fn every_kind_of_difference_is_shown() {
    let world = World::new();
    let old = crate::inspect::everywhere();
    world.write("old.onnx", prost::Message::encode_to_vec(&old));
    let mut shown = String::new();
    let mut show = |what: &str, change: &dyn Fn(&mut ModelProto)| {
        let mut new = old.clone();
        change(&mut new);
        world.write("new.onnx", prost::Message::encode_to_vec(&new));
        let run = world.run(["diff", "old.onnx", "new.onnx"]).exits(1);
        let found = world.run(["diff", "old.onnx", "new.onnx", "--json"]).exits(1).json();
        assert_eq!(found["equal"], false);
        assert_eq!(found["form_only"], run.stderr.contains("in form alone"), "{}", run.show());
        shown += &format!("{what}\n{}{}\n", run.stdout, run.stderr);
    };
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    show("a function's body", &|m| m.functions[0].node[1].op_type = Some("Add".into()));
    show("a nested graph", &|m| {
        let node = &mut m.graph.as_mut().unwrap().node[3];
        node.attribute[0].g.as_mut().unwrap().initializer[0] =
            initializer_f32("inner", &[2], &[1.0, 2.5]);
    });
    show("a sparse initializer", &|m| {
        let sparse = &mut m.graph.as_mut().unwrap().sparse_initializer[0];
        sparse.indices = Some(initializer_i64("", &[1], &[8]));
    });
    show("metadata", &|m| m.metadata_props.push(entry("license", "MIT")));
    show("a long text", &|m| {
        m.metadata_props.push(entry("notes", &"A sentence of some length. ".repeat(10)));
    });
    show("the order of inputs", &|m| m.graph.as_mut().unwrap().input.swap(0, 1));
    show("the order of nodes", &|m| m.graph.as_mut().unwrap().node.swap(0, 1));
    show("the order of operator sets", &|m| m.opset_import.reverse());
    show("an operator set", &|m| m.opset_import[0].version = Some(18));
    show("a type", &|m| m.graph.as_mut().unwrap().input[0] = value_f32("x", &["n", "3"]));
    show("value_info", &|m| {
        m.graph.as_mut().unwrap().value_info.push(value_f32("chosen", &["n", "2"]))
    });
    show("versions and producer", &|m| {
        m.ir_version = Some(9);
        m.model_version = Some(3);
        m.producer_name = Some("pytorch".into());
        m.domain = Some("org.example".into());
    });
    show("form", &|m| {
        let weight = &mut m.graph.as_mut().unwrap().initializer[0];
        *weight = initializer_f32("typed", &[2], &[1.0, 2.0]);
    });
    show("a weight's type", &|m| {
        let weight: &mut TensorProto = &mut m.graph.as_mut().unwrap().initializer[0];
        *weight = initializer_i64("typed", &[2], &[1, 2]);
    });
    show("many nodes", &|m| {
        let graph = m.graph.as_mut().unwrap();
        graph.node.extend((0..40).map(|at| node("Relu", ["x"], format!("more_{at}")).build()));
    });
    snapshot!("diff-everywhere", world, shown);
}

#[test]
fn equal_models_in_other_files_are_told_apart_from_the_same_file() {
    let world = World::new();
    world.write("m.onnx", rows(1.0).to_bytes());
    let same = world.run(["diff", "m.onnx", "m.onnx"]).exits(0);
    assert_eq!(same.stderr, "the models are equal\n");
    let folder =
        std::path::Path::new(crate::harness::ROOT).join("fixtures/onnx/made_external/model.onnx");
    let outside = folder.to_str().unwrap();
    world.run(["pass", "run", outside, "-o", "inside.onnx", "--fuel", "0"]).exits(0);
    let run = world.run(["diff", outside, "inside.onnx"]).exits(0);
    assert!(run.stderr.starts_with("the models are equal; the files are not"), "{}", run.show());
    let found = world.run(["diff", outside, "inside.onnx", "--json"]).exits(0).json();
    assert_eq!((&found["equal"], &found["same_bytes"]), (&true.into(), &false.into()));
}

#[test]
fn files_that_differ_in_fields_of_no_known_version_are_not_called_equal() {
    let world = World::new();
    // Field 100 of the model, a number.
    let with = |value: u8| [&rows(1.0).to_bytes()[..], &[0xa0, 0x06, value]].concat();
    world.write("one.onnx", with(1));
    world.write("two.onnx", with(2));
    let run = world.run(["diff", "one.onnx", "two.onnx"]).exits(1);
    assert!(run.stderr.contains("whether the models do is not known"), "{}", run.show());
    assert_eq!(world.run(["diff", "one.onnx", "two.onnx", "--json"]).exits(1).json()["equal"], false);
    world.run(["diff", "one.onnx", "one.onnx"]).exits(0).says("the models are equal");
}

fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..]].concat();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

fn npz(world: &World, name: &str, arrays: &[(&str, Vec<u8>)]) {
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (array, data) in arrays {
        archive.start_file(format!("{array}.npy"), SimpleFileOptions::default()).unwrap();
        archive.write_all(data).unwrap();
    }
    world.write(name, archive.finish().unwrap().into_inner());
}

/// Takes 8 positions for each of `frames`, and as many ids.
fn multiples() -> Model {
    let model = TestGraph::new()
        .input("audio", &["batch", "8*frames"])
        .input_i64("ids", &["frames"])
        .input("unnamed", &["any"])
        .initializer(initializer_i64("shape", &[2], &[-1, 8]))
        .initializer(initializer_f32("table", &[4, 8], &[0.5; 32]))
        .node(node("Reshape", ["audio", "shape"], "rows").named("cut"))
        .node(node("Gather", ["table", "ids"], "looked_up").named("look_up"))
        .node(node("Add", ["rows", "looked_up"], "sum").named("add"))
        .node(node("ReduceSum", ["unnamed"], "total").named("total"))
        .node(node("Mul", ["sum", "total"], "y").named("scale"))
        .output("y", &["frames", "8"])
        .model();
    let mut proto = model.proto().clone();
    let of = proto.graph.as_mut().unwrap().input[2].r#type.as_mut().unwrap().value.as_mut();
    if let Some(Value::TensorType(tensor)) = of {
        tensor.shape.as_mut().unwrap().dim[0].value = None;
    }
    Model::from_proto(proto, "m.onnx").unwrap()
}

#[test]
fn open_dimensions_are_given_or_assumed_aloud() {
    let world = World::new();
    world.write("m.onnx", multiples().to_bytes());
    let call =
        |more: &[&str]| world.run(["diff", "m.onnx", "m.onnx", "--run", "tract"].iter().chain(more));
    let mut shown = String::new();
    let calls: [(&[&str], i32); 8] = [
        (&[], 0),
        (&["--dim", "frames=3"], 0),
        (&["--dim", "frames=3", "--dim", "batch=1", "--dim", "unnamed:0=2"], 0),
        (&["--dim", "frame=3"], 2),
        (&["--dim", "audio:1=3"], 2),
        (&["--dim", "frames=3", "--dim", "frames=4"], 2),
        (&["--dim", "frames=many"], 2),
        (&["--dim", "=3"], 2),
    ];
    for (more, code) in calls {
        let run = call(more).exits(code);
        shown += &format!("$ diff m.onnx m.onnx --run tract {}\n{}\n", more.join(" "), run.show());
    }
    snapshot!("diff-run-dims", world, shown);
    let found = call(&["--json", "--dim", "frames=3"]).exits(0).json();
    assert_eq!(found["assumed"], serde_json::json!({"batch": 1, "unnamed:0": 7}));
}

#[test]
fn inputs_of_a_numpy_file() {
    let world = World::new();
    world.write("m.onnx", multiples().to_bytes());
    let floats = |n: usize| vec![0u8; 4 * n];
    let ids = |n: usize| npy("<i8", &format!("({n},)"), &vec![0; 8 * n]);
    let audio = |n: usize| npy("<f4", &format!("(1, {n})"), &floats(n));
    let one = || npy("<f4", "(1,)", &1.0f32.to_le_bytes());
    npz(&world, "good.npz", &[("audio", audio(16)), ("ids", ids(2)), ("unnamed", one())]);
    npz(&world, "missing.npz", &[("audio", audio(16)), ("ids", ids(2))]);
    npz(
        &world,
        "extra.npz",
        &[("audio", audio(16)), ("ids", ids(2)), ("unnamed", one()), ("z", one())],
    );
    let int32 = npy("<i4", "(2,)", &[0; 8]);
    npz(&world, "type.npz", &[("audio", audio(16)), ("ids", int32), ("unnamed", one())]);
    npz(&world, "rank.npz", &[("audio", one()), ("ids", ids(2)), ("unnamed", one())]);
    npz(&world, "multiple.npz", &[("audio", audio(15)), ("ids", ids(2)), ("unnamed", one())]);
    let lie = npy("<f4", "(1, 1000000)", &floats(4));
    npz(&world, "lie.npz", &[("audio", lie), ("ids", ids(2)), ("unnamed", one())]);
    let huge = npy("<f4", "(1, 9223372036854775807)", &floats(4));
    npz(&world, "huge.npz", &[("audio", huge), ("ids", ids(2)), ("unnamed", one())]);
    let bomb = npy("<f4", "(1, 16)", &floats(1 << 20));
    npz(&world, "bomb.npz", &[("audio", bomb), ("ids", ids(2)), ("unnamed", one())]);
    world.write("one.npy", one());
    world.write("letter.npz", "a letter");
    world.write("cut.npz", &std::fs::read(world.work("good.npz")).unwrap()[..100]);
    let call = |file: &str| world.run(["diff", "m.onnx", "m.onnx", "--run", "tract", "--inputs", file]);
    call("good.npz").exits(0);
    let refused = [
        "missing.npz", "extra.npz", "type.npz", "rank.npz", "multiple.npz", "lie.npz", "huge.npz",
        "bomb.npz", "one.npy", "letter.npz", "cut.npz", "nowhere.npz",
    ];
    let shown: String = refused
        .iter()
        .map(|file| {
            let run = call(file).exits(2);
            assert_eq!(run.stdout, "");
            format!("$ --inputs {file}\n{}\n", run.show())
        })
        .collect();
    snapshot!("diff-run-inputs", world, shown);
    // Neither a seed of random inputs nor a recorded case goes with a file.
    let both =
        ["diff", "m.onnx", "m.onnx", "--run", "tract", "--inputs", "good.npz", "--dim", "frames=2"];
    world.run(both).exits(2).says("cannot be used with");
    // The only input needs no name.
    world.write("single.onnx", rows(1.0).to_bytes());
    world.write("single.npy", npy("<f4", "(2, 3)", &floats(6)));
    world
        .run(["diff", "single.onnx", "single.onnx", "--run", "tract", "--inputs", "single.npy"])
        .exits(0);
}

#[test]
fn inputs_of_every_type_are_made_up() {
    let world = World::new();
    let types = [
        (5, "i16"),
        (6, "i32"),
        (7, "i64"),
        (2, "u8"),
        (3, "i8"),
        (9, "bool"),
        (10, "f16"),
        (11, "f64"),
    ];
    for (code, name) in types {
        let mut proto = TestGraph::new()
            .input("x", &["n"])
            .node(node("Cast", ["x"], "y").attr("to", Attr::Int(1)))
            .output("y", &["n"])
            .model()
            .proto()
            .clone();
        let of = proto.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().value.as_mut();
        let Some(Value::TensorType(tensor)) = of else { panic!("a tensor") };
        tensor.elem_type = Some(code);
        world.write("m.onnx", prost::Message::encode_to_vec(&proto));
        let runtimes = if onnxruntime().is_some() { "tract,onnxruntime" } else { "tract" };
        let again = if onnxruntime().is_some() { vec![] } else { vec!["m.onnx"] };
        let run = world.run(["diff", "m.onnx", "--run", runtimes].into_iter().chain(again));
        let run = run.exits(0);
        assert!(run.stdout.starts_with("1 values compared\n"), "{name}: {}", run.show());
    }
    let mut proto = rows(1.0).proto().clone();
    let of = proto.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().value.as_mut();
    if let Some(Value::TensorType(tensor)) = of {
        tensor.elem_type = Some(8);
    }
    world.write("text.onnx", prost::Message::encode_to_vec(&proto));
    let run = world.run(["diff", "text.onnx", "text.onnx", "--run", "tract"]).exits(2).hints();
    assert!(run.stderr.contains("\"x\" is of type string, which is not made up"), "{}", run.show());
}

#[test]
fn the_node_that_tract_gets_wrong_is_named() {
    let world = World::new();
    world.write("shape.onnx", shape_in_floats().to_bytes());
    for (library, name) in [(onnxruntime(), "onnxruntime"), (openvino(), "openvino")] {
        if library.is_none() {
            skipped("the_node_that_tract_gets_wrong_is_named", "no .venv; run make setup");
            continue;
        }
        let runtimes = format!("{name},tract");
        let run = world.run(["diff", "shape.onnx", "--run", &runtimes]).exits(1);
        let first = run.stdout.lines().last().unwrap();
        assert!(first.starts_with("first that differs: node \"scale\" (Mul)"), "{}", run.show());
        assert!(run.stderr.ends_with("the runtimes differ\n"), "{}", run.show());
        let found = world.run(["diff", "shape.onnx", "--run", &runtimes, "--json"]).exits(1).json();
        assert_eq!(found["first"]["node"], "scale");
        assert_eq!(found["first"]["value"], "y");
        assert_eq!(found["first"]["last_agreeing"], "divide");
    }
    if onnxruntime().is_some() && openvino().is_some() {
        world.run(["diff", "shape.onnx", "--run", "openvino,onnxruntime"]).exits(0);
    }
    world.is_clean();
}

#[test]
fn two_models_in_one_runtime() {
    let world = World::new();
    world.write("old.onnx", rows(1.0).to_bytes());
    world.write("same.onnx", rows(1.0).to_bytes());
    world.write("new.onnx", rows(1.5).to_bytes());
    snapshot!(
        "diff-run-equal",
        world,
        world.run(["diff", "old.onnx", "same.onnx", "--run", "tract"]).show()
    );
    let run = world.run(["diff", "old.onnx", "new.onnx", "--run", "tract"]).exits(1);
    snapshot!("diff-run-differs", world, run.show());
    // Limits are the caller's to widen.
    let wide = ["--snr", "-1", "--max-abs-of-peak", "10"];
    world.run(["diff", "old.onnx", "new.onnx", "--run", "tract"].into_iter().chain(wide)).exits(0);
    // The files themselves are still compared as they were.
    world.run(["diff", "old.onnx", "new.onnx"]).exits(1).says("the models differ");
    world.run(["diff", "old.onnx", "same.onnx"]).exits(0).says("the models are equal");
}

#[test]
fn two_models_that_differ_in_types_outputs_or_whole_numbers() {
    let world = World::new();
    let model = |code: i64, count: i64| {
        TestGraph::new()
            .input("x", &["n"])
            .initializer(initializer_i64("c", &[1], &[count]))
            .node(node("Relu", ["x"], "r").named(""))
            .node(node("Cast", ["r"], "y").named("").attr("to", Attr::Int(code)))
            .node(node("Identity", ["c"], "count").named(""))
    };
    let write = |name: &str, graph: TestGraph, outputs: &[&str]| {
        let mut proto = graph.model().proto().clone();
        let value = |name: &&str| ValueInfoProto { name: Some((*name).into()), ..Default::default() };
        proto.graph.as_mut().unwrap().output = outputs.iter().map(value).collect();
        world.write(name, prost::Message::encode_to_vec(&proto));
    };
    write("f32.onnx", model(1, 1 << 62), &["y", "count"]);
    write("f64.onnx", model(11, 1 << 62), &["y", "count"]);
    write("one_more.onnx", model(1, (1 << 62) + 1), &["y", "count"]);
    write("fewer.onnx", model(1, 1 << 62), &["y"]);
    let mut shown = String::new();
    for new in ["f64.onnx", "one_more.onnx", "fewer.onnx"] {
        let run = world.run(["diff", "f32.onnx", new, "--run", "tract", "--dim", "n=3"]).exits(1);
        shown += &format!("$ diff f32.onnx {new}\n{}\n", run.show());
    }
    snapshot!("diff-run-two-models", world, shown);
}

#[test]
fn calls_that_cannot_be_obeyed() {
    let world = World::new();
    world.write("m.onnx", rows(1.0).to_bytes());
    world.write("letter.onnx", "a letter");
    world.write("letter.so", "a letter");
    let calls: [&[&str]; 9] = [
        &["m.onnx"],
        &["m.onnx", "--run", "tract"],
        &["m.onnx", "--run", "tract,tract"],
        &["m.onnx", "--run", "tract,tensorrt"],
        &["m.onnx", "m.onnx", "--run", "tract,onnxruntime,openvino"],
        &["m.onnx", "--run", "tract,openvino", "--case", "b1_t2"],
        &["letter.onnx", "m.onnx", "--run", "tract"],
        &["m.onnx", "--run", "tract,onnxruntime", "--onnxruntime", "letter.so"],
        &["m.onnx", "--run", "tract,openvino", "--openvino-library", "letter.so"],
    ];
    let shown: String = calls
        .iter()
        .map(|call| {
            let run = world.run(["diff"].iter().chain(*call)).exits(2);
            assert_eq!(run.stdout, "");
            format!("$ diff {}\n{}\n", call.join(" "), run.show())
        })
        .collect();
    snapshot!("diff-run-usage", world, shown);
}

#[test]
fn a_real_model_agrees_in_every_runtime_on_recorded_inputs() {
    let shared = shared_or_skip!();
    let world = World::new();
    let model = shared.model();
    let references = shared.bundle.join("reference/decoder.safetensors");
    let call = |runtimes: &str, case: &str| {
        let mut command = world.command(["diff", "--run", runtimes, "--case", case, "--json"]);
        command.arg(&model).arg("--references").arg(&references);
        crate::harness::Run::from(command.output().unwrap())
    };
    for runtimes in ["tract,onnxruntime", "tract,openvino", "openvino,onnxruntime"] {
        let found = call(runtimes, "b1_t5").exits(0).json();
        assert!(found["compared"].as_u64().unwrap() > 50, "{runtimes}: {found}");
        // tract has no number for a shape that it only computes with.
        let hidden = found["not_shown"].as_array().unwrap().len();
        assert!(hidden == 0 || runtimes.contains("tract") && hidden < 5, "{runtimes}: {found}");
    }
    call("tract,onnxruntime", "b1_t6").exits(2).says("it has no case \"b1_t6\"; it has: ");
}
