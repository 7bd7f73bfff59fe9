"""Steps of a random walk that hold weights: products in all their forms, convolutions, norms, tables."""

from __future__ import annotations

import numpy as np
from scope import FLOAT, HALF, INT64, Scope, Value
from steps_nodes import known, reduce_axes, transpose

WIDTHS = [16, 32, 64, 96, 128]


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
        shape = scope.ints(-1, deep.shape[-1], hint="shape")
        x = scope.op("Reshape", [deep, shape], ("rows", deep.shape[-1]))
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


def recurrent(scope: Scope) -> None:
    """A GRU, its optional inputs left empty."""
    world = scope.world
    # Layers of no rows are left out.
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


def cache(scope: Scope) -> None:
    """What is new behind what a cache holds, which may be nothing."""
    past = scope.pick(ranks=[3], where=lambda v: v.name.startswith("past"))
    new = scope.pick(ranks=[3], where=lambda v: past and v.shape == ("b", "t", past.shape[2]))
    if past and new:
        total = scope.op("Concat", [past, new], ("b", "total", past.shape[2]), axis=1)
        product_with = scope.weight((past.shape[2], 64), past.shape[2])
        scope.op("MatMul", [total, product_with], ("b", "total", 64))


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
