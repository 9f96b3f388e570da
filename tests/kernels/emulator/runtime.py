"""The launchers' runtime on the CPU: NumPy for CuPy, the emulator for the GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from eravane_kernels.cuda.runtime import Runtime, source

from .compiler import Sanitizer
from .module import SHARED_OPT_IN, RawModule

ORDERS = (0, 1, 2, 3)
"""Turns of threads and blocks: ascending, descending, two shuffles."""
POISON = 0xCD


class PoisonedNumpy:
    """NumPy, but that memory which nobody has written holds no zeros by luck."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = np.float64) -> np.ndarray[Any, Any]:
        array = np.empty(shape, dtype=dtype)
        array.reshape(-1).view(np.uint8)[:] = POISON
        return array

    def empty_like(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.empty(array.shape, array.dtype)


def emulated_runtime(order: int = 0, sanitizer: Sanitizer = "none", shared_bytes: int = SHARED_OPT_IN) -> Runtime:
    """A runtime whose threads and blocks take turns in `order`; little shared memory makes sorts use scratch."""

    @cache
    def module(name: str) -> RawModule:
        return RawModule(source(name), sanitizer=sanitizer, order=order)

    return Runtime(
        xp=PoisonedNumpy(),
        module=module,
        host=lambda array: array,
        address=lambda array: int(array.ctypes.data),
        cholesky=np.linalg.cholesky,
        solve_triangular=solve_triangular,
        shared_bytes=shared_bytes,
        processors=1,
    )
