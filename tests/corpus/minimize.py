"""A failing model made small: outputs, nodes and what hangs on them go while the same fault stays."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx
from case import Case
from models import all_nodes
from nested import bodies
from numerics import run, session
from onnx import helper
from verbs import Fault, Trial


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without nodes, constants, functions and notes that its outputs don't need."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    while True:
        read = {name for node in all_nodes(made) for name in node.input}
        read |= {output.name for output in graph.output}
        for node in all_nodes(made):
            for body in bodies(node):
                read |= {output.name for output in body.output}
        kept = [node for node in graph.node if any(name in read for name in node.output)]
        if len(kept) == len(graph.node):
            break
        kept = [_copy(node) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)
    for of in ("initializer", "input"):
        kept = [_copy(one) for one in getattr(graph, of) if one.name in read]
        graph.ClearField(of)
        getattr(graph, of).extend(kept)
    graph.ClearField("value_info")
    called = {(node.domain, node.op_type) for node in all_nodes(made)}
    kept = [_copy(one) for one in made.functions if (one.domain, one.name) in called]
    made.ClearField("functions")
    made.functions.extend(kept)
    return made


def _copy(message):
    made = type(message)()
    made.CopyFrom(message)
    return made


def without(model: onnx.ModelProto, at: int, values: dict) -> onnx.ModelProto:
    """The model with the outputs of one node given as inputs instead."""
    made = _copy(model)
    names = [name for name in made.graph.node[at].output if name]
    del made.graph.node[at]
    for name in names:
        kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
        made.graph.input.append(helper.make_tensor_value_info(name, kind, [None] * values[name].ndim))
    return made


def minimize(case: Case, fault: Fault, tool: Path, seed: int) -> tuple[Case, Fault]:
    """The smallest model found that has the same kind of fault, and the fault as it shows there."""
    shown = _copy(case.model)
    outputs = {output.name for output in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name and name not in outputs]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    whole = session(shown.SerializeToString(), optimized=False)
    values = []
    for feed in case.feeds:
        given = feed()
        values.append({**run(whole, given), **given})

    def attempt(model: onnx.ModelProto, **changes) -> tuple[Case, Fault] | None:
        model = pruned(model)
        held = {value.name for value in model.graph.input}
        feeds = [{name: value for name, value in one.items() if name in held}.copy for one in values]
        made = dataclasses.replace(case, model=model, feeds=feeds, **changes)
        try:
            onnx.checker.check_model(model)
            session(model.SerializeToString(), optimized=False)
            with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
                found = Trial(made, tool, Path(folder), seed, fault.verb).all().faults
        except Exception:
            return None
        same = [one for one in found if (one.verb, one.kind) == (fault.verb, fault.kind)]
        return (made, same[0]) if same else None

    best = attempt(case.model, storage="plain") or attempt(case.model)
    if best is None:
        return case, fault
    for output in list(case.model.graph.output):
        one = _copy(best[0].model)
        one.graph.ClearField("output")
        one.graph.output.append(output)
        if smaller := attempt(one, storage=best[0].storage):
            best = smaller
            break
    at = len(best[0].model.graph.node) - 1
    while at >= 0:
        nodes = best[0].model.graph.node
        if at < len(nodes):
            smaller = attempt(without(best[0].model, at, values[0]), storage=best[0].storage)
            best = smaller or best
        at = min(at, len(best[0].model.graph.node)) - 1
    return best
