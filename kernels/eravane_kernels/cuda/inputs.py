"""Arrays for the device: checked, uploaded, and results laid out like them."""

from __future__ import annotations

from typing import Any

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Integers
from eravane_kernels.cuda.runtime import active, upload

Array = Any
"""An array on the device."""

VECTOR_BYTES = 16
LONGEST_RUN = 2**30
"""Rows of a run: kernels count them in 32 bits, step past its end by a block, and multiply sums of it in 64."""


def columns(x_CN: object, name: str, *dtypes: str) -> Array:
    """Columns on the device, checked as `checks.columns` does."""
    checks.columns(_shadow(x_CN, name), name, *dtypes)
    return upload(x_CN)


def shaped(x: object, name: str, expected: tuple[int, ...], *dtypes: str) -> Array:
    """A contiguous array on the device, checked as `checks.shape` does."""
    checks.shape(_shadow(x, name), name, expected, *dtypes)
    return active().xp.ascontiguousarray(upload(x))


def two_axes(x: Any, name: str, *dtypes: str) -> tuple[int, int]:
    """The shape of an array of two axes, checked as `checks.axes` does."""
    checks.axes(_shadow(x, name), name, 2, *dtypes)
    return int(x.shape[0]), int(x.shape[1])


def shaped_alike(x: object, name: str, expected: tuple[int, ...], *dtypes: str) -> None:
    """Checks an array as `checks.shape` does, where it lies.

    Raises:
        ValueError: a wrong shape or dtype.
    """
    checks.shape(_shadow(x, name), name, expected, *dtypes)


def offsets(offsets_E1: object, rows: int) -> Integers:
    """Era offsets on the host, checked."""
    host_E1: Integers = on_host(offsets_E1, "offsets_E1")
    checks.offsets(host_E1, rows)
    return host_E1


def on_host(x: object, name: str) -> Any:
    """The array as a NumPy array, copied from the device if it lies there."""
    _shadow(x, name)
    return active().host(x) if isinstance(x, active().xp.ndarray) else x


def _shadow(x: object, name: str) -> Any:
    """A NumPy array of the same dtype, shape and strides; of a device array one over no memory, never to be read."""
    if isinstance(x, np.ndarray):
        return x
    if not isinstance(x, active().xp.ndarray):
        raise ValueError(f"{name}: expected a {active().xp.__name__} or NumPy array, given {type(x).__name__}")
    return np.lib.stride_tricks.as_strided(np.empty(1, dtype=x.dtype), x.shape, x.strides, writeable=False)


def stride(x_CN: Array) -> np.int64:
    """Values from one column to the next, as a kernel takes it."""
    return np.int64(x_CN.strides[0] // x_CN.itemsize)


def empty_beside(x_CN: Array) -> Array:
    """An uninitialised [C, N] of the dtype of x_CN whose columns have the alignment of x_CN's, modulo 16 bytes.

    So a kernel that reads x_CN in vectors of 16 bytes can write its result in them too. Columns are contiguous, and
    up to 15 bytes apart.
    """
    runtime = active()
    width, rows = x_CN.shape
    per_vector = VECTOR_BYTES // x_CN.itemsize
    step = rows + (int(stride(x_CN)) - rows) % per_vector
    values = runtime.xp.empty(width * step + per_vector, dtype=x_CN.dtype)
    begin = (runtime.address(x_CN) - runtime.address(values)) // x_CN.itemsize % per_vector
    return values[begin : begin + width * step].reshape(width, step)[:, :rows]
