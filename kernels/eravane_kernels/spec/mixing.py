"""Weighted sums of predictions within an era."""

from __future__ import annotations

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Double

DECIMALS = 12
"""Of mixes: rows that tie in exact arithmetic must tie for every order of summation."""


def mix(z_MN: Double, weight_KM: Double) -> Double:
    """Weighted sums of models' gaussianised predictions in one era, rounded to DECIMALS, for K sets of weights.

    z_MN: float64, finite where a model has weight; weight_KM: float64, a weight that is not above 0 leaves its model
    out, NaN in it included. Returns float64 [K, N]; `cuda` within a step of the rounding. Raises: ValueError.
    """
    checks.columns(z_MN, "z_MN", "float64")
    checks.shape(weight_KM, "weight_KM", (len(weight_KM), len(z_MN)), "float64")
    result_KN = np.empty((len(weight_KM), z_MN.shape[1]))
    for number, weight_M in enumerate(weight_KM):
        used_M = weight_M > 0
        result_KN[number] = np.round(weight_M[used_M] @ z_MN[used_M], DECIMALS)
    return result_KN
