"""Files of weights: read without running code, refused where they are damaged or lie."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import ExportError

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
FOREIGN = re.compile(r"GLOBAL (\S+)")
FOREIGN_CALL = re.compile(r"via `add_safe_globals`|unrecognized function")
ADVICE = re.compile(
    r"^Weights only load failed.*?(WeightsUnpickler error: |\n\n)|Check the documentation.*$", re.DOTALL
)
POINTER = b"version https://git-lfs"


def pickled(path: Path, hint: str) -> dict[str, torch.Tensor]:
    """The state dict of a PyTorch file, flat or under the key "state_dict", in f32, f16 or bf16.

    Raises ExportError("checkpoint-missing"), with `hint`, ("-format"), ("-unsafe"), ("-dtype") or ("-shape").
    """
    return _tensors(_unpickle(path, hint), path)


def _unpickle(path: Path, hint: str) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except FileNotFoundError:
        raise ExportError("checkpoint-missing", f"{path} does not exist", hint) from None
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
            f"{path} was not loaded: it asks to run {what}, which is not part of a tensor",
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
        check_dtype(name, tensor, path)
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ExportError(
                "checkpoint-shape",
                f"{path}: tensor `{name}` claims shape {list(tensor.shape)} over "
                f"{tensor.untyped_storage().nbytes()} bytes",
            )
    return dict(content)


def safetensors(
    path: Path, hint: str, names: list[str] | None = None, index: str = ""
) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file: those of `names`, as `index` lists them, where it does.

    Raises ExportError("checkpoint-missing"), with `hint`, ("-format") or ("-shape").
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise ExportError(
            "checkpoint-missing",
            f"{path} cannot be read: {error.strerror}",
            hint,
        ) from None
    if start == POINTER:
        raise ExportError(
            "checkpoint-format", f"{path} is a Git LFS pointer, not the file itself", "run `git lfs pull`"
        )
    try:
        with safe_open(path, "pt") as file:
            found = set(file.keys())
            listed = found if names is None else set(names)
            if differing := listed ^ found:
                name = min(differing)
                raise ExportError(
                    "checkpoint-shape",
                    f"{path}: tensor `{name}` is missing, although {index} says it is there"
                    if name in listed
                    else f"{path}: tensor `{name}` is there, although {index} does not say so",
                    "fetch it again",
                )
            return {name: file.get_tensor(name) for name in sorted(found)}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        why = str(error).split("\n", 1)[0][:200] or type(error).__name__
        raise ExportError(
            "checkpoint-format",
            f"{path} is not a whole safetensors file: {why}",
            "fetch it again, or compare its sha256 with the publisher's",
        ) from None


def check_dtype(name: str, tensor: torch.Tensor, path: Path) -> None:
    """Raise ExportError("checkpoint-dtype") for what is not a dense tensor in f32, f16 or bf16."""
    if tensor.layout != torch.strided or tensor.dtype not in FLOATS or tensor.is_meta:
        form = "meta" if tensor.is_meta else "" if tensor.layout == torch.strided else str(tensor.layout)
        kind = ", ".join(filter(None, (str(tensor.dtype), form)))
        raise ExportError(
            "checkpoint-dtype",
            f"{path}: tensor `{name}` is {kind.replace('torch.', '')}; float32, float16 or bfloat16 is "
            "expected",
        )


def check_finite(name: str, tensor: torch.Tensor, path: Path) -> None:
    """Raise ExportError("checkpoint-nan") for NaN and infinite values."""
    if not torch.isfinite(tensor).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise ExportError(
            "checkpoint-nan",
            f"{path}: tensor `{name}` has {count} of {tensor.numel()} values that are NaN or infinite",
            "the checkpoint is damaged or training diverged; use another one",
        )
