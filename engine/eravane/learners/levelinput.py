"""Rows from anywhere as columns of levels: pandas, polars, Arrow, NumPy, windows of a store and parquet files.

A column of at most five distinct values is a column of levels, for any values. Columns of int8 or uint8 that
hold 0..4 are used where they lie if they are contiguous; all others are copied, one byte a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Float32s
from eravane.core.errors import DataError
from eravane.learners.frames import Column, Frame
from eravane_kernels.cpu.encode import MOST, OTHER, collect, encode, held
from eravane_kernels.cpu.levelcolumns import LevelColumns

WHOLE = np.arange(MOST, dtype=np.float32)
MISSING_BIT, AS_THEY_LIE = 1, 0b111110  # bits of `held`: of -1, and of 0..4
PAST = np.float32(1e-5)  # XGBoost's last cut of a feature is twice its greatest value and this (common/quantile.cc)


class NotLevelsError(DataError):
    """A column has more distinct values than the level grower takes."""


@dataclass(frozen=True, eq=False)
class Coding:
    """Values that the levels of each column stand for.

    Attributes:
        value_CL: float32 [C, 5], ascending, infinite beyond the last level.
        cut_CB: float32 [C, 6], the split "level below b" in the column's own values: what XGBoost writes.
        missing: the value beside NaN that is missing; NaN for none.
    """

    value_CL: Float32s
    cut_CB: Float32s
    missing: float


@dataclass(frozen=True, eq=False)
class LevelTable:
    """Columns of levels with their meaning.

    Attributes:
        columns: where the levels lie.
        coding: what they stand for.
        names: of the columns; empty where they have none.
        types: XGBoost's names of their types.
    """

    columns: LevelColumns
    coding: Coding
    names: tuple[str, ...]
    types: tuple[str, ...]


def learn_levels(frame: Frame, missing: float) -> LevelTable:
    """The columns of training rows as levels.

    Raises:
        NotLevelsError: a column has more than five distinct values; it and the row of the sixth are named.
        DataError: a value is infinite.
    """
    store, held_C = _Store(frame), np.zeros(frame.width, dtype=np.int64)
    value_CL = np.full((frame.width, MOST), np.inf, dtype=np.float32)
    for place, column in enumerate(frame.columns()):
        if store.take(place, column):
            held_C[place] = held(store.address_SC[:, place : place + 1], frame.row_S)[0]
            if held_C[place] & ~AS_THEY_LIE & (~MISSING_BIT if missing == -1 else -1) == 0:
                value_CL[place] = WHOLE
                continue
        values = _values(column, missing)
        value_CL[place, : len(values)] = values
        if len(values) == 0:
            value_CL[place, 0] = 0.0
        store.write(place, column, missing, value_CL[place])
        held_C[place] = held(store.address_SC[:, place : place + 1], frame.row_S)[0]
    coding = Coding(value_CL, _cuts(value_CL, held_C), missing)
    columns = LevelColumns(store.address_SC, frame.row_S, store.owners, bool((held_C & MISSING_BIT).any()))
    return LevelTable(columns, coding, frame.names, frame.types)


def as_levels(frame: Frame, coding: Coding) -> LevelColumns:
    """Other rows as levels of the same coding: a split sends every row where its own value would send it."""
    store, missing = _Store(frame), False
    whole_C = (coding.value_CL == WHOLE).all(axis=1)
    allowed = AS_THEY_LIE | (MISSING_BIT if coding.missing == -1 else 0)
    for place, column in enumerate(frame.columns()):
        bits = OTHER
        if whole_C[place] and store.take(place, column):
            bits = int(held(store.address_SC[:, place : place + 1], frame.row_S)[0])
        if bits & ~allowed:
            store.write(place, column, coding.missing, coding.value_CL[place])
            bits = int(held(store.address_SC[:, place : place + 1], frame.row_S)[0])
        missing |= bool(bits & MISSING_BIT)
    return LevelColumns(store.address_SC, frame.row_S, store.owners, missing)


class _Store:
    """Memory of the columns: the frame's own, or bytes of ours."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self.address_SC = np.zeros((len(frame.row_S), frame.width), dtype=np.int64)
        self.owners: list[Any] = [frame.owner]
        self._edge_S = np.concatenate([[0], np.cumsum(frame.row_S)])

    def take(self, place: int, column: Column) -> bool:
        """Whether the column can be used where it lies; its levels are not looked at."""
        for segment, part in enumerate(column.parts):
            apart = len(part.values) > 1 and part.values.strides[0] != 1
            if part.values.dtype.kind not in "iub" or part.values.dtype.itemsize != 1 or apart or part.null is not None:
                return False
            self.address_SC[segment, place] = part.values.ctypes.data
        self.owners.append(column)
        return True

    def write(self, place: int, column: Column, missing: float, value_L: Float32s) -> None:
        """Writes the levels of a column into memory of our own."""
        code_N = np.empty(int(self._edge_S[-1]), dtype=np.int8)
        for segment, part in enumerate(column.parts):
            begin, end = self._edge_S[segment], self._edge_S[segment + 1]
            encode(part.floats(), missing, value_L, code_N[begin:end])
            self.address_SC[segment, place] = code_N.ctypes.data + begin
        self.owners.append(code_N)


def _values(column: Column, missing: float) -> Sequence[np.float32]:
    """Distinct values of a column, ascending."""
    value_V, many, first = np.zeros(MOST, dtype=np.float32), 0, 0
    for part in column.parts:
        x_N = part.floats()
        many, row = collect(x_N, missing, value_V, many)
        if row >= 0:
            _refuse(column, x_N[row], first + row, np.sort(value_V[:many]))
        first += len(x_N)
    return [np.float32(value) for value in np.sort(value_V[:many])]


def _refuse(column: Column, value: np.float32, row: int, known_V: Float32s) -> None:
    if not np.isfinite(value):
        raise infinite_value(column, row)
    listed = ", ".join(f"{entry:g}" for entry in known_V)
    raise NotLevelsError(
        f"column {column.label} has more than {MOST} distinct values: {listed}, and {value:g} at row {row}"
    )


def infinite_value(column: Column, row: int) -> DataError:
    """The error for a value that is infinite, also after rounding to float32."""
    return DataError(
        f"Input X contains infinity or a value too large for dtype('float32'): column {column.label}, row {row}; "
        "use NaN where a value is missing"
    )


def _cuts(value_CL: Float32s, held_C: NDArray[np.int64]) -> Float32s:
    """Least value held whose level is at least b, for each column and b in 0..5; beyond it XGBoost's last cut."""
    top_C = np.zeros(len(value_CL), dtype=np.float32)
    for level in range(MOST):
        has_C = (held_C >> (level + 1)) & 1 == 1
        top_C[has_C] = value_CL[has_C, level]
    cut_CB = np.empty((len(value_CL), MOST + 1), dtype=np.float32)
    cut_CB[:, MOST] = top_C + (np.abs(top_C) + PAST)
    for level in range(MOST - 1, -1, -1):
        has_C = (held_C >> (level + 1)) & 1 == 1
        cut_CB[:, level] = np.where(has_C, value_CL[:, level], cut_CB[:, level + 1])
    return cut_CB
