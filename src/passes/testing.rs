//! What the tests of passes share: apply one pass, run the model in tract, compare.

pub(super) mod layer;

use std::collections::BTreeSet;

pub(super) use crate::ir::{
    Attr, Model, TestGraph, initializer_f32 as f32s, initializer_i64 as i64s, node,
};
use crate::ir::{FunctionProto, NodeBuilder};
use crate::passes::Driver;
use crate::runtime::{Runtime, Tract};
use crate::tensor::Tensor;

pub(super) const NONE: [&str; 0] = [];

/// Inputs: name, shape, values.
pub(super) type Feed<'a> = &'a [(&'a str, &'a [usize], &'a [f32])];

/// Runs one pass to its fixed point and returns the number of patches. A model that was right stays right.
pub(super) fn apply(model: &mut Model, pass: &str) -> usize {
    let valid = model.check().is_ok();
    let report = Driver::of(&[pass]).unwrap().run(model).unwrap();
    if valid {
        model.check().unwrap();
    }
    report.passes.iter().map(|p| p.applied).sum()
}

/// The reasons a pass gives for leaving nodes alone.
pub(super) fn refusals(model: &mut Model, pass: &str) -> Vec<String> {
    let report = Driver::of(&[pass]).unwrap().run(model).unwrap();
    report.passes.into_iter().flat_map(|p| p.refused).map(|(_, why)| why).collect()
}

/// Opsets at which some operator that a pass reads or writes changes its form, and the newest of all.
pub(super) const OPSETS: [i64; 9] = [7, 9, 10, 11, 12, 13, 17, 18, 23];

/// Every node has a name, and no two have the same.
pub(super) fn names_are_unique(model: &Model) -> bool {
    let names: BTreeSet<&str> = model.graph_proto().node.iter().map(|node| node.name()).collect();
    names.len() == model.graph_proto().node.len() && !names.contains("")
}

/// A function of the domain `local`: from `x` to `y`.
pub(super) fn function(name: &str, body: impl IntoIterator<Item = NodeBuilder>) -> FunctionProto {
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("local".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: body.into_iter().map(NodeBuilder::build).collect(),
        ..Default::default()
    }
}

/// Operators in order.
pub(super) fn ops(model: &Model) -> Vec<&str> {
    model.graph_proto().node.iter().map(|n| n.op_type()).collect()
}

/// The model's outputs in tract.
pub(super) fn run(model: &Model, feed: Feed<'_>) -> Vec<Tensor> {
    let inputs =
        feed.iter().map(|(name, shape, v)| ((*name).to_owned(), Tensor::from_f32(shape, v))).collect();
    let session = Tract.load_bytes(&model.to_bytes()).unwrap();
    session.run(&inputs).unwrap().into_values().collect()
}

/// The largest difference between two runs.
pub(super) fn max_diff(a: &[Tensor], b: &[Tensor]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| {
        assert_eq!(a.shape(), b.shape());
        a.to_f32().unwrap().into_iter().zip(b.to_f32().unwrap())
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
