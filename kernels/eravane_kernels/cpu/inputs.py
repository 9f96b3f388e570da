"""Checks that read every value, at the speed of memory."""

from __future__ import annotations

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Columns, Floats, Integers
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.layout import flat
from eravane_kernels.spec import cross_section


def check_predictions(p_MN: Floats, offsets_E1: Integers) -> None:
    """See `spec.cross_section.check_predictions`."""
    cross_section.check_predictions(p_MN, offsets_E1, finite)


def check_features(p_MN: Floats, f_FN: Columns) -> None:
    """See `spec.cross_section.check_features`."""
    cross_section.check_features(p_MN, f_FN, finite)


def finite(x_CN: Floats, name: str) -> None:
    """See `checks.finite`."""
    if not _all_finite(*flat(x_CN), x_CN.shape[1]):
        checks.finite(x_CN, name)


@kernel
def _all_finite(x_S: Floats, start_C: Integers, rows: int) -> bool:
    sound = True
    for column in range(start_C.shape[0]):
        value_N = x_S[start_C[column] : start_C[column] + rows]
        for row in range(rows):
            sound &= abs(value_N[row]) < np.inf
    return sound
