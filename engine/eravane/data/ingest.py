"""Ingests the dataset's parquet files into a store: streamed, checked, incremental, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from eravane.backend.protocol import Decode
from eravane.calendar.eras import era_label
from eravane.core.errors import DataError, StoreError
from eravane.core.events import ByFile
from eravane.data.catalog import FEATURES_JSON, HISTORY, LIVE
from eravane.data.store.builder import Builder, LabelChanges
from eravane.data.store.digest import digest_file
from eravane.data.store.intake import Choice, Intake, brings_new_eras, check_unique, prepare_intake
from eravane.data.store.manifest import LiveRecord, Manifest, SegmentRecord, SourceRecord
from eravane.data.store.segments import Segment
from eravane.data.store.shape import Shape, check_columns, check_shape, new_shape
from eravane.data.store.site import Site, writing
from eravane.data.store.source import Source
from eravane.data.store.store import EraStore, IngestReport, survey_segments
from eravane.data.store.targets import TargetFacts, require_same_twin
from eravane.data.store.transfer import silent

_NO_LAST = 1 << 30


def ingest(
    data_dir: Path | str,
    store_dir: Path | str,
    *,
    columns: Sequence[str] | None = None,
    first_era: int | None = None,
    last_era: int | None = None,
    every: int = 1,
    progress: ByFile | None = None,
    decode: Decode | None = None,
    wait: Callable[[str], None] | None = None,
    rebuild: bool = False,
) -> EraStore:
    """Bring a store up to date with a folder of parquet files.

    A new store takes `train.parquet`, `validation.parquet` and, where there is one, `live.parquet`. An existing store
    gets the new eras, newly known and corrected labels, and the new live rows; its feature rows never change. A killed
    ingest is resumed by calling again and ends with the same bytes.

    Args:
        data_dir: folder of the dataset.
        store_dir: folder of the store; made if absent.
        columns: features to keep, in this order (None: every feature of `features.json`, in file order).
        first_era, last_era: oldest and newest era to take (None: all; for a store that exists, from its first era on).
        every: take every n-th era, counted from the first.
        progress: called with a file's name, cells done and cells in all.
        decode: decodes, checks and sorts features and labels on a device, from `Backend.decoder` (None: on the CPU);
            the store's bytes are the same.
        wait: called with a line while another process is writing; None does not wait.
        rebuild: delete the store first; processes that read it keep what they opened.

    Returns:
        The opened store; `report` lists the changes.

    Raises:
        DataError: the files break the dataset's contract, or an era that the store has was changed.
        StoreError: the folder holds something else or a store of another shape, the disk is full, or another
            process is writing.
    """
    data, path = Path(data_dir), Path(store_dir)
    with writing(path, wait) as site:
        if rebuild:
            site.delete()
        options = _Options(columns, first_era or 0, last_era or _NO_LAST, every)
        report = _Update(data, site, options, progress or silent, decode).run()
    store = EraStore.open(path)
    store.report = report
    return store


@dataclass(frozen=True)
class _Options:
    """Requested columns and eras."""

    columns: Sequence[str] | None
    first: int
    last: int
    every: int


class _Update:
    """One ingest: the content of the files against the present store."""

    def __init__(self, data: Path, site: Site, options: _Options, progress: ByFile, decode: Decode | None) -> None:
        self._data, self._site, self._progress = data, site, progress
        self._old = old = site.old
        self._found = {name: _identity(data / name) for name in (*HISTORY, LIVE)}  # before anything is read of them
        self._history = [Source(data / name, decode) for name in _history(data, old)]
        self._live_rows = Source(data / LIVE, decode) if (data / LIVE).exists() else None
        self._sources = [*self._history, *([self._live_rows] if self._live_rows else [])]
        if old is None:
            self._shape = new_shape(self._history[0], data / FEATURES_JSON, options.columns)
        else:
            self._shape = Shape(old.columns, old.dtype, old.targets)
            check_columns(self._shape, options.columns)
        check_shape(self._shape, self._history, self._live_rows)
        self._records = {
            source.name: SourceRecord(source.path.stat().st_size, digest_file(source.path)) for source in self._sources
        }
        self._eras = {source: source.eras() for source in self._history}
        self._check_newer()
        self._choice = _choice(old, options, min(int(era_N.min()) for era_N in self._eras.values()))
        known = {} if old is None else old.sources
        self._unchanged = {name for name, record in self._records.items() if known.get(name) == record}
        self._builder = Builder(site, self._shape)

    def _check_newer(self) -> None:
        """Check that the files are no older than those that the store was made from.

        Raises:
            DataError: they end before the store does.
        """
        newest = max(int(era_N.max()) for era_N in self._eras.values())
        stored = max((era for record in (self._old.segments if self._old else ()) for era in record.eras), default=0)
        if newest < stored and HISTORY[-1] in {source.name for source in self._history}:
            raise DataError(
                f"{self._data} ends with era {era_label(newest)}, and {self._site.path} holds era {era_label(stored)} "
                "already: these files are older; give the newest ones (`eravane fetch` brings them)"
            )

    def run(self) -> IngestReport:
        """Write what is new next to the current files, then swap the manifest."""
        self._site.begin(
            {
                "sources": {name: asdict(record) for name, record in self._records.items()},
                "shape": asdict(self._shape),
                "choice": asdict(self._choice),
                "old": None if self._old is None else self._old.fingerprint(),
            }
        )
        intakes = self._intakes()
        if self._old is None and not any(intake.plans for intake in intakes):
            newest = "the newest" if self._choice.last == _NO_LAST else era_label(self._choice.last)
            raise DataError(f"{self._data} has no era from {era_label(self._choice.first)} to {newest}")
        check_unique(intakes, self._builder.segments)
        self._check_live_ids(intakes)
        changes = LabelChanges()
        segments = {record.name: record for record in (() if self._old is None else self._old.segments)}
        for intake in intakes:
            for record in [*self._builder.relabel(intake, changes), *self._builder.add(intake, self._progress)]:
                segments[record.name] = record
        added = [plan for intake in intakes for plan in intake.plans]
        live = self._live(bool(added))
        records = tuple(segments[name] for name in sorted(segments))
        self._commit(records, live, self._survey(records))
        return IngestReport(
            eras_added=tuple(era for plan in added for era in plan.eras),
            rows_added=sum(rows for plan in added for rows in plan.rows),
            labels_filled=dict(changes.filled),
            labels_corrected=dict(changes.corrected),
            labels_withdrawn=dict(changes.withdrawn),
            live_rows=0 if live is None else live.rows,
            unchanged=tuple(sorted(self._unchanged)),
        )

    def _intakes(self) -> list[Intake]:
        """New content of each file; a file whose content is known already has none."""
        intakes: list[Intake] = []
        segments = self._builder.segments
        for source, era_N in self._eras.items():
            if source.name in self._unchanged and not brings_new_eras(era_N, self._choice, segments):
                continue
            planned = [plan for intake in intakes for plan in intake.plans]
            intakes.append(prepare_intake(source, era_N, self._choice, segments, planned, self._shape.row_bytes))
        return intakes

    def _check_live_ids(self, intakes: Sequence[Intake]) -> None:
        """Check that no live row is one of history.

        Raises:
            DataError: one is.
        """
        source = self._live_rows
        if source is None or source.name in self._unchanged:
            return
        chunks = [segment.ids.cast(pa.large_string()) for segment in self._builder.segments]
        chunks += [chunk for intake in intakes for chunk in intake.source.ids.chunks]
        known = pa.chunked_array(chunks, type=pa.large_string())
        if pc.any(pc.is_in(known, value_set=source.ids)).as_py():  # hashing the few live ids is faster
            row = pc.index(pc.is_in(source.ids, value_set=known), True).as_py()
            source.refuse("id", row, "the id is in history, too; a live row is of the week that has no label yet")

    def _live(self, grown: bool) -> LiveRecord | None:
        """The live rows now in force; old ones are dropped once the store has an era that came after them."""
        old, source = None if self._old is None else self._old.live, self._live_rows
        if source is None:
            return None if grown else old
        if source.name in self._unchanged:
            return old
        source.require_live()
        return self._builder.add_live(source, self._records[LIVE].digest)

    def _survey(self, records: tuple[SegmentRecord, ...]) -> dict[str, TargetFacts]:
        """Facts of each target from its labels.

        Raises:
            ChangedDataError: a target that equalled another column now equals a different one, or none.
        """
        shape, old = self._shape, self._old
        if old is not None and old.facts and records == old.segments:
            return old.facts
        segments = [
            Segment(self._site.path, record, len(shape.columns), shape.dtype, len(shape.targets)) for record in records
        ]
        facts = survey_segments(shape.targets, segments)
        for name, before in ({} if old is None else old.facts).items():
            require_same_twin(name, before, facts[name])
        return facts

    def _commit(
        self, segments: tuple[SegmentRecord, ...], live: LiveRecord | None, facts: dict[str, TargetFacts]
    ) -> None:
        for source in self._sources:
            if _identity(source.path) != self._found[source.name]:
                raise DataError(f"{source.path} changed while it was read; let the download end and run again")
        known = {} if self._old is None else self._old.sources
        self._site.commit(
            Manifest(
                columns=self._shape.columns,
                dtype=self._shape.dtype,
                targets=self._shape.targets,
                first_era=self._choice.first,
                every=self._choice.every,
                anchor=self._choice.anchor,
                segments=segments,
                live=live,
                sources={**known, **self._records},
                facts=facts,
            ),
            self._data / FEATURES_JSON,
        )


def _identity(path: Path) -> tuple[int, ...] | None:
    """Values that change when a file is replaced or written to; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _history(data: Path, old: Manifest | None) -> list[str]:
    """Names of the files to take in; a new store needs both files of history, an existing one takes what is there.

    Raises:
        DataError: there is no folder, or nothing in it.
    """
    if not data.is_dir():
        raise DataError(f"there is no folder {data}; give the folder that holds {', '.join(HISTORY)}")
    names = [name for name in HISTORY if old is None or (data / name).exists()]
    if not names:
        raise DataError(f"{data} holds none of {', '.join(HISTORY)}")
    return names


def _choice(old: Manifest | None, options: _Options, oldest: int) -> Choice:
    if options.every < 1 or options.first > options.last:
        raise DataError(f"eras {options.first} to {options.last}, every {options.every}: nothing can be taken")
    if old is None:
        return Choice(options.first, options.last, options.every, max(options.first, oldest))
    if options.first not in (0, old.first_era) or options.every != old.every:
        raise StoreError(
            f"the store was made with first era {old.first_era} and every {old.every}, "
            f"now first era {options.first} and every {options.every} are requested; ingest into a new store"
        )
    return Choice(old.first_era, options.last, old.every, old.anchor)
