"""Random ONNX graphs: the same seed and index give the same bytes.

A graph is a walk over the steps of `steps.py`. One that `onnx.checker` or ONNX Runtime refuses, or
whose values are not finite, is made again with the next attempt; how many were is part of the result.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numerics
import numpy as np
import onnx
from case import Case
from onnx import helper
from scope import BOOL, FLOAT, INT64, Scope, Value, World
from steps import STEPS

# What ONNX Runtime takes as released with ONNX 1.21: opset 26; local functions need IR 8.
OPSETS = range(7, 27)
ATTEMPTS = 20
# Inputs that a caller gives; all others are initializers too.
GIVEN = ("input", "input.2", "ids", "flag", "past")
# Open dimensions of each set of inputs: a step, several rows, and a long one with a cache.
DIMS = [{"b": 1, "t": 1, "p": 0}, {"b": 2, "t": 5, "p": 3}, {"b": 1, "t": 9, "p": 1}]


def draw(seed: int, index: int, attempt: int) -> Case:
    """One attempt at a graph, not yet known to be valid."""
    rng = random.Random(f"{seed}/{index}/{attempt}")
    opset = rng.choice(OPSETS)
    lowest = 3 if opset < 15 else 8
    world = World(
        rng=rng,
        opset=opset,
        ir=rng.choice([ir for ir in range(lowest, 14) if ir >= 8 or rng.random() < 0.5] or [8]),
        names=rng.choice(["plain", "plain", "torch", "numbers", "odd", "taken", "taken"]),
        node_names=rng.choice(["own", "own", "none", "reused", "taken", "some"]),
        constants=rng.choice(["initializer", "initializer", "mixed", "mixed", "node", "typed"]),
    )
    scope = Scope(world)
    fixed = rng.random() < 0.3
    sizes = {"b": 2, "t": 4, "p": 1} if fixed else {}
    width = rng.choice([32, 64, 64, 96])

    def give(name: str, dtype: int, *shape) -> None:
        value = Value(name, dtype, tuple(sizes.get(dim, dim) for dim in shape))
        world.used.add(name)
        scope.inputs.append(value)
        scope.add(value)

    give("input", FLOAT, *rng.choice([("b", "t", width), ("t", width), ("b", "t", width), (width,)]))
    if rng.random() < 0.4:
        give("input.2", FLOAT, *rng.choice([(), (1, "t", width), ("b", 2, "t", 32), ("b", 1, 2, "t", 16)]))
    if rng.random() < 0.6:
        give("ids", INT64, *rng.choice([(), ("t",), ("b", "t")]))
    if rng.random() < 0.5:
        give("flag", BOOL)
    if rng.random() < 0.3:
        give("past", FLOAT, "b", "p", width)
    for _ in range(rng.choice([0, 1, 2, 3, 5, 8, 12])):
        rng.choice(STEPS)(scope)

    made = [v for v in scope.values if v not in scope.inputs]
    outputs = rng.sample(made, min(len(made), rng.randint(1, 3)))
    if made and made[-1] not in outputs:
        outputs.append(made[-1])
    outputs += [v for v in world.outputs if v not in outputs]
    if not outputs:
        if rng.random() < 0.5:
            outputs = scope.inputs[:1]
        else:
            x = scope.inputs[0]
            outputs = [Value(scope.node("Identity", [x])[0], x.dtype, x.shape)]
    graph = scope.graph("random", outputs)
    if rng.random() < 0.3:
        known = [v for v in made if v not in outputs]
        graph.value_info.extend(v.info() for v in rng.sample(known, len(known) // 2))
    if rng.random() < 0.2:
        graph.doc_string = "a random graph"
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in sorted(world.domains))]
    model = helper.make_model(
        graph, opset_imports=imports, ir_version=world.ir, functions=list(world.functions.values())
    )
    if rng.random() < 0.2:
        helper.set_model_props(model, {"a": "1", "empty": ""})

    case = Case(f"random {seed}/{index}", model, random=frozenset(world.random), half=world.half)
    case.storage = rng.choice([*["plain"] * 12, "external", "linked", "packed", "loose"])
    overridable = dict(world.overridable)
    base = rng.getrandbits(32)
    for at, dims in enumerate(DIMS):
        overrides = overridable if at == 2 else {}
        case.feeds.append(feeder(scope.inputs, overrides, base + at, dims))
    return case


def feeder(inputs: list[Value], overrides: dict, seed: int, dims: dict) -> Callable[[], dict]:
    """How one set of inputs is made: seeded values, open dimensions as given, overrides a little changed."""

    def feed() -> dict:
        rng = np.random.default_rng(seed)
        values = {}
        for value in inputs:
            if value.name not in GIVEN:
                continue
            shape = tuple(dims.get(dim, dim) for dim in value.shape)
            if value.dtype == INT64:
                values[value.name] = rng.integers(0, 64, shape, np.int64)
            elif value.dtype == BOOL:
                values[value.name] = np.array(bool(seed % 2))
            else:
                values[value.name] = rng.standard_normal(shape).astype(np.float32)
        for name, array in overrides.items():
            values[name] = np.asarray(array * 1.25, array.dtype)
        return values

    return feed


def valid(case: Case) -> str | None:
    """Why a graph is of no use; nothing where checker and ONNX Runtime take it and its values are finite.

    ONNX Runtime's own rewrites must leave its values alone, too: some have faults, and where sums cancel out
    no rewrite keeps 1e-5.
    """
    try:
        onnx.checker.check_model(case.model)
    except Exception as error:
        return f"checker: {error}"
    try:
        data = case.model.SerializeToString()
        sessions = [numerics.session(data, optimized) for optimized in (False, True)]
        for feed in case.feeds:
            want, got = (numerics.run(one, feed()) for one in sessions)
            for name, value in want.items():
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    return "values: not finite"
                if value.dtype.kind == "f" and value.size and np.abs(value).max() > 1e4:
                    return "values: too large"
                if name not in case.random and (why := numerics.differs(value, got[name], case.half)):
                    return f"ONNX Runtime's rewrites: {why}"
    except Exception as error:
        return f"ONNX Runtime: {error}"
    return None


def make(seed: int, index: int) -> tuple[Case, list[str]]:
    """A valid graph, and why the attempts before it were not."""
    reasons = []
    for attempt in range(ATTEMPTS):
        case = draw(seed, index, attempt)
        why = valid(case)
        if why is None:
            return case, reasons
        reasons.append(why)
    raise RuntimeError(f"no valid graph in {ATTEMPTS} attempts: {reasons}")
