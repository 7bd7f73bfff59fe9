use super::{Pass, Skip, matched};
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{Graph, NodeId, NodeProto, Patch, TensorProto, initializer_raw};
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
         not: division by zero, results of more than 65536 elements that are larger than the inputs"
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let node = graph.node(id);
        let [output] = node.output.as_slice() else { return Err(Skip::NoMatch) };
        if graph.is_output(output) || node.input.is_empty() || !node.is(node.op_type()) {
            return Err(Skip::NoMatch);
        }
        let inputs: Vec<Tensor> =
            matched(node.input.iter().map(|input| graph.constant(input)).collect::<Option<_>>())?;
        let largest = inputs.iter().map(|t| t.bytes().len()).max().unwrap_or(0);
        let all = inputs.iter().fold(0usize, |n, t| n.saturating_add(t.bytes().len()));
        // Only Concat makes its result of all inputs together: asked before it is made.
        if node.is("Concat") && all > largest.max(SMALL * inputs[0].dtype().size()) {
            return Err(Skip::NoEffect);
        }
        let value = matched(fold(node, &inputs))?;
        if value.bytes().len() > largest.max(SMALL * value.dtype().size()) {
            return Err(Skip::NoEffect);
        }
        let mut patch = Patch::at(id).remove(id);
        patch.initializer(to_proto(output, &value));
        Ok(patch)
    }
}

fn to_proto(name: &str, value: &Tensor) -> TensorProto {
    let code = match value.dtype() {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I64 => DataType::Int64,
        DType::I32 => DataType::Int32,
        DType::I16 => DataType::Int16,
        DType::I8 => DataType::Int8,
        DType::U64 => DataType::Uint64,
        DType::U32 => DataType::Uint32,
        DType::U16 => DataType::Uint16,
        DType::U8 => DataType::Uint8,
        DType::Bool => DataType::Bool,
    };
    initializer_raw(name, code, value.shape(), value.bytes().clone())
}

fn fold(node: &NodeProto, inputs: &[Tensor]) -> Option<Tensor> {
    let ints = |at: usize| inputs.get(at)?.to_i64().ok();
    let first = inputs.first()?;
    let reshaped = |shape: Vec<usize>| Tensor::new(first.dtype(), shape, first.bytes().clone()).ok();
    match node.op_type() {
        "Shape" if node.attribute.is_empty() => {
            let dims: Vec<i64> = first.shape().iter().map(|&d| d as i64).collect();
            Some(Tensor::from_i64(&[dims.len()], &dims))
        }
        "Transpose" => transpose(first, node.attr_ints("perm")?),
        "Reshape" if node.attr_i("allowzero", 0) == 0 => reshaped(reshape(first.shape(), &ints(1)?)?),
        "Unsqueeze" => reshaped(unsqueeze(first.shape(), &ints(1)?)?),
        "Squeeze" => reshaped(squeeze(first.shape(), &ints(1)?)?),
        "Add" | "Sub" | "Mul" | "Div" => arithmetic(node.op_type(), first, inputs.get(1)?),
        "Concat" if node.attr_i("axis", -1) == 0 => concat(inputs),
        "Gather" if node.attr_i("axis", 0) == 0 && first.shape().len() == 1 => {
            let values = first.to_i64().ok()?;
            let picks = ints(1)?
                .into_iter()
                .map(|i| {
                    values.get(usize::try_from(if i < 0 { i + values.len() as i64 } else { i }).ok()?)
                })
                .map(|v| v.copied())
                .collect::<Option<Vec<i64>>>()?;
            Some(Tensor::from_i64(inputs[1].shape(), &picks))
        }
        "Cast" => match (first.dtype(), node.attr_i("to", 0)) {
            (DType::I64, 7) | (DType::F32, 1) => Some(first.clone()),
            (DType::I64, 1) => {
                let values: Vec<f32> = first.to_i64().ok()?.iter().map(|&v| v as f32).collect();
                Some(Tensor::from_f32(first.shape(), &values))
            }
            (DType::F32, 7) => {
                let values: Vec<i64> = first.to_f32().ok()?.iter().map(|&v| v as i64).collect();
                Some(Tensor::from_i64(first.shape(), &values))
            }
            _ => None,
        },
        _ => None,
    }
}

fn transpose(tensor: &Tensor, perm: &[i64]) -> Option<Tensor> {
    let shape = tensor.shape();
    let perm: Vec<usize> = perm.iter().map(|&p| usize::try_from(p).ok()).collect::<Option<_>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted != (0..shape.len()).collect::<Vec<_>>() {
        return None;
    }
    let size = tensor.dtype().size();
    let mut strides = vec![size; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        // A dimension of zero leaves nothing to walk, and the others free to be huge.
        strides[axis] = strides[axis + 1].checked_mul(shape[axis + 1])?;
    }
    let dims: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let steps: Vec<usize> = perm.iter().map(|&p| strides[p]).collect();
    let mut data = Vec::with_capacity(tensor.bytes().len());
    let mut index = vec![0; dims.len()];
    while data.len() < tensor.bytes().len() {
        let from: usize = index.iter().zip(&steps).map(|(i, s)| i * s).sum();
        data.extend_from_slice(&tensor.bytes()[from..from + size]);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Tensor::new(tensor.dtype(), dims, data.into()).ok()
}

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
    let mut known = dims.iter().filter(|&&d| d != usize::MAX);
    let known = known.try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if let Some(open) = dims.iter_mut().find(|d| **d == usize::MAX) {
        *open = count.checked_div(known)?;
    }
    Some(dims)
}

fn unsqueeze(from: &[usize], axes: &[i64]) -> Option<Vec<usize>> {
    let rank = from.len() + axes.len();
    let ones: Vec<usize> = axes
        .iter()
        .map(|&a| usize::try_from(if a < 0 { a + rank as i64 } else { a }).ok().filter(|&a| a < rank))
        .collect::<Option<_>>()?;
    let mut rest = from.iter().copied();
    (0..rank).map(|axis| if ones.contains(&axis) { Some(1) } else { rest.next() }).collect()
}

fn squeeze(from: &[usize], axes: &[i64]) -> Option<Vec<usize>> {
    let gone: Vec<usize> = axes
        .iter()
        .map(|&a| usize::try_from(if a < 0 { a + from.len() as i64 } else { a }).ok())
        .collect::<Option<_>>()?;
    if gone.iter().any(|&axis| from.get(axis) != Some(&1)) {
        return None;
    }
    Some(from.iter().enumerate().filter(|(axis, _)| !gone.contains(axis)).map(|(_, &d)| d).collect())
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
    use crate::ir::initializer_i64;

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
}
