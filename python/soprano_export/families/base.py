"""What a family says about its models, and what one of their graphs can do."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..request import refuse
from ..roles import Role

if TYPE_CHECKING:
    import torch

    from ..protocol import Job
    from ..target import Target


class Convertible(NamedTuple):
    """A module that OpenVINO's PyTorch front end takes, an example of its inputs by name, and their shapes
    with -1 for what is open."""

    module: torch.nn.Module
    example: dict[str, torch.Tensor]
    shapes: dict[str, list[int]]


class Graph(ABC):
    """One graph of a checkpoint, loaded. Everything raises ExportError."""

    role: ClassVar[Role]
    exporters: ClassVar[tuple[str, ...]] = ("torch",)
    takes_module: ClassVar[bool] = False
    """Whether the request names the code that builds it."""

    @classmethod
    @abstractmethod
    def load(cls, target: Target) -> Graph:
        """Read the checkpoint, and refuse it unless every tensor is what the model's own code expects."""

    @abstractmethod
    def export(self, exporter: str, opset: int, path: Path) -> dict[str, Any]:
        """Write the ONNX file to `path`, in the form that README.md promises; the facts of the result."""

    def probes(self, path: Path) -> bytes | None:
        """Safetensors bytes of the model's inner values by the values of the exported file that carry them;
        None where the family records none."""
        return None

    @abstractmethod
    def record(self, references: Any, job: Job) -> tuple[bytes, list[dict[str, Any]]]:
        """Safetensors bytes of what the unmodified model answers, and the facts of each case."""

    @abstractmethod
    def convertible(self) -> Convertible:
        """The module whose conversion needs no ONNX."""

    @classmethod
    @abstractmethod
    def bench(cls, target: Target) -> tuple[float, Callable[[Any], Callable[[], float]]]:
        """Seconds to load without importing; and for a `tasks.bench.Point` what runs it once and returns the
        seconds."""


class Family(ABC):
    """A kind of model. Graphs are asked for by name and role."""

    name: ClassVar[str]
    presets: ClassVar[tuple[str, ...]]
    """Sizes and shapes that `synthesize` knows."""
    modules: ClassVar[tuple[str, ...]]
    """What its tasks import."""

    @abstractmethod
    def graph(self, name: str, role: Role) -> type[Graph]:
        """The class of a graph. Raises ExportError("request") for a name or role that it has not."""

    @abstractmethod
    def synthesize(
        self, preset: str, seed: int, graphs: list[str]
    ) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
        """A description of the architecture, and the checkpoint's files: (path, content) by artifact."""

    def speak(self, directory: Path, sentences: list[str], repetition_penalty: float, job: Job) -> Any:
        """Record what upstream's own code says to sentences: the facts of the result."""
        refuse(f"a model of the family `{self.name}` does not speak", "leave out speech in the recipe")

    def check_import(self, module: str) -> None:
        """Import one of `modules`, or raise what that raises."""
        importlib.import_module(module)
