"""Whether a quantized model is right: each product within what its form allows, all else exact.

The two models are cut at every node that quantization replaced. What the quantized model gives there is fed
into the original from there on, so that errors don't add up, whatever is behind: outputs must then agree as
in fp32, and each replaced node is judged by itself, beside the original node on the very same inputs.

With an activation x, a weight w and their 8-bit forms x', w', element by element,

    |x w - x' w'|  <=  |x| |w - w'| + |x - x'| |w'|,   |w'| <= |w| + |w - w'|

summed over the contraction. The parts, by form (half a step each, for values are rounded to the nearest):

    w: columns     max |column| / 127  (63 with a bit less)
       rows        max |row| / 127, of a table
       blocks      max |32 values of a column| / 127, or / 7 in 4 bits
    x: one term    max |row| / 127
       two terms   max |row| / 63 / 126
       one range   (max(x, 0) - min(x, 0)) / 255; near both ends a whole step, for the zero point is rounded
       blocks      max |32 values of a row| / 127

A range of a row or a part is no larger than that of all, so the bound holds for finer ranges too. Beside it
stands what f32 rounds: 1e-5 of |x| |w|. Bodies of If and Loop and local functions can't be cut; a node that
has some is judged as a whole by its signal-to-noise ratio. Of k independent rounding errors it is about
10 log10(12) + 20 log10(levels aside of zero) - 20 log10(peak / rms) for each factor: 30 dB and more of
8 bits at a peak of 4 rms, 6 dB of 4 bits. A wrong weight, scale or zero point gives 3 dB or less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numerics import differs, run, session
from onnx import helper
from unsigned import overflows, unsigned

PRODUCTS = {"MatMul", "Gemm", "Gather", "FusedMatMul"}
BLOCK = 32


@dataclass(frozen=True)
class Form:
    """How a form holds weights and activations."""

    arguments: tuple[str, ...]
    weight_levels: int = 127
    terms: int = 1
    rows: bool = True
    blocks: bool = False

    @property
    def overflows(self) -> bool:
        """Whether pairs of its products may exceed 16 bits."""
        return self.terms == 1 and self.weight_levels == 127 and not self.blocks

    @property
    def least_snr(self) -> float:
        """Below this a node that was judged as a whole is wrong, in decibels."""
        return 5.0 if self.weight_levels < 63 else 20.0


FORMS = {
    "dynamic": Form(()),
    "reduce-range": Form(("--reduce-range", "--granularity", "tensor"), weight_levels=63, rows=False),
    "two-terms": Form(("--two-terms",), terms=2),
    "blocks-8": Form(("--form", "blocks-8"), blocks=True),
    "blocks-4": Form(("--form", "blocks-4"), weight_levels=7, blocks=True),
}


def constants(model: onnx.ModelProto) -> set[str]:
    """Names of a graph's values that no input reaches: what a caller may override is none."""
    graph = model.graph
    free = {value.name for value in graph.input} if model.ir_version >= 4 else set()
    found = {tensor.name for tensor in graph.initializer} - free
    for node in graph.node:
        plain = node.domain in ("", "ai.onnx") and not node.op_type.startswith("Random")
        bodies = any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute)
        if plain and not bodies and all(name in found or not name for name in node.input):
            found.update(filter(None, node.output))
    return found


def replaced(old: onnx.ModelProto, new: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes of the old graph whose values another node makes in the new one."""
    made = {name: node for node in new.graph.node for name in node.output}
    functions = {(f.domain, f.name): f for f in old.functions}
    changed = {(f.domain, f.name) for f in new.functions if functions.get((f.domain, f.name)) != f}
    found = []
    for node in old.graph.node:
        outputs = [name for name in node.output if name]
        if not outputs or any(name not in made for name in outputs):
            continue
        other = made[outputs[0]]
        bodies = any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute)
        plain = node.domain in ("", "ai.onnx", "com.microsoft")
        own = node.op_type in PRODUCTS and plain
        if (own or bodies or not plain) and (other != node or (node.domain, node.op_type) in changed):
            found.append(node)
    return found


def cut(old: onnx.ModelProto, nodes: list[onnx.NodeProto], values: dict) -> onnx.ModelProto:
    """The old model with those nodes' outputs given as inputs; what they make themselves, and what they read,
    are outputs `NAME//exact` and `NAME//read`."""
    model = onnx.ModelProto()
    model.CopyFrom(old)
    graph = model.graph
    ours = {name for node in nodes for name in node.output if name}
    kept = [output for output in graph.output if output.name not in ours]
    del graph.output[:]
    graph.output.extend(kept)
    shown = set()
    for node in graph.node:
        if not ours.intersection(node.output):
            continue
        for at, name in enumerate(node.output):
            if name:
                node.output[at] = f"{name}//exact"
                graph.output.append(onnx.ValueInfoProto(name=f"{name}//exact"))
        shown.update(filter(None, node.input[:2] if node.op_type in PRODUCTS else []))
    for name in sorted(shown):
        graph.node.append(helper.make_node("Identity", [name], [f"{name}//read"]))
        graph.output.append(onnx.ValueInfoProto(name=f"{name}//read"))
    # Identity reads what is given or made before it; a graph must be sorted.
    order = [node for node in graph.node if not node.output or not node.output[0].endswith("//read")]
    reads = [node for node in graph.node if node.output and node.output[0].endswith("//read")]
    del graph.node[:]
    graph.node.extend([*order, *reads])
    for name in sorted(ours):
        kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
        graph.input.append(helper.make_tensor_value_info(name, kind, None))
    return model


def steps_of_weight(w: np.ndarray, form: Form) -> np.ndarray:
    """Half a step at each value of a weight [..., k, n]: its column's, or that of its part of a column."""
    size = np.abs(w)
    if not form.blocks:
        return np.broadcast_to(size.max(axis=-2, keepdims=True) / form.weight_levels / 2, w.shape)
    return _blocks(size, -2) / form.weight_levels / 2


def _blocks(size: np.ndarray, axis: int) -> np.ndarray:
    """At each value the largest of the BLOCK values along that axis that it is among."""
    moved = np.moveaxis(size, axis, -1)
    length = moved.shape[-1]
    padded = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(0, -length % BLOCK)])
    parts = padded.reshape(*padded.shape[:-1], -1, BLOCK).max(axis=-1, keepdims=True)
    whole = np.broadcast_to(parts, (*parts.shape[:-1], BLOCK)).reshape(padded.shape)
    return np.moveaxis(whole[..., :length], -1, axis)


def steps_of_activation(x: np.ndarray, form: Form, axis: int) -> np.ndarray:
    """How far each value of an activation may be from its 8-bit form; `axis` is the contraction's."""
    if form.blocks:
        return _blocks(np.abs(x), axis) / 127 / 2
    if form.rows:
        levels = 127 if form.terms == 1 else 63 * 126
        # A hundredth more: a row is divided in f32 before it is rounded.
        largest = np.abs(x).max(axis=axis, keepdims=True, initial=0)
        return np.broadcast_to(largest / levels * 0.51, x.shape)
    top, bottom = x.max(initial=0), x.min(initial=0)
    step = (top - bottom) / 255
    return np.where((x > top - step) | (x < bottom + step), step, step / 2)


def bound(node: onnx.NodeProto, read: dict, fixed: set[str], form: Form) -> np.ndarray | None:
    """The largest error that a replaced node may have at each value; nothing where no side is constant."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    a, b = (np.asarray(read[f"{name}//read"]) for name in node.input[:2])
    if node.op_type == "Gather":
        if node.input[0] not in fixed:
            return None
        half = np.abs(a).max(axis=-1, keepdims=True) / 127 / 2
        return np.take(np.broadcast_to(half, a.shape), b, axis=attributes.get("axis", 0)) + 1e-12
    a, b = a.astype(np.float64), b.astype(np.float64)
    if attributes.get("transA"):
        a = a.swapaxes(-1, -2)
    if attributes.get("transB"):
        b = b.swapaxes(-1, -2)
    if node.input[1] in fixed:
        dx = steps_of_activation(a, form, -1)
        dw = steps_of_weight(b if b.ndim > 1 else b[:, None], form).reshape(b.shape)
        error = np.abs(a) @ dw + dx @ (np.abs(b) + dw)
    elif node.input[0] in fixed:
        # The same product turned: a row of a weight on the left is a column of one on the right.
        dx = steps_of_activation(b, form, -2 if b.ndim > 1 else -1)
        turned = a.swapaxes(-1, -2) if a.ndim > 1 else a[:, None]
        dw = steps_of_weight(turned, form)
        dw = dw.swapaxes(-1, -2) if a.ndim > 1 else dw[:, 0]
        error = dw @ np.abs(b) + (np.abs(a) + dw) @ dx
    else:
        return None
    return abs(attributes.get("alpha", 1.0)) * (error + 1e-5 * (np.abs(a) @ np.abs(b))) + 1e-12


def snr(want: np.ndarray, got: np.ndarray) -> float:
    """Signal to noise in decibels."""
    want, got = want.astype(np.float64), got.astype(np.float64)
    noise = np.square(want - got).sum()
    return np.inf if noise == 0 else 10 * np.log10(max(np.square(want).sum(), 1e-300) / noise)


def judge(old: onnx.ModelProto, new: onnx.ModelProto, form: Form, feeds: list, case) -> list[str]:
    """What is wrong with a quantized model, run on each of the feeds."""
    nodes = replaced(old, new)
    names = [name for node in nodes for name in node.output if name]
    shown = onnx.ModelProto()
    shown.CopyFrom(new)
    outputs = {output.name for output in new.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    if overflows() and form.overflows:
        shown = unsigned(shown)
    quantized = session(shown.SerializeToString(), optimized=True)
    fixed = constants(old)
    faults, beside = [], None
    for at, feed in enumerate(feeds):
        given = feed()
        try:
            got = run(quantized, given)
        except Exception as error:
            return [*faults, f"does not run: {str(error)[:300]} (inputs {at})"]
        if beside is None:
            beside = session(cut(old, nodes, got).SerializeToString(), optimized=False)
        want = run(beside, {**given, **{name: got[name] for name in names}})
        for name in outputs - set(names) - case.random:
            if why := differs(want[name], got[name], case.half):
                faults.append(f"output {name!r}: {why} (inputs {at})")
        for node in nodes:
            for name in filter(None, node.output):
                if why := _judge_one(node, name, want, got[name], fixed, form):
                    faults.append(f"{node.op_type} {node.name!r}: {why} (inputs {at})")
    return faults


def _judge_one(node, name: str, want: dict, got: np.ndarray, fixed: set[str], form: Form) -> str | None:
    exact = want[f"{name}//exact"]
    if exact.shape != got.shape or exact.dtype != got.dtype:
        return f"{exact.dtype}{list(exact.shape)} became {got.dtype}{list(got.shape)}"
    if exact.dtype.kind != "f":
        return None if np.array_equal(exact, got) else "whole numbers differ"
    if exact.size == 0:
        return None
    if node.op_type in PRODUCTS and node.domain in ("", "ai.onnx", "com.microsoft"):
        limit = bound(node, want, fixed, form)
        if limit is None:
            return "replaced, but none of its sides is constant"
        over = (np.abs(exact.astype(np.float64) - got) / limit).max()
        return None if over <= 1 else f"{over:.2f} times the bound"
    if (ratio := snr(exact, got)) < form.least_snr:
        return f"{ratio:.1f} dB"
    return None
