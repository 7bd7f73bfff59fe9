"""What is read off a model: its nodes, its products, how much it holds, and whether two are the same."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
from nested import bodies
from onnx import numpy_helper
from products import constants

RANDOM = {"Multinomial", "Bernoulli"}
RANDOM |= {f"Random{kind}{like}" for kind in ("Normal", "Uniform") for like in ("", "Like")}
# Products below this many weights gain nothing in 8 bits.
SMALLEST = 4096


def nodes_of(graph) -> list[onnx.NodeProto]:
    """The nodes of a graph or function and of every body in it."""
    found = []
    for node in graph.node:
        found.append(node)
        for body in bodies(node):
            found += nodes_of(body)
    return found


def all_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Every node, in bodies and functions too."""
    return nodes_of(model.graph) + [node for f in model.functions for node in nodes_of(f)]


def is_left_out(model: onnx.ModelProto) -> bool:
    """Whether every value is an integer that was rounded to: `diff --run` compares none of those."""
    ops = {node.op_type for node in model.graph.node} - {"QuantizeLinear"}
    return all(op.startswith("QLinear") or op.endswith("Integer") for op in ops)


def is_random(model: onnx.ModelProto) -> bool:
    """Whether its values differ from run to run."""

    def one(node):
        training = node.op_type == "Dropout" and len(node.input) > 2
        return node.op_type in RANDOM or training

    return any(map(one, all_nodes(model)))


def products(model: onnx.ModelProto) -> list[str]:
    """Every product of f32 with a constant of SMALLEST elements or more, as what it is."""
    # Where shapes can't be inferred, products by what is behind a Transpose are not found.
    with contextlib.suppress(Exception):
        model = onnx.shape_inference.infer_shapes(model)
    found: list[str] = []
    free = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
    listed(model.graph, {}, free, "", found)
    return found


def listed(graph, around: dict, free: set[str], place: str, found: list[str]) -> None:
    """The products of a graph and its bodies; constants are held as (shape, how they are held)."""
    held = dict(around)
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    for tensor in graph.initializer:
        if tensor.name not in free:
            kind = "initializer" if tensor.data_type == 1 else "f16 initializer"
            held[tensor.name] = list(tensor.dims), kind
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                listed(attribute.g, held, set(), f" in {node.op_type}", found)
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Constant":
            shapes = [list(a.t.dims) if a.HasField("t") else [len(a.floats)] for a in node.attribute]
            held[node.output[0]] = shapes[0], "Constant"
        elif node.op_type in ("Transpose", "Identity", "Cast", "Reshape") and node.input[0] in held:
            how = held[node.input[0]][1]
            held[node.output[0]] = sizes.get(node.output[0], []), f"{node.op_type} of {how}"
        elif node.op_type in ("MatMul", "Gemm"):
            sides = [name for name in node.input[:2] if name in held]
            if len(sides) == 1 and np.prod(held[sides[0]][0], dtype=int) >= SMALLEST:
                shape, how = held[sides[0]]
                left = " on the left" if node.input[0] in held else ""
                rank = f" of {len(shape)} dimensions" if len(shape) != 2 else ""
                found.append(f"{node.op_type} by {how}{rank}{left}{place}")


def load(path: Path) -> onnx.ModelProto:
    """A model with all its weights, however they are stored."""
    return onnx.load(path)


def same(a: onnx.ModelProto, b: onnx.ModelProto) -> bool:
    """Whether two models hold the same, their weights wherever they are."""
    return plain(a) == plain(b)


def same_graph(a: onnx.ModelProto, b: onnx.ModelProto) -> bool:
    """Whether two models compute the same by the same nodes, whatever is written beside."""
    return [bare(node) for node in a.graph.node] == [bare(node) for node in b.graph.node]


def bare(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node without what is only written beside it."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for name in ("doc_string", "metadata_props"):
        copy.ClearField(name)
    return copy


def plain(model: onnx.ModelProto) -> bytes:
    """A model's bytes without where its weights were stored."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        tensor.ClearField("data_location")
        del tensor.external_data[:]
        if tensor.data_type in (1, 7) and not tensor.raw_data:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return copy.SerializeToString(deterministic=True)


def where(a: onnx.ModelProto, b: onnx.ModelProto) -> str:
    """The first field in which two models differ."""

    def walk(x, y, path: str) -> str | None:
        for field_ in x.DESCRIPTOR.fields:
            p, q = getattr(x, field_.name), getattr(y, field_.name)
            if p == q:
                continue
            name = f"{path}.{field_.name}"
            if field_.message_type is None:
                return name
            if hasattr(p, "ListFields"):
                return walk(p, q, name) or name
            if len(p) != len(q):
                return f"{name} has {len(p)} and {len(q)}"
            for one, other in zip(p, q, strict=True):
                if one != other:
                    return walk(one, other, name) or name
        return None

    return walk(a, b, "model") or "nothing"


def held_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all constants, in initializers and nodes."""
    tensors = list(model.graph.initializer)
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            tensors += attribute.tensors
        for body in bodies(node):
            tensors += body.initializer
    lists = [a for node in all_nodes(model) for a in node.attribute]
    numbers = sum(4 * len(a.floats) + 8 * len(a.ints) for a in lists)
    arrays = [numpy_helper.to_array(t) for t in tensors if t.data_type != onnx.TensorProto.STRING]
    return numbers + sum(array.nbytes for array in arrays)


def folded_bytes(model: onnx.ModelProto) -> int:
    """Bytes that folding may add: results no larger than what they are made of, one for each such node."""
    fixed, total = constants(model), 0
    sizes = {t.name: numpy_helper.to_array(t).nbytes for t in model.graph.initializer if t.data_type != 8}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values = [a.t for a in node.attribute if a.HasField("t")]
            sizes[node.output[0]] = sum(numpy_helper.to_array(t).nbytes for t in values) or 64
        elif node.output and node.output[0] in fixed:
            size = max((sizes.get(name, 0) for name in node.input), default=0)
            sizes[node.output[0]] = size
            total += size
    return total
