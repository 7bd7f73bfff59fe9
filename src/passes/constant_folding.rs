use super::{Pass, Skip, from_front, matched, only, replaceable, require};
use crate::ir::{Graph, List, NodeId, NodeProto, Patch, code_of, initializer_raw};
use crate::tensor::{DType, Tensor};

/// Arithmetic on constants is done once.
pub(super) struct ConstantFolding;

/// Results larger than this (in elements) are folded only if they are no larger than the inputs:
/// an `Expand` of a scalar would otherwise blow the file up.
const SMALL: usize = 1 << 16;

impl Pass for ConstantFolding {
    fn name(&self) -> &'static str {
        "constant-folding"
    }

    fn rules(&self) -> &'static str {
        "f(c…) with every input an initializer  =>  initializer, for f in\n\
         Shape, Transpose, Reshape, Unsqueeze, Squeeze (any type)\n\
         Add, Sub, Mul, Div, Gather<axis=0>, Concat<axis=0>, Cast between int64 and float (int64, float)\n\
         not: division by zero, casts of what int64 can't hold, results of more than 65536 elements that are\n\
         larger than the inputs, copies of a constant of more than 64 KiB that serves another node too"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let node = graph.node(id);
        let [output] = node.output.as_slice() else { return Err(Skip::NoMatch) };
        require(!graph.is_output(output) && !node.input.is_empty() && graph.is(node, node.op_type()))?;
        let allowed = matched(attributes(node.op_type()))?;
        let inputs: Vec<Tensor> =
            matched(node.input.iter().map(|input| graph.constant(input)).collect::<Option<_>>())?;
        only(node, allowed)?;
        // The others give about as much as they take.
        if !["Shape", "Gather"].contains(&node.op_type()) {
            node.input.iter().try_for_each(|input| replaceable(graph, input))?;
        }
        let largest = inputs.iter().map(|t| t.bytes().len()).max().unwrap_or(0);
        let all = inputs.iter().fold(0usize, |n, t| n.saturating_add(t.bytes().len()));
        // Only Concat makes its result of all inputs together: asked before it is made.
        if node.op_type() == "Concat" && all > largest.max(SMALL * inputs[0].dtype().size()) {
            return Err(Skip::NoEffect);
        }
        let list = match graph.list(node) {
            List::Given(values) => Some(values),
            List::Absent | List::Unknown => None,
        };
        let value = matched(fold(node, &inputs, list.as_deref()))?;
        if value.bytes().len() > largest.max(SMALL * value.dtype().size()) {
            return Err(Skip::NoEffect);
        }
        let mut patch = Patch::at(id).remove(id);
        let code = code_of(value.dtype());
        patch.initializer(initializer_raw(output, code, value.shape(), value.bytes().clone()));
        Ok(patch)
    }
}

/// The attributes of an operator that is folded.
fn attributes(op: &str) -> Option<&'static [&'static str]> {
    Some(match op {
        "Add" | "Sub" | "Mul" | "Div" => &[],
        "Shape" => &["start", "end"],
        "Transpose" => &["perm"],
        "Reshape" => &["allowzero", "shape"],
        "Unsqueeze" | "Squeeze" => &["axes"],
        "Concat" | "Gather" => &["axis"],
        "Cast" => &["to", "saturate", "round_mode"],
        _ => return None,
    })
}

/// The value of a node; `list` is its [list of numbers](Graph::list).
fn fold(node: &NodeProto, inputs: &[Tensor], list: Option<&[i64]>) -> Option<Tensor> {
    let first = inputs.first()?;
    let rank = first.shape().len() as i64;
    let along_first = |axis: i64| axis == 0 || axis == -rank;
    let reshaped = |shape: Vec<usize>| Tensor::new(first.dtype(), shape, first.bytes().clone()).ok();
    match node.op_type() {
        "Shape" => {
            let place = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank);
            let (start, end) = (place(node.attr_i("start", 0)), place(node.attr_i("end", rank)));
            let dims = first.shape().get(start as usize..end as usize).unwrap_or_default();
            let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
            Some(Tensor::from_i64(&[dims.len()], &dims))
        }
        "Transpose" => {
            let reversed: Vec<i64> = (0..rank).rev().collect();
            let order = node.attr_ints("perm").unwrap_or(&reversed).iter();
            first
                .transposed(&order.map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>()?)
        }
        "Reshape" if node.attr_i("allowzero", 0) == 0 => reshaped(reshape(first.shape(), list?)?),
        "Unsqueeze" => reshaped(unsqueeze(first.shape(), list?)?),
        "Squeeze" => reshaped(squeeze(first.shape(), list?)?),
        "Add" | "Sub" | "Mul" | "Div" => arithmetic(node.op_type(), first, inputs.get(1)?),
        "Concat" if node.attr("axis").is_some_and(|axis| along_first(axis.i())) => concat(inputs),
        "Gather" if rank == 1 && along_first(node.attr_i("axis", 0)) => {
            let values = first.to_i64().ok()?;
            let picks = inputs.get(1)?.to_i64().ok()?;
            let pick = |&at: &i64| values.get(from_front(at, values.len())?).copied();
            let picks: Vec<i64> = picks.iter().map(pick).collect::<Option<_>>()?;
            Some(Tensor::from_i64(inputs[1].shape(), &picks))
        }
        "Cast" => match (first.dtype(), node.attr_i("to", 0)) {
            (DType::I64, 7) | (DType::F32, 1) => Some(first.clone()),
            (DType::I64, 1) => {
                let values: Vec<f32> = first.to_i64().ok()?.iter().map(|&v| v as f32).collect();
                Some(Tensor::from_f32(first.shape(), &values))
            }
            (DType::F32, 7) => {
                // 2^63 is the first float that int64 can't hold; NaN is in no range.
                let holds = |v: &f32| (-TWO_63..TWO_63).contains(v);
                let values = first.to_f32().ok()?;
                let values = values.into_iter().map(|v| holds(&v).then_some(v as i64));
                Some(Tensor::from_i64(first.shape(), &values.collect::<Option<Vec<_>>>()?))
            }
            _ => None,
        },
        _ => None,
    }
}

const TWO_63: f32 = 9_223_372_036_854_775_808.0;

fn reshape(from: &[usize], to: &[i64]) -> Option<Vec<usize>> {
    let count: usize = from.iter().product();
    let mut dims = to
        .iter()
        .enumerate()
        .map(|(axis, &d)| match d {
            0 => from.get(axis).copied(),
            -1 => Some(usize::MAX),
            d => usize::try_from(d).ok(),
        })
        .collect::<Option<Vec<usize>>>()?;
    let mut fixed = dims.iter().filter(|&&d| d != usize::MAX);
    let fixed = fixed.try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if let Some(open) = dims.iter_mut().find(|d| **d == usize::MAX) {
        *open = count.checked_div(fixed)?;
    }
    Some(dims)
}

fn unsqueeze(from: &[usize], axes: &[i64]) -> Option<Vec<usize>> {
    let rank = from.len() + axes.len();
    let ones: Vec<usize> = axes.iter().map(|&axis| from_front(axis, rank)).collect::<Option<_>>()?;
    let mut rest = from.iter().copied();
    (0..rank).map(|axis| if ones.contains(&axis) { Some(1) } else { rest.next() }).collect()
}

fn squeeze(from: &[usize], axes: &[i64]) -> Option<Vec<usize>> {
    let dropped: Vec<usize> =
        axes.iter().map(|&axis| from_front(axis, from.len())).collect::<Option<_>>()?;
    if dropped.iter().any(|&axis| from.get(axis) != Some(&1)) {
        return None;
    }
    Some(from.iter().enumerate().filter(|(axis, _)| !dropped.contains(axis)).map(|(_, &d)| d).collect())
}

fn concat(inputs: &[Tensor]) -> Option<Tensor> {
    let first = inputs.first()?;
    let alike = |t: &Tensor| {
        t.dtype() == first.dtype() && !t.shape().is_empty() && t.shape()[1..] == first.shape()[1..]
    };
    if !inputs.iter().all(alike) {
        return None;
    }
    let mut shape = first.shape().to_vec();
    shape[0] = inputs.iter().try_fold(0usize, |n, t| n.checked_add(t.shape()[0]))?;
    let data: Vec<u8> = inputs.iter().flat_map(|t| t.bytes().iter().copied()).collect();
    Tensor::new(first.dtype(), shape, data.into()).ok()
}

/// Elementwise arithmetic of equal shapes, or with a single element on one side.
fn arithmetic(op: &str, a: &Tensor, b: &Tensor) -> Option<Tensor> {
    let single = |t: &Tensor| t.bytes().len() == t.dtype().size();
    let shape = match () {
        () if a.shape() == b.shape() || single(b) && b.shape().len() <= a.shape().len() => a.shape(),
        () if single(a) && a.shape().len() <= b.shape().len() => b.shape(),
        () => return None,
    };
    fn zip<T: Copy>(a: &[T], b: &[T], n: usize, f: impl Fn(T, T) -> Option<T>) -> Option<Vec<T>> {
        (0..n).map(|i| f(a[i % a.len()], b[i % b.len()])).collect()
    }
    let n = shape.iter().product();
    match a.dtype() {
        DType::I64 => {
            let f = |x: i64, y: i64| match op {
                "Add" => x.checked_add(y),
                "Sub" => x.checked_sub(y),
                "Mul" => x.checked_mul(y),
                _ => x.checked_div(y),
            };
            Some(Tensor::from_i64(shape, &zip(&a.to_i64().ok()?, &b.to_i64().ok()?, n, f)?))
        }
        DType::F32 => {
            let f = |x: f32, y: f32| {
                Some(match op {
                    "Add" => x + y,
                    "Sub" => x - y,
                    "Mul" => x * y,
                    _ if y == 0.0 => return None,
                    _ => x / y,
                })
            };
            Some(Tensor::from_f32(shape, &zip(&a.to_f32().ok()?, &b.to_f32().ok()?, n, f)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::ir::{TensorProto, initializer_i64};

    fn folded(op: crate::ir::NodeBuilder, constants: &[TensorProto]) -> Option<TensorProto> {
        let graph =
            constants.iter().cloned().fold(TestGraph::new().input("x", &["n"]), TestGraph::initializer);
        // An operator that takes values of any types.
        let user = node("Use", ["x", "c"], "y").domain(crate::ir::PLACEHOLDER_DOMAIN);
        let mut model = graph.node(op).node(user).output("y", &["n"]).model();
        apply(&mut model, "constant-folding");
        model.graph_proto().initializer.iter().find(|t| t.name() == "c").cloned()
    }

    #[test]
    fn values() {
        let a = || f32s("a", &[2, 3], &[1., 2., 3., 4., 5., 6.]);
        let transposed = folded(node("Transpose", ["a"], "c").ints("perm", [1, 0]), &[a()]).unwrap();
        assert_eq!(transposed, f32s("c", &[3, 2], &[1., 4., 2., 5., 3., 6.]));
        let shape = folded(node("Shape", ["a"], "c"), &[a()]).unwrap();
        assert_eq!(shape, initializer_i64("c", &[2], &[2, 3]));
        let to = initializer_i64("s", &[2], &[-1, 2]);
        let reshaped = folded(node("Reshape", ["a", "s"], "c"), &[a(), to]).unwrap();
        assert_eq!(reshaped.dims, [3, 2]);
        let quotient = [initializer_i64("p", &[1], &[7]), initializer_i64("q", &[1], &[2])];
        let three = folded(node("Div", ["p", "q"], "c"), &quotient).unwrap();
        assert_eq!(three, initializer_i64("c", &[1], &[3]));
    }

    #[test]
    fn division_by_zero_is_left_to_the_runtime() {
        let zero = [initializer_i64("p", &[1], &[7]), initializer_i64("q", &[1], &[0])];
        assert!(folded(node("Div", ["p", "q"], "c"), &zero).is_none());
    }

    fn folded_at(
        opset: i64,
        op: crate::ir::NodeBuilder,
        constants: &[TensorProto],
    ) -> Option<TensorProto> {
        let graph = TestGraph::new().versions(8, opset).input("x", &["n"]);
        let graph = constants.iter().cloned().fold(graph, TestGraph::initializer);
        let mut model = graph.node(op).node(node("Mul", ["x", "c"], "y")).output("y", &["n"]).model();
        apply(&mut model, "constant-folding");
        model.graph_proto().initializer.iter().find(|t| t.name() == "c").cloned()
    }

    #[test]
    fn axes_are_read_by_the_opset() {
        let a = || f32s("a", &[1, 3], &[1., 2., 3.]);
        let axes = || i64s("axes", &[1], &[0]);
        let dims = |folded: Option<TensorProto>| folded.map(|tensor| tensor.dims);
        let attribute = |op: &str| node(op, ["a"], "c").ints("axes", [0]);
        let input = |op: &str| node(op, ["a", "axes"], "c");
        for (op, want) in [("Squeeze", vec![3]), ("Unsqueeze", vec![1, 1, 3])] {
            for opset in OPSETS {
                let old = dims(folded_at(opset, attribute(op), &[a()]));
                let new = dims(folded_at(opset, input(op), &[a(), axes()]));
                assert_eq!(old, (opset < 13).then(|| want.clone()), "{op} at {opset}");
                assert_eq!(new, (opset >= 13).then(|| want.clone()), "{op} at {opset}");
            }
        }
    }

    #[test]
    fn what_is_left_out_has_the_operators_default() {
        let a = || f32s("a", &[2, 3], &[1., 2., 3., 4., 5., 6.]);
        let turned = folded(node("Transpose", ["a"], "c"), &[a()]).unwrap();
        assert_eq!(turned, f32s("c", &[3, 2], &[1., 4., 2., 5., 3., 6.]));
        let part = folded(node("Shape", ["a"], "c").int("start", -1), &[a()]).unwrap();
        assert_eq!(part, i64s("c", &[1], &[3]));
    }

    #[test]
    fn a_cast_of_what_int64_cannot_hold_is_left_to_the_runtime() {
        let cast =
            |value: f32| folded(node("Cast", ["p"], "c").int("to", 7), &[f32s("p", &[1], &[value])]);
        assert_eq!(cast(-2.7), Some(i64s("c", &[1], &[-2])));
        assert_eq!(cast(-TWO_63), Some(i64s("c", &[1], &[i64::MIN])));
        assert!([f32::NAN, f32::INFINITY, TWO_63].into_iter().all(|value| cast(value).is_none()));
    }

    #[test]
    fn an_addition_of_another_domain_or_with_more_to_say_is_not_done() {
        let add = || node("Add", ["p", "q"], "c");
        let two = || [i64s("p", &[1], &[1]), i64s("q", &[1], &[2])];
        assert!(folded(add(), &two()).is_some());
        assert!(folded(add().domain("other"), &two()).is_none());
        assert!(folded(add().int("saturate", 1), &two()).is_none());
    }

    /// The embedding of a language model whose head is its transpose.
    fn tied(rows: usize) -> Model {
        TestGraph::new()
            .input_i64("ids", &["n"])
            .initializer(f32s("table", &[rows, 64], &vec![0.5; rows * 64]))
            .node(node("Gather", ["table", "ids"], "x"))
            .node(node("Transpose", ["table"], "head").ints("perm", [1, 0]))
            .node(node("MatMul", ["x", "head"], "y"))
            .output("y", &["n", "v"])
            .model()
    }

    #[test]
    fn a_weight_that_stays_for_another_use_is_not_copied_unless_small() {
        let mut large = tied(1024);
        let bytes = large.weight_bytes();
        let why = "its constant serves another node too, and would be there twice";
        assert_eq!(refusals(&mut large, "constant-folding"), [why]);
        assert_eq!((large.weight_bytes(), ops(&large).len()), (bytes, 3));
        assert_eq!(apply(&mut tied(16), "constant-folding"), 1);
    }
}
