"""One step of a language model in ONNX Runtime: ours beside Optimum's export, `quantize_dynamic` and PyTorch.

Runs are interleaved. The damage of each quantization is the signal-to-noise ratio of its hidden states
against our fp32 model's, every model stepping behind the fp32 model's own cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
import torch
from decoder_onnxruntime import session, table
from onnxruntime.quantization import QuantType, quantize_dynamic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
from soprano_export import families, language_model
from soprano_export.target import Target

HIDDEN = "last_hidden_state"
NAME = "soprano_backbone_kv_{}.onnx"
OURS, OPTIMUM, EAGER = "ours fp32", "Optimum fp32", "PyTorch eager"
DYNAMIC = "Optimum quantize_dynamic"


@dataclass
class Model:
    """A file to time, and the value that holds its hidden states."""

    name: str
    path: Path
    hidden: str = HIDDEN
    timed: bool = True


def dynamic(name: str, of: Model, to: Path, per_channel: bool = False, timed: bool = True) -> Model:
    """ONNX Runtime's own dynamic quantization of the products with constant weights."""
    quantize_dynamic(
        of.path, to, op_types_to_quantize=["MatMul"], per_channel=per_channel, weight_type=QuantType.QInt8
    )
    return Model(name, to, of.hidden, timed)


def head_input(path: Path) -> str:
    """The value that the logits are a product of."""
    made = next(n for n in onnx.load(path, load_external_data=False).graph.node if "logits" in n.output)
    return made.input[0]


def watched(model: Model) -> bytes:
    """The model with its hidden states among its outputs."""
    loaded = onnx.load(model.path)
    if model.hidden not in {o.name for o in loaded.graph.output}:
        loaded.graph.output.append(
            onnx.helper.make_tensor_value_info(model.hidden, onnx.TensorProto.FLOAT, None)
        )
    return loaded.SerializeToString()


def feeds(
    loaded: onnxruntime.InferenceSession, ids: np.ndarray, cache: dict[str, np.ndarray], past: int
) -> dict[str, np.ndarray]:
    """`ids` behind the first `past` positions of a cache."""
    batch, length = ids.shape
    given = {
        "input_ids": ids,
        "attention_mask": np.ones((batch, past + length), np.int64),
        "position_ids": np.tile(np.arange(past, past + length), (batch, 1)),
    }
    given |= {name: np.ascontiguousarray(value[:, :, :past]) for name, value in cache.items()}
    return {port.name: given[port.name] for port in loaded.get_inputs()}


def shapes(loaded: onnxruntime.InferenceSession, batch: int, past: int) -> dict[str, tuple[int, ...]]:
    """The shape of each cached value."""
    return {
        port.name: (batch, port.shape[1], past, port.shape[3])
        for port in loaded.get_inputs()
        if port.name.startswith("past_key_values")
    }


def onnx_step(path: Path, batch: int, past: int, threads: int) -> Callable[[], float]:
    """Seconds of one step behind random values."""
    loaded = session(str(path), threads)
    random = np.random.default_rng(0)
    ids = random.integers(0, 100, (batch, 1))
    cache = {
        name: random.standard_normal(shape, np.float32) for name, shape in shapes(loaded, batch, past).items()
    }
    given = feeds(loaded, ids, cache, past)

    def step() -> float:
        began = time.perf_counter()
        loaded.run(None, given)
        return time.perf_counter() - began

    return step


def eager_step(checkpoint: Path, batch: int, past: int) -> Callable[[], float]:
    """The same in `transformers`; filling the cache isn't timed."""
    from transformers import DynamicCache

    model = language_model.load(checkpoint)
    config = model.config
    ids, mask = torch.zeros(batch, 1, dtype=torch.int64), torch.ones(batch, past + 1, dtype=torch.int64)
    filling = torch.randn(batch, config.num_key_value_heads, past, config.head_dim)

    def step() -> float:
        cache = DynamicCache()
        for layer in range(config.num_hidden_layers):
            cache.update(filling, filling, layer)
        began = time.perf_counter()
        with torch.inference_mode():
            model(ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        return time.perf_counter() - began

    return step


def interleaved(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each step, two rounds of warming up left out."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 2):
        for name, step in steps.items():
            took = step()
            if round_ >= 2:
                times[name].append(1e3 * took)
    return times


def damage(models: list[Model], past: int, positions: int, threads: int) -> dict[str, np.ndarray]:
    """Signal-to-noise ratio in dB of each model's hidden states, first over all positions, then of each.

    The first model prefills random tokens; at each position every model steps once behind that cache.
    """
    first = session(watched(models[0]), threads)
    vocabulary = next(o.shape[-1] for o in first.get_outputs() if o.name == "logits")
    ids = np.random.default_rng(1).integers(0, vocabulary, (1, past + positions))
    empty = {name: np.zeros(shape, np.float32) for name, shape in shapes(first, 1, 0).items()}
    presents = [name.replace("past_key_values", "present") for name in empty]
    cache = dict(zip(empty, first.run(presents, feeds(first, ids, empty, 0)), strict=True))
    states = {}
    for model in models:
        loaded = first if model is models[0] else session(watched(model), threads)
        rows = [
            loaded.run([model.hidden], feeds(loaded, ids[:, p : p + 1], cache, p))[0].reshape(-1)
            for p in range(past, past + positions)
        ]
        states[model.name] = np.stack(rows).astype(np.float64)
    wanted = states.pop(models[0].name)

    def ratio(found: np.ndarray) -> np.ndarray:
        signal, noise = np.square(wanted).sum(1), np.square(found - wanted).sum(1)
        return 10 * np.log10(np.append(signal.sum(), signal) / np.append(noise.sum(), noise))

    return {name: ratio(found) for name, found in states.items()}


def report(times: dict[str, list[float]], snr: dict[str, np.ndarray], models: list[Model]) -> str:
    """One row a model; ratios above 1 are faster than the column's model."""
    size = {model.name: f"{model.path.stat().st_size / 1e6:.1f}" for model in models}
    against = [name for name in (OURS, EAGER, OPTIMUM, DYNAMIC) if name in times]
    rows = []
    for name in dict.fromkeys([*times, *snr]):
        row = [name, size.get(name, "")]
        if name in times:
            best = min(times[name])
            row += [f"{best:.2f}", f"{median(times[name]):.2f}"]
            row += [f"{min(times[other]) / best:.2f}x" for other in against]
        else:
            row += [""] * (2 + len(against))
        if snr:
            row += [f"{snr[name][0]:.1f}", f"{snr[name][1:].min():.1f}"] if name in snr else ["", ""]
        rows.append(row)
    header = ["model", "MB", "min ms", "median ms", *(f"than {name}" for name in against)]
    return table(header + (["SNR dB", "worst"] if snr else []), rows)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--bundle", type=Path, required=True, help="a bundle with a language model and its int8"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="the folder of model.safetensors")
    parser.add_argument("--ours", type=Path, nargs="+", default=[], metavar="FILE", help="more files to time")
    parser.add_argument("--optimum", type=Path, help="Optimum's export with past (default: made anew)")
    parser.add_argument("--past", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument(
        "--positions", type=int, default=16, help="of the hidden states (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="runs of each model (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Measures and prints both tables."""
    given = arguments()
    torch.set_num_threads(given.threads)
    folder = given.bundle / "onnx"
    ours = [Model(OURS, folder / NAME.format("fp32")), Model("ours int8", folder / NAME.format("int8"))]
    ours += [Model(path.stem, path) for path in given.ours]
    with tempfile.TemporaryDirectory() as scratch:
        to = Path(scratch)
        exported = given.optimum
        if not exported:
            exported = to / "exported.onnx"
            target = Target(checkpoint=str(given.checkpoint), family="soprano", graph="lm", role="causal")
            families.kind(target).load(target).export("optimum", 17, exported)
        optimum = Model(OPTIMUM, exported, head_input(exported))
        peers = [
            optimum,
            dynamic(DYNAMIC, optimum, to / "peer.onnx"),
            dynamic("the same, per channel", optimum, to / "peer_columns.onnx", per_channel=True),
            dynamic("quantize_dynamic of ours", ours[0], to / "own.onnx", timed=False),
            dynamic("that, per channel", ours[0], to / "own_columns.onnx", per_channel=True, timed=False),
        ]
        models = [*ours, *peers]
        print(
            f"ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}, threads {given.threads}; "
            f"{given.rounds} interleaved runs; ratios "
            f"say how many times faster; SNR of hidden states over {given.positions} positions\n"
        )
        steps = {m.name: onnx_step(m.path, 1, given.past, given.threads) for m in models if m.timed}
        steps[EAGER] = eager_step(given.checkpoint, 1, given.past)
        times = interleaved(steps, given.rounds)
        del steps
        snr = damage(models, given.past, given.positions, given.threads)
        print(f"batch 1, past {given.past}")
        print(report(times, snr, models), end="\n\n")

        batch, past = 16, given.past // 2
        few = [*ours[:2], *peers[:2]]
        steps = {m.name: onnx_step(m.path, batch, past, given.threads) for m in few}
        print(f"batch {batch}, past {past}")
        print(report(interleaved(steps, given.rounds), {}, few))


if __name__ == "__main__":
    main()
