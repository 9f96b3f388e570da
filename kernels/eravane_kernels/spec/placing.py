"""Columns as a file has them, written into a matrix in another order of rows, every value checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import LEVELS, Columns

Rows = npt.NDArray[np.int32]
Bits = npt.NDArray[np.uint8]
Faults = npt.NDArray[np.uint32]

BEYOND, REFUSED = 1, 2
"""Faults of a column: a level outside 0..4; a level that is missing, or an infinite number."""
STORED = {"int8": "int8", "float32": "float32", "float64": "float32"}
"""What columns of a dtype become."""


def place_columns(
    columns: Sequence[npt.NDArray[Any]], valid: Sequence[Bits | None], row_N: Rows, rows: int, into: Any = None
) -> tuple[Columns, Faults]:
    """Write columns into a matrix, each row where it belongs.

    Args:
        columns: C columns of N contiguous values, all int8, float32 or float64.
        valid: for each, a bit a row from the lowest on, 1 where there is a value; None where all rows have one.
        row_N: int32, the row of the matrix that a row becomes; -1 for none.
        rows: R, of the matrix.
        into: the matrix, changed in place (None: a new one, unwritten at first).

    Returns:
        The matrix [C, R], int8 for int8 and float32 for others, NaN where there is no value; and uint32 [C], the faults
        of each column as bits, of all its rows.

    Raises:
        ValueError: a wrong number, shape or dtype, or a row beyond the matrix.
    """
    check_placing(columns, valid, row_N, rows, into)
    kind = STORED[columns[0].dtype.name]
    out_CR = np.empty((len(columns), rows), dtype=kind) if into is None else into
    fault_C = np.zeros(len(columns), dtype=np.uint32)
    taken_N = row_N >= 0
    for number, (value_N, bits) in enumerate(zip(columns, valid, strict=True)):
        held_N = np.ones(len(row_N), dtype=np.bool_)
        if bits is not None:
            held_N = np.unpackbits(bits, count=len(row_N), bitorder="little").astype(np.bool_)
        if kind == "int8":
            beyond = bool((held_N & ((value_N < 0) | (value_N >= LEVELS))).any())
            fault_C[number] = BEYOND * beyond + REFUSED * (not held_N.all())
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                value_N = np.where(held_N, value_N, np.nan).astype(np.float32)
            fault_C[number] = REFUSED * bool(np.isinf(value_N).any())
        out_CR[number, row_N[taken_N]] = value_N[taken_N]
    return out_CR, fault_C


def check_placing(
    columns: Sequence[Any], valid: Sequence[Any], row_N: npt.NDArray[np.integer[Any]], rows: int, into: Any
) -> None:
    """Checks what `place_columns` takes, wherever the columns lie."""
    if len(columns) == 0 or len(valid) != len(columns):
        raise ValueError(f"valid: expected an entry for each of the columns, given {len(valid)} for {len(columns)}")
    kind = columns[0].dtype.name
    if kind not in STORED:
        raise ValueError(f"columns: expected int8, float32 or float64, given {kind}")
    if row_N.dtype != np.int32 or row_N.ndim != 1 or int(row_N.max(initial=-1)) >= rows:
        raise ValueError(f"row_N: expected int32 below {rows}, given {row_N.dtype} up to {row_N.max(initial=-1)}")
    for value_N in columns:
        contiguous = value_N.size < 2 or value_N.strides == (value_N.itemsize,)
        if value_N.dtype.name != kind or value_N.shape != row_N.shape or not contiguous:
            raise ValueError(
                f"columns: expected {len(row_N)} contiguous values of {kind} in each, given {value_N.dtype.name} of "
                f"shape {tuple(value_N.shape)}"
            )
    for bits in valid:
        if bits is not None and (bits.dtype != np.uint8 or bits.size * 8 < len(row_N)):
            raise ValueError(f"valid: expected {len(row_N)} bits as uint8, given {bits.size} of {bits.dtype}")
    if into is not None and (into.dtype.name != STORED[kind] or into.shape != (len(columns), rows)):
        raise ValueError(
            f"into: expected {STORED[kind]} of shape {(len(columns), rows)}, given {into.dtype.name} of "
            f"{tuple(into.shape)}"
        )
