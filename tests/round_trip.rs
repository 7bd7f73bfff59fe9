//! Real files come back byte for byte, and an independent reader sees in them what this one does.

use std::path::{Path, PathBuf};

use onnx_protobuf::tensor_proto::DataLocation;
use protobuf::{Enum, Message};
use soprano_export::ir::Model;

fn corpus() -> Vec<PathBuf> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, into),
                false if path.extension().is_some_and(|e| e == "onnx") => into.push(path),
                false => {}
            }
        }
    }
    let mut files = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/onnx"), &mut files);
    files.sort();
    assert!(files.len() > 20, "the corpus is gone");
    files
}

fn other_reader(path: &Path) -> onnx_protobuf::ModelProto {
    onnx_protobuf::ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

fn is_external(tensor: &onnx_protobuf::TensorProto) -> bool {
    tensor.data_location.value() == DataLocation::EXTERNAL.value()
}

#[test]
fn files_come_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    for path in corpus() {
        if other_reader(&path).graph.initializer.iter().any(is_external) {
            continue;
        }
        let before = std::fs::read(&path).unwrap();
        assert!(before.len() < 1 << 16, "{}: {} bytes", path.display(), before.len());
        let model = Model::open(&path).unwrap();
        let copy = folder.path().join("copy.onnx");
        let written = model.write(&copy).unwrap();
        assert_eq!(written.bytes, before.len() as u64, "{}", path.display());
        assert!(std::fs::read(&copy).unwrap() == before, "{}", path.display());
        assert!(model.to_bytes() == before, "{}", path.display());
    }
}

#[test]
fn another_reader_sees_the_same() {
    for path in corpus() {
        let model = Model::open(&path).unwrap();
        let theirs = other_reader(&path);
        let (ours, theirs) = (model.graph_proto(), &theirs.graph);
        let shown = path.display();
        let our_ops: Vec<&str> = ours.node.iter().map(|n| n.op_type()).collect();
        let their_ops: Vec<&str> = theirs.node.iter().map(|n| n.op_type.as_str()).collect();
        assert_eq!(our_ops, their_ops, "{shown}");
        assert_eq!(ours.initializer.len(), theirs.initializer.len(), "{shown}");
        for (a, b) in ours.initializer.iter().zip(&theirs.initializer) {
            assert_eq!(a.name(), b.name, "{shown}");
            assert_eq!((&a.dims, a.data_type()), (&b.dims, b.data_type), "{shown}: {}", a.name());
            assert_eq!(a.float_data, b.float_data, "{shown}: {}", a.name());
            assert_eq!(a.int32_data, b.int32_data, "{shown}: {}", a.name());
            assert_eq!(a.int64_data, b.int64_data, "{shown}: {}", a.name());
            assert_eq!(a.uint64_data, b.uint64_data, "{shown}: {}", a.name());
            if !is_external(b) {
                let ours = a.raw_data.as_deref().unwrap_or_default();
                assert!(ours == b.raw_data, "{shown}: {}", a.name());
            }
        }
    }
}

#[test]
fn external_data_is_embedded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/onnx/made_external/model.onnx");
    let before = other_reader(&path);
    let data = std::fs::read(path.with_file_name("model.onnx.data")).unwrap();
    let model = Model::open(&path).unwrap();
    assert_eq!(before.graph.initializer.len(), 3);
    for (theirs, ours) in before.graph.initializer.iter().zip(&model.graph_proto().initializer) {
        assert!(is_external(theirs));
        let number = |key: &str| -> Option<usize> {
            let entry = theirs.external_data.iter().find(|e| e.key == key)?;
            Some(entry.value.parse().unwrap())
        };
        let start = number("offset").unwrap_or(0);
        let end = number("length").map_or(data.len(), |n| start + n);
        assert!(ours.raw_data.as_deref() == Some(&data[start..end]), "{}", ours.name());
        assert!(ours.data_location.is_none() && ours.external_data.is_empty());
    }

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("alone.onnx");
    model.write(&copy).unwrap();
    let again = Model::open(&copy).unwrap();
    assert_eq!(again.proto(), model.proto());
}
