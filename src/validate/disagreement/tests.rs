use super::*;
use crate::ir::proto::type_proto::Value;
use crate::ir::{Attr, TestGraph, initializer_f32, initializer_i64, node};
use crate::runtime::{Conversation, Engine, Session, Tract};

const LIMITS: Limits = Limits { snr_db: 60.0, max_abs_of_peak: 1e-3 };

/// tract, but for one named value that it gets wrong wherever it is an output.
struct Faulty(&'static str);
struct FaultySession(Box<dyn Session>, &'static str);

impl Runtime for Faulty {
    fn engine(&self) -> &'static dyn Engine {
        Tract.engine()
    }
    fn name_and_version(&self) -> String {
        "faulty 1".into()
    }
    fn load_bytes(&self, model: &[u8]) -> Result<Box<dyn Session>, crate::runtime::Error> {
        Ok(Box::new(FaultySession(Tract.load_bytes(model)?, self.0)))
    }
}

impl Session for FaultySession {
    fn inputs(&self) -> &[String] {
        self.0.inputs()
    }
    fn outputs(&self) -> &[String] {
        self.0.outputs()
    }
    fn run(&self, inputs: &Tensors) -> Result<Tensors, crate::runtime::Error> {
        let mut outputs = self.0.run(inputs)?;
        if let Some(wrong) = outputs.get_mut(self.1) {
            let values: Vec<f32> = wrong.to_f32().unwrap().iter().map(|v| v + 0.01).collect();
            *wrong = Tensor::from_f32(wrong.shape(), &values);
        }
        Ok(outputs)
    }
    fn begin(
        &self,
        carried: &[(String, String)],
    ) -> Result<Box<dyn Conversation + '_>, crate::runtime::Error> {
        self.0.begin(carried)
    }
}

fn chain() -> Model {
    TestGraph::new()
        .input("x", &["n", "2"])
        .initializer(initializer_f32("w", &[2], &[2.0, 3.0]))
        .node(node("Mul", ["x", "w"], "a").named("scale"))
        .node(node("Relu", ["a"], "b").named("rectify"))
        .node(node("Add", ["b", "w"], "y").named("shift"))
        .output("y", &["n", "2"])
        .model()
}

fn inputs() -> Tensors {
    [("x".to_owned(), Tensor::from_f32(&[2, 2], &[1.0, -1.0, 0.5, 2.0]))].into()
}

fn compare(old: Side<'_>, new: Side<'_>) -> Comparison {
    first_disagreement([old, new], &inputs(), LIMITS, &AtomicBool::new(false), &|_, _| {}).unwrap()
}

#[test]
fn the_first_value_that_differs_is_named() {
    let model = chain();
    let exact = Side { model: &model, runtime: &Tract };
    let same = compare(exact, exact);
    assert!(same.first.is_none() && same.compared == 3 && same.not_shown.is_empty());
    let found = compare(exact, Side { model: &model, runtime: &Faulty("b") });
    let first = found.first.unwrap();
    assert_eq!((first.place.node.as_str(), first.place.value.as_deref()), ("rectify", Some("b")));
    assert_eq!(first.place.last_agreeing.as_deref(), Some("scale"));
    assert!(!first.only_when_whole && first.snr_db.unwrap() < 60.0);
    let wider = Limits { snr_db: 20.0, max_abs_of_peak: 0.1 };
    let sides = [exact, Side { model: &model, runtime: &Faulty("b") }];
    let go = AtomicBool::new(false);
    let found = first_disagreement(sides, &inputs(), wider, &go, &|_, _| {}).unwrap();
    assert!(found.first.is_none() && found.furthest.unwrap().0 == "b");
}

#[test]
fn two_models_are_compared_where_their_names_meet() {
    let old = chain();
    let new = TestGraph::new()
        .input("x", &["n", "2"])
        .initializer(initializer_f32("w", &[2], &[2.0, 3.5]))
        .node(node("Mul", ["x", "w"], "other").named("scale"))
        .node(node("Relu", ["other"], "b").named("rectify"))
        .node(node("Add", ["b", "w"], "y").named("shift"))
        .output("y", &["n", "2"])
        .model();
    let [a, b] = [&old, &new].map(|model| Side { model, runtime: &Tract });
    let first = compare(a, b).first.unwrap();
    assert_eq!((first.place.node.as_str(), first.place.last_agreeing), ("rectify", None));
    let apart = TestGraph::new()
        .input("x", &["n", "2"])
        .node(node("Relu", ["x"], "z"))
        .output("z", &["n", "2"])
        .model();
    let sides = [a, Side { model: &apart, runtime: &Tract }];
    let error = first_disagreement(sides, &inputs(), LIMITS, &AtomicBool::new(false), &|_, _| {});
    assert!(matches!(error, Err(Error::NothingToMeasure(_))));
}

/// The sum of x and a constant, cast to a type; declared where the type's name is given.
fn cast_to(code: i64, declared: bool) -> Model {
    let model = TestGraph::new()
        .input("x", &["n", "2"])
        .node(node("Cast", ["x"], "y").named("").attr("to", Attr::Int(code)))
        .output("y", &["n", "2"])
        .model();
    let mut proto = model.proto().clone();
    let output = &mut proto.graph.as_mut().unwrap().output[0];
    match (declared, output.r#type.as_mut().and_then(|of| of.value.as_mut())) {
        (true, Some(Value::TensorType(tensor))) => tensor.elem_type = Some(code as i32),
        _ => output.r#type = None,
    }
    Model::from_proto(proto, "m.onnx").unwrap()
}

#[test]
fn types_that_differ_are_a_difference_of_two_models_outputs() {
    let types = |old: i64, new: i64, declared: bool| {
        let [old, new] = [old, new].map(|code| cast_to(code, declared));
        let [a, b] = [&old, &new].map(|model| Side { model, runtime: &Tract });
        compare(a, b).first.map(|first| (first.place.node, first.types))
    };
    for declared in [true, false] {
        let differs = |a: &str, b: &str| Some(("y".to_owned(), Some((a.to_owned(), b.to_owned()))));
        assert_eq!(types(1, 11, declared), differs("f32", "f64"));
        assert_eq!(types(7, 6, declared), differs("i64", "i32"));
        assert_eq!(types(11, 11, declared), None);
    }
}

#[test]
fn whole_numbers_are_equal_or_they_differ() {
    let constant = |value: i64| {
        TestGraph::new()
            .input("x", &["n", "2"])
            .node(node("Identity", ["x"], "z"))
            .initializer(initializer_i64("c", &[1], &[value]))
            .node(node("Identity", ["c"], "y").named("whole"))
            .output("y", &["1"])
            .output("z", &["n", "2"])
            .model()
    };
    let compared = |old: i64, new: i64| {
        let (old, new) = (constant(old), constant(new));
        let [a, b] = [&old, &new].map(|model| Side { model, runtime: &Tract });
        compare(a, b).first
    };
    for (old, new) in [(1 << 62, (1 << 62) + 1), (100_000, 100_001), (i64::MIN, i64::MAX), (0, 1)] {
        assert!(compared(old, old).is_none() && compared(new, new).is_none());
        let first = compared(old, new).unwrap();
        assert_eq!(first.place.node, "whole");
        assert!(first.place.max_abs_of_peak.unwrap() > 0.0, "{old} {new}");
    }
}

#[test]
fn outputs_of_one_model_alone_are_told() {
    let more = |output: &str| {
        let proto = chain().proto().clone();
        let mut proto = proto;
        let graph = proto.graph.as_mut().unwrap();
        graph.output.push(crate::ir::value_f32(output, &["n", "2"]));
        Model::from_proto(proto, "m.onnx").unwrap()
    };
    let (plain, old, new) = (chain(), more("a"), more("b"));
    let side = |model| Side { model, runtime: &Tract };
    let found = compare(side(&old), side(&new));
    assert_eq!(
        (&found.only_old[..], &found.only_new[..]),
        (&["a".to_owned()][..], &["b".to_owned()][..])
    );
    assert!(found.first.is_none() && !found.agrees());
    assert!(compare(side(&plain), side(&new)).agrees(), "a model may give more");
    assert!(!compare(side(&new), side(&plain)).agrees(), "and not less");
    assert!(compare(side(&new), side(&new)).agrees());
}

#[test]
fn a_shape_that_differs_is_a_difference_of_outputs() {
    let flat = |axis: i64| {
        TestGraph::new()
            .input("x", &["n", "2"])
            .node(node("Softmax", ["x"], "s").attr("axis", Attr::Int(1)))
            .node(node("Flatten", ["s"], "y").named("flatten").attr("axis", Attr::Int(axis)))
            .output("y", &["a", "b"])
            .model()
    };
    let (old, new) = (flat(1), flat(0));
    let [a, b] = [&old, &new].map(|model| Side { model, runtime: &Tract });
    let first = compare(a, b).first.unwrap();
    assert_eq!(first.shapes, Some((vec![2, 2], vec![1, 4])));
    assert_eq!(first.place.node, "flatten");
}

#[test]
fn integers_are_compared_and_quantized_ones_left_out() {
    let cast = |to: i64| {
        TestGraph::new()
            .input("x", &["n", "2"])
            .node(node("Cast", ["x"], "y").named("cast").attr("to", Attr::Int(to)))
            .output("y", &["n", "2"])
            .model()
    };
    // int32 and int16: a difference is found, and equal ones are compared.
    for to in [6, 5] {
        let model = cast(to);
        let exact = Side { model: &model, runtime: &Tract };
        assert_eq!(compare(exact, exact).compared, 1);
        let other = TestGraph::new()
            .input("x", &["n", "2"])
            .node(node("Neg", ["x"], "negative"))
            .node(node("Cast", ["negative"], "y").named("cast").attr("to", Attr::Int(to)))
            .output("y", &["n", "2"])
            .model();
        assert_eq!(
            compare(exact, Side { model: &other, runtime: &Tract }).first.unwrap().place.node,
            "cast"
        );
    }
    let quantized = TestGraph::new()
        .input("x", &["n", "2"])
        .node(node("DynamicQuantizeLinear", ["x"], "q").output("scale").output("zero"))
        .node(node("Cast", ["q"], "f").attr("to", Attr::Int(1)))
        .node(node("Mul", ["f", "scale"], "y"))
        .output("y", &["n", "2"])
        .model();
    let side = Side { model: &quantized, runtime: &Tract };
    let found = compare(side, side);
    assert_eq!((found.compared, found.left_out), (3, vec!["q".to_owned(), "zero".to_owned()]));
    let alone = TestGraph::new()
        .input("x", &["n", "2"])
        .node(node("DynamicQuantizeLinear", ["x"], "q").output("").output(""))
        .output("q", &["n", "2"])
        .model();
    let side = Side { model: &alone, runtime: &Tract };
    let error = first_disagreement([side; 2], &inputs(), LIMITS, &AtomicBool::new(false), &|_, _| {});
    assert!(matches!(error, Err(Error::NothingToMeasure(_)) | Err(Error::Runtime(_))), "{error:?}");
}

#[test]
fn an_interruption_ends_it() {
    let model = chain();
    let side = Side { model: &model, runtime: &Tract };
    let outcome =
        first_disagreement([side, side], &inputs(), LIMITS, &AtomicBool::new(true), &|_, _| {});
    assert!(matches!(outcome, Err(Error::Interrupted)));
}

#[test]
fn distances_of_numbers_whose_squares_are_none() {
    for size in [1.0, 1e300, 1e-300] {
        let Distance { max_abs_of_peak, snr_db } =
            Distance::between(&[size, 0.0], &[size * 0.999, 0.0]);
        assert!((snr_db.unwrap() - 60.0).abs() < 1e-6, "{size} {snr_db:?}");
        assert!((max_abs_of_peak - 1e-3).abs() < 1e-9, "{size} {max_abs_of_peak}");
    }
}

#[test]
fn distances_of_what_is_not_finite() {
    let infinite = [f64::INFINITY, f64::NAN, 1.0];
    assert_eq!(
        Distance::between(&infinite, &infinite),
        Distance { max_abs_of_peak: 0.0, snr_db: None }
    );
    let far = Distance::between(&[1.0, 2.0], &[1.0, f64::NAN]);
    assert!(!far.within(LIMITS) && far.max_abs_of_peak.is_infinite());
    assert!(!Distance::between(&[0.0], &[1e-30]).within(LIMITS), "silence is exact");
    assert!(Distance::between(&[], &[]).within(LIMITS));
}
