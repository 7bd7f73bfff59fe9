"""Graphs of the role `signal`: frames in, samples out."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from . import graph, istft, references
from .families.base import Convertible, Graph
from .request import refuse
from .roles import SignalNames, SignalReferences

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from .protocol import Job
    from .target import Target

TRACED = (2, 7)
"""Batch and length that the exporter traces with; neither may show in the graph."""
EXAMPLE = (2, 5)


@dataclass
class SignalGraph(Graph):
    """An unmodified `model`: f32 [batch, channels, length], or [batch, length, channels] where `axis`, that
    of the length, is 1, to f32 [batch, per_frame * (length - lead)]."""

    role = "signal"

    directory: Path
    names: SignalNames
    model: torch.nn.Module
    channels: int
    per_frame: int
    lead: int
    axis: int = 2
    sample_rate: int | None = None

    @property
    def more(self) -> int:
        """Frames beyond the one of a centred transform that an input needs before any length counts."""
        return max(self.lead - 1, 0)

    def frames(self, batch: int, length: int) -> torch.Tensor:
        """Frames of zeros."""
        return torch.zeros(self._oriented(batch, self.channels, length))

    def _oriented(self, batch: int, channels: Any, length: Any) -> list[Any]:
        return [batch, channels, length] if self.axis == 2 else [batch, length, channels]

    @abstractmethod
    def exportable(self) -> torch.nn.Module:
        """The model in real numbers, its inverse STFT as `istft.Placeholder`."""

    @abstractmethod
    def in_products(self) -> torch.nn.Module:
        """The model in real numbers, its inverse STFT as `istft.InverseStft`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The dimensions."""

    def write(self, opset: int, path: Path) -> onnx.ModelProto:
        axes = {
            self.names.frames: {0: "batch", self.axis: "sequence"},
            self.names.samples: {0: "batch", 1: "samples"},
        }
        inputs = {self.names.frames: self.frames(TRACED[0], TRACED[1] + self.more)}
        domains = {istft.DOMAIN: istft.DOMAIN_VERSION}
        return graph.write(self.exportable(), inputs, [self.names.samples], axes, opset, path, domains)

    def export(self, exporter: str, opset: int, path: Path) -> dict[str, Any]:
        self.write(opset, path)
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {
            "architecture": {**self.describe(), "parameters": parameters},
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "per_frame": self.per_frame,
            "lead": self.lead,
        }

    def record(self, wanted: SignalReferences, job: Job) -> tuple[bytes, list[dict[str, Any]]]:
        if min(wanted.lengths) <= self.lead:
            refuse(f"`references.lengths`: {min(wanted.lengths)} frames give no sample")
        with references.reproducible():
            cases = self.cases(wanted)
            if wanted.sentences:
                cases += self.spoken(wanted.sentences, job)
            tensors, facts = {}, []
            scale = float(max(case.frames.abs().max() for case in cases if case.kind == "realistic"))
            for done, case in enumerate(cases):
                job.progress("record references", done, len(cases))
                audio, fact = self.answer(case)
                moved = references.last_bit(self.model, case, audio, scale)
                cases[done] = replace(case, last_bit=moved)
                tensors[f"{case.name}/{self.names.frames}"] = case.frames
                tensors[f"{case.name}/{self.names.samples}"] = audio
                facts.append({**fact, "last_bit": moved})
            job.progress("record references", len(cases), len(cases))
        return references.serialize(tensors, cases), facts

    def answer(self, case: references.Case) -> tuple[torch.Tensor, dict[str, Any]]:
        """What the model gives to a case, and the facts of it."""
        return references.record(self.model, case)

    def lifelike(self, batch: int, length: int, seed: int) -> torch.Tensor:
        frames = references.lifelike(batch, self.channels, length, seed)
        return frames if self.axis == 2 else frames.transpose(1, 2).contiguous()

    def cases(self, wanted: SignalReferences) -> list[references.Case]:
        """The inputs to record, shortest first within each batch size."""
        seed = wanted.seed
        cases = [
            self.case(f"b{batch}_t{length}", "realistic", self.lifelike(batch, length, seed))
            for batch in wanted.batches
            for length in wanted.lengths
        ]
        if not wanted.extreme:
            return cases
        for length in (length + self.more for length in references.EXTREME_LENGTHS):
            start = self.lifelike(1, length, seed)
            cases += [
                self.case(f"{name}_t{length}", "extreme", frames)
                for name, frames in (*self.driven(start), ("loud", self.loud(start)))
            ]
        least = 3 + self.more
        return [*cases, self.case(f"zeros_t{least}", "extreme", self.frames(1, least))]

    def case(self, name: str, kind: str, frames: torch.Tensor) -> references.Case:
        return references.Case(name, kind, frames, self.axis)

    def loud(self, start: torch.Tensor) -> torch.Tensor:
        """Frames far beyond lifelike ones."""
        return references.LOUD * start

    def driven(self, start: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        """Frames that drive the model to its limits, by what they are called; none that any model has."""
        return []

    def spoken(self, sentences: list[str], job: Job) -> list[references.Case]:
        """A case for each sentence: the frames that a voice makes of it."""
        refuse("`references.sentences`: nothing turns sentences into frames here", "leave them out")

    def convertible(self) -> Convertible:
        frames = torch.randn(self._oriented(EXAMPLE[0], self.channels, EXAMPLE[1] + self.more))
        shape = self._oriented(-1, self.channels, -1)
        module = self.in_products().eval()
        return Convertible(module, {self.names.frames: frames}, {self.names.frames: shape})

    @classmethod
    def prepare(cls) -> None:
        """Import what loading needs."""

    @classmethod
    def bench(cls, target: Target) -> tuple[float, Callable[[Any], Callable[[], float]]]:
        cls.prepare()
        began = time.perf_counter()
        loaded = cls.load(target)
        load = time.perf_counter() - began

        def of(point: Any) -> Callable[[], float]:
            frames = torch.randn(loaded._oriented(point.batch, loaded.channels, point.tokens))

            def timed() -> float:
                began = time.perf_counter()
                with torch.inference_mode():
                    loaded.model(frames)
                return time.perf_counter() - began

            return timed

        return load, of
