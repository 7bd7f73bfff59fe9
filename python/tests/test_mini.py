"""The checked-in voice: upstream's layout, and speech as it was when it was trained."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from conftest import DECODER, PYTHON, run_task
from scipy.io import wavfile
from soprano_export import references
from soprano_export.errors import ExportError
from soprano_export.families.soprano import upstream
from soprano_export.families.soprano.voice import Voice
from test_export import read

sys.path.insert(0, str(PYTHON / "training"))
import sentences
from score import stoi

MINI = PYTHON.parent / "fixtures" / "soprano-mini"
RECORDS = json.loads((MINI / "recorded" / "records.json").read_text())
SCORES = json.loads((MINI / "scores.json").read_text())


@pytest.fixture(scope="module")
def voice() -> Voice:
    return Voice.load(MINI)


def test_layout_is_upstreams(voice):
    config = json.loads((MINI / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert (config["bos_token_id"], config["eos_token_id"]) == (3, 3)
    ids = voice.tokenizer("[STOP][TEXT]ab 12.[START]")["input_ids"]
    assert ids[:2] == [3, 1] and ids[-1] == 2
    assert voice.tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == [
        "[UNK]",
        "[TEXT]",
        "[START]",
        "[STOP]",
        "[0]",
    ]
    assert len(voice.tokenizer) == config["vocab_size"]
    assert voice.tokenizer("1969")["input_ids"] == voice.tokenizer("1 9 6 9".replace(" ", ""))["input_ids"]
    assert len(voice.tokenizer("1969")["input_ids"]) == 4, "digits stand apart"
    assert voice.tokenizer("HELLO")["input_ids"] == voice.tokenizer("hello")["input_ids"]
    assert (voice.tokenizer.padding_side, voice.tokenizer.pad_token_id) == ("left", 3)
    decoder = voice.decoder
    assert (decoder.head.istft.n_fft, decoder.head.istft.hop_length) == (2048, 512)
    sizes = {path.name: path.stat().st_size for path in MINI.rglob("*") if path.is_file()}
    # What PyTorch answers to the built-in recipe: the program has it inside, beside the voice.
    answers = sum(size for name, size in sizes.items() if name.startswith("references"))
    assert sum(sizes.values()) - answers <= 12e6
    assert answers <= 14e6


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["source"])
def test_recorded_sentences_are_said_as_they_were(voice, record):
    with references.reproducible():
        spoken = voice.speak(record["text"])
    assert spoken.stopped
    assert spoken.tokens == record["tokens"]
    rate, source = wavfile.read(MINI / "recorded" / record["source"])
    assert rate == upstream.SAMPLE_RATE
    assert len(source) == len(spoken.audio) == 2048 * (len(spoken.tokens) - 1)
    assert stoi(source / 32768, spoken.audio.numpy()) == pytest.approx(record["stoi"], abs=2e-3)


def test_another_sentence_scores_worse(voice):
    """The score tells speech from other speech: otherwise the records would hold nothing."""
    _, source = wavfile.read(MINI / "recorded" / RECORDS[0]["source"])
    other = voice.speak(RECORDS[1]["text"]).audio.numpy()
    length = min(len(source), len(other))
    assert stoi(source[:length] / 32768, other[:length]) < 0.6


def test_scores_are_those_of_the_listed_sentences():
    listed = [(name, each) for name, texts in sentences.VOICES.items() for each in texts]
    assert [(each["voice"], each["sentence"]) for each in SCORES["trained"]] == listed
    assert SCORES["same_tokens"] == SCORES["sentences"] == len(listed) >= 40
    assert SCORES["stoi_mean"] >= 0.93 and SCORES["stoi_lowest"] >= 0.85
    assert all(each["finite"] and each["stopped"] for each in SCORES["held_out"])
    assert not {each["sentence"] for each in SCORES["held_out"]} & {each for _, each in listed}


def test_sentences_become_references(tmp_path):
    few = {"lengths": [2], "batches": [1], "extreme": False, "seed": 0, "sentences": ["Thank you very much."]}
    ran = run_task(tmp_path / "out", "record", checkpoint=str(MINI), references=few, **DECODER)
    tensors, cases = read(ran, "references")
    spoken = Voice.load(MINI).speak("thank you very much.")
    moved = cases[-1].pop("last_bit")
    assert cases[-1] == {"name": "spoken_0", "kind": "spoken", "batch": 1, "length": len(spoken.tokens)}
    # A trained voice's own rows are well-conditioned.
    assert 0 < moved["max_abs_of_peak"] < 1e-5 and moved["snr_db"] > 90
    np.testing.assert_allclose(tensors["spoken_0/hidden_states"], spoken.hidden_states.numpy(), atol=1e-5)
    assert np.abs(tensors["spoken_0/audio"]).max() > 0.05


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be loaded"),
        (lambda folder: torch.save({}, folder / "decoder.pth"), "not a Soprano decoder"),
    ],
)
def test_a_voice_that_is_not_whole_is_refused(tmp_path, spoil, words):
    for path in MINI.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path)
    with pytest.raises(ExportError, match=words):
        Voice.load(tmp_path)
