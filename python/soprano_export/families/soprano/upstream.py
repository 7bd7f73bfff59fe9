"""Upstream's own decoder (package `soprano-tts`), built for any dimensions its checkpoints come in."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ...errors import ExportError

SAMPLE_RATE = 32000
UPSCALE = 4
"""Decoder frames per hidden state. No tensor's shape depends on it."""
HOPS_PER_WINDOW = 4
"""n_fft / hop_length. No tensor's shape depends on the hop either."""
MAGNITUDE_LIMIT = 1e2
"""Where upstream's head clips magnitudes."""


@dataclass(frozen=True)
class Architecture:
    """Every dimension that the tensors of a decoder checkpoint decide."""

    input_channels: int
    dim: int
    intermediate_dim: int
    layers: int
    input_kernel: int
    dw_kernel: int
    n_fft: int

    @property
    def hop_length(self) -> int:
        return self.n_fft // HOPS_PER_WINDOW

    @property
    def version(self) -> str:
        """The release these dimensions belong to: "1.0", "1.1", or "custom"."""
        rest = (self.input_channels, self.intermediate_dim, self.layers, self.dw_kernel, self.n_fft)
        if rest != (512, 3 * self.dim, 8, 3, 2048):
            return "custom"
        return {(512, 3): "1.0", (768, 1): "1.1"}.get((self.dim, self.input_kernel), "custom")

    def describe(self) -> dict[str, Any]:
        fields = asdict(self)
        return {
            "version": self.version,
            **fields,
            "hop_length": self.hop_length,
            "upscale": UPSCALE,
            "sample_rate": SAMPLE_RATE,
        }


def module(name: str) -> types.ModuleType:
    """A module of upstream's package, such as `soprano.vocos.decoder`.

    Importing the package itself would import its backends and `transformers` as well, which takes longer
    than most exports; none of its modules needs that. Raises ExportError("environment") when the package
    is not installed or the module cannot be imported.
    """
    if "soprano" not in sys.modules:
        found = importlib.util.find_spec("soprano")
        if found is None or not found.submodule_search_locations:
            raise ExportError("environment", "the package `soprano-tts` is not installed", "run `make setup`")
        shell = types.ModuleType("soprano")
        shell.__path__ = list(found.submodule_search_locations)
        shell.__spec__ = found
        sys.modules["soprano"] = shell
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            "environment", f"upstream's {name} cannot be imported: {error}", "run `make setup`"
        ) from error


def decoder_class() -> type[torch.nn.Module]:
    """Upstream's `SopranoDecoder`. Raises ExportError("environment") as `module` does."""
    decoder = module("soprano.vocos.decoder")
    try:
        return decoder.SopranoDecoder
    except AttributeError as error:
        raise ExportError(
            "environment", f"upstream's decoder cannot be imported: {error}", "run `make setup`"
        ) from error


def clean(sentence: str) -> str:
    """The text that upstream's front end makes of a sentence: numbers and signs become words."""
    return module("soprano.utils.text_normalizer").clean_text(sentence)


def build(architecture: Architecture) -> torch.nn.Module:
    """An uninitialised (meta device) upstream decoder of the given dimensions, in evaluation mode."""
    with torch.device("meta"):
        module = decoder_class()(
            num_input_channels=architecture.input_channels,
            decoder_num_layers=architecture.layers,
            decoder_dim=architecture.dim,
            decoder_intermediate_dim=architecture.intermediate_dim,
            hop_length=architecture.hop_length,
            n_fft=architecture.n_fft,
            upscale=UPSCALE,
            dw_kernel=architecture.dw_kernel,
        )
        kernel = architecture.input_kernel
        if kernel != module.decoder.embed.kernel_size[0]:
            # Upstream 0.2.0 fixes the kernel at 1, as in its release 1.1; release 1.0 had 3.
            module.decoder.embed = torch.nn.Conv1d(
                architecture.input_channels, architecture.dim, kernel_size=kernel, padding=kernel // 2
            )
    return module.eval()


def load_weights(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Give `module` the tensors of `state` (names and shapes must agree) and freeze it."""
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def head_parts(out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the output of `head.out`, [B, N, n_fft+2], into log-magnitudes and phases, [B, N, n_fft/2+1]."""
    log_magnitude, phase = out.chunk(2, dim=2)
    return log_magnitude, phase
