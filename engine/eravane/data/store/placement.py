"""Destinations of a file's rows: whole eras into segments, rows of an era in file order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eravane.calendar.eras import EraIndex
from eravane.data.store.source import RowGroup

SEGMENT_BYTES = 64 << 20
SEGMENT_ROWS = 1 << 18
Rows = slice | NDArray[np.intp]


@dataclass(frozen=True)
class SegmentPlan:
    """A segment to be written: whole eras of one source.

    Attributes:
        name: its number, five digits.
        source: file name of the source.
        eras, rows, data_types: as in `SegmentRecord`.
    """

    name: str
    source: str
    eras: tuple[int, ...]
    rows: tuple[int, ...]
    data_types: tuple[str, ...]

    @property
    def index(self) -> EraIndex:
        """The segment's eras."""
        return EraIndex.from_counts(self.eras, self.rows)


class Piece(NamedTuple):
    """Rows of a row group that go to one segment: `rows` inside the group, `places` inside the segment, how many."""

    segment: int
    rows: Rows
    places: Rows
    number: int


@dataclass(frozen=True, eq=False)
class Placement:
    """Destination of every row of a file.

    Attributes:
        segment_N: int32, name of the segment as a number, -1 where the row is not taken.
        row_N: int32, row inside the segment.
    """

    segment_N: NDArray[np.int32]
    row_N: NDArray[np.int32]

    def pieces(self, group: RowGroup) -> Iterator[Piece]:
        """The segments that a row group feeds, rows in the order of the segment."""
        span = slice(group.first, group.first + group.rows)
        segment_N, row_N = self.segment_N[span], self.row_N[span]
        for segment in np.unique(segment_N[segment_N >= 0]):
            inside = np.flatnonzero(segment_N == segment)
            inside = inside[np.argsort(row_N[inside], kind="stable")]
            yield Piece(int(segment), _compact(inside), _compact(row_N[inside].astype(np.intp)), inside.size)

    def file_row(self, segment: int, row: int) -> int:
        """Row of the file for a row of a segment."""
        return int(np.flatnonzero((self.segment_N == segment) & (self.row_N == row))[0])


def place(era_N: NDArray[np.int32], where: Mapping[int, tuple[int, int]]) -> Placement:
    """Place the rows of a file.

    Args:
        era_N: era of every row, in any order.
        where: era -> (segment, first row of the era in it); eras that are not listed are not taken.
    """
    order = np.argsort(era_N, kind="stable")
    eras, starts, inverse = np.unique(era_N[order], return_index=True, return_inverse=True)
    rank_N = np.empty(era_N.size, dtype=np.int32)
    rank_N[order] = np.arange(era_N.size) - starts[inverse]
    nowhere = (-1, 0)
    targets = np.array([where.get(int(era), nowhere) for era in eras], dtype=np.int32).reshape(-1, 2)
    position_N = np.searchsorted(eras, era_N)
    return Placement(targets[position_N, 0], targets[position_N, 1] + rank_N)


def plan_segments(
    source: str, eras: Sequence[int], rows: Sequence[int], data_types: Sequence[str], *, first: int, row_bytes: int
) -> list[SegmentPlan]:
    """Cut new eras into segments of bounded size, at least one era each.

    Args:
        source: file name of the source.
        eras, rows, data_types: per era, ascending.
        first: number of the first new segment.
        row_bytes: bytes of one row of features.
    """
    most = max(1, min(SEGMENT_ROWS, SEGMENT_BYTES // row_bytes))
    cuts, filled = [0], 0
    for position, count in enumerate(rows):
        if filled and filled + count > most:
            cuts.append(position)
            filled = 0
        filled += count
    return [
        SegmentPlan(f"{first + number:05d}", source, tuple(eras[a:b]), tuple(rows[a:b]), tuple(data_types[a:b]))
        for number, (a, b) in enumerate(zip(cuts, [*cuts[1:], len(eras)], strict=True))
        if b > a
    ]


def _compact(rows: NDArray[np.intp]) -> Rows:
    """Consecutive rows as a slice."""
    if rows[-1] - rows[0] == rows.size - 1 and np.all(np.diff(rows) == 1):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
