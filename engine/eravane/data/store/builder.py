"""The writing side of a store: segments being filled, labels being replaced, and the swap of the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.events import ByFile
from eravane.data.store.digest import first_level_fault
from eravane.data.store.intake import Intake
from eravane.data.store.manifest import FileRecord, LiveRecord, SegmentRecord
from eravane.data.store.matrixfile import Buffers, MatrixDraft, MatrixLayout, describe, digests_path
from eravane.data.store.placement import SEGMENT_BYTES, Placement, SegmentPlan
from eravane.data.store.segments import Segment, write_ids
from eravane.data.store.shape import Shape
from eravane.data.store.site import Site
from eravane.data.store.source import Source
from eravane.data.store.transfer import silent, transfer

# Bytes of buffers for segments: two are filled at a time where a row group ends in the next one; columns are padded.
HELD_BYTES = 5 * SEGMENT_BYTES // 2


@dataclass
class LabelChanges:
    """Labels that an ingest changed in eras the store had, per target."""

    filled: Counter[str] = field(default_factory=Counter)
    corrected: Counter[str] = field(default_factory=Counter)
    withdrawn: Counter[str] = field(default_factory=Counter)


class Builder:
    """Writes the files that a store's next manifest will name.

    A segment is sealed once its era digests are on disk; sealed segments survive a kill, the rest is written again.

    Args:
        site: the store's folder.
        shape: columns, dtype and targets.

    Attributes:
        segments: the present segments of the store.
    """

    def __init__(self, site: Site, shape: Shape) -> None:
        self._site, self._shape = site, shape
        records = site.old.segments if site.old is not None else ()
        self.segments = tuple(
            Segment(site.path, record, len(shape.columns), shape.dtype, len(shape.targets)) for record in records
        )

    def add(self, intake: Intake, progress: ByFile) -> list[SegmentRecord]:
        """Write the new segments of a file, and compare the eras that the store has already.

        Raises:
            DataError: a value is not allowed in its column, or an old era was changed.
            OSError: the disk is full or cannot be written.
        """
        plans = {int(plan.name): plan for plan in intake.plans}
        ids = {number: self._write_ids(intake, plan) for number, plan in plans.items()}
        labels = self._fill(intake, plans, "labels-0", self._shape.targets, "float32", {}, silent)
        known = {int(segment.record.name): segment.values for segment in intake.known}
        features = self._fill(intake, plans, "features", self._shape.columns, self._shape.dtype, known, progress)
        return [
            SegmentRecord(plan.name, plan.source, plan.eras, plan.rows, plan.data_types, features[n], labels[n], ids[n])
            for n, plan in plans.items()
        ]

    def relabel(self, intake: Intake, changes: LabelChanges) -> list[SegmentRecord]:
        """Take over labels and data types of the eras that the store has; records that changed are returned."""
        drafts = {}
        for segment in intake.known:
            draft = MatrixDraft(self._next_labels(segment), self._shape.targets, "float32", segment.index.rows)
            draft.values[:] = segment.labels.values
            drafts[int(segment.record.name)] = draft
        transfer(
            intake.source,
            intake.placement,
            self._shape.targets,
            "float32",
            drafts=dict(drafts),
            stored={},
            filled=_nothing,
            progress=silent,
        )
        return [
            record
            for segment in intake.known
            if (record := self._settle(intake, segment, drafts[int(segment.record.name)], changes)) != segment.record
        ]

    def add_live(self, source: Source, digest: str) -> LiveRecord:
        """Write the live rows.

        Raises:
            DataError: a value is not allowed in its column.
            OSError: the disk is full or cannot be written.
        """
        stem = f"live-{digest[:12]}"
        everywhere = Placement(np.zeros(source.rows, dtype=np.int32), np.arange(source.rows, dtype=np.int32))
        plan = SegmentPlan(stem, source.name, (0,), (source.rows,), ("live",))
        intake = Intake(source, everywhere, (plan,), (), {})
        features = self._fill(intake, {0: plan}, "features", self._shape.columns, self._shape.dtype, {}, silent)
        return LiveRecord(source.rows, features[0], self._write_ids(intake, plan, number=0))

    def _fill(
        self,
        intake: Intake,
        plans: Mapping[int, SegmentPlan],
        kind: str,
        columns: tuple[str, ...],
        dtype: str,
        stored: Mapping[int, NDArray[Any]],
        progress: ByFile,
    ) -> dict[int, MatrixLayout]:
        paths = {number: self._site.file(f"{plan.name}.{kind}.arrow") for number, plan in plans.items()}
        sealed = {n: describe(path, self._site.path) for n, path in paths.items() if digests_path(path).exists()}
        drafts = {n: MatrixDraft(paths[n], columns, dtype, plans[n].index.rows) for n in plans if n not in sealed}
        buffers = Buffers(max((draft.size for draft in drafts.values()), default=0), HELD_BYTES)
        for draft in drafts.values():
            draft.buffers = buffers

        def seal(number: int, checked: bool) -> None:
            draft = drafts[number]
            if dtype == "int8" and not checked:
                _check_levels(intake, number, columns, draft.values)
            sealed[number] = draft.seal(plans[number].index.offsets, self._site.path)

        transfer(
            intake.source,
            intake.placement,
            columns,
            dtype,
            drafts=drafts,
            stored=stored,
            filled=seal,
            progress=progress,
        )
        return sealed

    def _write_ids(self, intake: Intake, plan: SegmentPlan, number: int | None = None) -> FileRecord:
        ids = intake.ids_of(int(plan.name) if number is None else number)
        return write_ids(self._site.file(f"{plan.name}.ids.arrow"), ids, self._site.path)

    def _next_labels(self, segment: Segment) -> Path:
        version = int(segment.labels.path.stem.rpartition("-")[2]) + 1
        return self._site.file(f"{segment.record.name}.labels-{version}.arrow")

    def _settle(self, intake: Intake, segment: Segment, draft: MatrixDraft, changes: LabelChanges) -> SegmentRecord:
        """Keep the draft of a segment's labels if it has changes, and record them."""
        data_types = tuple(
            intake.data_types.get(era, kind)
            for era, kind in zip(segment.record.eras, segment.record.data_types, strict=True)
        )
        record = replace(segment.record, data_types=data_types)
        differs = False
        for target, new_N, old_N in zip(self._shape.targets, draft.values, segment.labels.values, strict=True):
            was, now = ~np.isnan(old_N), ~np.isnan(new_N)
            counts = (now & ~was, now & was & (new_N != old_N), was & ~now)
            for counter, rows in zip((changes.filled, changes.corrected, changes.withdrawn), counts, strict=True):
                if rows.any():
                    counter[target] += int(rows.sum())
                    differs = True
        if not differs:
            draft.path.unlink()
            return record
        return replace(record, labels=draft.seal(segment.index.offsets, self._site.path))


def _check_levels(intake: Intake, number: int, columns: tuple[str, ...], levels_CN: NDArray[np.int8]) -> None:
    fault = first_level_fault(levels_CN)
    if fault is not None:
        column, row = fault
        intake.source.refuse(
            columns[column],
            intake.placement.file_row(number, row),
            f"value {levels_CN[column, row]} is outside 0..4",
        )


def _nothing(_segment: int, _checked: bool) -> None:
    pass
