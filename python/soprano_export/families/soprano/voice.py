"""A whole checkpoint, speaking: greedy, end to end, through `transformers` and upstream's own decoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import ExportError
from . import checkpoint
from .upstream import Architecture

STOP = "[STOP]"
LIMIT = 512
"""New tokens after which upstream ends a sentence that did not stop by itself."""


def check_width(directory: Path, hidden_size: int, decoder: Architecture) -> None:
    """Raises ExportError("checkpoint-shape") where the decoder cannot take the language model's rows."""
    if hidden_size != decoder.input_channels:
        raise ExportError(
            "checkpoint-shape",
            f"{directory}: the language model's hidden states have {hidden_size} channels, "
            f"and the decoder takes {decoder.input_channels}",
            "the two parts are of different checkpoints",
        )


def prompt(tokenizer: Any, text: str) -> torch.Tensor:
    """i64 [1, n]: the ids of cleaned `text` in upstream's prompt."""
    return tokenizer(f"{STOP}[TEXT]{text}[START]", return_tensors="pt")["input_ids"]


@dataclass(frozen=True)
class Spoken:
    """Tokens without the stop, whether it came, hidden states f32 [1, C, T], audio f32 [2048 * (T - 1)]."""

    tokens: list[int]
    stopped: bool
    hidden_states: torch.Tensor
    audio: torch.Tensor


class Voice:
    """A language model, its tokenizer and a decoder."""

    def __init__(self, model: torch.nn.Module, tokenizer: Any, decoder: torch.nn.Module) -> None:
        self.model, self.tokenizer, self.decoder = model.eval(), tokenizer, decoder.eval()

    @classmethod
    def load(cls, directory: Path) -> Voice:
        """A checkpoint directory in upstream's layout, in f32. Raises ExportError("checkpoint-...")."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        decoder, architecture = checkpoint.load(directory)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                directory, dtype=torch.float32, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except Exception as error:
            raise ExportError(
                "checkpoint-language-model",
                f"{directory}: its language model cannot be loaded: {str(error).splitlines()[0][:300]}",
                "sentences need config.json, model.safetensors and the tokenizer's files next to decoder.pth",
            ) from error
        check_width(directory, model.config.hidden_size, architecture)
        return cls(model, tokenizer, decoder)

    @torch.inference_mode()
    def speak(self, text: str, limit: int = LIMIT) -> Spoken:
        """Say cleaned `text` greedily; the rows decoded are those that predicted each kept token."""
        ids = prompt(self.tokenizer, text)
        stop = self.tokenizer.eos_token_id
        cache, tokens, rows = None, [], []
        while len(tokens) < limit:
            output = self.model(ids, past_key_values=cache, use_cache=True, output_hidden_states=True)
            cache, token = output.past_key_values, int(output.logits[0, -1].argmax())
            if token == stop:
                break
            tokens.append(token)
            rows.append(output.hidden_states[-1][:, -1])
            ids = torch.tensor([[token]])
        else:
            token = None
        hidden = torch.stack(rows, 2) if rows else torch.empty(1, self.model.config.hidden_size, 0)
        audio = self.decoder(hidden)[0] if len(rows) > 1 else torch.empty(0)
        return Spoken(tokens, token == stop, hidden, audio)
