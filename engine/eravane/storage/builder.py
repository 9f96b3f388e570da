"""The writing side of a store: segments being filled, labels being replaced, and the swap of the manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.files import write_atomically
from eravane.storage.digest import first_level_fault
from eravane.storage.intake import Intake
from eravane.storage.manifest import BUILDING, MANIFEST, FileRecord, LiveRecord, Manifest, SegmentRecord
from eravane.storage.matrixfile import MatrixDraft, MatrixLayout, describe, digests_path
from eravane.storage.placement import Placement, SegmentPlan
from eravane.storage.segments import Segment, write_ids
from eravane.storage.shape import Shape
from eravane.storage.source import Source
from eravane.storage.transfer import Progress, silent, transfer

_FOLDER = "segments"


@dataclass
class LabelChanges:
    """Labels that an ingest changed in eras the store had, per target."""

    filled: Counter[str] = field(default_factory=Counter)
    corrected: Counter[str] = field(default_factory=Counter)
    withdrawn: Counter[str] = field(default_factory=Counter)


class Builder:
    """Writes beside a store what its next manifest will name.

    A segment is sealed once its era digests are on disk; what is sealed survives a kill, the rest is written again.

    Args:
        path: folder of the store.
        old: the manifest in force, None for a new store.
        shape: columns, dtype and targets.
    """

    def __init__(self, path: Path, old: Manifest | None, shape: Shape) -> None:
        self._path = path
        self._old = old
        self._shape = shape
        records = old.segments if old is not None else ()
        self.segments = tuple(
            Segment(path, record, len(shape.columns), shape.dtype, len(shape.targets)) for record in records
        )

    def begin(self, ticket: Mapping[str, Any]) -> None:
        """Mark the store as being written; what an interrupted ingest of other content left behind is deleted."""
        content = json.dumps(ticket, sort_keys=True).encode()
        marker = self._path / BUILDING
        if not marker.exists() or marker.read_bytes() != content:
            clear(self._path, self._old)
            write_atomically(marker, content)
        (self._path / _FOLDER).mkdir(exist_ok=True)

    def add(self, intake: Intake, progress: Progress) -> list[SegmentRecord]:
        """Write the new segments of a file, and compare the eras that the store has already.

        Raises:
            DataError: a value is not what the columns allow, or an old era was changed.
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
        values = {number: draft.values for number, draft in drafts.items()}
        transfer(
            intake.source,
            intake.placement,
            self._shape.targets,
            "float32",
            drafts=values,
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
            DataError: a value is not what the columns allow.
            OSError: the disk is full or cannot be written.
        """
        stem = f"live-{digest[:12]}"
        everywhere = Placement(np.zeros(source.rows, dtype=np.int32), np.arange(source.rows, dtype=np.int32))
        plan = SegmentPlan(stem, source.name, (0,), (source.rows,), ("live",))
        intake = Intake(source, everywhere, (plan,), (), {})
        features = self._fill(intake, {0: plan}, "features", self._shape.columns, self._shape.dtype, {}, silent)
        return LiveRecord(source.rows, features[0], self._write_ids(intake, plan, number=0))

    def commit(self, manifest: Manifest) -> None:
        """Put the new manifest in force and delete what it no longer names."""
        manifest.write(self._path)
        clear(self._path, manifest)

    def discard(self) -> None:
        """Delete everything that the manifest in force does not name."""
        clear(self._path, self._old)

    def _fill(
        self,
        intake: Intake,
        plans: Mapping[int, SegmentPlan],
        kind: str,
        columns: tuple[str, ...],
        dtype: str,
        stored: Mapping[int, NDArray[Any]],
        progress: Progress,
    ) -> dict[int, MatrixLayout]:
        paths = {number: self._path / _FOLDER / f"{plan.name}.{kind}.arrow" for number, plan in plans.items()}
        sealed = {n: describe(path, self._path) for n, path in paths.items() if digests_path(path).exists()}
        drafts = {n: MatrixDraft(paths[n], columns, dtype, plans[n].index.rows) for n in plans if n not in sealed}

        def seal(number: int) -> None:
            draft = drafts.pop(number)
            if dtype == "int8":
                _check_levels(intake, number, columns, draft.values)
            sealed[number] = draft.seal(plans[number].index.offsets, self._path)

        transfer(
            intake.source,
            intake.placement,
            columns,
            dtype,
            drafts={n: draft.values for n, draft in drafts.items()},
            stored=stored,
            filled=seal,
            progress=progress,
        )
        return sealed

    def _write_ids(self, intake: Intake, plan: SegmentPlan, number: int | None = None) -> FileRecord:
        ids = intake.ids_of(int(plan.name) if number is None else number)
        return write_ids(self._path / _FOLDER / f"{plan.name}.ids.arrow", ids, self._path)

    def _next_labels(self, segment: Segment) -> Path:
        version = int(segment.labels.path.stem.rpartition("-")[2]) + 1
        return self._path / _FOLDER / f"{segment.record.name}.labels-{version}.arrow"

    def _settle(self, intake: Intake, segment: Segment, draft: MatrixDraft, changes: LabelChanges) -> SegmentRecord:
        """Keep the draft of a segment's labels if it says anything new, and note what."""
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
        return replace(record, labels=draft.seal(segment.index.offsets, self._path))


def clear(path: Path, manifest: Manifest | None) -> None:
    """Delete what a manifest does not name: leftovers of an interrupted ingest and replaced labels."""
    kept = set() if manifest is None else set(manifest.files())
    kept |= {digests_path(Path(name)).as_posix() for name in kept}
    for file in (path / _FOLDER).glob("*"):
        if file.relative_to(path).as_posix() not in kept:
            file.unlink()
    for name in (BUILDING, BUILDING + ".part", MANIFEST + ".part"):
        (path / name).unlink(missing_ok=True)
    if manifest is None and (path / _FOLDER).exists():
        (path / _FOLDER).rmdir()


def _check_levels(intake: Intake, number: int, columns: tuple[str, ...], levels_CN: NDArray[np.int8]) -> None:
    fault = first_level_fault(levels_CN)
    if fault is not None:
        column, row = fault
        intake.source.refuse(
            columns[column],
            intake.placement.file_row(number, row),
            f"value {levels_CN[column, row]} is outside 0..4",
        )


def _nothing(_segment: int) -> None:
    pass
