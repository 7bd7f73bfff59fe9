"""Task `speak`: upstream's own answers, whole and the same each time, and what cannot be said."""

from __future__ import annotations

import json
import math
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PYTHON, Ran, run_process, run_task
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from soprano_export import references
from soprano_export.errors import ExportError
from soprano_export.families.soprano import speech, synthetic, upstream
from soprano_export.families.soprano.voice import Voice

MINI = PYTHON.parent / "fixtures" / "soprano-mini"
SENTENCES = [
    "Thank you very much.",
    "The castle stands on a hill above the river. How far is it from here to the coast?",
    "Wait, come back!",
]


def say(output: Path, checkpoint: Path = MINI, sentences: list[str] = SENTENCES, **fields: Any) -> Ran:
    return run_task(
        output, "speak", family="soprano", checkpoint=str(checkpoint), sentences=sentences, **fields
    )


def read(ran: Ran) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(ran.output / "speech.safetensors", "np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return json.loads(metadata["pieces"]), json.loads(metadata["settings"]), tensors


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return say(tmp_path_factory.mktemp("spoken") / "out")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the voice to be spoilt."""
    return Path(shutil.copytree(MINI, tmp_path / "voice", ignore=shutil.ignore_patterns("recorded")))


def refusal(output: Path, **fields: Any) -> ExportError:
    with pytest.raises(ExportError) as refused:
        say(output, **fields)
    assert not output.exists() or list(output.iterdir()) == []
    return refused.value


def test_pieces_are_upstreams(spoken):
    pieces, settings, tensors = read(spoken)
    assert settings == {
        "sentences": SENTENCES,
        "repetition_penalty": 1.2,
        "max_new_tokens": 512,
        "temperature": 0.0,
    }
    assert [piece["sentence"] for piece in pieces] == [0, 1, 1, 2]
    assert pieces[0]["prompt"] == "[STOP][TEXT]thank you very much.[START]"
    assert all(piece["stopped"] for piece in pieces)
    names = {"prompt": np.int64, "tokens": np.int64, "hidden_states": np.float32, "audio": np.float32}
    assert sorted(tensors) == sorted(f"{place}/{name}" for place in range(4) for name in names)
    for name, tensor in tensors.items():
        assert tensor.dtype == names[name.split("/")[1]]
    for place in range(4):
        length = len(tensors[f"{place}/tokens"])
        assert tensors[f"{place}/hidden_states"].shape == (1, 192, length) and length > 5
        assert tensors[f"{place}/audio"].shape == (2048 * (length - 1),)
        assert np.abs(tensors[f"{place}/audio"]).max() > 0.05
        prompt = tensors[f"{place}/prompt"]
        assert (prompt[0], prompt[1], prompt[-1]) == (3, 1, 2)
        assert 3 not in tensors[f"{place}/tokens"]
    tokens = sum(len(tensors[f"{place}/tokens"]) for place in range(4))
    assert spoken.result == {"event": "result", "pieces": 4, "tokens": tokens, "unstopped": 0}
    assert list(spoken.artifacts) == ["speech"]


def test_rows_are_those_that_the_model_leaves_before_each_token(spoken):
    """Prompt and tokens at once, in `transformers` alone, with the penalty by hand."""
    _, _, tensors = read(spoken)
    voice = Voice.load(MINI)
    for place in range(4):
        prompt, tokens = (torch.tensor(tensors[f"{place}/{name}"]) for name in ("prompt", "tokens"))
        ids = torch.cat((prompt, tokens))[None]
        with torch.no_grad():
            output = voice.model(ids, output_hidden_states=True)
        start = len(prompt) - 1
        rows = output.hidden_states[-1][0, start:-1].T[None]
        np.testing.assert_allclose(tensors[f"{place}/hidden_states"], rows, atol=2e-4)
        wanted = [*tokens.tolist(), 3]
        for step, token in enumerate(wanted):
            logits = output.logits[0, start + step].clone()
            known = ids[0, : len(prompt) + step].unique()
            logits[known] = torch.where(logits[known] < 0, logits[known] * 1.2, logits[known] / 1.2)
            assert int(logits.argmax()) == token
        with torch.no_grad(), references.reproducible():
            audio = voice.decoder(torch.tensor(tensors[f"{place}/hidden_states"]))[0]
        assert np.array_equal(tensors[f"{place}/audio"], audio)


def test_without_a_penalty_it_says_what_the_greedy_loop_says(tmp_path):
    _, settings, tensors = read(say(tmp_path / "out", sentences=SENTENCES[:1], repetition_penalty=1))
    assert settings["repetition_penalty"] == 1.0
    greedy = Voice.load(MINI).speak(upstream.clean(SENTENCES[0]))
    assert tensors["0/tokens"].tolist() == greedy.tokens


def test_the_same_request_gives_the_same_bytes(spoken, tmp_path):
    """In another process too, where names hash otherwise; and no piece depends on those before it."""
    made = (spoken.output / "speech.safetensors").read_bytes()
    output, request = tmp_path / "out", tmp_path / "request.json"
    output.mkdir()
    fields = {"task": "speak", "family": "soprano", "output": str(output), "checkpoint": str(MINI)}
    request.write_text(json.dumps({"protocol": 2, "sentences": SENTENCES, **fields}))
    code, events, log = run_process(str(request), PYTHONHASHSEED="7")
    assert code == 0, log
    assert (output / "speech.safetensors").read_bytes() == made
    assert events[-1]["pieces"] == 4
    (length,) = np.frombuffer(made[:8], "<u8")
    assert length % 8 == 0 and next(iter(json.loads(made[8 : 8 + length]))) == "__metadata__"
    _, _, alone = read(say(tmp_path / "alone", sentences=SENTENCES[2:]))
    _, _, together = read(spoken)
    for name in ("prompt", "tokens", "hidden_states", "audio"):
        assert np.array_equal(alone[f"0/{name}"], together[f"3/{name}"])


def test_nothing_is_fetched(tmp_path, monkeypatch):
    def connect(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    say(tmp_path / "out", sentences=SENTENCES[:1])


def test_an_answer_that_runs_into_the_limit_and_one_that_is_only_the_stop(copy, tmp_path):
    """A head that has one favourite: upstream stacks no rows at all, squeezes a single one, or never ends."""
    state = load_file(copy / "model.safetensors")
    norm, head = state["model.norm.weight"], state["lm_head.weight"]
    voice = Voice.load(MINI)
    prompt = voice.tokenizer("[STOP][TEXT]thank you very much.[START]", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        row = voice.model(prompt, output_hidden_states=True).hidden_states[-1][0, -1]
    # The stop answers to the first row alone, far more than anything else.
    state["lm_head.weight"] = head.clone()
    state["lm_head.weight"][3] = (100 * row / row.norm() ** 2 * row.norm()).to(head.dtype)
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    pieces, _, tensors = read(say(tmp_path / "stop", copy, SENTENCES[:1]))
    assert pieces[0]["stopped"] and norm.isfinite().all()
    assert tensors["0/tokens"].shape == (0,) and tensors["0/audio"].shape == (0,)
    assert tensors["0/hidden_states"].shape == (1, 192, 0)

    state["lm_head.weight"] = head.clone()
    state["lm_head.weight"][3] = 0
    state["lm_head.weight"][4:260] *= 4
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    ran = say(tmp_path / "limit", copy, SENTENCES[:1])
    pieces, _, tensors = read(ran)
    assert tensors["0/tokens"].shape == (512,) and not pieces[0]["stopped"]
    assert tensors["0/audio"].shape == (2048 * 511,) and ran.result["unstopped"] == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sentences": []}, "sentences must be 1 to 64"),
        ({"sentences": ["a"] * 65}, "sentences must be 1 to 64"),
        ({"sentences": ["a", ""]}, "sentences[1] must have 1 to 1000"),
        ({"sentences": ["a" * 1001]}, "sentences[0] must have 1 to 1000"),
        ({"sentences": "Hello."}, "`sentences` is not a list"),
        ({"sentences": [1]}, "`sentences[0]` is not of type str"),
        ({"repetition_penalty": 0.99}, "repetition_penalty is not in"),
        ({"repetition_penalty": math.nan}, "repetition_penalty is not in"),
        ({"repetition_penalty": 10**400}, "is not of type float"),
        ({"repetition_penalty": True}, "is not of type float"),
        ({"repetition_penalty": "1.2"}, "is not of type float"),
        ({"checkpoint": "nowhere"}, "`checkpoint` is not a directory"),
        ({"sentence": "a"}, "unknown field `sentence`"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_refused_requests(tmp_path, fields, says):
    error = refusal(tmp_path / "out", **fields)
    assert error.code == "request" and says in error.message


@pytest.mark.parametrize("sentence", ["...", " \t\n", "?!", "\u200b"])
def test_a_sentence_of_nothing_is_named(tmp_path, sentence):
    error = refusal(tmp_path / "out", sentences=["Hello.", sentence])
    assert error.code == "speech" and "`sentences[1]` gives nothing to speak" in error.message
    assert error.hint


@pytest.mark.parametrize("sentence", ["[STOP][START]", "日本語", "\ud800 a", "9" * 1000, "a" * 1000, "\0 a"])
def test_strange_sentences_are_cut_or_named(sentence):
    try:
        prompts = speech.cut([sentence])
    except ExportError as error:
        assert error.code == "speech" and error.hint and len(error.message) < 500
    else:
        assert all(place == 0 and prompt.startswith("[STOP][TEXT]") for prompt, place in prompts)


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (lambda at: (at / "tokenizer.json").unlink(), "checkpoint-tokenizer", "cannot be loaded"),
        (lambda at: (at / "decoder.pth").unlink(), "checkpoint-missing", "decoder.pth does not exist"),
        (lambda at: (at / "model.safetensors").unlink(), "checkpoint-missing", "model.safetensors"),
        (lambda at: (at / "config.json").write_text("{"), "checkpoint-format", "not JSON"),
        (lambda at: edit(at, "config.json", eos_token_id=5), "checkpoint-tokenizer", "[STOP] as 3"),
        (lambda at: edit(at, "tokenizer_config.json", pad_token=None), "checkpoint-tokenizer", "to pad with"),
        (
            lambda at: (at / "tokenizer.json").write_text(
                (at / "tokenizer.json").read_text().replace("[TEXT]", "[WORD]")
            ),
            "checkpoint-tokenizer",
            "has no token [TEXT]",
        ),
        (
            lambda at: edit(at, "generation_config.json", num_beams=2),
            "speech",
            "cannot say `sentences[0]`",
        ),
        (
            lambda at: (at / "decoder.pth").write_bytes(
                synthetic.serialize(synthetic.weights(synthetic.PRESETS["tiny"], 0))
            ),
            "checkpoint-shape",
            "192 channels, and the decoder takes 512",
        ),
    ],
)
def test_a_voice_that_is_not_whole(copy, tmp_path, spoil, code, says):
    spoil(copy)
    (copy / "special_tokens_map.json").unlink()
    error = refusal(tmp_path / "out", checkpoint=copy)
    assert error.code == code and says in error.message and error.hint


def edit(folder: Path, file: str, **fields: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_weights_that_overflow(copy, tmp_path):
    state = torch.load(copy / "decoder.pth", weights_only=True)
    state["decoder.embed.weight"] *= 1e38
    state["head.out.weight"] *= 1e38
    torch.save(state, copy / "decoder.pth")
    error = refusal(tmp_path / "out", checkpoint=copy, sentences=SENTENCES[:1])
    assert error.code == "reference-nonfinite" and "sentences[0]" in error.message
