"""The CPU as a device: what is on the host is on the device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.backend.protocol import FileBlock, Part
from eravane.calendar.eras import EraFrame
from eravane.core.errors import DataError, DeviceError


class CpuBackend:
    """NumPy arrays and the compiled CPU kernels."""

    name = "cpu"
    xgboost_device = "cpu"
    torch_device = "cpu"
    direct = False

    @property
    def ops(self) -> Any:
        """The CPU kernels; compiled at their first call."""
        from eravane_kernels import cpu

        return cpu

    @property
    def kernels(self) -> Any:
        """The CPU kernels."""
        return self.ops

    def room(self) -> int:
        """Bytes of memory that the machine can still give."""
        return available_memory()

    def to_device(self, values: Any) -> NDArray[Any]:
        """The values as a NumPy array."""
        return np.asarray(values)

    def to_host(self, values: Any) -> NDArray[Any]:
        """The values as a NumPy array."""
        return np.asarray(values)

    def load(self, parts: Iterable[Part], shape: tuple[int, int], dtype: str) -> NDArray[Any]:
        """One matrix [C, N]: the only part itself where it is the whole, else a copy."""
        matrix: NDArray[Any] | None = None
        for start, values in parts:
            if values.shape == shape:
                return values
            if matrix is None:
                matrix = self._empty(shape, dtype)
            matrix[:, start : start + values.shape[1]] = values
        return self._empty(shape, dtype) if matrix is None else matrix

    def read(self, blocks: Iterable[FileBlock], shape: tuple[int, int], dtype: str) -> NDArray[Any]:
        """One matrix [C, N], copied from the mapped files."""
        matrix = self._empty(shape, dtype)
        for block in blocks:
            with pa.memory_map(str(block.path)) as source:
                whole = source.read_buffer(source.size())
            strides = (block.stride, matrix.itemsize)
            values = np.ndarray((block.columns, block.rows), dtype, whole, block.offset, strides)
            columns = slice(block.first_column, block.first_column + block.columns)
            matrix[columns, block.first_row : block.first_row + block.rows] = values
        return matrix

    def read_parquet(self, path: Path, columns: Sequence[str], dtype: str) -> NDArray[Any]:
        """Columns of a parquet file as one matrix [C, N], decoded by Arrow one row group at a time."""
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"{path} lacks {len(missing)} columns, the first is {missing[0]!r}")
            matrix = self._empty((len(columns), file.metadata.num_rows), dtype)
            start = 0
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, columns=list(columns))
                for position, name in enumerate(columns):
                    column = table.column(name)
                    if column.null_count and dtype == "int8":
                        raise DataError(f"{path}: column {name!r} has missing values; an int8 matrix cannot hold them")
                    matrix[position, start : start + len(column)] = column.to_numpy()
                start += table.num_rows
        return matrix

    def table(self, values_CN: NDArray[Any], names: Sequence[str]) -> pa.Table:
        """Columns as an Arrow table over the same memory."""
        fields = [pa.field(name, pa.from_numpy_dtype(values_CN.dtype), nullable=False) for name in names]
        return pa.Table.from_arrays([pa.array(column) for column in values_CN], schema=pa.schema(fields))

    def stream(self, frames: Iterable[EraFrame]) -> Iterator[EraFrame]:
        """The frames as they come."""
        yield from frames

    def _empty(self, shape: tuple[int, int], dtype: str) -> NDArray[Any]:
        needed, room = shape[0] * shape[1] * np.dtype(dtype).itemsize, self.room()
        if needed > room:
            raise DeviceError(
                f"a matrix of {shape[0]} columns x {shape[1]} rows needs {needed / 1e9:.1f} GB, "
                f"{room / 1e9:.1f} GB are free; take fewer eras or columns"
            )
        return np.empty(shape, dtype=dtype)


def available_memory() -> int:
    """Bytes that processes can still get: the kernel's estimate, or what the control group leaves if that is less."""
    limits = [_meminfo()]
    for usage, limit in _CGROUP_FILES:
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
            if text != "max":
                limits.append(int(text) - int(Path(usage).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return max(0, min(limits))


_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max"),
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def _meminfo() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
