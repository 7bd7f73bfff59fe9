//! Outliers moved from activations into weights before either is quantized (Xiao et al. 2023, "SmoothQuant",
//! eq. 4), exact in fp32.

use std::collections::BTreeMap;

use super::calibration::{Calibration, Observed};
use crate::ir::{Graph, Model, Names, NodeId, TensorProto, initializer_f32};

/// `Y = (X / s) · (s W)`, with `s_j = max |X_j|^a / max |W_j|^(1 − a)` over channel j of the activation and
/// over row j of every weight that reads it; `1 / s` goes into the scale (and bias) of the norm that makes
/// X. Returns the number of activations that were smoothed; one that no norm makes, or that is read by
/// anything but products with constant weights, stays.
pub fn smooth(model: &mut Model, seen: &Calibration, strength: f64) -> usize {
    let mut names = Names::of(model.graph_proto());
    let mut added: BTreeMap<String, TensorProto> = BTreeMap::new();
    let mut renamed: Vec<(NodeId, usize, String)> = Vec::new();
    let mut count = 0;
    let graph = model.graph();
    for (norm, node) in graph.nodes() {
        let Some(x) = node.output_at(0) else { continue };
        let Some(constants) = norm_scales(&graph, norm) else { continue };
        let products = graph.users(x);
        let Some(observed) = seen.get(x).filter(|_| !graph.is_pinned(x) && !products.is_empty()) else {
            continue;
        };
        let Some(scales) = scales(&graph, x, observed, strength) else { continue };
        count += 1;
        let constants = constants.into_iter().map(|at| (norm, at));
        for (id, at) in constants.chain(products.iter().map(|&id| (id, 1))) {
            let Some(name) = graph.node(id).input_at(at) else { continue };
            let Some((shape, mut values)) = graph.constant_f32(name) else { continue };
            let width = values.len() / scales.len().max(1);
            for (row, scale) in values.chunks_exact_mut(width.max(1)).zip(&scales) {
                let factor = if id == norm { 1.0 / scale } else { *scale };
                row.iter_mut().for_each(|value| *value *= factor);
            }
            let base = format!("{}/smoothed/{at}", graph.node(id).output_at(0).unwrap_or(name));
            let new = names.value(&base);
            added.insert(new.clone(), initializer_f32(&new, &shape, &values));
            renamed.push((id, at, new));
        }
    }
    let graph = model.graph_proto_mut();
    for (id, at, new) in renamed {
        graph.node[id.0].input[at] = new;
    }
    graph.initializer.extend(added.into_values());
    model.drop_unused_constants();
    count
}

/// `s` of an activation; none where something other than a product with a constant weight reads it.
fn scales(graph: &Graph<'_>, x: &str, observed: &Observed, strength: f64) -> Option<Vec<f32>> {
    let mut rows = vec![0f32; observed.channels.len()];
    for &product in graph.users(x) {
        let (shape, values) = graph.constant_f32(weight(graph, product, x)?)?;
        if shape.len() != 2 || shape[0] != rows.len() || shape[1] == 0 {
            return None;
        }
        for (row, values) in rows.iter_mut().zip(values.chunks_exact(shape[1])) {
            *row = values.iter().fold(*row, |m, v| m.max(v.abs()));
        }
    }
    let scale = |(&x, &w): (&f32, &f32)| match (f64::from(x), f64::from(w)) {
        (x, w) if x > 0.0 && w > 0.0 => {
            (x.powf(strength) / w.powf(1.0 - strength)).clamp(1e-4, 1e4) as f32
        }
        // A channel that was never seen, or that nothing reads: nothing to balance.
        _ => 1.0,
    };
    Some(observed.channels.iter().zip(&rows).map(scale).collect())
}

/// The inputs of a norm that scale its channels: one vector that it is multiplied with, or a layer norm's
/// scale and bias.
fn norm_scales(graph: &Graph<'_>, id: NodeId) -> Option<Vec<usize>> {
    let node = graph.node(id);
    let vector = |at: usize| {
        let (shape, _) = graph.constant_f32(node.input_at(at)?)?;
        (shape.len() == 1 && shape[0] > 1).then_some(at)
    };
    match node.op_type() {
        op if !node.is(op) => None,
        "Mul" => vector(0).or_else(|| vector(1)).map(|at| vec![at]),
        "LayerNormalization" => {
            let bias = if node.input_at(2).is_some() { Some(vector(2)?) } else { None };
            Some([Some(vector(1)?), bias].into_iter().flatten().collect())
        }
        _ => None,
    }
}

/// The constant weight that a node multiplies a value with.
fn weight<'g>(graph: &Graph<'g>, id: NodeId, x: &str) -> Option<&'g str> {
    let node = graph.node(id);
    let weight = node.input_at(1).filter(|weight| graph.initializer(weight).is_some())?;
    (node.is("MatMul") && node.input_at(0) == Some(x)).then_some(weight)
}
