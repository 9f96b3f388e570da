"""The CPU as a device: host memory is device memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.backend.protocol import Part
from eravane.core.arrays import Values
from eravane.core.errors import OutOfDeviceMemoryError
from eravane.core.memory import available_memory
from eravane.core.units import format_size
from eravane_kernels.namespace import Kernels


class CpuBackend:
    """NumPy arrays and the compiled CPU kernels."""

    name = "cpu"
    xgboost_device = "cpu"
    torch_device = "cpu"

    @property
    def kernels(self) -> Kernels:
        """The CPU kernels; compiled at their first call."""
        from eravane_kernels import cpu

        return cpu

    def room(self) -> int:
        """Bytes of memory that are still available."""
        return available_memory()

    def to_device(self, values: object) -> Values:
        """The values as a NumPy array."""
        return np.asarray(values)

    def decoder(self) -> None:
        """Arrow decodes parquet, and the ingest checks and sorts."""

    def reclaim(self) -> None:
        """Does nothing: no memory is cached."""

    def hold(self, shape: tuple[int, int], dtype: str) -> Values:
        """An unwritten matrix [C, N]."""
        needed, room = shape[0] * shape[1] * np.dtype(dtype).itemsize, self.room()
        if needed > room:
            raise OutOfDeviceMemoryError(
                f"a matrix of {shape[0]} columns x {shape[1]} rows needs {format_size(needed)}, "
                f"{format_size(room)} are free; take fewer eras or columns"
            )
        return np.empty(shape, dtype=dtype)

    def load(self, parts: Iterable[Part], shape: tuple[int, int], dtype: str) -> Values:
        """One matrix [C, N]: the only part itself where it is the whole, else a copy."""
        parts = list(parts)
        if len(parts) == 1 and parts[0][1].shape == shape:
            return parts[0][1]
        matrix = self.hold(shape, dtype)
        self.fill(matrix, parts)
        return matrix

    def fill(self, matrix: Values, parts: Iterable[Part]) -> None:
        """Copy parts into a matrix."""
        for start, values in parts:
            matrix[:, start : start + values.shape[1]] = values

    def stream(self, matrices: Iterable[Values]) -> Iterator[Values]:
        """The matrices, unchanged."""
        yield from matrices

    def columns_of(self, matrix: Values, places: NDArray[np.int64], rows: slice) -> Values:
        """Rows of some columns: a view where they are evenly spaced, else a copy."""
        step_C = np.diff(places)
        if places.size and (step_C > 0).all() and (step_C == step_C[:1]).all():
            return matrix[int(places[0]) : int(places[-1]) + 1 : int(step_C[0]) if step_C.size else 1, rows]
        return matrix[:, rows][places]

    def joined(self, parts: Sequence[Values]) -> Values:
        """Matrices side by side."""
        return cast(Values, np.concatenate(parts, axis=1))

    def table(self, values_CN: Values, names: Sequence[str]) -> pa.Table:
        """Columns as an Arrow table over the same memory."""
        fields = [pa.field(name, pa.from_numpy_dtype(values_CN.dtype), nullable=False) for name in names]
        return pa.Table.from_arrays([pa.array(column) for column in values_CN], schema=pa.schema(fields))
