"""What models give in ONNX Runtime, and how far two of them may be from each other."""

from __future__ import annotations

import os

import numpy as np

# ONNX Runtime reports its use over the network unless it is told not to, before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

# Of the largest value: what another order of the same sums costs in f32, and in f16.
EXACT, EXACT_HALF = 1e-5, 2.0**-9


def session(model: bytes | str, optimized: bool) -> onnxruntime.InferenceSession:
    """A model (bytes, or a path) in ONNX Runtime on one thread, with all of its own rewrites or none."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: onnxruntime.InferenceSession, feed: dict) -> dict:
    """Every output by its name."""
    names = [output.name for output in model.get_outputs()]
    return dict(zip(names, model.run(names, feed), strict=True))


def differs(want, got, half: bool = False) -> str | None:
    """How two values differ: floats by more than rounding, others at all; nothing where they don't."""
    if want is None or got is None or isinstance(want, dict):
        return None if type(want) is type(got) else "one of them is absent"
    if isinstance(want, list):
        if not isinstance(got, list) or len(want) != len(got):
            return "lists of different length"
        return next((why for pair in zip(want, got, strict=True) if (why := differs(*pair, half))), None)
    want, got = np.asarray(want), np.asarray(got)
    if want.shape != got.shape or want.dtype != got.dtype:
        return f"{want.dtype}{list(want.shape)} became {got.dtype}{list(got.shape)}"
    if want.size == 0:
        return None
    if want.dtype.kind not in "fc" and "float" not in str(want.dtype):
        return None if np.array_equal(want, got) else "whole numbers differ"
    a, b = (np.asarray(v, np.complex128 if v.dtype.kind == "c" else np.float64) for v in (want, got))
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return "not finite in different places"
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "differs where it is not finite"
    if not finite.any():
        return None
    worst, peak = np.abs(a[finite] - b[finite]).max(), np.abs(a[finite]).max()
    limit = EXACT_HALF if half or want.dtype.itemsize < 4 else EXACT
    # Below any normal number a runtime may flush to zero.
    return None if worst <= limit * max(peak, 1e-30) else f"off by {worst / max(peak, 1e-30):.1e} of the peak"
