"""The restated language model and the recorded references against unmodified `transformers`."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from soprano_export import language_model, lm, references
from soprano_export.families.soprano import synthetic
from soprano_export.lm_references import Recorder
from transformers import AutoModelForCausalLM

TOLERANCE = 2e-5
SOPRANO_LIKE = ("qwen3", (512, 3, 4, 1, 128, 2304, 8192, 1024, False))
STEPS = 64


@functools.cache
def original(folder: Path) -> torch.nn.Module:
    """The model as `transformers` itself reads it."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="session")
def soprano_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soprano_like")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.LANGUAGE_MODELS, "tiny", SOPRANO_LIKE)
        for name, data in synthetic.speaker("tiny", 0).items():
            (folder / name).write_bytes(data)
    return folder


@pytest.fixture(params=["tiny_lm", "tiny_lm_1_0", "soprano_like"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


def restated(folder: Path) -> lm.ExportableLm:
    model = language_model.load(folder)
    return lm.ExportableLm(model, lm.Architecture.of(model.config))


def batch(vocabulary: int, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, mask and positions; every row but the first is padded on the left."""
    ids = torch.randint(0, vocabulary, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, : 1 + row * length // (rows + 1)] = 0
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def answers(folder: Path, ids, mask, positions) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and logits of `transformers` at the places that are no padding."""
    found = original(folder)(
        input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True
    )
    return found.hidden_states[-1][mask == 1], found.logits[mask == 1]


@torch.no_grad()
def hidden_states(module: lm.ExportableLm, ids, mask, positions) -> torch.Tensor:
    """f32 [B, S, C]: what the restated model gives to its head."""
    head, module.head = module.head, torch.nn.Parameter(torch.eye(module.head.shape[0]))
    try:
        return module(ids, mask, positions)
    finally:
        module.head = head


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 2), (1, 33), (3, 16)])
def test_restated_model_equals_transformers(folder, rows, length):
    module = restated(folder)
    given = batch(len(module.embedding), rows, length)
    hidden, logits = answers(folder, *given)
    with torch.no_grad():
        whole = module(*given)
    assert torch.isfinite(whole).all(), "a row of padding stays a number"
    assert whole.shape == (rows, length, len(module.embedding))
    assert apart(hidden_states(module, *given)[given[1] == 1], hidden) < TOLERANCE
    assert apart(whole[given[1] == 1], logits) < TOLERANCE
    assert torch.equal(whole[given[1] == 1].argmax(1), logits.argmax(1))


@pytest.mark.parametrize(
    "weight",
    [
        "embedding",
        "layers.1.before",
        "layers.0.attention.qkv",
        "frequencies",
        "layers.1.attention.out",
        "layers.0.between",
        "layers.1.mlp.gate_up",
        "layers.0.mlp.down",
        "norm",
    ],
)
def test_one_wrong_weight_is_seen(folder, weight):
    module = restated(folder)
    given = batch(len(module.embedding), 3, 16)
    hidden, _ = answers(folder, *given)
    values = {**dict(module.named_parameters()), **dict(module.named_buffers())}[weight]
    place = (int(given[0][0, 3]), 5) if weight == "embedding" else (2,) * values.ndim
    values[place] = values[place] + 0.05
    assert apart(hidden_states(module, *given)[given[1] == 1], hidden) > 2 * TOLERANCE


def test_wrong_key_value_head_is_seen(tiny_lm):
    module = restated(tiny_lm)
    given = batch(160, 3, 16)
    hidden, _ = answers(tiny_lm, *given)
    for layer in module.layers:
        queries = layer.attention.qkv[:, : 4 * 16].reshape(-1, 4, 16)
        layer.attention.qkv[:, : 4 * 16] = queries[:, [0, 2, 1, 3]].reshape(-1, 4 * 16)
        out = layer.attention.out.reshape(4, 16, -1)
        layer.attention.out.copy_(out[[0, 2, 1, 3]].reshape(4 * 16, -1))
    assert apart(hidden_states(module, *given)[given[1] == 1], hidden) > 2 * TOLERANCE


def test_wrong_positions_and_masks_are_seen(folder):
    module = restated(folder)
    ids, mask, positions = batch(len(module.embedding), 3, 16)
    hidden, _ = answers(folder, ids, mask, positions)

    def off(mask_given, positions_given) -> float:
        return apart(hidden_states(module, ids, mask_given, positions_given)[mask == 1], hidden)

    assert off(mask, positions) < TOLERANCE
    assert off(mask, positions + 5) < TOLERANCE, "rotations are relative"
    late = positions.clone()
    late[:, 8:] += 1
    assert off(mask, late) > 2 * TOLERANCE
    assert off(mask, 2 * positions) > 2 * TOLERANCE
    assert off(torch.ones_like(mask), positions) > 2 * TOLERANCE


def test_queries_may_stand_behind_a_longer_mask(tiny_lm):
    module = restated(tiny_lm)
    mask = module.mask(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[0, 1, 1, 1]]))
    assert (mask == 0).tolist() == [[[[False, True, True, False], [False, True, True, True]] * 2]]


def recording(folder: Path, seed: int = 0) -> tuple[dict[str, torch.Tensor], bytes]:
    recorder = Recorder(language_model.load(folder), seed)
    with references.reproducible():
        recorder.prefill(7)
        recorder.padded(3, 16)
        recorder.steps(STEPS)
        recorder.random_greedy()
    return load(recorder.serialize()), recorder.serialize()


@torch.no_grad()
def test_references_are_what_transformers_computes(folder):
    tensors, _ = recording(folder)
    model = original(folder)
    for name in ("prefill_7", "steps", "steps_at_once"):
        plain = model(tensors[f"{name}/input_ids"], output_hidden_states=True)
        assert apart(tensors[f"{name}/logits"], plain.logits) < TOLERANCE
        hidden = tensors[f"{name}/last_hidden_state"]
        assert apart(hidden, plain.hidden_states[-1]) < TOLERANCE
    assert tensors["steps/input_ids"].shape == (1, 7 + STEPS)
    assert torch.equal(tensors["steps/input_ids"], tensors["steps_at_once/input_ids"])
    mask = tensors["padded_b3_16/attention_mask"]
    assert mask.sum(1).tolist() == [16, 11, 7]
    for row, seen in enumerate(mask.bool()):
        plain = model(tensors["padded_b3_16/input_ids"][row, seen][None], output_hidden_states=True)
        assert tensors["padded_b3_16/position_ids"][row, seen].tolist() == list(range(int(seen.sum())))
        assert apart(tensors["padded_b3_16/logits"][row, seen], plain.logits[0]) < TOLERANCE
        hidden = tensors["padded_b3_16/last_hidden_state"][row, seen]
        assert apart(hidden, plain.hidden_states[-1][0]) < TOLERANCE


def generated(model: torch.nn.Module, prompt: torch.Tensor, limit: int, stop: int | None) -> list[int]:
    model.generation_config.eos_token_id = stop
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=limit,
        do_sample=False,
        pad_token_id=0,
    )
    return out[0, prompt.shape[1] :].tolist()


def test_greedy_run_is_what_transformers_generates(folder):
    tensors, _ = recording(folder)
    prompt, tokens = tensors["greedy/input_ids"], tensors["greedy/tokens"][0].tolist()
    assert len(tokens) == 32
    assert tokens == generated(original(folder), prompt, 32, None)
    stop = tokens[4]
    stopped = Recorder(language_model.load(folder), 0).greedy("stopped", prompt, 32, stop)
    assert stopped == tokens[: tokens.index(stop) + 1] == generated(original(folder), prompt, 32, stop)


def test_two_recordings_are_identical(tiny_lm):
    tensors, data = recording(tiny_lm)
    assert recording(tiny_lm)[1] == data
    other, _ = recording(tiny_lm, seed=1)
    assert not torch.equal(other["prefill_7/input_ids"], tensors["prefill_7/input_ids"])
