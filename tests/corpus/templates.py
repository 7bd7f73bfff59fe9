"""Steps of a random walk: each adds a few nodes that fit what is there, or does nothing where none does.

A step takes a scope, picks values by type and shape, and leaves what it made in sight. What it makes stays
near 1 in size, and has no jumps, so that two orders of the same sums agree to 1e-5 of the peak.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from scope import BOOL, FLOAT, HALF, INT64, Scope, Value, World

WIDTHS = [16, 32, 64, 96, 128]


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


def product(scope: Scope) -> None:
    """x W, W a matrix, one of a batch, or in the bodies of graphs around this one; perhaps with a bias."""
    world = scope.world
    x = scope.pick(ranks=range(1, 6), where=known)
    if x is None:
        return
    rows = x.shape[-1]
    columns = world.rng.choice(WIDTHS if world.chance(0.4) else [-(-4096 // rows), -(-8192 // rows)])
    batched = world.chance(0.15)
    shape = (1, rows, columns) if batched else (rows, columns)
    weight = scope.weight(shape, rows)
    made = (*x.shape[:-1], columns)
    if batched and x.rank < 3:
        made = (1, *made)
    y = scope.op("MatMul", [x, weight], made)
    if world.chance(0.5):
        bias = scope.constant(world.array((columns,), 0.1), "bias")
        pair = [y, bias] if world.chance(0.6) else [bias, y]
        y = scope.op("Add", pair, made)
    same = scope.pick(where=lambda v: v.shape == made and v != y)
    if same and world.chance(0.4):
        scope.op("Add", [same, y], made)


def product_of_left(scope: Scope) -> None:
    """W x, the weight on the left."""
    world = scope.world
    x = scope.pick(ranks=range(2, 5), where=lambda v: known(v, -2))
    if x is None:
        return
    inner = x.shape[-2]
    rows = world.rng.choice([32, -(-4096 // inner)])
    weight = scope.constant(world.array((rows, inner), inner**-0.5), "w")
    scope.op("MatMul", [weight, x], (*x.shape[:-2], rows, x.shape[-1]))


def product_of_values(scope: Scope) -> None:
    """x xᵀ / n: both sides come from inputs."""
    x = scope.pick(ranks=range(2, 5), where=known)
    if x is None:
        return
    perm = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    turned = transpose(scope, x, perm)
    scores = scope.op("MatMul", [x, turned], (*x.shape[:-1], x.shape[-2]))
    scaled = scope.op("Mul", [scores, scope.scalar(1 / x.shape[-1])], scores.shape)
    if scope.world.chance(0.5) and scope.world.opset >= 13:
        shares = scope.op("Softmax", [scaled], scaled.shape, axis=-1)
        scope.op("MatMul", [shares, x], x.shape)


def gemm(scope: Scope) -> None:
    """Gemm in all its forms: either side turned, alpha, beta, C of every shape or none."""
    world = scope.world
    x = scope.pick(ranks=[2], where=known)
    if x is None:
        deep = scope.pick(ranks=[3, 4], where=known)
        if deep is None:
            return
        x = scope.op("Reshape", [deep, scope.ints(-1, deep.shape[-1], hint="shape")], ("rows", deep.shape[-1]))
    rows, attributes = x.shape[-1], {}
    columns = world.rng.choice([16, 64, -(-4096 // rows)])
    left = x
    if world.chance(0.3):
        left = transpose(scope, x, [1, 0])
        attributes["transA"] = 1
    turned = world.chance(0.5)
    weight = scope.weight((columns, rows) if turned else (rows, columns), rows)
    if turned:
        attributes["transB"] = 1
    elif world.chance(0.2):
        attributes["transB"] = 0
    for name in ("alpha", "beta"):
        if world.chance(0.3):
            attributes[name] = world.rng.choice([0.5, 2.0, 1.0])
    shapes = [(columns,), (1, columns), (1,), (1, 1), ()]
    if isinstance(x.shape[0], int):
        shapes += [(x.shape[0], 1), (x.shape[0], columns)]
    inputs = [left, weight]
    if world.opset < 11 or world.chance(0.7):
        inputs.append(scope.constant(world.array(world.rng.choice(shapes), 0.1), "bias"))
    elif world.chance(0.3):
        inputs.append("")
    scope.op("Gemm", inputs, (x.shape[0], columns), **attributes)


def conv(scope: Scope) -> None:
    """A convolution of one or two dimensions, 1x1, depthwise or neither, perhaps between transposes."""
    world = scope.world
    x = scope.pick(ranks=[3, 4], where=lambda v: known(v, 1 if world.chance(0.5) else -1))
    if x is None:
        return
    turn = not known(x, 1)
    if turn:
        x = transpose(scope, x, [0, x.rank - 1, *range(1, x.rank - 1)])
    channels, spatial = x.shape[1], x.rank - 2
    kind = world.rng.choice(["1x1", "1x1", "depthwise", "wide"])
    size = 1 if kind == "1x1" else 3
    out = channels if kind == "depthwise" else world.rng.choice([16, 64, -(-4096 // channels)])
    if channels > 256 or out > 1024:
        return
    group = channels if kind == "depthwise" else 1
    fan_in = channels // group * size**spatial
    weight = scope.weight((out, channels // group, *[size] * spatial), fan_in)
    attributes = {"group": group} if group > 1 or world.chance(0.2) else {}
    if size > 1:
        attributes["pads"] = [1] * (2 * spatial)
    if world.chance(0.5):
        attributes["kernel_shape"] = [size] * spatial
    inputs = [x, weight]
    if world.chance(0.6):
        inputs.append(scope.constant(world.array((out,), 0.1), "bias"))
    y = scope.op("Conv", inputs, (x.shape[0], out, *x.shape[2:]), **attributes)
    if turn or world.chance(0.3):
        transpose(scope, y, [0, *range(2, y.rank), 1])


def layer_norm(scope: Scope) -> None:
    """LayerNormalization, whole or in its parts, perhaps with a product behind it."""
    world = scope.world
    x = scope.pick(ranks=range(2, 5), where=lambda v: known(v) and v.shape[-1] >= 16)
    if x is None:
        return
    width = x.shape[-1]
    gain = scope.constant((1 + world.array((width,), 0.1)).astype(np.float32), "gain")
    shift = scope.constant(world.array((width,), 0.1), "shift")
    if world.opset >= 17 and world.chance(0.7):
        inputs = [x, gain, shift] if world.chance(0.7) else [x, gain]
        attributes = {"epsilon": 1e-6} if world.chance(0.5) else {}
        if world.chance(0.2):
            names = [world.fresh("norm"), "", world.fresh("deviation")]
            scope.raw("LayerNormalization", inputs, names, axis=-1, **attributes)
            y = scope.add(Value(names[0], FLOAT, x.shape))
        else:
            y = scope.op("LayerNormalization", inputs, x.shape, axis=-1, **attributes)
    else:
        mean = reduce_axes(scope, "ReduceMean", x, [-1], True)
        off = scope.op("Sub", [x, mean], x.shape)
        square = scope.op("Mul", [off, off], x.shape)
        spread = reduce_axes(scope, "ReduceMean", square, [-1], True)
        root = scope.op("Sqrt", [scope.op("Add", [spread, scope.scalar(1e-2)], spread.shape)], spread.shape)
        unit = scope.op("Div", [off, root], x.shape)
        scaled = scope.op("Mul", [unit, gain], x.shape)
        y = scope.op("Add", [scaled, shift], x.shape)
    for _ in range(world.rng.choice([0, 1, 1, 2])):
        weight = scope.weight((width, 64), width)
        z = scope.op("MatMul", [y, weight], (*y.shape[:-1], 64))
        if world.chance(0.7):
            scope.op("Add", [z, scope.constant(world.array((64,), 0.1), "bias")], z.shape)


def attention(scope: Scope) -> None:
    """Queries, keys and values of one value, with heads, as exporters write them."""
    world = scope.world
    x = scope.pick(ranks=[3], where=lambda v: known(v) and v.shape[-1] >= 16)
    if x is None:
        return
    width, heads = x.shape[-1], 2
    size = 32
    sides = []
    for _ in range(3):
        y = scope.op("MatMul", [x, scope.weight((width, heads * size), width)], (*x.shape[:-1], heads * size))
        if world.chance(0.3):
            y = scope.op("Add", [y, scope.constant(world.array((heads * size,), 0.1), "bias")], y.shape)
        shape = (x.shape[0], x.shape[1], heads, size)
        y = scope.op("Reshape", [y, scope.ints(0, 0, heads, size, hint="shape")], shape)
        sides.append(transpose(scope, y, [0, 2, 1, 3]))
    query, key, value = sides
    turned = transpose(scope, key, [0, 1, 3, 2])
    scores = scope.op("MatMul", [query, turned], (x.shape[0], heads, x.shape[1], x.shape[1]))
    scores = scope.op("Div", [scores, scope.scalar(size**0.5)], scores.shape)
    if world.opset >= 13:
        scores = scope.op("Softmax", [scores], scores.shape, axis=-1)
    else:
        scores = scope.op("Softmax", [scores], scores.shape, axis=3)
    mixed = scope.op("MatMul", [scores, value], (x.shape[0], heads, x.shape[1], size))
    back = transpose(scope, mixed, [0, 2, 1, 3])
    flat = scope.op(
        "Reshape", [back, scope.ints(0, 0, heads * size, hint="shape")], (*x.shape[:2], heads * size)
    )
    scope.op("MatMul", [flat, scope.weight((heads * size, width), heads * size)], x.shape)


def embedding(scope: Scope) -> None:
    """A table's rows by ids; its head may be the same table, turned."""
    world = scope.world
    ids = scope.pick(INT64, ranks=range(0, 4), where=lambda v: v.name.startswith("ids"))
    if ids is None:
        return
    width = world.rng.choice([64, 96, 128])
    table = scope.constant(world.array((64, width)), "table")
    attributes = {"axis": 0} if world.chance(0.5) else {}
    x = scope.op("Gather", [table, ids], (*ids.shape, width), **attributes)
    if world.chance(0.5) and x.rank > 1:
        hidden = scope.op("Tanh", [x], x.shape)
        if hidden.rank == 2 and world.chance(0.5):
            inputs = [hidden, table]
            if world.opset < 11:
                inputs.append(scope.constant(np.zeros(1, np.float32), "zero"))
            scope.op("Gemm", inputs, (hidden.shape[0], 64), transB=1, alpha=width**-0.5)
        else:
            turned = scope.node("Transpose", [table], perm=[1, 0])[0]
            logits = scope.op("MatMul", [hidden, turned], (*hidden.shape[:-1], 64))
            scope.op("Mul", [logits, scope.scalar(width**-0.5)], logits.shape)


def weight_of_two(scope: Scope) -> None:
    """A weight that a product reads, and another node too."""
    world = scope.world
    x = scope.pick(ranks=[2, 3], where=known)
    if x is None:
        return
    rows = x.shape[-1]
    columns = -(-4096 // rows)
    weight = scope.constant(world.array((rows, columns), rows**-0.5), "w")
    y = scope.op("MatMul", [x, weight], (*x.shape[:-1], columns))
    total = reduce_axes(scope, "ReduceMean", Value(weight, FLOAT, (rows, columns)), [0], False)
    scope.op("Add", [y, total], y.shape)


UNARY = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Softplus", "Elu", "LeakyRelu", "Sin", "Cos", "Erf", "Softsign"]


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
    ways = ["Identity", "Dropout", "Cast", "Concat", "Transpose", "Turn", "Pad", "Add", "Mul", "Squeeze", "Slice"]
    way = world.rng.choice(ways)
    if way == "Identity":
        scope.op("Identity", [x], x.shape)
    elif way == "Dropout":
        if world.opset < 12:
            scope.op("Dropout", [x], x.shape, ratio=0.3)
        else:
            inputs = world.rng.choice([[x], [x, ""], [x, scope.constant(np.float32(0.3), "ratio", plain=True)]])
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


def half_product(scope: Scope) -> None:
    """A product in half precision."""
    world = scope.world
    x = scope.pick(ranks=[2, 3], where=known)
    if x is None:
        return
    rows = x.shape[-1]
    columns = -(-4096 // rows)
    half = scope.op("Cast", [x], x.shape, HALF, to=HALF)
    weight = scope.constant(world.array((rows, columns), rows**-0.5).astype(np.float16), "w")
    y = scope.op("MatMul", [half, weight], (*x.shape[:-1], columns), HALF)
    scope.op("Cast", [y], y.shape, to=FLOAT)
    world.half = True


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


def cache(scope: Scope) -> None:
    """What is new behind what a cache holds, which may be nothing."""
    past = scope.pick(ranks=[3], where=lambda v: v.name.startswith("past"))
    new = scope.pick(ranks=[3], where=lambda v: past and v.shape == ("b", "t", past.shape[2]))
    if past and new:
        total = scope.op("Concat", [past, new], ("b", "total", past.shape[2]), axis=1)
        product_with = scope.weight((past.shape[2], 64), past.shape[2])
        scope.op("MatMul", [total, product_with], ("b", "total", 64))


def recurrent(scope: Scope) -> None:
    """A GRU, its optional inputs left empty."""
    world = scope.world
    # ONNX Runtime ends the process at a GRU of no rows.
    x = scope.pick(ranks=[3], where=lambda v: known(v) and v.shape[-1] <= 64 and "p" not in v.shape)
    if x is None:
        return
    width, hidden = x.shape[-1], 16
    inputs = [
        x,
        scope.constant(world.array((1, 3 * hidden, width), width**-0.5), "w"),
        scope.constant(world.array((1, 3 * hidden, hidden), hidden**-0.5), "r"),
        *(["", "", ""] if world.chance(0.5) else []),
    ]
    names = [world.fresh("sequence"), world.fresh("last")]
    scope.raw("GRU", inputs, names if world.chance(0.5) else ["", names[1]], hidden_size=hidden)
    scope.add(Value(names[1], FLOAT, (1, x.shape[1], hidden)))


def unused(scope: Scope) -> None:
    """Nodes that nothing reads."""
    x = scope.pick()
    if x is not None:
        scope.node("Exp", [scope.node("Neg", [scope.node("Abs", [x])[0]])[0]])


def chance(scope: Scope) -> None:
    """Two random values that are not the same: their difference is an output."""
    world = scope.world
    if scope.parent or scope.bare:
        return
    way = world.rng.choice(["uniform", "like", "dropout", "function", "nested"])
    if way == "dropout" and world.opset < 12:
        way = "uniform"
    if way in ("function", "nested") and world.ir < 8:
        way = "like"
    x = scope.pick(INT64, ranks=[1, 2], where=lambda v: v.name.startswith("ids"))
    if x is None:
        return
    floats = scope.op("Cast", [x], x.shape, to=FLOAT)
    pair = []
    for _ in range(2):
        if way == "uniform":
            pair.append(scope.op("RandomUniform", [], (3, 5), shape=[3, 5]))
        elif way == "like":
            pair.append(scope.op("RandomNormalLike", [floats], x.shape, dtype=FLOAT))
        elif way == "dropout":
            one = scope.op("Add", [floats, scope.constant(np.full(64, 1, np.float32)[:, None], "ones", True)],
                           (64, x.shape[-1]))
            ratio = scope.constant(np.float32(0.5), "ratio", plain=True)
            on = scope.constant(np.array(True), "on", plain=True)
            pair.append(scope.op("Dropout", [one, ratio, on], one.shape))
        else:
            name = noisy(world, way == "nested")
            pair.append(scope.op(name, [floats], x.shape, domain="acme.random"))
    if way == "dropout" and x.rank != 1:
        return
    scope.op("Tanh", [pair[0]], pair[0].shape)
    random = scope.op("Sub", pair, pair[0].shape)
    world.random.add(random.name)
    for value in [random, *pair]:
        scope.values.remove(value)
    scope.values.pop()
    world.outputs.append(random)


def noisy(world: World, nested: bool) -> str:
    """A function that gives what it is given, with noise; `nested` where another one makes the noise."""
    domain = "acme.random"
    world.domains.add(domain)
    imports = [helper.make_opsetid("", world.opset), helper.make_opsetid(domain, 1)]
    noise = helper.make_node("RandomNormalLike", ["x"], ["n"], dtype=FLOAT)
    last = helper.make_node("Add", ["x", "n"], ["y"])
    inner = helper.make_function(domain, "Noisy", ["x"], ["y"], [noise, last], imports)
    world.functions[f"{domain}.Noisy"] = inner
    if nested:
        calls = [helper.make_node("Noisy", ["x"], ["y"], domain=domain)]
        outer = helper.make_function(domain, "Outer", ["x"], ["y"], calls, imports)
        world.functions[f"{domain}.Outer"] = outer
    return "Outer" if nested else "Noisy"


FOREIGN = ["MatMul", "Gather", "Identity", "Transpose", "Cast", "Add", "Mul", "Constant", "Conv", "Dropout"]


def foreign(scope: Scope) -> None:
    """A function of another domain that has an ONNX operator's name and means something else."""
    world = scope.world
    if world.ir < 8 or scope.bare:
        return
    domain, op = world.rng.choice(["acme", "com.acme.ops"]), world.rng.choice(FOREIGN)
    imports = [helper.make_opsetid("", world.opset)]
    world.domains.add(domain)
    key = f"{domain}.{op}"
    if op == "Constant":
        node = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("", FLOAT, [1], [0.25]))
        world.functions.setdefault(key, helper.make_function(domain, op, [], ["y"], [node], imports))
        y = scope.op(op, [], (1,), domain=domain)
        return
    if op in ("MatMul", "Conv", "Gather"):
        x = scope.pick(ranks=[2, 3], where=known)
        if x is None:
            return
        rows = x.shape[-1]
        columns = -(-4096 // rows) if op != "Gather" else rows
        nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Neg", ["m"], ["y"])]
        made = helper.make_function(domain, op, ["x", "w"], ["y"], nodes, imports)
        world.functions.setdefault(key, made)
        weight = scope.constant(world.array((rows, columns), rows**-0.5), "w")
        scope.op(op, [x, weight], (*x.shape[:-1], columns), domain=domain)
        return
    x = scope.pick()
    if x is None:
        return
    if op in ("Add", "Mul"):
        nodes = [helper.make_node("Sub", ["a", "b"], ["y"])]
        world.functions.setdefault(key, helper.make_function(domain, op, ["a", "b"], ["y"], nodes, imports))
        scope.op(op, [x, scope.constant(np.float32(op == "Mul"), "c")], x.shape, domain=domain)
    else:
        nodes = [helper.make_node("Neg", ["x"], ["y"])]
        world.functions.setdefault(key, helper.make_function(domain, op, ["x"], ["y"], nodes, imports))
        scope.op(op, [x], x.shape, domain=domain)


def contributed(scope: Scope) -> None:
    """An operator of ONNX Runtime's own domain."""
    world = scope.world
    x = scope.pick(ranks=[2, 3], where=known)
    if x is None or scope.bare:
        return
    world.domains.add("com.microsoft")
    if world.chance(0.5):
        scope.op("Gelu", [x], x.shape, domain="com.microsoft")
    else:
        rows = x.shape[-1]
        columns = -(-4096 // rows)
        weight = scope.constant(world.array((columns, rows), rows**-0.5), "w")
        made = (*x.shape[:-1], columns)
        scope.op("FusedMatMul", [x, weight], made, domain="com.microsoft", transB=1, alpha=0.5)


SIMPLE = [product, product, unary, unary, binary, no_op, turn, split, reduce, twins, clip, gemm, layer_norm]


def call(scope: Scope) -> None:
    """A local function, made now or before, called once or several times, with attributes by reference."""
    world = scope.world
    if world.ir < 8 or scope.bare:
        return
    x = scope.pick(ranks=[2, 3], where=known)
    if x is None:
        return
    width = x.shape[-1]
    name = f"Block{width}_{x.rank}_{world.rng.randint(0, 1)}"
    key = f"acme.blocks.{name}"
    if key not in world.functions:
        body = Scope(world, bare=True)
        given = Value("x", FLOAT, x.shape)
        body.add(given)
        scaled = body.op("MatMul", [given, "w"], x.shape)
        leaky = body.op("LeakyRelu", [scaled], x.shape)
        for attribute in body.nodes[-1].attribute:
            body.nodes[-1].attribute.remove(attribute)
        slope = body.nodes[-1].attribute.add()
        slope.name, slope.ref_attr_name, slope.type = "alpha", "slope", 1
        for _ in range(world.rng.randint(0, 3)):
            world.rng.choice(SIMPLE)(body)
        if world.chance(0.3):
            noise = world.fresh("inner")
            body.raw("Identity", [leaky], [noise])
            leaky = Value(noise, FLOAT, x.shape)
        body.raw("Add", [leaky, given], ["y"])
        domain = "acme.blocks"
        imports = [helper.make_opsetid("", world.opset)]
        made = helper.make_function(domain, name, ["x", "w"], ["y"], body.nodes, imports, ["slope"])
        world.functions[key] = made
        world.domains.add(domain)
    weight = scope.weight((width, width), width)
    y = x
    for _ in range(world.rng.randint(1, 3)):
        y = scope.op(name, [y, weight], x.shape, domain="acme.blocks", slope=world.rng.choice([0.1, 0.5]))
        y = scope.op("Tanh", [y], x.shape)


def branch(scope: Scope) -> None:
    """If: both sides read what is around them, and have weights and products of their own."""
    world = scope.world
    if scope.depth > 1 or scope.bare:
        return
    x = scope.pick(ranks=[2, 3], where=known)
    flag = scope.pick(BOOL, ranks=[0])
    if x is None or flag is None:
        return
    sides = []
    before = set(world.used)
    for side in ("then", "else"):
        if world.chance(0.3):
            # Sides may use the same names as each other.
            world.used &= before
            world.count = len(before)
        body = Scope(world, parent=scope)
        for _ in range(world.rng.randint(0, 3)):
            world.rng.choice([*SIMPLE, branch])(body)
        weight = body.weight((x.shape[-1], 64), x.shape[-1])
        y = body.op("MatMul", [x, weight], (*x.shape[:-1], 64))
        if world.chance(0.4):
            y = body.op("Identity", [y], y.shape)
        sides.append(body.graph(side, [y]))
        before |= world.used
    world.used |= before
    then, other = sides
    scope.op("If", [flag], (*x.shape[:-1], 64), then_branch=then, else_branch=other)


def loop(scope: Scope) -> None:
    """Loop: a carried value, a product inside, weights from around it, and what each turn gives."""
    world = scope.world
    if scope.depth > 0 or scope.bare:
        return
    x = scope.pick(ranks=[2, 3], where=known)
    if x is None:
        return
    width = x.shape[-1]
    outer = scope.weight((width, width), width) if world.chance(0.5) else None
    body = Scope(world, parent=scope)
    turn_, go, state = (world.fresh(hint) for hint in ("turn", "go", "state"))
    carried = Value(state, FLOAT, x.shape)
    body.inputs = [Value(turn_, INT64, ()), Value(go, BOOL, ()), carried]
    body.add(carried)
    for _ in range(world.rng.randint(0, 2)):
        world.rng.choice(SIMPLE)(body)
    y = body.op("MatMul", [carried, outer or body.weight((width, width), width)], x.shape)
    y = body.op("Tanh", [y], x.shape)
    on = Value(body.node("Identity", [go])[0], BOOL, ())
    scan = Value(body.node("Identity", [y])[0], FLOAT, x.shape)
    trips = scope.constant(np.array(world.rng.randint(1, 3), np.int64), "trips", plain=True)
    condition = "" if world.chance(0.5) else scope.constant(np.array(True), "true", plain=True)
    body.inputs = [body.inputs[0], body.inputs[1], *body.inputs[2:]]
    graph = body.graph("body", [on, y, scan])
    names = [world.fresh("loop"), world.fresh("scan")]
    scope.raw("Loop", [trips, condition, x], names, body=graph)
    scope.add(Value(names[0], FLOAT, x.shape))
    if x.rank < 5:
        scope.add(Value(names[1], FLOAT, ("turns", *x.shape)))


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


def scaled(scope: Scope) -> None:
    """A product or convolution beside multiplications by constants, which can be folded into it."""
    world = scope.world
    x = scope.pick(ranks=[2, 3], where=known)
    if x is None:
        return
    width = x.shape[-1]
    factor = (1 + world.array((width,), 0.1)).astype(np.float32)
    y = scope.op("Mul", [x, scope.constant(factor, "gain")], x.shape) if world.chance(0.5) else x
    y = scope.op("MatMul", [y, scope.weight((width, 64), width)], (*x.shape[:-1], 64))
    if world.chance(0.5):
        y = scope.op("Add", [y, scope.constant(world.array((64,), 0.1), "bias")], y.shape)
    gain = world.rng.choice([world.array((64,), 0.5), np.float32(1.5)])
    z = scope.op("Mul", [y, scope.constant(gain, "gain")], y.shape)
    same = scope.pick(where=lambda v: v.shape == z.shape and v != z)
    if same:
        scope.op("Add", [same, z], z.shape)


STEPS = [
    *(4 * [product]),
    *(2 * [gemm, conv, layer_norm, binary, no_op, turn, branch, loop, call, foreign]),
    *[product_of_left, product_of_values, attention, embedding, embedding, weight_of_two, unary, unary, split],
    *[reduce, widen, reshape_by_shape, twins, clip, choose, casts, concat, cache, recurrent, unused, chance],
    *[contributed, constant_arithmetic, scaled, half_product],
]
