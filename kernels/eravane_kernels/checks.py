"""Argument checks; each raises ValueError naming the expected and the given value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import LEVELS, MISSING, Columns, Floats, Integers, Levels


def columns(x_CN: Columns, name: str, *dtypes: str) -> None:
    """Two axes, one of the dtypes, native byte order, aligned, every column contiguous."""
    axes(x_CN, name, 2, *dtypes)
    size = x_CN.itemsize
    if x_CN.size and x_CN.shape[1] > 1 and x_CN.strides[1] != size:
        raise ValueError(
            f"{name}: expected contiguous columns (a stride of {size} bytes between rows), given a stride of "
            f"{x_CN.strides[1]} bytes; pass an array laid out as columns x rows"
        )


def vector(y_N: Columns, name: str, rows: int, *dtypes: str) -> None:
    """One axis of `rows` contiguous values of one of the dtypes."""
    axes(y_N, name, 1, *dtypes)
    if y_N.shape[0] != rows:
        raise ValueError(f"{name}: expected {rows} rows, given {y_N.shape[0]}")
    if rows > 1 and y_N.strides[0] != y_N.itemsize:
        raise ValueError(f"{name}: expected contiguous values, given a stride of {y_N.strides[0]} bytes")


def axes(x: Columns, name: str, number: int, *dtypes: str) -> None:
    """A NumPy array of one of the dtypes with `axes` axes, native byte order, aligned."""
    wanted = " or ".join(dtypes)
    if not isinstance(x, np.ndarray):
        raise ValueError(f"{name}: expected a NumPy array of {wanted}, given {type(x).__name__}")
    if x.dtype.name not in dtypes or not x.dtype.isnative:
        raise ValueError(f"{name}: expected dtype {wanted}, given {x.dtype.str} ({x.dtype.name})")
    if x.ndim != number:
        raise ValueError(f"{name}: expected {number} axes, given shape {x.shape}")
    if not x.flags.aligned:
        raise ValueError(f"{name}: expected memory aligned to {x.itemsize} bytes, given an unaligned view")


def offsets(offsets_E1: Integers, end: int, name: str = "offsets_E1", what: str = "rows") -> None:
    """int64, one axis, from 0, never descending, ending at the number of what they divide."""
    axes(offsets_E1, name, 1, "int64")
    if offsets_E1.shape[0] == 0 or offsets_E1[0] != 0:
        raise ValueError(f"{name}: expected to begin with 0, given {offsets_E1[:1].tolist()}")
    falls = np.flatnonzero(np.diff(offsets_E1) < 0)
    if len(falls):
        at = int(falls[0])
        pair = offsets_E1[at : at + 2].tolist()
        raise ValueError(f"{name}: expected ascending values, given {pair} at positions {at} and {at + 1}")
    if offsets_E1[-1] != end:
        raise ValueError(f"{name}: expected to end at the {end} {what} given, given {int(offsets_E1[-1])}")


def shape(x: Columns, name: str, expected: tuple[int, ...], *dtypes: str) -> None:
    """Exactly this shape and one of the dtypes."""
    axes(x, name, len(expected), *dtypes)
    if x.shape != expected:
        raise ValueError(f"{name}: expected shape {expected}, given {x.shape}")


def levels(x_CN: Levels, name: str, missing: bool = True) -> None:
    """Values 0..4, and -1 where `missing` allows it."""
    least = MISSING if missing else 0
    bad_C = (x_CN.min(axis=1, initial=0) < least) | (x_CN.max(axis=1, initial=0) >= LEVELS)
    if bad_C.any():
        column = int(bad_C.argmax())
        raise bad_level(x_CN[column], name, column, missing)


def bad_level(values: Levels, name: str, column: int, missing: bool = True) -> ValueError:
    """The error for the first value of a column that is not a level."""
    least = MISSING if missing else 0
    row = int(np.argmax((values < least) | (values >= LEVELS)))
    wanted = "levels 0..4 or -1 for missing" if missing else "levels 0..4, missing values filled before"
    return ValueError(f"{name}: expected {wanted}, given {values[row]} at column {column}, row {row}")


def no_infinity(x_CN: Floats, name: str) -> None:
    """Refuses infinite values; NaN passes."""
    _every(x_CN, name, np.isinf, "finite values or NaN for missing")


def finite(x_CN: Floats, name: str) -> None:
    """Refuses infinite values and NaN."""
    _every(x_CN, name, lambda values: ~np.isfinite(values), "finite values")


def _every(x_CN: Floats, name: str, bad: Any, wanted: str) -> None:
    for column, values in enumerate(np.atleast_2d(x_CN)):
        with np.errstate(over="ignore", invalid="ignore"):
            sound = np.isfinite(values.sum())
        found = np.False_ if sound else bad(values)
        if found.any():
            row = int(np.argmax(found))
            raise ValueError(f"{name}: expected {wanted}, given {values[row]} at column {column}, row {row}")


def quantiles(values: Sequence[float]) -> None:
    """Every quantile within 0..1."""
    for value in values:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"quantiles: expected values within 0..1, given {value}")


def choice(value: str, name: str, allowed: Sequence[str]) -> None:
    """One of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, given {value!r}")


def window(value: int) -> None:
    """A number of eras, 0 or more."""
    if value < 0:
        raise ValueError(f"window: expected 0 or more eras, given {value}")


def groups(positions: Sequence[npt.NDArray[np.integer[Any]]], width: int) -> None:
    """Every group holds integer column positions within 0..width-1."""
    for number, group in enumerate(positions):
        array = np.asarray(group)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ValueError(f"groups[{number}]: expected column positions, given {array.dtype} {array.shape}")
        if array.size and (array.min() < 0 or array.max() >= width):
            raise ValueError(f"groups[{number}]: expected positions within 0..{width - 1}, given {array.tolist()}")
        if len(np.unique(array)) < array.size:
            raise ValueError(f"groups[{number}]: expected every position once, given {array.tolist()}")
