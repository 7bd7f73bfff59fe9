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
from known import ONNXRUNTIME, TRACT, given, onnxruntime_fault, open_inputs, tract_fault
from models import (
    all_nodes,
    folded_bytes,
    held_bytes,
    is_left_out,
    is_random,
    load,
    products,
    same,
    same_graph,
    where,
)
from numerics import differs, run, session
from products import FORMS, judge

# Reasons to refuse that are right, by verb: what stderr says. All other refusals are faults.
REFUSALS = {
    "quantize": {
        "nothing to quantize": r"no product with a constant weight is left to quantize",
        "quantized already": r"the model is quantized already",
        "opset": r"products need opset \d+; the model has \d+",
    },
    "diff --run onnxruntime": {},
    "diff --run tract,onnxruntime": {
        "tract doesn't take it": r"tract can't (load|run) the model",
    },
}
# Reasons for which a product may stay fp32.
KEPT = [
    r"it is small$",
    r"its weight is on the left$",
    r"8 bits with their scales would take no fewer bytes$",
    r"its weight is an input of the graph too, which a caller may replace$",
    r"its weight .* stays as it is for ",
    r"blocks have no other axes, and its result may have$",
]
# How many of a part's models `diff --run tract,onnxruntime` is tried on.
BESIDE = {"fixtures": 1, "random": 0.5, "backend": 0.1}
# How many of ONNX's one-node models are held against a changed copy, and run beside what passes made of them.
SAMPLE = 0.1
SECONDS = 120
# Bits of an element, by its type.
WIDTH = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8}
WIDTH |= {10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 21: 4, 22: 4}


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
        verbs = {
            "inspect": self.inspect,
            "diff": self.diff,
            "pass run": self.passes,
            "quantize": self.forms,
            "diff --run": self.runtimes,
        }
        for name, verb in verbs.items():
            # What passes made is held against the original by diff.
            beside = self.only.startswith("diff") and name == "pass run"
            if self.only.startswith(name) or not self.only or beside:
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
        held = {t.name: t for t in graph.initializer if t.data_type in WIDTH}
        bits = {name: np.prod(t.dims, dtype=int) * WIDTH[t.data_type] for name, t in held.items()}
        sizes = {name: -(-count // 8) for name, count in bits.items()}
        own = [one for one in told["largest"] if "in" not in one]
        operators = Counter(
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            for node in all_nodes(self.old)
        )
        wrong = {
            "nodes": (told["nodes"], operators.total()),
            "operators": (told["operators"], dict(operators)),
            "bytes": ([one["bytes"] for one in own], [sizes.get(one["name"], one["bytes"]) for one in own]),
            "outputs": ([one["name"] for one in told["outputs"]], [one.name for one in graph.output]),
            "weights": (told["weights"] >= len(held), True),
            "bytes of weights": (told["weight_bytes"] >= sum(sizes.values()), True),
            "text": (f"{told['nodes']} node" in text.out, True),
        }
        for what, (one, other) in wrong.items():
            if one != other:
                self.fault("inspect", f"counts wrong {what}: {one} {other}"[:200], ran.command)
                return
        self.count("inspect", "done")

    def diff(self) -> None:
        """A model equals itself, and no model that was changed."""
        ran = self.call("diff", "diff", self.model, self.model)
        if ran.code == 1:
            self.fault("diff", "a model differs from itself: " + ran.out.strip()[:200], ran.command)
        elif self.done("diff", ran):
            self.count("diff", "done")
        if not self.case.whole and self.rng.random() > SAMPLE:
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
                what = where(self.old, load(path))
                self.fault("pass run", f"--fuel 0 changes the file: {what}", ran.command)
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
                if self.case.whole or self.rng.random() < SAMPLE:
                    self.run("onnxruntime", path)
        self.clear()

    def runtimes(self) -> None:
        """tract beside ONNX Runtime, of a share of models."""
        if self.rng.random() < BESIDE[self.case.part]:
            self.run("tract,onnxruntime")

    def run(self, runtimes: str, new: Path | None = None) -> None:
        """`diff --run` agrees: of a model and what was made of it, or of one model in two runtimes."""
        verb = f"diff --run {runtimes}"
        if self.wanted() is None or not self.old.graph.node:
            return
        inputs = given(self.old)
        feed = self.case.feeds[self.rng.randrange(len(self.case.feeds))]()
        tensors = [v.name for v in inputs if v.type.WhichOneof("value") == "tensor_type" and v.name in feed]
        arrays = {name: np.asarray(feed[name]) for name in tensors}
        if len(arrays) < len(inputs) or any(a.dtype.kind not in "fiub" for a in arrays.values()):
            self.count(verb, "not asked: an input is left out, or of a type that NumPy hasn't")
            return
        if is_left_out(self.old):
            self.count(verb, "not asked: all its values are integers that were rounded to")
            return
        file = self.folder / "inputs.npz"
        np.savez(file, **arrays)
        models = [self.model] if new is None else [self.model, new]
        words = ["diff", *models, "--run", runtimes, "--inputs", file, "--json"]
        # Half precision, as in `numerics.differs`.
        loose = ["--snr", "40", "--max-abs-of-peak", "0.01"] if self.case.half else []
        ran = self.call(verb, *words, *loose)
        if ran.code != 1:
            if self.done(verb, ran):
                self.count(verb, "done")
            return
        found = json.loads(ran.out)
        if self.case.random or is_random(self.old):
            self.count(verb, "done: random values differ")
        elif new is None and found["runtimes"][0] == TRACT and (why := tract_fault(self.old)):
            self.count(verb, f"differ: {TRACT} {why}")
        elif found["runtimes"][-1] == ONNXRUNTIME and (why := onnxruntime_fault(found["first"])):
            self.count(verb, f"differ: {ONNXRUNTIME} {why}")
        else:
            self.fault(verb, f"{found['runtimes']} differ: {found['first']}", ran.command)

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
                if ran.code == 2 and "no product" in ran.err:
                    self.accounted(verb, re.findall(r"\" stays fp32: (.*)", ran.err), [], ran)
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
                self.accounted(verb, [why for _, why in report["kept"]], report["products"], ran)
                if before == len(self.result.faults):
                    self.count(verb, "done")
            if name == "dynamic":
                once = path.read_bytes()
                ran = self.call(verb, *words)
                if ran.code != 2 or path.read_bytes() != once:
                    self.fault(verb, f"exit {ran.code} where the output exists", ran.command)
                self.left(verb, Ran(0, "", "", ran.command), path)
            self.clear()

    def accounted(self, verb: str, kept: list[str], made: list[str], ran: Ran) -> None:
        """Every product with a large weight is quantized, or stays for a reason that is right."""
        for why in kept:
            if not any(re.match(right, why) for right in KEPT):
                self.fault(verb, f"keeps a product fp32 for no reason that is known: {why}", ran.command)
        if len(kept) + len(made) < len(left := products(self.old)):
            self.fault(verb, f"passes over a product in silence, one of {sorted(set(left))}", ran.command)

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
        for side, ports in (("input", open_inputs), ("output", lambda model: list(model.graph.output))):
            a, b = ([(v.name, v.type) for v in ports(m)] for m in (self.old, new))
            if a != b:
                self.fault(verb, f"{side}s differ: {[v[0] for v in a]} {[v[0] for v in b]}", ran.command)
                return None
        free = {v.name for v in open_inputs(self.old)}
        a, b = ({t.name for t in m.graph.initializer} & free for m in (self.old, new))
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
        """What the model gives for each of its feeds; None where it can't be said, and `why` says why."""
        if not hasattr(self, "_wanted"):
            self._wanted, self.why = None, "they take long or have inputs that nothing is made up for"
            try:
                made = session(self.old.SerializeToString(), optimized=False)
                self._wanted = [run(made, feed()) for feed in self.case.feeds] or None
            except Exception:
                self.why = "ONNX Runtime doesn't take the original"
        return self._wanted

    def values(self, new: onnx.ModelProto, path: Path) -> list[str]:
        """How a rewritten model's values differ."""
        wanted = self.wanted()
        if wanted is None:
            self.count("values", f"skipped: {self.why}")
            return []
        if is_random(self.old) and self.case.part == "backend":
            self.count("values", "random: not compared")
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
        if is_random(self.old) and self.case.part == "backend":
            self.count("values", "random: not compared")
            return []
        if self.wanted() is None:
            self.count("values", f"skipped: {self.why}")
            return []
        try:
            return judge(self.old, new, form, self.case.feeds, self.case)
        except Exception as error:
            return [f"ONNX Runtime: {str(error)[:300]}"]


PASSES: list[str] = []
