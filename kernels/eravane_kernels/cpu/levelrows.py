"""Rows of levels as float32, read from columns in place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Integers
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.pointers import levels_at

# A block's float32 rows stay in the first cache while its columns are read one after the other.
BLOCK_ROWS, BLOCK_COLUMNS = 256, 16


@kernel
def _fill(address_C: Integers, first: int, x_RC: npt.NDArray[np.float32], high: int, wide: int) -> None:
    rows, columns = x_RC.shape
    for top in range(0, rows, high):
        count = min(high, rows - top)
        for left in range(0, columns, wide):
            for column in range(left, min(left + wide, columns)):
                level_B = levels_at(address_C[column] + first + top, count)
                for row in range(count):
                    x_RC[top + row, column] = level_B[row]


def fill_rows(address_C: Integers, first: int, x_RC: npt.NDArray[np.float32]) -> None:
    """Write rows `first` to `first + R` of int8 columns into float32 [R, C].

    Args:
        address_C: int64, where each column begins; the caller keeps the memory alive and guarantees that it holds
            the rows.
        first: the first row to take.
        x_RC: float32, filled in place.
    """
    _fill(address_C, first, x_RC, BLOCK_ROWS, BLOCK_COLUMNS)


def empty_rows(rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Memory for `fill_rows`, uninitialised float32 [R, C].

    Rows lie an odd number of cache lines apart: at a power of two they would all fall into the same few places of the
    first cache, which takes twice the time.
    """
    line = 16
    lines = -(-columns // line) | 1
    return np.empty((rows, lines * line), dtype=np.float32)[:, :columns]
