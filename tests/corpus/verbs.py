"""Every verb on one model, through the command line, and what may not come of it."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from case import Case
from known import all_nodes, is_random
from numerics import differs, run, session
from onnx import numpy_helper
from products import FORMS, constants, judge

# Reasons to refuse that are right, by verb: what stderr says. All other refusals are faults.
REFUSALS = {
    "quantize": {
        "nothing to quantize": r"no product with a constant weight is left to quantize",
        "quantized already": r"the model is quantized already",
    },
    "run": {
        "not a tensor": r"(sequence|optional|map|not a tensor)",
        "no runtime takes it": r"(tract|onnxruntime|ONNX Runtime)",
    },
}
# Products below this many weights gain nothing in 8 bits.
SMALLEST = 4096
SECONDS = 120
# Bits of an element, by its type.
WIDTH = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 21: 4, 22: 4}


@dataclass
class Fault:
    """What went wrong, with the command that shows it."""

    case: str
    verb: str
    what: str
    command: str

    @property
    def kind(self) -> str:
        """The fault without names and numbers, to count equal ones."""
        text = re.sub(r"FOLDER\S*", "FILE", self.what)
        text = re.sub(r"'[^']*'|\"[^\"]*\"|\(/?[\w./:·-]*\)|\d[\d.e+-]*", "…", text)
        return re.sub(r" \(inputs .*", "", re.sub(r"node name: \S*", "node …", text))[:120]


@dataclass
class Result:
    """What came of a model: outcomes by verb, and faults."""

    counts: Counter = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    # Attempts at a random graph that were of no use.
    rejected: list[str] = field(default_factory=list)


@dataclass
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str
    command: str

    @property
    def reason(self) -> str:
        """What it says it can't do."""
        lines = [line for line in self.err.splitlines() if "error" in line or "panicked" in line]
        return (lines or self.err.splitlines() or ["nothing on stderr"])[0][:300]


class Trial:
    """One model with all verbs."""

    def __init__(self, case: Case, tool: Path, folder: Path, seed: int, only: str = ""):
        self.case, self.tool, self.folder, self.seed, self.only = case, tool, folder, seed, only
        self.result = Result()
        self.given = folder / "given"
        self.given.mkdir()
        self.model = case.write(self.given)
        self.old = case.model
        self.full = self._full(str(self.model))
        self.made = folder / "made"
        self.made.mkdir()

    def all(self) -> Result:
        """Every verb, or `only` that one; what a verb does wrong doesn't stop the others."""
        verbs = {"inspect": self.inspect, "diff": self.diff, "pass run": self.passes, "quantize": self.forms}
        for name, verb in verbs.items():
            # Passes are held against the original by diff.
            if self.only.startswith(name) or not self.only or (self.only, name) == ("diff", "pass run"):
                self.rng = random.Random(f"{self.seed}/{self.case.name}/{name}")
                verb()
        return self.result

    # What every command must keep to.

    def call(self, verb: str, *arguments) -> Ran:
        """Run the tool, and judge what any command may do."""
        words = [str(self.tool), *map(str, arguments)]
        command = " ".join(w.replace(str(self.folder), "FOLDER") for w in ["soprano-export", *words[1:]])
        try:
            done = subprocess.run(words, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            self.fault(verb, f"takes more than {SECONDS} seconds", command)
            return Ran(2, "", "too slow", command)
        out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        ran = Ran(done.returncode, out, err, command)
        if done.returncode < 0 or done.returncode > 2 or "panicked at" in err:
            self.fault(verb, f"ended by {done.returncode}: {err.strip()[-300:]}", command)
        return ran

    def fault(self, verb: str, what: str, command: str) -> None:
        """Count a fault."""
        self.result.counts[verb, "failed"] += 1
        what = " ".join(what.replace(str(self.folder), "FOLDER").split())
        self.result.faults.append(Fault(self.case.name, verb, what, command))

    def count(self, verb: str, outcome: str) -> None:
        """Count an outcome that is right."""
        self.result.counts[verb, outcome] += 1

    def done(self, verb: str, ran: Ran, kind: str | None = None) -> bool:
        """Whether a command did what it was asked; a refusal must have a reason that is known."""
        if ran.code == 0:
            return True
        if ran.code == 2:
            for label, pattern in REFUSALS.get(kind or verb, {}).items():
                if re.search(pattern, ran.reason):
                    self.count(verb, f"refused: {label}")
                    return False
        if 0 <= ran.code <= 2 and "panicked at" not in ran.err:
            self.fault(verb, f"exit {ran.code}: {ran.reason}", ran.command)
        return False

    def left(self, verb: str, ran: Ran, path: Path) -> None:
        """A command that failed leaves no file, and none leaves another than those it was asked for."""
        allowed = {path.name, f"{path.name}.data", f"{path.stem}.data"} if ran.code == 0 else set()
        strange = [p.name for p in self.made.iterdir() if p.name not in allowed]
        if strange:
            self.fault(verb, f"exit {ran.code} leaves {sorted(strange)}", ran.command)

    def clear(self) -> None:
        """Empty the folder of what was made."""
        shutil.rmtree(self.made)
        self.made.mkdir()

    # Verbs.

    def inspect(self) -> None:
        """Text and JSON say the same, and what the model says."""
        text = self.call("inspect", "inspect", self.model)
        ran = self.call("inspect", "inspect", "--json", self.model)
        if not (self.done("inspect", text) and self.done("inspect", ran)):
            return
        told, graph = json.loads(ran.out), self.old.graph
        weights = len(graph.initializer) + len(graph.sparse_initializer)
        sizes = {t.name: -(-np.prod(t.dims, dtype=int) * WIDTH[t.data_type] // 8) for t in graph.initializer
                 if t.data_type in WIDTH}
        wrong = [
            (told["nodes"] in (len(graph.node), len(all_nodes(self.old))), "nodes", told["nodes"]),
            (sum(told["operators"].values()) == told["nodes"], "operators", told["operators"]),
            (told["weights"] >= weights, "weights", told["weights"]),
            (all(one["bytes"] == sizes.get(one["name"], one["bytes"]) for one in told["largest"]), "bytes",
             [(one["name"], one["bytes"], sizes.get(one["name"])) for one in told["largest"]]),
            (told["weight_bytes"] >= sum(sizes.values()), "weight bytes", (told["weight_bytes"], sum(sizes.values()))),
            ([i["name"] for i in told["outputs"]] == [o.name for o in graph.output], "outputs", told["outputs"]),
            (f"{told['nodes']} node" in text.out, "text", text.out),
        ]
        own = Counter((n.domain or "ai.onnx", n.op_type) for n in all_nodes(self.old))
        for (domain, op), count in own.items():
            if domain != "ai.onnx" and own.get(("ai.onnx", op), 0) + count == told["operators"].get(op, 0):
                wrong.append((False, "operators of another domain", f"{domain}.{op}"))
        for right, what, value in wrong:
            if not right:
                self.fault("inspect", f"counts wrong {what}: {str(value)[:120]!r}", ran.command)
                return
        self.count("inspect", "done")

    def diff(self) -> None:
        """A model equals itself, and no model that was changed."""
        ran = self.call("diff", "diff", self.model, self.model)
        if ran.code == 1:
            self.fault("diff", "a model differs from itself: " + ran.out.strip()[:200], ran.command)
        elif self.done("diff", ran):
            self.count("diff", "done")
        if not self.case.whole and self.rng.random() > 0.1:
            return
        what, other = self.changed()
        if other is None:
            return
        path = self.folder / "changed.onnx"
        path.write_bytes(other.SerializeToString())
        ran = self.call("diff", "diff", self.model, path)
        if ran.code == 0:
            self.fault("diff", f"calls a model equal to one with {what}", ran.command)
        elif ran.code == 1:
            self.count("diff", "done")
        else:
            self.done("diff", ran)

    def changed(self) -> tuple[str, onnx.ModelProto | None]:
        """The model with one thing changed, and what that is."""
        model = onnx.ModelProto()
        model.CopyFrom(self.old)
        ways = ["operator set", "attribute", "weight", "inputs", "value", "body", "function", "output order"]
        self.rng.shuffle(ways)
        for way in ways:
            if way == "operator set" and model.opset_import:
                model.opset_import[0].version += 1
                return "another operator set", model
            nodes = list(model.graph.node)
            if way == "body":
                nodes = [n for n in all_nodes(model) if not any(n is m for m in nodes)]
            if way == "function":
                nodes = [n for f in model.functions for n in f.node]
            self.rng.shuffle(nodes)
            if way in ("attribute", "body", "function"):
                for node in nodes:
                    for a in node.attribute:
                        if a.type == a.INT and not a.ref_attr_name:
                            a.i += 1
                            return f"another attribute ({way})", model
                        if a.type == a.FLOAT and not a.ref_attr_name:
                            a.f += 1
                            return f"another attribute ({way})", model
                        if a.type == a.TENSOR and a.t.raw_data:
                            a.t.raw_data = bytes([a.t.raw_data[0] ^ 1]) + a.t.raw_data[1:]
                            return f"another constant ({way})", model
            if way == "weight":
                for tensor in model.graph.initializer:
                    if tensor.raw_data:
                        tensor.raw_data = tensor.raw_data[:-1] + bytes([tensor.raw_data[-1] ^ 1])
                        return "another weight", model
                    if tensor.float_data:
                        tensor.float_data[0] += 1
                        return "another weight", model
            if way == "inputs":
                for node in nodes:
                    if len(node.input) == 2 and node.input[0] != node.input[1]:
                        a, b = node.input
                        node.input[:] = [b, a]
                        return "inputs swapped", model
            if way == "output order" and len(model.graph.output) > 1:
                first = onnx.ValueInfoProto()
                first.CopyFrom(model.graph.output[0])
                del model.graph.output[0]
                model.graph.output.append(first)
                return "outputs in another order", model
        return "", None

    def passes(self) -> None:
        """No fuel keeps the bytes; all passes, some, and all again keep the values."""
        path = self.made / "rewritten.onnx"
        ran = self.call("pass run", "pass", "run", "--fuel", "0", self.model, "-o", path)
        if self.done("pass run", ran):
            self.left("pass run", ran, path)
            kept = path.read_bytes() == self.model.read_bytes()
            if self.case.storage in ("packed", "loose") or not kept:
                # A file in another order or packing holds the same; with external data its place may change.
                kept = same(load(path), self.old) and (self.case.storage != "plain" or self.case.file)
            if kept:
                self.count("pass run", "done")
            else:
                self.fault("pass run", "--fuel 0 changes the file: " + where(self.old, load(path)), ran.command)
        else:
            self.left("pass run", ran, path)
        self.clear()
        self.rewrite([])
        if self.case.whole:
            names = self.rng.sample(PASSES, self.rng.randint(1, 5))
            self.rewrite([word for name in names for word in ("--pass", name)])

    def rewrite(self, options: list[str]) -> None:
        """Passes run; the result is judged, run through them again, and held against what it was."""
        path = self.made / "rewritten.onnx"
        ran = self.call("pass run", "pass", "run", "--json", *options, self.model, "-o", path)
        self.left("pass run", ran, path)
        if not self.done("pass run", ran):
            self.clear()
            return
        applied = sum(one["applied"] for one in json.loads(ran.out)["passes"])
        new = self.loaded("pass run", ran, path)
        if new is not None:
            before = len(self.result.faults)
            changed = not same(new, self.old)
            if changed:
                for why in self.values(new, path):
                    self.fault("pass run", why, ran.command)
                grown = held_bytes(new) - held_bytes(self.old)
                if grown > 1024 + 1.25 * folded_bytes(self.old):
                    self.fault("pass run", f"constants grow by {grown} bytes", ran.command)
            if before == len(self.result.faults):
                self.count("pass run", "done" if applied else "done: nothing to do")
            if changed and not options:
                again = self.made / "rewritten.again.onnx"
                second = self.call("pass run", "pass", "run", "--json", path, "-o", again)
                if self.done("pass run", second):
                    report = json.loads(second.out)
                    more = [(one["pass"], one["applied"]) for one in report["passes"] if one["applied"]]
                    if more:
                        self.fault("pass run", f"a second run finds more: {more}", second.command)
                both = self.call("diff", "diff", self.model, path)
                if both.code == 0 and not same_graph(self.old, new):
                    why = "calls a model equal to one that passes changed: " + where(self.old, new)
                    self.fault("diff", why, both.command)
                elif both.code < 2:
                    self.count("diff", "done")
        self.clear()

    def forms(self) -> None:
        """Every form; each is judged by what it may cost."""
        for name, form in FORMS.items():
            verb = f"quantize {name}"
            if self.only not in ("", verb):
                continue
            path = self.made / "quantized.onnx"
            words = ["quantize", "--json", *form.arguments, self.model, "-o", path]
            ran = self.call(verb, *words)
            self.left(verb, ran, path)
            if not self.done(verb, ran, "quantize"):
                self.clear()
                if ran.code == 2 and "no product" in ran.err and (left := self.products()):
                    for one in sorted(set(left)):
                        self.fault(verb, f"finds no product where there is {one}", ran.command)
                if not self.case.whole:
                    return
                continue
            new = self.loaded(verb, ran, path)
            if new is not None:
                before = len(self.result.faults)
                for why in self.quantized_values(new, form):
                    self.fault(verb, why, ran.command)
                grown = held_bytes(new) - held_bytes(self.old)
                if grown > 1024:
                    self.fault(verb, f"constants grow by {grown} bytes", ran.command)
                report = json.loads(ran.out)
                told = len(report["products"]) + len(report["kept"]) + len(report["tables"])
                if told < len(left := self.products()):
                    self.fault(verb, f"passes over a product in silence, one of {sorted(set(left))}", ran.command)
                if before == len(self.result.faults):
                    self.count(verb, "done")
            if name == "dynamic":
                once = path.read_bytes()
                ran = self.call(verb, *words)
                if ran.code != 2 or path.read_bytes() != once:
                    self.fault(verb, f"exit {ran.code} where the output exists", ran.command)
                self.left(verb, Ran(0, "", "", ran.command), path)
            self.clear()

    def products(self) -> list[str]:
        """Every product of f32 with a constant of SMALLEST elements or more, as what it is."""
        try:
            model = onnx.shape_inference.infer_shapes(self.old)
        except Exception:
            model = self.old
        found: list[str] = []
        free = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
        listed(model.graph, {}, free, "", found)
        return found

    # What every result must be.

    def loaded(self, verb: str, ran: Ran, path: Path) -> onnx.ModelProto | None:
        """A result that `onnx` loads, its checker takes, and that has the same inputs and outputs."""
        try:
            new = load(path)
            if self.full is not None:
                onnx.checker.check_model(str(path), full_check=self.full)
        except Exception as error:
            self.fault(verb, f"onnx.checker: {str(error)[:300]}", ran.command)
            return None
        for side in ("input", "output"):
            a, b = ([(v.name, v.type) for v in getattr(m.graph, side)] for m in (self.old, new))
            if a != b:
                self.fault(verb, f"{side}s differ: {[v[0] for v in a]} {[v[0] for v in b]}", ran.command)
                return None
        free = {v.name for v in self.old.graph.input}
        for names in [{t.name for t in m.graph.initializer} & free for m in (self.old, new)]:
            free = names if free >= names else free
        a, b = ({t.name for t in m.graph.initializer} & {v.name for v in m.graph.input} for m in (self.old, new))
        if a != b:
            self.fault(verb, f"inputs lose or gain defaults: {sorted(a ^ b)}", ran.command)
            return None
        return new

    def _full(self, path: str) -> bool | None:
        """Whether the checker's shape inference takes the model; None where the checker itself doesn't."""
        for full in (True, False):
            try:
                onnx.checker.check_model(path, full_check=full)
                return full
            except Exception:
                continue
        return None

    def wanted(self) -> list[dict] | None:
        """What the model gives for each of its feeds; None where ONNX Runtime doesn't take it."""
        if not hasattr(self, "_wanted"):
            try:
                made = session(self.old.SerializeToString(), optimized=False)
                self._wanted = [run(made, feed()) for feed in self.case.feeds] or None
            except Exception:
                self._wanted = None
        return self._wanted

    def values(self, new: onnx.ModelProto, path: Path) -> list[str]:
        """How a rewritten model's values differ."""
        wanted = self.wanted()
        if wanted is None:
            self.count("values", "skipped: ONNX Runtime doesn't take the original, or takes too long")
            return []
        if is_random(self.old) and self.case.part == "backend":
            self.count("values", "skipped: random")
            return []
        try:
            made = session(str(path), optimized=True)
        except Exception as error:
            return [f"ONNX Runtime: {str(error)[:300]}"]
        faults = []
        for at, (feed, want) in enumerate(zip(self.case.feeds, wanted, strict=True)):
            try:
                got = run(made, feed())
            except Exception as error:
                return [f"does not run: {str(error)[:300]} (inputs {at})"]
            for name, value in want.items():
                if name in self.case.random:
                    if got[name].size and not np.any(got[name]):
                        faults.append(f"output {name!r}: two random values became one (inputs {at})")
                elif why := differs(value, got[name], self.case.half):
                    faults.append(f"output {name!r}: {why} (inputs {at})")
        return faults

    def quantized_values(self, new: onnx.ModelProto, form) -> list[str]:
        """How a quantized model's values differ by more than they may."""
        if self.wanted() is None or (is_random(self.old) and self.case.part == "backend"):
            self.count("values", "skipped: ONNX Runtime doesn't take the original, or takes too long")
            return []
        try:
            return judge(self.old, new, form, self.case.feeds, self.case)
        except Exception as error:
            return [f"ONNX Runtime: {str(error)[:300]}"]


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
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                tensors += body.initializer
    lists = [a for node in all_nodes(model) for a in node.attribute]
    numbers = sum(4 * len(a.floats) + 8 * len(a.ints) for a in lists)
    return numbers + sum(numpy_helper.to_array(t).nbytes for t in tensors if t.data_type != onnx.TensorProto.STRING)


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


PASSES: list[str] = []
