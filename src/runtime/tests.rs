//! The runtimes through their one trait: ports, shapes, files that are not what they should be.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::export::Python;
use crate::ir::{Model, TestGraph, initializer_f32, node};
use crate::tensor::Tensor;

/// Where the tree's own environment has libraries.
fn places() -> Places {
    let python = Python::find(None, "soprano", Path::new("/nowhere"));
    Places { folders: python.map(|p| p.site_packages()).unwrap_or_default(), ..Places::default() }
}

fn skipped(test: &str, runtime: &str) {
    // libtest captures what goes through `eprintln!`.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no {runtime}; run make setup");
}

/// Every runtime that is here, in its own options.
fn runtimes(test: &str, options: Options) -> Vec<Box<dyn Runtime>> {
    let places = places();
    let find = |engine: &&dyn Engine| {
        let found = engine.find(&places, options).ok();
        if found.is_none() {
            skipped(test, engine.about());
        }
        found
    };
    ALL.iter().filter_map(find).collect()
}

/// Two inputs and two outputs whose names are not in alphabetical order.
fn two_of_each() -> Model {
    TestGraph::new()
        .input("z", &["n", "2"])
        .input("a", &["n", "2"])
        .node(node("Sub", ["z", "a"], "second"))
        .node(node("Mul", ["z", "a"], "first"))
        .output("second", &["n", "2"])
        .output("first", &["n", "2"])
        .model()
}

fn fed(z: &[f32], a: &[f32]) -> Tensors {
    let tensor = |values: &[f32]| Tensor::from_f32(&[values.len() / 2, 2], values);
    [("z".to_owned(), tensor(z)), ("a".to_owned(), tensor(a))].into()
}

#[test]
fn ports_stand_in_the_models_order_and_are_fed_by_name() {
    for runtime in runtimes("ports_stand_in_the_models_order_and_are_fed_by_name", Options::EXACT) {
        let name = runtime.name();
        let session = runtime.load_bytes(&two_of_each().to_bytes()).unwrap();
        assert_eq!(session.inputs(), ["z", "a"], "{name}");
        assert_eq!(session.outputs(), ["second", "first"], "{name}");
        for rows in 1..4 {
            let (z, a) = (vec![5.0; 2 * rows], vec![3.0; 2 * rows]);
            let outputs = session.run(&fed(&z, &a)).unwrap();
            assert_eq!(outputs["second"].shape(), [rows, 2], "{name}");
            assert_eq!(outputs["second"].to_f32().unwrap(), vec![2.0; 2 * rows], "{name}");
            assert_eq!(outputs["first"].to_f32().unwrap(), vec![15.0; 2 * rows], "{name}");
        }
        assert!(session.seconds(&fed(&[1.0; 2], &[1.0; 2])).unwrap() >= 0.0);
    }
}

#[test]
fn inputs_that_are_missing_unknown_or_of_another_shape_are_errors() {
    let test = "inputs_that_are_missing_unknown_or_of_another_shape_are_errors";
    for runtime in runtimes(test, Options::EXACT) {
        let session = runtime.load_bytes(&two_of_each().to_bytes()).unwrap();
        let whole = fed(&[1.0; 2], &[1.0; 2]);
        let mut less = whole.clone();
        less.remove("a");
        assert!(matches!(session.run(&less), Err(Error::MissingInput { name }) if name == "a"));
        let mut more = whole.clone();
        more.insert("b".to_owned(), whole["a"].clone());
        assert!(matches!(session.run(&more), Err(Error::UnknownInput { name, .. }) if name == "b"));
        let mut other = whole.clone();
        other.insert("a".to_owned(), Tensor::from_f32(&[1, 3], &[1.0; 3]));
        assert!(matches!(session.run(&other), Err(Error::Run { .. })), "{}", runtime.name());
        other.insert("a".to_owned(), Tensor::from_i64(&[1, 2], &[1, 2]));
        assert!(matches!(session.run(&other), Err(Error::Run { .. })), "{}", runtime.name());
        session.run(&whole).unwrap();
    }
}

#[test]
fn a_past_of_length_0_is_an_input_like_any_other() {
    let model = TestGraph::new()
        .input("past", &["1", "past", "2"])
        .input("x", &["1", "n", "2"])
        .node(node("Concat", ["past", "x"], "present").int("axis", 1))
        .output("present", &["1", "past + n", "2"])
        .model();
    for runtime in runtimes("a_past_of_length_0_is_an_input_like_any_other", Options::EXACT) {
        let session = runtime.load_bytes(&model.to_bytes()).unwrap();
        for past in [0, 2, 0] {
            let inputs: Tensors = [
                ("past".to_owned(), Tensor::from_f32(&[1, past, 2], &vec![7.0; 2 * past])),
                ("x".to_owned(), Tensor::from_f32(&[1, 1, 2], &[1.0, 2.0])),
            ]
            .into();
            let present = &session.run(&inputs).unwrap()["present"];
            let name = runtime.name();
            assert_eq!(present.shape(), [1, past + 1, 2], "{name}");
            assert_eq!(present.to_f32().unwrap()[2 * past..], [1.0, 2.0], "{name}");
        }
    }
}

#[test]
fn every_option_leaves_the_numbers_alone() {
    let model = TestGraph::new()
        .input("x", &["n", "2"])
        .initializer(initializer_f32("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0]))
        .node(node("MatMul", ["x", "w"], "m"))
        .node(node("Relu", ["m"], "y"))
        .output("y", &["n", "2"])
        .model();
    let inputs: Tensors = [("x".to_owned(), Tensor::from_f32(&[1, 2], &[1.0, -1.0]))].into();
    let all = [
        Options::EXACT,
        Options::fast(1),
        Options::fast(2),
        Options { threads_between: 2, ..Options::EXACT.with_threads(2) },
        Options { optimization: Optimization::None, ..Options::EXACT },
        Options { optimization: Optimization::Basic, ..Options::EXACT },
        Options { hint: Hint::Throughput, streams: Some(1), pinning: Some(false), ..Options::EXACT },
    ];
    for options in all {
        for runtime in runtimes("every_option_leaves_the_numbers_alone", options) {
            let outputs = runtime.load_bytes(&model.to_bytes()).unwrap().run(&inputs).unwrap();
            assert_eq!(outputs["y"].to_f32().unwrap(), [0.0, 0.0], "{} {options:?}", runtime.name());
        }
    }
}

#[test]
fn what_is_no_model_is_an_error() {
    for runtime in runtimes("what_is_no_model_is_an_error", Options::EXACT) {
        for bytes in [&b"no model at all"[..], b"", b"<net></net>"] {
            let outcome = runtime.load_bytes(bytes);
            assert!(matches!(outcome, Err(Error::Load { .. })), "{}", runtime.name());
        }
        let nowhere = runtime.load(Path::new("/nowhere/m.onnx"));
        assert!(matches!(nowhere, Err(Error::Io { .. })), "{}", runtime.name());
    }
}

#[test]
fn a_library_that_is_none_is_told_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let letter = folder.path().join("libletter.so");
    std::fs::write(&letter, "a letter").unwrap();
    let nowhere = folder.path().join("libnowhere.so");
    for (path, words) in [(&letter, "it is not a shared library"), (&nowhere, "no such file")] {
        for engine in ALL.iter().filter(|engine| engine.library().is_some()) {
            let named = [(engine.name().to_owned(), path.clone())].into();
            let places = Places { named, ..Places::default() };
            let error = engine.find(&places, Options::EXACT).map(drop).unwrap_err();
            let (error, path) = (error.to_string(), path.to_str().unwrap());
            assert!(error.contains(words) && error.contains(path), "{error}");
        }
    }
    // A version in its name is believed until it is loaded.
    let named = folder.path().join("libonnxruntime.so.1.31.1");
    std::fs::write(&named, "a letter").unwrap();
    let places = Places { named: [("onnxruntime".to_owned(), named)].into(), ..Places::default() };
    let found = super::named("onnxruntime").unwrap().find(&places, Options::EXACT).unwrap();
    assert_eq!(found.name_and_version(), "onnxruntime 1.31.1");
}

/// `y = x + w` as OpenVINO writes it, with its weights next to it.
fn written(folder: &Path, weights: &[f32]) -> PathBuf {
    let graph = include_str!("add.xml");
    let path = folder.join("add.xml");
    std::fs::write(&path, graph).unwrap();
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(path.with_extension("bin"), bytes).unwrap();
    path
}

#[test]
fn openvinos_own_files_need_their_own_weights() {
    let test = "openvinos_own_files_need_their_own_weights";
    let Ok(openvino) = named("openvino").unwrap().find(&places(), Options::EXACT) else {
        return skipped(test, "OpenVINO");
    };
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), &[0.0, 1.0, 2.0, 3.0]);
    assert!(openvino.runs(Format::of(&path)) && !Tract.runs(Format::of(&path)));
    let session = openvino.load(&path).unwrap();
    assert_eq!((session.inputs(), session.outputs()), (&["x".to_owned()][..], &["y".to_owned()][..]));
    let inputs: Tensors = [("x".to_owned(), Tensor::from_f32(&[1, 4], &[1.0; 4]))].into();
    assert_eq!(session.run(&inputs).unwrap()["y"].to_f32().unwrap(), [1.0, 2.0, 3.0, 4.0]);

    let error = |outcome: Result<Box<dyn Session>, Error>| outcome.map(drop).unwrap_err().to_string();
    for other in [&[0.0; 3][..], &[0.0; 5], &[]] {
        let path = written(folder.path(), other);
        let words = error(openvino.load(&path));
        assert!(words.contains("add.bin") && words.contains("another graph"), "{words}");
    }
    std::fs::remove_file(path.with_extension("bin")).unwrap();
    assert!(error(openvino.load(&path)).contains("add.bin"));
    std::fs::write(&path, "<net").unwrap();
    std::fs::write(path.with_extension("bin"), "").unwrap();
    assert!(error(openvino.load(&path)).contains("not XML"));
    // Whole by its weights, and yet no graph: OpenVINO's own words.
    let path = written(folder.path(), &[0.0; 4]);
    std::fs::write(&path, include_str!("add.xml").replace("type=\"Add\"", "type=\"Nonsense\""))
        .unwrap();
    assert!(error(openvino.load(&path)).contains("Nonsense"));
}

/// A conversation of each of two speakers that take turns, in one session; each hears what it hears alone.
fn interleaved(session: &dyn Session, carried: &[(String, String)], first: &Tensors, name: &str) {
    let x = |value: f32| ("x".to_owned(), Tensor::from_f32(&[1, 4], &[value; 4]));
    let output = |values: &[f32], conversation: &mut dyn Conversation, at: usize| {
        let mut inputs: Tensors = [x(values[at])].into();
        if at == 0 {
            inputs.extend(first.clone());
        }
        conversation.run(&inputs).unwrap()["y"].to_f32().unwrap()
    };
    let says = [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]];
    let alone = says.map(|values| {
        let mut conversation = session.begin(carried).unwrap();
        [0, 1, 2].map(|at| output(&values, conversation.as_mut(), at))
    });
    let mut both = [session.begin(carried).unwrap(), session.begin(carried).unwrap()];
    for at in [0, 1, 2] {
        for (who, conversation) in both.iter_mut().enumerate() {
            assert_eq!(output(&says[who], conversation.as_mut(), at), alone[who][at], "{name}");
        }
    }
    assert_eq!(alone[1][2], [60.0; 4], "{name}");
}

#[test]
fn two_conversations_in_one_session_know_nothing_of_each_other() {
    let test = "two_conversations_in_one_session_know_nothing_of_each_other";
    let sum = TestGraph::new()
        .input("past", &["1", "4"])
        .input("x", &["1", "4"])
        .node(node("Add", ["past", "x"], "present"))
        .node(node("Identity", ["present"], "y"))
        .output("present", &["1", "4"])
        .output("y", &["1", "4"])
        .model();
    let first: Tensors = [("past".to_owned(), Tensor::from_f32(&[1, 4], &[0.0; 4]))].into();
    let carried = [("present".to_owned(), "past".to_owned())];
    for runtime in runtimes(test, Options::EXACT) {
        let session = runtime.load_bytes(&sum.to_bytes()).unwrap();
        interleaved(session.as_ref(), &carried, &first, runtime.name());
    }
    // The same as OpenVINO writes it for a model that keeps its sum itself.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sum.xml");
    std::fs::write(&path, include_str!("sum.xml")).unwrap();
    std::fs::write(path.with_extension("bin"), [0; 16]).unwrap();
    for runtime in runtimes(test, Options::EXACT).iter().filter(|r| r.runs(Format::OpenVino)) {
        let session = runtime.load(&path).unwrap();
        interleaved(session.as_ref(), &[], &Tensors::new(), "the state of a model");
        let inputs: Tensors = [("x".to_owned(), Tensor::from_f32(&[1, 4], &[5.0; 4]))].into();
        for _ in 0..2 {
            assert_eq!(session.run(&inputs).unwrap()["y"].to_f32().unwrap(), [5.0; 4]);
        }
    }
}
