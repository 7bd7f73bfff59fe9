//! Real files come back byte for byte, and an independent reader sees in them what this one does.

use std::path::{Path, PathBuf};

use onnx_protobuf::tensor_proto::DataLocation;
use protobuf::{Enum, Message};
use soprano_export::ir::Model;
use soprano_export::passes::Driver;

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

/// A field of a length: number and content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(number < 16 && length < 128);
    [&[number << 3 | 2, length], content].concat()
}

/// Writers of proto3 pack every list of numbers; readers must take it packed or not.
#[test]
fn packed_lists_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for count in 1..=3u8 {
        let numbers: Vec<u8> = (1..=count).collect();
        let floats: Vec<u8> = numbers.iter().flat_map(|&n| f32::from(n).to_le_bytes()).collect();
        let of_type = |kind: u8| vec![0xa0, 0x01, kind];
        let ints = [field(1, b"shape"), field(8, &numbers), of_type(7)].concat();
        let reals = [field(1, b"scales"), field(7, &floats), of_type(6)].concat();
        let spec = field(3, &field(2, &numbers));
        let sharding = field(10, &field(2, &[field(2, &numbers), spec].concat()));
        let node = [
            field(1, b"x"),
            field(2, b"y"),
            field(4, b"Op"),
            field(7, b"elsewhere"),
            field(5, &ints),
            field(5, &reals),
        ];
        let node = [node.concat(), sharding].concat();
        let tensor = [field(1, &[1, count]), vec![0x10, 1], field(8, b"w"), field(4, &floats)].concat();
        let float = field(2, &field(1, &[0x08, 1]));
        let value = |name: &[u8]| [field(1, name), float.clone()].concat();
        let graph = [
            vec![0x0a, node.len() as u8],
            node,
            field(2, b"g"),
            field(5, &tensor),
            field(11, &value(b"x")),
            field(12, &value(b"y")),
        ]
        .concat();
        let length = [graph.len() as u8 | 0x80, (graph.len() >> 7) as u8];
        let imports = field(8, &[field(1, b"elsewhere"), vec![0x10, 1]].concat());
        let bytes = [&[0x08, 8, 0x3a][..], &length, &graph, &imports].concat();

        let path = folder.path().join("packed.onnx");
        std::fs::write(&path, &bytes).unwrap();
        let theirs = other_reader(&path);
        let mut model = Model::open_checked(&path).unwrap();
        let node = &model.graph_proto().node[0];
        let expected: Vec<i64> = numbers.iter().map(|&n| n.into()).collect();
        assert_eq!(node.attr_ints("shape"), Some(&expected[..]));
        assert_eq!(node.attr_ints("shape"), Some(&theirs.graph.node[0].attribute[0].ints[..]));
        assert_eq!(node.attr("scales").unwrap().floats, theirs.graph.node[0].attribute[1].floats);
        let sharding = &node.device_configurations[0].sharding_spec[0];
        assert_eq!(sharding.device, expected);
        assert_eq!(sharding.index_to_device_group_map[0].value, expected);
        assert_eq!(model.graph_proto().initializer[0].dims, [1, i64::from(count)]);
        // What is not changed keeps its bytes; what is loses nothing.
        let copy = folder.path().join("copy.onnx");
        model.write(&copy).unwrap();
        assert!(std::fs::read(&copy).unwrap() == bytes);
        model.proto_mut().doc_string = Some("changed".into());
        model.write(&copy).unwrap();
        assert_eq!(Model::open(&copy).unwrap().proto(), model.proto());
    }
}

/// The corpus is of files that work: none is refused before the passes, and none after.
#[test]
fn the_gate_lets_the_corpus_pass() {
    for path in corpus() {
        let mut model = Model::open_checked(&path).unwrap();
        Driver::default().run(&mut model).unwrap();
        model.check_rewritten().unwrap();
    }
}
