"""What the engine asks of a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from eravane.calendar.eras import EraFrame

Log = Callable[[str], None]
Part = tuple[int, NDArray[Any]]
"""Rows of a matrix on the host: the row they start at, and their values [C, n]."""


@dataclass(frozen=True)
class FileBlock:
    """Columns of a matrix that lie in one piece of a file.

    Attributes:
        path: the file.
        offset: byte offset of the first column.
        stride: bytes from one column to the next.
        rows: rows of every column.
        first_column, first_row: where the block goes in the matrix.
        columns: number of columns.
    """

    path: Path
    offset: int
    stride: int
    rows: int
    first_column: int
    first_row: int
    columns: int


@dataclass(frozen=True, eq=False)
class DeviceTable:
    """Columns on a device that has no library of data frames.

    Attributes:
        values_CN: a device matrix [C, N].
        names: of its columns.
    """

    values_CN: Any
    names: tuple[str, ...]


class Backend(Protocol):
    """Everything that differs by device; chosen once per process."""

    @property
    def name(self) -> str:
        """The device, `cpu` or `cuda`."""
        ...

    @property
    def ops(self) -> Any:
        """The kernels' namespace; takes arrays of the host or the device, gives NumPy arrays."""
        ...

    @property
    def kernels(self) -> Any:
        """The same namespace, its results left on the device."""
        ...

    @property
    def xgboost_device(self) -> str:
        """Device string for XGBoost."""
        ...

    @property
    def torch_device(self) -> str:
        """Device string for torch."""
        ...

    @property
    def direct(self) -> bool:
        """Whether `read` is the quicker way from a file to the device."""
        ...

    def room(self) -> int:
        """Bytes that can still be allocated on the device."""
        ...

    def to_device(self, values: Any) -> Any:
        """An array on the device; itself where it is there already."""
        ...

    def to_host(self, values: Any) -> NDArray[Any]:
        """A NumPy array; itself where it is one already."""
        ...

    def load(self, parts: Iterable[Part], shape: tuple[int, int], dtype: str) -> Any:
        """One matrix [C, N] on the device, filled part by part.

        Raises:
            DeviceError: the matrix does not fit.
        """
        ...

    def read(self, blocks: Iterable[FileBlock], shape: tuple[int, int], dtype: str) -> Any:
        """One matrix [C, N] on the device, filled straight from files.

        Raises:
            DeviceError: the matrix does not fit.
        """
        ...

    def read_parquet(self, path: Path, columns: Sequence[str], dtype: str) -> Any:
        """Columns of a parquet file as one matrix [C, N] on the device, in the file's row order.

        Raises:
            DataError: the file lacks a column, or a column has missing values that `dtype` cannot hold.
            DeviceError: the matrix does not fit.
        """
        ...

    def table(self, values_CN: Any, names: Sequence[str]) -> Any:
        """Columns as a table that XGBoost reads without a copy.

        Args:
            values_CN: a device matrix, or any of its columns in a list: so a feature cell is a view of a window.
            names: their names.
        """
        ...

    def stream(self, frames: Iterable[EraFrame]) -> Iterator[EraFrame]:
        """Frames one by one on the device, the next one on its way while the caller works on the last."""
        ...
