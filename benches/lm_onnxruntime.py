"""One step of the language model in ONNX Runtime: ours in fp32 and int8, Optimum's export and its
`quantize_dynamic`, and PyTorch eager. Interleaved runs, one thread; milliseconds and ratios.

    .venv/bin/python benches/lm_onnxruntime.py --checkpoint DIR --ours FP32.onnx INT8.onnx... [--past 256]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
from soprano_export import language_model  # noqa: E402


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def inputs(loaded: onnxruntime.InferenceSession, batch: int, past: int) -> dict[str, np.ndarray]:
    """One token behind `past` cached positions, the same numbers for every model."""
    generator = np.random.default_rng(0)
    made = {
        "input_ids": generator.integers(0, 100, (batch, 1)),
        "attention_mask": np.ones((batch, past + 1), np.int64),
        "position_ids": np.full((batch, 1), past),
    }
    for port in loaded.get_inputs():
        if port.name.startswith("past_key_values"):
            shape = (batch, port.shape[1], past, port.shape[3])
            made[port.name] = generator.standard_normal(shape).astype(np.float32)
    names = {port.name for port in loaded.get_inputs()}
    return {name: value for name, value in made.items() if name in names}


def eager(checkpoint: Path, batch: int, past: int):
    from transformers import DynamicCache

    model = language_model.load(checkpoint)
    config = model.config
    ids, mask = torch.zeros(batch, 1, dtype=torch.int64), torch.ones(batch, past + 1, dtype=torch.int64)
    shape = (batch, config.num_key_value_heads, past, config.head_dim)

    def step() -> None:
        cache = DynamicCache()
        for layer in range(config.num_hidden_layers):
            cache.update(torch.zeros(shape), torch.zeros(shape), layer)
        began = time.perf_counter()
        with torch.inference_mode():
            model(ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        return time.perf_counter() - began

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--ours", type=Path, nargs="+", required=True)
    parser.add_argument("--optimum", type=Path, help="Optimum's own export with past")
    parser.add_argument("--past", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        models = {path.stem: path for path in arguments.ours}
        if arguments.optimum:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            models["optimum fp32"] = arguments.optimum
            models["optimum quantize_dynamic"] = Path(scratch) / "dynamic.onnx"
            quantize_dynamic(
                arguments.optimum,
                models["optimum quantize_dynamic"],
                op_types_to_quantize=["MatMul"],
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        runs, hidden = {}, {}
        for name, path in models.items():
            loaded = session(path)
            given = inputs(loaded, arguments.batch, arguments.past)
            if "last_hidden_state" in {port.name for port in loaded.get_outputs()}:
                hidden[name] = loaded.run(["last_hidden_state"], given)[0]

            def run(loaded=loaded, given=given) -> float:
                began = time.perf_counter()
                loaded.run(None, given)
                return time.perf_counter() - began

            runs[name] = run
        runs["torch eager"] = eager(arguments.checkpoint, arguments.batch, arguments.past)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for round_ in range(arguments.rounds + 2):
            for name, run in runs.items():
                took = run()
                if round_ >= 2:
                    times[name].append(took)
    first = next(iter(hidden))
    print(f"batch {arguments.batch}, past {arguments.past}, one thread")
    base = min(times[first])
    for name, took in times.items():
        snr = ""
        if name in hidden and name != first:
            error = np.square(hidden[first] - hidden[name]).sum()
            snr = f"{10 * np.log10(np.square(hidden[first]).sum() / error):8.1f} dB"
        print(f"{name:32} {1e3 * min(took):8.2f} ms  median {1e3 * median(took):8.2f}  "
              f"{base / min(took):5.2f}x {snr}")


if __name__ == "__main__":
    main()
