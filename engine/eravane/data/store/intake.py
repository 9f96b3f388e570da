"""Content of one parquet file for a store: new eras, and eras that the store already has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eravane.calendar.eras import era_label
from eravane.core.errors import ChangedDataError, DataError
from eravane.data.store.digest import hash_ids
from eravane.data.store.placement import Placement, SegmentPlan, place, plan_segments
from eravane.data.store.segments import Segment
from eravane.data.store.source import Source


@dataclass(frozen=True)
class Choice:
    """Choice of eras: first..last (inclusive), every n-th counted from `anchor`."""

    first: int
    last: int
    every: int
    anchor: int

    def takes(self, era: int) -> bool:
        """Whether an era is taken."""
        return self.first <= era <= self.last and (era - self.anchor) % self.every == 0


@dataclass(frozen=True, eq=False)
class Intake:
    """A file and the destination of its rows.

    Attributes:
        source: the file.
        placement: destination of every row.
        plans: segments that its new eras fill.
        known: segments of the store that hold eras of this file.
        data_types: era -> data type, for every taken era.
    """

    source: Source
    placement: Placement
    plans: tuple[SegmentPlan, ...]
    known: tuple[Segment, ...]
    data_types: dict[int, str]

    def rows_of(self, segment: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of the file that go to a segment, and their rows there, in the segment's order."""
        file_rows = np.flatnonzero(self.placement.segment_N == segment)
        rows = self.placement.row_N[file_rows]
        order = np.argsort(rows, kind="stable")
        return file_rows[order], rows[order].astype(np.intp)

    def ids_of(self, segment: int) -> pa.StringArray:
        """Ids of the rows that go to a segment, in the segment's order."""
        file_rows, _ = self.rows_of(segment)
        taken = self.source.ids.take(pa.array(file_rows)).cast(pa.string())
        return pa.concat_arrays(taken.chunks)


def prepare_intake(
    source: Source,
    era_N: NDArray[np.int32],
    choice: Choice,
    segments: Sequence[Segment],
    planned: Sequence[SegmentPlan],
    row_bytes: int,
) -> Intake:
    """Decide the destination of the rows of a file.

    Args:
        source: the file.
        era_N: its eras, one per row.
        choice: the eras to take.
        segments: the present segments of the store.
        planned: segments that earlier files will add.
        row_bytes: bytes of one row of features.

    Raises:
        DataError: an era of the store has other rows now, a new era is older than the store's newest, an era is in
            two files, or an era mixes data types.
    """
    rows = _rows_of_eras(era_N, choice)
    stored = _places(segments)
    new = [era for era in rows if era not in stored]
    _check_order(source, new, stored, planned)
    for era in sorted(rows.keys() & stored.keys()):
        if rows[era] != stored[era][2]:
            raise ChangedDataError(
                f"{source.path}: era {era_label(era)} has {rows[era]} rows, the store has {stored[era][2]}; "
                "an old era was changed"
            )
    data_types = _data_types(source, era_N, rows)
    first = len(segments) + len(planned)
    plans = plan_segments(
        source.name, new, [rows[era] for era in new], [data_types[era] for era in new], first=first, row_bytes=row_bytes
    )
    where = {era: stored[era][:2] for era in rows if era in stored}
    for plan in plans:
        where |= {era: (int(plan.name), int(plan.index.offsets[at])) for at, era in enumerate(plan.eras)}
    known = sorted({stored[era][0] for era in rows if era in stored})
    intake = Intake(source, place(era_N, where), tuple(plans), tuple(segments[number] for number in known), data_types)
    for segment in intake.known:
        _check_ids(intake, segment)
    return intake


def brings_new_eras(era_N: NDArray[np.int32], choice: Choice, segments: Sequence[Segment]) -> bool:
    """Whether a file has an era that is taken and that no segment holds."""
    return bool(_rows_of_eras(era_N, choice).keys() - _places(segments).keys())


def _rows_of_eras(era_N: NDArray[np.int32], choice: Choice) -> dict[int, int]:
    """Row count of every taken era, ascending."""
    eras, counts = np.unique(era_N, return_counts=True)
    return {era: count for era, count in zip(eras.tolist(), counts.tolist(), strict=True) if choice.takes(era)}


def _places(segments: Sequence[Segment]) -> dict[int, tuple[int, int, int]]:
    """Segment, first row and row count of every stored era."""
    return {
        era: (number, offset, count)
        for number, segment in enumerate(segments)
        for era, offset, count in zip(
            segment.index.labels.tolist(), segment.index.offsets.tolist(), segment.index.counts.tolist(), strict=False
        )
    }


def check_unique(intakes: Sequence[Intake], segments: Sequence[Segment]) -> None:
    """Check that no id occurs twice among the new rows and the rows of the store.

    Raises:
        DataError: an id does, within an era or in two.
    """
    stored = [hash_ids(segment.ids) for segment in segments]
    fresh = [
        (intake, np.flatnonzero(intake.placement.segment_N >= len(segments)), _hashes(intake.source.ids))
        for intake in intakes
    ]
    hashes = np.concatenate([*stored, *(hash_N[rows] for _, rows, hash_N in fresh)])
    hashes.sort()
    twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not twice.size:
        return
    seen: dict[str, str] = {}
    for segment in segments:
        for row in np.flatnonzero(np.isin(hash_ids(segment.ids), twice, kind="sort")):
            era = int(segment.index.labels[np.searchsorted(segment.index.offsets, row, side="right") - 1])
            seen[segment.ids[row].as_py()] = f"era {era_label(era)} of the store"
    for intake, rows, hash_N in fresh:
        for row in rows[np.isin(hash_N[rows], twice, kind="sort")]:
            text = intake.source.ids[int(row)].as_py()
            if text in seen:
                intake.source.refuse("id", int(row), f"the id occurs twice, first in {seen[text]}")
            seen[text] = f"{intake.source.name}, {intake.source.where(int(row)).split(',')[0]}"


def _hashes(ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    return np.concatenate([hash_ids(chunk) for chunk in ids.chunks])


def _check_order(source: Source, new: Sequence[int], stored: Iterable[int], planned: Sequence[SegmentPlan]) -> None:
    for plan in planned:
        both = sorted(set(new) & set(plan.eras))
        if both:
            raise DataError(f"era {era_label(both[0])} is in {plan.source} and in {source.path}; an era has one file")
    newest = max([*stored, *(era for plan in planned for era in plan.eras)], default=-1)
    if new and new[0] < newest:
        raise ChangedDataError(
            f"{source.path}: era {era_label(new[0])} would be added after era {era_label(newest)}; "
            "eras are added in order"
        )


def _data_types(source: Source, era_N: NDArray[np.int32], rows: Mapping[int, int]) -> dict[int, str]:
    kinds, code_N = source.data_types()
    pairs = np.unique(era_N.astype(np.int64) * len(kinds) + code_N)
    found: dict[int, str] = {}
    for era, code in zip((pairs // len(kinds)).tolist(), (pairs % len(kinds)).tolist(), strict=True):
        if era in found and era in rows:
            raise DataError(f"{source.path}: era {era_label(era)} mixes data types {found[era]!r} and {kinds[code]!r}")
        found[era] = kinds[code]
    return {era: found[era] for era in rows}


def _check_ids(intake: Intake, segment: Segment) -> None:
    """Check that the file still has the stored rows of a segment in the stored order."""
    file_rows, rows = intake.rows_of(int(segment.record.name))
    same = pc.equal(intake.ids_of(int(segment.record.name)), segment.ids.take(pa.array(rows)))
    if not pc.all(same).as_py():
        at = pc.index(same, False).as_py()
        intake.source.refuse(
            "id",
            int(file_rows[at]),
            f"the store has {segment.ids[int(rows[at])].as_py()!r} in this row; an old era was changed",
            ChangedDataError,
        )
