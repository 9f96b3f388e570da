"""Copies of runs of rows out of columns that lie far apart, and into such columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Columns, Integers, Levels
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.layout import flat
from eravane_kernels.cpu.pointers import levels_at

Bytes = npt.NDArray[np.uint8]


def gather(x_CN: Columns, position_K: Integers, run_R3: Integers, out_KN: Columns) -> None:
    """Copy runs of rows of some columns into a contiguous matrix of the same dtype.

    x_CN: columns contiguous. run_R3: of each run its first row, the row after its last, and its first row in `out_KN`.
    """
    values, start_C = flat(x_CN)
    size = x_CN.itemsize
    _gather(values.view(np.uint8), start_C[position_K] * size, run_R3 * size, out_KN.view(np.uint8))


@kernel
def _gather(x_S: Bytes, start_K: Integers, run_R3: Integers, out_KB: Bytes) -> None:
    for column in range(start_K.shape[0]):
        for run in range(run_R3.shape[0]):
            first, last, place = run_R3[run]
            value_B = x_S[start_K[column] + first : start_K[column] + last]
            out_B = out_KB[column, place : place + last - first]
            for byte in range(value_B.shape[0]):
                out_B[byte] = value_B[byte]


def place(address_C: Integers, out_CN: Levels, most: int) -> bool:
    """Copy columns of bytes that begin at addresses into the contiguous columns of a matrix.

    Returns whether all values lie within 0..most.
    """
    to_C = out_CN.ctypes.data + np.arange(len(out_CN), dtype=np.int64) * out_CN.strides[0]
    return bool(_place(address_C, to_C, out_CN.shape[1]) <= most)


@kernel
def _place(from_C: Integers, to_C: Integers, rows: int) -> int:
    greatest = np.uint8(0)
    for column in range(from_C.shape[0]):
        value_N, out_N = levels_at(from_C[column], rows), levels_at(to_C[column], rows)
        for row in range(rows):
            out_N[row] = value_N[row]
            greatest = max(greatest, np.uint8(value_N[row]))
    return int(greatest)
