"""A vocoder of any kind: a PyTorch module of one input and one output, which the request names."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from ... import graph, istft, references, weights
from ...errors import ExportError
from ...pairs import RealPairs
from ...request import refuse
from ...signals import SignalGraph

if TYPE_CHECKING:
    from ...protocol import Job
    from ...roles import SignalReferences
    from ...target import Module, Target

LENGTHS = (37, 41, 53, 59, 61, 67, 71, 73)
"""Lengths to measure with: prime, so that few tensors have such a dimension."""
CHECKED = (3, 11)
"""Batch and frames, less the lead, of the run that holds the exported graph to the module."""
TOLERANCE = 1e-3
"""Largest difference, relative to the largest magnitude of the value."""
EXPECTED = (
    "a vocoder gives f32 [batch, samples] to f32 [batch, channels, frames] or [batch, frames, channels]"
)


@dataclass
class Vocoder(SignalGraph):
    takes_module = True

    module: Module | None = None

    @classmethod
    def load(cls, target: Target) -> Vocoder:
        if target.module is None:
            refuse("the request has no field `module`", "a vocoder names its code and its weights there")
        model = build(target.module, target.directory)
        axis, channels = layout(model, target.module.path)
        per_frame, lead = rate(model, axis, channels, target.module.path)
        names = target.tensors()
        return cls(target.directory, names, model, channels, per_frame, lead, axis=axis, module=target.module)

    def describe(self) -> dict[str, Any]:
        return {"module": self.module.path, "arguments": self.module.arguments, "channels": self.channels}

    def exportable(self) -> torch.nn.Module:
        return Exportable(self.model)

    def in_products(self) -> torch.nn.Module:
        return InProducts(self.model, self.frames(CHECKED[0], CHECKED[1] + self.lead))

    def export(self, exporter: str, opset: int, path: Path) -> dict[str, Any]:
        with explained(f"{self.module.path} cannot be exported at opset {opset}"):
            facts = super().export(exporter, opset, path)
        self._check(onnx.load(path))
        return facts

    def record(self, wanted: SignalReferences, job: Job) -> tuple[bytes, list[dict[str, Any]]]:
        with explained(f"{self.module.path} cannot run a case of the references"):
            return super().record(wanted, job)

    def loud(self, start: torch.Tensor) -> torch.Tensor:
        """As loud as the module bears, which need not clip its magnitudes."""
        with torch.no_grad():
            for gain in (references.LOUD, 10.0, 3.0):
                if torch.isfinite(self.model(gain * start)).all():
                    break
                print(
                    f"record: frames {gain:g} times as large overflow in {self.module.path}", file=sys.stderr
                )
        return gain * start

    def _check(self, model: onnx.ModelProto) -> None:
        """Hold the graph to the module at another batch and length, as far as its first placeholder, and the
        arithmetic in pairs to the module's own."""
        batch, length = CHECKED
        frames = self.lifelike(batch, length + self.lead, 0)
        spectra: list[torch.Tensor] = []

        def inverse(*given: Any) -> torch.Tensor:
            spectra.extend(given[:2])
            return istft.Placeholder.apply(*given)

        with torch.no_grad():
            audio = self.model(frames)
            if not torch.isfinite(audio).all():
                raise ExportError(
                    "reference-nonfinite",
                    f"{self.module.path} gives NaN or infinite audio to ordinary frames",
                    "the checkpoint's weights overflow float32",
                )
            with RealPairs(inverse):
                in_pairs = self.model(frames)
        self._compare("its audio in real numbers", in_pairs.numpy(), audio.numpy())
        nodes = istft.placeholders(model)
        values = list(nodes[0].input[:2]) if nodes else [self.names.samples]
        try:
            answers = graph.evaluate(model, values, {self.names.frames: frames.numpy()})
        except Exception as error:
            raise self._diverged(
                f"ONNX Runtime cannot run it at other lengths: {first_line(error)}"
            ) from error
        for value, answer, wanted in zip(values, answers, spectra[:2] or [audio], strict=True):
            self._compare(f"its value `{value}`", answer, wanted.numpy())

    def _compare(self, what: str, answer: np.ndarray, wanted: np.ndarray) -> None:
        error = np.inf
        if answer.shape == wanted.shape:
            error = np.abs(answer - wanted).max() / max(np.abs(wanted).max(), 1e-12)
        if not error <= TOLERANCE:
            raise self._diverged(
                f"{what}, {list(answer.shape)}, differs by {error:.1e} of the largest magnitude of the "
                f"module's, {list(wanted.shape)}"
            )

    def _diverged(self, how: str) -> ExportError:
        return ExportError(
            "exporter-diverged",
            f"the graph does not compute what {self.module.path} does: {how}",
            "a length or a branch that the tracer took for a constant, or a view that is changed in place",
        )


class Exportable(torch.nn.Module):
    """The module, its inverse STFT a placeholder."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        with RealPairs(istft.Placeholder.apply):
            return self.model(frames)


class InProducts(torch.nn.Module):
    """The module, each of its inverse STFTs in plain products."""

    def __init__(self, model: torch.nn.Module, example: torch.Tensor):
        super().__init__()
        self.model, self.transforms = model, torch.nn.ModuleList()

        def inverse(real, imag, window, n_fft, hop_length, normalized, zero_edges):
            self.transforms.append(istft.InverseStft(n_fft, hop_length, window, normalized, zero_edges))
            return self.transforms[-1](real, imag)

        with torch.no_grad(), RealPairs(inverse):
            model(example)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        left = iter(self.transforms)
        with RealPairs(lambda real, imag, *_: next(left)(real, imag)):
            return self.model(frames)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Whatever a foreign module raises, as ExportError("module-unsupported")."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError("module-unsupported", f"{what}: {first_line(error)}", EXPECTED) from error


def first_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def build(module: Module, directory: Path) -> torch.nn.Module:
    """The module with its weights, f32 and frozen. Runs its code, which `families.kind` saw trusted."""
    package, name = module.path.split(":")
    try:
        kind = getattr(importlib.import_module(package), name)
    except Exception as error:
        raise ExportError(
            "module-import",
            f"{module.path} cannot be imported: {first_line(error)}",
            "install its package into the Python environment that exports",
        ) from error
    if not isinstance(kind, type) or not issubclass(kind, torch.nn.Module):
        raise ExportError("module-import", f"{module.path} is not a class of torch.nn.Module", EXPECTED)
    try:
        model = kind(**module.arguments)
    except Exception as error:
        raise ExportError(
            "module-import",
            f"{module.path} cannot be built of {module.arguments!r:.200}: {first_line(error)}",
            "`arguments` are the keyword arguments of its class",
        ) from error
    path = directory / module.weights
    read = weights.safetensors if path.suffix == ".safetensors" else weights.pickled
    state = {
        name.removeprefix(module.prefix): tensor
        for name, tensor in read(path, "`weights` names a file of the checkpoint").items()
        if name.startswith(module.prefix)
    }
    for name, tensor in state.items():
        weights.check_dtype(name, tensor, path)
        weights.check_finite(name, tensor, path)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
    except RuntimeError as error:
        raise ExportError(
            "checkpoint-shape",
            f"{path} does not hold the weights of {module.path}: {first_line(error)}",
            "`arguments` and `prefix` say which module of the file it is",
        ) from error
    return model.float().eval().requires_grad_(False)


def layout(model: torch.nn.Module, path: str) -> tuple[int, int]:
    """The axis of the frames, and the channels: the largest dimension of its tensors and layers that runs."""
    sizes = {size for tensor in model.state_dict().values() for size in tensor.shape}
    # A grouped convolution's weight has a part of them alone.
    sizes |= {getattr(layer, "in_channels", 1) for layer in model.modules()}
    first, second = [length for length in LENGTHS if length not in sizes][:2]
    fits, why = [], "it has no weights"
    for axis in (2, 1):
        for size in sorted(sizes, reverse=True):
            try:
                for length in (first, second):
                    with torch.no_grad():
                        model(torch.zeros([1, size, length] if axis == 2 else [1, length, size]))
            except Exception as error:
                why = first_line(error)
                continue
            fits.append((axis, size))
            break
    if len(fits) == 1:
        return fits[0]
    orders = "in either order" if fits else "in neither order"
    raise ExportError(
        "module-unsupported",
        f"{path} runs {orders} of channels and frames" + ("" if fits else f": {why}"),
        EXPECTED,
    )


def rate(model: torch.nn.Module, axis: int, channels: int, path: str) -> tuple[int, int]:
    """`per_frame` and `lead`: samples = per_frame * (frames - lead)."""
    counts = {}
    for length in LENGTHS[:3]:
        frames = torch.zeros([2, channels, length] if axis == 2 else [2, length, channels])
        with torch.no_grad(), explained(f"{path} cannot run a batch of 2"):
            audio = model(frames)
        if not isinstance(audio, torch.Tensor) or audio.ndim != 2 or len(audio) != 2:
            form = list(audio.shape) if isinstance(audio, torch.Tensor) else type(audio).__name__
            raise ExportError(
                "module-unsupported", f"{path} gives {form} to a batch of 2, not [2, samples]", EXPECTED
            )
        if audio.dtype != torch.float32:
            raise ExportError(
                "module-unsupported", f"{path} gives {audio.dtype}, not torch.float32", EXPECTED
            )
        counts[length] = audio.shape[1]
    (a, first), (b, second), _ = counts.items()
    per_frame = (second - first) // (b - a)
    lead = a - first // per_frame if per_frame > 0 else -1
    if lead < 0 or any(count != per_frame * (length - lead) for length, count in counts.items()):
        told = ", ".join(f"{count} samples to {length} frames" for length, count in counts.items())
        raise ExportError(
            "module-unsupported",
            f"{path} gives {told}: not a fixed number to each frame after the first ones",
            "trim its output, so that samples = per_frame * (frames - lead)",
        )
    return per_frame, lead
