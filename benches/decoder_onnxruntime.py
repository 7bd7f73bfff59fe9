"""What the rewrite saves in ONNX Runtime on the CPU: the inverse STFT, and time outside matrix products.

Compares a rewritten decoder with its plain export, whose placeholder inverse STFT becomes one of two
straightforward forms: `identity` (a matrix product with the whole basis, overlap-add by a transposed
convolution with an identity kernel) and `matmul` (the same product, overlap-add by pad and add). Runs are
interleaved; every figure is a minimum, for whole-decoder tables the sum of each node's own minimum.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

PLACEHOLDER = "soprano_export"
PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm"})
Build = Callable[["Emitter", "Transform", str, str, str], None]


@dataclass
class Transform:
    """The placeholder's attributes and its window, centred in `size`."""

    size: int
    hop: int
    window: np.ndarray
    zero_edges: bool
    scale: float

    @classmethod
    def of(cls, model: onnx.ModelProto, node: onnx.NodeProto) -> Transform:
        """Reads a placeholder; its window is an initializer."""
        attribute = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        given = next(numpy_helper.to_array(i) for i in model.graph.initializer if i.name == node.input[2])
        size, window = attribute["n_fft"], np.zeros(attribute["n_fft"])
        left = (size - len(given)) // 2
        window[left : left + len(given)] = given
        scale = size**-0.5 if attribute.get("normalized") else 1 / size
        return cls(size, attribute["hop_length"], window, bool(attribute.get("zero_dc_nyquist")), scale)

    @property
    def bins(self) -> int:
        """Rows of the one-sided spectrum."""
        return self.size // 2 + 1

    def basis(self) -> np.ndarray:
        """[2 bins, size]: real parts over imaginary parts, times the window."""
        k, n = np.arange(self.bins)[:, None], np.arange(self.size)[None]
        angle = 2 * np.pi * (k * n % self.size) / self.size
        edge = 0.0 if self.zero_edges else 1.0
        weight = np.where((k == 0) | (2 * k == self.size), edge, 2.0) * self.scale * self.window
        return np.concatenate([weight * np.cos(angle), -weight * np.sin(angle)]).astype(np.float32)


@dataclass
class Emitter:
    """Collects nodes and constants named under `scope`."""

    scope: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, value: np.ndarray) -> str:
        """An initializer."""
        name = f"{self.scope}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def emit(self, op: str, *inputs: str | np.ndarray, output: str = "", **attributes: object) -> str:
        """One node; arrays become constants. Gives the name of its output."""
        name = f"{self.scope}/{op}_{len(self.nodes)}"
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        self.nodes.append(helper.make_node(op, names, [output or name], name=name, **attributes))
        return output or name

    def slice(self, x: str, axis: int, start: int, end: int) -> str:
        """x[start:end] along one axis."""
        return self.emit("Slice", x, *(np.array([i], np.int64) for i in (start, end, axis)))

    def ones(self, x: str, axis: int) -> str:
        """[1, 1, frames] of ones, with the length of that axis of x."""
        count = self.slice(self.emit("Shape", x), 0, axis, axis + 1)
        dims = self.emit("Concat", np.ones(2, np.int64), count, axis=0)
        return self.emit("Expand", np.ones((1, 1, 1), np.float32), dims)


def identity(to: Emitter, transform: Transform, real: str, imag: str, output: str) -> None:
    """Overlap-add by a transposed convolution with an identity kernel. No transposes."""
    size, half = transform.size, transform.size // 2
    frames = to.emit("MatMul", transform.basis().T, to.emit("Concat", real, imag, axis=1))
    settings = {"strides": [transform.hop], "kernel_shape": [size]}
    kernel = np.eye(size, dtype=np.float32)[:, None]
    squared = np.square(transform.window).astype(np.float32)[None, None]
    sums = to.emit("ConvTranspose", frames, kernel, **settings)
    envelope = to.emit("ConvTranspose", to.ones(real, 2), squared, **settings)
    flat = [to.emit("Squeeze", x, np.array([1], np.int64)) for x in (sums, envelope)]
    to.emit("Div", *(to.slice(x, 1, half, -half) for x in flat), output=output)


def matmul(to: Emitter, transform: Transform, real: str, imag: str, output: str) -> None:
    """Overlap-add by pad and add of the frames' hops."""
    size, hop = transform.size, transform.hop
    if size % hop:
        raise SystemExit("the matmul form needs an n_fft that is a multiple of the hop")
    hops, half = size // hop, size // 2
    spectrum = to.emit("Transpose", to.emit("Concat", real, imag, axis=1), perm=[0, 2, 1])
    frames = to.emit("MatMul", spectrum, transform.basis())
    ones = to.emit("Transpose", to.ones(real, 2), perm=[0, 2, 1])
    squared = np.square(transform.window).astype(np.float32).reshape(hops, hop)

    def pad(x: str, r: int) -> str:
        return to.emit("Pad", x, np.array([0, r, 0, 0, hops - 1 - r, 0], np.int64))

    sums = pad(to.slice(frames, 2, 0, hop), 0)
    for r in range(1, hops):
        sums = to.emit("Add", sums, pad(to.slice(frames, 2, r * hop, (r + 1) * hop), r))
    present = to.emit("Concat", *(pad(ones, r) for r in range(hops)), axis=2)
    flat = [
        to.emit("Reshape", x, np.array([0, -1], np.int64))
        for x in (sums, to.emit("MatMul", present, squared))
    ]
    to.emit("Div", *(to.slice(x, 1, half, -half) for x in flat), output=output)


def placeholder(model: onnx.ModelProto) -> onnx.NodeProto:
    """The exported decoder's inverse STFT."""
    found = [n for n in model.graph.node if n.domain == PLACEHOLDER and n.op_type == "ISTFT"]
    if len(found) != 1:
        raise SystemExit(f"the exported decoder has {len(found)} ISTFT placeholders, not one")
    return found[0]


def plain(exported: onnx.ModelProto, build: Build) -> onnx.ModelProto:
    """The exported decoder with its placeholder written out, and nothing else changed."""
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    node = placeholder(model)
    to = Emitter(node.name)
    build(to, Transform.of(model, node), node.input[0], node.input[1], node.output[0])
    at = list(model.graph.node).index(node)
    before, after = list(model.graph.node[:at]), list(model.graph.node[at + 1 :])
    del model.graph.node[:]
    model.graph.node.extend([*before, *to.nodes, *after])
    model.graph.initializer.extend(to.constants)
    kept = [o for o in model.opset_import if o.domain != PLACEHOLDER]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def small(bins: int, to: Emitter, opset: int) -> onnx.ModelProto:
    """A model of real and imag [B, bins, T] to audio."""
    value = helper.make_tensor_value_info
    shapes = [value(name, onnx.TensorProto.FLOAT, ["b", bins, "t"]) for name in ("real", "imag")]
    audio = value("audio", onnx.TensorProto.FLOAT, ["b", "n"])
    graph = helper.make_graph(to.nodes, "istft", shapes, [audio], to.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def alone(transform: Transform, build: Build, opset: int) -> onnx.ModelProto:
    """One straightforward inverse STFT as a model."""
    to = Emitter("istft")
    build(to, transform, "real", "imag", "audio")
    return small(transform.bins, to, opset)


def cut_out(model: onnx.ModelProto, scope: str, bins: int, opset: int) -> onnx.ModelProto:
    """The rewritten model's inverse STFT, by the scope of its names, behind two transposes if it takes
    frames by rows (in the decoder itself those cancel, so this flatters the straightforward forms)."""
    nodes = [n for n in model.graph.node if in_scope(n.name, scope)]
    constants = {i.name: i for i in model.graph.initializer}
    made = {name for node in nodes for name in node.output}
    used = [name for node in nodes for name in node.input if name]
    outer = list(dict.fromkeys(name for name in used if name not in made and name not in constants))
    if len(outer) != 2:
        raise SystemExit(f"{scope}: expected a real and an imaginary input, found {outer or 'no nodes'}")
    # Which of the two is the real part doesn't matter: both take the same time.
    by_rows = not any(n.op_type == "Transpose" and n.input[0] in outer for n in nodes)
    to = Emitter("given")
    for name, outside in zip(("real", "imag"), outer, strict=True):
        if by_rows:
            to.emit("Transpose", name, output=outside, perm=[0, 2, 1])
        else:
            to.emit("Identity", name, output=outside)
    last = nodes[-1].output[0]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    to.nodes.extend(nodes)
    if last != "audio":
        to.emit("Identity", last, output="audio")
    to.constants.extend(constants[name] for name in dict.fromkeys(used) if name in constants)
    return small(bins, to, opset)


def in_scope(name: str, scope: str) -> bool:
    """Whether a node belongs to the inverse STFT. Runtime fusions keep the name as a prefix."""
    return name == scope or name.startswith(f"{scope}/")


def session(model: bytes, threads: int, profile: Path | None = None) -> ort.InferenceSession:
    """A session with all optimizations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def walls(
    models: dict[str, bytes], feeds: dict[str, np.ndarray], threads: int, repeats: int
) -> dict[str, float]:
    """Milliseconds per run of each model, minima of interleaved runs."""
    sessions = {name: session(model, threads) for name, model in models.items()}
    best = dict.fromkeys(models, float("inf"))
    for repeat in range(repeats + 1):
        for name, s in sessions.items():
            start = time.perf_counter()
            s.run(None, feeds)
            if repeat:
                best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    return best


def profiles(
    models: dict[str, bytes], feeds: dict[str, np.ndarray], threads: int, repeats: int
) -> dict[str, list[tuple[str, str, float]]]:
    """(name, operator, milliseconds) of each node of each model, minima of interleaved runs."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / str(i) for i, name in enumerate(models)}
        sessions = {name: session(model, threads, paths[name]) for name, model in models.items()}
        for _ in range(repeats + 1):
            for s in sessions.values():
                s.run(None, feeds)
        result = {}
        for name, s in sessions.items():
            durations: dict[tuple[str, str], list[float]] = defaultdict(list)
            for event in json.loads(Path(s.end_profiling()).read_text()):
                if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                    key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
                    durations[key].append(event["dur"] / 1e3)
            result[name] = [(*key, min(values[1:] or values)) for key, values in durations.items()]
        return result


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned text: the first column to the left, all others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()

    return "\n".join(line(row) for row in [header, *rows])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the rewritten decoder")
    parser.add_argument("--exported", type=Path, required=True, help="the decoder as exported")
    parser.add_argument("--tokens", type=int, default=100, help="length of the input (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="runs of each model (default: %(default)s)")
    parser.add_argument("--upscale", type=int, default=4, help="frames a token (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Measures and prints both tables."""
    given = arguments()
    exported, rewritten = onnx.load(given.exported), onnx.load(given.model)
    node = placeholder(exported)
    transform = Transform.of(exported, node)
    opset = next(o.version for o in exported.opset_import if not o.domain)
    random = np.random.default_rng(0)
    frames = given.upscale * (given.tokens - 1) + 1
    print(
        f"ONNX Runtime {ort.__version__}, threads {given.threads}, batch {given.batch}, "
        f"tokens {given.tokens} ({frames} frames), minimum of {given.repeats} runs\n"
    )

    shape = (given.batch, transform.bins, frames)
    spectrum = {name: random.standard_normal(shape, np.float32) for name in ("real", "imag")}
    parts = {
        "identity": alone(transform, identity, opset).SerializeToString(),
        "matmul": alone(transform, matmul, opset).SerializeToString(),
        "rewritten": cut_out(rewritten, node.name, transform.bins, opset).SerializeToString(),
    }
    alone_ms = walls(parts, spectrum, given.threads, given.repeats)
    baseline = alone_ms["identity"]

    channels = exported.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    hidden = random.standard_normal((given.batch, channels, given.tokens), np.float32)
    feeds = {exported.graph.input[0].name: hidden}
    decoders = {
        "identity": plain(exported, identity).SerializeToString(),
        "matmul": plain(exported, matmul).SerializeToString(),
        "rewritten": given.model.read_bytes(),
    }
    del exported, rewritten
    wall = walls(decoders, feeds, given.threads, given.repeats)
    nodes = profiles(decoders, feeds, given.threads, given.repeats)
    inside = {
        name: sum(ms for node_name, _, ms in found if in_scope(node_name, node.name))
        for name, found in nodes.items()
    }
    print("inverse STFT, ms")
    rows = [
        [
            name,
            f"{alone_ms[name]:.2f}",
            f"{baseline / alone_ms[name]:.2f}x",
            f"{inside[name]:.2f}",
            f"{inside['identity'] / inside[name]:.2f}x",
        ]
        for name in parts
    ]
    print(table(["form", "alone", "faster", "in the decoder", "faster"], rows), end="\n\n")

    print("decoder, ms")
    rows = []
    for name, found in nodes.items():
        total = sum(ms for *_, ms in found)
        outside = sum(ms for _, op, ms in found if op not in PRODUCTS)
        rows.append(
            [
                name,
                f"{wall[name]:.1f}",
                f"{wall['identity'] / wall[name]:.2f}x",
                f"{total:.1f}",
                f"{outside:.2f}",
                f"{100 * outside / total:.2f} %",
            ]
        )
    print(table(["form", "wall", "faster", "all nodes", "outside products", "share"], rows), end="\n\n")

    print("rewritten decoder by operator")
    by_operator = Counter[str]()
    for _, op, ms in nodes["rewritten"]:
        by_operator[op] += ms
    total = sum(by_operator.values())
    rows = [[op, f"{ms:.2f}", f"{100 * ms / total:.2f} %"] for op, ms in by_operator.most_common(16)]
    print(table(["operator", "ms", "share"], rows), end="\n\n")

    outputs = {name: session(model, given.threads).run(None, feeds)[0] for name, model in decoders.items()}
    error = np.abs(outputs["rewritten"] - outputs["identity"]).max() / np.abs(outputs["identity"]).max()
    print(f"rewritten and identity differ by {error:.1e} of the peak")


if __name__ == "__main__":
    main()
