"""OpenVINO IR: converting beside the same Python calls by hand, and a step and a decoder beside PyTorch.

Conversions are whole processes, best of three. Runs are interleaved; damage is the signal-to-noise ratio
against the fp32 IR.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openvino
import torch
from decoder_onnxruntime import session, table
from lm_onnxruntime import eager_step, feeds, interleaved, shapes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
from soprano_export import PROTOCOL
from soprano_export.families.soprano import checkpoint

ROOT = Path(__file__).resolve().parent.parent
PAST, TOKENS = 256, 100
BY_HAND = """
import sys, openvino, nncf
model, folder = sys.argv[1:]
made = openvino.convert_model(model)
openvino.save_model(made, folder + "/fp32.xml", compress_to_fp16=False)
made = nncf.compress_weights(made, mode=nncf.CompressWeightsMode.INT8_SYM)
openvino.save_model(made, folder + "/int8.xml", compress_to_fp16=False)
"""


def seconds(command: list[str]) -> float:
    """How long a process takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT / "python")
    return time.perf_counter() - began


ROLES = {"decoder": "signal", "lm": "causal"}


def converting(bundle: Path, graph: str, file: str, rounds: int) -> list[str]:
    """The best of the task and of the same calls by hand."""
    ours, by_hand = [], []
    with tempfile.TemporaryDirectory() as scratch:
        model = (bundle / "onnx" / file).resolve()
        fields = {"family": "soprano", "graph": graph, "role": ROLES[graph], "model": str(model)}
        fields |= {"protocol": PROTOCOL, "task": "convert", "output": scratch, "precisions": ["fp32", "int8"]}
        request = Path(scratch) / "request.json"
        request.write_text(json.dumps(fields))
        for _ in range(rounds):
            ours.append(seconds([sys.executable, "-m", "soprano_export", str(request)]))
            by_hand.append(seconds([sys.executable, "-c", BY_HAND, str(model), scratch]))
    return [graph, f"{min(ours):.1f}", f"{min(by_hand):.1f}", f"{min(ours) / min(by_hand):.2f}x"]


def compiled(path: Path, threads: int) -> openvino.CompiledModel:
    """A model as a client would load it."""
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(path, "CPU", settings)


def decibels(want: np.ndarray, got: np.ndarray) -> float:
    """Signal over error."""
    return 10 * float(np.log10((want**2).sum() / ((want - got) ** 2).sum()))


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--conversions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    names = {"decoder": "soprano_decoder", "lm": "soprano_backbone_kv"}
    print(f"OpenVINO {openvino.__version__}, PyTorch {torch.__version__}, threads {given.threads}\n")
    rows = [converting(given.bundle, p, f"{n}_fp32.onnx", given.conversions) for p, n in names.items()]
    print(table(["fp32 and int8 IR", "ours, s", "by hand, s", "of it"], rows), end="\n\n")

    steps, hidden = {}, {}
    for scheme in ("fp32", "int8"):
        model = compiled(given.bundle / "openvino" / f"{names['lm']}_{scheme}.xml", given.threads)
        request = model.create_infer_request()
        loaded = session(str(given.bundle / "onnx" / f"{names['lm']}_fp32.onnx"), 1)
        random = np.random.default_rng(0)
        cache = {n: random.standard_normal(s, np.float32) for n, s in shapes(loaded, 1, PAST).items()}
        fed = feeds(loaded, random.integers(0, 100, (1, 1)), cache, PAST)

        def step(request=request, fed=fed) -> float:
            began = time.perf_counter()
            request.infer(fed)
            return time.perf_counter() - began

        step()
        steps[f"IR {scheme}"] = step
        hidden[scheme] = request.get_tensor("last_hidden_state").data.copy()
    onnx = session(str(given.bundle / "onnx" / f"{names['lm']}_int8.onnx"), given.threads)

    def onnx_step() -> float:
        began = time.perf_counter()
        onnx.run(None, fed)
        return time.perf_counter() - began

    steps["ONNX Runtime int8"] = onnx_step
    steps["PyTorch eager"] = eager_step(given.checkpoint, 1, PAST)
    show(f"a step behind {PAST}", interleaved(steps, given.rounds))
    print(f"hidden states of the int8 IR to the fp32 IR: {decibels(*hidden.values()):.1f} dB\n")

    module, architecture = checkpoint.load(given.checkpoint)
    x = np.random.default_rng(0).standard_normal((1, architecture.input_channels, TOKENS), np.float32)
    audio, runs = {}, {}
    for scheme in ("fp32", "int8"):
        model = compiled(given.bundle / "openvino" / f"{names['decoder']}_{scheme}.xml", given.threads)
        runs[f"IR {scheme}"] = timed(lambda model=model: model({"hidden_states": x})[0])
        audio[scheme] = model({"hidden_states": x})[0].copy()
    loaded = session(str(given.bundle / "onnx" / f"{names['decoder']}_int8.onnx"), given.threads)
    runs["ONNX Runtime int8"] = timed(lambda: loaded.run(None, {"hidden_states": x}))

    def eager() -> None:
        with torch.inference_mode():
            module(torch.from_numpy(x))

    runs["PyTorch eager"] = timed(eager)
    show(f"decoder, {TOKENS} tokens", interleaved(runs, max(5, given.rounds // 2)))
    print(f"audio of the int8 IR to the fp32 IR: {decibels(*audio.values()):.1f} dB")


def timed(work):
    """Work that says how long it took."""

    def run() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return run


def show(what: str, times: dict[str, list[float]]) -> None:
    """A table of minima."""
    best = {name: min(took) for name, took in times.items()}
    rows = [
        [name, f"{ms:.2f}", f"{best['IR fp32'] / ms:.2f}x", f"{best['PyTorch eager'] / ms:.2f}x"]
        for name, ms in best.items()
    ]
    print(table([what, "min ms", "than IR fp32", "than PyTorch eager"], rows), end="\n\n")


if __name__ == "__main__":
    main()
