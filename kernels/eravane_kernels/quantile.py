"""Linear interpolation between order statistics, operation for operation as in `numpy.quantile`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Double, Integers


def positions(count: Integers, quantile: float) -> tuple[Integers, Integers, Double]:
    """Ranks of the neighbours below and above a quantile of `count` values, and the weight of the upper one."""
    last = np.maximum(count - 1, 0)
    virtual = last * quantile
    below = np.floor(virtual).astype(np.int64)
    return below, np.minimum(below + 1, last), virtual - below


def between(low: npt.NDArray[Any], high: npt.NDArray[Any], weight: Double) -> Double:
    """Value at `weight` of the way from `low` to `high`."""
    gap = high - low
    return np.asarray(np.where(weight >= 0.5, high - gap * (1.0 - weight), low + gap * weight))
