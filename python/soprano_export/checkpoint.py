"""Decoder checkpoints: read without running code, refused unless every tensor is what upstream expects."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from . import upstream
from .errors import ExportError
from .upstream import Architecture

FILE = "decoder.pth"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
SHOWN = 5
"""How many tensors an error message lists before it only counts."""
BLOCK = re.compile(r"decoder\.convnext\.(\d+)\.")
FOREIGN = re.compile(r"GLOBAL (\S+)")
FOREIGN_CALL = re.compile(r"via `add_safe_globals`|unrecognized function")
ADVICE = re.compile(
    r"^Weights only load failed.*?(WeightsUnpickler error: |\n\n)|Check the documentation.*$", re.DOTALL
)
POINTER = b"version https://git-lfs"


def load(directory: Path) -> tuple[torch.nn.Module, Architecture]:
    """Upstream's decoder with the weights of `directory`/decoder.pth (f32, frozen), and its dimensions.

    Accepts a flat state dict or one under the key "state_dict", in f32, f16 or bf16. Raises ExportError
    with a code that starts with "checkpoint-".
    """
    path = directory / FILE
    state = _tensors(_read(path), path)
    architecture = measure({name: tuple(tensor.shape) for name, tensor in state.items()}, path)
    module = upstream.build(architecture)
    _check(state, {name: tuple(blank.shape) for name, blank in module.state_dict().items()}, path)
    upstream.load_weights(module, {name: tensor.float() for name, tensor in state.items()})
    return module, architecture


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except FileNotFoundError:
        raise ExportError(
            "checkpoint-missing", f"{path} does not exist", f"a Soprano checkpoint directory holds {FILE}"
        ) from None
    except OSError as error:
        raise ExportError("checkpoint-missing", f"cannot read {path}: {error.strerror}") from None
    if not start:
        raise ExportError("checkpoint-format", f"{path} is empty", "fetch it again")
    if start == POINTER:
        raise ExportError(
            "checkpoint-format", f"{path} is a Git LFS pointer, not the file itself", "run `git lfs pull`"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        if not (asked := FOREIGN.search(text)) and not FOREIGN_CALL.search(text):
            raise _damaged(path, text) from None
        what = asked[1] if asked else "code"
        raise ExportError(
            "checkpoint-unsafe",
            f"{path} was not loaded: it asks to run {what}, which is no part of a tensor",
            "save the weights alone, torch.save(model.state_dict(), ...), or use a checkpoint you can trust",
        ) from None
    except Exception as error:
        raise _damaged(path, str(error) or type(error).__name__) from None


def _damaged(path: Path, reason: str) -> ExportError:
    said = ADVICE.sub("", reason).strip().split("\n", 1)[0][:200]
    return ExportError(
        "checkpoint-format",
        f"{path} is not a whole PyTorch state dict: {said}",
        "fetch it again, or compare its sha256 with the publisher's",
    )


def _tensors(content: Any, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ExportError(
            "checkpoint-format", f"{path} holds a {type(content).__name__}, not a dict of tensors"
        )
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ExportError(
                "checkpoint-format",
                f"{path}: {name!r} is a {type(tensor).__name__}, not a tensor",
                'a state dict, flat or under the key "state_dict", is expected',
            )
        if tensor.layout != torch.strided or tensor.dtype not in FLOATS:
            found = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise ExportError(
                "checkpoint-dtype",
                f"{path}: tensor `{name}` is {found}; float32, float16 or bfloat16 (strided) is expected",
            )
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ExportError(
                "checkpoint-shape",
                f"{path}: tensor `{name}` claims shape {list(tensor.shape)} over "
                f"{tensor.untyped_storage().nbytes()} bytes",
            )
    return dict(content)


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
        if not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise ExportError(
                "checkpoint-nan",
                f"{path}: tensor `{name}` has {count} of {tensor.numel()} values that are NaN or infinite",
                "the checkpoint is damaged or training diverged; use another one",
            )
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
