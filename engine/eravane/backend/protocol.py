"""Protocol of a device, and what is done where its memory is full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Values
from eravane.core.errors import OutOfDeviceMemoryError
from eravane.core.units import format_size
from eravane_kernels.namespace import Kernels

Pool = Literal["async", "pool", "none"]
Value = TypeVar("Value")
Log = Callable[[str], None]
Part = tuple[int, Values]
"""Rows of a matrix on the host: the row they start at, and their values [C, n]."""


@dataclass(frozen=True, eq=False)
class DeviceTable:
    """Columns on a device that has no library of data frames.

    Attributes:
        values_CN: a device matrix [C, N].
        names: of its columns.
    """

    values_CN: Values
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Decoded:
    """Columns of a file as a device has decoded and checked them.

    Attributes:
        values_CR: int8 or float32 [C, R] on the host, rows in the order that was asked for.
        within: whether all int8 lie within 0..4.
    """

    values_CR: Values
    within: bool


Decode = Callable[[Path, int, Sequence[str], str, NDArray[np.int32]], Decoded | None]
"""Decodes columns of a row group of a parquet file: path, number of the group, names, "int8" or "float32", and for each
row its place in the result, -1 for none. None for columns of another type and for those with a value that is not
allowed: missing where levels are wanted, infinite where numbers are."""


class Backend(Protocol):
    """Everything that differs by device; chosen once per process."""

    @property
    def name(self) -> str:
        """The device, `cpu` or `cuda`."""
        ...

    @property
    def kernels(self) -> Kernels:
        """The kernels' namespace: takes arrays of the host or the device, its results stay on the device.

        Raises (each of its functions): OutOfDeviceMemoryError.
        """
        ...

    @property
    def xgboost_device(self) -> str:
        """Device string for XGBoost."""
        ...

    @property
    def torch_device(self) -> str:
        """Device string for torch."""
        ...

    def room(self) -> int:
        """Bytes that can still be allocated on the device."""
        ...

    def to_device(self, values: Any) -> Any:
        """An array on the device; itself where it is there already."""
        ...

    def decoder(self) -> Decode | None:
        """Decodes, checks and sorts columns of a parquet file on the device; None where the host does.

        Raises:
            DeviceError: what decodes on the device is not installed.
        """
        ...

    def reclaim(self) -> None:
        """Release unused memory of the device."""
        ...

    def hold(self, shape: tuple[int, int], dtype: str) -> Values:
        """An unwritten matrix [C, N] on the device.

        Raises:
            OutOfDeviceMemoryError: the matrix does not fit.
        """
        ...

    def load(self, parts: Iterable[Part], shape: tuple[int, int], dtype: str) -> Values:
        """One matrix [C, N] on the device, filled part by part.

        Raises:
            OutOfDeviceMemoryError: the matrix does not fit.
        """
        ...

    def fill(self, matrix: Values, parts: Iterable[Part]) -> None:
        """Write parts into a matrix on the device."""
        ...

    def stream(self, matrices: Iterable[Values]) -> Iterator[Values]:
        """Matrices one by one on the device, the next one on its way while the caller works on the last."""
        ...

    def columns_of(self, matrix: Values, places: NDArray[np.int64], rows: slice) -> Values:
        """Rows of some columns of a matrix on the device, in their order; a view where they are evenly spaced."""
        ...

    def joined(self, parts: Sequence[Values]) -> Values:
        """Matrices on the device side by side, [C, n1 + n2 + ...]."""
        ...

    def table(self, values_CN: Values, names: Sequence[str]) -> Any:
        """A device matrix as a table that XGBoost reads without a copy."""
        ...


def taken(take: Callable[[], Value], what: str, backend: Callable[[], Backend]) -> Value:
    """Memory of a device that a call takes, after cached blocks were given back where it is not there at first.

    Args:
        take: the call.
        what: names the arrays in the message.
        backend: the device, which is asked for where the memory is not there at first.

    Raises:
        OutOfDeviceMemoryError: it is not there then, either.
    """
    with suppress(MemoryError):  # as CuPy's and RMM's are; while one is handled, it keeps the arrays of the call alive
        return take()
    backend().reclaim()
    try:
        return take()
    except MemoryError as error:
        raise OutOfDeviceMemoryError(
            f"{what} did not fit on the GPU, {format_size(backend().room())} are free; take fewer eras or columns, or "
            "set compute.workers lower"
        ) from error
