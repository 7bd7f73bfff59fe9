"""How well spoken audio can be understood, beside its source."""

from __future__ import annotations

import warnings

import numpy as np
from pystoi import stoi as measure
from soprano_export.families.soprano import upstream


def stoi(source: np.ndarray, spoken: np.ndarray) -> float:
    """Short-time objective intelligibility at 32 kHz; NaN where a sentence is too short for it."""
    length = min(len(source), len(spoken))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(measure(source[:length], spoken[:length], upstream.SAMPLE_RATE))
        except RuntimeWarning:
            return float("nan")
