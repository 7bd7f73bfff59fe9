"""The two roles of a graph: what its tensors are called, and which references are recorded of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["causal", "signal"]
"""`causal`: token ids in, logits out, with a cache. `signal`: frames in, samples out."""


class Names:
    """Names of a graph's inputs and outputs, and of the tensors of its references."""

    def __post_init__(self) -> None:
        names = dataclasses.astuple(self)  # type: ignore[call-overload]
        if not all(names) or len(set(names)) < len(names):
            raise ValueError("names must be different ones, and none of them empty")


@dataclass(frozen=True)
class CausalNames(Names):
    """`past` and `present` are followed by `.{layer}.key` and `.{layer}.value`, `layers` by `.{layer}`."""

    ids: str = "input_ids"
    mask: str = "attention_mask"
    positions: str = "position_ids"
    past: str = "past_key_values"
    present: str = "present"
    logits: str = "logits"
    hidden: str = "last_hidden_state"
    layers: str = "hidden_states"

    @property
    def inputs(self) -> tuple[str, str, str]:
        return self.ids, self.mask, self.positions


@dataclass(frozen=True)
class SignalNames(Names):
    frames: str = "hidden_states"
    samples: str = "audio"


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise ValueError("seed is not in 0..2^31")


@dataclass(frozen=True)
class CausalReferences:
    prefills: list[int] = field(default_factory=lambda: [1, 2, 7, 32])
    batch: int = 3
    steps: int = 64
    seed: int = 0
    sentences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.prefills or min(self.prefills) < 1 or len(set(self.prefills)) < len(self.prefills):
            raise ValueError("prefills must be different lengths of 1 or more")
        if self.batch < 2:
            raise ValueError("batch must be 2 or more: a single prompt has no padding")
        if self.steps < 8:
            raise ValueError("steps must be 8 or more")
        _check_seed(self.seed)


@dataclass(frozen=True)
class SignalReferences:
    lengths: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 16, 64, 100, 512])
    batches: list[int] = field(default_factory=lambda: [1, 3])
    extreme: bool = True
    seed: int = 0
    sentences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("lengths", "batches"):
            values = getattr(self, name)
            if not values or min(values) < 1 or len(set(values)) < len(values):
                raise ValueError(f"{name} must be different numbers of 1 or more")
        _check_seed(self.seed)
        if not all(sentence.strip() for sentence in self.sentences):
            raise ValueError("sentences must not be empty")


NAMES = {"causal": CausalNames, "signal": SignalNames}
REFERENCES = {"causal": CausalReferences, "signal": SignalReferences}
