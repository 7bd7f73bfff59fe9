"""Language-model checkpoints: config, safetensors and tokenizer held against each other before any is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import ExportError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
POINTER = b"version https://git-lfs"
STOP = "[STOP]"


def load(directory: Path) -> torch.nn.Module:
    """The unmodified `transformers` model of a checkpoint directory: f32, frozen, eager attention.

    Reads config.json and model.safetensors, or the shards that model.safetensors.index.json names, in f32,
    f16 or bf16. Raises ExportError with a code that starts with "checkpoint-" or "lm-".
    """
    config = _config(directory)
    state, places = _weights(directory)
    model = _blank(config, directory)
    _check(model, state, places)
    _check_tokenizer(directory, config)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False, assign=True)
    model.tie_weights()
    return _materialise(model).eval().requires_grad_(False)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ExportError(
            "checkpoint-missing", f"{path} does not exist", f"a language model's folder holds {path.name}"
        ) from None
    except (OSError, ValueError) as error:
        raise ExportError("checkpoint-format", f"{path} is not JSON: {error}", "fetch it again") from None


def _config(directory: Path) -> Any:
    from transformers import AutoConfig

    path = directory / CONFIG
    if not isinstance(_json(path), dict):
        raise ExportError("checkpoint-format", f"{path} is not a JSON object", "fetch it again")
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        why = str(error).split("\n", 1)[0][:200]
        raise ExportError("checkpoint-config", f"{path}: {why}", "a causal language model is expected") from None
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if kv_heads < 1 or heads % kv_heads:
        raise ExportError(
            "checkpoint-config",
            f"{path}: {heads} attention heads cannot be shared by {kv_heads} key-value heads",
            "num_attention_heads is a multiple of num_key_value_heads",
        )
    return config


def _blank(config: Any, directory: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
            )
    except Exception as error:
        why = str(error).split("\n", 1)[0][:200]
        raise ExportError(
            "lm-unsupported", f"{directory / CONFIG}: no causal language model can be built: {why}"
        ) from None


def _materialise(model: torch.nn.Module) -> torch.nn.Module:
    """Buffers that no checkpoint holds (rotary frequencies) are still on the meta device: made again."""
    for module in model.modules():
        if hasattr(module, "rope_init_fn"):
            frequencies, module.attention_scaling = module.rope_init_fn(module.config, "cpu")
            module.inv_freq = module.original_inv_freq = frequencies
    return model


def _weights(directory: Path) -> tuple[dict[str, torch.Tensor], dict[str, Path]]:
    """Every tensor and the file it came from."""
    index = directory / INDEX
    if (directory / WEIGHTS).exists() or not index.exists():
        files: dict[Path, list[str] | None] = {directory / WEIGHTS: None}
    else:
        listed = _json(index)
        table = listed.get("weight_map") if isinstance(listed, dict) else None
        if not isinstance(table, dict) or not table:
            raise ExportError("checkpoint-format", f"{index} has no `weight_map`", "fetch it again")
        files = {}
        for name, file in table.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise ExportError("checkpoint-format", f"{index}: {file!r} is no plain file name")
            files.setdefault(directory / file, []).append(name)  # type: ignore[union-attr]
    state, places = {}, {}
    for path, names in files.items():
        for name, tensor in _read(path, names).items():
            state[name], places[name] = tensor, path
    return state, places


def _read(path: Path, names: list[str] | None) -> dict[str, torch.Tensor]:
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise ExportError(
            "checkpoint-missing",
            f"{path} cannot be read: {error.strerror}",
            f"a language model's folder holds {WEIGHTS}, or {INDEX} and its shards",
        ) from None
    if start == POINTER:
        raise ExportError(
            "checkpoint-format", f"{path} is a Git LFS pointer, not the file itself", "run `git lfs pull`"
        )
    try:
        with safe_open(path, "pt") as file:
            found = set(file.keys())
            if names is not None and (absent := set(names) - found):
                raise ExportError(
                    "checkpoint-shape",
                    f"{path}: tensor `{min(absent)}` is missing, although {INDEX} says it is there",
                    "fetch it again",
                )
            return {name: file.get_tensor(name) for name in sorted(found if names is None else names)}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        why = str(error).split("\n", 1)[0][:200] or type(error).__name__
        raise ExportError(
            "checkpoint-format",
            f"{path} is not a whole safetensors file: {why}",
            "fetch it again, or compare its sha256 with the publisher's",
        ) from None


def _check(model: torch.nn.Module, state: dict[str, torch.Tensor], places: dict[str, Path]) -> None:
    """Hold names, shapes, dtypes and values against what the config asks for."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    where = next(iter(places.values()), Path(WEIGHTS))
    if missing := sorted(set(expected) - set(state) - tied):
        raise ExportError(
            "checkpoint-shape",
            f"{where}: tensor `{missing[0]}` is missing ({len(missing)} in all), although {CONFIG} asks for it",
            f"the weights and {CONFIG} are of different models",
        )
    if extra := sorted(set(state) - set(expected)):
        raise ExportError(
            "checkpoint-shape",
            f"{places[extra[0]]}: tensor `{extra[0]}` is no part of the model that {CONFIG} describes",
            f"the weights and {CONFIG} are of different models",
        )
    for name, tensor in state.items():
        if tuple(tensor.shape) != expected[name]:
            raise ExportError(
                "checkpoint-shape",
                f"{places[name]}: tensor `{name}` is {list(tensor.shape)}, and {CONFIG} asks for "
                f"{list(expected[name])}",
                f"the weights and {CONFIG} are of different models",
            )
        if tensor.dtype not in FLOATS:
            raise ExportError(
                "checkpoint-dtype",
                f"{places[name]}: tensor `{name}` is {tensor.dtype}; float32, float16 or bfloat16 is expected",
            )
        if not torch.isfinite(tensor).all():
            raise ExportError(
                "checkpoint-values",
                f"{places[name]}: tensor `{name}` has NaN or infinite values",
                "the training diverged, or the file is damaged",
            )


def _check_tokenizer(directory: Path, config: Any) -> None:
    """A tokenizer that is there must fit the model: its ids inside the vocabulary, its stop the model's."""
    path = directory / TOKENIZER
    if not path.exists():
        return
    content = _json(path)
    try:
        ids = {**content["model"]["vocab"], **{t["content"]: t["id"] for t in content["added_tokens"]}}
        largest = max(ids.values())
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ExportError("checkpoint-format", f"{path} is not a tokenizer", "fetch it again") from None
    if largest >= config.vocab_size:
        raise ExportError(
            "checkpoint-tokenizer",
            f"{path} has the id {largest}, and {CONFIG} a vocabulary of {config.vocab_size}",
            "the tokenizer is another model's",
        )
    stop, ends = ids.get(STOP), config.eos_token_id
    if stop is not None and stop not in (ends if isinstance(ends, list) else [ends]):
        raise ExportError(
            "checkpoint-tokenizer",
            f"{path} has {STOP} as {stop}, and {CONFIG} has eos_token_id {ends}",
            "the tokenizer is another model's",
        )
