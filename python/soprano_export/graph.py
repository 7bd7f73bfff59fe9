"""ONNX files as the TorchScript exporter writes them: checked afterwards, never edited in substance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from . import istft
from .errors import ExportError

OPSETS = range(13, 21)


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


def write(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    opset: int,
    path: Path,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Trace `module` on example `inputs`, write it to `path` and return what was written.

    `axes` names the open dimensions of each input and output; what the example has there must not show in
    the graph. `domains` are those of operators that it may have besides the standard ones. Raises
    ExportError("opset"), and ("exporter-graph") for a graph without the promised form.
    """
    check_opset(opset)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(dims) for name, dims in axes.items()},
            custom_opsets=dict(domains or {}),
        )
    model = onnx.load(path, load_external_data=False)
    strip(model)
    check(model, axes, opset)
    save(model, path)
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))


def strip(model: onnx.ModelProto) -> None:
    """Drop what carries no meaning but may carry paths of this machine, or shapes of the traced example."""
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        part.ClearField("doc_string")
        del part.metadata_props[:]


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give inputs and outputs of the graph other names, wherever they stand."""
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def check(model: onnx.ModelProto, axes: Mapping[str, Mapping[int, str]], opset: int) -> None:
    """Raise ExportError("exporter-graph") unless the graph has the promised form."""
    placeholders = istft.placeholders(model)
    imports = {entry.domain: entry.version for entry in model.opset_import}
    if imports != {"": opset, **({istft.DOMAIN: istft.DOMAIN_VERSION} if placeholders else {})}:
        raise ExportError("exporter-graph", f"the exported graph imports {imports}")
    foreign = {node.domain for node in model.graph.node} - {"", istft.DOMAIN}
    if foreign:
        raise ExportError("exporter-graph", f"the exported graph uses the domains {sorted(foreign)}")
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in placeholders:
        if node.input[2] not in constants:
            raise ExportError(
                "exporter-graph",
                f"the window of `{node.name}` is not an initializer",
                "a module registers its window as a buffer",
            )
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for axis, name in axes[value.name].items():
            if not dims[axis].dim_param:
                raise ExportError(
                    "exporter-graph", f"`{value.name}` has a fixed {name} ({dims[axis].dim_value})"
                )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError("exporter-graph", f"the exported graph is not valid ONNX: {error}") from error


def evaluate(
    model: onnx.ModelProto, values: Sequence[str], inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """The named values of a graph in ONNX Runtime, which runs the nodes before them alone."""
    import onnxruntime

    part = onnx.ModelProto()
    part.CopyFrom(model)
    wanted, nodes = set(values), []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            nodes.append(node)
    del part.graph.node[:], part.graph.output[:]
    part.graph.node.extend(reversed(nodes))
    for value in values:
        part.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    for entry in [entry for entry in part.opset_import if entry.domain]:
        part.opset_import.remove(entry)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(values), dict(inputs))
