//! `src/ir/proto.rs` is generated from ONNX's own `onnx.proto`, and `src/ir/fields.rs`, which fields each
//! message has; this test makes them again and compares.
//! `UPDATE_PROTO=1 cargo test --release --test onnx_proto` writes them.

use std::fmt::Write as _;
use std::path::Path;

use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, FileDescriptorSet};

fn descriptors() -> FileDescriptorSet {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ir");
    protox::compile(["onnx.proto"], [folder]).expect("onnx.proto parses")
}

fn compare(name: &str, text: &str) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ir").join(name);
    if std::env::var_os("UPDATE_PROTO").is_some() {
        std::fs::write(&kept, text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&kept).unwrap() == text,
        "src/ir/{name} differs from what onnx.proto generates: run with UPDATE_PROTO=1"
    );
}

#[test]
fn generated_code_is_current() {
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        .bytes(["."])
        .disable_comments(["."])
        .out_dir(out.path())
        .compile_fds(descriptors())
        .expect("prost generates");
    compare("proto.rs", &std::fs::read_to_string(out.path().join("onnx.rs")).unwrap());
}

#[test]
fn fields_are_current() {
    fn flat(prefix: &str, messages: &[DescriptorProto], into: &mut Vec<(String, DescriptorProto)>) {
        for message in messages {
            let name = format!("{prefix}{}", message.name());
            flat(&format!("{name}."), &message.nested_type, into);
            into.push((name, message.clone()));
        }
    }
    let mut messages = Vec::new();
    for file in descriptors().file {
        flat("", &file.message_type, &mut messages);
    }
    messages.sort_by(|a, b| a.0.cmp(&b.0));
    let place = |kind: &str| {
        let name = kind.trim_start_matches('.').trim_start_matches("onnx.");
        messages.iter().position(|(known, _)| known == name)
    };
    let mut text = String::from(
        "// Made from onnx.proto by tests/onnx_proto.rs.\n\n\
         /// A field: number, name, whether it is repeated, and its message's place in [`MESSAGES`].\n\
         pub(super) type Field = (u32, &'static str, bool, Option<usize>);\n\n\
         /// Every message with its fields, in the order of their numbers.\n\
         #[rustfmt::skip]\n\
         pub(super) static MESSAGES: &[(&str, &[Field])] = &[\n",
    );
    for (name, message) in &messages {
        writeln!(text, "    ({name:?}, &[").unwrap();
        let mut fields = message.field.clone();
        fields.sort_by_key(|field| field.number());
        for field in &fields {
            let (number, name) = (field.number(), field.name());
            let repeated = field.label() == Label::Repeated;
            let inner = place(field.type_name());
            writeln!(text, "        ({number}, {name:?}, {repeated}, {inner:?}),").unwrap();
        }
        text.push_str("    ]),\n");
    }
    text.push_str("];\n");
    compare("fields.rs", &text);
}
