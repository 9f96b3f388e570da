"""Eras as slices: rows are sorted by era, so an era is a range of rows and an era range is one slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eravane.core.arrays import Integers, Values
from eravane.core.errors import DataError

LIVE_ERAS = ("X", "eraX")
# An era is a week: a longer number is no era but a date, an id or a count.
LONGEST_LABEL = 6


def era_label(era: int) -> str:
    """Write an era number as the dataset does: 12 -> "0012"."""
    return f"{era:04d}"


def era_number(label: str) -> int:
    """Read an era label as an integer, so that "1000" comes after "0999".

    Raises:
        DataError: the label is not a number (the live era "X" has none).
    """
    if not (label.isascii() and label.isdecimal() and len(label) <= LONGEST_LABEL):
        raise DataError(f"era {label!r} is not a number such as '0001'; only live.parquet may hold era 'X'")
    return int(label)


def era_numbers(eras: ArrayLike, rows: int, *, live: bool = False) -> NDArray[np.int64]:
    """One era number per row, int64 [N], from integers or from labels such as "0001".

    Args:
        eras: array-like of N entries: NumPy, pandas, polars, Arrow or a list.
        rows: N.
        live: take rows of the live era "X", too, as the era after all others.

    Raises:
        DataError: another number of entries, or an entry that is no era.
    """
    values = np.asarray(eras)
    if values.shape != (rows,):
        raise DataError(f"eras must have one entry per row: expected shape ({rows},), given {values.shape}")
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        if not np.array_equal(values, np.round(values)):
            raise DataError("eras must be whole numbers or labels such as '0001'; some are fractions or missing")
        return values.astype(np.int64)
    labels, inverse = np.unique(values.astype(str), return_inverse=True)
    known = [era_number(label) for label in labels.tolist() if not (live and label in LIVE_ERAS)]
    # Labels are sorted, and digits come before letters.
    number_L = np.array([*known, *[max(known, default=0) + 1] * (len(labels) - len(known))], dtype=np.int64)
    return np.asarray(number_L[inverse])


@dataclass(frozen=True, eq=False)
class EraIndex:
    """Row range of every era.

    Attributes:
        labels: int64 [E], era numbers, strictly ascending, not necessarily consecutive.
        offsets: int64 [E+1], era i holds rows `offsets[i]:offsets[i+1]`; the first offset is 0.
    """

    labels: Integers
    offsets: Integers

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int64))
        object.__setattr__(self, "offsets", np.asarray(self.offsets, dtype=np.int64))
        if self.labels.ndim != 1 or self.offsets.shape != (self.labels.size + 1,):
            raise ValueError(
                f"expected labels [E] and offsets [E+1], given {self.labels.shape} and {self.offsets.shape}"
            )
        if np.any(np.diff(self.labels) <= 0):
            raise ValueError("era labels must ascend strictly")
        if self.offsets[0] != 0 or np.any(np.diff(self.offsets) < 0):
            raise ValueError("era offsets must start at 0 and never descend")

    @classmethod
    def from_counts(cls, labels: ArrayLike, rows: ArrayLike) -> EraIndex:
        """Build an index from era numbers [E] and row counts [E]."""
        counts = np.asarray(rows, dtype=np.int64)
        return cls(np.asarray(labels), np.concatenate(([0], np.cumsum(counts))))

    @classmethod
    def from_rows(cls, era_N: ArrayLike) -> EraIndex:
        """Build an index from one era number per row, ascending.

        Raises:
            ValueError: the rows are not in era order.
        """
        eras = np.asarray(era_N, dtype=np.int64)
        if np.any(np.diff(eras) < 0):
            raise ValueError("rows are not in era order")
        labels, counts = np.unique(eras, return_counts=True)
        return cls.from_counts(labels, counts)

    def __len__(self) -> int:
        return int(self.labels.size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.labels.tolist())

    def __contains__(self, era: object) -> bool:
        return isinstance(era, int | np.integer) and bool(np.any(self.labels == era))

    @property
    def rows(self) -> int:
        """Number of rows over all eras."""
        return int(self.offsets[-1])

    @property
    def counts(self) -> Integers:
        """Rows of each era, int64 [E]."""
        return np.diff(self.offsets)

    @property
    def first(self) -> int:
        """Oldest era number."""
        return int(self.labels[0])

    @property
    def last(self) -> int:
        """Newest era number."""
        return int(self.labels[-1])

    def at(self, era: int) -> int:
        """Position of an era in `labels`.

        Raises:
            KeyError: the era is not in the index.
        """
        position = int(np.searchsorted(self.labels, era))
        if position == len(self) or self.labels[position] != era:
            raise KeyError(f"era {era} is not among eras {self.first} to {self.last}")
        return position

    def rows_of(self, era: int) -> slice:
        """Rows of one era."""
        position = self.at(era)
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def positions(self, first: int, last: int) -> slice:
        """Positions of the eras numbered first..last, both inclusive; empty where there are none."""
        return slice(int(np.searchsorted(self.labels, first)), int(np.searchsorted(self.labels, last, side="right")))

    def span(self, first: int, last: int) -> slice:
        """Rows of the eras numbered first..last, both inclusive."""
        where = self.positions(first, last)
        if where.stop <= where.start:
            return slice(0, 0)
        return slice(int(self.offsets[where.start]), int(self.offsets[where.stop]))

    def select(self, first: int, last: int) -> EraIndex:
        """The index of the eras numbered first..last alone, its rows counted from 0."""
        where = self.positions(first, last)
        stop = max(where.stop, where.start)
        offsets = self.offsets[where.start : stop + 1]
        found = object.__new__(EraIndex)  # a part of what was checked
        object.__setattr__(found, "labels", self.labels[where.start : stop])
        object.__setattr__(found, "offsets", offsets - offsets[0])
        return found

    def per_row(self) -> Integers:
        """The era number of every row, int64 [N]."""
        return np.repeat(self.labels, self.counts)


@dataclass(frozen=True, eq=False)
class EraFrame:
    """Named columns x rows with era slices.

    Attributes:
        values: [C, N], int8 levels or float32; every column is contiguous, the column stride is free.
        columns: the C names.
        index: the eras of the N rows.
        ids: N row ids (a `pyarrow.StringArray`, or a list), or None where they are not needed.
    """

    values: Values
    columns: tuple[str, ...]
    index: EraIndex
    ids: Any = None

    def __post_init__(self) -> None:
        expected = (len(self.columns), self.index.rows)
        if self.values.shape != expected:
            raise ValueError(f"expected values of shape {expected}, given {self.values.shape}")
        if self.ids is not None and len(self.ids) != self.index.rows:
            raise ValueError(f"expected {self.index.rows} ids, given {len(self.ids)}")

    def era(self, era: int) -> EraFrame:
        """One era of the frame, as a view."""
        rows = self.index.rows_of(era)
        ids = None if self.ids is None else self.ids[rows.start : rows.stop]
        return EraFrame(self.values[:, rows], self.columns, self.index.select(era, era), ids)

    def positions(self, names: Sequence[str]) -> NDArray[np.intp]:
        """Positions of named columns, intp [len(names)].

        Raises:
            DataError: a name is not among the columns.
        """
        where = {name: position for position, name in enumerate(self.columns)}
        missing = [name for name in names if name not in where]
        if missing:
            raise DataError(f"{len(missing)} columns are not in the data, the first is {missing[0]!r}")
        return np.array([where[name] for name in names], dtype=np.intp)
