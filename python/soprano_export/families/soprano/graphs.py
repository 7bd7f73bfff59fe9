"""Soprano's two graphs: what they add to their roles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch

from ... import language_model, references
from ...causal import CausalGraph
from ...request import refuse
from ...signals import SignalGraph
from . import checkpoint, extremes, probes, upstream
from .decoder import ConvertibleDecoder, ExportableDecoder
from .voice import STOP, Voice, prompt

if TYPE_CHECKING:
    from ...protocol import Job
    from ...target import Target

PROBED = (1, 5)
"""Batch and length of the case whose inner values are recorded, its frames drawn from PROBED_SEED."""
PROBED_SEED = 0


@dataclass
class Decoder(SignalGraph):
    architecture: upstream.Architecture | None = None

    @classmethod
    def prepare(cls) -> None:
        upstream.decoder_class()

    @classmethod
    def load(cls, target: Target) -> Decoder:
        model, a = checkpoint.load(target.directory)
        return cls(
            target.directory,
            target.tensors(),
            model,
            channels=a.input_channels,
            per_frame=a.hop_length * upstream.UPSCALE,
            lead=1,
            sample_rate=upstream.SAMPLE_RATE,
            architecture=a,
        )

    def describe(self) -> dict[str, Any]:
        return self.architecture.describe()

    def exportable(self) -> torch.nn.Module:
        return ExportableDecoder(self.model)

    def in_products(self) -> torch.nn.Module:
        return ConvertibleDecoder(self.model)

    def probes(self, path: Path) -> bytes:
        frames = self.lifelike(*PROBED, PROBED_SEED)
        model = onnx.load(path)
        with references.reproducible():
            inner = probes.record(self.model, self.architecture.layers, model, frames)
        case = self.case(f"b{PROBED[0]}_t{PROBED[1]}", "realistic", frames)
        return references.serialize(inner, [case])

    def driven(self, start: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        return [
            ("extreme_clip", extremes.ascend(self.model, start, extremes.clip_more)),
            ("extreme_phase", extremes.ascend(self.model, start, extremes.turn_further)),
        ]

    def answer(self, case: references.Case) -> tuple[torch.Tensor, dict[str, Any]]:
        """With the share of bins whose magnitude is clipped, and the largest |phase| in radians."""
        with extremes.head_output(self.model) as seen:
            audio, fact = super().answer(case)
        log_magnitude, phase = upstream.head_parts(seen[0])
        clipped = (log_magnitude.exp() >= upstream.MAGNITUDE_LIMIT).float().mean()
        return audio, {**fact, "clipped_share": float(clipped), "max_phase": float(phase.abs().max())}

    def spoken(self, sentences: list[str], job: Job) -> list[references.Case]:
        """The hidden states that the checkpoint's own language model makes of each sentence."""
        voice, cases = Voice.load(self.directory), []
        for done, sentence in enumerate(sentences):
            job.progress("speak sentences", done, len(sentences))
            answer = voice.speak(upstream.clean(sentence))
            if len(answer.tokens) < 2:
                refuse(f"`sentences`: the checkpoint says {len(answer.tokens)} tokens to {sentence!r}")
            cases.append(self.case(f"spoken_{done}", "spoken", answer.hidden_states))
        job.progress("speak sentences", len(sentences), len(sentences))
        return cases


class LanguageModel(CausalGraph):
    stop = STOP

    def prompts(self, sentences: list[str]) -> tuple[list[torch.Tensor], int | None]:
        tokenizer = language_model.tokenizer(self.directory)
        return [prompt(tokenizer, upstream.clean(sentence)) for sentence in sentences], tokenizer.eos_token_id


GRAPHS = {"decoder": Decoder, "lm": LanguageModel}
