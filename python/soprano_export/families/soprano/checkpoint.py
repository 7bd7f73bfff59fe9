"""Decoder checkpoints: read without running code, refused unless every tensor is what upstream expects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ... import weights
from ...errors import ExportError
from . import upstream
from .upstream import Architecture

FILE = "decoder.pth"
SHOWN = 5
"""How many tensors an error message lists before it only counts."""
BLOCK = re.compile(r"decoder\.convnext\.(\d+)\.")


def load(directory: Path) -> tuple[torch.nn.Module, Architecture]:
    """Upstream's decoder with the weights of `directory`/decoder.pth (f32, frozen), and its dimensions.

    Accepts a flat state dict or one under the key "state_dict", in f32, f16 or bf16. Raises ExportError
    with a code that starts with "checkpoint-".
    """
    path = directory / FILE
    state = weights.pickled(path, f"a Soprano checkpoint directory holds {FILE}")
    architecture = measure({name: tuple(tensor.shape) for name, tensor in state.items()}, path)
    module = upstream.build(architecture)
    _check(state, {name: tuple(blank.shape) for name, blank in module.state_dict().items()}, path)
    upstream.load_weights(module, {name: tensor.float() for name, tensor in state.items()})
    return module, architecture


def measure(shapes: Mapping[str, tuple[int, ...]], path: Path) -> Architecture:
    """Read every dimension off the shapes of a state dict.

    Raises ExportError("checkpoint-architecture") when the tensors are not those of a Soprano decoder,
    and ExportError("checkpoint-shape") when they are but have dimensions that upstream cannot run.
    """
    ranks = {
        "decoder.embed.weight": 3,
        "decoder.convnext.0.dwconv.weight": 3,
        "decoder.convnext.0.pwconv1.weight": 2,
        "head.out.weight": 2,
        "head.istft.window": 1,
    }
    absent = [name for name in ranks if name not in shapes]
    if {"decoder.embed.weight", "head.out.weight"} <= set(absent):
        raise ExportError(
            "checkpoint-architecture",
            f"{path} is not a Soprano decoder: none of its {len(shapes)} tensors is decoder.embed.weight or "
            f"head.out.weight; it holds {_some(sorted(shapes))}",
            "the language model is another file; a checkpoint directory holds both",
        )
    if absent:
        raise _shape_error(path, [f"{name} is missing" for name in absent])
    wrong = [
        f"{name} is {list(shapes[name])}, expected {rank} dimensions, none of them 0"
        for name, rank in ranks.items()
        if len(shapes[name]) != rank or 0 in shapes[name]
    ]
    if wrong:
        raise _shape_error(path, wrong)
    dim, input_channels, input_kernel = shapes["decoder.embed.weight"]
    blocks = {int(found[1]) for name in shapes if (found := BLOCK.match(name))}
    layers = len(blocks)
    architecture = Architecture(
        input_channels=input_channels,
        dim=dim,
        intermediate_dim=shapes["decoder.convnext.0.pwconv1.weight"][0],
        layers=layers,
        input_kernel=input_kernel,
        dw_kernel=shapes["decoder.convnext.0.dwconv.weight"][2],
        n_fft=shapes["head.out.weight"][0] - 2,
    )
    if blocks != set(range(layers)):
        first = min(set(range(max(blocks))) - blocks)
        wrong.append(f"decoder.convnext.{first} is missing, although decoder.convnext.{max(blocks)} is there")
    for name, kernel in (
        ("decoder.embed.weight", architecture.input_kernel),
        ("decoder.convnext.0.dwconv.weight", architecture.dw_kernel),
    ):
        if kernel % 2 == 0:
            wrong.append(f"{name} is {list(shapes[name])}: an even kernel ({kernel}) changes the length")
    if architecture.n_fft < 4 or architecture.n_fft % upstream.HOPS_PER_WINDOW:
        wrong.append(
            f"head.out.weight is {list(shapes['head.out.weight'])}: its rows are n_fft + 2, "
            f"and n_fft = {architecture.n_fft} is not a positive multiple of {upstream.HOPS_PER_WINDOW}"
        )
    if wrong:
        raise _shape_error(path, wrong)
    return architecture


def _check(state: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Hold names, shapes and values against what upstream's module of these dimensions has."""
    wrong = []
    for name, shape in expected.items():
        if name not in state:
            wrong.append(f"{name} is missing, expected {list(shape)}")
        elif tuple(state[name].shape) != shape:
            wrong.append(f"{name} is {list(state[name].shape)}, expected {list(shape)}")
    wrong += [f"{name} {list(state[name].shape)} is not expected" for name in state if name not in expected]
    if wrong:
        raise _shape_error(path, wrong)
    for name, tensor in state.items():
        weights.check_finite(name, tensor, path)
    window = state["head.istft.window"].float()
    envelope = window.square().view(upstream.HOPS_PER_WINDOW, -1).sum(0)
    if float(envelope.min()) < 1e-6 or abs(float(window[len(window) // 2])) < 1e-3:
        raise ExportError(
            "checkpoint-window",
            f"{path}: `head.istft.window` leaves samples without energy, so its STFT has no inverse",
            "upstream's window is a periodic Hann window",
        )


def _shape_error(path: Path, wrong: list[str]) -> ExportError:
    return ExportError(
        "checkpoint-shape",
        f"{path}: {_some(wrong, '; ')}",
        "not the decoder of this model, or of a version that upstream's code does not know",
    )


def _some(items: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return separator.join(items[:SHOWN]) + more if items else "nothing"
