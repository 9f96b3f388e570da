"""From the dataset's parquet files to a store: streamed, checked, incremental, resumable."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eravane.catalog import listed_features
from eravane.errors import DataError, StoreError
from eravane.files import exclusive
from eravane.storage.builder import Builder, LabelChanges, Shape, clear
from eravane.storage.cast import stored_dtype
from eravane.storage.digest import digest_file
from eravane.storage.intake import Choice, Intake, check_unique, prepare_intake
from eravane.storage.manifest import BUILDING, MANIFEST, Manifest, SourceRecord
from eravane.storage.source import Source
from eravane.storage.transfer import Progress
from eravane.store import EraStore, IngestReport

HISTORY = ("train.parquet", "validation.parquet")
LIVE = "live.parquet"
FEATURES_JSON = "features.json"
_NO_LAST = 1 << 30


def ingest(
    data_dir: Path | str,
    store_dir: Path | str,
    *,
    columns: Sequence[str] | None = None,
    first_era: int | None = None,
    last_era: int | None = None,
    every: int = 1,
    progress: Progress | None = None,
) -> EraStore:
    """Bring a store up to date with a folder of parquet files.

    A new store takes `train.parquet`, `validation.parquet` and, where there is one, `live.parquet`. An existing store
    gets the new eras, newly known and corrected labels, and the new live rows; its feature rows never change. A killed
    ingest is resumed by calling again and ends with the same bytes.

    Args:
        data_dir: folder of the dataset.
        store_dir: folder of the store; made if absent.
        columns: features to keep, in this order (None: every feature of `features.json`, in file order).
        first_era, last_era: oldest and newest era to take (None: all).
        every: take every n-th era, counted from the first.
        progress: called with a file's name, cells done and cells in all.

    Returns:
        The opened store; `report` says what changed.

    Raises:
        DataError: the files break the dataset's contract, or an era that the store has was changed.
        StoreError: the folder holds something else or a store of another shape, the disk is full, or another
            process is writing.
    """
    data, path = Path(data_dir), Path(store_dir)
    fresh = not path.exists()
    with _storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with exclusive(path), _storage_errors(path):
        old = _read_manifest(path)
        try:
            report = _update(
                data, path, old, columns, (first_era or 0, last_era or _NO_LAST, every), progress or _silent
            )
        except DataError:
            clear(path, old)
            if fresh:
                path.rmdir()
            raise
    store = EraStore.open(path)
    store.report = report
    return store


def _update(
    data: Path,
    path: Path,
    old: Manifest | None,
    columns: Sequence[str] | None,
    eras: tuple[int, int, int],
    progress: Progress,
) -> IngestReport:
    sources = _open_sources(data, old)
    shape = _shape_of(data, sources, old, columns)
    digests = {source.name: digest_file(source.path) for source in sources}
    era_rows = {source.name: source.eras() for source in sources if source.name != LIVE}
    choice = _choice(old, eras, era_rows)
    builder = Builder(path, old, shape)
    builder.begin({"sources": digests, "shape": asdict(shape), "choice": asdict(choice), "old": _fingerprint(old)})
    intakes: list[Intake] = []
    for source in sources:
        if source.name != LIVE:
            planned = [plan for intake in intakes for plan in intake.plans]
            intakes.append(
                prepare_intake(source, era_rows[source.name], choice, builder.segments, planned, shape.row_bytes)
            )
    check_unique(intakes, builder.segments)
    changes = LabelChanges()
    segments = {record.name: record for record in (old.segments if old else ())}
    for intake in intakes:
        for record in [*builder.relabel(intake, changes), *builder.add(intake, progress)]:
            segments[record.name] = record
    live = old.live if old else None
    for source in sources:
        if source.name == LIVE:
            source.require_live()
            live = builder.add_live(source, digests[LIVE])
    records = {source.name: SourceRecord(source.path.stat().st_size, digests[source.name]) for source in sources}
    manifest = Manifest(
        columns=shape.columns,
        dtype=shape.dtype,
        targets=shape.targets,
        first_era=choice.first,
        every=choice.every,
        anchor=choice.anchor,
        segments=tuple(segments[name] for name in sorted(segments)),
        live=live,
        sources={**(old.sources if old else {}), **records},
    )
    builder.commit(manifest)
    added = [plan for intake in intakes for plan in intake.plans]
    return IngestReport(
        eras_added=tuple(era for plan in added for era in plan.eras),
        rows_added=sum(rows for plan in added for rows in plan.rows),
        labels_filled=dict(changes.filled),
        labels_corrected=dict(changes.corrected),
        labels_withdrawn=dict(changes.withdrawn),
        live_rows=live.rows if live else 0,
    )


def _open_sources(data: Path, old: Manifest | None) -> list[Source]:
    """The files to take in; a new store needs both files of history, an existing one takes what is there."""
    if not data.is_dir():
        raise DataError(f"there is no folder {data}; give the folder that holds {', '.join(HISTORY)}")
    present = [name for name in (*HISTORY, LIVE) if (data / name).exists()]
    needed = present if old is not None else [*HISTORY, *(name for name in present if name == LIVE)]
    return [Source(data / name) for name in needed]


def _shape_of(data: Path, sources: Sequence[Source], old: Manifest | None, columns: Sequence[str] | None) -> Shape:
    """Columns, dtype and targets, the same for every file and for the store as it is."""
    history = [source for source in sources if source.name != LIVE]
    if old is not None:
        names, targets = old.columns, old.targets
        if columns is not None and tuple(columns) != names:
            raise StoreError(
                f"the store has {len(names)} columns, {len(columns)} columns, not the same, were asked for; "
                "ingest into a new store"
            )
    else:
        names = _all_features(data, history[0]) if columns is None else tuple(columns)
        targets = history[0].targets
    for source in sources:
        _require(source, names, "feature")
        if source in history:
            _require(source, targets, "target")
    dtype = old.dtype if old is not None else stored_dtype(history[0], names)
    return Shape(names, dtype, targets)


def _all_features(data: Path, source: Source) -> tuple[str, ...]:
    """Every feature column of a file, checked against `features.json`."""
    listed = listed_features(data / FEATURES_JSON)
    known = set(listed)
    extra = [name for name in source.features if name not in known]
    if extra:
        raise DataError(
            f"{source.path}: {len(extra)} feature columns are not in {FEATURES_JSON}, the first is {extra[0]!r}; "
            "the files are of different versions of the dataset"
        )
    _require(source, listed, f"{FEATURES_JSON} feature")
    return source.features


def _require(source: Source, names: Sequence[str], kind: str) -> None:
    missing = [name for name in names if name not in source.types]
    if missing:
        raise DataError(
            f"{source.path} lacks {len(missing)} {kind} columns, the first is {missing[0]!r}; "
            "the files are of different versions of the dataset"
        )


def _choice(old: Manifest | None, eras: tuple[int, int, int], era_rows: Mapping[str, NDArray[np.int32]]) -> Choice:
    first, last, every = eras
    if old is None:
        oldest = min(int(era_N.min()) for era_N in era_rows.values())
        return Choice(first, last, every, max(first, oldest))
    if (first or old.first_era, every) != (old.first_era, old.every):
        raise StoreError(
            f"the store was made with first_era {old.first_era} and every {old.every}, "
            f"now {first} and {every} are asked for; ingest into a new store"
        )
    return Choice(old.first_era, last, every, old.anchor)


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.read(path)
    except FileNotFoundError:
        pass
    foreign = [
        entry.name
        for entry in path.iterdir()
        if entry.name not in (BUILDING, "segments", MANIFEST + ".part", BUILDING + ".part")
    ]
    if foreign:
        raise StoreError(f"{path} is no store, it holds {foreign[0]!r}; give a new or empty folder")
    return None


def _fingerprint(old: Manifest | None) -> str:
    return "" if old is None else old.fingerprint()


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Say in the store's words that the disk is full or cannot be written."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "free some space and run again to resume" if full else "check the path and its permissions"
        raise StoreError(f"cannot write the store {path}: {error.strerror or error}; {mend}") from error


def _silent(_name: str, _done: int, _total: int) -> None:
    pass
