"""A graph in the making: its values with their types, its names, and how its constants are held."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, INT64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL

# Names that a rewriter gives to what it adds, as a whole or behind another value's name.
TAKEN = ["quantize/1e-30", "quantize/zero_point_128", "quantize/[1]", "quantize/shape_1_-1"]
BEHIND = [
    *("bytes", "scale", "zero_point", "sums", "floats", "scales", "scaled", "shares", "coarse", "fine"),
    *("abs", "largest", "unit", "row", "rows", "first", "kept", "rest", "second", "both"),
    *("int8_columns", "scale_columns", "int8_rows", "int8_groups", "int8_blocks_8", "scale_blocks_4"),
    *("merged", "folded", "weight", "untransposed", "normalized", "groups", "quantize", "float"),
]


@dataclass(frozen=True)
class Value:
    """A value of a graph. A dimension is a number, or a name where it is open."""

    name: str
    dtype: int
    shape: tuple

    @property
    def rank(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    def info(self, shaped: bool = True) -> onnx.ValueInfoProto:
        """Its type, as a graph declares it; without dimensions where `shaped` is false."""
        return helper.make_tensor_value_info(self.name, self.dtype, list(self.shape) if shaped else None)


@dataclass
class World:
    """What all scopes of a model share: versions, names, functions, and the source of all choices."""

    rng: random.Random
    opset: int
    ir: int
    names: str
    node_names: str
    constants: str
    used: set[str] = field(default_factory=set)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    # Initializers that are inputs too, by name: a caller may give others.
    overridable: dict[str, np.ndarray] = field(default_factory=dict)
    random: set[str] = field(default_factory=set)
    # Values that have to be outputs.
    outputs: list[Value] = field(default_factory=list)
    half: bool = False
    count: int = 0

    def chance(self, share: float) -> bool:
        """True in this share of all calls."""
        return self.rng.random() < share

    def fresh(self, hint: str) -> str:
        """A name that no value has."""
        while True:
            self.count += 1
            name = f"{hint}_{self.count}"
            if self.names == "numbers":
                name = str(self.count)
            elif self.names == "torch":
                name = f"/layers.{self.count % 3}/{hint}.{self.count}/{hint.title()}_output_0"
            elif self.names == "odd":
                odd = [f"{hint} {self.count}", f"ﬁ·{hint}·{self.count}", f"{hint}:{self.count}"]
                name = self.rng.choice(odd)
            elif self.names == "taken" and self.chance(0.6):
                before = self.rng.choice(sorted(self.used)) if self.used else "x"
                name = self.rng.choice([*TAKEN, *(f"{before}/{part}" for part in BEHIND)])
            if name not in self.used:
                self.used.add(name)
                return name

    def node_name(self, op: str, siblings: set[str]) -> str:
        """A node's name: its own, one of another graph's node, what a rewriter would add, or none."""
        style = self.node_names
        if style == "some":
            style = self.rng.choice(["own", "none", "reused", "taken"])
        if style == "none":
            return ""
        name = f"/{op}_{len(self.used)}"
        if style == "reused":
            name = f"{op}_{len(siblings)}"
        elif style == "taken" and siblings and self.chance(0.5):
            name = f"{self.rng.choice(sorted(siblings))}/{self.rng.choice(BEHIND)}"
        return "" if name in siblings else name

    def array(self, shape: tuple, scale: float = 1.0) -> np.ndarray:
        """Seeded normal values."""
        made = np.random.default_rng(self.rng.getrandbits(32)).standard_normal(shape)
        return (made * scale).astype(np.float32)


class Scope:
    """A graph, a body or a function in the making."""

    def __init__(self, world: World, parent: Scope | None = None, bare: bool = False):
        self.world, self.parent, self.bare = world, parent, bare
        self.nodes: list[onnx.NodeProto] = []
        self.named: set[str] = set()
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[Value] = []
        self.values: list[Value] = []
        # Constants by name, for those that share or look up one.
        self.weights: list[Value] = []

    @property
    def depth(self) -> int:
        """How many graphs are around this one."""
        return 0 if self.parent is None else 1 + self.parent.depth

    def visible(self) -> list[Value]:
        """Its values and those of the graphs around it."""
        return self.values + (self.parent.visible() if self.parent else [])

    def pick(self, dtype: int = FLOAT, ranks=range(0, 6), where=lambda value: True) -> Value | None:
        """One of the values that fit, the late ones more often."""
        fitting = [v for v in self.visible() if v.dtype == dtype and v.rank in ranks and where(v)]
        if not fitting:
            return None
        own = [v for v in fitting if v in self.values]
        if own and self.world.chance(0.8):
            fitting = own[-4:] if self.world.chance(0.6) else own
        return self.world.rng.choice(fitting)

    def add(self, value: Value) -> Value:
        """Put a value in sight of what comes after."""
        self.values.append(value)
        return value

    def node(self, op: str, inputs, outputs: int = 1, domain: str = "", **attributes) -> list[str]:
        """Add a node and return the names of its outputs."""
        names = [self.world.fresh(op.lower()) for _ in range(outputs)]
        self.raw(op, inputs, names, domain, **attributes)
        return names

    def raw(self, op: str, inputs, outputs, domain: str = "", **attributes) -> onnx.NodeProto:
        """Add a node whose outputs have names already."""
        given = [getattr(one, "name", one) for one in inputs]
        made = helper.make_node(op, given, outputs, domain=domain, **attributes)
        if name := self.world.node_name(op, self.named):
            made.name = name
            self.named.add(name)
        if self.world.chance(0.05):
            made.doc_string = f"what {op} does"
        if self.world.ir >= 10 and self.world.chance(0.05):
            entry = made.metadata_props.add()
            entry.key, entry.value = "origin", "layers.0"
        self.nodes.append(made)
        return made

    def op(self, op: str, inputs, shape, dtype: int = FLOAT, /, domain: str = "", **attributes) -> Value:
        """Add a node of one output and return that value, in sight."""
        (name,) = self.node(op, inputs, domain=domain, **attributes)
        return self.add(Value(name, dtype, tuple(shape)))

    def constant(self, array: np.ndarray, hint: str = "c", plain: bool = False) -> str:
        """A constant in one of the ways a model can hold it; `plain` where it may not be overridden."""
        array = np.asarray(array)
        world, dtype = self.world, helper.np_dtype_to_tensor_dtype(array.dtype)
        name = world.fresh(hint)
        style = world.constants
        if style == "mixed":
            style = world.rng.choice(["initializer", "initializer", "typed", "node", "input"])
        if self.bare or (style == "input" and (self.parent or plain)):
            style = "node" if self.bare else "initializer"
        tensor = numpy_helper.from_array(array, name)
        if style == "typed" and dtype in (FLOAT, INT64):
            tensor = helper.make_tensor(name, dtype, array.shape, array.flatten().tolist())
        if style == "node":
            self.constant_node(array, tensor)
        else:
            self.initializers.append(tensor)
            if style == "input" or (world.ir < 4 and not self.parent):
                self.inputs.append(Value(name, dtype, array.shape))
            if style == "input" and world.ir >= 4:
                world.overridable[name] = array
        self.weights.append(Value(name, dtype, array.shape))
        return name

    def constant_node(self, array: np.ndarray, tensor: onnx.TensorProto) -> None:
        """A Constant, in any of the forms its opset has."""
        name = tensor.name
        tensor.name = "" if self.world.chance(0.5) else tensor.name
        # The package can't tell the type of an empty list.
        short = self.world.opset >= 12 and self.world.chance(0.5) and array.size > 0
        if short and array.dtype == np.int64 and array.ndim < 2:
            form = {"value_int": int(array)} if array.ndim == 0 else {"value_ints": array.tolist()}
        elif short and array.dtype == np.float32 and array.ndim < 2:
            form = {"value_float": float(array)} if array.ndim == 0 else {"value_floats": array.tolist()}
        else:
            form = {"value": tensor}
        self.raw("Constant", [], [name], **form)

    def ints(self, *values: int, hint: str = "axes") -> str:
        """A constant list of whole numbers."""
        return self.constant(np.array(values, np.int64), hint, plain=True)

    def scalar(self, value: float) -> str:
        """A constant f32 scalar, or one of a single element."""
        shape = self.world.rng.choice([(), (1,)])
        return self.constant(np.full(shape, value, np.float32), "s")

    def weight(self, shape: tuple, fan_in: int) -> str:
        """A constant matrix that keeps the size of what is multiplied by it, perhaps behind other nodes."""
        world = self.world
        array = world.array(shape, fan_in**-0.5)
        way = world.rng.choice(["as it is"] * 6 + ["transposed", "identity", "half", "reshaped", "shared"])
        if way == "shared":
            same = [v for v in self.weights if v.dtype == FLOAT and v.shape == tuple(shape)]
            return world.rng.choice(same).name if same else self.constant(array, "w")
        if way == "transposed" and len(shape) >= 2:
            perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            stored = self.constant(np.ascontiguousarray(array.swapaxes(-1, -2)), "w")
            if len(shape) == 2 and world.chance(0.4):
                return self.node("Transpose", [stored])[0]
            return self.node("Transpose", [stored], perm=perm)[0]
        if way == "identity":
            return self.node("Identity", [self.constant(array, "w")])[0]
        if way == "half":
            stored = self.constant(array.astype(np.float16), "w")
            return self.node("Cast", [stored], to=FLOAT)[0]
        if way == "reshaped":
            stored = self.constant(array.reshape(-1), "w")
            return self.node("Reshape", [stored, self.ints(*shape, hint="shape")])[0]
        return self.constant(array, "w")

    def graph(self, name: str, outputs: list[Value]) -> onnx.GraphProto:
        """The graph with these outputs."""
        graph = helper.make_graph(
            self.nodes, name, [v.info() for v in self.inputs], [v.info() for v in outputs], self.initializers
        )
        return graph
