"""Task `export-lm`: a language-model checkpoint to ONNX, with references from unmodified `transformers`."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..protocol import Job
from ..request import refuse

SPOKEN_LIMIT = 512


@dataclass(frozen=True)
class References:
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
        if not 0 <= self.seed < 2**31:
            raise ValueError("seed is not in 0..2^31")


@dataclass(frozen=True)
class Request:
    checkpoint: str
    opset: int = 17
    route: Literal["torch", "optimum"] = "torch"
    references: References = field(default_factory=References)
    hidden_states: list[int] = field(default_factory=list)


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes artifacts `model` (lm.onnx) and `references` (lm_references.safetensors).

    Route `torch`: no cache, input_ids, attention_mask, position_ids to logits. Route `optimum`: with
    past_key_values and present. Result: {"architecture", "cases"}.
    """
    directory = Path(request.checkpoint)
    if not directory.is_dir():
        refuse(f"`checkpoint` is not a directory: {request.checkpoint!r}")

    from .. import graph, language_model, lm, references, upstream
    from ..lm_references import Recorder

    graph.check_opset(request.opset)
    job.progress("load checkpoint", 0, 1)
    model = language_model.load(directory)
    lm.check_attention(model.config)
    architecture = lm.Architecture.of(model.config)
    wanted = request.references
    if not all(0 <= layer < architecture.layers for layer in request.hidden_states):
        refuse(f"`hidden_states`: {request.hidden_states} of {architecture.layers} layers")
    longest = max([*wanted.prefills, wanted.steps + 8])
    if longest > architecture.max_position_embeddings:
        refuse(f"`references`: {longest} positions, and the model has {architecture.max_position_embeddings}")
    tokenizer = language_model.tokenizer(directory) if wanted.sentences else None
    job.progress("load checkpoint", 1, 1)

    job.progress("export graph", 0, 1)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=job.output) as scratch:
        written = Path(scratch) / "lm.onnx"
        if request.route == "torch":
            lm.export(lm.ExportableLm(model, architecture), request.opset, written)
        else:
            _optimum(directory, request.opset, written)
        job.adopt("model", "lm.onnx", written)
    job.progress("export graph", 1, 1)

    recorder = Recorder(model, wanted.seed, tuple(request.hidden_states))
    work = [lambda length=length: recorder.prefill(length) for length in wanted.prefills]
    work += [
        lambda: recorder.padded(wanted.batch, max(4, min(16, max(wanted.prefills)))),
        lambda: recorder.steps(wanted.steps),
        recorder.random_greedy,
    ]
    for place, sentence in enumerate(wanted.sentences):
        text = f"[STOP][TEXT]{upstream.clean(sentence)}[START]"
        prompt = tokenizer(text, return_tensors="pt")["input_ids"]
        work.append(
            lambda place=place, prompt=prompt: recorder.greedy(
                f"spoken_{place}", prompt, SPOKEN_LIMIT, tokenizer.eos_token_id
            )
        )
    with references.reproducible():
        for done, record in enumerate(work):
            job.progress("record references", done, len(work))
            record()
        job.progress("record references", len(work), len(work))
    job.write("references", "lm_references.safetensors", recorder.serialize())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "architecture": {**architecture.describe(), "parameters": parameters},
        "cases": [case.described for case in recorder.cases],
    }


def _optimum(directory: Path, opset: int, written: Path) -> None:
    """Optimum's own export with past, as one file."""
    import onnx
    from optimum.exporters.onnx import main_export

    from .. import graph
    from ..errors import ExportError

    folder = written.parent / "optimum"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main_export(
                str(directory),
                output=folder,
                task="text-generation-with-past",
                opset=opset,
                do_validation=False,
                no_post_process=False,
                local_files_only=True,
            )
    except Exception as error:
        why = str(error).split("\n", 1)[0][:200] or type(error).__name__
        raise ExportError("lm-unsupported", f"Optimum cannot export {directory}: {why}") from error
    model = onnx.load(folder / "model.onnx")
    graph.strip(model)
    written.write_bytes(model.SerializeToString(deterministic=True))
