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
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.core.errors import StoreError
from eravane.core.files import write_atomically
from eravane.data.store.digest import digest_runs, digest_text

_LONGEST_PADDING = 64
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


class MatrixDraft:
    """A matrix file being filled; its space on disk is reserved, so that filling cannot fail on a full disk.

    Args:
        path: the file; an older one is replaced.
        columns: names of the C columns.
        dtype: "int8" or "float32".
        rows: N, at least 1.

    Attributes:
        values: [C, N], zeros at first; writing into it writes the file.

    Raises:
        OSError: the disk is full or cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], dtype: str, rows: int) -> None:
        self.path = path
        digests_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        _write_zeros(path, columns, dtype, rows)
        self._place = start, stride, _ = _measure(path, blank=True)
        with path.open("r+b", buffering=0) as file:
            memory = mmap.mmap(file.fileno(), 0)
        self.values: NDArray[Any] = np.ndarray(
            (len(columns), rows), dtype, memory, start, (stride, np.dtype(dtype).itemsize)
        )

    def seal(self, offsets_E1: NDArray[np.int64], root: Path) -> MatrixLayout:
        """Flush the file to disk, then its era digests, and return its layout.

        Args:
            offsets_E1: int64 [E+1], rows of the eras.
            root: folder that the layout's path is relative to.
        """
        digests_EC = digest_runs(self.values, offsets_E1)
        with self.path.open("rb") as file:
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
        """Nothing is buffered."""

    def close(self) -> None:
        """The descriptor belongs to the caller."""


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
