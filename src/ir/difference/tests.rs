use std::collections::HashSet;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::super::proto::tensor_proto::DataType;
use super::super::proto::*;
use super::super::{Attr, Model, TestGraph, initializer_f32, initializer_raw, node, value_f32};
use super::*;

fn model() -> ModelProto {
    TestGraph::new()
        .input("x", &["n", "2"])
        .initializer(initializer_f32("w", &[2], &[2.0, 3.0]))
        .node(node("Mul", ["x", "w"], "a").named("scale"))
        .node(node("Softmax", ["a"], "b").named("rows").attr("axis", Attr::Int(1)))
        .node(node("Add", ["b", "w"], "y").named("shift"))
        .output("y", &["n", "2"])
        .model()
        .proto()
        .clone()
}

/// What a change of the model comes to, a line a difference.
fn changed(change: impl FnOnce(&mut ModelProto)) -> Vec<String> {
    let (old, mut new) = (model(), model());
    change(&mut new);
    found(&old, &new)
}

fn found(old: &ModelProto, new: &ModelProto) -> Vec<String> {
    let text = |side: &Option<String>| side.as_deref().unwrap_or("").to_owned();
    let line = |d: &Difference| {
        let form = if d.form_only { " (form)" } else { "" };
        let note = d.note.as_deref().map_or(String::new(), |note| format!("; {note}"));
        let place = d.place.join(" > ");
        format!("{:?} {place}: {} -> {}{note}{form}", d.change, text(&d.old), text(&d.new))
    };
    differences(old, new).iter().map(line).collect()
}

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

#[test]
fn a_difference_is_named_by_its_place() {
    assert_eq!(changed(|_| {}), [""; 0]);
    assert_eq!(
        changed(|m| graph(m).node[1].attribute[0].i = Some(0)),
        ["Changed node rows (Softmax) > attribute axis > i: 1 -> 0"]
    );
    assert_eq!(
        changed(|m| m
            .metadata_props
            .push(StringStringEntryProto { key: Some("author".into()), value: Some("me".into()) })),
        ["Added metadata_props author:  -> \"me\""]
    );
    assert_eq!(
        changed(|m| graph(m).node[0].doc_string = Some("why".into())),
        ["Changed node scale (Mul) > doc_string: absent -> \"why\""]
    );
    assert_eq!(
        changed(|m| graph(m).input[0] = value_f32("x", &["m", "2"])),
        ["Changed input x > type: f32 [n, 2] -> f32 [m, 2]"]
    );
    assert_eq!(
        changed(|m| graph(m).value_info.push(value_f32("a", &["n", "2"]))),
        ["Added value_info a:  -> f32 [n, 2]"]
    );
    assert_eq!(
        changed(|m| m.opset_import.swap(0, 1)),
        ["Reordered opset_import: ai.onnx -> soprano_export; 2 of 2 stand elsewhere"]
    );
    assert_eq!(
        changed(|m| m.opset_import[0].domain = Some("ai.onnx".into())),
        ["Changed opset_import ai.onnx > domain: \"\" -> \"ai.onnx\" (form)"]
    );
    assert_eq!(
        changed(|m| graph(m).name = Some("other".into())),
        ["Changed graph > name: \"test\" -> \"other\""]
    );
    assert_eq!(
        changed(|m| m.producer_name = Some(String::new())),
        ["Changed producer_name: absent -> \"\" (form)"]
    );
}

#[test]
fn entries_are_matched_by_name_and_nodes_by_output() {
    assert_eq!(
        changed(|m| {
            graph(m).node.remove(0);
            graph(m).node[0].input[0] = "x".into();
        }),
        [
            "Removed node scale (Mul): x, w -> a -> ",
            "Changed node rows (Softmax) > input: [\"a\"] -> [\"x\"]"
        ]
    );
    // A node whose output has another name is found by its own.
    assert_eq!(
        changed(|m| {
            graph(m).node[0].output[0] = "c".into();
            graph(m).node[1].input[0] = "c".into();
        }),
        [
            "Changed node scale (Mul) > output: [\"a\"] -> [\"c\"]",
            "Changed node rows (Softmax) > input: [\"a\"] -> [\"c\"]"
        ]
    );
    let twice = |m: &mut ModelProto| {
        let entry =
            |value: &str| StringStringEntryProto { key: Some("k".into()), value: Some(value.into()) };
        m.metadata_props = vec![entry("1"), entry("2")];
    };
    let (mut old, mut new) = (model(), model());
    twice(&mut old);
    twice(&mut new);
    new.metadata_props[1].value = Some("3".into());
    assert_eq!(found(&old, &new), ["Changed metadata_props k > value: \"2\" -> \"3\""]);
}

#[test]
fn nested_graphs_and_functions_are_walked() {
    let body = |op: &str| {
        let mut attribute = AttributeProto { name: Some("body".into()), ..Default::default() };
        let node = node(op, ["x"], "t").build();
        attribute.g = Some(GraphProto { node: vec![node], ..Default::default() });
        attribute
    };
    let function = |op: &str| FunctionProto {
        name: Some("F".into()),
        domain: Some("custom".into()),
        node: vec![node(op, ["p"], "q").attribute(body(op)).build()],
        ..Default::default()
    };
    let with = |op: &str| {
        let mut model = model();
        graph(&mut model).node[1].attribute.push(body(op));
        model.functions.push(function(op));
        model
    };
    assert_eq!(
        found(&with("Relu"), &with("Neg")),
        [
            "Changed node rows (Softmax) > attribute body > node t (Relu) > op_type: \"Relu\" -> \"Neg\"",
            "Changed functions custom.F > node q (Relu) > op_type: \"Relu\" -> \"Neg\"",
            "Changed functions custom.F > node q (Relu) > attribute body > node t (Relu) > op_type: \"Relu\" -> \"Neg\"",
        ]
    );
}

#[test]
fn numbers_are_told_apart_and_forms_too() {
    let weights = |tensor: TensorProto| changed(|m| graph(m).initializer[0] = tensor);
    assert_eq!(
        weights(initializer_f32("w", &[2], &[2.0, 3.5])),
        ["Changed initializer w > data:  -> ; 1 of 2 values differ, by 5.000e-1 at most"]
    );
    assert_eq!(
        weights(initializer_f32("w", &[2], &[f32::NAN, 3.0])),
        [
            "Changed initializer w > data:  -> ; 1 of 2 values differ, 1 of them NaN or infinite on one side or both"
        ]
    );
    let typed = TensorProto {
        raw_data: None,
        float_data: vec![2.0, 3.0],
        ..initializer_f32("w", &[2], &[0.0; 2])
    };
    assert_eq!(
        weights(typed),
        [
            "Changed initializer w > data: 8 bytes of raw_data -> 2 entries of float_data; the same values (form)"
        ]
    );
    assert_eq!(
        weights(initializer_f32("w", &[1, 2], &[2.0, 3.0])),
        ["Changed initializer w > dims: [2] -> [1, 2]"]
    );
    let nibbles = |byte: u8| initializer_raw("w", DataType::Int4, &[3], vec![byte, 1].into());
    let [old, new] = [0x21, 0x31].map(|byte| {
        let mut model = model();
        graph(&mut model).initializer[0] = nibbles(byte);
        model
    });
    assert_eq!(found(&old, &new), ["Changed initializer w > data:  -> ; 1 of 3 values differ"]);
}

#[test]
fn floats_are_compared_by_their_bits() {
    let with = |x: f32| {
        let mut model = model();
        graph(&mut model).node[1].attribute[0].f = Some(x);
        model
    };
    assert_eq!(found(&with(f32::NAN), &with(f32::NAN)), [""; 0]);
    let other = f32::from_bits(f32::NAN.to_bits() ^ 1);
    assert_eq!(found(&with(f32::NAN), &with(other)).len(), 1);
    assert_eq!(
        found(&with(0.0), &with(-0.0)),
        ["Changed node rows (Softmax) > attribute axis > f: 0.0 -> -0.0"]
    );
}

/// Two values for a field, neither of them its default.
fn values(field: &FieldDescriptor) -> [Value; 2] {
    match field.kind() {
        Kind::String => [Value::String("a".into()), Value::String("b".into())],
        Kind::Bytes => [Value::Bytes("a".into()), Value::Bytes("b".into())],
        Kind::Int32 => [Value::I32(1), Value::I32(2)],
        Kind::Int64 => [Value::I64(1), Value::I64(2)],
        Kind::Uint64 => [Value::U64(1), Value::U64(2)],
        Kind::Float => [Value::F32(1.0), Value::F32(2.0)],
        Kind::Double => [Value::F64(1.0), Value::F64(2.0)],
        // Of an enumeration that has no third value, the second will do.
        Kind::Enum(of) => [1, if of.get_value(2).is_some() { 2 } else { 0 }].map(Value::EnumNumber),
        other => panic!("{other:?}"),
    }
}

/// Changes of every field below `message`, one at a time, `wrap`ped into a whole model; each message type is
/// entered once.
fn every_change(
    message: &MessageDescriptor,
    wrap: &dyn Fn(DynamicMessage) -> DynamicMessage,
    entered: &mut HashSet<String>,
    tried: &mut Vec<String>,
) {
    if !entered.insert(message.full_name().to_owned()) {
        return;
    }
    let read = |message: DynamicMessage| {
        let bytes = wrap(message).encode_to_vec();
        ModelProto::decode(&*bytes).unwrap()
    };
    let mut check = |of: &FieldDescriptor, old: DynamicMessage, new: DynamicMessage| {
        let (old, new) = (read(old), read(new));
        assert_ne!(old, new, "{}", of.full_name());
        assert!(!differences(&old, &new).is_empty(), "{} is not compared", of.full_name());
        assert!(!differences(&new, &old).is_empty(), "{} is not compared", of.full_name());
        assert!(differences(&new, &new).is_empty());
        tried.push(of.full_name().to_owned());
    };
    let set = |field: &FieldDescriptor, value: Value| {
        let mut changed = DynamicMessage::new(message.clone());
        changed.set_field(field, if field.is_list() { Value::List(vec![value]) } else { value });
        changed
    };
    for field in message.fields() {
        let empty = DynamicMessage::new(message.clone());
        if let Kind::Message(inner) = field.kind() {
            let inner_empty = DynamicMessage::new(inner.clone());
            check(&field, empty, set(&field, Value::Message(inner_empty)));
            continue;
        }
        let [a, b] = values(&field);
        check(&field, empty, set(&field, a.clone()));
        check(&field, set(&field, a.clone()), set(&field, b.clone()));
        if field.is_list() {
            let both = |values| {
                let mut changed = DynamicMessage::new(message.clone());
                changed.set_field(&field, Value::List(values));
                changed
            };
            check(&field, both(vec![a.clone(), b.clone()]), both(vec![b, a]));
        }
    }
    for field in message.fields() {
        let Kind::Message(inner) = field.kind() else { continue };
        let deeper = |message: DynamicMessage| wrap(set(&field, Value::Message(message)));
        every_change(&inner, &deeper, entered, tried);
    }
}

/// `onnx.proto` itself says which fields there are: each is set, changed and reordered in turn.
#[test]
fn no_field_of_the_format_is_left_out() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ir");
    let pool =
        DescriptorPool::from_file_descriptor_set(protox::compile(["onnx.proto"], [root]).unwrap());
    let pool = pool.unwrap();
    let model = pool.get_message_by_name("onnx.ModelProto").unwrap();
    let mut tried = Vec::new();
    every_change(&model, &|message| message, &mut HashSet::new(), &mut tried);
    let fields: HashSet<String> = pool
        .all_messages()
        .filter(|message| !message.full_name().ends_with("OperatorProto"))
        .flat_map(|message| message.fields().map(|f| f.full_name().to_owned()).collect::<Vec<_>>())
        .collect();
    let tried: HashSet<String> = tried.into_iter().collect();
    assert_eq!(fields.difference(&tried).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(tried.len() > 100, "{}", tried.len());
}

#[test]
fn a_model_equals_itself_after_a_round_trip() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/onnx");
    for file in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "onnx") {
            let model = Model::open(&file).unwrap();
            let again = ModelProto::decode(&*model.to_bytes()).unwrap();
            assert_eq!(differences(model.proto(), &again), []);
        }
    }
}
