//! `inspect`: weights wherever they lie, types of every kind, nodes with the graphs nested in them.

use soprano_export::ir::proto::{
    FunctionProto, SparseTensorProto, TensorShapeProto, TypeProto, tensor_proto::DataType, type_proto,
};
use soprano_export::ir::{
    Attr, AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, TensorProto, TestGraph,
    ValueInfoProto, initializer_f32, initializer_i64, initializer_raw, node, value_f32, value_i64,
};

use crate::harness::{ROOT, World};
use crate::snapshot;

fn value(name: &str, of: type_proto::Value) -> ValueInfoProto {
    let r#type = TypeProto { value: Some(of), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..Default::default() }
}

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(5), g: Some(graph), ..Default::default() }
}

/// A weight in every place that the format has for one, and a port of every kind of type.
pub fn everywhere() -> ModelProto {
    let branch = |name: &str, op: &str| GraphProto {
        name: Some(name.into()),
        node: vec![node(op, ["x", "inner"], format!("{name}_y")).build()],
        initializer: vec![initializer_f32("inner", &[2], &[1.0, 2.0])],
        output: vec![value_f32(&format!("{name}_y"), &["n", "2"])],
        ..Default::default()
    };
    let mut proto = TestGraph::new()
        .input("x", &["n", "2"])
        .input("scalar", &[])
        .initializer(TensorProto {
            raw_data: None,
            float_data: vec![1.0, 2.0],
            ..initializer_f32("typed", &[2], &[0.0; 2])
        })
        .initializer(initializer_raw("nibbles", DataType::Int4, &[3], vec![0x21, 0x03].into()))
        .initializer(TensorProto {
            string_data: vec!["a".into(), "bc".into()],
            raw_data: None,
            ..initializer_raw("texts", DataType::String, &[2], Default::default())
        })
        .node(
            node("Constant", [""; 0], "c")
                .attr("value", Attr::Tensor(initializer_f32("", &[3], &[0.0; 3]))),
        )
        .node(node("Constant", [""; 0], "d").ints("value_ints", [1, 2]))
        .node(node("Greater", ["scalar", "scalar"], "which").named("compare"))
        .node(
            node("If", ["which"], "chosen")
                .named("choose")
                .attribute(graph_attribute("then_branch", branch("then", "Add")))
                .attribute(graph_attribute("else_branch", branch("else", "Mul"))),
        )
        .node(node("Scale", ["chosen"], "y").named("call").domain("custom"))
        .output("y", &["n", "2"])
        .model()
        .proto()
        .clone();
    let graph = proto.graph.as_mut().unwrap();
    graph.sparse_initializer.push(SparseTensorProto {
        values: Some(initializer_f32("sparse", &[1], &[1.0])),
        indices: Some(initializer_i64("", &[1], &[7])),
        dims: vec![100],
    });
    let tensor = |shape| type_proto::Tensor { elem_type: Some(1), shape };
    let sequence =
        type_proto::Sequence { elem_type: Some(Box::new(value_i64("", &["n"]).r#type.unwrap())) };
    let optional = type_proto::Optional {
        elem_type: Some(Box::new(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor(None))),
            ..Default::default()
        })),
    };
    let map =
        type_proto::Map { key_type: Some(8), value_type: value_f32("", &[]).r#type.map(Box::new) };
    let sparse = type_proto::SparseTensor { elem_type: Some(1), shape: None };
    let unknown = TensorShapeProto { dim: vec![Default::default()] };
    graph.input.extend([
        value("rankless", type_proto::Value::TensorType(tensor(None))),
        value("unnamed", type_proto::Value::TensorType(tensor(Some(unknown)))),
        value("list", type_proto::Value::SequenceType(Box::new(sequence))),
        value("perhaps", type_proto::Value::OptionalType(Box::new(optional))),
        value("table", type_proto::Value::MapType(Box::new(map))),
        value("few", type_proto::Value::SparseTensorType(sparse)),
    ]);
    proto.functions.push(FunctionProto {
        name: Some("Scale".into()),
        domain: Some("custom".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![
            node("Constant", [""; 0], "two").attr("value_float", Attr::Float(2.0)).build(),
            node("Mul", ["a", "two"], "b").named("times").build(),
        ],
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        ..Default::default()
    });
    proto
}

#[test]
fn weights_are_counted_wherever_they_lie() {
    let world = World::new();
    world.write("m.onnx", prost::Message::encode_to_vec(&everywhere()));
    snapshot!("inspect-everywhere", world, world.run(["inspect", "m.onnx", "--nodes"]).exits(0).show());
    let run = world.run(["inspect", "m.onnx", "--json"]).exits(0);
    let found = run.json();
    let places: Vec<_> = found["weights_in"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| {
            let text = |key: &str| place[key].as_str().unwrap().to_owned();
            let number = |key: &str| place[key].as_u64().unwrap();
            (text("in"), text("as"), number("weights"), number("bytes"))
        })
        .collect();
    let places: Vec<_> =
        places.iter().map(|(a, b, n, size)| (a.as_str(), b.as_str(), *n, *size)).collect();
    let wanted = [
        ("graph", "constant", 2, 12 + 16),
        // Two floats, three 4-bit integers in two bytes, three letters.
        ("graph", "initializer", 3, 8 + 2 + 3),
        ("graph", "sparse initializer", 1, 4 + 8),
        ("nested graphs", "initializer", 2, 16),
        ("functions", "constant", 1, 4),
    ];
    assert_eq!(places, wanted);
    assert_eq!(found["weights"], 9);
    assert_eq!(found["weight_bytes"], 28 + 13 + 12 + 16 + 4);
    assert_eq!(found["nodes"], 9, "{found}");
    assert_eq!(found["functions"][0]["name"], "custom.Scale");
    assert_eq!(found["functions"][0]["weight_bytes"], 4);
    assert!(found.get("node_list").is_none());
    let shape = |at: usize| found["inputs"][at]["shape"].clone();
    assert_eq!(shape(1), serde_json::json!([]), "a scalar");
    assert_eq!(shape(2), serde_json::Value::Null, "a shape that is not known");
    assert_eq!(shape(3), serde_json::json!(["?"]), "a dimension that is not known");
    let nodes = world.run(["inspect", "m.onnx", "--json", "--nodes"]).exits(0).json();
    let paths: Vec<_> =
        nodes["node_list"].as_array().unwrap().iter().map(|s| s["path"].clone()).collect();
    let wanted = serde_json::json!([
        [],
        ["choose (If)", "then_branch"],
        ["choose (If)", "else_branch"],
        ["function custom.Scale"]
    ]);
    assert_eq!(serde_json::Value::from(paths), wanted);
}

#[test]
fn every_file_of_every_exporter_is_shown_and_equals_itself() {
    let world = World::new();
    let folder = std::path::Path::new(ROOT).join("fixtures/onnx");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let file = if file.is_dir() { file.join("model.onnx") } else { file };
        if file.extension().is_none_or(|extension| extension != "onnx") || !file.exists() {
            continue;
        }
        let name = file.to_str().unwrap();
        let shown = world.run(["inspect", name, "--nodes"]).exits(0).stdout;
        assert!(shown.contains("\nnode "), "{shown}");
        let same = world.run(["diff", name, name]).exits(0);
        assert_eq!(same.stdout, "");
        files += 1;
    }
    assert!(files > 20, "{files}");
}
