"""Arrays on their way to the device: checked, uploaded, and results laid out beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Integers
from eravane_kernels.cuda.runtime import active, upload

Array = Any
"""An array on the device."""

VECTOR_BYTES = 16
LONGEST_RUN = 2**31 - 1


def columns(x_CN: Any, name: str, *dtypes: str) -> Array:
    """Columns on the device, checked as `checks.columns` does."""
    x_CN = _device(x_CN, name)
    checks.columns(_shadow(x_CN), name, *dtypes)
    return x_CN


def vector(y_N: Any, name: str, rows: int, *dtypes: str) -> Array:
    """A vector on the device, checked as `checks.vector` does."""
    y_N = _device(y_N, name)
    checks.vector(_shadow(y_N), name, rows, *dtypes)
    return y_N


def shaped(x: Any, name: str, expected: tuple[int, ...], *dtypes: str) -> Array:
    """A contiguous array on the device, checked as `checks.shape` does."""
    x = _device(x, name)
    checks.shape(_shadow(x), name, expected, *dtypes)
    return active().xp.ascontiguousarray(x)


def offsets(offsets_E1: Any, rows: int) -> Integers:
    """Era offsets on the host, checked; no run may have 2^31 rows, which kernels count in 32 bits."""
    host_E1: Integers = offsets_E1
    if not isinstance(offsets_E1, np.ndarray):
        host_E1 = active().host(_device(offsets_E1, "offsets_E1"))
    checks.offsets(host_E1, rows)
    longest = int(np.diff(host_E1).max(initial=0))
    if longest > LONGEST_RUN:
        raise ValueError(f"offsets_E1: expected eras of at most {LONGEST_RUN} rows, given one of {longest}")
    return host_E1


def _device(x: Any, name: str) -> Array:
    try:
        return upload(x)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _shadow(x: Array) -> Any:
    """A NumPy array of the same dtype, shape and strides over no memory: something to check, never to read."""
    if isinstance(x, np.ndarray):
        return x
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
