//! What holds for all surgeries together.

use proptest::prelude::*;

use super::super::driver::rewrite;
use super::super::testing::layer::*;
use super::super::{
    CAUSAL, CAUSAL_CACHED, Driver, Error, Given, Refused, SIGNAL, Step, Surgery, catalog,
};
use crate::ir::proto::TrainingInfoProto;

#[test]
fn names_that_are_taken_are_worked_round() {
    let taken = [
        ("k_second", "present.0.key"),
        ("k_third", "past_key_values.0.value"),
        ("h", "hidden_states.0"),
        ("context_flat", "last_hidden_state"),
        ("q_flat", "logits/last"),
        ("k_flat", "add-kv-cache/0/keys"),
    ];
    let mut plain = model(PLAIN);
    let mut odd = renamed(&plain, &taken);
    for model in [&mut plain, &mut odd] {
        expose(model, &[0], true).unwrap();
        apply(model, "add-kv-cache").unwrap();
        model.check().unwrap();
    }
    let first = |model: &Model| call(model, &[&IDS_5], &[&ONES], None);
    assert_eq!(first(&plain), first(&odd));
    let taken = [
        ("q_second", "attention_bias"),
        ("k_third", "attention_bias/rows"),
        ("q_third", "group-query-heads/0/raw"),
        ("v_third", "group-query-heads/mask_2"),
    ];
    let mut plain = model(OPTIMUM);
    let mut odd = renamed(&plain, &taken);
    for model in [&mut plain, &mut odd] {
        apply(model, "canonical-mask").unwrap();
        apply(model, "group-query-heads").unwrap();
        model.check().unwrap();
    }
    assert_eq!(first(&plain), first(&odd));
}

#[test]
fn each_surgery_names_the_opset_it_needs() {
    assert_eq!(
        apply(&mut at_opset(&model(OPTIMUM), 12), "canonical-mask").unwrap_err(),
        "canonical-mask: it needs opset 13, and the model has 12"
    );
    assert_eq!(
        expose(&mut at_opset(&model(PLAIN), 9), &[], true).unwrap_err(),
        "expose-hidden-states: it needs opset 10, and the model has 9"
    );
}

#[test]
fn every_opset_from_13_gives_the_same_numbers() {
    let before = call(&model(OPTIMUM), &[&IDS_5], &[&ONES], None);
    let whole = call(&model(PLAIN), &[&IDS_5], &[&ONES], None);
    for opset in [13, 17, 18, 23] {
        let mut grouped = at_opset(&model(OPTIMUM), opset);
        assert_eq!(apply(&mut grouped, "canonical-mask"), Ok(1));
        assert_eq!(apply(&mut grouped, "group-query-heads"), Ok(1));
        expose(&mut grouped, &[], false).unwrap();
        let after = call(&grouped, &[&IDS_5], &[&ONES], None);
        assert!(close(&logits(&before), &logits(&after)), "opset {opset}");
        let mut cached = at_opset(&model(PLAIN), opset);
        assert_eq!(apply(&mut cached, "add-kv-cache"), Ok(1));
        let cached = call(&cached, &[&IDS_5], &[&ONES], None);
        assert!(close(&logits(&whole), &logits(&cached)), "opset {opset}");
    }
}

#[test]
fn nodes_say_which_surgery_made_them() {
    let mut grouped = model(OPTIMUM);
    apply(&mut grouped, "canonical-mask").unwrap();
    apply(&mut grouped, "group-query-heads").unwrap();
    let by = |pass: &str| {
        let nodes = grouped.graph_proto().node.iter();
        nodes.filter(|node| node.author() == Some(pass)).count()
    };
    assert_eq!((by("canonical-mask"), by("group-query-heads")), (17, 9));
}

/// The names of what a rewrite did, in the order of its report, and whether it ended for want of fuel.
fn done(model: &mut Model, driver: &Driver) -> (Vec<&'static str>, bool) {
    let report = driver.run(model).unwrap();
    (
        report.passes.iter().filter(|one| one.applied > 0).map(|one| one.pass).collect(),
        report.out_of_fuel,
    )
}

#[test]
fn a_route_is_a_list_of_steps() {
    let names = |steps| Driver::new(steps).names();
    assert_eq!(names(CAUSAL)[..3], ["expose-hidden-states", "add-kv-cache", "lift-constants"]);
    let surgeries = ["expose-hidden-states", "canonical-mask", "group-query-heads"];
    assert_eq!(names(CAUSAL_CACHED)[..3], surgeries);
    assert_eq!(names(CAUSAL_CACHED)[3..], names(SIGNAL)[..]);
    assert_eq!(Driver::default().names(), names(SIGNAL));
    for (form, steps) in [(PLAIN, CAUSAL), (OPTIMUM, CAUSAL_CACHED)] {
        let (mut whole, mut listed) = (model(form), model(form));
        let mut names: Vec<String> = names(steps).iter().map(|&name| name.to_owned()).collect();
        // In whatever order a recipe names them.
        names.reverse();
        let report = rewrite(&mut whole, steps, None, Given::default()).unwrap();
        assert_eq!(report, rewrite(&mut listed, SIGNAL, Some(&names), Given::default()).unwrap());
        assert_eq!(whole.to_bytes(), listed.to_bytes());
        let before = call(&model(form), &[&IDS_5], &[&ONES], None);
        assert!(close(&logits(&before), &logits(&call(&whole, &[&IDS_5], &[&ONES], None))));
        names.retain(|name| name != "expose-hidden-states");
        let mut without = model(form);
        rewrite(&mut without, steps, Some(&names), Given::default()).unwrap();
        let outputs = |model: &Model| model.graph_proto().output.len();
        assert_eq!(outputs(&whole), outputs(&without) + 1);
    }
}

#[test]
fn a_surgery_is_one_patch() {
    let count = |fuel| done(&mut model(PLAIN), &Driver::new(CAUSAL).fuel(Some(fuel)));
    assert_eq!(count(0), (vec![], true));
    assert_eq!(count(1), (vec!["expose-hidden-states"], true));
    assert_eq!(count(2), (vec!["expose-hidden-states", "add-kv-cache"], true));
}

#[test]
fn constants_are_lifted_before_a_surgery_asked_for_or_not() {
    let mut proto = model(PLAIN).proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    let at = graph.initializer.iter().position(|tensor| tensor.name() == "half").unwrap();
    let half = crate::ir::Attr::Tensor(graph.initializer.remove(at));
    graph.node.insert(0, node("Constant", [""; 0], "half").attr("value", half).build());
    let mut exported = Model::from_proto(proto, "test.onnx").unwrap();
    let driver = Driver::of(&["add-kv-cache"]).unwrap();
    assert_eq!(done(&mut exported, &driver), (vec!["add-kv-cache", "lift-constants"], false));
}

#[test]
fn a_model_with_a_description_of_its_training_is_refused() {
    let mut proto = model(PLAIN).proto().clone();
    proto.training_info.push(TrainingInfoProto::default());
    let mut trained = Model::from_proto(proto, "test.onnx").unwrap();
    let error = Driver::of(&["add-kv-cache"]).unwrap().run(&mut trained).unwrap_err();
    assert!(matches!(error, Error::Refused { refused: Refused::Training, .. }), "{error}");
}

/// Takes the name of a value away from the node that makes it.
struct Breaks;

impl Surgery for Breaks {
    fn name(&self) -> &'static str {
        "breaks"
    }

    fn rules(&self) -> &'static str {
        ""
    }

    fn run(&self, model: &mut Model, _: &Given) -> Result<usize, Refused> {
        model.proto_mut().graph.as_mut().unwrap().node[1].output[0] = "another".to_owned();
        Ok(1)
    }
}

#[test]
fn a_surgery_that_leaves_a_broken_model_leaves_none() {
    let before = model(PLAIN);
    let mut after = before.clone();
    let error = Driver::new(&[Step::Surgery(&Breaks)]).run(&mut after).unwrap_err();
    assert!(matches!(error, Error::Model(crate::ir::Error::Invalid { .. })), "{error}");
    assert_eq!(after.to_bytes(), before.to_bytes());
}

#[test]
fn a_placeholder_that_is_left_is_an_error() {
    let istft = |names: &[&str]| {
        let istft = node("ISTFT", ["re", "im", "window"], "audio").named("istft");
        let mut model = TestGraph::new()
            .input("re", &["batch", "3", "frames"])
            .input("im", &["batch", "3", "frames"])
            .input("window", &["4"])
            .node(
                istft
                    .domain(crate::ir::PLACEHOLDER_DOMAIN)
                    .int("n_fft", 4)
                    .int("hop_length", 1)
                    .int("win_length", 4),
            )
            .output("audio", &["batch", "samples"])
            .model();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let names = Some(names.as_slice()).filter(|names| !names.is_empty());
        rewrite(&mut model, SIGNAL, names, Given::default()).unwrap_err().to_string()
    };
    let left = "the rewrite leaves ISTFT at node \"istft\", which no runtime can run: ";
    let none = "no pass of this recipe replaces it";
    assert_eq!(istft(&["fold-scale"]), format!("{left}{none}"));
    let refused = istft(&[]);
    assert!(refused.starts_with(&format!("{left}replace-istft: ")), "{refused}");
}

/// A layer with something wrong at one place.
fn damaged(model: &Model, what: usize, at: usize, other: usize) -> Option<Model> {
    const OPS: [&str; 8] =
        ["MatMul", "Add", "Transpose", "Reshape", "Softmax", "Concat", "Split", "Where"];
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    let given: Vec<String> = graph.node.iter().flat_map(|node| node.output.clone()).collect();
    let (nodes, tensors) = (graph.node.len(), graph.initializer.len());
    let node = &mut graph.node[at % nodes];
    let tensor = &mut graph.initializer[at % tensors];
    match what {
        0 => node.op_type = Some(OPS[other % OPS.len()].to_owned()),
        1 => node.attribute.clear(),
        2 => node.attribute.iter_mut().for_each(|a| a.ints = vec![other as i64 - 9; other % 6]),
        3 => drop(node.input.pop()),
        4 => node.input[0].clone_from(&given[other % given.len()]),
        5 => node.input.push(given[other % given.len()].clone()),
        6 => node.output.push(format!("more_{other}")),
        7 => node.name = None,
        8 => *tensor = initializer_i64(tensor.name(), &[other % 5], &vec![other as i64 - 9; other % 5]),
        9 => *tensor = initializer_f32(tensor.name(), &[], &[f32::NAN]),
        10 => graph.input[at % 2].r#type = None,
        11 => graph.output[0].r#type = None,
        _ => proto.opset_import[0].version = Some(other as i64),
    }
    Model::from_proto(proto, "test.onnx").ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Some passes and surgeries of a layer in either form: refused, and the model is as it was or as passes
    /// left it, or a model that is right and says the same.
    #[test]
    fn any_choice_keeps_the_numbers(
        cached in any::<bool>(),
        fuel in 0usize..40,
        names in proptest::sample::subsequence(
            catalog().map(|entry| entry.name).collect::<Vec<_>>(), 0..=catalog().count(),
        ),
    ) {
        let form = if cached { OPTIMUM } else { PLAIN };
        let before = call(&model(form), &[&IDS_5], &[&ONES], None);
        let mut after = model(form);
        let run = Driver::of(&names).unwrap().fuel(Some(fuel)).run(&mut after);
        prop_assert!(!matches!(run, Err(Error::Model(_))), "{:?}", run);
        after.check().unwrap();
        prop_assert!(close(&logits(&before), &logits(&call(&after, &[&IDS_5], &[&ONES], None))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is wrong with a graph, a surgery says so or leaves a consistent one; none panics.
    #[test]
    fn any_graph_survives(
        cached in any::<bool>(),
        wrong in proptest::collection::vec((0usize..13, 0usize..64, 0usize..64), 1..4),
        layers in proptest::collection::vec(0u32..3, 0..3),
        last_logits in any::<bool>(),
        heads in proptest::option::of([1usize..4, 3usize..6]),
    ) {
        let start = model(if cached { OPTIMUM } else { PLAIN });
        let damage = |model: Model, &(what, at, other): &(usize, usize, usize)| {
            damaged(&model, what, at, other).unwrap_or(model)
        };
        let start = wrong.iter().fold(start, damage);
        let given = Given { layers, last_logits, heads, ..Given::default() };
        for entry in catalog().filter(|entry| entry.surgery) {
            let mut after = start.clone();
            let _ = Driver::of(&[entry.name]).unwrap().given(given.clone()).run(&mut after);
            after.consistent().unwrap();
        }
        let mut after = start;
        let _ = Driver::new(crate::passes::ALL).given(given).run(&mut after);
        after.consistent().unwrap();
    }
}
