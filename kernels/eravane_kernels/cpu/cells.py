"""Transforms of single cells: tables of levels, clipping, filling, indicators, rows outside bounds."""

from __future__ import annotations

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import MISSING, Columns, Double, Integers, Levels, Single
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.layout import flat
from eravane_kernels.spec.missing import check_fill
from eravane_kernels.spec.outliers import check_clip, check_table


def apply_table(x_CN: Levels, offsets_E1: Integers, table_ECL: Levels) -> Levels:
    """See `spec.apply_table`."""
    check_table(x_CN, offsets_E1, table_ECL)
    result_CN = np.empty(x_CN.shape, dtype=np.int8)
    bad = _apply(*flat(x_CN), offsets_E1, table_ECL, result_CN)
    if bad >= 0:
        raise checks.bad_level(x_CN[bad], "x_CN", bad)
    return result_CN


@kernel
def _apply(x_S: Levels, start_C: Integers, offsets_E1: Integers, table_ECL: Levels, result_CN: Levels) -> int:
    """Fills result_CN; returns the first column with a value that is no level, else -1."""
    for column in range(start_C.shape[0]):
        for era in range(offsets_E1.shape[0] - 1):
            first, last = offsets_E1[era], offsets_E1[era + 1]
            values = x_S[start_C[column] + first : start_C[column] + last]
            if not _select(values, table_ECL[era, column], result_CN[column, first:last]):
                return column
    return -1


@kernel
def _select(values: Levels, table_L: Levels, result: Levels) -> bool:
    """A chain of selects, which becomes vector code where a look-up would not; returns whether all are levels."""
    zero, one, two, three, four = table_L[0], table_L[1], table_L[2], table_L[3], table_L[4]
    missing = table_L[5]
    least, most = np.int8(0), np.int8(0)
    for row in range(values.shape[0]):
        value, new = values[row], missing
        if value == 0:
            new = zero
        if value == 1:
            new = one
        if value == 2:
            new = two
        if value == 3:
            new = three
        if value == 4:
            new = four
        result[row] = new
        least, most = min(least, value), max(most, value)
    return bool(least >= -1 and most <= 4)


def clip(x_CN: Single, offsets_E1: Integers, low_EC: Double, high_EC: Double) -> Single:
    """See `spec.clip`."""
    check_clip(x_CN, offsets_E1, low_EC, high_EC)
    result_CN = np.empty(x_CN.shape, dtype=np.float32)
    if not _clip(*flat(x_CN), offsets_E1, low_EC.astype(np.float32), high_EC.astype(np.float32), result_CN):
        checks.no_infinity(x_CN, "x_CN")
    return result_CN


@kernel
def _clip(
    x_S: Single, start_C: Integers, offsets_E1: Integers, low_EC: Single, high_EC: Single, result_CN: Single
) -> bool:
    """Fills result_CN; returns whether all values are finite or NaN."""
    infinite = False
    for column in range(start_C.shape[0]):
        for era in range(offsets_E1.shape[0] - 1):
            first, last = offsets_E1[era], offsets_E1[era + 1]
            values, result = x_S[start_C[column] + first : start_C[column] + last], result_CN[column, first:last]
            low, high = low_EC[era, column], high_EC[era, column]
            for row in range(values.shape[0]):
                value = values[row]
                raised = low if value < low else value
                result[row] = high if raised > high else raised
                infinite |= np.isinf(value)
    return not infinite


def fill(x_CN: Single, offsets_E1: Integers, value_EC: Double) -> Single:
    """See `spec.fill`."""
    check_fill(x_CN, offsets_E1, value_EC)
    result_CN = np.empty(x_CN.shape, dtype=np.float32)
    _fill(*flat(x_CN), offsets_E1, value_EC.astype(np.float32), result_CN)
    return result_CN


@kernel
def _fill(x_S: Single, start_C: Integers, offsets_E1: Integers, value_EC: Single, result_CN: Single) -> None:
    for column in range(start_C.shape[0]):
        for era in range(offsets_E1.shape[0] - 1):
            first, last = offsets_E1[era], offsets_E1[era + 1]
            values, result = x_S[start_C[column] + first : start_C[column] + last], result_CN[column, first:last]
            new = value_EC[era, column]
            for row in range(values.shape[0]):
                value = values[row]
                result[row] = value if value == value else new


def missing_indicators(x_CN: Columns) -> Levels:
    """See `spec.missing_indicators`."""
    checks.columns(x_CN, "x_CN", "int8", "float32")
    missing = x_CN == MISSING if x_CN.dtype == np.int8 else np.isnan(x_CN)
    return missing.view(np.int8)
