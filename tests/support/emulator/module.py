"""A double of `cupy.RawModule` whose kernels run on NumPy arrays."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .compiler import Sanitizer, build

MAX_THREADS = 1024
MAX_GRID = (2**31 - 1, 65535, 65535)
SHARED_DEFAULT = 48 << 10
SHARED_OPT_IN = 227 << 10


# Threads of a block, and those of other launches, share the fibers' stacks.
_ONE_AT_A_TIME = threading.Lock()


class EmulatorError(RuntimeError):
    """A launch that a GPU would refuse, hang on, or answer with nonsense."""


class RawModule:
    """Kernels of one source, compiled for the CPU.

    code: CUDA C++; sanitizer: what to build them with; order: the turns that threads and blocks take (0 ascending,
    1 descending, else the seed of a shuffle); arrays: the type of array that kernels take.
    """

    def __init__(
        self,
        code: str,
        *,
        sanitizer: Sanitizer = "none",
        order: int = 0,
        arrays: type[np.ndarray[Any, Any]] = np.ndarray,
    ) -> None:
        self._library = ctypes.CDLL(str(build(code, sanitizer)))
        self._order, self._arrays = order, arrays

    def get_function(self, name: str) -> Kernel:
        """The kernel of that name; AttributeError if there is none."""
        return Kernel(self._library, name, self._order, self._arrays)


class Kernel:
    """One kernel, called as `kernel(grid, block, arguments, shared_mem=bytes)`."""

    def __init__(self, library: ctypes.CDLL, name: str, order: int, arrays: type[np.ndarray[Any, Any]]) -> None:
        self._name, self._order, self._arrays = name, order, arrays
        self._launch = getattr(library, f"launch__{name}")
        self._launch.restype = ctypes.c_char_p
        self._threads = getattr(library, f"bound__{name}")()
        letters = ctypes.create_string_buffer(256)
        getattr(library, f"signature__{name}")(letters)
        self._parameters = _split(letters.value.decode())
        self.max_dynamic_shared_size_bytes = SHARED_DEFAULT

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        self._check_launch(grid, block, shared_mem)
        if len(args) != len(self._parameters):
            raise EmulatorError(f"{self._name}: takes {len(self._parameters)} arguments, given {len(args)}")
        held = [self._argument(*pair) for pair in zip(self._parameters, args, strict=True)]
        pointers = (ctypes.c_void_p * len(held))(*[value.ctypes.data for value in held])
        with _ONE_AT_A_TIME:
            failure = self._launch(_triple(grid), _triple(block), ctypes.c_size_t(shared_mem), self._order, pointers)
        if failure:
            raise EmulatorError(f"{self._name}: {failure.decode()}")

    def _check_launch(self, grid: Sequence[int], block: Sequence[int], shared_mem: int) -> None:
        threads = int(np.prod(block))
        if not 1 <= threads <= min(self._threads, MAX_THREADS):
            raise EmulatorError(f"{self._name}: {threads} threads a block, allowed are 1 to {self._threads}")
        if any(not 1 <= size <= most for size, most in zip(grid, MAX_GRID, strict=False)):
            raise EmulatorError(f"{self._name}: grid {tuple(grid)}, allowed are 1 to {MAX_GRID}")
        allowed = min(self.max_dynamic_shared_size_bytes, SHARED_OPT_IN)
        if shared_mem > allowed:
            raise EmulatorError(f"{self._name}: {shared_mem} bytes of shared memory, allowed are {allowed}")

    def _argument(self, parameter: str, value: Any) -> np.ndarray[Any, Any]:
        """The value as it is passed: an address for an array, else the number."""
        expected = np.dtype(parameter[-1])
        kind: type = self._arrays if parameter[0] == "P" else np.generic
        if not isinstance(value, kind) or value.dtype != expected:
            given = getattr(value, "dtype", type(value).__name__)
            raise EmulatorError(f"{self._name}: a parameter is {parameter}, given {given} ({type(value).__name__})")
        return np.array([value.ctypes.data], np.uint64) if parameter[0] == "P" else np.array([value])


def _split(letters: str) -> list[str]:
    """Parameters of a signature: "PbqPd" is ["Pb", "q", "Pd"]."""
    return re.findall("P?[^P]", letters)


def _triple(size: Sequence[int]) -> ctypes.Array[ctypes.c_uint]:
    return (ctypes.c_uint * 3)(*size, *[1] * (3 - len(size)))
