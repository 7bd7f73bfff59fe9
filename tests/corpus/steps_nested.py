"""Steps of a random walk that make graphs of their own: If, Loop and local functions of any name."""

from __future__ import annotations

import numpy as np
from onnx import helper
from scope import BOOL, FLOAT, INT64, Scope, Value, World
from steps_nodes import known
from steps_plain import binary, clip, no_op, reduce, split, turn, twins, unary
from steps_weighted import gemm, layer_norm, product

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
    graph = body.graph("body", [on, y, scan])
    names = [world.fresh("loop"), world.fresh("scan")]
    scope.raw("Loop", [trips, condition, x], names, body=graph)
    scope.add(Value(names[0], FLOAT, x.shape))
    if x.rank < 5:
        scope.add(Value(names[1], FLOAT, ("turns", *x.shape)))


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
        scope.op(op, [], (1,), domain=domain)
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
            ones = scope.constant(np.ones((64, 1), np.float32), "ones", plain=True)
            one = scope.op("Add", [floats, ones], (64, x.shape[-1]))
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
