"""What the unmodified language model answers: prompts at once, and token after token from its cache."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import save

from .errors import ExportError
from .roles import CausalNames

GREEDY_PROMPT = 5
GREEDY_TOKENS = 32
STEPS_PREFILL = 7


@dataclass(frozen=True)
class Case:
    """One recorded run; `tensors` are its inputs and outputs by the graph's names."""

    name: str
    kind: str
    batch: int
    length: int
    tensors: dict[str, torch.Tensor]
    prefill: int = 0

    @property
    def described(self) -> dict[str, Any]:
        fact = {"name": self.name, "kind": self.kind, "batch": self.batch, "length": self.length}
        return {**fact, "prefill": self.prefill} if self.prefill else fact


@dataclass
class Recorder:
    """Records cases of one model (unmodified, f32), with ids drawn from `seed` and tensors called `names`; of
    prompts at once also what enters `layers`."""

    model: torch.nn.Module
    seed: int
    names: CausalNames = field(default_factory=CausalNames)
    layers: tuple[int, ...] = ()
    cases: list[Case] = field(default_factory=list)

    def _ids(self, batch: int, length: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed((self.seed * 1000003 + batch * 10007 + length) % 2**63)
        return torch.randint(0, self.model.config.vocab_size, (batch, length), generator=generator)

    @torch.no_grad()
    def _run(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, past: Any = None) -> Any:
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
            output_hidden_states=True,
        )
        if not torch.isfinite(output.logits).all():
            raise ExportError(
                "reference-nonfinite",
                f"the language model itself gives NaN or infinite logits in a run of {mask.shape[1]} tokens",
                "the checkpoint's weights overflow float32",
            )
        return output

    def _inputs(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(self.names.inputs, tensors, strict=True))

    def _record(self, name: str, ids: torch.Tensor, mask: torch.Tensor) -> None:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        output = self._run(ids, mask, positions)
        self.cases.append(
            Case(
                name,
                "prefill",
                *ids.shape,
                {
                    **self._inputs(ids, mask, positions),
                    self.names.logits: output.logits,
                    self.names.hidden: output.hidden_states[-1],
                    **{f"{self.names.layers}.{at}": output.hidden_states[at] for at in self.layers},
                },
            )
        )

    def prefill(self, length: int) -> None:
        """`length` tokens at once."""
        ids = self._ids(1, length)
        self._record(f"prefill_{length}", ids, torch.ones_like(ids))

    def padded(self, batch: int, length: int) -> None:
        """Prompts of different lengths, the shorter ones padded on the left."""
        ids = self._ids(batch, length)
        mask = torch.ones_like(ids)
        for row in range(1, batch):
            mask[row, : min(length - 1, 1 + row * length // (batch + 1))] = 0
        self._record(f"padded_b{batch}_{length}", ids, mask)

    def steps(self, count: int) -> None:
        """A prompt, then `count` given tokens, one at a time from the cache."""
        ids = self._ids(1, STEPS_PREFILL + count)
        past, at, logits, hidden = None, 0, [], []
        for to in range(STEPS_PREFILL, STEPS_PREFILL + count + 1):
            mask = torch.ones(1, to, dtype=torch.int64)
            output = self._run(ids[:, at:to], mask, torch.arange(at, to)[None], past)
            past, at = output.past_key_values, to
            logits.append(output.logits)
            hidden.append(output.hidden_states[-1])
        tensors = {
            **self._inputs(ids, torch.ones_like(ids), torch.arange(ids.shape[1])[None]),
            self.names.logits: torch.cat(logits, 1),
            self.names.hidden: torch.cat(hidden, 1),
        }
        self.cases.append(Case("steps", "steps", 1, ids.shape[1], tensors, STEPS_PREFILL))
        # The same ids at once: what the cached steps must lead to.
        self._record("steps_at_once", ids, torch.ones_like(ids))

    def greedy(self, name: str, prompt: torch.Tensor, limit: int, stop: int | None) -> list[int]:
        """The likeliest token each time, up to the stop (which is recorded too) or the limit."""
        ids, past, at, tokens = prompt, None, 0, []
        while len(tokens) < limit and (not tokens or tokens[-1] != stop):
            to = ids.shape[1]
            mask = torch.ones(1, to, dtype=torch.int64)
            output = self._run(ids[:, at:], mask, torch.arange(at, to)[None], past)
            past, at = output.past_key_values, to
            tokens.append(int(output.logits[0, -1].argmax()))
            ids = torch.cat((ids, torch.tensor([tokens[-1:]])), 1)
        tensors = {
            **self._inputs(prompt, torch.ones_like(prompt), torch.arange(prompt.shape[1])[None]),
            # A graph may call an input that; none has a dot in its name.
            "greedy.tokens" if "tokens" in self.names.inputs else "tokens": torch.tensor([tokens]),
        }
        self.cases.append(Case(name, "greedy", 1, prompt.shape[1] + len(tokens), tensors))
        return tokens

    def random_greedy(self) -> None:
        """A greedy run from a random prompt."""
        self.greedy("greedy", self._ids(1, GREEDY_PROMPT), GREEDY_TOKENS, None)

    def serialize(self) -> bytes:
        """Safetensors bytes; `cases` in the metadata lists what is recorded."""
        tensors = {
            f"{case.name}/{name}": tensor.contiguous().clone()
            for case in self.cases
            for name, tensor in case.tensors.items()
        }
        return save(tensors, metadata={"cases": json.dumps([case.described for case in self.cases])})
