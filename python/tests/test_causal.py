"""Language models of the kinds that `transformers` knows: exported as they compute, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from conftest import export_and_record, run_task
from soprano_export import language_model, lm
from soprano_export.errors import ExportError
from soprano_export.families.plain import Plain, synthetic
from test_export import read
from test_export_lm import Session
from test_language_model import edit
from test_lm import TOLERANCE, answers, apart, batch, hidden_states, restated

SPEAKER = {"family": "plain", "graph": "speaker", "role": "causal"}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama3": ("LlamaConfig", {"rope_scaling": synthetic.LLAMA3, "tie_word_embeddings": True}),
    "biased llama": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "linear": ("LlamaConfig", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "linear by its old name": ("LlamaConfig", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "yarn": ("LlamaConfig", {"rope_scaling": YARN}),
    "yarn at half amplitude": ("Qwen3Config", {"rope_scaling": {**YARN, "attention_factor": 0.5}}),
    "yarn by mscale": ("Qwen2Config", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}}),
    "qwen2": ("Qwen2Config", {}),
    "tied qwen2": ("Qwen2Config", {"tie_word_embeddings": True, "head_dim": None}),
    "qwen3": ("Qwen3Config", {}),
    "biased qwen3": ("Qwen3Config", {"attention_bias": True}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mistral with a window for all": ("MistralConfig", {"sliding_window": 256, "head_dim": 24}),
    "one key-value head": ("MistralConfig", {"sliding_window": None, "num_key_value_heads": 1}),
    "rotated fast": ("LlamaConfig", {"rope_theta": 500000.0, "head_dim": 32}),
}


def write(folder: Path, kind: str, fields: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    fields = {**synthetic.DIMENSIONS, **fields}
    if fields["head_dim"] is None:
        del fields["head_dim"]
    config = getattr(transformers, kind)(**fields)
    for name, data in language_model.draw(config, 0).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(params=list(KINDS))
def checkpoint(request, tmp_path) -> Path:
    return write(tmp_path / "checkpoint", *KINDS[request.param])


def test_each_kind_is_exported_as_transformers_computes_it(checkpoint, tmp_path):
    module, given = restated(checkpoint), batch(160, 3, 40)
    hidden, logits = answers(checkpoint, *given)
    assert apart(hidden_states(module, *given)[given[1] == 1], hidden) < TOLERANCE
    run_task(tmp_path / "out", "export", checkpoint=str(checkpoint), **SPEAKER)
    for shape in ((3, 40), (1, 1), (2, 90)):
        given = batch(160, *shape)
        _, logits = answers(checkpoint, *given)
        found = Session(tmp_path / "out" / "model.onnx").run(*given)[given[1].numpy() == 1]
        assert np.abs(found - logits.numpy()).max() < TOLERANCE
        assert np.array_equal(found.argmax(1), logits.numpy().argmax(1))


@pytest.mark.parametrize("kind", [kind for kind, (_, fields) in KINDS.items() if "rope_scaling" in fields])
def test_a_scaling_that_is_left_out_is_seen(tmp_path, kind):
    name, fields = KINDS[kind]
    scaled = write(tmp_path / "scaled", name, fields)
    plain = write(tmp_path / "plain", name, {**fields, "rope_scaling": None})
    given = batch(160, 3, 40)
    hidden, _ = answers(scaled, *given)
    assert apart(hidden_states(restated(plain), *given)[given[1] == 1], hidden) > 2 * TOLERANCE


@pytest.mark.parametrize(
    "part",
    ["layers.0.attention.bias", "layers.1.attention.out_bias", "layers.0.mlp.bias", "layers.1.mlp.down_bias"],
)
def test_a_wrong_bias_is_seen(tmp_path, part):
    module, given = restated(write(tmp_path / "biased", *KINDS["biased llama"])), batch(160, 2, 9)
    hidden, _ = answers(tmp_path / "biased", *given)
    values = dict(module.named_parameters())[part]
    values[3] += 0.5
    assert apart(hidden_states(module, *given)[given[1] == 1], hidden) > 2 * TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("kind", ["yarn", "biased llama", "tied qwen2"])
def test_with_a_cache_it_is_the_same(tmp_path, kind):
    model = language_model.load(write(tmp_path / "checkpoint", *KINDS[kind]))
    architecture = lm.Architecture.of(model.config)
    cached = lm.CachedLm(lm.ExportableLm(model, architecture))
    ids, mask, positions = batch(160, 1, 12)
    empty = [torch.zeros(1, architecture.kv_heads, 0, architecture.head_dim)] * 2 * architecture.layers
    first = cached(ids[:, :7], mask[:, :7], positions[:, :7], *empty)
    second = cached(ids[:, 7:], mask, positions[:, 7:], *first[1:-1])
    expected = model(input_ids=ids).logits
    torch.testing.assert_close(torch.cat((first[0], second[0]), 1), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "preset", [preset for preset in Plain.presets if preset in synthetic.LANGUAGE_MODELS]
)
def test_presets_are_checkpoints_of_transformers_own_classes(tmp_path, preset):
    fields = {"task": "synthesize", "family": "plain", "preset": preset, "graphs": ["any name"]}
    ran = run_task(tmp_path / "in", **fields)
    assert sorted(ran.artifacts) == ["config.json", "generation_config.json", "model.safetensors"]
    config = json.loads((ran.output / "config.json").read_text())
    assert ran.result["architecture"]["architecture"] == config["architectures"][0]
    assert ran.result["architecture"]["num_key_value_heads"] == config["num_key_value_heads"] == 2
    assert run_task(tmp_path / "again", **fields).artifacts == ran.artifacts
    assert run_task(tmp_path / "other", seed=1, **fields).artifacts != ran.artifacts
    few = {"prefills": [3, 9], "steps": 8}
    out = export_and_record(tmp_path / "out", ran.output, few, hidden_states=[1], **SPEAKER)
    tensors, cases = read(out, "references")
    assert [case["name"] for case in cases] == [
        "prefill_3",
        "prefill_9",
        "padded_b3_9",
        "steps",
        "steps_at_once",
        "greedy",
    ]
    assert tensors["prefill_9/hidden_states.1"].shape == (1, 9, 64)
    names = ("input_ids", "attention_mask", "position_ids", "logits")
    *given, logits = (tensors[f"steps_at_once/{name}"] for name in names)
    assert np.abs(Session(out.output / "model.onnx").run(*given) - logits).max() < TOLERANCE


NAMES = {
    "ids": "tokens", "mask": "seen", "positions": "places", "past": "cache", "present": "cache_out",
    "logits": "scores", "hidden": "rows", "layers": "inner",
}  # fmt: skip


@pytest.mark.parametrize("exporter", ["torch", "optimum"])
def test_names_are_the_requests(tiny_lm, tmp_path, exporter):
    few = {"prefills": [3], "steps": 8}
    fields = {"exporter": exporter, "names": NAMES, "hidden_states": [1], **SPEAKER}
    ran = export_and_record(tmp_path / "out", tiny_lm, few, **fields)
    model = onnx.load(ran.output / "model.onnx")
    inputs, outputs = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    caches = (
        [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
        if exporter == "optimum"
        else []
    )
    assert sorted(inputs) == sorted(["tokens", "seen", "places", *(f"cache.{each}" for each in caches)])
    assert outputs == ["scores", *(f"cache_out.{each}" for each in caches)]
    onnx.checker.check_model(model)
    tensors, _ = read(ran, "references")
    assert {name.split("/")[1] for name in tensors} == {
        "tokens",
        "seen",
        "places",
        "scores",
        "rows",
        "inner.1",
        "greedy.tokens",
    }


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (
            "LlamaConfig",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "the kind 'dynamic' is not supported: its frequencies change with the length",
        ),
        (
            "LlamaConfig",
            {
                "rope_scaling": {
                    "rope_type": "longrope",
                    "factor": 2.0,
                    "short_factor": [1.0] * 8,
                    "long_factor": [2.0] * 8,
                }
            },
            "the kind 'longrope' is not supported: its frequencies change with the length",
        ),
        ("LlamaConfig", {"partial_rotary_factor": 0.5}, "a partial rotary embedding"),
        ("LlamaConfig", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        (
            "MistralConfig",
            {"sliding_window": 255},
            "a sliding window is not supported: 2 of 2 layers attend to the last 255",
        ),
        ("MistralConfig", {}, "a sliding window is not supported"),
        ("GemmaConfig", {}, "model_type 'gemma'"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, kind, fields, says):
    if kind == "MistralConfig" and not fields:
        # Its own default, of a model with more positions.
        fields = {"sliding_window": 4096, "max_position_embeddings": 8192}
    checkpoint = write(tmp_path / "checkpoint", kind, fields)
    with pytest.raises(ExportError) as refused:
        run_task(tmp_path / "out", "export", checkpoint=str(checkpoint), **SPEAKER)
    assert refused.value.code == "lm-unsupported" and says in refused.value.message and refused.value.hint
    assert "config.json" in refused.value.message and list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 0.0},
        {"rope_type": "linear"},
        {"rope_type": "linear", "factor": "two"},
        {"rope_type": "llama3", "factor": 8.0},
        {"rope_type": "yarn", "factor": float("nan")},
        {"rope_type": "nonsense", "factor": 2.0},
        {"rope_type": 3},
        {"rope_type": ["linear"]},
        {},
        [],
        "linear",
    ],
    ids=str,
)
def test_scalings_that_are_none(tmp_path, scaling):
    checkpoint = write(tmp_path / "checkpoint", *KINDS["llama"])
    edit(checkpoint, rope_scaling=scaling)
    try:
        run_task(tmp_path / "out", "export", checkpoint=str(checkpoint), **SPEAKER)
    except ExportError as error:
        assert error.code in ("checkpoint-config", "lm-unsupported") and "config.json" in error.message
    else:
        assert not scaling, "an empty one is none"


def test_sentences_are_of_a_family_that_reads_text(tmp_path):
    checkpoint = write(tmp_path / "checkpoint", *KINDS["llama"])
    with pytest.raises(ExportError, match="no prompts for sentences") as refused:
        run_task(
            tmp_path / "out",
            "record",
            checkpoint=str(checkpoint),
            references={"sentences": ["Hello."]},
            **SPEAKER,
        )
    assert refused.value.code == "request"


def test_a_language_model_is_timed(tmp_path):
    checkpoint = write(tmp_path / "checkpoint", *KINDS["llama3"])
    points = [{"what": "step", "past": 9}, {"what": "prefill", "tokens": 7, "batch": 2}]
    ran = run_task(
        tmp_path / "out", "bench", checkpoint=str(checkpoint), threads=1, rounds=3, points=points, **SPEAKER
    )
    assert [len(runs) for runs in ran.result["ms"]] == [3, 3] and min(ran.result["ms"][0]) > 0
    with pytest.raises(ExportError, match="points of a causal graph are step and prefill"):
        run_task(
            tmp_path / "no",
            "bench",
            checkpoint=str(checkpoint),
            threads=1,
            rounds=3,
            points=[{"what": "decode"}],
            **SPEAKER,
        )
