"""Integer products that no processor rounds.

Without VNNI, ONNX Runtime multiplies unsigned activations by signed weights of 8 bits in pairs that it adds
in 16 bits, which full weights overflow: the same file is other numbers there. Where a file's own numbers are
asked for, its weights are made unsigned, with a zero point that is as much larger; such products are added
in 32 bits.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import onnx
from nested import bodies
from onnx import TensorProto, helper


def overflows() -> bool:
    """Whether this processor is one of those."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return bool(flags) and not any("vnni" in flag for flag in flags)


def unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every integer product's signed side is unsigned."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    made = count()
    _graph(copy.graph, made)
    for function in copy.functions:
        _graph(function, made)
    return copy


def _graph(graph, made) -> None:
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        for body in bodies(node):
            _graph(body, made)
        if node.domain in ("", "ai.onnx") and node.op_type == "MatMulInteger":
            inputs = [*node.input, "", ""][:4]
            inputs[1] = _shifted(graph, inputs[1], made)
            zero = inputs[3]
            inputs[3] = _shifted(graph, zero, made) if zero else _constant(graph, TensorProto.UINT8, made)
            if not inputs[2]:
                inputs[2] = _constant(graph, TensorProto.UINT8, made, 0)
            del node.input[:]
            node.input.extend(inputs)
        graph.node.append(node)


def _constant(graph, dtype: int, made, value: int = 128) -> str:
    name = f"unsigned constant {next(made)}"
    tensor = helper.make_tensor(name, dtype, [], [value])
    graph.node.append(helper.make_node("Constant", [], [name], name, value=tensor))
    return name


def _shifted(graph, name: str, made) -> str:
    """A signed tensor plus 128, as an unsigned one."""
    names = [f"unsigned {step} {next(made)}" for step in ("wide", "sum", "value")]
    by = _constant(graph, TensorProto.INT32, made)
    graph.node.append(helper.make_node("Cast", [name], [names[0]], names[0], to=TensorProto.INT32))
    graph.node.append(helper.make_node("Add", [names[0], by], [names[1]], names[1]))
    graph.node.append(helper.make_node("Cast", [names[1]], [names[2]], names[2], to=TensorProto.UINT8))
    return names[2]
