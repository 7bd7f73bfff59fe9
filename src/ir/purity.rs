//! Which nodes give the same outputs for the same inputs, whenever they are called.

use super::domains::is_own_domain;
use super::proto::{FunctionProto, NodeProto};

/// Operators whose result is drawn at random; those that onnx 1.23 marks as not deterministic for a graph
/// inside them (`If`, `Loop`, `Scan`, `SequenceMap`) are as pure as that graph.
const RANDOM: &[&str] = &[
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    // At random in training mode, which an input may switch on.
    "Dropout",
];

/// Functions that call one another deeper than this count as random.
const DEPTH: usize = 64;

/// Whether a node is pure; `pure` tells it of the functions.
pub(super) fn is_pure<'p>(
    node: &NodeProto,
    functions: &[FunctionProto],
    pure: impl FnOnce() -> &'p Vec<bool>,
) -> bool {
    match called(node, functions) {
        Some(at) => pure()[at],
        None => draws_nothing(node, &mut |inner| is_operator(inner, functions)),
    }
}

/// Whether each function is pure: its own nodes, those of their nested graphs, and the functions they call.
pub(super) fn of_functions(functions: &[FunctionProto]) -> Vec<bool> {
    let mut known = vec![None; functions.len()];
    (0..functions.len()).map(|at| function_is_pure(at, functions, &mut known, 0)).collect()
}

fn function_is_pure(
    at: usize,
    functions: &[FunctionProto],
    known: &mut Vec<Option<bool>>,
    depth: usize,
) -> bool {
    if let Some(pure) = known[at] {
        return pure;
    }
    // A function that calls itself, which ONNX forbids, meets this.
    known[at] = Some(false);
    let pure = depth < DEPTH
        && functions[at].node.iter().all(|node| {
            draws_nothing(node, &mut |inner| match called(inner, functions) {
                Some(other) => function_is_pure(other, functions, known, depth + 1),
                None => is_operator(inner, functions),
            })
        });
    known[at] = Some(pure);
    pure
}

/// Asks of a node and of all nodes in graphs nested in it.
fn draws_nothing(node: &NodeProto, pure: &mut dyn FnMut(&NodeProto) -> bool) -> bool {
    pure(node) && node.nested().flat_map(|graph| &graph.node).all(|inner| draws_nothing(inner, pure))
}

fn is_operator(node: &NodeProto, functions: &[FunctionProto]) -> bool {
    let redefined = |f: &FunctionProto| is_own_domain(f.domain()) && f.name() == node.op_type();
    is_own_domain(node.domain())
        && !RANDOM.contains(&node.op_type())
        && !functions.iter().any(redefined)
}

/// The function that a node calls. One with the name of an operator of ONNX's own doesn't count: which of the
/// two a runtime takes is open.
fn called(node: &NodeProto, functions: &[FunctionProto]) -> Option<usize> {
    functions.iter().position(|f| {
        !is_own_domain(f.domain())
            && f.domain() == node.domain()
            && f.name() == node.op_type()
            && f.overload() == node.overload()
    })
}

#[cfg(test)]
mod tests {
    use super::super::{NodeBuilder, TestGraph, node};
    use super::*;

    fn function(name: &str, body: Vec<NodeBuilder>) -> FunctionProto {
        FunctionProto {
            name: Some(name.to_owned()),
            domain: Some("local".to_owned()),
            input: vec!["x".to_owned()],
            output: vec!["y".to_owned()],
            node: body.into_iter().map(NodeBuilder::build).collect(),
            ..Default::default()
        }
    }

    fn call(name: &str) -> NodeProto {
        node(name, ["x"], "y").domain("local").build()
    }

    fn pure(functions: Vec<FunctionProto>, node: &NodeProto) -> bool {
        let graph = functions.into_iter().fold(TestGraph::new(), TestGraph::function);
        graph.model().graph().is_pure(node)
    }

    #[test]
    fn a_function_is_as_pure_as_its_body() {
        let twice = || function("Twice", vec![node("Add", ["x", "x"], "y")]);
        let noise = || {
            function("Noise", vec![node("RandomNormalLike", ["x"], "n"), node("Add", ["x", "n"], "y")])
        };
        let calls = |name: &str| {
            let inner = node(name, ["x"], "y").domain("local");
            function("Calls", vec![inner])
        };
        assert!(pure(vec![twice()], &call("Twice")));
        assert!(!pure(vec![noise()], &call("Noise")));
        assert!(pure(vec![calls("Twice"), twice()], &call("Calls")));
        assert!(!pure(vec![calls("Noise"), noise()], &call("Calls")));
        assert!(!pure(vec![calls("Calls")], &call("Calls")));
        assert!(!pure(vec![], &call("Twice")));
    }

    #[test]
    fn an_overload_is_a_function_of_its_own() {
        let mut random = function("F", vec![node("RandomNormalLike", ["x"], "y")]);
        random.overload = Some("random".to_owned());
        let plain = function("F", vec![node("Neg", ["x"], "y")]);
        let mut called = call("F");
        assert!(pure(vec![random.clone(), plain.clone()], &called));
        called.overload = Some("random".to_owned());
        assert!(!pure(vec![random, plain], &called));
    }

    #[test]
    fn operators_are_pure_unless_random_or_defined_anew() {
        let neg = node("Neg", ["x"], "y").build();
        assert!(pure(vec![], &neg));
        assert!(!pure(vec![], &node("Bernoulli", ["x"], "y").build()));
        let mut own = function("Neg", vec![node("Abs", ["x"], "y")]);
        own.domain = Some("ai.onnx".to_owned());
        assert!(!pure(vec![own], &neg));
    }

    #[test]
    fn a_long_chain_of_functions_ends() {
        let chain = (0..10_000).map(|i| {
            let inner = node(&format!("F{}", i + 1), ["x"], "y").domain("local");
            function(&format!("F{i}"), vec![inner])
        });
        assert!(!of_functions(&chain.collect::<Vec<_>>())[0]);
    }
}
