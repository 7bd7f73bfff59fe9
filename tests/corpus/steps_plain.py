"""Steps of a random walk without products: element by element, shapes, no-ops, constants, twins."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from scope import BOOL, FLOAT, HALF, INT64, Scope, Value
from steps_nodes import known, reduce_axes, squeeze, transpose

UNARY = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Softplus", "Elu", "LeakyRelu"]
UNARY += ["Sin", "Cos", "Erf", "Softsign"]


def unary(scope: Scope) -> None:
    """A function of each element."""
    world = scope.world
    x = scope.pick()
    op = world.rng.choice(UNARY)
    if x is None or (op == "Erf" and world.opset < 9) or (op in ("Sin", "Cos") and world.opset < 7):
        return
    scope.op(op, [x], x.shape)


def binary(scope: Scope) -> None:
    """An element-wise operator with a constant or another value, with and without broadcasting."""
    world = scope.world
    x = scope.pick()
    if x is None:
        return
    op = world.rng.choice(["Add", "Sub", "Mul", "Div", "Max", "Min"])
    if op in ("Max", "Min") and world.opset < 8:
        op = "Add"
    other = scope.pick(where=lambda v: v.shape == x.shape)
    if op not in ("Mul", "Div") and world.chance(0.5):
        scope.op(op, [x, other], x.shape)
        return
    shapes = [(), (1,)]
    if known(x):
        shapes += [(x.shape[-1],), (1, x.shape[-1])]
    shape = world.rng.choice(shapes)
    array = (1 + np.abs(world.array(shape, 0.3))).astype(np.float32)
    if world.chance(0.2):
        array = np.full(shape, 0 if op in ("Add", "Sub") else 1, np.float32)
    made = x.shape if len(shape) <= x.rank else (1,) * (len(shape) - x.rank) + x.shape
    constant = scope.constant(array, "c")
    pair = [constant, x] if op in ("Add", "Mul", "Max", "Min") and world.chance(0.4) else [x, constant]
    scope.op(op, pair, made)


def no_op(scope: Scope) -> None:
    """A node that changes nothing, in one of the ways exporters leave them."""
    world = scope.world
    x = scope.pick()
    if x is None:
        return
    axes = list(range(x.rank))
    ways = ["Identity", "Dropout", "Cast", "Concat", "Transpose", "Turn"]
    way = world.rng.choice([*ways, "Pad", "Add", "Mul", "Squeeze", "Slice"])
    if way == "Identity":
        scope.op("Identity", [x], x.shape)
    elif way == "Dropout":
        if world.opset < 12:
            scope.op("Dropout", [x], x.shape, ratio=0.3)
        else:
            ratio = scope.constant(np.float32(0.3), "ratio", plain=True)
            inputs = world.rng.choice([[x], [x, ""], [x, ratio]])
            if world.chance(0.3):
                names = scope.node("Dropout", inputs, 2)
                scope.add(Value(names[0], FLOAT, x.shape))
                scope.add(Value(names[1], BOOL, x.shape))
            else:
                scope.op("Dropout", inputs, x.shape)
    elif way == "Cast":
        scope.op("Cast", [x], x.shape, to=FLOAT)
    elif way == "Concat" and x.rank:
        scope.op("Concat", [x], x.shape, axis=0)
    elif way == "Transpose" and x.rank:
        scope.op("Transpose", [x], x.shape, perm=axes)
    elif way == "Turn" and x.rank > 1:
        perm = axes[:]
        world.rng.shuffle(perm)
        turned = transpose(scope, x, perm)
        if world.chance(0.5):
            turned = scope.op("Tanh", [turned], turned.shape)
        transpose(scope, turned, [perm.index(at) for at in axes])
    elif way == "Pad" and x.rank:
        pads = [0] * (2 * x.rank)
        if world.chance(0.3):
            pads[-1] = 1
        shape = (*x.shape[:-1], x.shape[-1] + pads[-1]) if known(x) else x.shape
        if not known(x):
            pads[-1] = 0
        if world.opset < 11:
            scope.op("Pad", [x], shape, pads=pads, mode="constant")
        else:
            scope.op("Pad", [x, scope.ints(*pads, hint="pads")], shape)
    elif way == "Add":
        scope.op("Add", [x, scope.constant(np.float32(0), "zero")], x.shape)
    elif way == "Mul":
        scope.op("Mul", [scope.constant(np.float32(1), "one"), x], x.shape)
    elif way == "Squeeze" and x.rank < 5:
        axis = world.rng.randint(0, x.rank)
        wide = squeeze(scope, "Unsqueeze", x, [axis], (*x.shape[:axis], 1, *x.shape[axis:]))
        squeeze(scope, "Squeeze", wide, [axis], x.shape)
    elif way == "Slice" and x.rank:
        if world.opset < 10:
            scope.op("Slice", [x], x.shape, starts=[0], ends=[2**31 - 1], axes=[x.rank - 1])
        else:
            more = [scope.ints(x.rank - 1)] if world.chance(0.7) else []
            axis = [] if more else [scope.ints(0)]
            scope.op("Slice", [x, scope.ints(0), scope.ints(2**63 - 1), *more, *axis], x.shape)


def turn(scope: Scope) -> None:
    """A transposition, perhaps with an element-wise node or a second one behind it."""
    world = scope.world
    x = scope.pick(ranks=range(2, 6))
    if x is None:
        return
    perm = list(range(x.rank))
    world.rng.shuffle(perm)
    y = transpose(scope, x, perm)
    for _ in range(world.rng.randint(0, 2)):
        y = scope.op(world.rng.choice(["Relu", "Sigmoid", "Neg"]), [y], y.shape)
    if world.chance(0.6):
        world.rng.shuffle(perm)
        transpose(scope, y, perm)


def split(scope: Scope) -> None:
    """A value cut in parts along its last axis, in each opset's form."""
    world = scope.world
    x = scope.pick(ranks=range(1, 5), where=lambda v: known(v) and v.shape[-1] % 4 == 0)
    if x is None:
        return
    width = x.shape[-1]
    sizes = world.rng.choice([[width // 2, width // 2], [width // 4, width - width // 4], [width]])
    equal = len(set(sizes)) == 1
    inputs, attributes = [x], {"axis": world.rng.choice([-1, x.rank - 1])}
    if world.opset < 11:
        attributes["axis"] = x.rank - 1
    if equal and world.chance(0.4):
        if world.opset >= 18:
            attributes["num_outputs"] = len(sizes)
    elif world.opset < 13:
        attributes["split"] = sizes
    else:
        inputs.append(scope.ints(*sizes, hint="sizes"))
    names = scope.node("Split", inputs, len(sizes), **attributes)
    for name, size in zip(names, sizes, strict=True):
        scope.add(Value(name, FLOAT, (*x.shape[:-1], size)))


def reduce(scope: Scope) -> None:
    """A sum, mean or maximum over some axes, kept or not."""
    world = scope.world
    x = scope.pick(ranks=range(1, 6))
    if x is None:
        return
    op = world.rng.choice(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"])
    axes = world.rng.choice([[-1], [0], [x.rank - 1]]) if world.opset >= 11 else [x.rank - 1]
    y = reduce_axes(scope, op, x, axes, world.chance(0.5))
    if op in ("ReduceSum", "ReduceL2"):
        scope.op("Tanh", [y], y.shape)


def widen(scope: Scope) -> None:
    """A dimension of 1 added or taken away."""
    world = scope.world
    x = scope.pick(ranks=range(0, 5))
    if x is None:
        return
    if 1 in x.shape and world.chance(0.6):
        axis = x.shape.index(1)
        squeeze(scope, "Squeeze", x, [axis], (*x.shape[:axis], *x.shape[axis + 1 :]))
        return
    axis = world.rng.randint(0, x.rank)
    given = axis - x.rank - 1 if world.opset >= 11 and world.chance(0.3) else axis
    squeeze(scope, "Unsqueeze", x, [given], (*x.shape[:axis], 1, *x.shape[axis:]))


def reshape_by_shape(scope: Scope) -> None:
    """A Reshape to what Shape, Gather, Unsqueeze and Concat say, as exporters write it."""
    world = scope.world
    x = scope.pick(ranks=[3, 4], where=lambda v: known(v) and v.shape[-1] % 2 == 0)
    if x is None:
        return
    dims = []
    twins = world.chance(0.5)
    shape = scope.op("Shape", [x], (x.rank,), INT64)
    for at in range(x.rank - 1):
        source = scope.op("Shape", [x], (x.rank,), INT64) if twins else shape
        index = scope.constant(np.array(at, np.int64), "index", plain=True)
        dim = scope.op("Gather", [source, index], (), INT64, axis=0)
        dims.append(squeeze(scope, "Unsqueeze", dim, [0], (1,), INT64))
    width = x.shape[-1]
    if world.chance(0.5):
        half = scope.constant(np.array(width, np.int64), "width", plain=True)
        half = scope.node("Div", [half, scope.constant(np.array(2, np.int64), "two", plain=True)])[0]
        half = squeeze(scope, "Unsqueeze", half, [0], (1,), INT64)
        parts = [*dims, scope.ints(2, hint="heads"), half]
        made = (*x.shape[:-1], 2, width // 2)
    else:
        parts, made = [*dims, scope.ints(-1, hint="rest")], x.shape
    if len(made) > 5:
        return
    target = scope.op("Concat", parts, (len(made),), INT64, axis=0)
    scope.op("Reshape", [x, target], made)


def twins(scope: Scope) -> None:
    """Two equal nodes, and their sum; or two equal constants."""
    world = scope.world
    x = scope.pick()
    if x is None:
        return
    array = (1 + np.abs(world.array((), 0.1))).astype(np.float32)
    op = world.rng.choice(["Tanh", "Mul", "Neg"])
    pair = []
    for _ in range(2):
        inputs = [x, scope.constant(array.copy(), "twin")] if op == "Mul" else [x]
        pair.append(scope.op(op, inputs, x.shape))
    scope.op("Add", pair, x.shape)


def clip(scope: Scope) -> None:
    """Clip, with a bound left out."""
    world = scope.world
    x = scope.pick()
    if x is None:
        return
    if world.opset < 11:
        scope.op("Clip", [x], x.shape, max=0.9)
    else:
        bound = scope.constant(np.float32(0.9), "bound")
        scope.op("Clip", [x, "", bound] if world.chance(0.6) else [x, bound], x.shape)


def choose(scope: Scope) -> None:
    """Where, by a comparison with a value that no rounding moves."""
    x = scope.pick(where=lambda v: v.name.startswith("input"))
    if x is None or scope.world.opset < 9:
        return
    zero = scope.constant(np.float32(0), "zero", plain=True)
    test = scope.op("Greater", [x, zero], x.shape, BOOL)
    test = scope.op("Not", [test], x.shape, BOOL)
    scope.op("Where", [test, x, scope.op("Mul", [x, scope.scalar(0.5)], x.shape)], x.shape)


def casts(scope: Scope) -> None:
    """Through f16 and back: not a no-op."""
    x = scope.pick(where=lambda v: v.name.startswith("input"))
    if x is None:
        return
    half = scope.op("Cast", [x], x.shape, HALF, to=HALF)
    scope.op("Cast", [half], x.shape, to=FLOAT)


def concat(scope: Scope) -> None:
    """Values side by side; one of them perhaps without elements."""
    world = scope.world
    x = scope.pick(ranks=range(1, 5), where=known)
    if x is None:
        return
    other = scope.pick(where=lambda v: v.rank == x.rank and v.shape[:-1] == x.shape[:-1] and known(v))
    parts = [x, other]
    width = x.shape[-1] + other.shape[-1]
    if world.chance(0.3) and all(isinstance(dim, int) for dim in x.shape):
        parts.append(scope.constant(np.zeros((*x.shape[:-1], 0), np.float32), "none"))
    if width <= 256:
        scope.op("Concat", parts, (*x.shape[:-1], width), axis=x.rank - 1)


def unused(scope: Scope) -> None:
    """Nodes that nothing reads."""
    x = scope.pick()
    if x is not None:
        scope.node("Exp", [scope.node("Neg", [scope.node("Abs", [x])[0]])[0]])


def constant_arithmetic(scope: Scope) -> None:
    """Sums of constants, which can be done beforehand."""
    world = scope.world
    x = scope.pick(where=known)
    if x is None:
        return
    width = x.shape[-1]
    a = scope.constant(world.array((width,), 0.1), "a")
    b = scope.node("Mul", [a, scope.scalar(0.5)])[0]
    b = scope.node(world.rng.choice(["Neg", "Tanh", "Identity"]), [b])[0]
    if world.opset >= 9 and world.chance(0.5):
        fill = helper.make_tensor("fill", TensorProto.FLOAT, [1], [0.5])
        zeros = scope.node("ConstantOfShape", [scope.ints(width, hint="shape")], value=fill)[0]
        b = scope.node("Add", [b, zeros])[0]
    scope.op("Add", [x, b], x.shape)
