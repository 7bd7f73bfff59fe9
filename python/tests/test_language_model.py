"""Every way in which a language model's folder can lie, and the few in which it may differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LM, keep_refused, only, run_process, run_task
from safetensors.torch import load_file, save_file
from soprano_export import language_model, lm
from soprano_export.errors import ExportError
from soprano_export.families.soprano import synthetic

WEIGHTS = "model.safetensors"
TOKENIZER = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def tied(tiny_lm_1_0: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_lm_1_0, tmp_path / "tied"))


def edit(folder: Path, file: str = "config.json", **fields: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def store(folder: Path, **changed: Any) -> None:
    """Write the weights again with `changed` tensors, dots given as double underscores; None drops one."""
    state = load_file(folder / WEIGHTS)
    for name, tensor in changed.items():
        state[name.replace("__", ".")] = tensor
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, folder / WEIGHTS)


def refusal(folder: Path, file: str = "config.json") -> ExportError:
    with pytest.raises(ExportError) as refused:
        language_model.load(folder, "[STOP]")
    assert str(folder / file) in refused.value.message and len(refused.value.message) < 500
    keep_refused(folder, "lm", refused.value.code)
    return refused.value


def equals_transformers(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ours = language_model.load(folder)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, theirs.state_dict()[name]), name
    assert not ours.training and not any(parameter.requires_grad for parameter in ours.parameters())
    ids = torch.arange(3, 12).reshape(1, 9)
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)
    return ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_upcast_to_what_transformers_has(folder, dtype):
    drawn = {name: tensor.float() * 1.001 for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file({name: tensor.to(dtype) for name, tensor in drawn.items()}, folder / WEIGHTS)
    model = equals_transformers(folder)
    rounded = not torch.equal(model.state_dict()[UP], drawn[UP])
    assert rounded == (dtype != torch.float32)


def test_tied_embeddings(tied):
    model = equals_transformers(tied)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    store(tied, lm_head__weight=load_file(tied / WEIGHTS)[EMBEDDING].clone())
    equals_transformers(tied)
    store(tied, lm_head__weight=load_file(tied / WEIGHTS)[EMBEDDING] * 2)
    error = refusal(tied, WEIGHTS)
    assert error.code == "checkpoint-shape" and f"`{HEAD}` is not `{EMBEDDING}`" in error.message


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("hidden_size", 65, f"`{HEAD}` is [160, 64], and config.json asks for [160, 65]"),
        ("num_key_value_heads", 4, "k_proj.weight` is [32, 64], and config.json asks for [64, 64]"),
        ("num_key_value_heads", 1, "k_proj.weight` is [32, 64], and config.json asks for [16, 64]"),
        ("num_key_value_heads", None, "k_proj.weight` is [32, 64], and config.json asks for [64, 64]"),
        ("num_attention_heads", 2, "o_proj.weight` is [64, 64], and config.json asks for [64, 32]"),
        ("head_dim", 8, "k_norm.weight` is [16], and config.json asks for [8]"),
        ("intermediate_size", 95, "down_proj.weight` is [64, 96], and config.json asks for [64, 95]"),
        ("vocab_size", 161, f"`{HEAD}` is [160, 64], and config.json asks for [161, 64]"),
        ("vocab_size", 159, f"`{HEAD}` is [160, 64], and config.json asks for [159, 64]"),
        ("attention_bias", True, "k_proj.bias` is missing (8 in all)"),
        ("tie_word_embeddings", True, f"`{HEAD}` is not `{EMBEDDING}`"),
    ],
)
def test_config_that_contradicts_the_tensors(folder, field, value, says):
    edit(folder, **{field: value})
    error = refusal(folder, WEIGHTS)
    assert error.code == "checkpoint-shape" and says in error.message


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (1, "`model.layers.1.input_layernorm.weight` is not part of the model"),
        (3, "`model.layers.2.input_layernorm.weight` is missing (11 in all)"),
        (26, "25 tensors, and config.json asks for num_hidden_layers = 26"),
    ],
)
def test_layers_that_contradict_the_tensors(folder, layers, says):
    edit(folder, num_hidden_layers=layers, layer_types=["full_attention"] * layers)
    error = refusal(folder, WEIGHTS)
    assert error.code == "checkpoint-shape" and says in error.message


HUGE = 10**30
COUNTED = sorted(language_model.COUNTS)


@pytest.mark.parametrize("value", [0, -1, 2**31, HUGE, 64.0, float("inf"), "64", True, [64]], ids=repr)
@pytest.mark.parametrize("field", COUNTED)
def test_counts_that_are_none(folder, field, value):
    edit(folder, **{field: value})
    error = refusal(folder)
    assert error.code == "checkpoint-config" and f"`{field}` is {value!r}" in error.message


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"num_key_value_heads": 3}, "checkpoint-config", "4 attention heads cannot be shared by 3"),
        ({"num_hidden_layers": 3}, "checkpoint-config", "must be equal to the number of layer types (2)"),
        ({"num_hidden_layers": None}, "lm-unsupported", "without `num_hidden_layers`"),
        ({"rms_norm_eps": -1.0}, "checkpoint-config", "`rms_norm_eps` is -1.0"),
        ({"rms_norm_eps": float("nan")}, "checkpoint-config", "`rms_norm_eps` is nan"),
        ({"rms_norm_eps": None}, "checkpoint-config", "`rms_norm_eps` is None"),
        ({"rope_theta": 0}, "checkpoint-config", "`rope_theta` is 0"),
        ({"rope_theta": 1e308}, "checkpoint-config", "`rope_theta` is 1e+308"),
        ({"rope_theta": "10000"}, "checkpoint-config", "`rope_theta` is '10000'"),
        ({"tie_word_embeddings": "yes"}, "checkpoint-config", "`tie_word_embeddings` is 'yes'"),
        ({"rope_scaling": "linear"}, "checkpoint-config", "`rope_scaling` is 'linear', expected an object"),
        ({"rope_scaling": {"factor": 2.0}}, "checkpoint-config", "`rope_scaling` has no `rope_type`"),
        ({"rope_scaling": {}}, "checkpoint-config", "`rope_scaling` has no `rope_type`"),
        (
            {"rope_scaling": {"type": "linear", "rope_type": "llama3", "factor": 2.0}},
            "checkpoint-config",
            "`rope_scaling.rope_type` is 'llama3', and `rope_scaling.type` is 'linear'",
        ),
        ({"rope_parameters": {"rope_type": "default"}}, "lm-unsupported", "`rope_parameters` is how"),
        ({"quantization_config": {"bits": 4}}, "lm-unsupported", "quantized weights"),
        ({"layer_types": ["full_attention"]}, "checkpoint-config", "number of layer types (1)"),
        ({"layer_types": ["x", "y"]}, "checkpoint-config", "layer_types"),
        ({"model_type": "nonsense"}, "checkpoint-config", "`nonsense`"),
        ({"model_type": 3}, "checkpoint-config", "`3`"),
        ({"architectures": ["GPT2LMHeadModel"]}, "checkpoint-config", "'qwen3' is Qwen3ForCausalLM"),
        ({"architectures": 3}, "checkpoint-config", "`architectures` is 3"),
        ({"model_type": "t5"}, "lm-unsupported", "no causal language model"),
        ({"hidden_act": "nonsense"}, "lm-unsupported", "`hidden_act` is 'nonsense', which"),
        ({"rope_scaling": {"rope_type": "x"}}, "lm-unsupported", "`rope_scaling.rope_type` is 'x'"),
        ({"rope_scaling": {"type": "x"}}, "lm-unsupported", "`rope_scaling.type` is 'x'"),
        ({"dtype": "nonsense"}, "checkpoint-config", "`dtype` is 'nonsense'"),
        ({"dtype": "nn"}, "checkpoint-config", "`dtype` is 'nn'"),
        ({"torch_dtype": "nonsense", "dtype": None}, "checkpoint-config", "`torch_dtype` is 'nonsense'"),
        ({"eos_token_id": 160}, "checkpoint-config", "160 is not a token of a vocabulary of 160"),
        ({"eos_token_id": -1}, "checkpoint-config", "eos_token_id -1"),
        ({"eos_token_id": [3, "4"]}, "checkpoint-config", "eos_token_id '4'"),
    ],
    ids=str,
)
def test_config_that_no_model_has(folder, fields, code, says):
    edit(folder, **fields)
    error = refusal(folder)
    assert error.code == code and says in error.message


@pytest.mark.parametrize("named", [None, [], ["Qwen3Model", "Qwen3ForCausalLM"]])
def test_architecture_is_the_class_that_was_built(folder, named):
    edit(folder, architectures=named)
    assert lm.Architecture.of(language_model.load(folder).config).architecture == "Qwen3ForCausalLM"


def test_frequencies_of_older_conversions_are_made_anew(folder):
    before = language_model.load(folder).state_dict()
    store(folder, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8))
    after = language_model.load(folder).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_family_without_the_dimensions(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 160}))
    error = refusal(folder)
    assert error.code == "lm-unsupported" and "'gpt2' without `num_key_value_heads`" in error.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"partial_rotary_factor": 0.5}, "a partial rotary embedding"),
    ],
)
def test_models_that_the_module_lacks(folder, fields, says):
    edit(folder, **fields)
    model = language_model.load(folder)
    with pytest.raises(ExportError) as refused:
        lm.ExportableLm(model, lm.Architecture.of(model.config))
    assert refused.value.code == "lm-unsupported"
    assert "config.json" in refused.value.message and says in refused.value.message
    assert "optimum" in refused.value.hint


WINDOWED = {"layer_types": None, "max_window_layers": 0, "use_sliding_window": True}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({**WINDOWED, "sliding_window": 4}, "2 of 2 layers attend to the last 4 positions alone"),
        ({**WINDOWED, "sliding_window": 255}, "the last 255 positions alone"),
        ({**WINDOWED, "sliding_window": 4, "max_window_layers": 1}, "1 of 2 layers"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "1 of 2 layers"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "`layer_types` has 'chunked_attention'"),
    ],
)
@pytest.mark.parametrize("exporter", ["torch", "optimum"])
def test_attention_that_does_not_see_everything_is_refused_by_name(folder, tmp_path, exporter, fields, says):
    edit(folder, **fields)
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "export", checkpoint=str(folder), exporter=exporter, **LM)
    assert refused.value.code == "lm-unsupported" and "no exporter takes it" in refused.value.hint
    assert "config.json" in refused.value.message and says in refused.value.message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "fields",
    [
        {**WINDOWED, "sliding_window": 256},
        {**WINDOWED, "sliding_window": 4, "max_window_layers": 2},
        {"use_sliding_window": False, "sliding_window": 4},
    ],
)
def test_a_window_that_hides_nothing_is_none(folder, fields):
    ids = torch.randint(0, 160, (1, 256), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(256)[None]
    edit(folder, **fields)
    model = language_model.load(folder)
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        restated = lm.ExportableLm(model, lm.Architecture.of(model.config))(ids, ids * 0 + 1, positions)
    assert torch.allclose(restated, whole, atol=2e-5)


def test_models_of_other_families_have_their_window_in_every_layer():
    from transformers import Gemma2Config, MistralConfig

    def positions(config: Any, count: int) -> Any:
        config.max_position_embeddings = count
        return config

    for config in (MistralConfig(sliding_window=64), Gemma2Config(sliding_window=64)):
        lm.check_attention(positions(config, 64))
        with pytest.raises(ExportError, match="a sliding window is not supported"):
            lm.check_attention(positions(config, 65))
    lm.check_attention(MistralConfig(sliding_window=None))


def test_other_architectures_are_refused_by_name():
    from transformers import GemmaConfig

    with pytest.raises(ExportError, match="model_type 'gemma'"):
        lm.check(GemmaConfig())


def test_code_of_a_checkpoint_is_not_run(folder):
    mark = folder / "ran"
    (folder / "hostile.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    edit(folder, model_type="hostile", auto_map={"AutoConfig": "hostile.Config"})
    assert refusal(folder).code == "checkpoint-config"
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b"64", "is not a JSON object"),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_json_that_is_none(folder, file, content, says):
    (folder / file).write_bytes(content)
    error = refusal(folder, file)
    assert error.code == "checkpoint-format" and says in error.message


def tokenize(folder: Path, eos: Any = "[STOP]", **special: int) -> None:
    from tokenizers import AddedToken, Tokenizer, models

    ids = {"UNK": 0, "TEXT": 1, "START": 2, "STOP": 3, **special}
    words = {f"[{name}]": place for name, place in ids.items()}
    words |= {f"w{place}": place for place in range(160) if place not in ids.values()}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.add_special_tokens([AddedToken(f"[{name}]", special=True) for name in ids])
    made.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def test_tokenizer_that_fits(folder):
    tokenize(folder)
    language_model.load(folder)
    assert language_model.tokenizer(folder)("[STOP][TEXT]")["input_ids"] == [3, 1]
    edit(folder, eos_token_id=[9, 3])
    edit(folder, "generation_config.json", eos_token_id=None)
    tokenize(folder, eos={"content": "[STOP]", "special": True})
    language_model.load(folder)


@pytest.mark.parametrize(
    ("spoil", "file", "says"),
    [
        (
            lambda at: edit(at, eos_token_id=4),
            "tokenizer.json",
            "[STOP] as 3, and config.json has eos_token_id 4",
        ),
        (lambda at: edit(at, eos_token_id=None), "tokenizer.json", "config.json has eos_token_id None"),
        (
            lambda at: edit(at, "generation_config.json", eos_token_id=5),
            "tokenizer.json",
            "[STOP] as 3, and generation_config.json has eos_token_id 5",
        ),
        (
            lambda at: tokenize(at, STOP=4),
            "tokenizer.json",
            "[STOP] as 4, and config.json has eos_token_id 3",
        ),
        (
            lambda at: tokenize(at, OTHER=160),
            "tokenizer.json",
            "the id 160, and config.json a vocabulary of 160",
        ),
        (lambda at: tokenize(at, "[TEXT]"), "tokenizer_config.json", "eos_token '[TEXT]' has the id 1"),
        (lambda at: tokenize(at, "[END]"), "tokenizer_config.json", "eos_token '[END]' has the id None"),
        (lambda at: tokenize(at, 3), "tokenizer_config.json", "eos_token 3 has the id None"),
    ],
)
def test_tokenizer_that_contradicts_the_model(folder, spoil, file, says):
    tokenize(folder)
    spoil(folder)
    error = refusal(folder, file)
    assert error.code == "checkpoint-tokenizer" and says in error.message


def test_generation_config_with_an_unknown_end(folder):
    edit(folder, "generation_config.json", eos_token_id=1000)
    error = refusal(folder, "generation_config.json")
    assert error.code == "checkpoint-config" and "1000" in error.message


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": {"vocab": {"a": "x"}}, "added_tokens": []}'])
def test_tokenizer_that_is_none(folder, content):
    (folder / "tokenizer.json").write_text(content)
    assert refusal(folder, "tokenizer.json").code == "checkpoint-format"


def test_refusals_reach_the_parent_without_a_traceback(folder, tmp_path):
    edit(folder, vocab_size=161)
    output, request = tmp_path / "out", tmp_path / "request.json"
    output.mkdir()
    fields = {"task": "export", "output": str(output), "checkpoint": str(folder), **LM}
    request.write_text(json.dumps({"protocol": 2, **fields}))
    code, events, log = run_process(str(request))
    assert (code, events[-1]["event"], events[-1]["code"]) == (2, "error", "checkpoint-shape")
    assert str(folder / WEIGHTS) in events[-1]["message"] and "Traceback" not in log
    assert list(output.iterdir()) == []


def test_synthetic_language_models_depend_on_the_seed_alone(tiny_lm, tmp_path):
    both = run_task(tmp_path / "both", "synthesize", preset="tiny", **only("decoder", "lm"))
    files = ["config.json", "generation_config.json", WEIGHTS, *TOKENIZER]
    assert list(both.artifacts) == ["checkpoint", *files]
    assert sorted(path.name for path in tiny_lm.iterdir()) == sorted(files)
    for file in files:
        assert (both.output / file).read_bytes() == (tiny_lm / file).read_bytes()
    other = run_task(tmp_path / "other", "synthesize", preset="tiny", seed=1, **only("lm")).output
    assert (other / WEIGHTS).read_bytes() != (tiny_lm / WEIGHTS).read_bytes()
    for name, tensor in load_file(tiny_lm / WEIGHTS).items():
        assert tensor.dtype == torch.bfloat16 and float(tensor.float().std()) > 0.01, name


@pytest.mark.parametrize("preset", ["soprano-1.0", "soprano-1.1", "tiny", "tiny-1.0"])
def test_synthetic_tokenizers_are_laid_out_as_upstreams(tmp_path, preset):
    vocabulary, positions = synthetic.LANGUAGE_MODELS[preset][1][6:8]
    for name, data in synthetic.tokenizer_files(vocabulary, positions).items():
        (tmp_path / name).write_bytes(data)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(TOKENIZER)
    made = language_model.tokenizer(tmp_path)
    audio = 8000 if vocabulary == 8192 else vocabulary - 57 - (vocabulary - 57) // 3
    assert len(made) == vocabulary
    assert made.convert_ids_to_tokens([0, 1, 2, 3, 4, 3 + audio]) == [
        "[UNK]",
        "[TEXT]",
        "[START]",
        "[STOP]",
        "[0]",
        f"[{audio - 1}]",
    ]
    assert made.convert_ids_to_tokens([4 + audio, 56 + audio]) == [" ", "z"]
    assert (made.padding_side, made.pad_token, made.model_max_length) == ("left", "[STOP]", positions)
    ids = made("[STOP][TEXT]hello world.[START]")["input_ids"]
    assert ids[:2] == [3, 1] and ids[-1] == 2 and all(4 + audio <= each < vocabulary for each in ids[2:-1])
    padded = made(["[STOP][TEXT]a[START]", "[STOP][TEXT]hello[START]"], padding=True)
    assert padded["input_ids"][0][0] == 3 and padded["attention_mask"][0][0] == 0
    assert len(made("1969")["input_ids"]) == 4 and made("HELLO")["input_ids"] == made("hello")["input_ids"]


@pytest.mark.parametrize("wanted", [[], ["lm", "lm"], ["voice"], "lm"])
def test_refused_graphs(tmp_path, wanted):
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "synthesize", family="soprano", preset="tiny", graphs=wanted)
    assert refused.value.code == "request" and "graphs" in refused.value.message
