"""Columns as one flat array, which Numba knows to be contiguous for any stride of the columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Columns, Integers


def flat(x_CN: Columns) -> tuple[npt.NDArray[Any], Integers]:
    """Read-only view over all columns and the bytes between them, and the start of each column in it.

    x_CN: contiguous columns with any stride between them, zero and negative too. Returns [S] of its dtype, int64 [C].
    """
    width, rows = x_CN.shape
    if width == 0 or rows == 0:
        return np.empty(0, dtype=x_CN.dtype), np.zeros(width, dtype=np.int64)
    step = x_CN.strides[0] // x_CN.itemsize
    lowest = x_CN[0 if step >= 0 else width - 1]
    length = abs(step) * (width - 1) + rows
    values = np.lib.stride_tricks.as_strided(lowest, (length,), (x_CN.itemsize,), writeable=False)
    start_C = np.arange(width, dtype=np.int64) * step
    return values, start_C - start_C.min()
