"""Task `convert`: a canonical fp32 ONNX file, or the PyTorch module that it stands for, to OpenVINO IR."""

from __future__ import annotations

import contextlib
import json
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import families
from ..errors import ExportError
from ..protocol import Job
from ..request import refuse
from ..roles import CausalNames
from ..target import Target

# Half of an activation's outliers go into the weights (SmoothQuant, alpha).
SMOOTHING = 0.5


@dataclass(frozen=True)
class Shape:
    """What an input's dimensions may be: a number, `a..b`, or `?` for any, each."""

    input: str
    dims: list[str]


@dataclass(frozen=True, kw_only=True)
class Request(Target):
    checkpoint: str | None = None  # type: ignore[assignment]
    model: str
    precisions: list[Literal["fp32", "fp16", "int8"]]
    via: Literal["onnx", "torch"] = "onnx"
    keep_fp32: list[str] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    stateful: bool = False
    calibration: str | None = None

    def __post_init__(self) -> None:
        if not self.precisions or len(set(self.precisions)) < len(self.precisions):
            raise ValueError("precisions must be different ones, and at least one")
        if self.via == "torch" and self.checkpoint is None:
            raise ValueError("checkpoint is needed where via is torch")
        if self.stateful and self.role != "causal":
            raise ValueError("stateful is for a causal graph: a signal graph has no state")
        if self.calibration is not None and self.role != "signal":
            raise ValueError("calibration is for a signal graph: a language model's ranges are too wide")


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes artifacts `{precision}` and `{precision}-weights`: {precision}.xml and {precision}.bin.

    Inputs and outputs have the names, order and layouts of the ONNX file. int8 holds the weights of products
    and tables in 8 bits, symmetric, a scale each row (nncf, INT8_SYM); fp16 holds weights in 16 bits; both
    compute in what the runtime is told to. With `calibration`, a file of references, activations too are in
    8 bits, in the ranges that its lifelike inputs show. Result: {"inputs", "outputs", "compressed"}.
    """
    path = Path(request.model)
    if not path.is_file():
        refuse(f"`model` is not a file: {request.model!r}")
    families.load(request.family)
    silence()
    import openvino

    job.progress("convert", 0, 1 + len(request.precisions))
    try:
        model = from_onnx(path) if request.via == "onnx" else from_torch(request, path)
        for shape in request.shapes:
            bound(model, shape)
        if request.stateful:
            make_stateful(model, request.tensors())
    except ExportError:
        raise
    except Exception as error:
        raise ExportError("convert", f"OpenVINO cannot convert {path.name}: {first_line(error)}") from error
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=job.output) as scratch:
        # int8 last: it changes the model in place.
        ordered = sorted(request.precisions, key=["fp32", "fp16", "int8"].index)
        for done, precision in enumerate(ordered):
            job.progress("convert", 1 + done, 1 + len(ordered))
            if precision == "int8":
                model, facts["compressed"] = in_8_bits(model, request)
            written = Path(scratch) / f"{precision}.xml"
            try:
                openvino.save_model(model, written, compress_to_fp16=precision == "fp16")
            except Exception as error:
                raise ExportError(
                    "convert", f"OpenVINO cannot write {precision}: {first_line(error)}"
                ) from error
            job.adopt(f"{precision}-weights", f"{precision}.bin", written.with_suffix(".bin"))
            job.adopt(precision, f"{precision}.xml", written)
    job.progress("convert", 1 + len(request.precisions), 1 + len(request.precisions))
    facts["inputs"] = [port.any_name for port in model.inputs]
    facts["outputs"] = [port.any_name for port in model.outputs]
    return facts


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def silence() -> None:
    """Both packages report their use over the network unless that is replaced before they are imported."""
    import openvino_telemetry

    def nothing(*_: Any, **__: Any) -> None:
        pass

    calls = ("start_session", "end_session", "send_event", "send_error", "send_stack_trace", "force_shutdown")
    Silent = type("Silent", (), {"__init__": nothing, **dict.fromkeys(calls, nothing)})
    openvino_telemetry.Telemetry = Silent
    openvino_telemetry.main.Telemetry = Silent
    warnings.simplefilter("ignore")


def from_onnx(path: Path) -> Any:
    import onnx
    import openvino

    model = openvino.convert_model(path)
    # A value may have several names in OpenVINO; a port has the one of the ONNX file.
    if any(len(port.get_names()) > 1 for port in (*model.inputs, *model.outputs)):
        graph = onnx.load(path, load_external_data=False).graph
        rename(model.inputs, [port.name for port in graph.input])
        rename(model.outputs, [port.name for port in graph.output])
    return model


def rename(ports: list[Any], names: list[str]) -> None:
    """Gives ports their names, in order."""
    for port, name in zip(ports, names, strict=True):
        port.get_tensor().set_names({name})


def from_torch(request: Request, path: Path) -> Any:
    """The module's own conversion, under the names and in the order of the ONNX file."""
    import onnx
    import openvino
    import torch

    module, example, shapes = families.kind(request).load(request).convertible()
    wanted = onnx.load(path, load_external_data=False).graph
    inputs, outputs = ([port.name for port in ports] for ports in (wanted.input, wanted.output))
    if inputs != list(example):
        refuse(f"`model` has the inputs {inputs}, and the module {list(example)}", "use via: onnx")
    with torch.no_grad():
        model = openvino.convert_model(
            module,
            example_input=tuple(example.values()),
            input=[openvino.PartialShape(shapes[name]) for name in inputs],
        )
    if len(model.outputs) != len(outputs):
        refuse(f"`model` has {len(outputs)} outputs, and the module {len(model.outputs)}", "use via: onnx")
    rename(model.inputs, inputs)
    rename(model.outputs, outputs)
    model.validate_nodes_and_infer_types()
    return model


def bound(model: Any, shape: Shape) -> None:
    """Gives an input the dimensions that are wanted."""
    import openvino

    known = {port.any_name: port for port in model.inputs}
    if shape.input not in known:
        refuse(f"`shapes`: the model has no input {shape.input!r}", f"it has: {', '.join(known)}")
    dims = [-1 if dim == "?" else dim for dim in shape.dims]
    port = known[shape.input]
    try:
        model.reshape({port: openvino.PartialShape([openvino.Dimension(str(dim)) for dim in dims])})
    except Exception as error:
        refuse(f"`shapes`: {shape.input} cannot be {shape.dims}: {first_line(error)}")


def make_stateful(model: Any, names: CausalNames) -> None:
    """Moves the cache into the model: past keys and values, inputs and outputs, become its state."""
    from openvino import Type
    from openvino import opset13 as opset
    from openvino._offline_transformations import apply_make_stateful_transformation

    past = f"{names.past}."
    pairs = {
        port.any_name: f"{names.present}.{port.any_name.removeprefix(past)}"
        for port in model.inputs
        if port.any_name.startswith(past)
    }
    outputs = {port.any_name for port in model.outputs}
    if missing := sorted(set(pairs.values()) - outputs):
        refuse(f"`stateful`: the model has no output {missing[0]!r}")
    apply_make_stateful_transformation(model, pairs)
    # A state begins with no position for as many sequences as there are ids; by itself it would begin with
    # no sequence, and none can be joined to it.
    batch = opset.gather(
        opset.shape_of(model.input(names.ids), output_type="i64"), opset.constant([0]), opset.constant(0)
    )
    for read in (op for op in model.get_ops() if op.get_type_name() == "ReadValue"):
        dims = read.get_output_partial_shape(0)
        fixed = [dims[at].get_length() for at in (1, 3)]
        start = opset.concat(
            [batch, opset.constant([fixed[0]]), opset.constant([0]), opset.constant([fixed[1]])], axis=0
        )
        read.set_arguments([opset.broadcast(opset.constant(0.0, dtype=Type.f32), start)])
    model.validate_nodes_and_infer_types()


def in_8_bits(model: Any, request: Request) -> tuple[Any, int]:
    """The model with weights in 8 bits, but for those of the nodes that stay fp32; and how many it is."""
    with contextlib.redirect_stdout(None):
        import nncf

        nncf.set_log_level(40)
        if request.calibration is None:
            scope = nncf.IgnoredScope(names=request.keep_fp32, validate=False)
            mode = nncf.CompressWeightsMode.INT8_SYM
            compressed = nncf.compress_weights(model, mode=mode, ignored_scope=scope)
        else:
            samples = lifelike(Path(request.calibration), [port.any_name for port in model.inputs])
            # A depthwise convolution has a range for each channel, which the CPU plugin refuses.
            scope = nncf.IgnoredScope(names=request.keep_fp32, types=["GroupConvolution"], validate=False)
            smooth = nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING)
            compressed = nncf.quantize(
                model,
                nncf.Dataset(samples),
                subset_size=len(samples),
                ignored_scope=scope,
                # Products alone, and smoothed: without it activations cost some 12 dB more.
                model_type=nncf.ModelType.TRANSFORMER,
                advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smooth),
            )
    count = sum(
        op.get_type_name() == "Constant" and op.get_element_type().get_type_name() == "i8"
        for op in compressed.get_ops()
    )
    if count == 0:
        raise ExportError(
            "convert", "nncf found no weight to hold in 8 bits", "leave int8 out of the precisions"
        )
    return compressed, count


def lifelike(path: Path, inputs: list[str]) -> list[dict[str, Any]]:
    """The inputs of a file's references, without those that are driven to extremes."""
    import safetensors

    try:
        with safetensors.safe_open(path, "np") as file:
            cases = [
                case["name"] for case in json.loads(file.metadata()["cases"]) if case["kind"] != "extreme"
            ]
            samples = [{name: file.get_tensor(f"{case}/{name}") for name in inputs} for case in cases]
    except Exception as error:
        refuse(f"`calibration`: {path.name} is not a file of references: {first_line(error)}")
    if not samples:
        refuse(f"`calibration`: {path.name} has no lifelike input")
    return samples
