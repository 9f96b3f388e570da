"""A matrix [columns, rows] on disk: one Arrow IPC record batch, uncompressed, mapped into memory.

With non-nullable columns of one width, Arrow pads every column to the same length, so the columns lie at a uniform
stride and the whole batch is one strided NumPy view. Beside the file lies a table of digests, one per era and column;
it is written last, so a matrix without it is unfinished.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.core.errors import StoreError
from eravane.core.files import write_atomically
from eravane.data.store.digest import digest_runs, digest_text

_LONGEST_PADDING = 64
# Bytes of a matrix per write: the page cache takes larger pieces into larger pages, at half the speed.
PIECE_BYTES = 64 << 10
ARROW_TYPES = {"int8": pa.int8(), "float32": pa.float32()}


@dataclass(frozen=True)
class MatrixLayout:
    """Position of a matrix in its file.

    Attributes:
        file: path relative to the store.
        size: bytes of the file.
        start: byte offset of the first column.
        stride: bytes from one column to the next.
        frame: digest of the rest of the file: Arrow's metadata and the padding of the columns.
        digests: digest of the file that holds the era digests.
    """

    file: str
    size: int
    start: int
    stride: int
    frame: str
    digests: str


def digests_path(path: Path) -> Path:
    """The file with the era digests of a matrix file."""
    return path.with_suffix(".digests.npy")


class Buffers:
    """Memory in which matrices are filled: new pages of a mapped file cost several times as much to write.

    Args:
        size: bytes of each buffer.
        most: bytes of all of them.
    """

    def __init__(self, size: int, most: int) -> None:
        self._size, self._left, self._spare = size, most // max(size, 1), list[NDArray[np.uint8]]()

    def take(self) -> NDArray[np.uint8] | None:
        """An unwritten buffer; None where all are in use."""
        if self._spare:
            return self._spare.pop()
        self._left -= 1
        # Memory of NumPy comes in pages of 2 MB, which take longer to come by where free memory is scattered.
        return np.frombuffer(mmap.mmap(-1, self._size), np.uint8) if self._left >= 0 else None

    def give(self, buffer: NDArray[np.uint8]) -> None:
        """Keep a buffer for the next matrix: new memory costs time, too."""
        self._spare.append(buffer)


class MatrixDraft:
    """A matrix file being filled; its space on disk is reserved, so that filling cannot fail on a full disk.

    Args:
        path: the file; an older one is replaced.
        columns: names of the C columns.
        dtype: "int8" or "float32".
        rows: N, at least 1.

    Attributes:
        size: bytes of the columns.
        buffers: of at least that size, in which it is filled before it is written (None: in the file, mapped).

    Raises:
        OSError: the disk is full or cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], dtype: str, rows: int) -> None:
        self.path, self.rows = path, rows
        digests_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        _write_zeros(path, columns, dtype, rows)
        self._place = _measure(path, blank=True)
        self._shape, self._dtype = (len(columns), self._place[1]), np.dtype(dtype)
        self.size = len(columns) * self._place[1]
        self.buffers: Buffers | None = None
        self._buffer: NDArray[np.uint8] | None = None

    @cached_property
    def values(self) -> NDArray[Any]:
        """[C, N], to be filled; in a buffer if one is free at the first use."""
        columns, stride = self._shape
        self._buffer = None if self.buffers is None else self.buffers.take()
        memory: Any = self._buffer
        if memory is None:
            with self.path.open("r+b", buffering=0) as file:
                memory = mmap.mmap(file.fileno(), 0)
        else:
            memory[: self.size].reshape(self._shape)[:, self.rows * self._dtype.itemsize :] = 0
        start = self._place[0] if self._buffer is None else 0
        return np.ndarray((columns, self.rows), self._dtype, memory, start, (stride, self._dtype.itemsize))

    def seal(self, offsets_E1: NDArray[np.int64], root: Path) -> MatrixLayout:
        """Write the file to disk, then its era digests, and return its layout; `values` are used no more.

        Args:
            offsets_E1: int64 [E+1], rows of the eras.
            root: folder that the layout's path is relative to.
        """
        digests_EC = digest_runs(self.values, offsets_E1)
        with self.path.open("r+b") as file:
            if self._buffer is not None and self.buffers is not None:
                file.seek(self._place[0])
                for begin in range(0, self.size, PIECE_BYTES):
                    file.write(self._buffer[begin : min(begin + PIECE_BYTES, self.size)].data)
                file.flush()
                self.buffers.give(self._buffer)
            os.fsync(file.fileno())
        write_atomically(digests_path(self.path), _npy(digests_EC))
        return _layout(self.path, root, *self._place)


def describe(path: Path, root: Path) -> MatrixLayout:
    """The layout of a sealed matrix file, relative to a folder."""
    return _layout(path, root, *_measure(path))


def map_values(path: Path, layout: MatrixLayout, columns: int, dtype: str, rows: int) -> tuple[NDArray[Any], pa.Buffer]:
    """Map a matrix read-only: the strided view [C, N] and the whole file as an Arrow buffer, both without a copy.

    No file stays open, so a store may have more segments than a process may have files.
    """
    with pa.memory_map(str(path)) as source:
        whole = source.read_buffer(source.size())
    strides = (layout.stride, np.dtype(dtype).itemsize)
    return np.ndarray((columns, rows), dtype, whole, layout.start, strides), whole


def _layout(path: Path, root: Path, start: int, stride: int, frame: str) -> MatrixLayout:
    return MatrixLayout(
        file=path.relative_to(root).as_posix(),
        size=path.stat().st_size,
        start=start,
        stride=stride,
        frame=frame,
        digests=digest_text(digests_path(path).read_bytes()),
    )


def frame_digest(values_CN: NDArray[Any], whole: pa.Buffer, *, blank: bool = False) -> str:
    """Digest of every byte of a mapped file that is no value of its matrix: Arrow's metadata and the padding.

    blank: the padding is known to be zeros, and is not read.
    """
    columns, rows = values_CN.shape
    start, stride = values_CN.__array_interface__["data"][0] - whole.address, values_CN.strides[0]
    width = rows * values_CN.itemsize
    shape = columns - 1, stride - width
    padding = bytes(shape[0] * shape[1]) if blank else _bytes(whole, shape, start + width, stride)
    tail = whole[start + (columns - 1) * stride + width :]
    return digest_text(whole[:start].to_pybytes(), padding, tail.to_pybytes())


def _bytes(whole: pa.Buffer, shape: tuple[int, int], start: int, stride: int) -> bytes:
    return np.ndarray(shape, np.uint8, whole, start, (stride, 1)).tobytes()


class _SparseSink:
    """A file that leaves holes where the zeros of the columns would go, so that reserving space writes nothing."""

    closed = False

    def __init__(self, descriptor: int, zeros: pa.Buffer) -> None:
        self._descriptor = descriptor
        self._zeros = zeros.address
        self.position = 0

    def write(self, data: Any) -> int:
        size = len(data)
        column = isinstance(data, pa.Buffer) and data.address == self._zeros
        padding = size < _LONGEST_PADDING and not any(data)
        if not column and not padding:
            os.pwrite(self._descriptor, data, self.position)
        self.position += size
        return size

    def tell(self) -> int:
        return self.position

    def flush(self) -> None:
        """Does nothing: nothing is buffered."""

    def close(self) -> None:
        """Does nothing: the descriptor belongs to the caller."""


def _write_zeros(path: Path, columns: Sequence[str], dtype: str, rows: int) -> None:
    kind = ARROW_TYPES[dtype]
    zeros = pa.py_buffer(np.zeros(rows, dtype=dtype))
    schema = pa.schema([pa.field(name, kind, nullable=False) for name in columns])
    column = pa.Array.from_buffers(kind, rows, [None, zeros])
    batch = pa.RecordBatch.from_arrays([column] * len(columns), schema=schema)
    with path.open("xb", buffering=0) as file:
        sink = _SparseSink(file.fileno(), zeros)
        with pa.ipc.new_file(pa.PythonFile(sink, "w"), schema) as writer:
            writer.write_batch(batch)
        os.posix_fallocate(file.fileno(), 0, sink.position)


def _measure(path: Path, *, blank: bool = False) -> tuple[int, int, str]:
    """Ask Arrow for the positions of the columns.

    Returns:
        Byte offset of the first column, the stride, checked to be the same for all, and the digest of what surrounds
        the columns.
    """
    with pa.memory_map(str(path)) as source:
        whole = source.read_buffer(source.size())
        source.seek(0)
        columns = pa.ipc.open_file(source).get_batch(0).columns
    places_C = np.array([column.buffers()[1].address - whole.address for column in columns])
    steps = set(np.diff(places_C).tolist()) or {columns[0].buffers()[1].size}
    if len(steps) != 1 or any(column.buffers()[0] is not None for column in columns):
        raise StoreError(f"pyarrow {pa.__version__} does not lay out the columns of {path} evenly; use another version")
    start, stride = int(places_C[0]), int(steps.pop())
    strides = (stride, columns[0].type.bit_width // 8)
    values = np.ndarray((len(columns), len(columns[0])), columns[0].type.to_pandas_dtype(), whole, start, strides)
    return start, stride, frame_digest(values, whole, blank=blank)


def _npy(table: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()
