"""Columns of levels by address, in segments of rows, without a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import Integers, Levels
from eravane_kernels.cpu.gather import place
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.pointers import levels_at


@kernel
def _extremes(address_SC: Integers, row_S: Integers, extreme_SC2: npt.NDArray[np.int8]) -> None:
    """Least and greatest value of every column in every segment."""
    for segment in range(address_SC.shape[0]):
        for column in range(address_SC.shape[1]):
            x_N = levels_at(address_SC[segment, column], row_S[segment])
            least, most = np.int8(0), np.int8(0)
            for row in range(x_N.shape[0]):
                least, most = min(least, x_N[row]), max(most, x_N[row])
            extreme_SC2[segment, column, 0], extreme_SC2[segment, column, 1] = least, most


@dataclass(frozen=True)
class LevelColumns:
    """Columns of levels 0..4 and -1 for missing as they lie in memory, in one or more segments of rows.

    Attributes:
        address_SC: int64, where each column begins in each segment.
        row_S: int64, rows of the segments.
        owner: the object that keeps the memory alive.
        missing: whether -1 occurs.
    """

    address_SC: Integers
    row_S: Integers
    owner: Any
    missing: bool

    @classmethod
    def of(cls, parts: Sequence[Levels]) -> LevelColumns:
        """Segments int8 [C, n] of contiguous columns, in the order of their rows.

        Raises:
            ValueError: a segment has another shape or dtype, or a value is no level.
        """
        for part in parts:
            checks.columns(part, "x_CN", "int8")
        starts = [part.ctypes.data + np.arange(len(part), dtype=np.int64) * part.strides[0] for part in parts]
        return cls.at(np.stack(starts), np.array([part.shape[1] for part in parts], dtype=np.int64), tuple(parts))

    @classmethod
    def unchecked(cls, x_CN: Levels) -> LevelColumns:
        """Contiguous columns of any stride in one segment, whose values are not looked at; -1 may occur."""
        address_1C = x_CN.ctypes.data + np.arange(len(x_CN), dtype=np.int64)[None] * x_CN.strides[0]
        return cls(address_1C, np.array([x_CN.shape[1]], dtype=np.int64), x_CN, missing=True)

    @classmethod
    def at(cls, address_SC: Integers, row_S: Integers, owner: object) -> LevelColumns:
        """Columns by address.

        Raises:
            ValueError: a value is no level.
        """
        extreme_SC2 = np.empty((*address_SC.shape, 2), dtype=np.int8)
        _extremes(address_SC, row_S, extreme_SC2)
        bad_SC = (extreme_SC2[..., 0] < -1) | (extreme_SC2[..., 1] > 4)
        if bad_SC.any():
            segment, column = (int(place) for place in np.argwhere(bad_SC)[0])
            values_N = levels_at(int(address_SC[segment, column]), int(row_S[segment]))
            error = checks.bad_level(values_N, "x_CN", column)
            raise ValueError(f"{error}, segment {segment}; XGBoost grows trees on features with more levels")
        return cls(address_SC, row_S, owner, bool((extreme_SC2[..., 0] < 0).any()))

    def parts(self, rows: int) -> Iterator[LevelColumns]:
        """The same columns in parts of at most so many rows, each in one segment."""
        for address_C, count in zip(self.address_SC, self.row_S.tolist(), strict=True):
            for first in range(0, count, rows):
                row_1 = np.array([min(rows, count - first)], dtype=np.int64)
                yield LevelColumns(address_C[None] + first, row_1, self.owner, self.missing)

    def matrix(self) -> Levels:
        """A copy of all rows, int8 [C, N]."""
        x_CN: Levels = np.empty((self.width, self.rows), dtype=np.int8)
        ends = np.cumsum(self.row_S).tolist()
        for address_C, count, end in zip(self.address_SC, self.row_S.tolist(), ends, strict=True):
            place(address_C, x_CN[:, end - count : end], 0)
        return x_CN

    @property
    def rows(self) -> int:
        """Rows of all segments."""
        return int(self.row_S.sum())

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.address_SC.shape[1])
