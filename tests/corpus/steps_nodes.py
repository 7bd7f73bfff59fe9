"""Nodes that several steps add, each in the form that the graph's opset has."""

from __future__ import annotations

from scope import FLOAT, Scope, Value


def known(value: Value, axis: int = -1) -> bool:
    """Whether that dimension is a number above 1."""
    return value.rank > 0 and isinstance(value.shape[axis], int) and value.shape[axis] > 1


def reduce_axes(scope: Scope, op: str, x: Value, axes: list[int], keep: bool) -> Value:
    """A reduction, its axes where its opset has them."""
    since = 13 if op == "ReduceSum" else 18
    normal = {axis % x.rank for axis in axes}
    shape = [1 if at in normal else dim for at, dim in enumerate(x.shape) if keep or at not in normal]
    if scope.world.opset < since:
        return scope.op(op, [x], shape, axes=axes, keepdims=int(keep))
    return scope.op(op, [x, scope.ints(*axes)], shape, keepdims=int(keep))


def squeeze(scope: Scope, op: str, x, axes: list[int], shape, dtype: int = FLOAT) -> Value:
    """Squeeze or Unsqueeze, its axes where its opset has them."""
    if scope.world.opset < 13:
        return scope.op(op, [x], shape, dtype, axes=axes)
    return scope.op(op, [x, scope.ints(*axes)], shape, dtype)


def transpose(scope: Scope, x: Value, perm: list[int]) -> Value:
    """A transposition, its order left out where it is the reverse and may be."""
    shape = [x.shape[at] for at in perm]
    if perm == list(range(x.rank))[::-1] and scope.world.chance(0.5):
        return scope.op("Transpose", [x], shape, x.dtype)
    return scope.op("Transpose", [x], shape, x.dtype, perm=perm)
