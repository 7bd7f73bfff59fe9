"""Language-model checkpoints: config, safetensors and tokenizer held against each other before use."""

from __future__ import annotations

import json
import operator
import re
from pathlib import Path
from typing import Any

import torch

from .errors import ExportError
from .weights import check_dtype, check_finite, safetensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)
INITIALIZER_RANGE = 1 / 24
"""The deviation of drawn matrices."""
LARGEST = 2**31 - 1
COUNTS = {
    "hidden_size": LARGEST,
    "num_hidden_layers": 4096,
    "num_attention_heads": LARGEST,
    "num_key_value_heads": LARGEST,
    "head_dim": LARGEST,
    "intermediate_size": LARGEST,
    "vocab_size": LARGEST,
    "max_position_embeddings": LARGEST,
}
"""Whole numbers of a config, each 1 or more and at most this: `transformers` builds whatever is asked for."""
SCALARS = ("rms_norm_eps", "rope_theta")
HOLDS = f"a language model's folder holds {WEIGHTS}, or {INDEX} and its shards"
OTHER_TOKENIZER = "the tokenizer is another model's"
FREQUENCIES = ".rotary_emb.inv_freq"
MISMATCH = f"the weights and {CONFIG} are of different models"


def load(directory: Path, stop: str | None = None) -> torch.nn.Module:
    """The unmodified `transformers` model of a checkpoint directory: f32, frozen, eager attention.

    Reads config.json and model.safetensors, or the shards that model.safetensors.index.json names, in f32,
    f16 or bf16. `stop` is the token that ends a text where the family fixes it. Raises ExportError with a
    code that starts with "checkpoint-" or "lm-".
    """
    config = _config(directory)
    state, places, listing = _weights(directory)
    # A buffer of older conversions, which follows from the config: `transformers` makes it anew too.
    state = {name: tensor for name, tensor in state.items() if not name.endswith(FREQUENCIES)}
    if config.num_hidden_layers > len(state):
        raise ExportError(
            "checkpoint-shape",
            f"{listing}: {len(state)} tensors, and {CONFIG} asks for num_hidden_layers = "
            f"{config.num_hidden_layers}",
            MISMATCH,
        )
    model = _blank(config, directory)
    _check(model, state, places, listing)
    _check_tokenizer(directory, config, stop)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False, assign=True)
    model.tie_weights()
    return _materialise(model).eval().requires_grad_(False)


def draw(config: Any, seed: int) -> dict[str, bytes]:
    """Files of a model of this config with seeded weights: config.json, generation_config.json and
    model.safetensors (bf16).

    Matrices deviate by INITIALIZER_RANGE, norms are spread around 1 and biases around 0: no tensor is zero,
    one or constant.
    """
    from safetensors.torch import save
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, blank in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        noise = torch.randn(blank.shape, generator=generator)
        centre = 0 if name.endswith(".bias") else 1
        scaled = centre + 0.1 * noise if blank.ndim == 1 else INITIALIZER_RANGE * noise
        state[name] = scaled.to(torch.bfloat16)
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    generation = {**ends, "_from_model_config": True}
    return {
        CONFIG: (config.to_json_string(use_diff=False) + "\n").encode(),
        GENERATION: (json.dumps(generation, indent=2) + "\n").encode(),
        WEIGHTS: save(state, metadata={"format": "pt"}),
    }


def tokenizer(directory: Path) -> Any:
    """The tokenizer of a checkpoint directory. Raises ExportError("checkpoint-tokenizer") when none loads."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        why = str(error).split("\n", 1)[0][:200]
        raise ExportError(
            "checkpoint-tokenizer",
            f"{directory}: its tokenizer cannot be loaded: {why}",
            f"sentences need {TOKENIZER} and {TOKENIZER_CONFIG}",
        ) from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ExportError(
            "checkpoint-missing", f"{path} does not exist", f"a language model's folder holds {path.name}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError("checkpoint-format", f"{path} is not JSON: {error}", "fetch it again") from None


def _object(path: Path) -> dict[str, Any]:
    content = _json(path)
    if not isinstance(content, dict):
        raise ExportError("checkpoint-format", f"{path} is not a JSON object", "fetch it again")
    return content


def _check_numbers(numbers: dict[str, Any], path: Path) -> None:
    """Refuse a number of the wrong kind or out of range before anything is built of it."""

    def refuse(name: str, wanted: str) -> ExportError:
        return ExportError(
            "checkpoint-config",
            f"{path}: `{name}` is {numbers[name]!r:.40}, expected {wanted}",
            "fetch it again",
        )

    for name, largest in COUNTS.items():
        value = numbers.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= largest):
            raise refuse(name, f"a whole number from 1 to {largest}")
    for name in SCALARS:
        if name in numbers and (type(numbers[name]) not in (int, float) or not 0 < numbers[name] < 2**127):
            raise refuse(name, "a finite number above 0")
    for name in ("tie_word_embeddings", "use_sliding_window"):
        if not isinstance(numbers.get(name, False), bool):
            raise refuse(name, "true or false")


def _check_layout(content: dict[str, Any], path: Path) -> None:
    """Refuse what changes a model and stands where this version of `transformers` does not read it."""
    if content.get("rope_parameters") is not None:
        raise ExportError(
            "lm-unsupported",
            f"{path}: `rope_parameters` is how transformers 5 writes the rotary embedding, which is not read",
            "write its `rope_theta` beside it, and the rest of it as `rope_scaling`",
        )
    if content.get("quantization_config") is not None:
        raise ExportError(
            "lm-unsupported",
            f"{path}: quantized weights are not read",
            "use the model's f32, f16 or bf16 checkpoint",
        )
    scaling = content.get("rope_scaling")
    if not isinstance(scaling, dict):
        return
    if "rope_type" not in scaling and "type" not in scaling:
        raise ExportError(
            "checkpoint-config",
            f"{path}: `rope_scaling` has no `rope_type`: nothing says how it scales",
            "a causal language model is expected",
        )
    kinds = scaling.get("rope_type"), scaling.get("type")
    if "rope_type" in scaling and "type" in scaling and kinds[0] != kinds[1]:
        raise ExportError(
            "checkpoint-config",
            f"{path}: `rope_scaling.rope_type` is {kinds[0]!r:.40}, and "
            f"`rope_scaling.type` is {kinds[1]!r:.40}",
            "the two name one kind",
        )


def _wrong_word(content: dict[str, Any]) -> str | None:
    """The key of a config, and its value, that no model can be built with: `transformers` names neither."""
    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = content.get("rope_scaling")
    if scaling is not None and not isinstance(scaling, dict):
        return f"`rope_scaling` is {scaling!r:.40}, expected an object"
    scaling = scaling or {}
    kind = "rope_type" if "rope_type" in scaling else "type"
    dtypes = {name for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    known = {
        "hidden_act": (content.get("hidden_act"), ACT2FN),
        f"rope_scaling.{kind}": (scaling.get(kind), ROPE_INIT_FUNCTIONS),
        "dtype": (content.get("dtype"), dtypes),
        "torch_dtype": (content.get("torch_dtype"), dtypes),
    }
    for key, (value, words) in known.items():
        if value is not None and (not isinstance(value, str) or value not in words):
            return f"`{key}` is {value!r:.40}, which `transformers` does not know"
    return None


def _config(directory: Path) -> Any:
    from transformers import AutoConfig

    path = directory / CONFIG
    content = _object(path)
    _check_numbers(content, path)
    _check_layout(content, path)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        why = _wrong_word(content) or str(error).split("\n", 1)[0][:200]
        raise ExportError(
            "checkpoint-config", f"{path}: {why}", "a causal language model is expected"
        ) from None
    numbers = {name: getattr(config, name, None) for name in COUNTS}
    if absent := [name for name, value in numbers.items() if value is None and name != "head_dim"]:
        raise ExportError("lm-unsupported", f"{path}: model_type {config.model_type!r} without `{absent[0]}`")
    _check_numbers(numbers, path)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
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
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
            )
    except Exception as error:
        path = directory / CONFIG
        why = _wrong_word(_object(path)) or str(error).split("\n", 1)[0][:200]
        raise ExportError("lm-unsupported", f"{path}: no causal language model can be built: {why}") from None
    named, built = config.architectures or [], type(model).__name__
    if not isinstance(named, list) or (named and built not in named):
        raise ExportError(
            "checkpoint-config",
            f"{directory / CONFIG}: `architectures` is {named!r:.80}, and model_type "
            f"{config.model_type!r} is {built}",
            "the two name one model",
        )
    config.architectures = [built]
    return model


def _materialise(model: torch.nn.Module) -> torch.nn.Module:
    """Buffers that no checkpoint holds (rotary frequencies) are still on the meta device: made again."""
    for module in model.modules():
        if hasattr(module, "rope_init_fn"):
            frequencies, module.attention_scaling = module.rope_init_fn(module.config, "cpu")
            if not torch.isfinite(frequencies * module.attention_scaling).all():
                raise ExportError(
                    "checkpoint-config",
                    f"{CONFIG}: `rope_scaling` is {module.config.rope_scaling!r:.200}: its frequencies "
                    "are not finite",
                    "fetch it again",
                )
            module.inv_freq = module.original_inv_freq = frequencies
    if left := [name for name, buffer in model.named_buffers() if buffer.is_meta]:
        raise ExportError(
            "lm-unsupported", f"{type(model).__name__} computes `{left[0]}`, which no checkpoint holds"
        )
    return model


def _weights(directory: Path) -> tuple[dict[str, torch.Tensor], dict[str, Path], Path]:
    """Every tensor, the file it came from, and the file that lists them all."""
    listing = index = directory / INDEX
    if (directory / WEIGHTS).exists() or not index.exists():
        listing = directory / WEIGHTS
        files: dict[Path, list[str] | None] = {listing: None}
    else:
        listed = _json(index)
        table = listed.get("weight_map") if isinstance(listed, dict) else None
        if not isinstance(table, dict) or not table:
            raise ExportError("checkpoint-format", f"{index} has no `weight_map`", "fetch it again")
        files = {}
        for name, file in table.items():
            if not isinstance(file, str) or not SHARD.fullmatch(file):
                raise ExportError(
                    "checkpoint-format",
                    f"{index}: {file!r:.80} is not the name of a safetensors file next to it",
                    "fetch it again",
                )
            files.setdefault(directory / file, []).append(name)  # type: ignore[union-attr]
    state, places = {}, {}
    for path, names in files.items():
        for name, tensor in safetensors(path, HOLDS, names, INDEX).items():
            state[name], places[name] = tensor, path
    return state, places, listing


def _check(
    model: torch.nn.Module, state: dict[str, torch.Tensor], places: dict[str, Path], listing: Path
) -> None:
    """Hold names, shapes, dtypes and values against what the config asks for."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    if missing := sorted(set(expected) - set(state) - tied):
        raise ExportError(
            "checkpoint-shape",
            f"{listing}: tensor `{missing[0]}` is missing ({len(missing)} in all), although {CONFIG} asks "
            "for it",
            MISMATCH,
        )
    if extra := sorted(set(state) - set(expected)):
        raise ExportError(
            "checkpoint-shape",
            f"{places[extra[0]]}: tensor `{extra[0]}` is not part of the model that {CONFIG} describes",
            MISMATCH,
        )
    for name, tensor in state.items():
        if tuple(tensor.shape) != expected[name]:
            raise ExportError(
                "checkpoint-shape",
                f"{places[name]}: tensor `{name}` is {list(tensor.shape)}, and {CONFIG} asks for "
                f"{list(expected[name])}",
                MISMATCH,
            )
        check_dtype(name, tensor, places[name])
        check_finite(name, tensor, places[name])
    head, embedding = state.get("lm_head.weight"), state.get("model.embed_tokens.weight")
    if tied and head is not None and embedding is not None and not torch.equal(head, embedding):
        raise ExportError(
            "checkpoint-shape",
            f"{places['lm_head.weight']}: tensor `lm_head.weight` is not `model.embed_tokens.weight`, "
            f"although {CONFIG} ties them",
            MISMATCH,
        )


def _ends(content: dict[str, Any], path: Path, vocabulary: int) -> list[int]:
    """The ids that end a text, as `path` names them."""
    ends = content.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    for each in listed:
        if type(each) is not int or not 0 <= each < vocabulary:
            raise ExportError(
                "checkpoint-config",
                f"{path}: eos_token_id {each!r:.40} is not a token of a vocabulary of {vocabulary}",
                "fetch it again",
            )
    return listed


def _check_tokenizer(directory: Path, config: Any, stop: str | None) -> None:
    """A tokenizer that is there must fit the model: its ids inside the vocabulary, its stop the model's."""
    ends = {CONFIG: _ends({"eos_token_id": config.eos_token_id}, directory / CONFIG, config.vocab_size)}
    if (generation := directory / GENERATION).exists():
        ends[GENERATION] = _ends(_object(generation), generation, config.vocab_size)
    path = directory / TOKENIZER
    if not path.exists():
        return
    content = _json(path)
    try:
        ids = {**content["model"]["vocab"], **{t["content"]: t["id"] for t in content["added_tokens"]}}
        largest = max(map(operator.index, ids.values()))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ExportError("checkpoint-format", f"{path} is not a tokenizer", "fetch it again") from None
    if largest >= config.vocab_size:
        raise ExportError(
            "checkpoint-tokenizer",
            f"{path} has the id {largest}, and {CONFIG} a vocabulary of {config.vocab_size}",
            OTHER_TOKENIZER,
        )
    for file, listed in ends.items():
        if stop in ids and ids[stop] not in listed and (listed or file == CONFIG):
            raise ExportError(
                "checkpoint-tokenizer",
                f"{path} has {stop} as {ids[stop]}, and {file} has eos_token_id {_one(listed)}",
                OTHER_TOKENIZER,
            )
    if not (described := directory / TOKENIZER_CONFIG).exists():
        return
    token = _object(described).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    found = ids.get(token) if isinstance(token, str) else None
    named = [each for listed in ends.values() for each in listed]
    if token is not None and named and found not in named:
        raise ExportError(
            "checkpoint-tokenizer",
            f"{described}: eos_token {token!r:.40} has the id {found}, and {CONFIG} has eos_token_id "
            f"{_one(ends[CONFIG])}",
            OTHER_TOKENIZER,
        )


def _one(listed: list[int]) -> Any:
    return listed[0] if len(listed) == 1 else listed or None
