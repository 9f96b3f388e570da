"""A segment: whole eras of a store, opened when it is first touched."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.calendar.eras import EraIndex, era_label
from eravane.core.errors import StoreError
from eravane.core.files import write_atomically
from eravane.data.store.digest import digest_runs, digest_text
from eravane.data.store.manifest import FileRecord, SegmentRecord
from eravane.data.store.matrixfile import MatrixLayout, digests_path, frame_digest, map_values

_LIBC = ctypes.CDLL(None)
REBUILD = "delete the store and ingest again"


class Matrix:
    """A sealed matrix of the store, mapped read-only on first use.

    Args:
        store: folder of the store.
        layout: position of the matrix.
        columns, dtype, rows: its shape.
    """

    def __init__(self, store: Path, layout: MatrixLayout, columns: int, dtype: str, rows: int) -> None:
        self.path = store / layout.file
        self.layout = layout
        self.columns, self.dtype, self.rows = columns, dtype, rows
        self._kept: dict[str, tuple[NDArray[Any], pa.Buffer]] = {}

    @property
    def opened(self) -> bool:
        """Whether the file is mapped."""
        return bool(self._kept)

    @property
    def _mapped(self) -> tuple[NDArray[Any], pa.Buffer]:
        """The first mapping stays: where threads map at the same moment, addresses are of the one that is kept."""
        if "map" not in self._kept:
            self._kept.setdefault("map", map_values(self.path, self.layout, self.columns, self.dtype, self.rows))
        return self._kept["map"]

    @property
    def values(self) -> NDArray[Any]:
        """[C, N], a read-only view of the file."""
        return self._mapped[0]

    def arrow(self, positions: NDArray[np.intp], rows: slice) -> list[pa.Array]:
        """Columns as Arrow arrays over the same memory, without a copy."""
        kind, width, whole = pa.from_numpy_dtype(self.dtype), self.values.itemsize, self._mapped[1]
        count = rows.stop - rows.start
        first = self.layout.start + rows.start * width
        return [
            pa.Array.from_buffers(kind, count, [None, whole.slice(first + int(at) * self.layout.stride, count * width)])
            for at in positions
        ]

    def expect(self) -> None:
        """Ask the kernel to read the file ahead."""
        self._advise(mmap.MADV_WILLNEED)

    def release(self) -> None:
        """Release the memory of the mapped pages; they are read again from the file on next use."""
        if self.opened:
            self._advise(mmap.MADV_DONTNEED)

    def _advise(self, advice: int) -> None:
        whole = self._mapped[1]
        _LIBC.madvise(ctypes.c_void_p(whole.address), ctypes.c_size_t(whole.size), advice)

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """The era digests as stored, uint64 [E, C].

        Raises:
            StoreError: their file is damaged.
        """
        path = digests_path(self.path)
        if digest_text(path.read_bytes()) != self.layout.digests:
            raise StoreError(f"{path} is damaged: its checksum does not match; {REBUILD}")
        table: NDArray[np.uint64] = np.load(path, allow_pickle=False)
        return table

    def verify(self, names: Sequence[str], index: EraIndex) -> None:
        """Compare every (era, column) run, and the bytes around and between the columns, with the checksums.

        Raises:
            StoreError: something was damaged; the message names file, column and era.
        """
        where = np.argwhere(digest_runs(self.values, index.offsets) != self.digests)
        if where.size:
            era, column = where[0].tolist()
            raise StoreError(
                f"{self.path}: column {names[column]!r}, era {era_label(int(index.labels[era]))} is damaged: "
                f"its checksum does not match; {REBUILD}"
            )
        if frame_digest(*self._mapped) != self.layout.frame:
            raise StoreError(f"{self.path} is damaged outside its columns: its checksum does not match; {REBUILD}")


class Segment:
    """Features, labels and ids of whole eras.

    Args:
        store: folder of the store.
        record: the segment's entry in the manifest.
        columns, dtype, targets: as in the manifest.

    Attributes:
        index: the segment's eras.
        features: int8 or float32 [C, N].
        labels: float32 [T, N], NaN where a label is not known.
    """

    def __init__(self, store: Path, record: SegmentRecord, columns: int, dtype: str, targets: int) -> None:
        self.record = record
        self.index = EraIndex.from_counts(record.eras, record.rows)
        self.features = Matrix(store, record.features, columns, dtype, self.index.rows)
        self.labels = Matrix(store, record.labels, targets, "float32", self.index.rows)
        self._store = store

    @property
    def values(self) -> NDArray[Any]:
        """The features, [C, N]."""
        return self.features.values

    def arrow(self, positions: NDArray[np.intp], rows: slice) -> list[pa.Array]:
        """Feature columns as Arrow arrays, without a copy."""
        return self.features.arrow(positions, rows)

    def blank(self) -> NDArray[np.bool_]:
        """Which features are level 2, or NaN, in every row of an era, bool [E, C]; found from the digests alone."""
        digests_EC = self.features.digests
        filler = 2 if self.features.dtype == "int8" else np.nan
        rows_E = self.index.counts
        blank_E = np.array([_constant_digest(filler, self.features.dtype, int(rows)) for rows in rows_E])
        return np.asarray(digests_EC == blank_E[:, None])

    def verify(self, columns: Sequence[str], targets: Sequence[str]) -> None:
        """Compare everything with the checksums.

        Raises:
            StoreError: something was damaged; the message names file, column and era.
        """
        self.features.verify(columns, self.index)
        self.labels.verify(targets, self.index)
        verify_file(self._store, self.record.ids)

    @cached_property
    def ids(self) -> pa.StringArray:
        """Row ids, N strings, mapped."""
        return read_ids(self._store / self.record.ids.file)


@cache
def _constant_digest(value: float, dtype: str, rows: int) -> np.uint64:
    digest: np.uint64 = digest_runs(np.full((1, rows), value, dtype=dtype), np.array([0, rows]))[0, 0]
    return digest


def verify_file(store: Path, record: FileRecord) -> None:
    """Compare a small file with its checksum.

    Raises:
        StoreError: it was damaged.
    """
    path = store / record.file
    if digest_text(path.read_bytes()) != record.digest:
        raise StoreError(f"{path} is damaged: its checksum does not match; {REBUILD}")


def write_ids(path: Path, ids: pa.StringArray, root: Path) -> FileRecord:
    """Write row ids as an Arrow file and describe it.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays([ids], schema=pa.schema([pa.field("id", pa.string(), nullable=False)]))
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content = sink.getvalue().to_pybytes()
    write_atomically(path, content)
    return FileRecord(path.relative_to(root).as_posix(), len(content), digest_text(content))


def read_ids(path: Path) -> pa.StringArray:
    """Read row ids back, without a copy."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0).column(0)
