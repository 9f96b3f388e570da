"""Checks that read every value, at the speed of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import LEVELS, Columns, Floats, Integers, Levels
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.layout import flat
from eravane_kernels.eras import spans
from eravane_kernels.spec import cross_section


def check_features(p_MN: Floats, f_FN: Columns) -> None:
    """See `spec.cross_section.check_features`."""
    cross_section.check_features(p_MN, f_FN, finite)


def check_predictions(p_MN: Floats, offsets_E1: Integers) -> None:
    """See `spec.cross_section.check_predictions`."""
    cross_section.check_predictions(p_MN, offsets_E1, finite)


def checked_rows(p_MN: Floats, offsets_E1: Integers) -> Iterator[slice]:
    """Rows of every era; the value checks of `check_predictions` run when their era is reached.

    Then they are read again from the cache. Raises: ValueError, for infinities and NaN in the loop.
    """
    checks.columns(p_MN, "p_MN", "float32", "float64")
    checks.offsets(offsets_E1, p_MN.shape[1])
    return _checked(p_MN, spans(offsets_E1))


def _checked(p_MN: Floats, rows_E: Sequence[slice]) -> Iterator[slice]:
    values = flat(p_MN)
    for rows in rows_E:
        if not _all_finite(*values, rows.start, rows.stop):
            checks.finite(p_MN, "p_MN")
        yield rows


def finite(x_CN: Floats, name: str) -> None:
    """See `checks.finite`."""
    if not _all_finite(*flat(x_CN), 0, x_CN.shape[1]):
        checks.finite(x_CN, name)


def levels(x_CN: Levels, name: str) -> None:
    """See `checks.levels`."""
    if not _all_levels(*flat(x_CN), x_CN.shape[1]):
        checks.levels(x_CN, name)


@kernel
def _all_levels(x_S: Levels, start_C: Integers, rows: int) -> bool:
    most = np.uint8(0)
    for column in range(start_C.shape[0]):
        value_N = x_S[start_C[column] : start_C[column] + rows]
        for row in range(rows):
            most = max(most, np.uint8(np.uint8(value_N[row]) + np.uint8(1)))  # 0 for a missing value
    return bool(most <= LEVELS)


@kernel
def _all_finite(x_S: Floats, start_C: Integers, first: int, last: int) -> bool:
    sound = True
    for column in range(start_C.shape[0]):
        value_N = x_S[start_C[column] + first : start_C[column] + last]
        for row in range(value_N.shape[0]):
            sound &= abs(value_N[row]) < np.inf
    return sound
