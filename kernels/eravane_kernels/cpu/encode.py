"""Columns with at most five distinct values as levels 0..4, and which levels a column holds."""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Integers, Levels, Single
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.pointers import levels_at

MOST = 5
"""Levels of a column."""
OTHER = 64
"""The bit of values outside -1..4 in what `held` returns; level l has bit l + 1."""


@kernel
def held(address_SC: Integers, row_S: Integers) -> Integers:
    """The levels that each column holds over all segments, as bits: int64 [C]; -1 is 1, 0 is 2, 4 is 32."""
    found_C = np.zeros(address_SC.shape[1], dtype=np.int64)
    for segment in range(address_SC.shape[0]):
        for column in range(address_SC.shape[1]):
            x_N = levels_at(address_SC[segment, column], row_S[segment])
            bits = np.uint8(0)
            for row in range(x_N.shape[0]):
                place = np.uint8(np.uint8(x_N[row]) + np.uint8(1))
                bits |= np.uint8(1) << place if place < np.uint8(6) else np.uint8(OTHER)
            found_C[column] |= np.int64(bits)
    return found_C


@kernel
def collect(x_N: Single, missing: float, value_V: Single, many: int) -> tuple[int, int]:
    """Adds the distinct values of a column to those seen before.

    Args:
        x_N: float32; NaN is missing.
        missing: another value that is missing (NaN for none).
        value_V: float32 [5], changed in place.
        many: how many values it holds so far.

    Returns:
        How many it holds now, and the first row whose value is infinite or would be the sixth (-1: none).
    """
    last = np.float32(np.nan)
    for row in range(x_N.shape[0]):
        value = x_N[row]
        if value == last or value != value or value == missing:  # noqa: SIM109
            continue
        known = False
        for place in range(many):
            known |= value_V[place] == value
        if not known:
            if many == MOST or not np.isfinite(value):
                return many, row
            value_V[many] = value
            many += 1
        last = value
    return many, -1


@kernel
def encode(x_N: Single, missing: float, value_L: Single, code_N: Levels) -> None:
    """Writes the level of every value: that of the greatest of `value_L` which is not above it, or the lowest level.

    Args:
        x_N: float32; NaN is missing.
        missing: another value that is missing (NaN for none).
        value_L: float32 [5], ascending, infinite beyond the last level.
        code_N: int8 [N], filled in place; -1 where the value is missing.
    """
    first, second, third, fourth = value_L[1], value_L[2], value_L[3], value_L[4]
    for row in range(x_N.shape[0]):
        value = x_N[row]
        code = np.int8(value >= first) + np.int8(value >= second)
        code += np.int8(value >= third) + np.int8(value >= fourth)
        code_N[row] = np.int8(-1) if value != value or value == missing else np.int8(code)
