"""Numba, set up once: compiled functions are cached on disk, release the GIL and use one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compiles a function in strict floating-point order."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def summing(function: Function) -> Function:
    """Compiles a function whose sums may be split over vector lanes; infinities and NaN keep their meaning."""
    return cast(Function, numba.njit(cache=True, nogil=True, fastmath={"reassoc"})(function))
