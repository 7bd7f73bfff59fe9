"""Graphs of the role `causal`: any Qwen3, Qwen2, Llama or Mistral model in the layout of `transformers`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from . import graph, language_model, lm, references
from .errors import ExportError
from .families.base import Convertible, Graph
from .lm_references import Recorder
from .request import refuse
from .roles import CausalNames, CausalReferences

if TYPE_CHECKING:
    from .protocol import Job
    from .target import Target

SPOKEN_LIMIT = 512


@dataclass
class CausalGraph(Graph):
    """An unmodified `model` of `transformers`; `hidden_states` are the layers whose input is recorded."""

    role = "causal"
    exporters = ("torch", "optimum")
    stop: ClassVar[str | None] = None
    """The token that ends a text, where the family fixes it."""

    directory: Path
    names: CausalNames
    model: torch.nn.Module
    architecture: lm.Architecture
    hidden_states: list[int]

    @classmethod
    def load(cls, target: Target) -> CausalGraph:
        model = language_model.load(target.directory, cls.stop)
        lm.check_attention(model.config)
        architecture = lm.Architecture.of(model.config)
        if not all(0 <= layer < architecture.layers for layer in target.hidden_states):
            refuse(f"`hidden_states`: {target.hidden_states} of {architecture.layers} layers")
        return cls(target.directory, target.tensors(), model, architecture, target.hidden_states)

    def export(self, exporter: str, opset: int, path: Path) -> dict[str, Any]:
        if exporter == "torch":
            lm.export(lm.ExportableLm(self.model, self.architecture), self.names, opset, path)
        else:
            self._optimum(opset, path)
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {"architecture": {**self.architecture.describe(), "parameters": parameters}}

    def _optimum(self, opset: int, path: Path) -> None:
        """Optimum's own export with past, as one file."""
        import onnx
        from optimum.exporters.onnx import main_export

        folder = path.parent / "optimum"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                main_export(
                    str(self.directory),
                    output=folder,
                    task="text-generation-with-past",
                    opset=opset,
                    do_validation=False,
                    no_post_process=False,
                    local_files_only=True,
                )
        except Exception as error:
            why = str(error).split("\n", 1)[0][:200] or type(error).__name__
            raise ExportError("lm-unsupported", f"Optimum cannot export {self.directory}: {why}") from error
        model = onnx.load(folder / "model.onnx")
        graph.strip(model)
        theirs, ours = CausalNames(), self.names
        renamed = {theirs.logits: ours.logits, **dict(zip(theirs.inputs, ours.inputs, strict=True))}
        for layer in range(self.architecture.layers):
            for part in ("key", "value"):
                renamed[f"{theirs.past}.{layer}.{part}"] = f"{ours.past}.{layer}.{part}"
                renamed[f"{theirs.present}.{layer}.{part}"] = f"{ours.present}.{layer}.{part}"
        graph.rename(model, renamed)
        graph.save(model, path)

    def record(self, wanted: CausalReferences, job: Job) -> tuple[bytes, list[dict[str, Any]]]:
        longest, positions = (
            max([*wanted.prefills, wanted.steps + 8]),
            self.architecture.max_position_embeddings,
        )
        if longest > positions:
            refuse(f"`references`: {longest} positions, and the model has {positions}")
        recorder = Recorder(self.model, wanted.seed, self.names, tuple(self.hidden_states))
        work: list[Callable[[], Any]] = [lambda n=n: recorder.prefill(n) for n in wanted.prefills]
        work += [
            lambda: recorder.padded(wanted.batch, max(4, min(16, max(wanted.prefills)))),
            lambda: recorder.steps(wanted.steps),
            recorder.random_greedy,
        ]
        if wanted.sentences:
            prompts, stop = self.prompts(wanted.sentences)
            work += [
                lambda at=at, prompt=prompt: recorder.greedy(f"spoken_{at}", prompt, SPOKEN_LIMIT, stop)
                for at, prompt in enumerate(prompts)
            ]
        with references.reproducible():
            for done, record in enumerate(work):
                job.progress("record references", done, len(work))
                record()
            job.progress("record references", len(work), len(work))
        return recorder.serialize(), [case.described for case in recorder.cases]

    def prompts(self, sentences: list[str]) -> tuple[list[torch.Tensor], int | None]:
        """The ids of each sentence's prompt, i64 [1, n], and the id that ends an answer."""
        refuse("`references.sentences`: this family has no prompts for sentences", "leave them out")

    def convertible(self) -> Convertible:
        past, length, a = 3, 5, self.architecture
        inputs = (
            torch.ones(2, length, dtype=torch.int64),
            torch.ones(2, past + length, dtype=torch.int64),
            torch.arange(past, past + length).repeat(2, 1),
        )
        example = dict(zip(self.names.inputs, inputs, strict=True))
        shapes = {name: [-1, -1] for name in example}
        for layer in range(a.layers):
            for part in ("key", "value"):
                name = f"{self.names.past}.{layer}.{part}"
                example[name] = torch.randn(2, a.kv_heads, past, a.head_dim)
                shapes[name] = [-1, a.kv_heads, -1, a.head_dim]
        module = lm.CachedLm(lm.ExportableLm(self.model, a)).eval()
        return Convertible(module, example, shapes)

    @classmethod
    def bench(cls, target: Target) -> tuple[float, Callable[[Any], Callable[[], float]]]:
        """With the attention that `transformers` chooses; filling the cache isn't counted."""
        from transformers import AutoModelForCausalLM, DynamicCache

        directory, began = target.directory, time.perf_counter()
        try:
            model = AutoModelForCausalLM.from_pretrained(
                directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            why = str(error).split("\n", 1)[0][:300]
            raise ExportError(
                "checkpoint-language-model",
                f"{directory}: its language model cannot be loaded: {why}",
                "give a folder with config.json and model.safetensors",
            ) from error
        model.eval().requires_grad_(False)
        load, a = time.perf_counter() - began, lm.Architecture.of(model.config)

        def of(point: Any) -> Callable[[], float]:
            length = 1 if point.what == "step" else point.tokens
            ids = torch.ones(point.batch, length, dtype=torch.int64)
            mask = torch.ones(point.batch, point.past + length, dtype=torch.int64)
            filling = torch.randn(point.batch, a.kv_heads, point.past, a.head_dim)

            def timed() -> float:
                cache = DynamicCache()
                for layer in range(a.layers if point.past else 0):
                    cache.update(filling, filling, layer)
                began = time.perf_counter()
                with torch.inference_mode():
                    model(ids, attention_mask=mask, past_key_values=cache, use_cache=True)
                return time.perf_counter() - began

            return timed

        return load, of
