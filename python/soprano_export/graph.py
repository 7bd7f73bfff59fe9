"""The decoder's ONNX file: written by the TorchScript exporter, then checked, never edited in substance."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch

from .decoder import DOMAIN, DOMAIN_VERSION, ExportableDecoder
from .errors import ExportError

OPSETS = range(13, 21)
TRACED = (2, 7)
"""Batch and length that the exporter traces with; neither may show in the graph."""


def check_opset(opset: int) -> None:
    """Raise ExportError("opset") for an operator set that cannot be written."""
    if opset in OPSETS:
        return
    if OPSETS.stop <= opset <= 23:
        raise ExportError(
            "opset",
            f"opset {opset} is beyond the TorchScript exporter, which stops at {OPSETS.stop - 1}",
            "export at opset 17; every runtime of opset "
            f"{opset} also reads 17, and `onnx.version_converter` raises it where that is a must",
        )
    raise ExportError(
        "opset",
        f"opset {opset} is not supported: {OPSETS.start} to {OPSETS.stop - 1} are",
        "17 is the lowest with LayerNormalization as one node",
    )


def export(decoder: ExportableDecoder, input_channels: int, opset: int, path: Path) -> onnx.ModelProto:
    """Write `decoder` to `path` and return what was written.

    Input `hidden_states` f32 [batch, input_channels, sequence], output `audio` f32 [batch, samples].
    Raises ExportError("exporter-graph") when the graph is not what the rest of the program relies on.
    """
    check_opset(opset)
    batch, length = TRACED
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            decoder,
            (torch.zeros(batch, input_channels, length),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["hidden_states"],
            output_names=["audio"],
            dynamic_axes={"hidden_states": {0: "batch", 2: "sequence"}, "audio": {0: "batch", 1: "samples"}},
            custom_opsets={DOMAIN: DOMAIN_VERSION},
        )
    model = onnx.load(path, load_external_data=False)
    strip(model)
    check(model, opset)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return model


def strip(model: onnx.ModelProto) -> None:
    """Drop what carries no meaning but may carry paths of this machine, or shapes of the traced example."""
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        part.ClearField("doc_string")
        del part.metadata_props[:]


def istft_node(model: onnx.ModelProto) -> onnx.NodeProto:
    """The one placeholder node. Raises ExportError("exporter-graph") when there is not exactly one."""
    found = [node for node in model.graph.node if node.domain == DOMAIN]
    if len(found) != 1 or found[0].op_type != "ISTFT":
        raise ExportError(
            "exporter-graph", f"the exported graph has {len(found)} {DOMAIN} nodes instead of one ISTFT"
        )
    return found[0]


def check(model: onnx.ModelProto, opset: int) -> None:
    """Raise ExportError("exporter-graph") unless the graph has the promised form."""
    imports = {entry.domain: entry.version for entry in model.opset_import}
    if imports != {"": opset, DOMAIN: DOMAIN_VERSION}:
        raise ExportError("exporter-graph", f"the exported graph imports {imports}")
    foreign = {node.domain for node in model.graph.node} - {"", DOMAIN}
    if foreign:
        raise ExportError("exporter-graph", f"the exported graph uses the domains {sorted(foreign)}")
    node = istft_node(model)
    if node.input[2] not in {tensor.name for tensor in model.graph.initializer}:
        raise ExportError("exporter-graph", f"the window of `{node.name}` is not an initializer")
    for value, axes in ((model.graph.input[0], (0, 2)), (model.graph.output[0], (0, 1))):
        dims = value.type.tensor_type.shape.dim
        if any(not dims[axis].dim_param for axis in axes):
            raise ExportError("exporter-graph", f"`{value.name}` has a fixed length or batch")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError("exporter-graph", f"the exported graph is not valid ONNX: {error}") from error
