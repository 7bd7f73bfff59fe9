"""Models that exist: ONNX's own test suite, as the `onnx` package has it, and the project's fixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from case import Case
from models import all_nodes
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent.parent
# Whole networks whose weights are made by ConstantOfShape: seconds in ONNX Runtime for each run.
SLOW = ("light_bvlc_alexnet", "light_vgg19", "light_zfnet512", "light_resnet50", "light_densenet121")

# Versions of tract have faults of their own. Those of this one are known, and no other's are.
TRACT = "tract 0.23.9"
# And this one of ONNX Runtime.
ONNXRUNTIME = "onnxruntime 1.31.1"


def tract_fault(model: onnx.ModelProto) -> str | None:
    """What tract is known to do otherwise than ONNX Runtime, without an error, in one of a model's nodes."""
    made = {name: node.op_type for node in all_nodes(model) for name in node.output}
    for node in all_nodes(model):
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
        if node.domain not in ("", "ai.onnx"):
            if onnx.defs.has(node.op_type):
                return "takes another domain's operator for ONNX's"
            continue
        if node.op_type in ("LSTM", "GRU", "RNN") and attributes.get("direction") == b"reverse":
            return "runs reverse layers forwards"
        if node.op_type == "Attention" and attributes.get("is_causal") and any(node.input[4:5]):
            return "ignores the past of causal Attention"
        if node.op_type in ("MatMulInteger", "QLinearMatMul"):
            return "gives the integer product of a vector an axis too many"
        if node.op_type == "Dropout" and any(node.output[1:2]):
            return "fills the mask of Dropout, which ONNX Runtime leaves zero before opset 12"
        if node.op_type == "Div" and "Cast" in [made.get(name) for name in node.input]:
            return "divides dimensions as whole numbers after Cast"
        if node.op_type == "ReduceMax":
            return "has no minus infinity as the largest of several"
    return None


def onnxruntime_fault(first: dict) -> str | None:
    """What ONNX Runtime is known to do otherwise than ONNX says, by the first value that differs."""
    shapes = first.get("shapes") or []
    if first["op"].startswith("Reduce") and any(0 in shape for shape in shapes):
        return "reduces the axis -1 of no elements to its own length"
    return None


def given(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must give."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]


def open_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller may give: below IR version 4 an initializer among them is a constant."""
    return given(model) if model.ir_version < 4 else list(model.graph.input)


def backend() -> list[Case]:
    """Every model of ONNX's suite: one of each operator in each form, and those that PyTorch once wrote."""
    from onnx.backend.test.case import node

    cases = []
    with np.errstate(all="ignore"):
        tests = node.collect_testcases(None)
    for test in tests:
        names = [value.name for value in test.model.graph.input]
        feeds = [dict(zip(names, inputs, strict=False)) for inputs, _ in test.data_sets[:1]]
        feeds = [feed.copy for feed in feeds]
        cases.append(Case(f"node/{test.name}", test.model, feeds, part="backend", whole=False))
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(data.rglob("*.onnx")):
        name = "/".join(path.relative_to(data).parts[:2]).removesuffix(".onnx")
        model = onnx.load(path)
        stored = sorted((path.parent / "test_data_set_0").glob("input_*.pb"), key=lambda p: int(p.stem[6:]))
        feeds = []
        if stored:
            feeds = [_stored(given(model), stored)]
        elif path.stem not in SLOW and "light" in name:
            feeds = [_invented(model)]
        feeds = [feed.copy for feed in feeds if feed is not None]
        cases.append(Case(name, model, feeds, file=path, part="backend", whole=not name.startswith("light")))
    return cases


def _stored(values, paths: list[Path]) -> dict | None:
    feed = {}
    for value, path in zip(values, paths, strict=False):
        if value.type.WhichOneof("value") != "tensor_type":
            return None
        feed[value.name] = numpy_helper.to_array(onnx.load_tensor(path))
    return feed


def _invented(model: onnx.ModelProto, dims: int = 3, seed: int = 0) -> dict | None:
    """Seeded values for every input, open dimensions of that size; nothing where a type has none."""
    rng = np.random.default_rng(seed)
    feed = {}
    for value in given(model):
        if value.type.WhichOneof("value") != "tensor_type":
            return None
        kind = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else dims for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype.kind == "f":
            feed[value.name] = rng.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b":
            feed[value.name] = np.ones(shape, bool)
        else:
            feed[value.name] = rng.integers(0, 3, shape).astype(dtype)
    return feed


def fixtures() -> list[Case]:
    """The project's own small files, of many exporters."""
    cases = []
    for path in sorted((ROOT / "fixtures" / "onnx").rglob("*.onnx")):
        model = onnx.load(path)
        feeds = [_invented(model, dims, dims) for dims in (1, 4)]
        feeds = [feed.copy for feed in feeds if feed is not None]
        name = f"fixtures/{path.relative_to(ROOT / 'fixtures' / 'onnx').with_suffix('')}"
        cases.append(Case(name, model, feeds, file=path, part="fixtures"))
    return cases
