"""The store on disk: immutable feature segments of whole eras, and replaceable labels beside them.

manifest.json                      what the store holds, with checksums; written last, swapped as a whole
features.json                      copy of the dataset's catalogue
segments/00000.features.arrow      [columns, rows] of some eras, one Arrow record batch; never changed
segments/00000.labels-0.arrow      [targets, rows] float32; labels-1 and so on once labels arrived
segments/00000.ids.arrow           row ids
segments/live-*.arrow              the live rows
segments/*.digests.npy             uint64 [eras, columns], beside every matrix; a matrix without is unfinished
snapshots/                         the store as readers opened it, by hard links (see `snapshot`)
building.json                      there while an ingest is under way or was interrupted
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.calendar.eras import EraFrame, EraIndex
from eravane.core.errors import DataError, StoreError
from eravane.data.store.manifest import BUILDING, Manifest
from eravane.data.store.segments import Matrix, Segment, read_ids, verify_file
from eravane.data.store.targets import LabelBlock, TargetFacts, survey
from eravane.data.store.window import Piece, RollingWindow, Window, positions_of

SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class IngestReport:
    """Changes made by an ingest.

    Attributes:
        eras_added: era numbers that are new in the store.
        rows_added: their rows.
        labels_filled: target -> labels that became known in eras the store had.
        labels_corrected: target -> labels whose known value changed; the file's value was taken.
        labels_withdrawn: target -> labels that were known and no longer are.
        live_rows: live rows now in the store.
        unchanged: files whose content was taken in before.
    """

    eras_added: tuple[int, ...]
    rows_added: int
    labels_filled: Mapping[str, int]
    labels_corrected: Mapping[str, int]
    labels_withdrawn: Mapping[str, int]
    live_rows: int
    unchanged: tuple[str, ...]


class EraStore:
    """A dataset as columns x rows, opened for reading.

    Attributes:
        path: the folder; place: the same, absolute and without links, as it was when the store was opened.
        columns: feature names.
        dtype: "int8" (levels 0..4) or "float32" (NaN where missing).
        targets: target names.
        index: every historical era, labelled or not; live rows are apart.
        data_types: "train", "validation" or "test" per era of the index.
        report: what the ingest that opened the store changed; None where it was only opened.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.place = path.resolve()
        self.report: IngestReport | None = None
        self.manifest = manifest
        self.columns = manifest.columns
        self.dtype = manifest.dtype
        self.targets = manifest.targets
        self.segments = tuple(
            Segment(path, record, len(self.columns), self.dtype, len(self.targets)) for record in manifest.segments
        )
        self.index = EraIndex.from_counts(
            [era for record in manifest.segments for era in record.eras],
            [rows for record in manifest.segments for rows in record.rows],
        )
        self.data_types = tuple(kind for record in manifest.segments for kind in record.data_types)

    @classmethod
    def open(cls, path: Path | str) -> EraStore:
        """Open a store; its manifest and the size of every file are checked, its content is not (see `verify`).

        Raises:
            StoreError: there is no finished store, or it is damaged.
        """
        path = Path(path)
        manifest = _manifest(path)
        while (problem := _first_problem(path, manifest)) is not None:
            before, manifest = manifest, _manifest(path)
            if manifest == before:  # else a writer swapped the store in between
                raise StoreError(f"{problem}; the store is damaged, delete it and ingest again")
        return cls(path, manifest)

    @property
    def home(self) -> Path:
        """Folder of the store that writers bring up to date; the store's own, but where it is a snapshot."""
        return self.path.parent.parent if self.path.parent.name == SNAPSHOTS else self.path

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over everything the store holds: columns, eras, features, ids, labels, live rows."""
        return self.manifest.fingerprint()

    @cached_property
    def facts(self) -> Mapping[str, TargetFacts]:
        """Facts of each target's labels: extent, scale, equal columns."""
        return self.manifest.facts or survey_segments(self.targets, self.segments)

    def window(self, first_era: int, last_era: int, columns: Sequence[str] | None = None) -> Window:
        """Eras first..last (inclusive) of some columns (None: all), without reading anything.

        Raises:
            DataError: a column is not in the store.
        """
        names = self.columns if columns is None else tuple(columns)
        positions = np.arange(len(names)) if columns is None else positions_of(self.columns, names)
        index = self.index.select(first_era, last_era)
        return Window(index, names, positions, tuple(self._pieces(first_era, last_era)), self.dtype)

    def roll(self, width: int, columns: Sequence[str] | None = None) -> RollingWindow:
        """A window of `width` eras that moves forwards and keeps only those eras in memory.

        Raises:
            DataError: a column is not in the store.
        """
        names = self.columns if columns is None else tuple(columns)
        positions_of(self.columns, names)
        return RollingWindow(lambda first, last: self.window(first, last, names), self.segments, width)

    def target(self, name: str, first_era: int, last_era: int) -> NDArray[np.float32]:
        """Labels of eras first..last, float32 [N], NaN where not known.

        Raises:
            DataError: the store has no such target.
        """
        if name not in self.targets:
            raise DataError(f"target {name!r} is not in the store; it has {', '.join(self.targets)}")
        row = self.targets.index(name)
        pieces = [piece.segment.labels.values[row, piece.rows] for piece in self._pieces(first_era, last_era)]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)

    def ids(self, first_era: int, last_era: int) -> pa.StringArray:
        """Row ids of eras first..last."""
        slices = [piece.segment.ids[piece.rows.start : piece.rows.stop] for piece in self._pieces(first_era, last_era)]
        return pa.concat_arrays(slices) if slices else pa.array([], type=pa.string())

    def live(self) -> EraFrame | None:
        """The live rows, labelled with the era after the newest; None where the dataset has none."""
        record = self.manifest.live
        if record is None:
            return None
        matrix = Matrix(self.path, record.features, len(self.columns), self.dtype, record.rows)
        index = EraIndex.from_counts([self.index.last + 1], [record.rows])
        return EraFrame(matrix.values, self.columns, index, read_ids(self.path / record.ids.file))

    def blank(self) -> NDArray[np.bool_]:
        """Which features are missing in a whole era, bool [E, C]: 2 (as Numerai v5 marks it) or NaN in every row."""
        return np.concatenate([segment.blank() for segment in self.segments])

    def digest(
        self, first_era: int, last_era: int, columns: Sequence[str] | None = None, targets: Sequence[str] = ()
    ) -> str:
        """Sixteen hex digits over the content of eras first..last of some columns and targets.

        Later eras, other columns and other targets do not enter, so it can name what a model was trained on.

        Raises:
            DataError: a column or target is not in the store.
        """
        names = self.columns if columns is None else tuple(columns)
        features, labels = positions_of(self.columns, names), positions_of(self.targets, targets)
        whole = hashlib.sha256(repr((names, tuple(targets), self.dtype)).encode())
        for segment in self.segments:
            where = segment.index.positions(first_era, last_era)
            whole.update(segment.index.labels[where].tobytes() + segment.index.counts[where].tobytes())
            whole.update(segment.features.digests[where][:, features].tobytes())
            if targets:
                whole.update(segment.labels.digests[where][:, labels].tobytes())
        return whole.hexdigest()[:16]

    def verify(self) -> None:
        """Read the whole store and compare it with its checksums.

        Raises:
            StoreError: something was damaged; the message names file, column and era.
        """
        for segment in self.segments:
            segment.verify(self.columns, self.targets)
        record = self.manifest.live
        if record is not None:
            matrix = Matrix(self.path, record.features, len(self.columns), self.dtype, record.rows)
            matrix.verify(self.columns, EraIndex.from_counts([self.index.last + 1], [record.rows]))
            verify_file(self.path, record.ids)

    def _pieces(self, first_era: int, last_era: int) -> list[Piece]:
        """The segment slices that hold eras first..last, placed from row 0 on."""
        pieces, start = [], 0
        for segment in self.segments:
            if segment.index.last < first_era or segment.index.first > last_era:
                continue  # eras are read one by one, and most segments hold none of these
            rows = segment.index.span(first_era, last_era)
            if rows.stop > rows.start:
                pieces.append(Piece(segment, rows, start))
                start += rows.stop - rows.start
        return pieces


def survey_segments(targets: Sequence[str], segments: Sequence[Segment]) -> dict[str, TargetFacts]:
    """Facts of each target from the labels of a store's segments."""
    eras = (era for segment in segments for era in segment.index)
    return survey(targets, eras, (_labels(segment) for segment in segments))


def _labels(segment: Segment) -> LabelBlock:
    return LabelBlock(segment.labels.values, segment.index.per_row(), lambda row: str(segment.ids[row].as_py()))


def _manifest(path: Path) -> Manifest:
    try:
        return Manifest.read(path)
    except FileNotFoundError:
        if (path / BUILDING).exists():
            raise StoreError(f"the store {path} is unfinished; run `eravane ingest` again to resume it") from None
        raise StoreError(
            f"there is no store in {path} (on {platform.node()}); `eravane ingest DATA {path}` makes one"
        ) from None


def _first_problem(path: Path, manifest: Manifest) -> str | None:
    for name, size in manifest.files().items():
        file = path / name
        try:
            found = file.stat().st_size
        except FileNotFoundError:
            found = -1
        if found != size:
            return f"{file} {'is missing' if found < 0 else f'has {found} bytes instead of {size}'}"
    return None
