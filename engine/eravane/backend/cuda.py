"""An NVIDIA GPU as a device: CuPy arrays, filled from host memory, files or parquet in chunks of bounded size.

Importing this module imports CuPy; cuDF, RMM and KvikIO are imported where they are used and may be absent, but for
reading parquet, which needs cuDF. Written against CuPy 14 and RAPIDS 26.x.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import cupy as cp
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.backend.protocol import DeviceTable, FileBlock, Log, Part
from eravane.calendar.eras import EraFrame
from eravane.core.errors import DataError, DeviceError

STAGING_BYTES = 64 << 20
CHUNK_BYTES = 1 << 30
# Left free on the device: kernels, cuBLAS and XGBoost's own small buffers.
RESERVE_BYTES = 512 << 20
_PROBE = 'extern "C" __global__ void probe(int* out) { out[threadIdx.x] = threadIdx.x; }'


def probe() -> str | None:
    """Why the GPU does not work, or None: a kernel is compiled, run and read back."""
    try:
        if cp.cuda.runtime.getDeviceCount() == 0:
            return "the driver reports no CUDA device"
        out = cp.zeros(32, dtype=cp.int32)
        cp.RawModule(code=_PROBE).get_function("probe")((1,), (32,), (out,))
        if not np.array_equal(out.get(), np.arange(32)):
            return "a test kernel gave wrong results"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None


class CudaBackend:
    """CuPy arrays and the CUDA kernels on the current device.

    Args:
        pool: "async" puts cuDF and CuPy on the driver's asynchronous pool, "pool" on a growing pool of RMM's own,
            "none" leaves both libraries to themselves.
        log: told about the device and its memory.
    """

    name = "cuda"
    xgboost_device = "cuda"
    torch_device = "cuda"

    def __init__(self, pool: Literal["async", "pool", "none"], log: Log) -> None:
        properties = cp.cuda.runtime.getDeviceProperties(cp.cuda.Device().id)
        name, size = properties["name"].decode(), properties["totalGlobalMem"]
        log(f"device cuda: {name}, {size / 1e9:.0f} GB, {_use_pool(pool)}")
        self._staging: list[_Staging] = []

    @property
    def ops(self) -> Any:
        """The CUDA kernels, their results brought to the host."""
        return _HostResults(self.kernels)

    @property
    def kernels(self) -> Any:
        """The CUDA kernels, their results left on the device."""
        from eravane_kernels import cuda

        return cuda

    @property
    def direct(self) -> bool:
        """Whether KvikIO is there and was told to try GPUDirect (KVIKIO_COMPAT_MODE is OFF or AUTO).

        Without GPUDirect, pinned copies out of the page cache are the shorter way.
        """
        wanted = os.environ.get("KVIKIO_COMPAT_MODE", "").upper() in ("OFF", "FALSE", "NO", "0", "AUTO")
        return wanted and importlib.util.find_spec("kvikio") is not None

    def room(self) -> int:
        """Bytes that can still be allocated: what the driver has free and what CuPy's pool holds unused."""
        free, _ = cp.cuda.runtime.memGetInfo()
        return max(0, int(free) + int(cp.get_default_memory_pool().free_bytes()) - RESERVE_BYTES)

    def to_device(self, values: Any) -> Any:
        """A CuPy array; itself where it is one already."""
        return cp.asarray(values)

    def to_host(self, values: Any) -> NDArray[Any]:
        """A NumPy array; itself where it is one already."""
        return values if isinstance(values, np.ndarray) else cp.asnumpy(values)

    def load(self, parts: Iterable[Part], shape: tuple[int, int], dtype: str) -> Any:
        """One matrix [C, N], filled through two pinned buffers, so that copying and sending overlap."""
        matrix = self._empty(shape, dtype)
        for start, values in parts:
            rows = slice(start, start + values.shape[1])
            width = max(1, STAGING_BYTES // max(1, values.shape[1] * values.itemsize))
            for first in range(0, values.shape[0], width):
                block = values[first : first + width]
                self._next_staging().send(block, matrix[first : first + block.shape[0], rows])
        self._settle()
        return matrix

    def read(self, blocks: Iterable[FileBlock], shape: tuple[int, int], dtype: str) -> Any:
        """One matrix [C, N], read by KvikIO: straight from storage where GPUDirect works, else through its buffers."""
        import kvikio

        matrix = self._empty(shape, dtype)
        for block in blocks:
            with kvikio.CuFile(block.path, "r") as file:
                for first in range(0, block.columns, max(1, STAGING_BYTES // block.stride)):
                    count = min(block.columns - first, max(1, STAGING_BYTES // block.stride))
                    raw = cp.empty(count * block.stride, dtype=cp.uint8)
                    wanted = (count - 1) * block.stride + block.rows * matrix.itemsize
                    file.pread(raw, wanted, block.offset + first * block.stride).get()
                    lying = raw.reshape(count, block.stride)[:, : block.rows * matrix.itemsize].view(dtype)
                    columns = slice(block.first_column + first, block.first_column + first + count)
                    matrix[columns, block.first_row : block.first_row + block.rows] = lying
        return matrix

    def read_parquet(self, path: Path, columns: Sequence[str], dtype: str) -> Any:
        """Columns of a parquet file as one matrix [C, N], decoded by cuDF in chunks of about a gigabyte.

        The chunked reader hands over one table at a time, so the peak is the matrix plus a chunk. A column that the
        file declares optional comes with a validity mask, which is looked at and dropped: only real nulls cost.
        """
        import pylibcudf as plc

        with pq.ParquetFile(path) as file:
            known, rows = set(file.schema_arrow.names), file.metadata.num_rows
        missing = [name for name in columns if name not in known]
        if missing:
            raise DataError(f"{path} lacks {len(missing)} columns, the first is {missing[0]!r}")
        matrix = self._empty((len(columns), rows), dtype)
        options = plc.io.parquet.ParquetReaderOptions.builder(plc.io.SourceInfo([str(path)])).build()
        options.set_columns(list(columns))
        reader = plc.io.parquet.ChunkedParquetReader(options, chunk_read_limit=CHUNK_BYTES, pass_read_limit=CHUNK_BYTES)
        start = 0
        while reader.has_next():
            chunk = reader.read_chunk()
            held = dict(zip(chunk.column_names(), chunk.tbl.columns(), strict=True))
            count = chunk.tbl.num_rows()
            for position, name in enumerate(columns):
                _place(held[name], matrix[position, start : start + count], f"{path}: column {name!r}")
            start += count
        return matrix

    def table(self, values_CN: Any, names: Sequence[str]) -> Any:
        """Columns as a cuDF frame over the same memory, or without cuDF as their matrix; XGBoost reads either."""
        if importlib.util.find_spec("cudf") is None:
            matrix = values_CN if isinstance(values_CN, cp.ndarray) else cp.stack(values_CN)
            return DeviceTable(matrix, tuple(names))
        import cudf

        return cudf.DataFrame({name: cudf.Series(column) for name, column in zip(names, values_CN, strict=True)})

    def stream(self, frames: Iterable[EraFrame]) -> Iterator[EraFrame]:
        """Frames one by one on the device; the next is sent while the caller works on the last."""
        ready: EraFrame | None = None
        for frame in frames:
            staging = self._next_staging(frame.values.nbytes)
            values = cp.empty(frame.values.shape, dtype=frame.values.dtype)
            staging.send(frame.values, values)
            if ready is not None:
                yield ready
            staging.wait()
            ready = EraFrame(values, frame.columns, frame.index, frame.ids)
        if ready is not None:
            yield ready

    def _empty(self, shape: tuple[int, int], dtype: str) -> Any:
        needed, room = shape[0] * shape[1] * np.dtype(dtype).itemsize, self.room()
        if needed > room:
            raise DeviceError(
                f"a matrix of {shape[0]} columns x {shape[1]} rows needs {needed / 1e9:.1f} GB, the GPU has "
                f"{room / 1e9:.1f} GB free; take fewer eras or columns, or stream era by era"
            )
        return cp.empty(shape, dtype=dtype)

    def _next_staging(self, size: int = STAGING_BYTES) -> _Staging:
        """The buffer that was used longest ago, its last transfer done."""
        if len(self._staging) < 2:
            self._staging.append(_Staging())
        else:
            self._staging.append(self._staging.pop(0))
        self._staging[-1].make_room(size)
        return self._staging[-1]

    def _settle(self) -> None:
        for staging in self._staging:
            staging.wait()


class _Staging:
    """A pinned host buffer, a device buffer of the same size and the stream between them."""

    def __init__(self) -> None:
        self._stream = cp.cuda.Stream(non_blocking=True)
        self._size = 0

    def make_room(self, size: int) -> None:
        self.wait()
        if size > self._size:
            self._pinned = np.frombuffer(cp.cuda.alloc_pinned_memory(size), dtype=np.uint8, count=size)
            self._device = cp.empty(size, dtype=cp.uint8)
            cp.cuda.get_current_stream().synchronize()
            self._size = size

    def send(self, values: NDArray[Any], target: Any) -> None:
        """Copy values [C, n] into the pinned buffer and start their way into a device view of the same shape."""
        self.make_room(values.nbytes)
        pinned = self._pinned[: values.nbytes].view(values.dtype).reshape(values.shape)
        pinned[...] = values
        self._stream.wait_event(cp.cuda.get_current_stream().record())
        arrived = self._device[: values.nbytes].view(values.dtype).reshape(values.shape)
        with self._stream:
            arrived.set(pinned, stream=self._stream)
            target[...] = arrived

    def wait(self) -> None:
        """Block until everything that was sent has arrived."""
        self._stream.synchronize()


class _HostResults:
    """The kernels' namespace with results brought to the host."""

    def __init__(self, kernels: ModuleType) -> None:
        self._kernels = kernels

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._kernels, name)

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            return _on_host(function(*arguments, **options))

        setattr(self, name, call)
        return call


def matrix_of(table: Any) -> tuple[Any, tuple[str, ...]]:
    """Columns of a table on the device as one matrix [C, N], and their names.

    Columns that lie one after the other at even distances, as those of `CudaBackend.table` do, are taken where they
    are; others are copied.

    Args:
        table: a cuDF frame of one type without missing values, or a `DeviceTable`.
    """
    if isinstance(table, DeviceTable):
        return table.values_CN, table.names
    names = tuple(table.columns)
    faces = [table[name].__cuda_array_interface__ for name in names]
    first, kinds = faces[0], {(face["typestr"], face["shape"], face.get("mask")) for face in faces}
    step_C = np.diff([face["data"][0] for face in faces])
    dense = all(face.get("strides") in (None, (np.dtype(face["typestr"]).itemsize,)) for face in faces)
    if len(kinds) > 1 or not dense or (step_C != step_C[:1]).any() or (step_C[:1] <= 0).any():
        return cp.stack([cp.asarray(table[name]) for name in names]), names
    itemsize = np.dtype(first["typestr"]).itemsize
    step = int(step_C[0]) if len(step_C) else first["shape"][0] * itemsize
    even = {**first, "shape": (len(names), *first["shape"]), "strides": (step, itemsize)}
    return cp.asarray(_Held(even, table)), names


class _Held:
    """Memory on the device that belongs to somebody else, who lives as long as this."""

    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__cuda_array_interface__ = interface
        self._owner = owner


def _on_host(result: Any) -> Any:
    if isinstance(result, cp.ndarray):
        return cp.asnumpy(result)
    if isinstance(result, tuple):
        return tuple(_on_host(entry) for entry in result)
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return dataclasses.replace(
            result, **{item.name: _on_host(getattr(result, item.name)) for item in dataclasses.fields(result)}
        )
    return result


def _place(column: Any, target: Any, where: str) -> None:
    """Copy one decoded column into its place in the matrix."""
    nulls = column.null_count()
    if nulls and target.dtype != cp.float32:
        raise DataError(f"{where} has {nulls} missing values; an int8 matrix cannot hold them")
    values = _values(column)
    target[...] = values
    if nulls:
        bits = cp.unpackbits(cp.asarray(column.null_mask()).view(cp.uint8), bitorder="little")
        offset = column.offset()
        target[bits[offset : offset + column.size()] == 0] = cp.nan


def _values(column: Any) -> Any:
    """The values of a pylibcudf column as a CuPy array over the same memory."""
    dtype = np.dtype(_NUMPY_OF[column.type().id().name])
    raw = cp.asarray(column.data()).view(cp.uint8)
    start = column.offset() * dtype.itemsize
    return raw[start : start + column.size() * dtype.itemsize].view(dtype)


_NUMPY_OF = {
    "BOOL8": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "FLOAT32": "float32",
    "FLOAT64": "float64",
}


@cache
def _use_pool(pool: Literal["async", "pool", "none"]) -> str:
    """Put CuPy and cuDF on one pool of device memory, once in a process, and say which."""
    if pool == "none":
        return "memory pools of the libraries"
    try:
        import rmm
        from rmm.allocators.cupy import rmm_cupy_allocator
    except ImportError:
        return "CuPy's memory pool (rmm is not installed)"
    if pool == "async":
        resource = rmm.mr.CudaAsyncMemoryResource()
    else:
        resource = rmm.mr.PoolMemoryResource(rmm.mr.CudaMemoryResource())
    rmm.mr.set_current_device_resource(resource)
    cp.cuda.set_allocator(rmm_cupy_allocator)
    return f"one {pool} memory pool for CuPy and cuDF"
