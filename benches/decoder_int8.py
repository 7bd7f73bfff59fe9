"""The decoder in fp32 and int8 in ONNX Runtime, beside upstream's own module in PyTorch.

Runs are interleaved. The damage of int8 is its signal-to-noise ratio against fp32 and against PyTorch: on a
recorded reference, on whatever the bundle's references speak, and on fresh inputs of the same kind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from decoder_onnxruntime import session, table
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
from soprano_export import references
from soprano_export.families.soprano import checkpoint

FP32, INT8, DYNAMIC, EAGER = "ours fp32", "ours int8", "quantize_dynamic of ours", "PyTorch eager"
NAME = "soprano_decoder_{}.onnx"
FRESH = 8
"""Fresh inputs, each of its own seed."""


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-noise ratio."""
    noise = np.square(found.astype(np.float64) - wanted).sum()
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / noise))


def interleaved(
    runs: dict[str, Callable[[np.ndarray], np.ndarray]], hidden: np.ndarray, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each run, two rounds of warming up left out."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 2):
        for name, run in runs.items():
            began = time.perf_counter()
            run(hidden)
            if round_ >= 2:
                times[name].append(1e3 * (time.perf_counter() - began))
    return times


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle with a decoder and its int8")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the folder of decoder.pth")
    parser.add_argument("--case", default="b1_t100", help="a recorded reference (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each model (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Measures and prints both tables."""
    given = arguments()
    torch.set_num_threads(given.threads)
    decoder, architecture = checkpoint.load(given.checkpoint)
    recorded = load_file(given.bundle / "reference" / "decoder.safetensors")
    if f"{given.case}/audio" not in recorded:
        raise SystemExit(f"the bundle has no reference {given.case}")
    folder = given.bundle / "onnx"

    def eager(hidden: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return decoder(torch.from_numpy(hidden)).numpy()

    with tempfile.TemporaryDirectory() as scratch:
        paths = {
            FP32: folder / NAME.format("fp32"),
            INT8: folder / NAME.format("int8"),
            DYNAMIC: Path(scratch) / "dynamic.onnx",
        }
        quantize_dynamic(
            paths[FP32], paths[DYNAMIC], op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8
        )
        size = {name: f"{path.stat().st_size / 1e6:.1f}" for name, path in paths.items()}
        sessions = {name: session(str(path), given.threads) for name, path in paths.items()}

    def run(name: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda hidden: sessions[name].run(["audio"], {"hidden_states": hidden})[0]

    runs = {name: run(name) for name in paths} | {EAGER: eager}
    hidden = recorded[f"{given.case}/hidden_states"]
    print(
        f"ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}, threads {given.threads}, "
        f"batch {hidden.shape[0]}, tokens {hidden.shape[2]}; {given.rounds} interleaved runs; "
        "ratios say how many times faster\n"
    )
    times = interleaved(runs, hidden, given.rounds)
    rows = []
    for name, took in times.items():
        ratios = [f"{min(times[other]) / min(took):.2f}x" for other in (FP32, EAGER)]
        rows.append([name, size.get(name, ""), f"{min(took):.1f}", f"{median(took):.1f}", *ratios])
    print(table(["decoder", "MB", "min ms", "median ms", f"than {FP32}", f"than {EAGER}"], rows), end="\n\n")

    inputs = [(given.case, hidden, recorded[f"{given.case}/audio"])]
    spoken = sorted(key for key in recorded if key.startswith("spoken") and key.endswith("/hidden_states"))
    for key in spoken:
        inputs.append((key.split("/")[0], recorded[key], recorded[key.replace("hidden_states", "audio")]))
    for seed in range(1, FRESH + 1):
        made = references.lifelike(1, architecture.input_channels, hidden.shape[2], seed).numpy()
        inputs.append((f"fresh, seed {seed}", made, eager(made)))
    rows = []
    for what, given_states, wanted in inputs:
        found = {name: runs[name](given_states) for name in paths}
        ratios = [
            decibels(wanted, found[FP32]),
            decibels(found[FP32], found[INT8]),
            decibels(wanted, found[INT8]),
            decibels(wanted, found[DYNAMIC]),
        ]
        rows.append([what, *(f"{ratio:.1f}" for ratio in ratios)])
    header = ["SNR, dB", "fp32 to PyTorch", "int8 to fp32", "int8 to PyTorch", "quantize_dynamic to PyTorch"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
