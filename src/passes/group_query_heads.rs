use std::collections::{BTreeMap, HashSet};

use super::attention::{Attention, attentions};
use super::canonical_mask::is_canonical;
use super::surgery::{Given, Refused, Surgery, splice};
use crate::ir::{
    Graph, Model, Names, NodeBuilder, NodeProto, TensorProto, initializer_f32, initializer_i64, node,
};

const NAME: &str = "group-query-heads";

/// Queries are grouped instead of keys and values repeated, which copies the whole cache at each step.
///
/// Exact: the same products in the same order. An attention whose heads are not repeated stays as it is.
pub(super) struct GroupQueryHeads;

impl Surgery for GroupQueryHeads {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static str {
        "with G heads of keys and R heads of queries to each, K and V the cache [B, G, T, D]:\n\
         softmax(Q repeat(K, R)^T c + mask) repeat(V, R)\n\
         \u{20} =>  Reshape(softmax(Q' K^T c + mask') V, [B, G R, S, D])\n\
         \u{20}     Q' = Reshape(Q, [B, G, R S, D]), mask' = the mask R times, one below the other\n\
         not: keys and values repeated differently, a mask that canonical-mask did not make, no cache"
    }

    fn run(&self, model: &mut Model, _: &Given) -> Result<usize, Refused> {
        let names = Names::of(model.graph_proto());
        let mut to =
            Grouped { names, constants: Vec::new(), shapes: BTreeMap::new(), masks: BTreeMap::new() };
        let (mut nodes, mut gone) = (BTreeMap::new(), HashSet::new());
        let graph = model.graph();
        for (layer, attention) in attentions(&graph)?.iter().enumerate() {
            if let Some(heads) = heads(&graph, attention)? {
                nodes.insert(attention.context.0, to.attention(&graph, layer, attention, heads));
                gone.extend([attention.context.0, attention.softmax.0]);
            }
        }
        let count = nodes.len();
        for ((mask, repeats), rows) in std::mem::take(&mut to.masks) {
            let maker = graph.maker(&mask).expect("the mask is canonical");
            let concat = node("Concat", vec![mask; repeats], &rows).named(to.names.node(&rows));
            let after: &mut Vec<NodeProto> = nodes.entry(maker.0 + 1).or_default();
            after.insert(0, concat.author(NAME).int("axis", 2).build());
        }
        model.free_constants_of_inputs();
        let graph = model.graph_proto_mut();
        graph.initializer.extend(to.constants);
        splice(graph, nodes, &gone);
        Ok(count)
    }
}

/// How many heads the cache of an attention has, if it is repeated.
fn heads(graph: &Graph<'_>, attention: &Attention<'_>) -> Result<Option<usize>, Refused> {
    let refuse = |why: &str| Err(Refused::attention(graph.node(attention.softmax), why));
    let (keys, values) = (&attention.keys, &attention.values);
    if values.repeats != keys.repeats {
        return refuse("keys and values are not repeated alike");
    }
    if keys.repeats == 1 {
        return Ok(None);
    }
    let is_own = !attention.heads_second || attention.guarded.is_some();
    if is_own || !is_canonical(graph, attention.mask) {
        return refuse("the mask is not the canonical one");
    }
    let cache = keys.cache(graph).and_then(|cache| graph.noted(cache));
    match cache.and_then(|cache| cache.dims().get(1)?.parse().ok()) {
        Some(heads) => Ok(Some(heads)),
        None => refuse("its cache is not an input with a fixed number of heads"),
    }
}

/// What grouped attentions are written with.
struct Grouped {
    names: Names,
    constants: Vec<TensorProto>,
    /// Shapes by their number of heads.
    shapes: BTreeMap<usize, String>,
    /// The rows of a mask so many times.
    masks: BTreeMap<(String, usize), String>,
}

impl Grouped {
    fn shape(&mut self, heads: usize, what: &str) -> String {
        let Self { names, constants, shapes, .. } = self;
        let shape = shapes.entry(heads).or_insert_with(|| {
            let name = names.value(&format!("{NAME}/{what}_{heads}"));
            constants.push(initializer_i64(&name, &[4], &[0, heads as i64, -1, 0]));
            name
        });
        shape.clone()
    }

    /// The nodes that stand for an attention, in place of its product with the values.
    fn attention(
        &mut self,
        graph: &Graph<'_>,
        layer: usize,
        a: &Attention<'_>,
        heads: usize,
    ) -> Vec<NodeProto> {
        let repeats = a.keys.repeats;
        let (grouped, whole) = (self.shape(heads, "grouped"), self.shape(heads * repeats, "heads"));
        let Self { names, constants, masks, .. } = self;
        let mask = masks.entry((a.mask.to_owned(), repeats));
        let mask = &*mask.or_insert_with(|| names.value(&format!("{NAME}/mask_{repeats}")));
        let scale = names.value(&format!("{NAME}/scale_{layer}"));
        constants.push(initializer_f32(&scale, &[], &[a.scale]));
        let [rows, turned, raw, scores, masked, probabilities, together] =
            ["queries", "keys", "raw", "scores", "masked", "probabilities", "together"]
                .map(|part| names.value(&format!("{NAME}/{layer}/{part}")));
        let context = graph.node(a.context);
        let output = context.output_at(0).unwrap_or_default();
        let mut step = |op: &str, inputs: [&str; 2], output: &str| {
            node(op, inputs, output).named(names.node(output))
        };
        let queries = step("Reshape", [a.queries, &grouped], &rows);
        let products = step("MatMul", [&rows, &turned], &raw);
        let scaled = step("Mul", [&raw, &scale], &scores);
        let sums = step("Add", [&scores, mask], &masked);
        let contexts = step("MatMul", [&probabilities, a.values.whole], &together);
        let turn = node("Transpose", [a.keys.whole], &turned).named(names.node(&turned));
        // The softmax served this product alone, and its name goes on.
        let softmax = node("Softmax", [&masked], &probabilities).named(graph.node(a.softmax).name());
        let nodes = [
            queries,
            turn.ints("perm", [0, 1, 3, 2]),
            products,
            scaled,
            sums,
            softmax.int("axis", -1),
            contexts,
            node("Reshape", [&together, &whole], output).named(context.name()),
        ];
        nodes.map(|node| NodeBuilder::build(node.author(NAME))).into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::layer::*;
    use super::*;

    #[test]
    fn grouped_queries_give_the_same_numbers_without_copies_of_the_cache() {
        let mut grouped = model(OPTIMUM);
        apply(&mut grouped, "canonical-mask").unwrap();
        let repeated = grouped.clone();
        assert_eq!(apply(&mut grouped, "group-query-heads"), Ok(1));
        grouped.consistent().unwrap();
        // The nodes whose names the new ones have are without a use now.
        grouped.check().unwrap();
        assert!(grouped.graph_proto().node.iter().all(|node| !node.is("Expand")));
        let rows: [&[i64]; 2] = [&IDS_5, &[0, 0, 2, 7, 1]];
        let mask: [&[i64]; 2] = [&ONES, &[0, 0, 1, 1, 1]];
        let first = call(&grouped, &rows, &mask, None);
        assert!(close(&logits(&first), &logits(&call(&repeated, &rows, &mask, None))));
        let longer: [&[i64]; 2] = [&[1; 6], &[0, 0, 1, 1, 1, 1]];
        let step = |model: &Model| logits(&call(model, &[&[6], &[2]], &longer, Some(&first)));
        assert!(close(&step(&grouped), &step(&repeated)));
        assert_eq!(apply(&mut grouped, "group-query-heads"), Ok(0));
    }

    #[test]
    fn heads_are_grouped_under_the_canonical_mask_only() {
        let error = apply(&mut model(OPTIMUM), "group-query-heads").unwrap_err();
        assert_eq!(error, "group-query-heads: node \"softmax\": the mask is not the canonical one");
    }
}
