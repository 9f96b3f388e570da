"""A store of prepared features: imputed and clipped once, when an era is appended, instead of on every read."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from eravane.calendar.eras import EraFrame, EraIndex
from eravane.core.config import PrepareConfig
from eravane.core.errors import StoreError
from eravane.data.prepare import Preparer, frozen_path, joined, prepare_digest
from eravane.data.store.manifest import MANIFEST, FileRecord, LiveRecord, Manifest, PreparedRecord, SegmentRecord
from eravane.data.store.matrixfile import MatrixDraft, MatrixLayout, describe, digests_path
from eravane.data.store.site import CATALOG, Site, writing
from eravane.data.store.store import EraStore
from eravane.data.store.transfer import Progress, silent


def freeze(
    raw: EraStore, path: Path | str, config: PrepareConfig, ops: Any, progress: Progress | None = None
) -> EraStore:
    """Bring a store of prepared features up to date with a raw one.

    Every era is prepared from itself and the eras before it, as on a read of all columns, and never again: new eras
    are added to a store that exists, labels and ids are those of the raw store. Killed, it resumes.

    Args:
        raw: a store as `ingest` makes it.
        path: folder of the prepared store; made if absent.
        config: the [prepare] section.
        ops: the kernels' namespace, as for `Preparer`.
        progress: called with the segment's name, eras done and eras in all.

    Raises:
        StoreError: the folder holds a store of another kind, of other data or of another configuration, or cannot
            be written.
    """
    path = Path(path)
    with writing(path) as site:
        job = _Freeze(raw, site, config, Preparer(config, ops), progress or silent)
        site.begin({"raw": raw.fingerprint, "prepare": asdict(config)})
        site.commit(job.run(), raw.path / CATALOG)
    return EraStore.open(path)


def freeze_beside(raw: EraStore, config: PrepareConfig, progress: Progress | None = None) -> EraStore | None:
    """Bring the prepared store beside a raw one up to date, as `Features.open` looks for it.

    It is made of the raw store alone, so that one of other data, left from before the raw store was made anew, is
    made anew as well.

    Returns:
        The prepared store; None where `prepare.frozen` is off, or preparation would change nothing.

    Raises:
        StoreError: the folder holds something else, or cannot be written.
    """
    from eravane_kernels import cpu

    if not config.frozen or raw.prepared is not None or Preparer(config, cpu).keeps(raw.dtype):
        return None
    path = frozen_path(raw.path, config)
    if (path / MANIFEST).is_file():
        old = Manifest.read(path).prepared
        if old is not None and not origin(raw, config).continues(old):
            shutil.rmtree(path)
    return freeze(raw, path, config, cpu, progress)


def origin(raw: EraStore, config: PrepareConfig) -> PreparedRecord:
    """What a prepared store that is up to date with a raw one says of where it came from."""
    live = raw.manifest.live
    return PreparedRecord(
        config=prepare_digest(config),
        segments=tuple(record.features.digests for record in raw.manifest.segments),
        live="" if live is None else live.features.digests,
    )


class _Freeze:
    def __init__(
        self, raw: EraStore, site: Site, config: PrepareConfig, preparer: Preparer, progress: Progress
    ) -> None:
        if raw.manifest.prepared is not None:
            raise StoreError(f"{raw.path} is prepared already; freeze the store that `eravane ingest` made")
        self._raw, self._site, self._preparer, self._progress = raw, site, preparer, progress
        self._columns = preparer.columns(raw.columns)
        self._record = origin(raw, config)
        self._check_old(path=site.path, old=site.old)

    def _check_old(self, path: Path, old: Manifest | None) -> None:
        if old is None:
            return
        if old.prepared is None:
            raise StoreError(f"{path} is a raw store; give the prepared one a folder of its own")
        if old.prepared.config != self._record.config:
            raise StoreError(f"{path} was prepared by another [prepare] section; give this one a folder of its own")
        if not self._record.continues(old.prepared):
            raise StoreError(f"{path} was prepared from other data than {self._raw.path}; freeze into a new folder")

    def run(self) -> Manifest:
        """Write what the prepared store lacks, and its next manifest."""
        done = () if self._site.old is None else self._site.old.segments
        records = [
            replace(self._shared(raw), features=done[number].features if number < len(done) else self._segment(raw))
            for number, raw in enumerate(self._raw.manifest.segments)
        ]
        return replace(
            self._raw.manifest,
            columns=self._columns,
            segments=tuple(records),
            live=self._live(),
            sources={},
            prepared=self._record,
        )

    def _segment(self, record: SegmentRecord) -> MatrixLayout:
        """Prepare the features of a segment, unless that was done before an interruption."""
        path = self._site.file(f"{record.name}.features.arrow")
        if digests_path(path).exists():
            return describe(path, self._site.path)
        index = EraIndex.from_counts(record.eras, record.rows)
        draft = MatrixDraft(path, self._columns, self._raw.dtype, index.rows)
        for number, era in enumerate(index):
            window = self._raw.window(era - self._preparer.history, era)
            draft.values[:, index.rows_of(era)] = self._preparer.apply(window.frame(), era).values
            self._progress(record.name, number + 1, len(index))
        return draft.seal(index.offsets, self._site.path)

    def _live(self) -> LiveRecord | None:
        record, frame = self._raw.manifest.live, self._raw.live()
        if record is None or frame is None:
            return None
        era = frame.index.first
        path = self._site.file(f"live-{self._raw.fingerprint}.features.arrow")
        if not digests_path(path).exists():
            draft = MatrixDraft(path, self._columns, self._raw.dtype, record.rows)
            draft.values[:] = self._preparer.apply(self._with_history(frame, era), era).values
            draft.seal(frame.index.offsets, self._site.path)
        return replace(record, features=describe(path, self._site.path), ids=self._linked(record.ids))

    def _with_history(self, frame: EraFrame, era: int) -> EraFrame:
        if not self._preparer.history:
            return frame
        before = self._raw.window(era - self._preparer.history, era - 1)
        return joined(before.frame(), frame) if before.index.rows else frame

    def _shared(self, record: SegmentRecord) -> SegmentRecord:
        """Labels and ids of a segment, linked from the raw store."""
        self._linked(FileRecord(digests_path(Path(record.labels.file)).as_posix(), 0, ""))
        self._linked(FileRecord(record.labels.file, 0, ""))
        self._linked(record.ids)
        return record

    def _linked(self, record: FileRecord) -> FileRecord:
        """A file of the raw store, which never changes, as a file of this one: the same inode, or a copy."""
        source, target = self._raw.path / record.file, self._site.path / record.file
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        return record
