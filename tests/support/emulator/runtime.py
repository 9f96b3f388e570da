"""The launchers' runtime on the CPU: a double of CuPy, and the emulator for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy import linalg

from eravane_kernels.cuda.runtime import Runtime, source

from .arrays import DeviceArray, DeviceNumpy, to_device
from .compiler import Sanitizer
from .module import SHARED_OPT_IN, Kernel, RawModule

ORDERS = (0, 1, 2, 3)
"""Turns of threads and blocks: ascending, descending, two shuffles."""


def emulated_runtime(
    order: int = 0,
    sanitizer: Sanitizer = "none",
    shared_bytes: int = SHARED_OPT_IN,
    edit: tuple[str, str] = ("", ""),
) -> Runtime:
    """A runtime whose threads and blocks take turns in `order`; little shared memory makes sorts use scratch.

    edit: what to replace in the kernels' sources and by what, to plant a bug.
    """

    @cache
    def module(name: str) -> RawModule:
        code = source(name).replace(*edit) if edit[0] else source(name)
        return RawModule(code, sanitizer=sanitizer, order=order, arrays=DeviceArray)

    recording: list[list[Callable[[], None]]] = []

    @cache
    def kernel(file: str, name: str) -> _Launched:
        return _Launched(module(file).get_function(name), recording)

    def record(work: Callable[[], None]) -> Callable[[], None]:
        """Arguments are kept as they are now: what lies in their arrays may be other when they are run."""
        launches: list[Callable[[], None]] = []
        recording.append(launches)
        try:
            work()
        finally:
            recording.pop()
        return lambda: [run() for run in launches] and None

    xp = DeviceNumpy()
    return Runtime(
        xp=xp,
        kernel=kernel,
        host=DeviceArray.get,
        address=lambda array: int(array.ctypes.data),
        cholesky=xp.linalg.cholesky,
        solve_triangular=_solve_triangular,
        record=record,
        shared_bytes=shared_bytes,
        processors=1,
    )


class _Launched:
    """A kernel whose launches are run, or remembered while they are recorded."""

    def __init__(self, kernel: Kernel, recording: list[list[Callable[[], None]]]) -> None:
        self._kernel, self._recording = kernel, recording

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """As CuPy's."""
        return self._kernel.max_dynamic_shared_size_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        self._kernel.max_dynamic_shared_size_bytes = size

    def __call__(self, *given: Any, **named: Any) -> None:
        if self._recording:
            self._recording[-1].append(lambda: self._kernel(*given, **named))
        else:
            self._kernel(*given, **named)


def _solve_triangular(matrix: DeviceArray, right: DeviceArray, **how: Any) -> Any:
    return to_device(linalg.solve_triangular(matrix.view(np.ndarray), right.view(np.ndarray), **how))
