"""Task `export-decoder`: a decoder checkpoint to ONNX, with references and probes from upstream's code."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..protocol import Job
from ..request import refuse

PROBED = (1, 5)
"""Batch and length of the case whose inner values are recorded."""


@dataclass(frozen=True)
class References:
    lengths: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 16, 64, 100, 512])
    batches: list[int] = field(default_factory=lambda: [1, 3])
    extreme: bool = True
    seed: int = 0
    sentences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 2:
            raise ValueError("lengths must be 2 or more: upstream cannot decode a single hidden state")
        if not self.batches or min(self.batches) < 1:
            raise ValueError("batches must be 1 or more")
        if len(set(self.lengths)) < len(self.lengths) or len(set(self.batches)) < len(self.batches):
            raise ValueError("lengths and batches must not repeat")
        if not 0 <= self.seed < 2**31:
            raise ValueError("seed is not in 0..2^31")
        if not all(sentence.strip() for sentence in self.sentences):
            raise ValueError("sentences must not be empty")


@dataclass(frozen=True)
class Request:
    checkpoint: str
    opset: int = 17
    references: References = field(default_factory=References)


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes artifacts `model` (decoder.onnx), `references` and `probes` (safetensors).

    Result: {"architecture", "sample_rate" in Hz, "cases", "probes": how many inner values were recorded}.
    """
    directory = Path(request.checkpoint)
    if not directory.is_dir():
        refuse(f"`checkpoint` is not a directory: {request.checkpoint!r}")

    from .. import checkpoint, graph, probes, references, upstream
    from ..decoder import ExportableDecoder

    graph.check_opset(request.opset)
    job.progress("load checkpoint", 0, 1)
    decoder, architecture = checkpoint.load(directory)
    job.progress("load checkpoint", 1, 1)

    job.progress("export graph", 0, 1)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=job.output) as scratch:
        written = Path(scratch) / "decoder.onnx"
        model = graph.export(ExportableDecoder(decoder), architecture.input_channels, request.opset, written)
        job.adopt("model", "decoder.onnx", written)
    job.progress("export graph", 1, 1)

    channels, wanted = architecture.input_channels, request.references
    with references.reproducible():
        job.progress("record probes", 0, 1)
        probed = references.hidden_states(PROBED[0], channels, PROBED[1], wanted.seed)
        inner = probes.record(decoder, architecture.layers, model, probed)
        del model
        job.progress("record probes", 1, 1)

        recorded = references.cases(
            decoder, channels, wanted.lengths, wanted.batches, wanted.extreme, wanted.seed
        )
        if wanted.sentences:
            recorded += _spoken(directory, wanted.sentences, job)
        tensors, facts = {}, []
        lifelike = [case.hidden_states.abs().max() for case in recorded if case.kind == "realistic"]
        scale = float(max(lifelike))
        for done, case in enumerate(recorded):
            job.progress("record references", done, len(recorded))
            audio, fact = references.record(decoder, case)
            moved = references.last_bit(decoder, case, audio, scale)
            recorded[done] = replace(case, last_bit=moved)
            tensors[f"{case.name}/hidden_states"], tensors[f"{case.name}/audio"] = case.hidden_states, audio
            facts.append({**fact, "last_bit": moved})
        job.progress("record references", len(recorded), len(recorded))

    job.write("references", "references.safetensors", references.serialize(tensors, recorded))
    probe_case = references.Case(f"b{PROBED[0]}_t{PROBED[1]}", "realistic", probed)
    job.write("probes", "probes.safetensors", references.serialize(inner, [probe_case]))
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    return {
        "architecture": {**architecture.describe(), "parameters": parameters},
        "sample_rate": upstream.SAMPLE_RATE,
        "cases": facts,
        "probes": len(inner) - 1,
    }


def _spoken(directory: Path, sentences: list[str], job: Job) -> list[Any]:
    """A case for each sentence: the hidden states that the checkpoint's own language model makes of it."""
    from .. import references, upstream
    from ..voice import Voice

    voice, made = Voice.load(directory), []
    for done, sentence in enumerate(sentences):
        job.progress("speak sentences", done, len(sentences))
        spoken = voice.speak(upstream.clean(sentence))
        if len(spoken.tokens) < 2:
            refuse(f"`sentences`: the checkpoint says {len(spoken.tokens)} tokens to {sentence!r}")
        made.append(references.Case(f"spoken_{done}", "spoken", spoken.hidden_states))
    job.progress("speak sentences", len(sentences), len(sentences))
    return made
