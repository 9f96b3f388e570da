"""The manifest of a store: what it holds and where, with a checksum over itself; written last."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eravane.core.errors import StoreError
from eravane.core.files import write_atomically
from eravane.data.store.matrixfile import MatrixLayout
from eravane.data.store.targets import TargetFacts

MANIFEST = "manifest.json"
BUILDING = "building.json"
FORMAT = 1


@dataclass(frozen=True)
class FileRecord:
    """A small file of the store: its path relative to the store, its size in bytes and its digest."""

    file: str
    size: int
    digest: str


@dataclass(frozen=True)
class SegmentRecord:
    """Whole eras that lie in one feature file.

    Attributes:
        name: number of the segment, as its files begin.
        source: parquet file that its rows came from.
        eras: era numbers, ascending.
        rows: row count of each era.
        data_types: "train", "validation" or "test" per era.
        features: int8 or float32 matrix, never changed once sealed.
        labels: float32 matrix [targets, rows], replaced when labels arrive.
        ids: Arrow file with the row ids.
    """

    name: str
    source: str
    eras: tuple[int, ...]
    rows: tuple[int, ...]
    data_types: tuple[str, ...]
    features: MatrixLayout
    labels: MatrixLayout
    ids: FileRecord


@dataclass(frozen=True)
class LiveRecord:
    """The live rows, replaced as a whole."""

    rows: int
    features: MatrixLayout
    ids: FileRecord


@dataclass(frozen=True)
class SourceRecord:
    """A parquet file as it was when it was taken in: size in bytes and digest of its whole content."""

    size: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """Everything a store holds.

    Attributes:
        columns: feature names, in the order of the matrices.
        dtype: "int8" or "float32".
        targets: target names, in the order of the label matrices.
        first_era: oldest era that was asked for (0: none in particular).
        every: every n-th era is kept, counted from `anchor`.
        anchor: where counting starts.
        segments: in era order.
        live: the live rows, if there are any.
        sources: parquet file name -> how it was.
        facts: target -> facts from its labels; empty in stores made before 0.2, which are surveyed on demand.
    """

    columns: tuple[str, ...]
    dtype: str
    targets: tuple[str, ...]
    first_era: int
    every: int
    anchor: int
    segments: tuple[SegmentRecord, ...] = ()
    live: LiveRecord | None = None
    sources: dict[str, SourceRecord] = field(default_factory=dict)
    facts: dict[str, TargetFacts] = field(default_factory=dict)

    def files(self) -> dict[str, int]:
        """Every file that belongs to the store and has a known size: relative path -> bytes."""
        records: list[MatrixLayout | FileRecord] = []
        for entry in self.segments:
            records += [entry.features, entry.labels, entry.ids]
        if self.live is not None:
            records += [self.live.features, self.live.ids]
        return {record.file: record.size for record in records}

    def fingerprint(self) -> str:
        """Sixteen hex digits over the content of the store, without its sources."""
        live = self.live
        content = [
            (self.columns, self.dtype, self.targets),
            [(s.eras, s.rows, s.features.digests, s.labels.digests, s.ids.digest) for s in self.segments],
            None if live is None else (live.rows, live.features.digests, live.ids.digest),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def write(self, store: Path) -> None:
        """Write the manifest atomically; from then on it defines the store.

        Raises:
            OSError: the disk is full or cannot be written; the old manifest stays.
        """
        body = json.dumps(dataclasses.asdict(self), sort_keys=True)
        content = {"format": FORMAT, "checksum": _checksum(body), "store": json.loads(body)}
        write_atomically(store / MANIFEST, json.dumps(content, sort_keys=True).encode())

    @classmethod
    def read(cls, store: Path) -> Manifest:
        """Read and check the manifest of a store.

        Raises:
            StoreError: it is missing, damaged or of another format.
        """
        path = store / MANIFEST
        try:
            content = json.loads(path.read_bytes())
            body = content["store"]
            sound = content["checksum"] == _checksum(json.dumps(body, sort_keys=True))
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound and (store / "run.toml").is_file():
            raise StoreError(f"{store} is a run folder; give a dataset's folder, or a store made by `eravane ingest`")
        if not sound:
            raise StoreError(f"{path} is damaged: its checksum does not match; delete the store and ingest again")
        if content.get("format") != FORMAT:
            raise StoreError(
                f"{store} is of format {content.get('format')}, written by a newer eravane; this one reads format "
                f"{FORMAT}: upgrade it, or ingest the data into a new folder"
            )
        if body.get("prepared") is not None:
            raise StoreError(
                f"{store} holds features that eravane 0.1 prepared once (prepare.frozen); give the store that they "
                "were made from, or ingest the data into a new one"
            )
        return _build(body)


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def _build(body: dict[str, Any]) -> Manifest:
    live = body["live"]
    return Manifest(
        columns=tuple(body["columns"]),
        dtype=body["dtype"],
        targets=tuple(body["targets"]),
        first_era=body["first_era"],
        every=body["every"],
        anchor=body["anchor"],
        segments=tuple(_segment(entry) for entry in body["segments"]),
        live=None
        if live is None
        else LiveRecord(live["rows"], MatrixLayout(**live["features"]), FileRecord(**live["ids"])),
        sources={name: SourceRecord(**entry) for name, entry in body["sources"].items()},
        facts={name: TargetFacts.from_dict(entry) for name, entry in body.get("facts", {}).items()},
    )


def _segment(entry: dict[str, Any]) -> SegmentRecord:
    return SegmentRecord(
        name=entry["name"],
        source=entry["source"],
        eras=tuple(entry["eras"]),
        rows=tuple(entry["rows"]),
        data_types=tuple(entry["data_types"]),
        features=MatrixLayout(**entry["features"]),
        labels=MatrixLayout(**entry["labels"]),
        ids=FileRecord(**entry["ids"]),
    )
