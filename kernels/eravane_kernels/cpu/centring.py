"""Centring of columns."""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Columns, Double, Integers
from eravane_kernels.cpu.jit import summing


@summing
def centre(x_S: Columns, start_C: Integers, hole: float, centred_CN: Double) -> Double:
    """Fills in columns minus their mean, with 0 where a value is NaN or equals `hole`.

    x_S, start_C: as of `layout.flat`. Returns the columns' lengths, float64 [C], NaN for a constant or empty column.
    """
    length_C = np.empty(centred_CN.shape[0])
    for column in range(centred_CN.shape[0]):
        centred_N = centred_CN[column]
        value_N = x_S[start_C[column] : start_C[column] + centred_N.shape[0]]
        first = _first_held(value_N, hole)
        total = count = square = 0.0
        for row in range(value_N.shape[0]):
            value = np.float64(value_N[row])
            held = (value == value) & (value != hole)
            total += value if held else 0.0
            count += 1.0 if held else 0.0
        mean = total / max(count, 1.0)
        varies = False
        for row in range(value_N.shape[0]):
            value = np.float64(value_N[row])
            held = (value == value) & (value != hole)
            gap = value - mean if held else 0.0
            centred_N[row] = gap
            square += gap * gap
            varies |= held & (value != first)
        length_C[column] = np.sqrt(square) if varies else np.nan
    return length_C


@summing
def _first_held(value_N: Columns, hole: float) -> float:
    for row in range(value_N.shape[0]):
        value = np.float64(value_N[row])
        if value == value and value != hole:
            return float(value)
    return hole
