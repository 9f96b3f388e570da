"""A range of eras and a list of columns of a store, read without copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.backend.protocol import Backend
from eravane.calendar.eras import EraFrame, EraIndex
from eravane.core.arrays import Values
from eravane.core.errors import DataError
from eravane.data.store.segments import Segment
from eravane_kernels.cpu.gather import gather
from eravane_kernels.cpu.levelcolumns import LevelColumns

# Columns that are gathered on the host at a time, on their way to a device.
SENT_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows of one segment that belong to a window: `rows` inside the segment, `start` inside the window."""

    segment: Segment
    rows: slice
    start: int

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True, eq=False)
class Window:
    """Eras first..last of some columns.

    Attributes:
        index: the eras; rows are counted from 0.
        columns: the C names.
        positions: intp [C], where the columns lie in the store.
        pieces: the segment slices that hold the rows, in era order.
    """

    index: EraIndex
    columns: tuple[str, ...]
    positions: NDArray[np.intp]
    pieces: tuple[Piece, ...]
    dtype: str

    @property
    def parts(self) -> tuple[Values, ...]:
        """One matrix [C, n_i] per segment, contiguous columns.

        They are views where the columns are evenly spaced in the store (all of them, one of them, a contiguous
        group), else copies made at this moment; `arrow` never copies.
        """
        where = _as_slice(self.positions)
        return tuple(piece.segment.values[:, piece.rows][where] for piece in self.pieces)

    def frame(self) -> EraFrame:
        """The window as one frame without ids; a view where one segment holds it and `parts` gives views."""
        if len(self.pieces) == 1:
            return EraFrame(self.parts[0], self.columns, self.index)
        values_CN = np.empty((len(self.columns), self.index.rows), dtype=self.dtype)
        for piece in self.pieces:
            _copy_rows(piece, self.positions, values_CN[:, piece.start : piece.start + piece.count])
        return EraFrame(values_CN, self.columns, self.index)

    def arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The window as an Arrow table, one chunk per segment, without a copy; every field is non-nullable.

        Raises:
            DataError: a name is not among the window's columns.
        """
        names = self.columns if columns is None else tuple(columns)
        positions = self.positions[positions_of(self.columns, names)]
        schema = pa.schema([pa.field(name, pa.from_numpy_dtype(self.dtype), nullable=False) for name in names])
        batches = [
            pa.RecordBatch.from_arrays(piece.segment.arrow(positions, piece.rows), schema=schema)
            for piece in self.pieces
        ]
        return pa.Table.from_batches(batches, schema=schema)

    def levels(self) -> LevelColumns:
        """The window where it lies; of int8 alone, which are levels 0..4 in a store."""
        address_SC = np.empty((len(self.pieces), len(self.columns)), dtype=np.int64)
        mapped = tuple(piece.segment.values for piece in self.pieces)
        for address_C, piece, values_CN in zip(address_SC, self.pieces, mapped, strict=True):
            address_C[:] = values_CN.ctypes.data + self.positions * values_CN.strides[0] + piece.rows.start
        row_S = np.array([piece.count for piece in self.pieces], dtype=np.int64)
        return LevelColumns(address_SC, row_S, mapped, missing=False)

    def every(self, step: int) -> Values:
        """Every n-th era in one block [C, N], copied once."""
        starts_R, ends_R = self.index.offsets[:-1:step], self.index.offsets[1::step]
        places_R = np.cumsum([0, *(ends_R - starts_R)])
        values_CN = np.empty((len(self.columns), places_R[-1]), dtype=self.dtype)
        for piece in self.pieces:
            inside_R = (starts_R >= piece.start) & (starts_R < piece.start + piece.count)
            shift = piece.rows.start - piece.start
            runs_R3 = np.stack([starts_R + shift, ends_R + shift, places_R[:-1]], axis=1)[inside_R]
            gather(piece.segment.values, self.positions, runs_R3, values_CN)
        return values_CN

    def era(self, era: int) -> EraFrame:
        """One era with its ids: a view where the columns are evenly spaced in the store, else a copy of the era.

        Raises:
            KeyError: the era is not in the window.
        """
        rows = self.index.rows_of(era)
        piece = next(piece for piece in self.pieces if rows.start < piece.start + piece.count)
        shift = piece.rows.start - piece.start
        inside = slice(rows.start + shift, rows.stop + shift)
        values_CN = piece.segment.values[:, inside][_as_slice(self.positions)]
        ids = piece.segment.ids[inside.start : inside.stop]
        return EraFrame(values_CN, self.columns, self.index.select(era, era), ids)

    def send(self, backend: Backend, matrix: Values) -> None:
        """Write the window into a matrix [C, N] on a device, in blocks of bounded size."""
        for piece in self.pieces:
            width = max(1, SENT_BYTES // max(1, piece.count * self._width))
            for first in range(0, len(self.columns), width):
                part = piece.segment.values[:, piece.rows][_as_slice(self.positions[first : first + width])]
                backend.fill(matrix[first : first + width], [(piece.start, part)])

    @property
    def _width(self) -> int:
        return np.dtype(self.dtype).itemsize

    def __iter__(self) -> Iterator[EraFrame]:
        """The eras one by one, oldest first; the next segment is read ahead while this one is worked on."""
        for number, piece in enumerate(self.pieces):
            if number + 1 < len(self.pieces):
                self.pieces[number + 1].segment.features.expect()
            first, last = piece.start, piece.start + piece.count
            for position in range(*np.searchsorted(self.index.offsets, [first, last])):
                yield self.era(int(self.index.labels[position]))


class RollingWindow:
    """The newest eras of a store in a moving window; older pages are released to the operating system.

    Memory held is that of the eras of the window and of the rest of the oldest segment that it touches.

    Args:
        store: opens windows of the columns that are wanted.
        segments: all segments of the store, in era order.
        width: eras that the window covers.
    """

    def __init__(self, store: Callable[[int, int], Window], segments: Sequence[Segment], width: int) -> None:
        self._store, self._segments, self._width = store, segments, width
        self._behind = 0

    def advance(self, era: int) -> Window:
        """The window of the `width` eras up to `era`; eras before it are released, the next segment is read ahead.

        Raises:
            ValueError: the window would move backwards.
        """
        oldest = era - self._width + 1
        if self._behind and self._segments[self._behind - 1].index.last >= oldest:
            raise ValueError(f"a rolling window moves forwards; era {era} needs eras that were released")
        while self._behind < len(self._segments) and self._segments[self._behind].index.last < oldest:
            self._segments[self._behind].features.release()
            self._behind += 1
        following = next((segment for segment in self._segments if segment.index.first > era), None)
        if following is not None:
            following.features.expect()
        return self._store(oldest, era)


def positions_of(columns: Sequence[str], names: Sequence[str]) -> NDArray[np.intp]:
    """Positions of names among columns, intp [len(names)], read-only.

    Raises:
        DataError: a name is not there.
    """
    return _positions(tuple(columns), tuple(names))


@lru_cache(256)
def _positions(columns: tuple[str, ...], names: tuple[str, ...]) -> NDArray[np.intp]:
    """See `positions_of`; every era that is read asks for those of a few cells again."""
    where = _places(columns)
    missing = [name for name in names if name not in where]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} columns are not in the store, the first is {missing[0]!r}; "
            f"it has {len(columns)} columns from {columns[0]!r} to {columns[-1]!r}"
        )
    found = np.array([where[name] for name in names], dtype=np.intp)
    found.flags.writeable = False
    return found


@lru_cache(8)
def _places(columns: tuple[str, ...]) -> dict[str, int]:
    """Position of each column; every era that is read asks for those of its store."""
    return {name: position for position, name in enumerate(columns)}


def _as_slice(positions: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Evenly spaced ascending positions as a slice, so that indexing gives a view."""
    if positions.size == 0:
        return slice(0, 0)
    steps = np.diff(positions)
    step = int(steps[0]) if steps.size else 1
    if step < 1 or np.any(steps != step):
        return positions
    return slice(int(positions[0]), int(positions[-1]) + 1, step)


def _copy_rows(piece: Piece, positions: NDArray[np.intp], out_CN: Values) -> None:
    for row, position in enumerate(positions):
        out_CN[row] = piece.segment.values[position, piece.rows]
