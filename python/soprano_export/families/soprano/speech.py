"""What upstream's own code says to sentences, recorded from the text to the audio."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import ExportError
from ...protocol import Job

TOP_P, TEMPERATURE = 0.95, 0.0
"""Upstream's defaults; it samples at 0.001 where it is asked for 0."""
SEED = 0
CONTROL = ("[TEXT]", "[START]", "[STOP]")


def speak(directory: Path, sentences: list[str], repetition_penalty: float, job: Job) -> dict[str, Any]:
    """Writes artifact `speech` (speech.safetensors), whose pieces are those that upstream cuts the sentences
    into, in its order. Of piece i:

        {i}/prompt         i64 [n]            token ids of its prompt
        {i}/tokens         i64 [T]            what upstream keeps of the answer: all but the stop
        {i}/hidden_states  f32 [1, C, T]      the rows that predicted them
        {i}/audio          f32 [2048 (T - 1)] none for T < 2, which upstream cannot decode

    Metadata: `pieces`, a JSON list of {"sentence": its place, "prompt": "[STOP][TEXT]...[START]", "stopped":
    whether the stop came}, and `settings`, JSON of what was asked. The same request gives the same bytes.
    Result: {"pieces": how many, "tokens": of all, "unstopped": how many pieces ran into the limit}.
    """
    # Read when `huggingface_hub` is imported, which everything below does.
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

    import torch

    from ... import references

    job.progress("load checkpoint", 0, 1)
    voice = Upstream(directory)
    job.progress("load checkpoint", 1, 1)
    prompts = cut(sentences)
    pieces, tensors = [], {}
    with references.reproducible(), torch.no_grad():
        for done, (prompt, sentence) in enumerate(prompts):
            job.progress("speak", done, len(prompts))
            try:
                said, stopped = voice.say(prompt, repetition_penalty)
            except ExportError:
                raise
            except Exception as error:
                raise cannot_say(sentence, sentences[sentence], error) from error
            for name in ("hidden_states", "audio"):
                if not torch.isfinite(said[name]).all():
                    raise ExportError(
                        "reference-nonfinite",
                        f"upstream's own code gives NaN or infinite {name} to `sentences[{sentence}]`",
                        "the checkpoint's weights overflow float32",
                    )
            pieces.append({"sentence": sentence, "prompt": prompt, "stopped": stopped})
            tensors.update({f"{done}/{name}": tensor for name, tensor in said.items()})
        job.progress("speak", len(prompts), len(prompts))
    settings = {
        "sentences": sentences,
        "repetition_penalty": repetition_penalty,
        "max_new_tokens": voice.limit,
        "temperature": TEMPERATURE,
    }
    metadata = {"pieces": json.dumps(pieces), "settings": json.dumps(settings)}
    job.write("speech", "speech.safetensors", serialize(tensors, metadata))
    return {
        "pieces": len(pieces),
        "tokens": sum(len(tensors[f"{place}/tokens"]) for place in range(len(pieces))),
        "unstopped": sum(not piece["stopped"] for piece in pieces),
    }


def cut(sentences: list[str]) -> list[tuple[str, int]]:
    """Upstream's prompts, each with the place of its sentence. Raises ExportError("speech") where a sentence
    gives none.
    """
    from . import upstream

    tts = upstream.module("soprano.tts").SopranoTTS
    prompts = []
    for place, sentence in enumerate(sentences):
        try:
            # The constructor fetches and warms up a model; this method reads nothing of it.
            made = tts._preprocess_text(None, [sentence])
        except Exception as error:
            raise cannot_say(place, sentence, error) from error
        if not made:
            raise ExportError(
                "speech",
                f"`sentences[{place}]` gives nothing to speak: {sentence!r:.80}",
                "write words: upstream's front end leaves nothing of it",
            )
        prompts += [(prompt, place) for prompt, _, _ in made]
    return prompts


def cannot_say(place: int, sentence: str, error: Exception) -> ExportError:
    why = (str(error).strip() or type(error).__name__).split("\n", 1)[0][:200]
    return ExportError(
        "speech",
        f"upstream's own code cannot say `sentences[{place}]`, {sentence!r:.80}: {why}",
        "leave the sentence out, or look at the checkpoint's generation_config.json and tokenizer",
    )


class Upstream:
    """Upstream's language model in its own loop, and its decoder in the checkpoint's sizes."""

    def __init__(self, directory: Path) -> None:
        """Raises ExportError("checkpoint-...") as the exports do, and where the two halves do not fit."""
        from ... import language_model
        from . import checkpoint, upstream, voice

        self.decoder, architecture = checkpoint.load(directory)
        config = language_model.load(directory, voice.STOP).config
        voice.check_width(directory, config.hidden_size, architecture)
        check_tokenizer(directory, language_model.tokenizer(directory), config.vocab_size)
        backend = upstream.module("soprano.backends.transformers").TransformersModel
        try:
            self.pipeline = backend(device="cpu", model_path=str(directory))
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).split("\n", 1)[0][:200]
            raise ExportError(
                "checkpoint-language-model",
                f"{directory}: upstream's own code cannot load its language model: {why}",
                "it reads one of upstream's layout",
            ) from error
        self.channels, self.limit = architecture.input_channels, voice.LIMIT

    def say(self, prompt: str, repetition_penalty: float) -> tuple[dict[str, Any], bool]:
        """The tensors of a piece, and whether the stop came."""
        import torch

        # Each piece by itself: none depends on those before it.
        torch.manual_seed(SEED)
        with watched(self.pipeline.model) as seen:
            try:
                (answer,) = self.pipeline.infer(
                    [prompt], top_p=TOP_P, temperature=TEMPERATURE, repetition_penalty=repetition_penalty
                )
            except RuntimeError:
                # Upstream cannot stack the rows of an answer that is nothing but the stop.
                if not seen or self.kept(seen):
                    raise
                answer = {"finish_reason": "stop", "hidden_state": torch.empty(0)}
        tokens = self.kept(seen)
        self.limit = seen["max_new_tokens"]
        rows = answer["hidden_state"].reshape(len(tokens), self.channels)
        hidden = rows.T[None].contiguous()
        audio = self.decoder(hidden)[0] if len(tokens) > 1 else torch.empty(0)
        said = {
            "prompt": seen["input_ids"][0],
            "tokens": torch.tensor(tokens, dtype=torch.int64),
            "hidden_states": hidden,
            "audio": audio,
        }
        return said, answer["finish_reason"] == "stop"

    def kept(self, seen: dict[str, Any]) -> list[int]:
        """The generated tokens that upstream keeps a row of."""
        answer = seen["sequences"][0, seen["input_ids"].shape[1] :].tolist()
        return [token for token in answer if token != self.pipeline.model.config.eos_token_id]


@contextlib.contextmanager
def watched(model: Any) -> Iterator[dict[str, Any]]:
    """What the next call of `model.generate` is given, and the `sequences` that it answers."""
    seen: dict[str, Any] = {}
    generate = model.generate

    def watching(**given: Any) -> Any:
        answer = generate(**given)
        seen.update(given, sequences=answer.sequences)
        return answer

    model.generate = watching
    try:
        yield seen
    finally:
        del model.generate


def check_tokenizer(directory: Path, tokenizer: Any, vocabulary: int) -> None:
    """Raises ExportError("checkpoint-tokenizer") for one without upstream's control tokens or padding."""
    known = tokenizer.get_vocab()
    if missing := [token for token in CONTROL if known.get(token, vocabulary) >= vocabulary]:
        why = f"has no token {missing[0]} that the language model knows"
    elif tokenizer.pad_token_id is None:
        why = "names no token to pad with"
    else:
        return
    raise ExportError(
        "checkpoint-tokenizer",
        f"{directory}: its tokenizer {why}",
        "upstream's prompts are [STOP][TEXT]...[START], padded with [STOP]",
    )


def serialize(tensors: dict[str, Any], metadata: dict[str, str]) -> bytes:
    """Safetensors bytes. The library would write `metadata` in an order that changes."""
    from safetensors.torch import save

    made = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    (length,) = struct.unpack_from("<Q", made)
    header = json.dumps({"__metadata__": metadata, **json.loads(made[8 : 8 + length])}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + made[8 + length :]
