"""Probes: upstream's inner values, named after the ONNX values that carry them."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from ... import graph, istft
from ...errors import ExportError

TOLERANCE = 1e-3
"""Largest difference, relative to the largest magnitude of the value, before a probe counts as diverged."""
INNER = ("dwconv", "norm", "pwconv1", "pwconv2")


def modules(layers: int) -> list[str]:
    """Upstream's module paths that are probed, in the order in which they run."""
    blocks = []
    for layer in range(layers):
        block = f"decoder.convnext.{layer}"
        blocks += [*(f"{block}.{part}" for part in INNER), block]
    return ["decoder.embed", "decoder.norm", *blocks, "decoder.final_layer_norm", "head.out"]


def observe(
    decoder: torch.nn.Module, names: list[str], hidden_states: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Outputs of the named modules of unmodified upstream, and "real" and "imag" of its spectrum."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(_module, _inputs, output):
            seen[name] = output.detach().clone()

        return hook

    def spectrum(_module, inputs):
        seen["real"], seen["imag"] = inputs[0].real.clone(), inputs[0].imag.clone()

    hooks = [decoder.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    hooks.append(decoder.head.istft.register_forward_pre_hook(spectrum))
    try:
        with torch.no_grad():
            decoder(hidden_states)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def locate(model: onnx.ModelProto, names: list[str]) -> dict[str, str]:
    """For each module the ONNX value it ends in: the output of the last node in its scope.

    A module whose scope has no node is left out.
    """
    values = {}
    for name in names:
        scope = f"/{_scope(name)}/"
        inside = [node for node in model.graph.node if node.name.startswith(scope)]
        if inside:
            values[name] = inside[-1].output[0]
    node = istft_node(model)
    values["real"], values["imag"] = node.input[0], node.input[1]
    return values


def _scope(name: str) -> str:
    """decoder.convnext.0.norm to decoder/convnext.0/norm: an index stays with the list that it indexes."""
    parts: list[str] = []
    for part in name.split("."):
        if part.isdigit():
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return "/".join(parts)


def istft_node(model: onnx.ModelProto) -> onnx.NodeProto:
    """The one placeholder node. Raises ExportError("exporter-graph") when there is not exactly one."""
    nodes = istft.placeholders(model)
    if len(nodes) != 1:
        raise ExportError(
            "exporter-graph", f"the exported graph has {len(nodes)} inverse STFTs instead of one"
        )
    return nodes[0]


def record(
    decoder: torch.nn.Module, layers: int, model: onnx.ModelProto, hidden_states: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Upstream's inner values (f32) by the ONNX value that carries each, and the graph's input.

    Each was seen to agree with the exported graph in ONNX Runtime. Raises
    ExportError("exporter-diverged"), naming the first module in running order that does not.
    """
    names = modules(layers)
    expected = observe(decoder, names, hidden_states)
    values = locate(model, names)
    source = model.graph.input[0].name
    answers = graph.evaluate(model, list(values.values()), {source: hidden_states.numpy()})
    probes = {source: hidden_states}
    for (name, value), result in zip(values.items(), answers, strict=True):
        reference = expected[name].numpy()
        if result.shape != reference.shape:
            raise _diverged(name, value, f"has shape {list(result.shape)}, not {list(reference.shape)}")
        if not np.isfinite(reference).all():
            raise ExportError(
                "reference-nonfinite",
                f"upstream's own `{name}` gives NaN or infinite values on ordinary hidden states",
                "the checkpoint's weights overflow float32",
            )
        error = float(np.abs(result - reference).max()) / max(float(np.abs(reference).max()), 1e-12)
        if not error <= TOLERANCE:
            raise _diverged(name, value, f"differs by {error:.1e} of its largest magnitude")
        probes[value] = expected[name].contiguous()
    return probes


def _diverged(name: str, value: str, how: str) -> ExportError:
    return ExportError(
        "exporter-diverged",
        f"the exported graph does not compute upstream's `{name}`: its value `{value}` {how}",
        "a version of torch that exports this module wrongly; use the locked environment",
    )
