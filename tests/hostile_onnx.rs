//! Files that lie: each is refused with an error that names the file and the node or tensor, or
//! opened and then survives every pass and tract. No panic, no hang, no gigabytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use soprano_export::ir::proto::{SparseTensorProto, StringStringEntryProto, tensor_proto::DataType};
use soprano_export::ir::{
    Attr, AttributeProto, Error, GraphProto, Model, ModelProto, NodeId, NodeProto, Patch, TensorProto,
    TestGraph, Unsafe, ValueInfoProto, initializer_f32, initializer_i64, initializer_raw, node,
};
use soprano_export::passes::{ALL, Driver};
use soprano_export::runtime::{Runtime, Tract};

/// The system's allocator, which notes the largest request: what a lying length would ask for.
struct Noting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

/// Runs something that must be quick and ask for little memory.
fn within_bounds<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", start.elapsed());
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < 1 << 29, "{what}: {largest} bytes asked for at once");
    done
}

const NAME: &str = "hostile.onnx";

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/onnx").join(name)).unwrap()
}

/// Opens bytes; if they are a model, drives it through every pass and, where asked, tract.
fn survive(bytes: &[u8], tract: bool) -> Result<(), Error> {
    let mut model = Model::from_bytes(Bytes::copy_from_slice(bytes), NAME).inspect_err(|error| {
        assert!(error.to_string().contains(NAME), "{error}");
    })?;
    // Once decoded, nothing is lost: what is written is read as the same.
    let again = Model::from_bytes(model.to_bytes().into(), NAME).unwrap();
    assert_eq!(again.to_bytes(), model.to_bytes());
    assert_eq!(again.unknown_fields(), None);
    Driver::default().run(&mut model).unwrap();
    // Every surgery refuses, or leaves a model.
    let _ = Driver::new(ALL).run(&mut model);
    model.consistent().unwrap();
    Model::from_bytes(model.to_bytes().into(), NAME).unwrap();
    if tract {
        let _ = Tract.load_bytes(bytes);
        let _ = Tract.load_bytes(&model.to_bytes());
    }
    Ok(())
}

fn refused(bytes: &[u8]) -> Error {
    within_bounds("a refusal", || survive(bytes, false)).expect_err("must be refused")
}

// ---------------------------------------------------------------- bytes

#[test]
fn empty_and_foreign_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let empty = Model::open(write("empty.onnx", b"")).unwrap_err();
    assert!(matches!(empty, Error::Empty { .. }) && empty.to_string().contains("empty.onnx"));
    for (name, bytes) in [
        ("text.onnx", &b"this is not a model at all"[..]),
        ("zip.onnx", b"PK\x03\x04\x14\0\0\0\x08\0"),
        ("zeros.onnx", &[0; 64]),
        ("html.onnx", b"<!DOCTYPE html><title>404</title>"),
        ("graphless.onnx", b"\x08\x08"),
        ("claims.onnx", b"\x3a\xff\xff\xff\xff\x07"),
        ("claims_more.onnx", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ] {
        let error = within_bounds(name, || Model::open(write(name, bytes))).unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let absent = Model::open(folder.path().join("absent.onnx")).unwrap_err();
    assert!(matches!(absent, Error::Io { .. }) && absent.to_string().contains("absent.onnx"));
}

#[cfg(unix)]
#[test]
fn what_is_not_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.onnx");
    make_pipe(&pipe);
    for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
        let error = within_bounds("not a file", || Model::open(path)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[cfg(unix)]
fn make_pipe(path: &Path) {
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a string that ends in zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

#[test]
fn past_two_gigabytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.onnx");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 31).unwrap();
    let error = within_bounds("a sparse file", || Model::open(&path)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 2_147_483_648, .. }), "{error}");
    file.set_len((1 << 31) - 1).unwrap();
    let error = within_bounds("a sparse file", || Model::open(&path)).unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
}

#[test]
fn cut_short_at_every_byte() {
    for name in ["made_opset18.onnx", "made_subgraphs.onnx", "made_typed_fields.onnx"] {
        let whole = fixture(name);
        for end in 0..whole.len() {
            // Fields of the model end before the file does: a cut between two of them is a model.
            let _ = within_bounds(name, || survive(&whole[..end], false));
        }
    }
    let whole = fixture("torchscript_opset17.onnx");
    for end in (0..whole.len()).step_by(37) {
        let _ = within_bounds("torchscript", || survive(&whole[..end], false));
    }
}

#[test]
fn every_bit_flipped() {
    for name in ["made_opset18.onnx", "made_subgraphs.onnx", "made_small_types.onnx"] {
        let whole = fixture(name);
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = within_bounds(name, || survive(&bytes, bit % 8 < 2));
        }
    }
}

/// Files are opened, so that they can be looked at; what would be lost may not be rewritten.
#[test]
fn unknown_fields_are_not_rewritten() {
    let mut bytes = fixture("made_opset18.onnx");
    bytes.extend(b"\xfa\x3f\x05hello"); // field 1023, five bytes
    let mut model = Model::from_bytes(bytes.clone().into(), NAME).unwrap();
    let error = model.check().unwrap_err();
    assert!(matches!(error, Error::UnknownFields { .. }), "{error}");
    for part in [NAME, "the model has field 1023", "(8 bytes)"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.onnx");
    model.write(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes, "what was not changed is not lost");
    model.proto_mut().doc_string = Some("changed".into());
    assert!(matches!(model.write(&path.with_extension("b")), Err(Error::UnknownFields { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // In a message within messages, and as many bytes as a packed list saves: lengths tell nothing.
    let unknown = b"\x98\x3f\x01"; // field 1011, a number
    let packed = field(8, &[1, 2, 3, 4, 5]); // five integers in seven bytes, unpacked ten
    let attribute = [field(1, b"axes"), packed, unknown.to_vec(), b"\xa0\x01\x07".to_vec()].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Neg"), field(5, &attribute)].concat();
    let graph = [field(1, &node), field(11, &field(1, b"x")), field(12, &field(1, b"y"))].concat();
    let bytes = [&b"\x08\x08"[..], &field(7, &graph)].concat();
    let model = Model::from_bytes(bytes.clone().into(), NAME).unwrap();
    assert_eq!(model.to_bytes().len(), bytes.len());
    let found = model.unknown_fields().unwrap();
    assert_eq!((found.message.as_str(), found.number), ("graph.node[0].attribute[0]", 1011));
    assert_eq!((found.count, found.bytes), (1, 3));
    // A group of fields is one.
    let mut bytes = fixture("made_opset18.onnx");
    bytes.extend(b"\x93\x3f\x9b\x3f\x08\x01\x9c\x3f\x94\x3f");
    let found = Model::from_bytes(bytes.into(), NAME).unwrap().unknown_fields().cloned().unwrap();
    assert_eq!((found.number, found.count, found.bytes), (1010, 1, 10));
}

#[test]
fn a_varint_that_is_longer_than_it_must_be_is_read() {
    let mut bytes = fixture("made_opset18.onnx");
    assert_eq!(bytes[..2], [0x08, 0x08]);
    let short = Model::from_bytes(bytes.clone().into(), NAME).unwrap();
    bytes.splice(1..2, [0x88, 0x00]);
    let long = Model::from_bytes(bytes.into(), NAME).unwrap();
    assert_eq!((long.proto(), long.unknown_fields()), (short.proto(), None));
}

fn field(tag: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut number in [tag << 3 | 2, content.len() as u64] {
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }
    bytes.extend(content);
    bytes
}

/// Graphs in attributes of nodes in graphs, so many deep.
fn nested(depth: usize) -> Vec<u8> {
    let graph = (0..depth).fold(field(2, b"innermost"), |inner, _| {
        let node = [field(4, b"If"), field(5, &field(6, &inner))].concat();
        field(1, &node)
    });
    [&b"\x08\x08"[..], &field(7, &graph)].concat()
}

#[test]
fn nested_as_deep_as_can_be() {
    for depth in [1, 10, 30, 33] {
        let _ = within_bounds("nested", || survive(&nested(depth), true));
    }
    survive(&nested(30), true).expect("thirty levels are no attack");
    for depth in [40, 2000] {
        let error = refused(&nested(depth));
        assert!(matches!(error, Error::Decode { .. }), "{error}");
    }
    // The same depth in types, groups and functions.
    let types = (0..3000).fold(Vec::new(), |inner, _| field(4, &field(1, &inner)));
    let graph = field(11, &field(2, &types));
    assert!(matches!(refused(&field(7, &graph)), Error::Decode { .. }));
    let groups = vec![0x0b; 1 << 16];
    assert!(matches!(refused(&groups), Error::Decode { .. }));
}

#[test]
fn kept_crashes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/onnx");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "onnx") {
            let bytes = std::fs::read(&path).unwrap();
            let _ = within_bounds(path.to_str().unwrap(), || survive(&bytes, true));
        }
    }
}

// ---------------------------------------------------------------- graphs

fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..Default::default() }
}

fn proto(initializers: Vec<TensorProto>, nodes: Vec<NodeProto>, output: &str) -> ModelProto {
    let graph = GraphProto {
        input: vec![value("x")],
        output: vec![value(output)],
        initializer: initializers,
        node: nodes,
        ..Default::default()
    };
    ModelProto { ir_version: Some(8), graph: Some(graph), ..Default::default() }
}

/// What a model is refused for; the error must name the file and each of `names`.
fn invalid(model: ModelProto, names: &[&str]) {
    let error = within_bounds("invalid", || Model::from_proto(model, NAME)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Invalid { .. }), "{text}");
    for name in names.iter().chain(&[NAME]) {
        assert!(text.contains(name), "{text:?} doesn't name {name}");
    }
}

fn tensor(dtype: DataType, dims: &[i64], raw: Option<Vec<u8>>) -> TensorProto {
    TensorProto {
        name: Some("w".into()),
        dims: dims.to_vec(),
        data_type: Some(dtype as i32),
        raw_data: raw.map(Bytes::from),
        ..Default::default()
    }
}

#[test]
fn tensors_that_lie() {
    use DataType::{Bfloat16, Float, Float6e2m3, Int4, Int64, Uint2};
    let neg = || node("Neg", ["x"], "y").build();
    let raw = |dtype, dims: &[i64], bytes: usize| tensor(dtype, dims, Some(vec![0; bytes]));
    let lies = [
        raw(Float, &[2], 7),
        raw(Float, &[2], 9),
        raw(Float, &[2], 0),
        raw(Float, &[-1], 4),
        raw(Float, &[i64::MIN], 4),
        raw(Float, &[i64::MAX, i64::MAX], 4),
        raw(Float, &[1 << 32, 1 << 32, 0], 4),
        raw(Float, &[1 << 62], 4),
        raw(Int4, &[3], 3),
        raw(Uint2, &[5], 1),
        raw(Float6e2m3, &[4], 4),
        raw(Bfloat16, &[3], 3),
        raw(DataType::String, &[1], 1),
        raw(DataType::String, &[-1], 0),
        tensor(Float, &[2], None),
        TensorProto { float_data: vec![1.0], ..tensor(Float, &[2], None) },
        TensorProto { float_data: vec![1.0; 3], ..tensor(Float, &[2], None) },
        TensorProto { int32_data: vec![1, 2], ..tensor(Float, &[2], None) },
        TensorProto { float_data: vec![1.0; 2], int64_data: vec![1], ..tensor(Float, &[2], None) },
        TensorProto { float_data: vec![1.0; 2], ..raw(Float, &[2], 8) },
        TensorProto { int64_data: vec![1; 3], ..tensor(Int64, &[2], None) },
        TensorProto { int32_data: vec![1; 3], ..tensor(Int4, &[3], None) },
        TensorProto { string_data: vec![Bytes::new(); 3], ..tensor(DataType::String, &[2], None) },
        TensorProto { float_data: vec![1.0; 2], ..tensor(DataType::Complex64, &[2], None) },
    ];
    for lie in lies {
        invalid(proto(vec![lie.clone()], vec![neg()], "y"), &["initializer \"w\""]);
        let mut graph = proto(vec![], vec![neg()], "y");
        let sparse = SparseTensorProto { values: Some(lie.clone()), ..Default::default() };
        graph.graph.as_mut().unwrap().sparse_initializer.push(sparse);
        invalid(graph, &["initializer \"w\""]);
        let constant =
            node("Constant", [""; 0], "y").named("named").attr("value", Attr::Tensor(lie)).build();
        invalid(proto(vec![], vec![constant], "y"), &["tensor \"w\" of node 0 \"named\" (Constant)"]);
    }
    for honest in [
        raw(Float, &[0, 1 << 40], 0),
        raw(Int4, &[3], 2),
        raw(Uint2, &[5], 2),
        raw(Float6e2m3, &[5], 4),
        tensor(Float, &[0], None),
        TensorProto { float_data: vec![1.0; 4], ..tensor(DataType::Complex64, &[2], None) },
    ] {
        let bytes = Model::from_proto(proto(vec![honest], vec![neg()], "y"), NAME).unwrap().to_bytes();
        survive(&bytes, true).unwrap();
    }
}

#[test]
fn graphs_that_lie() {
    let nodes = |list: Vec<(&str, &[&str], &str)>| -> Vec<NodeProto> {
        list.into_iter()
            .map(|(op, inputs, output)| node(op, inputs.iter().copied(), output).build())
            .collect()
    };
    let w = || initializer_f32("w", &[1], &[1.0]);
    let neg = |from: &'static [&'static str], to| ("Neg", from, to);
    invalid(proto(vec![w(), w()], nodes(vec![neg(&["x"], "y")]), "y"), &["\"w\""]);
    let unnamed = initializer_f32("", &[1], &[1.0]);
    invalid(proto(vec![unnamed], nodes(vec![neg(&["x"], "y")]), "y"), &["no name"]);
    invalid(proto(vec![], nodes(vec![neg(&["x"], "x")]), "x"), &["node 0", "Neg", "\"x\""]);
    invalid(proto(vec![w()], nodes(vec![neg(&["x"], "w")]), "w"), &["node 0", "\"w\""]);
    let twice = nodes(vec![neg(&["x"], "y"), neg(&["x"], "y")]);
    invalid(proto(vec![], twice, "y"), &["node 1", "\"y\""]);
    let late = nodes(vec![neg(&["a"], "y"), neg(&["x"], "a")]);
    invalid(proto(vec![], late, "y"), &["node 0", "\"a\"", "node 1"]);
    invalid(proto(vec![], nodes(vec![neg(&["y"], "y")]), "y"), &["node 0", "its own output"]);
    let cycle = nodes(vec![("Add", &["x", "b"], "a"), neg(&["a"], "b")]);
    invalid(proto(vec![], cycle, "b"), &["node 0", "\"b\"", "node 1"]);
    invalid(proto(vec![], nodes(vec![neg(&["nowhere"], "y")]), "y"), &["node 0", "\"nowhere\""]);
    invalid(proto(vec![], nodes(vec![neg(&["x"], "y")]), "z"), &["graph output \"z\""]);
    let mut doubled = proto(vec![], nodes(vec![neg(&["x"], "y")]), "y");
    doubled.graph.as_mut().unwrap().input.push(value("x"));
    invalid(doubled, &["graph input \"x\""]);
    let mut doubled = proto(vec![], nodes(vec![neg(&["x"], "y")]), "y");
    doubled.graph.as_mut().unwrap().output.push(value("y"));
    invalid(doubled, &["graph output \"y\""]);
    invalid(ModelProto::default(), &["no graph"]);

    let inner = GraphProto { output: vec![value("outside")], ..Default::default() };
    let branch = AttributeProto { g: Some(inner), ..Default::default() };
    let choice = node("If", ["x"], "y").named("choice").attribute(branch).build();
    invalid(proto(vec![], vec![choice], "y"), &["\"choice\"", "\"outside\""]);
}

/// Nodes that lack what passes look at, or have it out of range.
#[test]
fn nodes_that_passes_trip_over() {
    let float = |name: &str, dims: &[usize]| {
        initializer_f32(name, dims, &vec![0.5; dims.iter().product::<usize>()])
    };
    let bare = |op: &str, inputs: &[&str], outputs: &[&str]| NodeProto {
        op_type: Some(op.into()),
        input: inputs.iter().map(|&i| i.into()).collect(),
        output: outputs.iter().map(|&o| o.into()).collect(),
        ..Default::default()
    };
    let with = |mut n: NodeProto, name: &str, ints: &[i64]| {
        n.attribute.push(AttributeProto {
            name: Some(name.into()),
            ints: ints.to_vec(),
            i: ints.first().copied(),
            ..Default::default()
        });
        n
    };
    let keep = || node("Neg", ["x"], "y").build();
    let turned =
        |perm: &[i64], from: &str, to: &str| with(bare("Transpose", &[from], &[to]), "perm", perm);
    let mut cases: Vec<Vec<NodeProto>> = Vec::new();
    for op in [
        "Identity", "Transpose", "Concat", "Pad", "Dropout", "Constant", "Conv", "Mul", "Add",
        "MatMul", "Split", "Clip", "Shape", "Reshape", "Unsqueeze", "Squeeze", "Gather", "Cast", "Max",
        "If",
    ] {
        for inputs in [&[][..], &[""], &["x"], &["w"], &["w", "w"], &["", "w"], &["e", "s", "w"]] {
            for outputs in [&[][..], &[""], &["a"], &["", "a"], &["a", "b"]] {
                cases.push(vec![bare(op, inputs, outputs), keep()]);
                for ints in [&[][..], &[0], &[i64::MIN, i64::MAX], &[-1, 1 << 40]] {
                    for name in ["perm", "axis", "to", "value"] {
                        cases.push(vec![with(bare(op, inputs, outputs), name, ints), keep()]);
                    }
                }
            }
        }
    }
    for axis in [i64::MIN, -3, 2, i64::MAX] {
        cases.push(vec![
            turned(&[1, 0], "x", "a"),
            with(bare("Split", &["a"], &["b", "c"]), "axis", &[axis]),
            turned(&[1, 0], "b", "d"),
            turned(&[1, 0], "c", "e2"),
            bare("Add", &["d", "e2"], &["y"]),
        ]);
    }
    // A pair of transposes around nodes without outputs, with outputs left out, with too many inputs.
    for inner in [
        bare("Neg", &["a"], &[]),
        bare("Split", &["a"], &["", "b"]),
        bare("Clip", &["a", "", "s"], &["b"]),
        bare("Max", &["a", "s", "w"], &["b"]),
        bare("Mul", &["a", "text"], &["b"]),
    ] {
        let exists = inner.output.iter().any(|o| o == "b");
        let exit = turned(&[1, 0], if exists { "b" } else { "a" }, "d");
        cases.push(vec![turned(&[1, 0], "x", "a"), inner, exit, bare("Neg", &["d"], &["y"])]);
    }
    let second = with(bare("Transpose", &["x", "a"], &["b"]), "perm", &[1, 0]);
    cases.push(vec![turned(&[1, 0], "x", "a"), second, keep()]);
    let two = with(bare("Transpose", &["x"], &["a", "b"]), "perm", &[1, 0]);
    cases.push(vec![two, turned(&[1, 0], "b", "c"), bare("Neg", &["c"], &["y"])]);
    for shape in ["s", "big", "zero"] {
        cases.push(vec![bare("Reshape", &["w", shape], &["a"]), bare("Add", &["x", "a"], &["y"])]);
        let moved = with(bare("Transpose", &[shape], &["a"]), "perm", &[0, 1]);
        cases.push(vec![moved, bare("Add", &["x", "a"], &["y"])]);
    }
    let moved = with(bare("Transpose", &["hollow"], &["a"]), "perm", &[2, 0, 1]);
    cases.push(vec![moved, bare("Add", &["x", "a"], &["y"])]);
    let joined = with(bare("Concat", &["hollow"; 9], &["a"]), "axis", &[0]);
    cases.push(vec![joined, bare("Add", &["x", "a"], &["y"])]);
    cases.push(vec![
        bare("MatMul", &["x", "flat"], &["a"]),
        bare("Add", &["a", "e"], &["b"]),
        bare("Mul", &["b", "s1"], &["y"]),
    ]);
    for (n_fft, hop, length) in [
        (i64::MAX, 1, 1),
        (1 << 40, 1 << 38, 1 << 40),
        (1 << 20, 1, 1 << 20),
        (8192, 1, 8192),
        (0, 0, 0),
        (i64::MIN, -1, -1),
        (16, i64::MAX, 16),
        (1, 1, 1),
    ] {
        let mut istft = bare("ISTFT", &["x", "x"], &["y"]);
        istft.domain = Some("soprano_export".into());
        for (name, number) in [("n_fft", n_fft), ("hop_length", hop), ("win_length", length)] {
            istft = with(istft, name, &[number]);
        }
        let mut silent = istft.clone();
        silent.output.clear();
        cases.push(vec![istft]);
        cases.push(vec![silent, keep()]);
    }
    for nodes in cases {
        let text = TensorProto {
            string_data: vec![],
            name: Some("text".into()),
            ..tensor(DataType::String, &[0, i64::MAX], None)
        };
        let constants = vec![
            float("w", &[1, 1]),
            float("e", &[0]),
            float("flat", &[1, 0]),
            float("s1", &[1]),
            initializer_i64("s", &[2], &[-1, i64::MIN]),
            initializer_i64("big", &[3], &[1 << 40, 1 << 40, -1]),
            initializer_i64("zero", &[2], &[0, -1]),
            initializer_raw("hollow", DataType::Float, &[1 << 60, 0, 4], Bytes::new()),
            text,
        ];
        let ops: Vec<String> = nodes.iter().map(|n| format!("{}{:?}", n.op_type(), n.input)).collect();
        let Ok(mut model) = Model::from_proto(proto(constants, nodes, "y"), NAME) else { continue };
        within_bounds(&ops.join(" "), || Driver::default().run(&mut model).unwrap());
        model.consistent().unwrap();
    }
}

// ---------------------------------------------------------------- external data

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path("models")).unwrap();
        std::fs::write(folder.path("models/w.data"), [7; 64]).unwrap();
        std::fs::write(folder.path("outside.data"), [9; 64]).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Opens a model whose tensors `w0`, `w1`, … of eight bytes lie where the entries say.
    fn open(&self, tensors: &[&[(&str, &str)]]) -> Result<Model, Error> {
        let tensors = tensors.iter().enumerate().map(|(i, entries)| TensorProto {
            name: Some(format!("w{i}")),
            data_location: Some(1),
            external_data: entries
                .iter()
                .map(|(key, value)| StringStringEntryProto {
                    key: Some((*key).into()),
                    value: Some((*value).into()),
                })
                .collect(),
            ..tensor(DataType::Float, &[2], None)
        });
        let proto = proto(tensors.collect(), vec![node("Neg", ["x"], "y").build()], "y");
        let path = self.path("models/model.onnx");
        std::fs::write(&path, prost::Message::encode_to_vec(&proto)).unwrap();
        within_bounds("external data", || Model::open(&path))
    }

    fn refuses(&self, tensors: &[&[(&str, &str)]], names: &[&str]) {
        let error = self.open(tensors).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::External { .. }), "{text}");
        for name in names.iter().chain(&["model.onnx", "\"w"]) {
            assert!(text.contains(name), "{text:?} doesn't say {name:?}");
        }
    }
}

#[test]
fn external_data_stays_in_the_folder() {
    let folder = Folder::new();
    assert_eq!(
        folder.open(&[&[("location", "w.data")]]).unwrap().graph_proto().initializer[0].raw_data,
        Some(Bytes::from(vec![7; 8]))
    );
    let outside = folder.path("outside.data");
    for location in [
        outside.to_str().unwrap(),
        "/dev/zero",
        "/etc/hostname",
        "../outside.data",
        "./../outside.data",
        "sub/../../outside.data",
        "..",
        ".",
        "",
    ] {
        folder.refuses(&[&[("location", location)]], &["leads out of"]);
    }
    // A dot is the folder itself.
    std::fs::create_dir(folder.path("models/sub")).unwrap();
    std::fs::copy(folder.path("models/w.data"), folder.path("models/sub/w.data")).unwrap();
    for location in ["./w.data", "././w.data", "sub/./w.data", "./sub//w.data"] {
        folder.open(&[&[("location", location)]]).unwrap();
    }
    folder.refuses(&[&[("location", "absent.data")]], &["absent.data"]);
    folder.refuses(&[&[("location", "nul\0.data")]], &["nul"]);
    folder.refuses(&[&[]], &["no location"]);
}

/// A hub's cache: every file of a revision is a link to where its content is.
#[cfg(unix)]
#[test]
fn external_data_may_lie_where_the_model_really_is() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    for name in ["hub/blobs", "hub/snapshots/1/onnx"] {
        std::fs::create_dir_all(folder.path(name)).unwrap();
    }
    folder.open(&[&[("location", "model.onnx.data")]]).unwrap_err();
    std::fs::rename(folder.path("models/model.onnx"), folder.path("hub/blobs/aa")).unwrap();
    std::fs::write(folder.path("hub/blobs/bb"), [5; 64]).unwrap();
    let model = folder.path("hub/snapshots/1/onnx/model.onnx");
    symlink("../../../blobs/aa", &model).unwrap();
    let data = folder.path("hub/snapshots/1/onnx/model.onnx.data");
    symlink("../../../blobs/bb", &data).unwrap();
    let opened = Model::open(&model).unwrap();
    assert_eq!(opened.graph_proto().initializer[0].raw_data, Some(Bytes::from(vec![5; 8])));
    // A link that leads into neither folder is refused.
    std::fs::remove_file(&data).unwrap();
    symlink(folder.path("outside.data"), &data).unwrap();
    let error = Model::open(&model).unwrap_err();
    assert!(error.to_string().contains("a link out of the model's folder"), "{error}");
    // One link to a model whose data lies beside it, under its own name.
    std::fs::write(folder.path("hub/blobs/model.onnx.data"), [6; 64]).unwrap();
    symlink("hub/blobs/aa", folder.path("linked.onnx")).unwrap();
    let opened = Model::open(folder.path("linked.onnx")).unwrap();
    assert_eq!(opened.graph_proto().initializer[0].raw_data, Some(Bytes::from(vec![6; 8])));
}

#[cfg(unix)]
#[test]
fn external_data_is_a_plain_file() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    symlink(folder.path("outside.data"), folder.path("models/link.data")).unwrap();
    symlink("../outside.data", folder.path("models/relative.data")).unwrap();
    symlink("/dev/zero", folder.path("models/zero.data")).unwrap();
    symlink("loop.data", folder.path("models/loop.data")).unwrap();
    symlink("..", folder.path("models/up")).unwrap();
    std::fs::create_dir(folder.path("models/folder.data")).unwrap();
    make_pipe(&folder.path("models/pipe.data"));
    for location in [
        "link.data",
        "relative.data",
        "zero.data",
        "loop.data",
        "up/outside.data",
        "folder.data",
        "pipe.data",
    ] {
        folder.refuses(&[&[("location", location)]], &[location]);
    }
    symlink("w.data", folder.path("models/inside.data")).unwrap();
    folder.open(&[&[("location", "inside.data")]]).expect("a link inside the folder is fine");
}

#[test]
fn external_ranges_fit() {
    let folder = Folder::new();
    let at = |offset: &'static str, length: &'static str| {
        [("location", "w.data"), ("offset", offset), ("length", length)]
    };
    for (offset, length, says) in [
        ("57", "8", "57..65"),
        ("64", "8", "64..72"),
        ("0", "7", "length is 7"),
        ("0", "64", "length is 64"),
        ("0", "-8", "length is"),
        ("0", "18446744073709551615", "length is 18446744073709551615"),
        ("0", "18446744073709551616", "length is"),
        ("18446744073709551615", "8", "18446744073709551615.."),
        ("18446744073709551608", "8", "18446744073709551608.."),
        ("9223372036854775807", "8", "9223372036854775807.."),
        ("1e3", "8", "offset is"),
        ("", "8", "offset is"),
    ] {
        folder.refuses(&[&at(offset, length)], &[says]);
    }
    folder.refuses(&[&at("0", "8"), &at("4", "8")], &["overlaps", "w0", "w1"]);
    folder.refuses(&[&at("8", "8"), &at("0", "8"), &at("15", "8")], &["overlaps"]);
    folder.open(&[&at("0", "8"), &at("8", "8"), &at("56", "8")]).expect("side by side");
    folder.open(&[&at("8", "8"), &at("8", "8")]).expect("one range, shared whole");
    // An empty file, and one past the model's own bytes.
    std::fs::write(folder.path("models/empty.data"), b"").unwrap();
    folder.refuses(&[&[("location", "empty.data")]], &["0..8", "which has 0"]);
}

#[test]
fn external_data_is_found_wherever_a_tensor_stands() {
    let folder = Folder::new();
    let outside = TensorProto {
        data_location: Some(1),
        external_data: vec![StringStringEntryProto {
            key: Some("location".into()),
            value: Some("../outside.data".into()),
        }],
        ..tensor(DataType::Float, &[2], None)
    };
    let neg = || node("Neg", ["x"], "y").build();
    let holder = |attribute: AttributeProto| {
        let constant = node("Constant", [""; 0], "c").named("holder").attribute(attribute).build();
        proto(vec![], vec![constant, neg()], "y")
    };
    let sparse = || SparseTensorProto { values: Some(outside.clone()), ..Default::default() };
    let mut in_sparse = proto(vec![], vec![neg()], "y");
    in_sparse.graph.as_mut().unwrap().sparse_initializer.push(sparse());
    let inner = GraphProto { initializer: vec![outside.clone()], ..Default::default() };
    let models = [
        in_sparse,
        holder(AttributeProto { t: Some(outside.clone()), ..Default::default() }),
        holder(AttributeProto { tensors: vec![outside.clone()], ..Default::default() }),
        holder(AttributeProto { sparse_tensor: Some(sparse()), ..Default::default() }),
        holder(AttributeProto { g: Some(inner), ..Default::default() }),
    ];
    for model in models {
        let path = folder.path("models/model.onnx");
        std::fs::write(&path, prost::Message::encode_to_vec(&model)).unwrap();
        let error = Model::open(&path).unwrap_err();
        assert!(matches!(error, Error::External { .. }), "{error}");
        assert!(error.to_string().contains("\"w\""), "{error}");
    }
}

// ---------------------------------------------------------------- properties

const OPS: &[&str] = &[
    "Identity",
    "Transpose",
    "Concat",
    "Pad",
    "Dropout",
    "Constant",
    "Conv",
    "Mul",
    "Add",
    "MatMul",
    "Split",
    "Clip",
    "Shape",
    "Reshape",
    "Unsqueeze",
    "Squeeze",
    "Gather",
    "Cast",
    "Max",
    "Neg",
    "Div",
    "Sub",
    "RandomNormalLike",
    "ISTFT",
];

const ATTRIBUTES: &[&str] = &[
    "perm", "axis", "to", "value_ints", "value_int", "group", "pads", "strides", "num_outputs",
    "n_fft", "hop_length", "win_length", "alpha",
];

#[derive(Clone, Debug)]
struct NodePlan {
    op: usize,
    inputs: Vec<prop::sample::Index>,
    outputs: Vec<bool>,
    attributes: Vec<(usize, Vec<i64>)>,
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![6 => -3i64..5, 1 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX)]
}

fn node_plan() -> impl Strategy<Value = NodePlan> {
    (
        0..OPS.len(),
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        prop::collection::vec(prop::bool::weighted(0.9), 0..3),
        prop::collection::vec((0..ATTRIBUTES.len(), prop::collection::vec(number(), 0..4)), 0..3),
    )
        .prop_map(|(op, inputs, outputs, attributes)| NodePlan { op, inputs, outputs, attributes })
}

fn constant() -> impl Strategy<Value = TensorProto> {
    (any::<bool>(), prop::collection::vec(0usize..4, 0..4), prop::collection::vec(number(), 1..5))
        .prop_map(|(float, dims, numbers)| {
            let values: Vec<i64> =
                numbers.iter().copied().cycle().take(dims.iter().product()).collect();
            match float {
                true => {
                    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                    initializer_f32("", &dims, &values)
                }
                false => initializer_i64("", &dims, &values),
            }
        })
}

/// A graph that is consistent, and otherwise anything.
fn any_model() -> impl Strategy<Value = Model> {
    (
        prop::collection::vec(constant(), 0..5),
        prop::collection::vec(node_plan(), 1..14),
        prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    )
        .prop_map(|(constants, plans, outputs)| {
            let mut names = vec!["x".to_owned(), String::new()];
            let mut graph = TestGraph::new().input("x", &["n", "2"]);
            for (i, mut tensor) in constants.into_iter().enumerate() {
                tensor.name = Some(format!("c{i}"));
                names.push(format!("c{i}"));
                graph = graph.initializer(tensor);
            }
            let mut nodes = Vec::new();
            for (i, plan) in plans.into_iter().enumerate() {
                let inputs =
                    plan.inputs.iter().map(|at| names[at.index(names.len())].clone()).collect();
                let output: Vec<String> = plan
                    .outputs
                    .iter()
                    .enumerate()
                    .map(|(k, &exists)| if exists { format!("v{i}_{k}") } else { String::new() })
                    .collect();
                names.extend(output.iter().filter(|o| !o.is_empty()).cloned());
                let placeholder = OPS[plan.op] == "ISTFT";
                nodes.push(NodeProto {
                    op_type: Some(OPS[plan.op].into()),
                    domain: placeholder.then(|| "soprano_export".into()),
                    input: inputs,
                    output,
                    attribute: plan
                        .attributes
                        .into_iter()
                        .map(|(name, ints)| AttributeProto {
                            name: Some(ATTRIBUTES[name].into()),
                            i: ints.first().copied(),
                            ints,
                            ..Default::default()
                        })
                        .collect(),
                    ..Default::default()
                });
            }
            let outputs: BTreeSet<String> = outputs
                .iter()
                .map(|at| names[at.index(names.len())].clone())
                .filter(|name| !name.is_empty())
                .collect();
            let mut proto = graph.model().proto().clone();
            let graph = proto.graph.as_mut().unwrap();
            graph.node = nodes;
            graph.output = outputs.iter().map(|name| value(name)).collect();
            Model::from_proto(proto, NAME).expect("consistent")
        })
}

#[derive(Clone, Debug)]
enum Edit {
    Remove(usize),
    Insert(Vec<prop::sample::Index>, prop::sample::Index),
    Constant(prop::sample::Index, i64),
    Redirect(prop::sample::Index, prop::sample::Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0usize..16).prop_map(Edit::Remove),
        3 => (prop::collection::vec(name(), 0..3), name()).prop_map(|(i, o)| Edit::Insert(i, o)),
        1 => (name(), -1i64..3).prop_map(|(n, d)| Edit::Constant(n, d)),
        3 => (name(), name()).prop_map(|(a, b)| Edit::Redirect(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = survive(&bytes, false);
    }

    #[test]
    fn any_mutation(
        which in 0usize..5,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of((any::<prop::sample::Index>(), 0usize..40)),
        tract in prop::bool::weighted(0.1),
    ) {
        let mut bytes = fixture([
            "torchscript_opset17.onnx", "dynamo_opset18.onnx", "onnxruntime_dynamic_conv.onnx",
            "made_functions_metadata.onnx", "made_typed_fields.onnx",
        ][which]);
        for (at, to) in flips {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Some((at, length)) = cut {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.drain(at..end);
        }
        let _ = within_bounds("a mutation", || survive(&bytes, tract));
    }

    #[test]
    fn any_graph_survives_the_passes(mut model in any_model(), tract in prop::bool::weighted(0.1)) {
        let outputs = model.graph_proto().output.clone();
        within_bounds("a graph", || Driver::default().run(&mut model).unwrap());
        model.consistent().unwrap();
        prop_assert_eq!(&model.graph_proto().output, &outputs);
        if tract {
            let _ = within_bounds("tract", || Tract.load_bytes(&model.to_bytes()));
        }
    }

    #[test]
    fn a_patch_applies_or_changes_nothing(
        mut model in any_model(),
        at in 0usize..16,
        edits in prop::collection::vec(edit(), 0..6),
    ) {
        let graph = model.graph_proto();
        let mut names: Vec<String> = ["new", "newer", "", "x"].map(str::to_owned).to_vec();
        names.extend(graph.initializer.iter().map(|t| t.name().to_owned()));
        names.extend(graph.node.iter().flat_map(|n| n.output.iter().cloned()));
        let name = |at: &prop::sample::Index| names[at.index(names.len())].clone();
        let mut patch = Patch::at(NodeId(at));
        for edit in &edits {
            match edit {
                Edit::Remove(at) => patch = patch.remove(NodeId(*at)),
                Edit::Insert(inputs, output) => {
                    patch.insert(node("Sum", inputs.iter().map(name), name(output)));
                }
                Edit::Constant(at, dim) => patch.initializer(TensorProto {
                    name: Some(name(at)),
                    ..tensor(DataType::Float, &[*dim], Some(vec![0; 4]))
                }),
                Edit::Redirect(old, new) => patch = patch.redirect(name(old), name(new)),
            }
        }
        let before = model.to_bytes();
        match model.apply(patch, "random") {
            Ok(()) => model.consistent().unwrap(),
            Err(_) => prop_assert!(model.to_bytes() == before),
        }
    }
}

#[test]
fn a_patch_that_makes_a_cycle_is_refused() {
    let mut model = TestGraph::new()
        .input("x", &["n"])
        .node(node("Neg", ["x"], "a"))
        .node(node("Abs", ["a"], "b"))
        .node(node("Exp", ["b"], "y"))
        .output("y", &["n"])
        .model();
    let before = model.to_bytes();
    let patch = Patch::at(NodeId(0)).redirect("x", "b");
    assert!(matches!(model.apply(patch, "t"), Err(Unsafe::Inconsistent(_))));
    assert!(model.to_bytes() == before);
    // The same node, moved behind what it comes to use, is none.
    let mut late = Patch::at(NodeId(0));
    late.insert(node("Sin", ["b"], "c"));
    model.apply(late.redirect("nothing", "c"), "t").unwrap();
    model.consistent().unwrap();
    let ops: Vec<&str> = model.graph_proto().node.iter().map(|n| n.op_type()).collect();
    assert_eq!(ops, ["Neg", "Abs", "Sin", "Exp"]);
}
