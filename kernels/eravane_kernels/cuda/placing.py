"""Decoded columns written into a matrix in another order of rows, by cu/place.cu."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eravane_kernels.cuda.inputs import Array, stride
from eravane_kernels.cuda.launch import THREADS, launch
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.spec.placing import STORED, check_placing

COLUMNS_AT_ONCE = 16
"""Columns for which a thread reads a row's place once, as in cu/place.cu."""
KERNELS = {"int8": "place_levels", "float32": "place_floats", "float64": "place_doubles"}


def place_columns(
    columns: Sequence[Array], valid: Sequence[Array | None], row_N: npt.NDArray[np.int32], rows: int, into: Array = None
) -> tuple[Array, Array]:
    """Write columns into a matrix, each row where it belongs.

    Arguments as `spec.place_columns`; row_N lies on the host, and a matrix that is given on the device. Returns the
    matrix and uint32 [C] on the device. Raises: ValueError.
    """
    check_placing(columns, valid, row_N, rows, into)
    runtime, kind = active(), columns[0].dtype.name
    xp = runtime.xp
    out_CR = xp.empty((len(columns), rows), dtype=np.dtype(STORED[kind])) if into is None else into
    fault_C = xp.zeros(len(columns), dtype=np.uint32)
    there = [upload(column) for column in columns]
    bits = [None if mask is None else upload(mask) for mask in valid]
    address_2C = np.array(
        [
            [runtime.address(column) for column in there],
            [0 if mask is None else runtime.address(mask) for mask in bits],
        ],
        dtype=np.uint64,
    )
    values_C, valid_C = upload(address_2C)
    arguments = (values_C, valid_C, np.int64(len(columns)), upload(row_N), np.int64(len(row_N)), out_CR, stride(out_CR))
    blocks, turns = -(-len(row_N) // THREADS), -(-len(columns) // COLUMNS_AT_ONCE)
    launch("place", KERNELS[kind], blocks, *arguments, fault_C, times=turns)
    return out_CR, fault_C
